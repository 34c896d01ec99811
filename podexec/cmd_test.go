package podexec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/supervisor"
	"github.com/ffpod/ffpod/podexec/wire"
)

// worker starts a real supervisor on a socket of its own and connects to it as a
// channel does, without Kubernetes between.
func worker(t testing.TB, conf supervisor.Config) *Channel {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if conf.FFmpeg == "" {
		conf.FFmpeg = self
	}
	conf.FFprobe = conf.FFmpeg
	s, err := supervisor.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("@ffpod-test-%d-%s", os.Getpid(), t.Name())
	l, err := supervisor.Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { _, err := s.Serve(ctx, l); served <- err }()
	conn, err := grpc.NewClient("unix-abstract:"+name[1:], append(session.ChannelDialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		stop()
		// In once mode a program that is missing ends the worker.
		if err := <-served; err != nil && !errors.Is(err, supervisor.ErrIdle) && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("serve: %v", err)
		}
	})
	return &Channel{conn: conn}
}

func command(c *Channel, args ...string) (*Cmd, *bytes.Buffer, *bytes.Buffer) {
	cmd := c.Command(wire.Program_FFMPEG, args...)
	cmd.Env = []string{"CHILD=1"}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	return cmd, &out, &errs
}

func TestExitCodes(t *testing.T) {
	c := worker(t, supervisor.Config{Slots: 16})
	var all sync.WaitGroup
	limit := make(chan struct{}, 8)
	for code := range 256 {
		limit <- struct{}{}
		all.Go(func() {
			defer func() { <-limit }()
			cmd, out, errs := command(c, "exit", strconv.Itoa(code))
			err := cmd.Run(t.Context())
			var exit *ExitError
			switch {
			case code == 0 && err != nil:
				t.Errorf("exit 0: %v", err)
			case code > 0 && (!errors.As(err, &exit) || exit.ExitCode() != code):
				t.Errorf("exit %d: got %v", code, err)
			}
			if out.String() != "out" || errs.String() != "err" {
				t.Errorf("exit %d: stdout %q, stderr %q", code, out, errs)
			}
		})
	}
	all.Wait()
}

func TestDeathBySignal(t *testing.T) {
	c := worker(t, supervisor.Config{})
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGPIPE, syscall.SIGTERM} {
		cmd, _, _ := command(c, "die", strconv.Itoa(int(sig)))
		var exit *ExitError
		if err := cmd.Run(t.Context()); !errors.As(err, &exit) || syscall.Signal(exit.Signal) != sig || exit.ExitCode() != -1 {
			t.Errorf("%v: got %v", sig, err)
		}
	}
}

func TestSignalsReachTheProcess(t *testing.T) {
	c := worker(t, supervisor.Config{})
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1} {
		cmd, _, _ := command(c, "signals")
		lines := newLines()
		cmd.Stderr = lines
		if err := cmd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		lines.wait(t, "ready")
		if err := cmd.Signal(sig); err != nil {
			t.Error(err)
		}
		var exit *ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 9 {
			t.Errorf("%v: %v", sig, err)
		}
		lines.wait(t, sig.String())
	}
}

func TestBytesBothWays(t *testing.T) {
	c := worker(t, supervisor.Config{})
	const size = 64 << 20
	cmd, _, _ := command(c, "cat")
	cmd.Stdin = io.LimitReader(noise("stdin"), size)
	got := sha256.New()
	cmd.Stdout = got
	if err := cmd.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := sha256.New()
	_, _ = io.Copy(want, io.LimitReader(noise("stdin"), size))
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("sha256 differs, %d of %d bytes", cmd.Exit().Stdout, size)
	}
}

