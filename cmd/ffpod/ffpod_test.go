package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// call runs one command line.
func call(env []string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	getenv := func(name string) string {
		for _, e := range env {
			if n, v, _ := strings.Cut(e, "="); n == name {
				return v
			}
		}
		return ""
	}
	code = run(append([]string{"ffpod"}, args...), getenv, &out, &err)
	return code, out.String(), err.String()
}

func TestExplain(t *testing.T) {
	cases := map[string]struct {
		env                   []string
		args                  []string
		where, mode, fallback string
	}{
		"remote":      {[]string{"FFPOD_SHARED=/media:/cache"}, []string{"--", "ffmpeg", "-i", "/media/a", "/cache/b.mp4"}, "remote", "auto", "local"},
		"gpu":         {[]string{"FFPOD_SHARED=/media"}, []string{"--", "ffmpeg", "-i", "/media/a", "-c:v", "h264_qsv", "/media/b.mp4"}, "remote", "auto", "fail"},
		"not shared":  {nil, []string{"--", "ffmpeg", "-i", "/media/a", "/cache/b.mp4"}, "local", "auto", "local"},
		"flag":        {nil, []string{"--shared", "/media", "--", "ffmpeg", "-i", "/media/a", "/media/b.mp4"}, "remote", "auto", "local"},
		"mode":        {[]string{"FFPOD_MODE=local"}, []string{"--mode", "remote", "--", "/x/ffprobe", "-i", "a"}, "remote", "remote", "fail"},
		"own flags":   {nil, []string{"ffmpeg", "-version", "--help"}, "local", "auto", "local"},
		"no operands": {nil, []string{"--", "ffprobe"}, "local", "auto", "local"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(append(c.env, "FFPOD_FFMPEG=/bin/true", "FFPOD_FFPROBE=/bin/true"), append([]string{"explain"}, c.args...)...)
			if code != 0 || stderr != "" {
				t.Fatalf("code %d, %s", code, stderr)
			}
			var got struct {
				Where, Mode, Fallback, Real, Reason string
				Operands                            []map[string]any
			}
			if err := json.Unmarshal([]byte(stdout), &got); err != nil {
				t.Fatalf("%v in %s", err, stdout)
			}
			if got.Where != c.where || got.Mode != c.mode || got.Fallback != c.fallback || got.Real != "/bin/true" || got.Reason == "" || got.Operands == nil {
				t.Errorf("%s", stdout)
			}
		})
	}
}

func TestExplainOperands(t *testing.T) {
	_, stdout, _ := call([]string{"FFPOD_SHARED=/m"}, "explain", "--", "ffmpeg", "-i", "/m/a b", "-vf", "subtitles=f=/m/s.ass", "/m/out.mp4")
	for _, path := range []string{"/m/a b", "/m/s.ass", "/m/out.mp4"} {
		if !strings.Contains(stdout, `"path": "`+path+`"`) {
			t.Errorf("%s is missing in %s", path, stdout)
		}
	}
}

