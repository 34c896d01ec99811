package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/buildid"
	"github.com/ffpod/ffpod/podexec/wire"
)

type wireExit = wire.Exit

func refusedWith(why wire.Refusal, message, remedy string) *wire.Refused {
	return &wire.Refused{Refusal: why, Message: message, Remedy: remedy}
}

// encode is a command that goes to a worker and runs here as well: it makes no
// file, and one frame.
var encode = []string{"-nostdin", "-v", "quiet", "-f", "lavfi", "-i", "color=size=16x16:duration=0.04", "-c:v", "mpeg4", "-f", "rawvideo", "-"}

// player is a playback: HLS into a shared directory.
func (s *scheduler) player() []string {
	return []string{"-i", s.file("in.mkv"), "-c:v", "libx264", "-f", "hls", "-hls_playlist_type", "vod", "-hls_segment_filename", s.file("a%d.ts"), "-y", s.file("a.m3u8")}
}

func TestStart(t *testing.T) {
	got := make(chan *wire.Start, 1)
	s := serve(t, serverName, func(p *peer) error {
		got <- p.start
		p.begin()
		p.exit(&wire.Exit{})
		return nil
	})
	dir := filepath.Join(s.dir, "a b")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-metadata", "", "-metadata", "title=a\nb\xff'"}, encode...)
	env := append(s.settings, "FFPOD_POLICY=job", "FFPOD_CLASS=gpu-1", "FFPOD_WAIT=1500ms",
		"LANG=C", "TZ=UTC", "LIBVA_DRIVER_NAME=iHD", "http_proxy=http://p:1", "NEOReadDebugKeys=1",
		"LD_LIBRARY_PATH=/x", "JELLYFIN_DATA=/x", "POSTGRES_PASSWORD=x", "HOME=/x", "XDG_CACHE_HOME=/x", "NVIDIA_VISIBLE_DEVICES=all")
	script := `umask 0027; exec nice -n 5 "$0" "$@"`
	r := call{program: "/bin/sh", args: append([]string{"-c", script, filepath.Join(built, "ffmpeg")}, args...), env: env, dir: dir}.run(t)
	if r.code != 0 || r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	start := <-got
	id, err := buildid.Of(realFFmpeg)
	if err != nil || id == "" {
		t.Fatalf("build id of the real ffmpeg: %q, %v", id, err)
	}
	env = text(start.Env)
	slices.Sort(env)
	type fields struct {
		Argv, Env              []string
		Cwd, Build, Pol, Class string
		Program                wire.Program
		Umask, Nice, Wait      uint32
		Stdin                  bool
	}
	have := fields{text(start.Argv), env, string(start.Cwd), start.Build, start.Policy, start.Class, start.Program, start.Umask, start.Nice, start.WaitMs, start.Stdin}
	want := fields{args, []string{"LANG=C", "LIBVA_DRIVER_NAME=iHD", "NEOReadDebugKeys=1", "TZ=UTC", "http_proxy=http://p:1"},
		dir, id, "job", "gpu-1", wire.Program_FFMPEG, 0o27, min(19, niceness()+5), 1500, false}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("Start (-want +got):\n%s", diff)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(start.Session) {
		t.Errorf("session %q is no UUIDv7", start.Session)
	}
}

func text(list [][]byte) []string {
	var s []string
	for _, b := range list {
		s = append(s, string(b))
	}
	return s
}

func TestRemoteBytesAndCodes(t *testing.T) {
	out := bytes.Repeat([]byte{0, '\r', '\n', 0xff, 'x'}, 10000)
	for _, code := range []int32{0, 1, 123, 125, 255} {
		s := serve(t, serverName, func(p *peer) error {
			p.begin()
			p.send(&wire.Data{Pipe: wire.Pipe_STDOUT, Bytes: out}, &wire.Data{Pipe: wire.Pipe_STDERR, Bytes: []byte("frame= 1\r")})
			p.exit(&wire.Exit{Code: code, Stdout: uint64(len(out)), Stderr: 9})
			return nil
		})
		r := call{args: encode, env: s.settings}.run(t)
		if r.stdout != string(out) || r.stderr != "frame= 1\r" || r.code != int(code) || r.signal != 0 {
			t.Errorf("code %d: %d bytes, stderr %q, code %d", code, len(r.stdout), r.stderr, r.code)
		}
	}
}