func TestArguments(t *testing.T) {
	c := worker(t, supervisor.Config{})
	long := strings.Repeat("x", 128<<10-1) // MAX_ARG_STRLEN with its NUL
	tests := map[string][]string{
		"empty":      {"", "", "-i", ""},
		"newlines":   {"a\nb", "\r", "\t", " ", "'", `"`, `\`, "|;&$[%d]"},
		"unicode":    {"файл", "映画", "🎬", "e\u0301"},
		"longest":    {long},
		"fifteen":    slices.Repeat([]string{long}, 14), // 1.75 MiB of 2
		"a thousand": slices.Repeat([]string{"-x"}, 1000),
	}
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			cmd, out, errs := command(c, append([]string{"args"}, args...)...)
			if err := cmd.Run(t.Context()); err != nil {
				t.Fatal(err, errs)
			}
			var got []string
			if err := json.Unmarshal(out.Bytes(), &got); err != nil || !slices.Equal(got, args) {
				t.Errorf("arguments arrived changed: %v", err)
			}
		})
	}
	t.Run("not utf-8", func(t *testing.T) {
		cmd, out, _ := command(c, "args", "\xff\xfe")
		if err := cmd.Run(t.Context()); err != nil || !strings.Contains(out.String(), `\ufffd`) {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("beyond the kernel", func(t *testing.T) {
		cmd, _, _ := command(c, "args", long+"xx")
		var start *StartError
		if err := cmd.Run(t.Context()); !errors.As(err, &start) || start.Refusal != wire.Refusal_BAD_START {
			t.Errorf("got %v", err)
		}
	})
}

func TestStateOfTheProcess(t *testing.T) {
	t.Setenv("FFPOD_SECRET", "1")
	t.Setenv("WORKERS_OWN", "1")
	c := worker(t, supervisor.Config{})
	dir := t.TempDir()
	cmd, out, _ := command(c, "state")
	cmd.Dir, cmd.Umask = dir, 0o027
	cmd.Env = append(cmd.Env, "LANG=x")
	if err := cmd.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Dir   string
		Umask int
		Env   []string
		Pgid  int
		Pid   int
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Dir != dir || got.Umask != 0o027 || got.Pgid != got.Pid {
		t.Errorf("got %+v", got)
	}
	if !slices.Contains(got.Env, "LANG=x") || !slices.Contains(got.Env, "WORKERS_OWN=1") || slices.Contains(got.Env, "FFPOD_SECRET=1") {
		t.Errorf("environment %q", got.Env)
	}
}

func TestRefusals(t *testing.T) {
	c := worker(t, supervisor.Config{Slots: 1})
	holder, _, _ := command(c, "sleep")
	lines := newLines()
	holder.Stderr = lines
	if err := holder.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines.wait(t, "ready")
	var start *StartError
	cmd, _, _ := command(c, "exit", "0")
	if err := cmd.Run(t.Context()); !errors.As(err, &start) || start.Refusal != wire.Refusal_NO_SLOT {
		t.Errorf("no slot: got %v", err)
	}
	_ = holder.Signal(syscall.SIGKILL)
	_ = holder.Wait()

	cmd, _, _ = command(c, "exit", "0")
	cmd.Dir = "/nowhere"
	if err := cmd.Run(t.Context()); !errors.As(err, &start) || start.Refusal != wire.Refusal_BAD_START {
		t.Errorf("directory: got %v", err)
	}
	cmd, _, _ = command(c, "exit", "0")
	cmd.Session = holder.start().Session
	if err := cmd.Run(t.Context()); err != nil {
		t.Errorf("a slot that was freed: %v", err)
	}
	again, _, _ := command(c, "exit", "0")
	again.Session = cmd.Session
	if err := again.Run(t.Context()); cmd.Session != "" && (!errors.As(err, &start) || start.Refusal != wire.Refusal_DUPLICATE) {
		t.Errorf("duplicate: got %v", err)
	}
}

func TestMissingProgram(t *testing.T) {
	c := worker(t, supervisor.Config{FFmpeg: "/nowhere/ffmpeg"})
	cmd, _, _ := command(c, "exit", "0")
	var start *StartError
	if err := cmd.Run(t.Context()); !errors.As(err, &start) || start.Refusal != wire.Refusal_NO_PROGRAM || !strings.Contains(err.Error(), "/nowhere/ffmpeg") {
		t.Errorf("got %v", err)
	}
}

// A stalled consumer of stdout delays neither stderr, nor stdin, nor the exit of
// another session.
func TestStalledConsumer(t *testing.T) {
	c := worker(t, supervisor.Config{Slots: 2})
	stall := &gate{open: make(chan struct{})}
	stuck, _, _ := command(c, "key")
	in, keys := io.Pipe()
	lines := newLines()
	stuck.Stdin, stuck.Stdout, stuck.Stderr = in, stall, lines
	if err := stuck.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stall.wait(t)

	other, _, _ := command(c, "flood", strconv.Itoa(32<<20), "other")
	count := &counter{}
	other.Stdout = count
	if err := other.Run(t.Context()); err != nil || count.n != 32<<20 {
		t.Errorf("the neighbour got %d bytes: %v", count.n, err)
	}

	if _, err := keys.Write([]byte("q")); err != nil {
		t.Fatal(err)
	}
	lines.wait(t, "got q")
	keys.Close()
	close(stall.open)
	var exit *ExitError
	if err := stuck.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v", err)
	}
	if stall.n != int(exit.Stdout) {
		t.Errorf("%d bytes of stdout, the exit says %d", stall.n, exit.Stdout)
	}
}

func TestConsumerThatCloses(t *testing.T) {
	c := worker(t, supervisor.Config{})
	cmd, _, errs := command(c, "forever")
	cmd.Stdout = &closing{after: 1 << 20}
	var exit *ExitError
	// Go's child dies of SIGPIPE on descriptor 1, as most programs do.
	if err := cmd.Run(t.Context()); !errors.As(err, &exit) || syscall.Signal(exit.Signal) != syscall.SIGPIPE {
		t.Errorf("got %v, stderr %s", err, errs)
	}
}

func TestProcessThatClosesStdin(t *testing.T) {
	c := worker(t, supervisor.Config{})
	cmd, _, errs := command(c, "closein")
	cmd.Stdin = io.MultiReader(strings.NewReader("hello\n"), io.LimitReader(noise("x"), 8<<20))
	if err := cmd.Run(t.Context()); err != nil || errs.String() != "hello" {
		t.Errorf("got %v, stderr %q", err, errs)
	}
}

func TestCancelKillsTheGroup(t *testing.T) {
	c := worker(t, supervisor.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd, _, _ := command(c, "sleep")
	lines := newLines()
	cmd.Stderr = lines
	if err := cmd.Start(ctx); err != nil {
		t.Fatal(err)
	}
	lines.wait(t, "ready")
	d, err := c.Describe(t.Context())
	if err != nil || len(d.Sessions) != 1 {
		t.Fatalf("describe: %v %v", d, err)
	}
	pid := int(d.Sessions[0].Pid)
	cancel()
	var lost *LostError
	if err := cmd.Wait(); !errors.As(err, &lost) {
		t.Errorf("got %v", err)
	}
	eventually(t, "the process is gone", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	eventually(t, "the exit is kept", func() bool {
		d, err := c.Describe(t.Context())
		return err == nil && len(d.Sessions) == 1 && d.Sessions[0].Exit.GetCause() == wire.Cause_CAUSE_ORPHANED
	})
}

func TestNothingOutlivesItsSession(t *testing.T) {
	c := worker(t, supervisor.Config{})
	cmd, out, _ := command(c, "brood")
	if err := cmd.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectDead(t, out.String())

	stray, out, _ := command(c, "stray", "3600") // has left the group
	if err := stray.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := stray.Exit(); e.StdoutCut || e.StderrCut {
		t.Errorf("a pipe was still held: %v", e)
	}
	expectDead(t, out.String())
}

func expectDead(t *testing.T, pid string) {
	t.Helper()
	if _, err := strconv.Atoi(pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the grandchild is gone or a zombie", func() bool {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}

func TestPipeHeldElsewhereIsCut(t *testing.T) {
	c := worker(t, supervisor.Config{})
	cmd, out, _ := command(c, "holder", "30")
	if err := cmd.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := cmd.Exit(); !e.StdoutCut || !e.StderrCut {
		t.Errorf("the exit does not tell that the pipes were cut: %v", e)
	}
	if pid, err := strconv.Atoi(out.String()); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestManySessions(t *testing.T) {
	const n = 50
	c := worker(t, supervisor.Config{Slots: n})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			seed := strconv.Itoa(i)
			cmd, _, _ := command(c, "flood", strconv.Itoa(1<<20), seed)
			got := sha256.New()
			cmd.Stdout = got
			if err := cmd.Run(t.Context()); err != nil {
				t.Error(err)
			}
			want := sha256.New()
			_, _ = io.Copy(want, io.LimitReader(noise(seed), 1<<20))
			if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Errorf("session %d: sha256 %s", i, hex.EncodeToString(got.Sum(nil)))
			}
		})
	}
	all.Wait()
	d, err := c.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range d.Sessions {
		if s.Exit == nil {
			t.Errorf("session %s still runs", s.Session)
		}
	}
}

func TestOnce(t *testing.T) {
	c := worker(t, supervisor.Config{Once: true})
	cmd, _, _ := command(c, "exit", "5")
	var exit *ExitError
	if err := cmd.Run(t.Context()); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Errorf("got %v", err)
	}
}

// A worker of a Job ends when its one session could not be started, but not
// before the scheduler has its words: else a refusal looks like a loss.
func TestOnceTellsWhyNothingStarted(t *testing.T) {
	for i := range 20 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			c := worker(t, supervisor.Config{Once: true, FFmpeg: "/nowhere/ffmpeg"})
			cmd, _, _ := command(c, "exit", "0")
			var start *StartError
			if err := cmd.Run(t.Context()); !errors.As(err, &start) || start.Refusal != wire.Refusal_NO_PROGRAM {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestShutdownTellsTheExit(t *testing.T) {
	self, _ := os.Executable()
	s, err := supervisor.New(supervisor.Config{FFmpeg: self, Grace: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	l, err := supervisor.Listen("@ffpod-test-shutdown-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	served := make(chan error, 1)
	go func() { _, err := s.Serve(ctx, l); served <- err }()
	conn, err := grpc.NewClient("unix-abstract:"+l.Addr().String()[1:], append(session.ChannelDialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cmd, _, _ := command(&Channel{conn: conn}, "sleep")
	lines := newLines()
	cmd.Stderr = lines
	if err := cmd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines.wait(t, "ready")
	stop()
	var exit *ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || syscall.Signal(exit.Signal) != syscall.SIGTERM || exit.Cause != wire.Cause_CAUSE_SHUTDOWN {
		t.Errorf("got %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestSingleUse(t *testing.T) {
	c := worker(t, supervisor.Config{})
	cmd, _, _ := command(c, "exit", "0")
	if err := cmd.Wait(); err == nil {
		t.Error("Wait before Start returned nil")
	}
	if err := cmd.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(t.Context()); err == nil {
		t.Error("a second Start returned nil")
	}
}

// bound is generous: it only ends a test that hangs.
const bound = 30 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(bound)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", bound, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// lines is a writer whose reader waits for a text.
type lines struct {
	mu   sync.Mutex
	text string
	more chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.text += string(p)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) wait(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(bound)
	for {
		l.mu.Lock()
		found := strings.Contains(l.text, want)
		l.mu.Unlock()
		if found {
			return
		}
		select {
		case <-l.more:
		case <-timeout:
			t.Fatalf("no %q within %s in %q", want, bound, l.text)
		}
	}
}

// gate is a consumer that stalls at its first byte until it is opened.
type gate struct {
	open  chan struct{}
	mu    sync.Mutex
	n     int
	ready bool
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	g.ready = true
	g.mu.Unlock()
	<-g.open
	g.n += len(p)
	return len(p), nil
}

func (g *gate) wait(t *testing.T) {
	eventually(t, "stdout arrives", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.ready })
}

type counter struct{ n int }

func (c *counter) Write(p []byte) (int, error) { c.n += len(p); return len(p), nil }

// closing is a consumer that goes away.
type closing struct{ n, after int }

func (c *closing) Write(p []byte) (int, error) {
	if c.n += len(p); c.n > c.after {
		return 0, syscall.EPIPE
	}
	return len(p), nil
}

// A signal has nothing to go to any more, and its sender must know.
func TestSignalAfterWait(t *testing.T) {
	c := worker(t, supervisor.Config{})
	cmd, _, _ := command(c, "exit", "0")
	if err := cmd.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 16 {
		if cmd.Signal(syscall.SIGTERM) == nil {
			t.Fatal("a process that has ended took a signal")
		}
	}
}
