package podexec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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

// raw is the stream of a peer that says what it likes.
type raw struct {
	wire.Runner_RunClient
	t      *testing.T
	cancel context.CancelFunc
}

func open(t *testing.T, c *Channel) *raw {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	stream, err := c.Runner().Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &raw{stream, t, cancel}
}

func (r *raw) start(s *wire.Start) { _ = r.Send(&wire.Frame{Kind: &wire.Frame_Start{Start: s}}) }

// until returns the first frame that is wanted.
func (r *raw) until(want func(*wire.Frame) bool) *wire.Frame {
	r.t.Helper()
	for {
		f, err := r.Recv()
		if err != nil {
			r.t.Fatalf("the stream ended: %v", err)
		}
		if want(f) {
			return f
		}
	}
}

func isStarted(f *wire.Frame) bool { return f.GetStarted() != nil }

func startOf(id string, args ...string) *wire.Start {
	s := &wire.Start{Session: id, Program: wire.Program_FFMPEG, Cwd: []byte("/"), Env: [][]byte{[]byte("CHILD=1")}}
	for _, a := range args {
		s.Argv = append(s.Argv, []byte(a))
	}
	return s
}

func gone(pid int) func() bool {
	return func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }
}

// Whoever acknowledges an exit that was not sent gets no orphan.
func TestEarlyExitAckLeavesNoOrphan(t *testing.T) {
	c := worker(t, supervisor.Config{})
	r := open(t, c)
	r.start(startOf("early", "sleep"))
	pid := int(r.until(isStarted).GetStarted().Pid)
	_ = r.Send(&wire.Frame{Kind: &wire.Frame_ExitAck{ExitAck: &wire.ExitAck{}}})
	eventually(t, "the process is gone", gone(pid))
	eventually(t, "its slot is free", func() bool {
		cmd, _, _ := command(c, "exit", "0")
		return cmd.Run(t.Context()) == nil
	})
}

// Frames of pipes that do not exist, or in the wrong direction, close nothing.
func TestFramesOfOtherPipes(t *testing.T) {
	c := worker(t, supervisor.Config{})
	for name, f := range map[string]*wire.Frame{
		"close nothing": {Kind: &wire.Frame_Close{Close: &wire.Close{}}},
		"close stdin":   {Kind: &wire.Frame_Close{Close: &wire.Close{Pipe: wire.Pipe_STDIN}}},
		"ack nothing":   {Kind: &wire.Frame_Ack{Ack: &wire.Ack{Pipe: 7, Offset: 99}}},
		"start":         {Kind: &wire.Frame_Start{Start: startOf("other", "exit", "1")}},
		"resume":        {Kind: &wire.Frame_Resume{Resume: &wire.Resume{}}},
		"bad signals":   {Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: -9}}},
		"signal 0":      {Kind: &wire.Frame_Signal{Signal: &wire.Signal{}}},
		"signal 4096":   {Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: 4096}}},
		"nothing":       {},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, c)
			s := startOf("pipes "+name, "cat")
			s.Stdin = true
			r.start(s)
			r.until(isStarted)
			_ = r.Send(f)
			_ = r.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDIN, Bytes: []byte("hi"), Eof: true}}})
			e := r.until(func(f *wire.Frame) bool { return f.GetExit() != nil }).GetExit()
			if e.Stdout != 2 || e.Code != 0 || e.Signal != 0 {
				t.Errorf("got %v", e)
			}
			_ = r.Send(&wire.Frame{Kind: &wire.Frame_ExitAck{ExitAck: &wire.ExitAck{}}})
		})
	}
}

