package podexec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/supervisor"
	"github.com/ffpod/ffpod/podexec/wire"
)

// kept is a Start that somebody looks after.
func kept(id string, args ...string) *wire.Start {
	s := startOf(id, args...)
	s.Orders, s.Resumes, s.GraceMs = true, true, 60_000
	return s
}

func (r *raw) resume(id, nonce string, stdout uint64) {
	_ = r.Send(&wire.Frame{Kind: &wire.Frame_Resume{Resume: &wire.Resume{Ticket: &wire.Ticket{Session: id, Nonce: nonce}, Stdout: stdout}}})
}

func nonceOf(t *testing.T, c *Channel) string {
	t.Helper()
	d, err := c.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d.Nonce
}

// answer is the first frame that is no heartbeat and no acknowledgement.
func (r *raw) answer() *wire.Frame {
	r.t.Helper()
	return r.until(func(f *wire.Frame) bool { return f.GetHeartbeat() == nil && f.GetAck() == nil })
}

// ticketed gives a client that speaks to a supervisor the ticket that a scheduler
// would give, and cuts its streams.
type ticketed struct {
	session.Stream
	ticket *wire.Frame
	cut    func() bool
	cancel context.CancelFunc
}

func (s *ticketed) Send(f *wire.Frame) error {
	if f.GetTicketAck() != nil {
		return nil
	}
	return s.Stream.Send(f)
}

func (s *ticketed) Recv() (*wire.Frame, error) {
	if f := s.ticket; f != nil {
		s.ticket = nil
		return f, nil
	}
	if s.cut() {
		s.cancel()
		return nil, errors.New("cut")
	}
	return s.Stream.Recv()
}