// TestStderrThatTakesNothing: ffmpeg does not look whether its words arrive. The log
// of a caller whose disk is full ends no transcode.
func TestStderrThatTakesNothing(t *testing.T) {
	s := serve(t, serverName, func(p *peer) error {
		p.begin()
		p.send(&wire.Data{Pipe: wire.Pipe_STDERR, Bytes: []byte("frame= 1\r")})
		p.exit(&wire.Exit{Stderr: 9})
		return nil
	})
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	args := slices.Clone(encode)
	args[slices.Index(args, "quiet")] = "info"
	for _, mode := range []string{"local", "remote"} {
		cmd := call{args: args, env: append(s.settings, "FFPOD_MODE="+mode)}.command()
		cmd.Stderr = full
		if err := cmd.Run(); err != nil {
			t.Errorf("mode %s: %v", mode, err)
		}
	}
}

// TestRemoteSignalDeath: the parent sees the worker's signal, no core, no word.
func TestRemoteSignalDeath(t *testing.T) {
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		switch sig {
		case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGURG, syscall.SIGWINCH:
			continue // nobody dies of these
		}
		s := serve(t, serverName, func(p *peer) error {
			p.begin()
			p.exit(&wire.Exit{Signal: int32(sig), Cause: wire.Cause_CAUSE_SIGNAL})
			return nil
		})
		if r := (call{args: encode, env: s.settings}).run(t); r.signal != sig || r.core || r.stderr != "" {
			t.Errorf("signal %d: %+v", sig, r)
		}
	}
}

func TestWorkersOwnEnd(t *testing.T) {
	s := serve(t, serverName, func(p *peer) error {
		p.begin()
		p.exit(&wire.Exit{Signal: 9, Cause: wire.Cause_CAUSE_MEMORY})
		return nil
	})
	r := call{args: encode, env: s.settings}.run(t)
	r.oneLine(t, "the worker ended it", "memory")
	if r.signal != syscall.SIGKILL {
		t.Errorf("%+v", r)
	}
}

// awaiting starts a command and hands it over once the scheduler has its Start.
func (s *scheduler) awaiting(t *testing.T, c call, arrived <-chan struct{}) (wait func() result, signal func(syscall.Signal)) {
	t.Helper()
	cmd := c.command()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { stop.Stop() })
	select {
	case <-arrived:
	case <-time.After(20 * time.Second):
		t.Fatal("the scheduler got no Start")
	}
	return func() result {
			_ = cmd.Wait()
			return ended(cmd, stdout.String(), stderr.String())
		}, func(sig syscall.Signal) {
			if err := cmd.Process.Signal(sig); err != nil {
				t.Error(err)
			}
		}
}

func TestSignalsAreForwarded(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGABRT, syscall.SIGXCPU} {
		arrived := make(chan struct{}, 1)
		s := serve(t, serverName, func(p *peer) error {
			p.begin()
			// The shim's word that it wrote proves that it knows of the start.
			written := p.enough()
			for f := p.next(); f != nil; f = p.next() {
				if f.GetAck() != nil {
					arrived <- struct{}{}
				}
				if got := f.GetSignal(); got != nil {
					p.exit(&wire.Exit{Code: 100 + got.Number, Stdout: written})
					return nil
				}
			}
			return nil
		})
		wait, signal := s.awaiting(t, call{args: encode, env: s.settings}, arrived)
		signal(sig)
		if r := wait(); r.code != 100+int(sig) || r.stderr != "" {
			t.Errorf("signal %d: %+v", sig, r)
		}
	}
}