// TestExplainRequirements: what a command needs is in both forms.
func TestExplainRequirements(t *testing.T) {
	args := []string{"--", "ffmpeg", "-init_hw_device", "cuda=cu:0", "-hwaccel", "cuda", "-re", "-i", "http://tv/a", "-vf", "scale_cuda=w=1280", "-c:v", "h264_nvenc", "/m/out.ts"}
	_, stdout, _ := call([]string{"FFPOD_SHARED=/m"}, append([]string{"explain"}, args...)...)
	var got struct {
		Kind     string
		Requires struct {
			Capabilities, Hardware []string
			Realtime, Network      bool
		}
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	capabilities := "device:cuda encoder:h264_nvenc filter:scale_cuda hwaccel:cuda"
	if got.Kind != "live" || strings.Join(got.Requires.Capabilities, " ") != capabilities ||
		strings.Join(got.Requires.Hardware, " ") != "nvidia" || !got.Requires.Realtime || !got.Requires.Network {
		t.Errorf("%+v", got)
	}
	code, stdout, stderr := call([]string{"FFPOD_SHARED=/m", "FFPOD_FFMPEG=/bin/true"}, append([]string{"explain", "--text"}, args...)...)
	if code != 0 || stderr != "" {
		t.Errorf("code %d, %s", code, stderr)
	}
	for _, line := range []string{
		`runs +local, by clause network: input http://tv/... is on the network`, `kind +live\n`, `needs +` + capabilities + `\n`,
		`hardware of +nvidia\n`, `pace +somebody waits`, `network +it opens`, `output +/m/out.ts\n`, `real program +/bin/true\n`,
		`if no worker takes it +fail it needs a GPU`,
	} {
		if !regexp.MustCompile(`(?m)^` + line).MatchString(stdout) {
			t.Errorf("no line %q in:\n%s", line, stdout)
		}
	}
}

func TestExplainTranslated(t *testing.T) {
	nvenc := []string{"--", "ffmpeg", "-hwaccel", "cuda", "-hwaccel_output_format", "cuda", "-i", "/m/it's.mkv", "-c:v", "h264_nvenc", "/m/out.ts"}
	_, stdout, stderr := call(nil, append([]string{"explain", "--text", "--translate", "software"}, nvenc...)...)
	if want := `-i '/m/it'\''s.mkv' -c:v libx264 -preset veryfast /m/out.ts`; !strings.Contains(stdout, want) || stderr != "" {
		t.Errorf("no %q in:\n%s%s", want, stdout, stderr)
	}
	_, stdout, _ = call(nil, append([]string{"explain", "--translate", "qsv"}, append(nvenc, "-foo", "bar", "/m/b.ts")...)...)
	for _, want := range []string{`"target": "qsv"`, `"refused": "translate to qsv: argument`, `-foo bar`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in:\n%s", want, stdout)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"nope"}, {"explain"}, {"explain", "--nope"}, {"explain", "--", "ls"}, {"explain", "--mode", "x", "--", "ffmpeg"},
		{"install"}, {"install", "shim"}, {"install", "nope", "/tmp"}, {"version", "x"},
	} {
		code, stdout, stderr := call(nil, args...)
		if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "ffpod: ") {
			t.Errorf("%v: code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	if code, stdout, _ := call(nil, "version"); code != 0 || !strings.HasPrefix(stdout, "ffpod ") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("%d %q", code, stdout)
	}
}

func TestKubectlName(t *testing.T) {
	var out, err bytes.Buffer
	if run([]string{"/usr/bin/kubectl-ffpod"}, func(string) string { return "" }, &out, &err) != 0 || !strings.Contains(out.String(), "kubectl ffpod [command]") {
		t.Errorf("%s%s", &out, &err)
	}
}

// TestInstall replaces programs while they run, as a rollout on a host path
// does, and whatever the umask is.
func TestInstall(t *testing.T) {
	from, dir := t.TempDir(), filepath.Join(t.TempDir(), "a", "b")
	sources := map[string]string{"ffmpeg": "#!/bin/sh\necho shim $0\n", "worker": "#!/bin/sh\necho worker\n", "ffpod": "#!/bin/sh\necho ffpod\n"}
	for name, text := range sources {
		if err := os.WriteFile(filepath.Join(from, name), []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	var report bytes.Buffer
	for range 2 {
		for _, part := range []string{"shim", "supervisor", "ffpod"} {
			if err := install(part, from, dir, &report); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Fatalf("%v, %v", entries, err)
	}
	for name, want := range map[string]string{"ffmpeg": "shim", "ffprobe": "shim", "worker": "worker", "ffpod": "ffpod"} {
		out, err := exec.Command(filepath.Join(dir, name)).Output()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o755 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if !strings.Contains(report.String(), "installed "+filepath.Join(dir, "ffprobe")+"\n") {
		t.Errorf("report %q", &report)
	}
}

func TestInstallFails(t *testing.T) {
	from, dir := t.TempDir(), t.TempDir()
	if err := install("supervisor", from, dir, new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), filepath.Join(from, "worker")) {
		t.Errorf("missing source: %v", err)
	}
	file := filepath.Join(from, "ffmpeg")
	for _, name := range []string{"ffmpeg", "ffpod"} {
		if err := os.WriteFile(filepath.Join(from, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := install("shim", from, file, new(bytes.Buffer)); err == nil {
		t.Error("installed into a file")
	}
	if err := os.Mkdir(filepath.Join(dir, "ffmpeg"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := install("shim", from, dir, new(bytes.Buffer)); err == nil {
		t.Error("replaced a directory")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