// Real bytes through a real process and back, over streams that break all the time.
func TestEveryByteOnceThroughStreamsThatBreak(t *testing.T) {
	c := worker(t, supervisor.Config{})
	nonce := nonceOf(t, c)
	const size = 24 << 20
	rnd := rand.New(rand.NewPCG(3, 4))
	var mu sync.Mutex
	streams, frames := 0, 0
	start := kept("bytes", "cat")
	sum := sha256.New()
	client := &session.Client{
		Start: start, Stdin: io.LimitReader(noise("5"), size), Stdout: sum,
		Open: func(ctx context.Context) (session.Stream, error) {
			ctx, cancel := context.WithCancel(ctx)
			stream, err := c.Runner().Run(ctx)
			if err != nil {
				cancel()
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			streams++
			s := &ticketed{Stream: stream, cancel: cancel, cut: func() bool {
				mu.Lock()
				defer mu.Unlock()
				frames++
				return streams < 30 && rnd.IntN(60) == 0
			}}
			if streams == 1 {
				s.ticket = &wire.Frame{Kind: &wire.Frame_Ticket{Ticket: &wire.Ticket{Session: "bytes", Nonce: nonce, GraceMs: start.GraceMs}}}
			}
			return s, nil
		},
	}
	exit, err := client.Run(t.Context())
	want := sha256.New()
	_, _ = io.Copy(want, io.LimitReader(noise("5"), size))
	if err != nil || exit.Code != 0 || exit.Stdout != size || !bytes.Equal(sum.Sum(nil), want.Sum(nil)) {
		t.Fatalf("exit %v, %v", exit, err)
	}
	if streams < 5 {
		t.Errorf("only %d streams", streams)
	}
}

// The exit is kept, and told to whoever comes with the right offsets.
func TestAnExitIsKeptUntilItIsAcknowledged(t *testing.T) {
	c := worker(t, supervisor.Config{})
	nonce := nonceOf(t, c)
	one := open(t, c)
	one.start(kept("exit", "exit", "6"))
	one.until(func(f *wire.Frame) bool { return f.GetExit() != nil })
	one.cancel() // the acknowledgement is lost
	two := open(t, c)
	two.resume("exit", nonce, 1)
	if f := two.answer(); f.GetAttached().GetEpoch() != 2 {
		t.Fatalf("got %v", f)
	}
	f := two.until(func(f *wire.Frame) bool { return f.GetData().GetPipe() == wire.Pipe_STDOUT })
	if f.GetData().Offset != 1 || string(f.GetData().Bytes) != "ut" {
		t.Errorf("got %v", f)
	}
	if f := two.until(func(f *wire.Frame) bool { return f.GetExit() != nil }); f.GetExit().Code != 6 || f.GetExit().Stdout != 3 {
		t.Errorf("got %v", f)
	}
	_ = two.Send(&wire.Frame{Kind: &wire.Frame_ExitAck{ExitAck: &wire.ExitAck{}}})
	for {
		if _, err := two.Recv(); err != nil {
			break
		}
	}
	three := open(t, c)
	three.resume("exit", nonce, 0)
	if f := three.answer(); f.GetLost() == nil {
		t.Errorf("an exit that was acknowledged is told again: %v", f)
	}
}

// A newer stream takes the session over, and the older one ends.
func TestANewerStreamEndsTheOlder(t *testing.T) {
	c := worker(t, supervisor.Config{})
	nonce := nonceOf(t, c)
	one := open(t, c)
	one.start(kept("two", "sleep"))
	pid := int(one.until(isStarted).GetStarted().Pid)
	two := open(t, c)
	two.resume("two", nonce, 0)
	if f := two.answer(); f.GetAttached() == nil {
		t.Fatalf("got %v", f)
	}
	for {
		if _, err := one.Recv(); err != nil {
			break
		}
	}
	if gone(pid)() {
		t.Fatal("the process went with the older stream")
	}
	// An order about the older stream means nothing any more.
	if _, err := c.Supervisor().Orphan(t.Context(), &wire.OrphanRequest{Session: "two", Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Supervisor().Kill(t.Context(), &wire.KillRequest{Session: "two", Cause: wire.Cause_CAUSE_FENCED}); err != nil {
		t.Fatal(err)
	}
	if f := two.until(func(f *wire.Frame) bool { return f.GetExit() != nil }); f.GetExit().Cause != wire.Cause_CAUSE_FENCED || f.GetExit().Signal != 9 {
		t.Errorf("got %v: of the two orders the first was void", f)
	}
}

// A Resume that was held up on its way, at another scheduler, does not end the stream
// that its client has got since: nor the session, of which it knows less.
func TestAResumeThatComesLate(t *testing.T) {
	c := worker(t, supervisor.Config{})
	nonce := nonceOf(t, c)
	signal := func(r *raw, n uint64) {
		_ = r.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: int32(syscall.SIGUSR1), Sequence: n}}})
	}
	one := open(t, c)
	one.start(kept("late", "counts"))
	one.until(func(f *wire.Frame) bool { return string(f.GetData().GetBytes()) == "ready\n" })
	_ = one.Send(&wire.Frame{Kind: &wire.Frame_Ack{Ack: &wire.Ack{Pipe: wire.Pipe_STDERR, Offset: 6}}})
	signal(one, 1) // is handled after that
	one.until(func(f *wire.Frame) bool { return string(f.GetData().GetBytes()) == "1\n" })
	late := open(t, c)
	late.resume("late", nonce, 0)
	for {
		f, err := late.Recv()
		if err != nil {
			if status.Code(err) != codes.Aborted {
				t.Errorf("the late stream ends with %v", err)
			}
			break
		}
		if f.GetLost() != nil || f.GetAttached() != nil {
			t.Fatalf("the late stream gets %v", f)
		}
	}
	signal(one, 2)
	one.until(func(f *wire.Frame) bool { return string(f.GetData().GetBytes()) == "2\n" })
}

