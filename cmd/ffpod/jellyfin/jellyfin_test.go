package jellyfin

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// seed is a directory as the kubelet mounts a ConfigMap: links into ..data.
func seed(t *testing.T, settings map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for k, v := range settings {
		write(t, filepath.Join(dir, "..2026_11_23", k), v)
		if err := os.Symlink(filepath.Join("..data", k), filepath.Join(dir, k)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("..2026_11_23", filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPrepare(t *testing.T) {
	config, shared := t.TempDir(), t.TempDir()
	settings := map[string]string{"hardwareAcceleration": "qsv\n", "vaapiDevice": "", "baseUrl": "jellyfin/", "knownProxies": "10.42.0.0/16, fd00::1,proxy",
		"publishedServerUrl": "https://j.example.org/", "imageExtractionTimeoutMs": "60000", "ofTheNextRelease": "x"}
	var report bytes.Buffer
	p := Prepare{Config: config, Shared: shared, Seed: seed(t, settings), Directories: []string{filepath.Join(shared, "more")}, Report: &report}
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{config + "/cache/transcodes", config + "/data/subtitles", shared + "/transcodes", shared + "/attachments", shared + "/more"} {
		if info, err := os.Stat(d); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", d, err)
		}
	}
	for f, want := range map[File]map[string]string{
		Encoding: {"HardwareAccelerationType": "qsv"},
		Network:  {"BaseUrl": "/jellyfin", "KnownProxies": "10.42.0.0/16|fd00::1|proxy", "PublishedServerUriBySubnet": "all=https://j.example.org"},
		System:   {"ImageExtractionTimeoutMs": "60000"},
	} {
		d, err := ParseDocument([]byte(read(t, filepath.Join(config, "config", f.Name))), f.Root)
		if err != nil {
			t.Fatal(err)
		}
		for element, value := range want {
			if got, _ := d.Get(element); strings.Join(got, "|") != value {
				t.Errorf("%s: %s is %q", f.Name, element, got)
			}
		}
	}
	if d, _ := ParseDocument([]byte(read(t, config+"/config/encoding.xml")), Encoding.Root); d != nil {
		if _, ok := d.Get("VaapiDevice"); ok {
			t.Error("an empty setting was seeded: it hides Jellyfin's default")
		}
	}
	if !strings.Contains(report.String(), "passed over: there is no setting jellyfin.ofTheNextRelease") {
		t.Errorf("report %q", &report)
	}
	if left, _ := filepath.Glob(config + "/*/.*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestPrepareOverwritesNothing starts it again after Jellyfin, or a user, has
// changed the files, and with another ConfigMap.
func TestPrepareOverwritesNothing(t *testing.T) {
	config := t.TempDir()
	write(t, config+"/config/encoding.xml", "mine")
	p := Prepare{Config: config, Seed: seed(t, map[string]string{"hardwareAcceleration": "qsv", "baseUrl": "/a"}), Report: new(bytes.Buffer)}
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	first := read(t, config+"/config/network.xml")
	p.Seed = seed(t, map[string]string{"hardwareAcceleration": "none", "baseUrl": "/b"})
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	if read(t, config+"/config/encoding.xml") != "mine" || read(t, config+"/config/network.xml") != first {
		t.Error("overwritten")
	}
	if _, err := os.Stat(config + "/config/system.xml"); err == nil {
		t.Error("a file without a setting was seeded")
	}
}

func TestPrepareRefusesBadSettings(t *testing.T) {
	for key, value := range map[string]string{
		"hardwareAcceleration": "cuda", "vaapiDevice": "renderD128", "baseUrl": "http://x/y?z", "knownProxies": "10.42.0.0/99",
		"publishedServerUrl": "jellyfin.example.org", "imageExtractionTimeoutMs": "60s", "enableTonemapping": "yes",
	} {
		config := t.TempDir()
		err := Prepare{Config: config, Seed: seed(t, map[string]string{key: value}), Report: new(bytes.Buffer)}.Run()
		if err == nil || !strings.Contains(err.Error(), "jellyfin."+key) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s=%s: %v", key, value, err)
		}
		if entries, _ := os.ReadDir(config); len(entries) != 0 {
			t.Errorf("%s=%s: something was written: %v", key, value, entries)
		}
	}
}

// asUser runs the rest of the test on one thread without root's rights.
func asUser(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is not unlocked: it ends with the goroutine.
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, 1000, 1000, 1000); errno != 0 {
			t.Error(errno)
			return
		}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, 1000, 1000, 1000); errno != 0 {
			t.Error(errno)
			return
		}
		f()
	}()
	<-done
}

// TestPrepareTellsTheOwner has directories of another identity: a volume that an
// earlier install, the kubelet or a root_squash server made.
func TestPrepareTellsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make files of others")
	}
	open := func(dir string) string {
		for at := dir; at != "/tmp" && at != "/"; at = filepath.Dir(at) {
			_ = os.Chmod(at, 0o777)
		}
		return dir
	}
	check := func(name, want string, p Prepare) {
		t.Helper()
		p.Report = new(bytes.Buffer)
		var err error
		asUser(t, func() { err = p.Run() })
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "chown -R") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	config, shared := open(t.TempDir()), t.TempDir()
	if err := os.Chmod(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	check("shared", shared+" belongs to uid 0, gid 0, mode 0755", Prepare{Config: config, Shared: shared})
	config = open(t.TempDir())
	write(t, config+"/data/own", "")
	if err := os.Chown(config+"/data/own", 1000, 1000); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(config+"/data/own", 0o444); err != nil {
		t.Fatal(err)
	}
	write(t, config+"/data/jellyfin.db", "")
	open(config + "/data")
	check("database", config+"/data/jellyfin.db belongs to uid 0, gid 0, mode 0644", Prepare{Config: config})
}

