package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ffpod/ffpod/podexec/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fork(t *testing.T, f *forking, script string) *process {
	t.Helper()
	p, err := f.start("/bin/sh", &wire.Start{Argv: [][]byte{[]byte("-c"), []byte(script)}, Cwd: []byte("/")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stdout.Close(); p.stderr.Close() })
	return p
}

// Who cannot learn how a process ended must not call it a success.
func TestAProcessReapedByOthersIsNoSuccess(t *testing.T) {
	f := newForking()
	p := fork(t, f, "exit 0")
	if _, err := syscall.Wait4(p.pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	status, _, err := p.wait(f)
	if !errors.Is(err, syscall.ECHILD) {
		t.Errorf("status %v, %v", status, err)
	}
	p.signalGroup(syscall.SIGKILL) // to nobody: the number may be somebody else's now
	if f.adopted(p.pid) {
		t.Error("it is still registered")
	}
}

// A number that is used again before its former owner is forgotten stays adopted.
func TestForgetIsCounted(t *testing.T) {
	f := newForking()
	f.adopt(7)
	f.adopt(7)
	f.forget(7)
	if !f.adopted(7) {
		t.Error("the younger child is open to the reaper")
	}
	f.forget(7)
	if f.adopted(7) || len(f.children) != 0 {
		t.Error("it is still registered")
	}
}

func TestRefusalOf(t *testing.T) {
	for err, want := range map[error]wire.Refusal{
		syscall.E2BIG: wire.Refusal_BAD_START, syscall.EINVAL: wire.Refusal_BAD_START,
		syscall.EAGAIN: wire.Refusal_NO_SLOT, syscall.ENOMEM: wire.Refusal_NO_SLOT,
		fmt.Errorf("pipe for descriptor 1: %w", syscall.EMFILE): wire.Refusal_NO_SLOT,
		syscall.ENOENT: wire.Refusal_NO_PROGRAM, syscall.EACCES: wire.Refusal_NO_PROGRAM, syscall.ENOEXEC: wire.Refusal_NO_PROGRAM,
	} {
		if got := refusalOf(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// A supervisor that was held up (a frozen cgroup, a busy node) beyond the bound on
// an idle pipe still reads what the pipe holds.
func TestOutputPipeIsCutOnlyWhenIdle(t *testing.T) {
	for name, hold := range map[string]bool{"ended": false, "held elsewhere": true} {
		t.Run(name, func(t *testing.T) {
			ours, theirs, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			defer theirs.Close()
			_, _ = theirs.WriteString("tail")
			if !hold {
				theirs.Close()
			}
			exited := make(chan struct{})
			close(exited)
			var cut atomic.Bool
			p := &outputPipe{f: ours, exited: exited, cut: &cut}
			b := make([]byte, 16)
			_ = ours.SetReadDeadline(time.Unix(1, 0))
			if n, err := p.rest(b); err != nil || string(b[:n]) != "tail" || cut.Load() {
				t.Fatalf("read %q, %v, cut %v", b[:n], err, cut.Load())
			}
			if n, err := p.rest(b); n != 0 || err != io.EOF || cut.Load() != hold {
				t.Errorf("read %d, %v, cut %v", n, err, cut.Load())
			}
		})
	}
}

func TestRetireOnlyWithoutASession(t *testing.T) {
	s, err := New(Config{Once: true})
	if err != nil {
		t.Fatal(err)
	}
	if refusal, why := s.admit(&wire.Start{Session: "a"}); refusal != 0 {
		t.Fatal(why)
	}
	if s.retire() {
		t.Error("retired with a session")
	}
	idle, err := New(Config{Once: true})
	if err != nil {
		t.Fatal(err)
	}
	if !idle.retire() {
		t.Error("not retired")
	}
	if refusal, _ := idle.admit(&wire.Start{Session: "a"}); refusal != wire.Refusal_DRAINING {
		t.Errorf("admitted after it was retired: %v", refusal)
	}
}

// A standby waits for as long as it is asked for; then it ends well.
func TestAStandbyEndsWhenNobodyAsks(t *testing.T) {
	const idle = 300 * time.Millisecond
	s, err := New(Config{Once: true, Standby: true, Idle: idle})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		exit, err := s.Serve(t.Context(), l)
		if exit != nil {
			err = fmt.Errorf("it ended as a session: %v", exit)
		}
		ended <- err
	}()
	begun := time.Now()
	for time.Since(begun) < 3*idle {
		if _, err := s.Describe(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			t.Fatalf("it ended while it was asked for: %v", err)
		case <-time.After(idle / 10):
		}
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on though nobody asks")
	}
}

// A Job whose worker has to go before the kernel lets its process go is no success.
func TestAnUnknownEndIsNoSuccess(t *testing.T) {
	s, err := New(Config{Once: true})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := s.outcome(); exit != nil || err != nil {
		t.Errorf("without a session: %v, %v", exit, err)
	}
	start := &wire.Start{Session: "s"}
	if why, words := s.admit(start); why != 0 {
		t.Fatal(why, words)
	}
	if exit, err := s.outcome(); exit != nil || !errors.Is(err, ErrUnknownEnd) {
		t.Errorf("being started: %v, %v", exit, err)
	}
	r := newRun(start, &process{pid: 1 << 30, reaped: true})
	s.running["s"] = r
	if exit, err := s.outcome(); exit != nil || !errors.Is(err, ErrUnknownEnd) {
		t.Errorf("stuck: %v, %v", exit, err)
	}
	r.outcome(3<<8, syscall.Rusage{})
	if exit, err := s.outcome(); exit.GetCode() != 3 || err != nil {
		t.Errorf("ended: %v, %v", exit, err)
	}
}

// A session that has lasted for thousands of others is known when it ends: else its
// shim would be told that it never came, and start the command again.
func TestALongSessionStaysKnown(t *testing.T) {
	s, err := New(Config{Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	start := &wire.Start{Session: "long"}
	if why, words := s.admit(start); why != 0 {
		t.Fatal(why, words)
	}
	for i := range 2 * keptNames {
		s.known.add(fmt.Sprint(i))
	}
	s.settle(newRun(start, &process{}), nil)
	s.released(&wire.Exit{})
	for i := range keptNames - 1 {
		s.known.add(fmt.Sprint("later", i))
	}
	s.records = nil
	if _, known, _ := s.lookUp(t.Context(), "long"); !known {
		t.Error("it never came")
	}
	if why, _ := s.admit(start); why != wire.Refusal_DUPLICATE {
		t.Errorf("started again: %v", why)
	}
	s.known.add("refused")
	s.known.remove("refused")
	s.known.add("refused")
	for i := range keptNames - 1 {
		s.known.add(fmt.Sprint("others", i))
	}
	if !s.known.has("refused") || len(s.known.members) != keptNames || len(s.known.order) != keptNames {
		t.Errorf("%d members, %d in order", len(s.known.members), len(s.known.order))
	}
}

// A fork that hangs holds up neither whoever asks for its session for longer than
// they want to know, nor does it count as dead.
func TestASessionThatHangsInItsForkIsNotDead(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if why, words := s.admit(&wire.Start{Session: "s", Record: []byte("r")}); why != 0 {
		t.Fatal(why, words)
	}
	d, _ := s.Describe(t.Context(), nil)
	if len(d.Sessions) != 1 || d.Sessions[0].Session != "s" || string(d.Sessions[0].Record) != "r" || d.Sessions[0].Exit != nil {
		t.Errorf("a scheduler that asks what runs is told %v", d.Sessions)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if answer, err := s.Kill(ctx, &wire.KillRequest{Session: "s"}); err == nil {
		t.Errorf("killed: %v", answer)
	}
	if answer, err := s.Orphan(ctx, &wire.OrphanRequest{Session: "s"}); err == nil {
		t.Errorf("orphaned: %v", answer)
	}
}