// A shim whose reader stalls after the program ended, or was lost, dies of a signal
// as a program that is blocked in write(2) would.
func TestSignalAfterTheEnd(t *testing.T) {
	ends := map[string]func(p *peer) error{
		"exit": func(p *peer) error {
			p.exit(&wire.Exit{Stdout: p.enough()}) // returns when the shim is gone
			return nil
		},
		"lost": func(p *peer) error {
			p.enough()
			return status.Error(codes.Unavailable, "the scheduler is shutting down")
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			arrived := make(chan struct{}, 1)
			s := serve(t, serverName, func(p *peer) error {
				p.begin()
				arrived <- struct{}{}
				return end(p)
			})
			cmd := call{args: encode, env: s.settings}.command()
			stdout, err := cmd.StdoutPipe() // never read
			if err != nil {
				t.Fatal(err)
			}
			defer stdout.Close()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-arrived
			dead := make(chan error, 1)
			go func() { dead <- cmd.Wait() }()
			for deadline := time.After(10 * time.Second); ; {
				_ = cmd.Process.Signal(syscall.SIGTERM) // until the end has arrived it is forwarded
				select {
				case <-dead:
					if got := cmd.ProcessState.Sys().(syscall.WaitStatus); got.Signal() != syscall.SIGTERM {
						t.Errorf("ended with %v", got)
					}
					return
				case <-deadline:
					_ = cmd.Process.Kill()
					<-dead
					t.Fatal("SIGTERM does nothing")
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
}

func TestSignalBeforeTheStart(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGABRT, syscall.SIGXCPU} {
		arrived := make(chan struct{}, 1)
		s := serve(t, serverName, func(p *peer) error {
			p.send(&wire.Progress{Phase: "queued", Reason: "no free slot"})
			arrived <- struct{}{}
			for p.next() != nil {
			}
			return nil
		})
		wait, signal := s.awaiting(t, call{args: encode, env: s.settings}, arrived)
		signal(sig)
		if r := wait(); r.signal != sig || r.stderr != "" || r.stdout != "" || r.core {
			t.Errorf("signal %d: %+v", sig, r)
		}
		select {
		case <-s.ended:
		case <-time.After(10 * time.Second):
			t.Errorf("signal %d: the session goes on", sig)
		}
	}
}

func TestStdin(t *testing.T) {
	const input = "q\x00\r\n?"
	s := serve(t, serverName, func(p *peer) error {
		if !p.start.Stdin {
			t.Error("stdin is not wanted")
		}
		p.begin()
		var got []byte
		for f := p.next(); f != nil; f = p.next() {
			d := f.GetData()
			if d == nil {
				continue
			}
			got = append(got, d.Bytes...)
			if d.Eof {
				break
			}
		}
		p.send(&wire.Data{Pipe: wire.Pipe_STDOUT, Bytes: got})
		p.exit(&wire.Exit{Stdout: uint64(len(got))})
		return nil
	})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		defer w.Close()
		_, _ = io.WriteString(w, input)
	}()
	if got := (call{args: encode[1:], env: s.settings, stdin: r}).run(t); got.stdout != input || got.code != 0 {
		t.Errorf("%+v", got)
	}
}

// TestInputThatCannotBeRead: to the worker it looks like the end of the input, and half
// a film would pass for the whole.
func TestInputThatCannotBeRead(t *testing.T) {
	s := serve(t, serverName, func(p *peer) error {
		p.begin()
		for f := p.next(); f != nil && !f.GetData().GetEof(); {
			f = p.next()
		}
		p.exit(&wire.Exit{})
		return nil
	})
	dir, err := os.Open(s.dir) // read(2) fails
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	keys := encode[1:]
	input := []string{"-f", "mpegts", "-i", "pipe:0", "-c:v", "mpeg4", "-f", "rawvideo", "-"}
	r := call{args: input, env: append(s.settings, "FFPOD_MODE=remote"), stdin: dir}.run(t)
	r.ours(t, "standard input", "is a directory")
	if r := (call{args: keys, env: s.settings, stdin: dir}).run(t); r.code != 0 || r.stderr != "" {
		t.Errorf("a program that only takes keys: %+v", r)
	}
}

// TestQuitBeforeTheStart: Jellyfin writes q and gives the process 5 s, also
// while it waits for a worker. What is peeked at is not taken.
func TestQuitBeforeTheStart(t *testing.T) {
	for _, kind := range []string{"pipe", "socket"} {
		t.Run(kind, func(t *testing.T) {
			arrived := make(chan struct{}, 1)
			s := serve(t, serverName, func(p *peer) error {
				p.send(&wire.Progress{Phase: "queued", Reason: "no free slot"})
				arrived <- struct{}{}
				for p.next() != nil {
				}
				return nil
			})
			near, far := stdinOf(t, kind)
			wait, _ := s.awaiting(t, call{args: s.player(), env: s.settings, stdin: far}, arrived)
			if _, err := io.WriteString(near, "u"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(near, "q\n"); err != nil {
				t.Fatal(err)
			}
			if r := wait(); r.code != quitExit || r.signal != 0 || r.stdout != "" {
				t.Errorf("%+v", r)
			}
			<-s.ended
			left := make([]byte, 10)
			n, _ := far.Read(left)
			if got := string(left[:n]); got != "uq\n" {
				t.Errorf("%q is left, want all of it", got)
			}
		})
	}
}

// stdinOf makes a pair of connected descriptors.
func stdinOf(t *testing.T, kind string) (near, far *os.File) {
	t.Helper()
	if kind == "pipe" {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		return w, r
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far = os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// TestStdinAfterRefusal: the local run reads what came while the scheduler was
// asked.
func TestStdinAfterRefusal(t *testing.T) {
	s := serve(t, serverName, func(p *peer) error {
		<-time.After(peekAfter + 3*peekEvery) // the looking is what is tested
		p.send(refusedWith(wire.Refusal_QUEUE_TIMEOUT, "no slot in time", ""))
		return nil
	})
	cat := s.write("cat", "#!/bin/sh\ncat\n")
	if err := os.Chmod(cat, 0o700); err != nil {
		t.Fatal(err)
	}
	near, far := stdinOf(t, "pipe")
	if _, err := io.WriteString(near, "p?u\n"); err != nil {
		t.Fatal(err)
	}
	near.Close()
	r := call{args: s.player(), env: append(s.settings, "FFPOD_FFMPEG="+cat), stdin: far}.run(t)
	if r.stdout != "p?u\n" || r.code != 0 || !strings.Contains(r.stderr, "no slot in time; running it here instead\n") {
		t.Errorf("%+v", r)
	}
}

// TestClosedStdout: the reader's end is closed on the worker too, and the
// program's SIGPIPE comes back.
func TestClosedStdout(t *testing.T) {
	s := serve(t, serverName, func(p *peer) error {
		p.begin()
		p.send(&wire.Data{Pipe: wire.Pipe_STDOUT, Bytes: make([]byte, 1000)})
		for f := p.next(); f != nil; f = p.next() {
			if c := f.GetClose(); c != nil && c.Pipe == wire.Pipe_STDOUT {
				p.exit(&wire.Exit{Signal: int32(syscall.SIGPIPE), Stdout: 1000})
				return nil
			}
		}
		return nil
	})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd := call{args: encode, env: s.settings}.command()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	_ = cmd.Start()
	w.Close()
	_ = cmd.Wait()
	if got := ended(cmd, "", stderr.String()); got.signal != syscall.SIGPIPE || got.stderr != "" {
		t.Errorf("%+v", got)
	}
}

func TestNotice(t *testing.T) {
	cases := map[string]struct {
		args func(*scheduler) []string
		want int
	}{
		"playback": {(*scheduler).player, 1},
		"other":    {func(*scheduler) []string { return encode }, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := serve(t, serverName, func(p *peer) error {
				p.send(&wire.Progress{Phase: "starting", Reason: "pulling the image"})
				<-time.After(3 * noticeAfter) // the wait is what is tested
				p.begin()
				p.send(&wire.Data{Pipe: wire.Pipe_STDERR, Bytes: []byte("ffmpeg version\n")})
				p.exit(&wire.Exit{Stderr: 15})
				return nil
			})
			r := call{args: c.args(s), env: s.settings}.run(t)
			if r.stdout != "" || r.code != 0 || strings.Count(r.stderr, "waiting for a worker: pulling the image\n") != c.want ||
				!strings.HasSuffix(r.stderr, "ffmpeg version\n") || strings.Count(r.stderr, "\n") != c.want+1 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestNotStarted: whatever keeps a session from starting is told in one line,
// and the command runs here exactly if it may.
func TestNotStarted(t *testing.T) {
	direct := call{program: realFFmpeg, args: encode}.run(t)
	if direct.code != 0 || direct.stdout == "" {
		t.Fatalf("the command does not run here at all: %+v", direct)
	}
	refuse := func(r *wire.Refused) func(*peer) error {
		return func(p *peer) error { p.send(r); return nil }
	}
	full := refuse(refusedWith(wire.Refusal_QUEUE_FULL, "the queue is full: 64 sessions wait", "scale the class up"))
	cases := map[string]struct {
		session func(*peer) error
		name    string // in the certificate
		env     func(s *scheduler) []string
		want    []string
	}{
		"refused":       {session: full, want: []string{"refused the session", "the queue is full", "scale the class up"}},
		"no address":    {env: set("FFPOD_ADDRESS", ""), want: []string{"no scheduler address", "FFPOD_ADDRESS is not set", "does not exist"}},
		"unreachable":   {env: set("FFPOD_ADDRESS", "127.0.0.1:1"), want: []string{"scheduler 127.0.0.1:1 cannot be reached", "connection refused"}},
		"cut off":       {env: cutOff, want: []string{"cannot be reached: the TLS handshake broke off: "}},
		"unknown host":  {env: set("FFPOD_ADDRESS", "nowhere.invalid:7443"), want: []string{"scheduler nowhere.invalid:7443 cannot be reached", "nowhere.invalid"}},
		"no CA":         {env: set("FFPOD_CA_FILE", "/nonexistent/ca.crt"), want: []string{"no CA", "/nonexistent/ca.crt does not exist"}},
		"CA is no PEM":  {env: func(s *scheduler) []string { return []string{"FFPOD_CA_FILE=" + s.write("bad", "x")} }, want: []string{"no PEM certificate"}},
		"another CA":    {env: otherCA, want: []string{"cannot be trusted", "certificate"}},
		"another name":  {name: "other", want: []string{"cannot be trusted", "ffpod-scheduler"}},
		"no token":      {env: set("FFPOD_TOKEN_FILE", "/nonexistent/token"), want: []string{"no ServiceAccount token", "/nonexistent/token does not exist"}},
		"empty token":   {env: func(s *scheduler) []string { return []string{"FFPOD_TOKEN_FILE=" + s.write("bad", "\n")} }, want: []string{"no ServiceAccount token", "is empty"}},
		"wrong token":   {env: func(s *scheduler) []string { return []string{"FFPOD_TOKEN_FILE=" + s.write("bad", "other")} }, want: []string{"refused the token", "audience"}},
		"wrong account": {session: fails(codes.PermissionDenied, "ServiceAccount default may not open sessions"), want: []string{"refused the caller", "ServiceAccount default"}},
		"draining":      {session: fails(codes.Unavailable, "shutting\ndown"), want: []string{"ended the session before it began", "shutting down"}},
		"silence":       {session: func(*peer) error { return nil }, want: []string{"ended the session before it began"}},
		"no worker in time": {env: set("FFPOD_WAIT", "1ms"), session: func(p *peer) error {
			for p.next() != nil {
			}
			return nil
		}, want: []string{"no worker within FFPOD_WAIT"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.session == nil {
				c.session = full
			}
			if c.name == "" {
				c.name = serverName
			}
			s := serve(t, c.name, c.session)
			env := s.settings
			if c.env != nil {
				env = append(env, c.env(s)...)
			}
			failed := call{args: encode, env: append(env, "FFPOD_FALLBACK=fail")}.run(t)
			failed.ours(t, append(c.want, "not run here: FFPOD_FALLBACK is fail")...)

			here := call{args: encode, env: env}.run(t)
			if here.stdout != direct.stdout || here.code != 0 {
				t.Errorf("it did not run here: %+v", here)
			}
			here.stdout = ""
			here.oneLine(t, "; running it here instead")
		})
	}
}

// cutOff is a scheduler that closes every connection before it says a word.
func cutOff(s *scheduler) []string {
	return []string{"FFPOD_ADDRESS=" + s.behind(func(int) bool { return true })}
}

// TestAHandshakeThatBreaksOff: the one at the other end was just about to go, or
// the path was; the next one answers.
func TestAHandshakeThatBreaksOff(t *testing.T) {
	s := serve(t, serverName, func(p *peer) error {
		p.begin()
		p.exit(&wire.Exit{Code: 7})
		return nil
	})
	address := s.behind(func(n int) bool { return n < 2 })
	if r := (call{args: encode, env: append(s.settings, "FFPOD_ADDRESS="+address, "FFPOD_FALLBACK=fail")}).run(t); r.code != 7 || r.stderr != "" {
		t.Errorf("%+v, want exit 7 and nothing said", r)
	}
}

// TestRetoldIsAskedAnew: half of an answer that no worker gives is nobody's; the whole
// one that comes next is all that is said.
func TestRetoldIsAskedAnew(t *testing.T) {
	var asked atomic.Int32
	const answer = "the driver\n"
	s := serve(t, serverName, func(p *peer) error {
		p.send(&wire.Started{Epoch: 1})
		if asked.Add(1) == 1 {
			p.send(&wire.Data{Pipe: wire.Pipe_STDERR, Bytes: []byte(answer[:4])})
			return status.Error(codes.Unavailable, "going away")
		}
		p.send(&wire.Data{Pipe: wire.Pipe_STDERR, Bytes: []byte(answer)})
		p.exit(&wire.Exit{Session: p.start.Session, Code: 1, Stderr: uint64(len(answer))})
		return nil
	})
	probe := []string{"-v", "verbose", "-hide_banner", "-init_hw_device", "vaapi=va:/dev/dri/renderD128"}
	if r := (call{args: probe, env: s.settings}).run(t); r.code != 1 || r.stderr != answer || r.stdout != "" || asked.Load() != 2 {
		t.Errorf("%+v after %d sessions", r, asked.Load())
	}
}

func set(name, value string) func(*scheduler) []string {
	return func(*scheduler) []string { return []string{name + "=" + value} }
}

func otherCA(s *scheduler) []string {
	present, err := os.ReadFile(s.file("ca.crt"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.certificate("other")
	other := s.file("other.crt")
	if err := os.Rename(s.file("ca.crt"), other); err != nil {
		s.t.Fatal(err)
	}
	s.write("ca.crt", string(present))
	return []string{"FFPOD_CA_FILE=" + other}
}

func fails(code codes.Code, message string) func(*peer) error {
	return func(*peer) error { return status.Error(code, message) }
}

func TestFallbackIsDenied(t *testing.T) {
	s := serve(t, serverName, func(p *peer) error {
		p.send(refusedWith(wire.Refusal_WORKER, "no worker came up", ""))
		return nil
	})
	gpu := []string{"-nostdin", "-f", "lavfi", "-i", "color", "-c:v", "h264_nvenc", "-f", "null", "-"}
	cases := map[string]struct {
		args []string
		env  string
		want string
	}{
		"gpu":     {gpu, "A=", "it needs a GPU for codec h264_nvenc"},
		"remote":  {encode, "FFPOD_MODE=remote", "FFPOD_MODE is remote"},
		"no real": {encode, "FFPOD_FFMPEG=/nonexistent", "FFPOD_FFMPEG=/nonexistent"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			call{args: c.args, env: append(s.settings, c.env)}.run(t).ours(t, "no worker came up", "not run here", c.want)
		})
	}
	t.Run("gpu, but asked for", func(t *testing.T) {
		r := call{args: gpu, env: append(s.settings, "FFPOD_FALLBACK=local")}.run(t)
		if r.code == 125 || !strings.Contains(r.stderr, "running it here instead\n") {
			t.Errorf("%+v", r)
		}
	})
}

func TestPlacedLocally(t *testing.T) {
	s := serve(t, serverName, func(p *peer) error {
		p.send(refusedWith(wire.Refusal_LOCAL, "cheaper there", ""))
		return nil
	})
	direct := call{program: realFFmpeg, args: encode}.run(t)
	if r := (call{args: encode, env: s.settings}).run(t); r != direct {
		t.Errorf("got %+v, want %+v", r, direct)
	}
	call{args: encode, env: append(s.settings, "FFPOD_MODE=remote")}.run(t).ours(t, "cheaper there", "FFPOD_MODE is remote")
}

func TestForcedRemote(t *testing.T) {
	s := serve(t, serverName, func(p *peer) error {
		p.begin()
		p.exit(&wire.Exit{Code: 7})
		return nil
	})
	env := append(s.settings, "FFPOD_MODE=remote")
	if r := (call{args: []string{"-version"}, env: env}).run(t); r.code != 7 {
		t.Errorf("-version: %+v", r)
	}
	call{args: []string{"-i", "/elsewhere/a.mkv", "-f", "null", "-"}, env: env}.run(t).ours(t, "cannot run on a worker", "/elsewhere/a.mkv")
}

// TestLost: what may have run is never run again, whatever the settings.
func TestLost(t *testing.T) {
	cases := map[string]func(p *peer) error{
		"after the ticket": func(p *peer) error {
			p.send(&wire.Ticket{Pod: "worker-1"})
			for f := p.next(); f != nil && f.GetTicketAck() == nil; {
				f = p.next()
			}
			return status.Error(codes.Unavailable, "going away")
		},
		"after the start": func(p *peer) error { p.begin(); return status.Error(codes.Unavailable, "going away") },
		"without status":  func(p *peer) error { p.begin(); return nil },
		"told":            func(p *peer) error { p.begin(); p.send(&wire.Lost{Message: "worker gone"}); return nil },
		"wrong totals":    func(p *peer) error { p.begin(); p.send(&wire.Exit{Stdout: 5}); return nil },
	}
	for name, session := range cases {
		t.Run(name, func(t *testing.T) {
			s := serve(t, serverName, session)
			call{args: encode, env: append(s.settings, "FFPOD_FALLBACK=local")}.run(t).ours(t, "worker-1 was lost", "not run again")
		})
	}
}

func TestSessionsAreUnique(t *testing.T) {
	seen := map[string]bool{}
	at := time.Now()
	for i := range 1000 {
		id := newSession(at)
		if seen[id] {
			t.Fatalf("%s again after %d", id, i)
		}
		seen[id] = true
	}
	if a, b := newSession(time.UnixMilli(1)), newSession(time.UnixMilli(2)); a >= b {
		t.Errorf("%s does not sort before %s", a, b)
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\nb\x00\x1b[31m\u0085ü", 100); got != "a b  [31m ü" {
		t.Errorf("%q", got)
	}
	if got := printable(strings.Repeat("ü", 100), 9); got != "üüüü..." {
		t.Errorf("%q", got)
	}
}

func TestUmask(t *testing.T) {
	if m, err := umask("Name:\tx\nUmask:\t0027\nState:\tR\n"); m != 0o27 || err != nil {
		t.Errorf("%o, %v", m, err)
	}
	if _, err := umask("Name:\tx\n"); err == nil {
		t.Error("no error without a line")
	}
}

func TestNiceness(t *testing.T) {
	nice, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := niceness(); strconv.Itoa(int(got)) != strconv.Itoa(max(0, 20-nice)) {
		t.Errorf("%d", got)
	}
}