func TestHealthy(t *testing.T) {
	cases := map[string]struct {
		body string
		code int
		base string
		want string
	}{
		"healthy":        {"Healthy", 200, "", ""},
		"below":          {"Healthy", 200, "/jellyfin", ""},
		"degraded":       {"Degraded", 200, "", "migrates"},
		"unhealthy":      {"Unhealthy", 503, "", "503"},
		"more words":     {"Healthy\n", 200, "", "instead of Healthy"},
		"somebody else":  {"<html>Healthy</html>", 200, "", "instead of Healthy"},
		"elsewhere":      {"", 302, "", "302"},
		"status but 500": {"Healthy", 500, "", "500"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != c.base+"/health" {
					http.NotFound(w, r)
					return
				}
				w.WriteHeader(c.code)
				fmt.Fprint(w, c.body)
			}))
			defer srv.Close()
			_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
			config := t.TempDir()
			d, _ := ParseDocument(sample(t, Network), Network.Root)
			_, _ = d.Set("InternalHttpPort", false, port), d.Set("BaseUrl", false, c.base)
			write(t, config+"/config/network.xml", string(d.Bytes()))
			err := Healthy(context.Background(), config)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Error(err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") && !strings.Contains(c.body, "\n") {
				t.Errorf("not one line: %v", err)
			}
		})
	}
}

func TestHealthyEndpoint(t *testing.T) {
	config := t.TempDir()
	if e, err := readEndpoint(config); err != nil || e.scheme != "http" || e.port != "8096" || e.base != "" {
		t.Errorf("no file: %+v, %v", e, err)
	}
	d, _ := ParseDocument(sample(t, Network), Network.Root)
	_, _, _ = d.Set("EnableHttps", false, "true"), d.Set("RequireHttps", false, "true"), d.Set("LocalNetworkAddresses", true, "10.1.2.3", "eth0")
	write(t, config+"/config/network.xml", string(d.Bytes()))
	if e, err := readEndpoint(config); err != nil || e.scheme != "https" || e.port != "8920" || strings.Join(e.hosts, " ") != "127.0.0.1 10.1.2.3" {
		t.Errorf("https: %+v, %v", e, err)
	}
	write(t, config+"/config/network.xml", "<html>")
	if err := Healthy(context.Background(), config); err == nil || !strings.Contains(err.Error(), "network.xml") {
		t.Error(err)
	}
}

