package decision

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// Fallback is FFPOD_FALLBACK: what happens to a command that should run
// remotely but could not be started there.
type Fallback string

// The fallbacks. FallbackAuto runs software commands locally in mode auto and
// fails otherwise.
const (
	FallbackAuto  Fallback = "auto"
	FallbackLocal Fallback = "local"
	FallbackFail  Fallback = "fail"
)

// Places where the client pod's projected volume is mounted.
const (
	defaultToken   = "/var/run/ffpod/token"
	defaultCA      = "/var/run/ffpod/ca.crt"
	defaultAddress = "/var/run/ffpod/address"
	defaultEgress  = "/var/run/ffpod/egress"
)

// maxWait bounds FFPOD_WAIT: it travels as milliseconds in 32 bits, and no
// caller waits longer than a day for a first byte.
const maxWait = 24 * time.Hour

// Settings are the FFPOD_* variables. The zero value is not usable: Load
// applies the defaults.
type Settings struct {
	Mode        ffmpeg.Mode
	Fallback    Fallback
	Policy      string        // warm-then-job, warm, job; empty: the scheduler's default
	Class       string        // empty: any
	Wait        time.Duration // most time before the start; 0: the scheduler's default
	Shared      []string      // absolute, cleaned
	FFmpeg      string        // real binaries; empty: looked up
	FFprobe     string
	Address     string // host:port; empty: read AddressFile
	AddressFile string
	Egress      string // auto: read EgressFile; true, caller, false
	EgressFile  string
	TokenFile   string
	CAFile      string
	Log         string // file for one line per run; empty: none
	Path        string // PATH, for the lookup of the real binaries
}

// SettingError says which variable cannot be used.
type SettingError struct {
	Name, Value string
	Want        string // what it must be, in words
}

func (e *SettingError) Error() string {
	return fmt.Sprintf("%s=%s is not %s", e.Name, strconv.Quote(e.Value), e.Want)
}

// Load reads the settings from an environment. A variable that is set but
// empty counts as unset. Its error is a *SettingError. Variables it does not
// know are left alone: Kubernetes itself makes FFPOD_SCHEDULER_SERVICE_HOST and
// its kin for every Service of the namespace.
func Load(getenv func(string) string) (Settings, error) {
	l := loader{getenv: getenv}
	s := Settings{
		Mode:        ffmpeg.Mode(l.word("FFPOD_MODE", "auto", "auto", "local", "remote")),
		Fallback:    Fallback(l.word("FFPOD_FALLBACK", "auto", "auto", "local", "fail")),
		Policy:      l.word("FFPOD_POLICY", "", "warm-then-job", "warm", "job"),
		Class:       l.class("FFPOD_CLASS"),
		Wait:        l.wait("FFPOD_WAIT"),
		Shared:      l.paths("FFPOD_SHARED"),
		FFmpeg:      l.path("FFPOD_FFMPEG", ""),
		FFprobe:     l.path("FFPOD_FFPROBE", ""),
		Address:     l.address("FFPOD_ADDRESS"),
		AddressFile: defaultAddress,
		Egress:      l.word("FFPOD_EGRESS", "auto", "auto", "true", "caller", "false"),
		EgressFile:  defaultEgress,
		TokenFile:   l.path("FFPOD_TOKEN_FILE", defaultToken),
		CAFile:      l.path("FFPOD_CA_FILE", defaultCA),
		Log:         l.path("FFPOD_LOG", ""),
		Path:        getenv("PATH"),
	}
	return s, l.err
}

// loader keeps the first problem.
type loader struct {
	getenv func(string) string
	err    error
}

func (l *loader) bad(name, want string) {
	if l.err == nil {
		l.err = &SettingError{Name: name, Value: l.getenv(name), Want: want}
	}
}

func (l *loader) word(name, otherwise string, words ...string) string {
	v := l.getenv(name)
	if v == "" {
		return otherwise
	}
	for _, w := range words {
		if v == w {
			return v
		}
	}
	last := len(words) - 1
	l.bad(name, strings.Join(words[:last], ", ")+" or "+words[last])
	return otherwise
}

func (l *loader) path(name, otherwise string) string {
	v := l.getenv(name)
	if v == "" {
		return otherwise
	}
	if !filepath.IsAbs(v) {
		l.bad(name, "an absolute path")
	}
	return v
}

func (l *loader) paths(name string) []string {
	v := l.getenv(name)
	if v == "" {
		return nil
	}
	list := strings.Split(v, ":")
	for i, p := range list {
		if !filepath.IsAbs(p) {
			l.bad(name, "a list of absolute paths separated by colons")
		}
		list[i] = filepath.Clean(p)
	}
	return list
}

// class checks the name as the API server would: it is part of labels and of
// object names.
func (l *loader) class(name string) string {
	v := l.getenv(name)
	edge := func(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
	ok := len(v) <= 63
	for i := 0; i < len(v); i++ {
		inner := i > 0 && i < len(v)-1
		ok = ok && (edge(v[i]) || inner && v[i] == '-')
	}
	if !ok {
		l.bad(name, "the name of a class: a-z, 0-9 and - inside, at most 63 characters")
	}
	return v
}

func (l *loader) wait(name string) time.Duration {
	v := l.getenv(name)
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < time.Millisecond || d > maxWait {
		l.bad(name, "a duration such as 30s or 2m, at least 1ms and at most 24h")
		return 0
	}
	return d
}

func (l *loader) address(name string) string {
	v := l.getenv(name)
	if v != "" && !ValidAddress(v) {
		l.bad(name, "an address HOST:PORT")
	}
	return v
}

// ValidAddress accepts HOST:PORT with a port number; what the host is worth
// shows when it is dialled.
func ValidAddress(v string) bool {
	host, port, err := net.SplitHostPort(v)
	if err != nil || host == "" || strings.ContainsAny(v, " \t\r\n/") {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