// The order outlives its giver, and only it kills, not the end of the stream.
func TestOnlyWordsKill(t *testing.T) {
	c := worker(t, supervisor.Config{Slots: 2})
	r := open(t, c)
	r.start(kept("words", "sleep"))
	pid := int(r.until(isStarted).GetStarted().Pid)
	r.cancel()
	eventually(t, "nobody is attached", func() bool {
		d, err := c.Describe(t.Context())
		return err == nil && len(d.Sessions) == 1 && !d.Sessions[0].Attached
	})
	if gone(pid)() {
		t.Fatal("the end of the stream killed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	if answer, err := c.Supervisor().Orphan(ctx, &wire.OrphanRequest{Session: "words", Epoch: 1, AfterMs: 50}); err != nil || !answer.Known {
		t.Fatal(answer, err)
	}
	cancel()
	eventually(t, "the order is carried out", gone(pid))
}

// A Start that comes after its session was asked about does not run: whoever asked
// may have started the command elsewhere.
func TestASessionThatWasAskedForMayNotStartLater(t *testing.T) {
	c := worker(t, supervisor.Config{})
	nonce := nonceOf(t, c)
	asking := map[string]func(id string){
		"resumed": func(id string) {
			r := open(t, c)
			r.resume(id, nonce, 0)
			if f := r.answer(); f.GetRefused().GetRefusal() != wire.Refusal_UNKNOWN_SESSION {
				t.Errorf("resume of nothing: %v", f)
			}
		},
		"orphaned": func(id string) {
			if answer, err := c.Supervisor().Orphan(t.Context(), &wire.OrphanRequest{Session: id}); err != nil || answer.Known {
				t.Errorf("orphan of nothing: %v, %v", answer, err)
			}
		},
		"killed": func(id string) {
			if answer, err := c.Supervisor().Kill(t.Context(), &wire.KillRequest{Session: id}); err != nil || answer.Known || !answer.Dead {
				t.Errorf("kill of nothing: %v, %v", answer, err)
			}
		},
	}
	for id, ask := range asking {
		ask(id)
		r := open(t, c)
		r.start(kept(id, "exit", "0"))
		if f := r.answer(); f.GetRefused().GetRefusal() != wire.Refusal_DUPLICATE {
			t.Errorf("%s, and started: %v", id, f)
		}
	}
	other := open(t, c)
	other.resume("resumed", "another boot", 0)
	if f := other.answer(); f.GetLost() == nil {
		t.Errorf("resume of another boot's session: %v", f)
	}
}

// Nobody comes back within the grace: the program is asked to stop as a person
// would, and then made to.
func TestGrace(t *testing.T) {
	c := worker(t, supervisor.Config{Slots: 2})
	for name, args := range map[string][]string{"asked": {"key"}, "made": {"forever"}} {
		t.Run(name, func(t *testing.T) {
			r := open(t, c)
			s := kept(name, args...)
			s.GraceMs, s.Stdin = 100, true
			r.start(s)
			pid := int(r.until(isStarted).GetStarted().Pid)
			r.cancel()
			eventually(t, "it is dead", gone(pid))
			var exit *wire.Exit
			eventually(t, "its end is told", func() bool {
				d, err := c.Describe(t.Context())
				for _, s := range d.GetSessions() {
					if s.Session == name {
						exit = s.Exit
					}
				}
				return err == nil && exit != nil
			})
			if exit.Cause != wire.Cause_CAUSE_ORPHANED || name == "asked" && exit.Code != 7 {
				t.Errorf("ended as %v", exit)
			}
		})
	}
}

// A numbered signal is delivered once, whichever stream brings it.
func TestASignalIsDeliveredOnce(t *testing.T) {
	c := worker(t, supervisor.Config{})
	nonce := nonceOf(t, c)
	signal := &wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: int32(syscall.SIGUSR1), Sequence: 1}}}
	one := open(t, c)
	one.start(kept("signal", "counts"))
	one.until(func(f *wire.Frame) bool { return string(f.GetData().GetBytes()) == "ready\n" })
	_ = one.Send(signal)
	one.until(func(f *wire.Frame) bool { return string(f.GetData().GetBytes()) == "1\n" })
	one.cancel()
	two := open(t, c)
	two.resume("signal", nonce, 0)
	if f := two.answer(); f.GetAttached().GetSignals() != 1 {
		t.Fatalf("got %v", f)
	}
	_ = two.Send(signal)
	_ = two.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: int32(syscall.SIGTERM), Sequence: 2}}})
	if f := two.until(func(f *wire.Frame) bool { return f.GetExit() != nil }); f.GetExit().Code != 1 {
		t.Errorf("it got the signal %d times", f.GetExit().Code)
	}
}