func install(t *testing.T) string {
	t.Helper()
	config := t.TempDir()
	for _, f := range []File{Encoding, Network, System} {
		write(t, filepath.Join(config, "config", f.Name), string(sample(t, f)))
	}
	d, _ := ParseDocument(sample(t, Network), Network.Root)
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port where nothing listens
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	_ = d.Set("InternalHttpPort", false, port)
	write(t, config+"/config/network.xml", string(d.Bytes()))
	return config
}

func changes(t *testing.T, settings ...string) []Change {
	t.Helper()
	var all []Change
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		c, err := ParseChange(key, value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func TestApply(t *testing.T) {
	config := install(t)
	if err := os.Chmod(config+"/config/encoding.xml", 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(config+"/config/encoding.xml", 1234, 567); err != nil {
			t.Fatal(err)
		}
	}
	var report bytes.Buffer
	a := Apply{Config: config, Report: &report, Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Changes: changes(t, "hardwareAcceleration=nvenc", "vaapiDevice=/dev/dri/renderD128", "imageExtractionTimeoutMs=60000", "libraryScanFanoutConcurrency=1")}
	dry := a
	dry.DryRun = true
	if err := dry.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	told := report.String()
	if read(t, config+"/config/encoding.xml") != string(sample(t, Encoding)) {
		t.Fatal("a dry run wrote")
	}
	report.Reset()
	if err := a.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(report.String(), told) {
		t.Errorf("the dry run told %q, the run %q", told, &report)
	}
	want := "encoding.xml: HardwareAccelerationType: none -> nvenc\nsystem.xml: ImageExtractionTimeoutMs: 0 -> 60000\nsystem.xml: LibraryScanFanoutConcurrency: (default) -> 1\n"
	if told != want {
		t.Errorf("told %q", told)
	}
	if got, want := read(t, config+"/config/encoding.xml"), strings.Replace(string(sample(t, Encoding)), ">none<", ">nvenc<", 1); got != want {
		t.Errorf("got %s", got)
	}
	for _, name := range []string{"encoding.xml", "encoding.xml.ffpod-20260102T030405Z"} {
		info, err := os.Stat(config + "/config/" + name)
		if err != nil || info.Mode() != 0o600 {
			t.Fatalf("%s: %v, %v", name, info, err)
		}
		if st := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 && (st.Uid != 1234 || st.Gid != 567) {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
	if read(t, config+"/config/encoding.xml.ffpod-20260102T030405Z") != string(sample(t, Encoding)) {
		t.Error("the copy is not the old file")
	}
	if _, err := os.Stat(config + "/config/network.xml.ffpod-20260102T030405Z"); err == nil {
		t.Error("a file without a change was replaced")
	}
	report.Reset()
	if err := a.Run(t.Context()); err != nil || report.String() != "nothing to change\n" {
		t.Errorf("twice: %q, %v", &report, err)
	}
}

func TestApplyRefusesWhileJellyfinRuns(t *testing.T) {
	config := install(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	d, _ := ParseDocument(sample(t, Network), Network.Root)
	_ = d.Set("InternalHttpPort", false, port)
	write(t, config+"/config/network.xml", string(d.Bytes()))
	a := Apply{Config: config, Report: new(bytes.Buffer), Changes: changes(t, "hardwareAcceleration=qsv")}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing was written") || read(t, config+"/config/encoding.xml") != string(sample(t, Encoding)) {
		t.Errorf("%v", err)
	}
	a.WhileRunning = true
	if err := a.Run(t.Context()); err != nil || !strings.Contains(read(t, config+"/config/encoding.xml"), ">qsv<") {
		t.Errorf("%v", err)
	}
}

func TestApplyNeedsAConfiguration(t *testing.T) {
	a := Apply{Config: t.TempDir(), Report: new(bytes.Buffer), Changes: changes(t, "hardwareAcceleration=qsv")}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Error(err)
	}
	config := install(t)
	write(t, config+"/config/encoding.xml", "<EncodingOptions><cut")
	a.Config = config
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "encoding.xml") || read(t, config+"/config/encoding.xml") != "<EncodingOptions><cut" {
		t.Error(err)
	}
}
