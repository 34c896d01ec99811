package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/fence"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// arenaVariable makes the test binary play the real ffmpeg: a writer that must be
// alone in the file that it names.
const arenaVariable = "SHIM_TEST_ARENA"

// enter takes the arena for as long as its descriptor is open. Failing is the
// crime that the fence is there to prevent, so it is told to the test for good.
func enter(arena, who string) (int, error) {
	fd, err := unix.Open(arena, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, err
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = os.WriteFile(arena+".overlap", []byte(who), 0o600)
		return -1, fmt.Errorf("%s overlaps: %w", who, err)
	}
	return fd, nil
}

func writeUntilKilled(arena string) int {
	if _, err := enter(arena, "a local writer"); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("writing")
	time.Sleep(time.Minute)
	return 0
}

// fencing is a scheduler with a true fence, and workers that keep ffmpeg for a
// while after its shim has died.
type fencing struct {
	*scheduler
	arena string
	table *fence.Table

	mu   sync.Mutex
	kill map[string]context.CancelFunc
	n    int
}

func serveFencing(t *testing.T) *fencing {
	f := &fencing{table: fence.New(), kill: map[string]context.CancelFunc{}}
	f.scheduler = serve(t, serverName, f.run)
	f.arena = f.file("arena")
	f.clear = func(ctx context.Context, keys []string) error {
		f.mu.Lock()
		f.n++
		id := fmt.Sprint("clear-", f.n)
		f.mu.Unlock()
		if err := f.claim(id, keys); err != nil {
			return err
		}
		defer f.table.Free(id)
		return f.table.Wait(ctx, id, nil)
	}
	return f
}

func (f *fencing) claim(id string, keys []string) error {
	older, err := f.table.Claim(fence.Session{ID: id, Owner: "n/a", Keys: keys, Asked: time.Now()})
	for _, o := range older {
		f.mu.Lock()
		if kill := f.kill[o.Session]; kill != nil {
			kill()
		}
		f.mu.Unlock()
	}
	return err
}

func (f *fencing) run(p *peer) error {
	if p.start == nil {
		p.send(refusedWith(wire.Refusal_UNKNOWN_SESSION, "these workers know no Resume", "run it again"))
		return nil
	}
	id := p.start.Session
	killed, kill := context.WithCancel(context.Background())
	defer kill()
	f.mu.Lock()
	f.kill[id] = kill
	f.mu.Unlock()
	cmd := ffmpeg.Parse("ffmpeg", text(p.start.Argv), ffmpeg.Host{Dir: string(p.start.Cwd)})
	if err := f.claim(id, cmd.OutputKeys()); err != nil {
		return err
	}
	if err := f.table.Wait(killed, id, nil); err != nil {
		f.table.Free(id)
		p.send(refusedWith(wire.Refusal_FENCED, "another session writes the same outputs", "leave them to it"))
		return nil
	}
	f.table.Placed(id, lease.Worker{Pod: "worker-1"})
	p.send(&wire.Ticket{Session: id, Pod: "worker-1", GraceMs: 60_000})
	if ack := p.next(); ack.GetTicketAck() == nil { // the shim is gone: nothing was started
		f.table.Free(id)
		return nil
	}
	writer, err := enter(f.arena, "session "+id)
	if err != nil {
		return err
	}
	p.send(&wire.Started{Pid: 42, Epoch: 1}, &wire.Data{Pipe: wire.Pipe_STDOUT, Bytes: []byte("writing\n")})
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for p.next() != nil {
		}
	}()
	select {
	case <-killed.Done():
	case <-gone: // the worker's own timer
		select {
		case <-killed.Done():
		case <-time.After(120 * time.Millisecond):
		}
	}
	_ = unix.Close(writer)
	f.table.Free(id)
	p.send(&wire.Data{Pipe: wire.Pipe_STDOUT, Offset: 8, Eof: true}, &wire.Data{Pipe: wire.Pipe_STDERR, Eof: true},
		&wire.Exit{Signal: 9, Stdout: 8, Cause: wire.Cause_CAUSE_FENCED})
	<-gone
	return nil
}