// Frames that would lose or invent bytes end the session.
func TestFramesThatBreakAPipe(t *testing.T) {
	c := worker(t, supervisor.Config{Slots: 5}) // a slot is free a little after its process is gone
	d := func(d *wire.Data) *wire.Frame { return &wire.Frame{Kind: &wire.Frame_Data{Data: d}} }
	for name, f := range map[string]*wire.Frame{
		"data of stdout": d(&wire.Data{Pipe: wire.Pipe_STDOUT, Bytes: []byte("x")}),
		"data of none":   d(&wire.Data{Bytes: []byte("x")}),
		"a gap":          d(&wire.Data{Pipe: wire.Pipe_STDIN, Offset: 5, Bytes: []byte("x")}),
		"too much":       d(&wire.Data{Pipe: wire.Pipe_STDIN, Bytes: make([]byte, 4*session.DefaultRing+1)}),
		"ack beyond":     {Kind: &wire.Frame_Ack{Ack: &wire.Ack{Pipe: wire.Pipe_STDOUT, Offset: 1 << 40}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, c)
			s := startOf("break "+name, "sleep")
			s.Stdin = true
			r.start(s)
			pid := int(r.until(isStarted).GetStarted().Pid)
			_ = r.Send(f)
			eventually(t, "the process is gone", gone(pid))
		})
	}
}

