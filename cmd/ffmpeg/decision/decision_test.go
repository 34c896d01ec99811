package decision

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// env makes a getenv of NAME=VALUE words.
func env(words ...string) func(string) string {
	return func(name string) string {
		for _, w := range words {
			if n, v, _ := strings.Cut(w, "="); n == name {
				return v
			}
		}
		return ""
	}
}

func TestLoad(t *testing.T) {
	defaults := Settings{
		Mode: ffmpeg.Auto, Fallback: FallbackAuto, AddressFile: "/var/run/ffpod/address",
		Egress: "auto", EgressFile: "/var/run/ffpod/egress", TokenFile: "/var/run/ffpod/token", CAFile: "/var/run/ffpod/ca.crt",
	}
	with := func(change func(*Settings)) Settings {
		s := defaults
		change(&s)
		return s
	}
	cases := map[string]struct {
		env  []string
		want Settings
	}{
		"nothing": {nil, defaults},
		"empty":   {[]string{"FFPOD_MODE=", "FFPOD_SHARED=", "FFPOD_WAIT=", "FFPOD_ADDRESS=", "FFPOD_CLASS="}, defaults},
		"all": {
			[]string{
				"FFPOD_MODE=remote", "FFPOD_FALLBACK=local", "FFPOD_POLICY=warm-then-job", "FFPOD_CLASS=nvidia-2", "FFPOD_WAIT=2m",
				"FFPOD_SHARED=/media/:/cache/../cache", "FFPOD_FFMPEG=/a", "FFPOD_FFPROBE=/b", "FFPOD_ADDRESS=[::1]:7443",
				"FFPOD_TOKEN_FILE=/t", "FFPOD_CA_FILE=/c", "FFPOD_LOG=/l", "FFPOD_EGRESS=true", "PATH=/bin",
			},
			Settings{
				Mode: ffmpeg.ForceRemote, Fallback: FallbackLocal, Policy: "warm-then-job", Class: "nvidia-2", Wait: 2 * time.Minute,
				Shared: []string{"/media", "/cache"}, FFmpeg: "/a", FFprobe: "/b", Address: "[::1]:7443",
				AddressFile: "/var/run/ffpod/address", Egress: "true", EgressFile: "/var/run/ffpod/egress", TokenFile: "/t", CAFile: "/c", Log: "/l", Path: "/bin",
			},
		},
		"not ours": {[]string{"FFPOD_SCHEDULER_PORT=tcp://10.0.0.1:7443", "FFPOD_UNKNOWN=x"}, with(func(*Settings) {})},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := Load(env(c.env...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, word := range []string{
		"FFPOD_MODE=Auto", "FFPOD_MODE= auto", "FFPOD_FALLBACK=never", "FFPOD_POLICY=warm,job", "FFPOD_CLASS=-a", "FFPOD_CLASS=a-",
		"FFPOD_CLASS=A", "FFPOD_CLASS=" + strings.Repeat("a", 64), "FFPOD_WAIT=1", "FFPOD_WAIT=0s", "FFPOD_WAIT=25h", "FFPOD_WAIT=1us",
		"FFPOD_SHARED=:", "FFPOD_SHARED=/a:b", "FFPOD_SHARED=/a::/b", "FFPOD_ADDRESS=:7443", "FFPOD_ADDRESS=h:70000",
		"FFPOD_ADDRESS=https://h:1", "FFPOD_ADDRESS=h:grpc", "FFPOD_ADDRESS=h:1 ", "FFPOD_FFMPEG=./ffmpeg", "FFPOD_LOG=x", "FFPOD_EGRESS=yes",
	} {
		_, err := Load(env(word))
		bad, ok := errors.AsType[*SettingError](err)
		if name, _, _ := strings.Cut(word, "="); !ok || bad.Name != name {
			t.Errorf("%s: %v", word, err)
		}
	}
}

func TestProgram(t *testing.T) {
	for argv0, want := range map[string]bool{"ffmpeg": true, "/a/b/ffprobe": true, "./ffmpeg": true, "": false, "/": false, "ffmpeg/": false, "ffplay": false, "ffmpeg7": false} {
		if p, ok := Program(argv0); ok != want {
			t.Errorf("%q: %q, %v", argv0, p, ok)
		}
	}
}

// TestRealSkips: PATH may lead through what is no program first.
func TestRealSkips(t *testing.T) {
	dir := t.TempDir()
	mk := func(name string, mode os.FileMode) string {
		sub := filepath.Join(dir, name)
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "ffmpeg"), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
		return sub
	}
	plain, good, second := mk("plain", 0o644), mk("good", 0o755), mk("second", 0o755)
	isDir := filepath.Join(dir, "dir")
	if err := os.MkdirAll(filepath.Join(isDir, "ffmpeg"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := Settings{Path: strings.Join([]string{"", "relative", "/nonexistent", plain, isDir, good, second}, ":")}
	got, err := s.Real(ffmpeg.FFmpeg)
	if want := filepath.Join(good, "ffmpeg"); got != want || err != nil {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if _, err := s.Real(ffmpeg.FFprobe); !errors.Is(err, ErrNoReal) {
		t.Errorf("ffprobe: %v", err)
	}
	// The test binary is what /proc/self/exe is here.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.FFmpeg = self
	if _, err := s.Real(ffmpeg.FFmpeg); !errors.Is(err, ErrIsShim) {
		t.Errorf("itself: %v", err)
	}
}

func TestReadList(t *testing.T) {
	dir := t.TempDir()
	list, large, fifo := filepath.Join(dir, "list"), filepath.Join(dir, "large"), filepath.Join(dir, "fifo")
	if err := errors.Join(
		os.WriteFile(list, []byte("file a\n"), 0o600), os.WriteFile(large, make([]byte, maxList+1), 0o600), syscall.Mkfifo(fifo, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	if b, err := readList(list); string(b) != "file a\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	for _, name := range []string{large, fifo, dir, filepath.Join(dir, "missing")} {
		if _, err := readList(name); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func TestMayFallBack(t *testing.T) {
	cases := map[string]struct {
		argv     string
		mode     ffmpeg.Mode
		fallback Fallback
		want     bool
		why      string
	}{
		"software":        {"-i a -c:v libx264 -vf scale=1:1 b", ffmpeg.Auto, FallbackAuto, true, ""},
		"hwaccel auto":    {"-hwaccel auto -i a b", ffmpeg.Auto, FallbackAuto, true, ""},
		"decoder options": {"-hwaccel cuda -i a b", ffmpeg.Auto, FallbackAuto, false, "-hwaccel cuda"},
		"encoder":         {"-i a -c:v hevc_vaapi b", ffmpeg.Auto, FallbackAuto, false, "hevc_vaapi"},
		"decoder":         {"-c:v h264_cuvid -i a b", ffmpeg.Auto, FallbackAuto, false, "h264_cuvid"},
		"device":          {"-init_hw_device vaapi=va:/dev/dri/renderD128 -i a b", ffmpeg.Auto, FallbackAuto, false, "device vaapi"},
		"filter":          {"-i a -vf format=nv12,hwupload,scale_opencl=1:1 b", ffmpeg.Auto, FallbackAuto, false, "filter hwupload"},
		"gpu, local":      {"-i a -c:v hevc_vaapi b", ffmpeg.Auto, FallbackLocal, true, ""},
		"fail":            {"-i a b", ffmpeg.Auto, FallbackFail, false, "FFPOD_FALLBACK is fail"},
		"remote":          {"-i a b", ffmpeg.ForceRemote, FallbackAuto, false, "FFPOD_MODE is remote"},
		"remote, local":   {"-i a b", ffmpeg.ForceRemote, FallbackLocal, true, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cmd := ffmpeg.Parse("ffmpeg", strings.Fields(c.argv), ffmpeg.Host{})
			got, why := MayFallBack(Settings{Mode: c.mode, Fallback: c.fallback}, cmd)
			if got != c.want || !strings.Contains(why, c.why) {
				t.Errorf("%v, %q", got, why)
			}
		})
	}
}

// ownAddress is one of this machine's that is no loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback")
	return ""
}

// TestEgress: the scheduler says whether workers may reach the network, unless the
// caller does.
func TestEgress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "egress")
	remote := func(setting, host string) bool {
		live := ffmpeg.Parse("ffmpeg", strings.Fields("-i http://"+host+"/a.ts -c:v libx264 /cache/a.ts"), ffmpeg.Host{})
		e := Environment(Settings{Shared: []string{"/cache"}, Egress: setting, EgressFile: file}, env())
		return ffmpeg.Decide(live, e).Where == ffmpeg.Remote
	}
	own := ownAddress(t)
	for _, c := range []struct {
		published   string
		tuner, self bool
	}{{"", false, false}, {"false\n", false, false}, {"caller\n", false, true}, {"true", true, true}, {"yes", false, false}} {
		if c.published != "" {
			if err := os.WriteFile(file, []byte(c.published), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if tuner, self := remote("auto", "tuner:5004"), remote("auto", own+":8096"); tuner != c.tuner || self != c.self {
			t.Errorf("published %q: a tuner %v, itself %v", c.published, tuner, self)
		}
		for host, want := range map[string]bool{"tuner:5004": false, own + ":8096": true} {
			cmd := ffmpeg.Parse("ffmpeg", strings.Fields("-i http://"+host+"/a.ts -c:v libx264 /cache/a.ts"), ffmpeg.Host{})
			if got := ReachesCaller(cmd); got != want {
				t.Errorf("%s is the caller: %v", host, got)
			}
		}
		if remote("auto", "127.0.0.1:8096") {
			t.Errorf("published %q: loopback goes to a worker", c.published)
		}
	}
	if !remote("true", "tuner") || remote("false", own) || remote("caller", "tuner") || !remote("caller", own) {
		t.Error("the caller's own word does not count")
	}
}

// TestEnvironment: what scheduler/ffmpeg sees of this machine is true.
func TestEnvironment(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if err := syscall.Mkfifo("fifo.mkv", 0o600); err != nil {
		t.Fatal(err)
	}
	s := Settings{Shared: []string{dir}}
	for argv, want := range map[string]ffmpeg.Clause{
		"-i in.mkv out.mkv":                           ffmpeg.ClauseEncode,
		"-i fifo.mkv out.mkv":                         ffmpeg.ClauseFIFO,
		"-i /etc/in.mkv out.mkv":                      ffmpeg.ClauseUnshared,
		"-f concat -safe 0 -i missing.txt -y out.mkv": ffmpeg.ClauseUnread,
	} {
		e := Environment(s, env("A=1"))
		if d := ffmpeg.Decide(ffmpeg.Parse("ffmpeg", strings.Fields(argv), e.Host), e); d.Clause != want {
			t.Errorf("%s: %s (%s), want %s", argv, d.Clause, d.Reason, want)
		}
	}
}