// writer is a command that writes HLS into the shared directory, in a mode.
func (f *fencing) writer(t *testing.T, mode string) call {
	t.Helper()
	me, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The shim refuses to execute a program of its own package.
	real := f.write("real", "#!/bin/sh\nexec "+me+"\n")
	if err := os.Chmod(real, 0o700); err != nil {
		t.Fatal(err)
	}
	return call{args: f.player(), env: append(f.settings, "FFPOD_FFMPEG="+real, "FFPOD_MODE="+mode, arenaVariable+"="+f.arena)}
}

// started is a running shim.
type started struct {
	*exec.Cmd
	stdout chan string // its first line
	stderr strings.Builder
}

func (c call) start(t *testing.T) *started {
	t.Helper()
	s := &started{Cmd: c.command(), stdout: make(chan string, 1)}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.Stderr = &s.stderr
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		s.stdout <- strings.TrimSpace(line)
	}()
	t.Cleanup(func() { _ = s.Process.Kill(); _ = s.Wait() })
	return s
}

// writes waits until it is alone in the arena.
func (s *started) writes(t *testing.T, what string) {
	t.Helper()
	select {
	case line := <-s.stdout:
		if line != "writing" {
			_ = s.Wait()
			t.Errorf("%s: %q, %s", what, line, s.stderr.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not start", what)
	}
}

// TestSeek is what Jellyfin does: SIGKILL, and at once the same names again, here or
// on a worker. No two writers ever overlap, and nobody waits long.
func TestSeek(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	f := serveFencing(t)
	seeks := 60
	if testing.Short() {
		seeks = 24
	}
	counts := map[string]int{}
	before := "nothing"
	for i := range seeks {
		mode := []string{"local", "remote"}[rnd.IntN(2)]
		if i < 8 { // each way at least once
			mode = []string{"local", "local", "remote", "remote", "local", "remote", "remote", "local"}[i]
		}
		what := fmt.Sprintf("seed %d, seek %d: %s to %s", seed, i, before, mode)
		begun := time.Now()
		s := f.writer(t, mode).start(t)
		if i < 8 || rnd.IntN(3) > 0 {
			s.writes(t, what)
			counts[before+" to "+mode]++
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("%s took %s", what, took)
			}
		} else {
			time.Sleep(time.Duration(rnd.IntN(60_000)) * time.Microsecond) // killed in whatever it does
		}
		if err := s.Process.Kill(); err != nil {
			t.Error(err)
		}
		before = mode
	}
	if b, err := os.ReadFile(f.arena + ".overlap"); err == nil {
		t.Errorf("seed %d: %s overlapped", seed, b)
	}
	t.Log("seed", seed, counts)
}

// A writer that nobody kills is in the way of the next, whose line names it.
func TestOutputsAreBusy(t *testing.T) {
	f := serveFencing(t)
	s := f.writer(t, "local").start(t)
	s.writes(t, "the first")
	for _, mode := range []string{"local", "remote"} {
		r := f.writer(t, mode).run(t)
		if mode == "remote" { // a player hears at once that it waits
			line, rest, _ := strings.Cut(r.stderr, "\n")
			if r.stderr = rest; !strings.Contains(line, fmt.Sprintf("process %d still writes the same outputs", s.Process.Pid)) {
				t.Errorf("first line %q", line)
			}
		}
		r.ours(t, "its outputs are not free", fmt.Sprintf("process %d still writes the same outputs after 5s", s.Process.Pid))
	}
}

// The caller's signal ends the wait for a session that nobody can be asked about,
// and the line tells what it waits for.
func TestWaitForTheBound(t *testing.T) {
	f := serveFencing(t)
	remote := f.writer(t, "remote").start(t)
	remote.writes(t, "the session")
	if err := remote.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = remote.Wait()
	c := f.writer(t, "local")
	c.env = append(c.env, "FFPOD_ADDRESS=127.0.0.1:1")
	cmd := c.command()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil || !strings.Contains(line, "ffmpeg: ffpod: waiting: session ") || !strings.Contains(line, "on worker worker-1 may write the same outputs for another ") ||
		!strings.Contains(line, "127.0.0.1:1 cannot be reached") {
		t.Errorf("line %q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if got := ended(cmd, "", ""); got.signal != syscall.SIGTERM {
		t.Errorf("%+v", got)
	}
	f.writer(t, "local").start(t).writes(t, "with the scheduler back")
}

// TestOutputs: what touches the registry, and what does not.
func TestOutputs(t *testing.T) {
	for argv, want := range map[string]string{
		"-i /m/a -f hls /c/x.m3u8":                "/c/x",
		"-i /m/a /c/x.mkv /tmp/y.mkv /m/z.srt":    "/c/x.mkv /m/z.srt",
		"-i /m/a /cc/x.mkv":                       "",
		"-i /m/a -f null -":                       "",
		"-i /m/a -f null /c/x":                    "",
		"-version":                                "",
		"-i /m/a /c/x.mkv -version":               "",
		"-f lavfi -i nullsrc -f rawvideo pipe:1":  "",
		"-i /m/a -f mpegts http://h/c/x":          "",
		"-i /m/a -f segment /c/x%03d.ts":          "/c/x%03d.ts",
		"-i /c/../m/a -f image2 /c/a/../%08d.jpg": "/c/%08d.jpg",
	} {
		s := &shim{program: ffmpeg.FFmpeg, argv: strings.Fields(argv)}
		s.settings.Shared = []string{"/m", "/c"}
		s.getenv = func(string) string { return "" }
		s.understand()
		if got := strings.Join(s.outputs(), " "); got != want {
			t.Errorf("%s: %q, want %q", argv, got, want)
		}
	}
	probe := &shim{program: ffmpeg.FFprobe, argv: []string{"-i", "/c/x.mkv"}}
	probe.settings.Shared = []string{"/"}
	probe.understand()
	if got := probe.outputs(); got != nil {
		t.Errorf("ffprobe: %q", got)
	}
}

// A shared memory of its own shows whether a command makes a registry, and what
// happens without any.
func TestSharedMemory(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]struct {
		options string
		args    []string
		want    string // in /dev/shm afterwards
		log     string
	}{
		"information":    {"size=64k", []string{"-version"}, "", ""},
		"no file":        {"size=64k", []string{"-nostdin", "-f", "lavfi", "-i", "nullsrc=s=2x2:d=0.04", "-f", "null", "-"}, "", ""},
		"a file":         {"size=64k", []string{"-nostdin", "-v", "error", "-f", "lavfi", "-i", "nullsrc=s=16x16:d=0.04", "-y", dir + "/a.mkv"}, "ffpod-", ""},
		"no memory left": {"size=4k,nr_inodes=2", []string{"-nostdin", "-v", "error", "-f", "lavfi", "-i", "nullsrc=s=16x16:d=0.04", "-y", dir + "/b.mkv"}, "ffpod-", "where=registry"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			c := call{
				program: "/bin/sh",
				args:    append([]string{"-c", `mount -t tmpfs -o "$0" none /dev/shm && "$@" >/dev/null; code=$?; ls /dev/shm; exit $code`, test.options, filepath.Join(built, "ffmpeg")}, test.args...),
				env:     []string{"FFPOD_MODE=local", "FFPOD_SHARED=" + dir, "FFPOD_FFMPEG=" + realFFmpeg, "FFPOD_LOG=" + log, "TMPDIR=/proc/nowhere"},
			}
			cmd := c.command()
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
			if os.Geteuid() != 0 {
				cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
				cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
				cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
			}
			out, err := cmd.Output()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				t.Fatalf("%v: %s", err, exit.Stderr)
			}
			if err != nil || strings.Contains(string(out), "ffpod-") != (test.want != "") {
				t.Errorf("%v, /dev/shm holds %q", err, out)
			}
			b, _ := os.ReadFile(log)
			if test.log != "" && !strings.Contains(string(b), test.log) {
				t.Errorf("log: %s", b)
			}
		})
	}
}