func TestStartsThatCannotBe(t *testing.T) {
	c := worker(t, supervisor.Config{})
	for name, change := range map[string]func(*wire.Start){
		"directory that is not UTF-8":  func(s *wire.Start) { s.Cwd = []byte("/nowhere/\xff\n") },
		"directory with NUL":           func(s *wire.Start) { s.Cwd = []byte("/\x00") },
		"no directory":                 func(s *wire.Start) { s.Cwd = nil },
		"a file as directory":          func(s *wire.Start) { s.Cwd = []byte("/etc/passwd") },
		"argument with NUL":            func(s *wire.Start) { s.Argv = [][]byte{[]byte("a\x00b")} },
		"environment with NUL":         func(s *wire.Start) { s.Env = [][]byte{[]byte("A=\x00")} },
		"no id":                        func(s *wire.Start) { s.Session = "" },
		"a program of a later release": func(s *wire.Start) { s.Program = 77 },
		"no program":                   func(s *wire.Start) { s.Program = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, c)
			s := startOf("cannot "+name, "exit", "0")
			change(s)
			r.start(s)
			f, err := r.Recv()
			if err != nil || f.GetRefused().GetRefusal() != wire.Refusal_BAD_START {
				t.Fatalf("got %v, %v", f, err)
			}
			if strings.ContainsAny(f.GetRefused().Message, "\n\x00") {
				t.Errorf("not one line: %q", f.GetRefused().Message)
			}
		})
	}
	t.Run("nothing of it took the slot", func(t *testing.T) {
		cmd, _, _ := command(c, "exit", "0")
		if err := cmd.Run(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestOddEnvironment(t *testing.T) {
	c := worker(t, supervisor.Config{FFmpeg: "/usr/bin/env"})
	cmd, out, _ := command(c, "-0")
	cmd.Env = []string{"A=1", "A=2", "NOVALUE", "", "=x", "B=\xff\n", "PATH="}
	if err := cmd.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(out.String(), "\x00")
	if i := slices.Index(got, "A=1"); i < 0 || i > slices.Index(got, "A=2") || !slices.Contains(got, "B=\xff\n") || !slices.Contains(got, "PATH=") {
		t.Errorf("got %q", got)
	}
}

// An id is taken from its admission on, not only once its process runs.
func TestOneSessionIsStartedOnce(t *testing.T) {
	c := worker(t, supervisor.Config{Slots: 8, FFmpeg: "/bin/true"})
	for round := range 30 {
		id := "twin-" + strconv.Itoa(round)
		var started, refused int
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				cmd, _, _ := command(c, "exit", "0")
				cmd.Session = id
				err := cmd.Run(t.Context())
				mu.Lock()
				defer mu.Unlock()
				var start *StartError
				switch {
				case err == nil:
					started++
				case errors.As(err, &start) && start.Refusal == wire.Refusal_DUPLICATE:
					refused++
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if started != 1 || refused != 3 {
			t.Fatalf("%d started, %d refused", started, refused)
		}
	}
}

// A once worker that is about to exit still tells why it refused: else what never
// started would count as lost.
func TestOnceTellsItsRefusal(t *testing.T) {
	for range 30 {
		c, _, served := server(t, supervisor.Config{Once: true, FFmpeg: "/nowhere/ffmpeg"})
		cmd, _, _ := command(c, "exit", "0")
		var start *StartError
		if err := cmd.Run(t.Context()); !errors.As(err, &start) || start.Refusal != wire.Refusal_NO_PROGRAM {
			t.Fatalf("got %v", err)
		}
		if got := <-served; got.err == nil {
			t.Fatal("the worker ended as if all was well")
		}
	}
}

type ending struct {
	exit *wire.Exit
	err  error
}

// server is worker with the end of Serve in the hands of the test.
func server(t *testing.T, conf supervisor.Config) (c *Channel, stop context.CancelFunc, served <-chan ending) {
	t.Helper()
	if conf.FFmpeg == "" {
		conf.FFmpeg, _ = os.Executable()
	}
	s, err := supervisor.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	l, err := supervisor.Listen(fmt.Sprintf("@ffpod-hostile-%d-%s", os.Getpid(), t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	end := make(chan ending, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		exit, err := s.Serve(ctx, l)
		end <- ending{exit, err}
	}()
	conn, err := grpc.NewClient("unix-abstract:"+l.Addr().String()[1:], append(session.ChannelDialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); <-over; conn.Close() })
	return &Channel{conn: conn}, stop, end
}

// The status of a Job whose pod is deleted is that of its session.
func TestOnceShutdownTellsTheStatus(t *testing.T) {
	for range 10 {
		c, stop, served := server(t, supervisor.Config{Once: true})
		cmd, _, _ := command(c, "sleep")
		if err := cmd.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop()
		_ = cmd.Wait()
		if got := <-served; syscall.Signal(got.exit.GetSignal()) != syscall.SIGTERM {
			t.Fatalf("got %v, %v", got.exit, got.err)
		}
	}
}

func TestOnceShutdownWithAConsumerThatNeverReads(t *testing.T) {
	c, stop, served := server(t, supervisor.Config{Once: true})
	stall := &gate{open: make(chan struct{})}
	cmd, _, _ := command(c, "forever")
	cmd.Stdout = stall
	if err := cmd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stall.wait(t)
	stop()
	select {
	case got := <-served:
		if syscall.Signal(got.exit.GetSignal()) != syscall.SIGTERM {
			t.Errorf("got %v, %v", got.exit, got.err)
		}
	case <-time.After(bound):
		t.Error("the shutdown has no bound")
	}
	close(stall.open)
	_ = cmd.Wait()
}

// A process that is gone may have left bytes behind: a shutdown waits for them.
func TestShutdownDeliversTheTail(t *testing.T) {
	c, stop, served := server(t, supervisor.Config{})
	stall := &gate{open: make(chan struct{})}
	cmd, _, _ := command(c, "flood", strconv.Itoa(200<<10), "tail")
	cmd.Stdout = stall
	if err := cmd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stall.wait(t)
	eventually(t, "the process has ended", func() bool {
		d, err := c.Describe(t.Context())
		return err == nil && len(d.Sessions) == 1 && d.Sessions[0].Exit != nil
	})
	stop()
	eventually(t, "it is draining", func() bool {
		d, err := c.Describe(t.Context())
		return err != nil || d.Draining
	})
	close(stall.open)
	if err := cmd.Wait(); err != nil || stall.n != 200<<10 {
		t.Errorf("%d bytes, %v", stall.n, err)
	}
	if got := <-served; got.err != nil {
		t.Error(got.err)
	}
}

// A session whose bytes are still on their way is not forgotten for younger ones.
func TestUndeliveredSessionsStayKnown(t *testing.T) {
	c := worker(t, supervisor.Config{})
	stall := &gate{open: make(chan struct{})}
	slow, _, _ := command(c, "flood", "1000", "x")
	slow.Session, slow.Stdout = "slow", stall
	if err := slow.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stall.wait(t)
	state := func() *wire.SessionState {
		d, err := c.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range d.Sessions {
			if s.Session == "slow" {
				return s
			}
		}
		return nil
	}
	eventually(t, "its process has ended", func() bool { return state().GetExit() != nil })
	if s := state(); !s.Attached {
		t.Errorf("got %v", s)
	}
	close(stall.open)
	if err := slow.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the totals are told", func() bool { s := state(); return !s.GetAttached() && s.GetExit().GetStdout() == 1000 })
}

// Large records do not make a worker dumb.
func TestDescribeStaysSmall(t *testing.T) {
	c := worker(t, supervisor.Config{FFmpeg: "/bin/true"})
	for range 40 {
		cmd := c.Command(wire.Program_FFMPEG)
		cmd.Record = bytes.Repeat([]byte("x"), 300<<10)
		if err := cmd.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := c.Describe(t.Context()); err != nil || len(d.Sessions) == 0 {
		t.Errorf("%d sessions, %v", len(d.GetSessions()), err)
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ffmpeg")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOddProgramsDoNotBreakDescribe(t *testing.T) {
	c := worker(t, supervisor.Config{FFmpeg: script(t, `printf 'ffmpeg version \377\n'`)})
	eventually(t, "the version is told", func() bool {
		d, err := c.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.HasPrefix(d.FfmpegVersion, "ffmpeg version")
	})
}

// A wrapper that leaves something behind does not hold the worker's end.
func TestProgramThatLeavesItsPipesOpen(t *testing.T) {
	c, stop, served := server(t, supervisor.Config{FFmpeg: script(t, "sleep 20 & echo $! >&2; echo version")})
	if _, err := c.Describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	stop()
	<-served
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("took %s", took)
	}
}

// A stream that never says anything ends when its link does.
func TestSilentStreamEnds(t *testing.T) {
	c := worker(t, supervisor.Config{Session: session.LinkOptions{Silence: 50 * time.Millisecond}})
	r := open(t, c)
	for {
		if _, err := r.Recv(); err != nil {
			if errors.Is(r.Context().Err(), context.DeadlineExceeded) {
				t.Error("it stayed open")
			}
			return
		}
	}
}

// No session sees a descriptor of another, or of the supervisor.
func TestDescriptorsOfASession(t *testing.T) {
	c := worker(t, supervisor.Config{Slots: 6, FFmpeg: "/bin/sh"})
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for range 4 {
		other, _, _ := command(c, "-c", "cat")
		in, w := io.Pipe()
		defer w.Close()
		other.Stdin = in
		if err := other.Start(ctx); err != nil {
			t.Fatal(err)
		}
		others.Go(func() { _ = other.Wait() })
	}
	// What a session gets beside its pipes is what any child of this process gets.
	const look = "cd /proc/$$/fd; echo *; ulimit -n; ulimit -c; grep -E '^(SigIgn|SigBlk|NoNewPrivs)' /proc/self/status; cat ../oom_score_adj; nice"
	plain := exec.Command("/bin/sh", "-c", look)
	plain.Stdin = strings.NewReader("")
	want, err := plain.Output()
	if err != nil {
		t.Fatal(err)
	}
	cmd, out, _ := command(c, "-c", look)
	cmd.Stdin = strings.NewReader("")
	err = cmd.Run(t.Context())
	cancel()
	others.Wait()
	if err != nil || out.String() != string(want) {
		t.Errorf("%v, got\n%s\nwant\n%s", err, out, want)
	}
}

// Bytes that the process left in its pipe are read however slow the consumer is.
func TestSlowConsumerAfterTheExit(t *testing.T) {
	c := worker(t, supervisor.Config{})
	const size = 400 << 10 // more than ring and pipe: some of it is in the pipe when the process ends
	cmd, _, _ := command(c, "flood", strconv.Itoa(size), "slow")
	sum := sha256.New()
	n := 0
	cmd.Stdout = writerFunc(func(p []byte) (int, error) {
		if n == 0 {
			time.Sleep(2500 * time.Millisecond) // longer than an idle pipe is kept
		}
		n += len(p)
		return sum.Write(p)
	})
	if err := cmd.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := sha256.New()
	_, _ = io.Copy(want, io.LimitReader(noise("slow"), size))
	if !bytes.Equal(sum.Sum(nil), want.Sum(nil)) || cmd.Exit().StdoutCut {
		t.Errorf("%d bytes of %d, cut %v", n, size, cmd.Exit().StdoutCut)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
