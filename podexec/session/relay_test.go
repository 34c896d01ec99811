package session

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/wire"
)

// scene is a shim and the relay that serves it.
type scene struct {
	shim  *end
	relay *Relay
}

func newScene(t *testing.T) *scene {
	shim, near := pair(t)
	link := NewLink(near, LinkOptions{})
	t.Cleanup(link.Close)
	s := &scene{shim: shim, relay: NewRelay(link, RelayOptions{})}
	_ = shim.Send(&wire.Frame{Kind: &wire.Frame_Start{Start: &wire.Start{Session: "s"}}})
	if first, err := s.relay.Opening(bounded(t)); err != nil || first.GetStart().GetSession() != "s" {
		t.Fatalf("opening: %v %v", first, err)
	}
	return s
}

// worker attaches a worker and returns its end and the run's outcome.
func (s *scene) worker(t *testing.T) (*end, <-chan ran) {
	near, far := pair(t)
	link := NewLink(near, LinkOptions{})
	t.Cleanup(link.Close)
	done := make(chan ran, 1)
	go func() {
		exit, err := s.relay.Run(bounded(t), link, startFrame())
		done <- ran{exit, err}
	}()
	if far.next(t).GetStart() == nil {
		t.Fatal("no start")
	}
	return far, done
}

func TestRelayPassesASession(t *testing.T) {
	s := newScene(t)
	worker, done := s.worker(t)
	_ = worker.Send(startedFrame())
	if s.shim.next(t).GetStarted() == nil {
		t.Fatal("no started")
	}
	_ = s.shim.Send(data(wire.Pipe_STDIN, 0, "q", false))
	if string(worker.next(t).GetData().GetBytes()) != "q" {
		t.Error("stdin")
	}
	unknown := &wire.Frame{}
	if err := proto.Unmarshal([]byte{0xfa, 0x3f, 2, 'h', 'i'}, unknown); err != nil { // field 1023, of a later release
		t.Fatal(err)
	}
	_ = worker.Send(unknown)
	if got := s.shim.next(t); string(got.ProtoReflect().GetUnknown()) != string(unknown.ProtoReflect().GetUnknown()) {
		t.Error("a later release's frame did not pass")
	}
	_ = worker.Send(exitFrame(4, 0, 0))
	if s.shim.next(t).GetExit().GetCode() != 4 {
		t.Error("exit")
	}
	select {
	case got := <-done:
		t.Fatalf("the relay ended before the shim had the exit: %v", got.err)
	default:
	}
	_ = s.shim.Send(&wire.Frame{Kind: &wire.Frame_ExitAck{ExitAck: &wire.ExitAck{}}})
	if worker.next(t).GetExitAck() == nil {
		t.Error("the worker did not get the acknowledgement")
	}
	if got := <-done; got.err != nil || got.exit.Code != 4 {
		t.Errorf("got %v %v", got.exit, got.err)
	}
}

func TestRelayAfterARefusal(t *testing.T) {
	s := newScene(t)
	first, done := s.worker(t)
	_ = s.shim.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: 15}}})
	_ = first.Send(refusedFrame(wire.Refusal_NO_SLOT))
	var refused *RefusedError
	if got := <-done; !errors.As(got.err, &refused) {
		t.Fatalf("got %v", got.err)
	}
	second, done := s.worker(t)
	_ = second.Send(startedFrame())
	if s.shim.next(t).GetStarted() == nil {
		t.Error("the shim was told of the refusal")
	}
	if second.next(t).GetSignal().GetNumber() != 15 {
		t.Error("the signal that came early is lost")
	}
	second.cut(io.EOF)
	if got := <-done; !errors.Is(got.err, ErrBroken) {
		t.Errorf("got %v", got.err)
	}
}

// What a shim says between a worker's stream that broke and its own end is no reason
// to take it for dead: it says all of it again when it resumes.
func TestRelayOfABrokenWorkerKeepsTheShim(t *testing.T) {
	s := newScene(t)
	worker, done := s.worker(t)
	_ = worker.Send(startedFrame())
	s.shim.next(t)
	worker.cut(io.EOF)
	if got := <-done; !errors.Is(got.err, ErrBroken) {
		t.Fatalf("got %v", got.err)
	}
	for at := uint64(0); at < DefaultRing; at += chunk { // a ring that nobody has acknowledged
		_ = s.shim.Send(data(wire.Pipe_STDIN, at, strings.Repeat("x", chunk), false))
	}
	for range 2 * maxEarly {
		_ = s.shim.Send(ackFrame(wire.Pipe_STDOUT, 1))
	}
	s.shim.out.close(io.EOF)
	within(t, "the shim is gone", s.relay.Gone())
	if broken, ok := errors.AsType[*ProtocolError](s.relay.shimGone()); ok {
		t.Errorf("it counted as gone while it lived: %v", broken)
	}
}

func TestRelayNoticesTheShimInTheQueue(t *testing.T) {
	s := newScene(t)
	s.shim.cut(io.EOF)
	within(t, "the shim is gone", s.relay.Gone())
	if err := s.relay.Ticket(bounded(t), &wire.Ticket{}); !errors.Is(err, ErrShimGone) {
		t.Errorf("got %v", err)
	}
}

func TestRelayTicketWaitsForTheShim(t *testing.T) {
	s := newScene(t)
	done := make(chan error, 1)
	go func() { done <- s.relay.Ticket(bounded(t), &wire.Ticket{Pod: "p"}) }()
	if s.shim.next(t).GetTicket().GetPod() != "p" {
		t.Fatal("no ticket")
	}
	select {
	case err := <-done:
		t.Fatalf("returned before the shim held it: %v", err)
	default:
	}
	_ = s.shim.Send(&wire.Frame{Kind: &wire.Frame_TicketAck{TicketAck: &wire.TicketAck{}}})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRelayWorkerGoneAfterTheExit(t *testing.T) {
	s := newScene(t)
	worker, done := s.worker(t)
	_ = worker.Send(startedFrame())
	_ = worker.Send(exitFrame(0, 0, 0))
	s.shim.next(t)
	s.shim.next(t)
	worker.cut(io.EOF)
	_ = s.shim.Send(&wire.Frame{Kind: &wire.Frame_ExitAck{ExitAck: &wire.ExitAck{}}})
	if got := <-done; got.exit == nil {
		t.Errorf("the exit that the shim has is lost: %v", got.err)
	}
}

func TestRelayRefusesAFirstFrameThatIsNoStart(t *testing.T) {
	shim, near := pair(t)
	link := NewLink(near, LinkOptions{})
	defer link.Close()
	r := NewRelay(link, RelayOptions{})
	_ = shim.Send(ticketFrame())
	if _, err := r.Opening(bounded(t)); !errors.Is(err, ErrShimGone) {
		t.Errorf("got %v", err)
	}
}

func TestRelayIsCancelled(t *testing.T) {
	s := newScene(t)
	near, _ := pair(t)
	link := NewLink(near, LinkOptions{})
	defer link.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("draining")
	cancel(why)
	if _, err := s.relay.Run(ctx, link, startFrame()); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}
