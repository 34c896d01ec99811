package jellyfin

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// File is one of Jellyfin's settings files.
type File struct {
	Name string // below <config>/config
	Root string // its root element
}

// The files that ffpod knows.
var (
	Encoding = File{"encoding.xml", "EncodingOptions"}
	Network  = File{"network.xml", "NetworkConfiguration"}
	System   = File{"system.xml", "ServerConfiguration"}
)

// Setting is one that ffpod can seed and apply.
type Setting struct {
	Key     string // as in settings.yaml and in the ConfigMap jellyfin-seed
	File    File
	Element string
	List    bool
	// Parse checks what the user wrote and returns what Jellyfin's file holds.
	Parse func(text string) ([]string, error)
	Help  string
}

// Settings are all of them.
func Settings() []Setting {
	return []Setting{
		{"hardwareAcceleration", Encoding, "HardwareAccelerationType", false, oneOf("none", "amf", "nvenc", "qsv", "rkmpp", "v4l2m2m", "vaapi"), "none, amf, nvenc, qsv, rkmpp, v4l2m2m or vaapi"},
		{"vaapiDevice", Encoding, "VaapiDevice", false, devicePath, "the render node of the workers that have one GPU each, e.g. /dev/dri/renderD128"},
		{"qsvDevice", Encoding, "QsvDevice", false, devicePath, "best left empty"},
		{"hardwareDecodingCodecs", Encoding, "HardwareDecodingCodecs", true, words, "comma list: h264,hevc,mpeg2video,vc1,vp8,vp9,av1"},
		{"enableHardwareEncoding", Encoding, "EnableHardwareEncoding", false, boolean, "true or false"},
		{"allowHevcEncoding", Encoding, "AllowHevcEncoding", false, boolean, "true or false"},
		{"allowAv1Encoding", Encoding, "AllowAv1Encoding", false, boolean, "true or false"},
		{"enableTonemapping", Encoding, "EnableTonemapping", false, boolean, "true or false"},
		{"enableVppTonemapping", Encoding, "EnableVppTonemapping", false, boolean, "true or false"},
		{"enableThrottling", Encoding, "EnableThrottling", false, boolean, "true or false"},
		{"throttleDelaySeconds", Encoding, "ThrottleDelaySeconds", false, number(0, 86400), "seconds"},
		{"enableSegmentDeletion", Encoding, "EnableSegmentDeletion", false, boolean, "true or false"},
		{"segmentKeepSeconds", Encoding, "SegmentKeepSeconds", false, number(0, 86400), "seconds"},
		{"encodingThreadCount", Encoding, "EncodingThreadCount", false, number(-1, 1024), "-1: as Jellyfin thinks fit; 0: as ffmpeg thinks fit"},
		{"transcodingTempPath", Encoding, "TranscodingTempPath", false, absolute, "a directory that every worker mounts; empty: /cache/transcodes"},
		{"baseUrl", Network, "BaseUrl", false, basePath, "the path below which Jellyfin is published, e.g. /jellyfin"},
		{"knownProxies", Network, "KnownProxies", true, proxies, "comma list of the addresses, networks or names of reverse proxies"},
		{"publishedServerUrl", Network, "PublishedServerUriBySubnet", true, published, "the URL that clients are told, e.g. https://jellyfin.example.org"},
		{"imageExtractionTimeoutMs", System, "ImageExtractionTimeoutMs", false, number(0, 3600_000), "milliseconds; 0: Jellyfin's own 10 s, which a Job's start may exceed"},
		{"parallelImageEncodingLimit", System, "ParallelImageEncodingLimit", false, number(0, 1024), "0: the number of processors"},
		{"libraryScanFanoutConcurrency", System, "LibraryScanFanoutConcurrency", false, number(0, 1024), "0: as Jellyfin thinks fit"},
		{"enableMetrics", System, "EnableMetrics", false, boolean, "true: Prometheus metrics at /metrics"},
	}
}

// Change is a setting and the value it shall have.
type Change struct {
	Setting
	Values []string
}

// ParseChange reads one setting that a user wrote.
func ParseChange(key, text string) (Change, error) {
	all := Settings()
	i := slices.IndexFunc(all, func(s Setting) bool { return s.Key == key })
	if i < 0 {
		return Change{}, &UnknownSettingError{Key: key}
	}
	values, err := all[i].Parse(strings.TrimSpace(text))
	if err != nil {
		return Change{}, fmt.Errorf("jellyfin.%s is %q: %w", key, text, err)
	}
	return Change{all[i], values}, nil
}

// UnknownSettingError is a key that no Setting has.
type UnknownSettingError struct{ Key string }

func (e *UnknownSettingError) Error() string {
	var keys []string
	for _, s := range Settings() {
		keys = append(keys, s.Key)
	}
	return fmt.Sprintf("there is no setting jellyfin.%s; known are %s", e.Key, strings.Join(keys, ", "))
}

func oneOf(allowed ...string) func(string) ([]string, error) {
	return func(text string) ([]string, error) {
		if !slices.Contains(allowed, text) {
			return nil, fmt.Errorf("use one of %s", strings.Join(allowed, ", "))
		}
		return []string{text}, nil
	}
}

func boolean(text string) ([]string, error) { return oneOf("true", "false")(text) }

func number(least, most int) func(string) ([]string, error) {
	return func(text string) ([]string, error) {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return nil, fmt.Errorf("use a whole number from %d to %d", least, most)
		}
		return []string{strconv.Itoa(n)}, nil
	}
}

func absolute(text string) ([]string, error) {
	if text != "" && (!path.IsAbs(text) || path.Clean(text) != strings.TrimSuffix(text, "/")) {
		return nil, fmt.Errorf("use an absolute path without . or .. in it")
	}
	return []string{text}, nil
}

func devicePath(text string) ([]string, error) {
	if text != "" && !strings.HasPrefix(path.Clean(text), "/dev/") {
		return nil, fmt.Errorf("use a device such as /dev/dri/renderD128")
	}
	return []string{text}, nil
}

// basePath gives it the form that Jellyfin gives it.
func basePath(text string) ([]string, error) {
	text = strings.Trim(text, "/")
	if text == "" {
		return []string{""}, nil
	}
	if u, err := url.Parse("/" + text); err != nil || u.Path != path.Clean("/"+text) || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("use a path such as /jellyfin")
	}
	return []string{"/" + text}, nil
}

func list(text string) []string {
	var items []string
	for _, item := range strings.Split(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

func words(text string) ([]string, error) {
	items := list(text)
	for _, item := range items {
		if strings.ContainsFunc(item, func(r rune) bool { return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }) {
			return nil, fmt.Errorf("%q is not the name of a codec", item)
		}
	}
	return items, nil
}

// proxies refuses what Jellyfin would drop with a line in its log.
func proxies(text string) ([]string, error) {
	items := list(text)
	for _, item := range items {
		if strings.Contains(item, "/") {
			if _, err := netip.ParsePrefix(item); err != nil {
				return nil, fmt.Errorf("%q is not a network such as 10.42.0.0/16", item)
			}
			continue
		}
		if _, err := netip.ParseAddr(item); err != nil && !hostname(item) {
			return nil, fmt.Errorf("%q is neither an address, nor a network such as 10.42.0.0/16, nor a host name", item)
		}
	}
	return items, nil
}

func hostname(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }) &&
		!strings.ContainsFunc(text, func(r rune) bool {
			return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		})
}

func published(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("use a URL such as https://jellyfin.example.org")
	}
	return []string{"all=" + strings.TrimSuffix(text, "/")}, nil
}
