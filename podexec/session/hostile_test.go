package session

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

func exitAckFrame() *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_ExitAck{ExitAck: &wire.ExitAck{}}}
}

func ackFrame(pipe wire.Pipe, offset uint64) *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Ack{Ack: &wire.Ack{Pipe: pipe, Offset: offset}}}
}

// An acknowledgement of an exit that nobody sent would detach the shim from a
// session that runs.
func TestRelayTakesNoExitAckBeforeTheExit(t *testing.T) {
	for name, started := range map[string]bool{"before the start": false, "while it runs": true} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			worker, done := s.worker(t)
			if started {
				_ = worker.Send(startedFrame())
				s.shim.next(t)
			}
			_ = s.shim.Send(exitAckFrame())
			if got := <-done; got.exit != nil || !errors.Is(got.err, ErrShimGone) {
				t.Errorf("got %v, %v", got.exit, got.err)
			}
		})
	}
}

func TestRelayBoundsTheBytesBeforeTheStart(t *testing.T) {
	s := newScene(t)
	for range 3 {
		_ = s.shim.Send(data(wire.Pipe_STDIN, 0, strings.Repeat("x", maxMessage/4), false))
	}
	within(t, "the shim counts as gone", s.relay.Gone())
}

// finished is a stream that the server ended: Send says only EOF, Recv has the
// frames and the status that came before.
type finished struct {
	sent   chan struct{} // closed after the first Send
	once   sync.Once
	mu     sync.Mutex
	frames []*wire.Frame
	end    error
}

func (f *finished) open(context.Context) (Stream, error) { return f, nil }

func (f *finished) Send(*wire.Frame) error {
	f.once.Do(func() { close(f.sent) })
	return io.EOF
}

func (f *finished) Recv() (*wire.Frame, error) {
	<-f.sent
	time.Sleep(20 * time.Millisecond) // the sender is ahead, as it may be
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.frames) == 0 {
		return nil, f.end
	}
	frame := f.frames[0]
	f.frames = f.frames[1:]
	return frame, nil
}

// What the server said last counts, not that nothing can be sent to it any more.
func TestSendAfterTheEndLeavesTheCauseToRecv(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		s := &finished{sent: make(chan struct{}), frames: []*wire.Frame{refusedFrame(wire.Refusal_NO_SLOT)}, end: io.EOF}
		got := <-runClient(t, &Client{Direct: true}, s)
		if refused, ok := errors.AsType[*RefusedError](got.err); !ok || refused.Refusal != wire.Refusal_NO_SLOT {
			t.Errorf("got %v", got.err)
		}
	})
	t.Run("client without a word", func(t *testing.T) {
		why := errors.New("message too large")
		s := &finished{sent: make(chan struct{}), end: why}
		if got := <-runClient(t, &Client{Direct: true}, s); !strings.Contains(got.err.Error(), why.Error()) {
			t.Errorf("got %v", got.err)
		}
	})
	t.Run("relay", func(t *testing.T) {
		sc := newScene(t)
		s := &finished{sent: make(chan struct{}), frames: []*wire.Frame{refusedFrame(wire.Refusal_NO_SLOT)}, end: io.EOF}
		link := NewLink(s, LinkOptions{})
		defer link.Close()
		_, err := sc.relay.Run(bounded(t), link, startFrame())
		if _, ok := errors.AsType[*RefusedError](err); !ok {
			t.Errorf("got %v", err)
		}
	})
	t.Run("flush returns", func(t *testing.T) {
		s := &finished{sent: make(chan struct{}), end: io.EOF}
		link := NewLink(s, LinkOptions{})
		defer link.Close()
		link.Send(exitAckFrame())
		link.Send(exitAckFrame())
		done := make(chan struct{})
		go func() { _ = link.Flush(); close(done) }()
		within(t, "flushed", done)
	})
}

// A caller that gives up may run the command itself only if the scheduler was
// never told to go on: otherwise it would run twice.
func TestNoTicketIsTakenAfterGivingUp(t *testing.T) {
	for range 200 {
		near, far := pair(t)
		ctx, cancel := context.WithCancel(t.Context())
		c := &Client{Start: &wire.Start{Session: "s"}, Open: near.open}
		done := make(chan error, 1)
		go func() { _, err := c.Run(ctx); done <- err }()
		if far.next(t).GetStart() == nil {
			t.Fatal("no start")
		}
		go cancel()
		_ = far.Send(ticketFrame())
		lost, ok := errors.AsType[*LostError](<-done)
		if !ok {
			t.Fatal("not lost")
		}
		near.out.close(io.EOF) // nothing more is sent; what was stays readable
		taken := false
		for {
			f, err := far.Recv()
			if err != nil {
				break
			}
			taken = taken || f.GetTicketAck() != nil
		}
		if taken && !lost.MayHaveStarted {
			t.Fatal("the ticket was taken, and yet the caller was told that nothing can have started")
		}
		near.in.close(io.EOF)
	}
}

func TestClientTrustsNoServer(t *testing.T) {
	twice := []*wire.Frame{ticketFrame(), startedFrame(), startedFrame(), exitFrame(1, 0, 0)}
	tests := map[string][]*wire.Frame{
		"two starts":             twice,
		"data of stdin":          {ticketFrame(), startedFrame(), data(wire.Pipe_STDIN, 0, "x", false), exitFrame(1, 1, 0)},
		"data of no pipe":        {ticketFrame(), startedFrame(), data(wire.Pipe_PIPE_UNSPECIFIED, 0, "x", false), exitFrame(1, 1, 0)},
		"data after the end":     {ticketFrame(), startedFrame(), data(wire.Pipe_STDOUT, 0, "x", true), data(wire.Pipe_STDOUT, 1, "y", true), exitFrame(1, 2, 0)},
		"an end that comes late": {ticketFrame(), startedFrame(), data(wire.Pipe_STDOUT, 0, "xy", false), data(wire.Pipe_STDOUT, 0, "x", true), exitFrame(1, 2, 0)},
		"exit 256":               {ticketFrame(), startedFrame(), exitFrame(256, 0, 0)},
		"exit -1":                {ticketFrame(), startedFrame(), exitFrame(-1, 0, 0)},
		"a negative signal":      {ticketFrame(), startedFrame(), {Kind: &wire.Frame_Exit{Exit: &wire.Exit{Signal: -9}}}},
	}
	for name, frames := range tests {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			starts := 0
			done := runClient(t, &Client{Stdin: strings.NewReader("in"), OnStarted: func(*wire.Started) { starts++ }}, near)
			for _, f := range frames {
				_ = far.Send(f)
			}
			far.out.close(io.EOF)
			got := <-done
			lost, ok := errors.AsType[*LostError](got.err)
			if !ok || !lost.MayHaveStarted || starts > 1 {
				t.Errorf("got %v, %v after %d starts", got.exit, got.err, starts)
			}
		})
	}
}

// A local program would see its write fail.
func TestOutputThatCannotBeWrittenIsNoSuccess(t *testing.T) {
	tests := map[string]struct {
		code int32
		err  error
		exit bool
	}{
		"the disk is full":            {0, syscall.ENOSPC, false},
		"the disk is full, it failed": {3, syscall.ENOSPC, true},
		"the reader is gone":          {0, syscall.EPIPE, true},
		"the pipe was closed":         {0, io.ErrClosedPipe, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			done := runClient(t, &Client{Stdout: fails{tc.err}}, near)
			for _, f := range []*wire.Frame{ticketFrame(), startedFrame(), data(wire.Pipe_STDOUT, 0, "x", true), exitFrame(tc.code, 1, 0)} {
				_ = far.Send(f)
			}
			got := <-done
			if _, lost := errors.AsType[*LostError](got.err); lost == tc.exit || tc.exit && got.exit.GetCode() != tc.code || !tc.exit && !errors.Is(got.err, tc.err) {
				t.Errorf("got %v, %v", got.exit, got.err)
			}
		})
	}
}

type fails struct{ err error }

func (f fails) Write([]byte) (int, error) { return 0, f.err }

func TestClosedSignalsAreNoSignals(t *testing.T) {
	near, far := pair(t)
	signals := make(chan syscall.Signal, 1)
	signals <- syscall.SIGTERM
	close(signals)
	done := runClient(t, &Client{Signals: signals}, near)
	far.next(t)
	_ = far.Send(ticketFrame())
	_ = far.Send(startedFrame())
	_ = far.Send(exitFrame(1, 0, 0))
	<-done
	near.out.close(io.EOF)
	for {
		f, err := far.Recv()
		if err != nil {
			break
		}
		if k, ok := f.Kind.(*wire.Frame_Signal); ok && k.Signal.Number != 15 {
			t.Fatalf("signal %d", k.Signal.Number)
		}
	}
}

func TestControlIsBounded(t *testing.T) {
	a, _ := pair(t)
	a.out.hold = true
	defer a.cut(io.EOF)
	l := NewLink(a, LinkOptions{Max: 1 << 20})
	for range 1 << 17 {
		l.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: 28}}})
	}
	select {
	case <-l.Dead():
	default:
		t.Error("a peer that takes nothing makes the queue grow without end")
	}
}

// A relay passes acknowledgements on: the newest of a pipe says all.
func TestAcksOfARelayAreMerged(t *testing.T) {
	a, b := pair(t)
	a.out.hold = true
	l := NewLink(a, LinkOptions{Max: 1 << 10})
	defer l.Close()
	l.Send(exitAckFrame()) // in the sender's hand
	const n = 10_000
	for i := range uint64(n) {
		l.Send(ackFrame(wire.Pipe_STDOUT, i+1))
		l.Send(ackFrame(wire.Pipe_STDERR, 2*i+2))
	}
	a.out.mu.Lock()
	a.out.hold = false
	a.out.more.Broadcast()
	a.out.mu.Unlock()
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	a.out.close(io.EOF)
	last, count := [4]uint64{}, 0
	for {
		f, err := b.Recv()
		if err != nil {
			break
		}
		if ack := f.GetAck(); ack != nil {
			last[ack.Pipe], count = ack.Offset, count+1
		}
	}
	if last[wire.Pipe_STDOUT] != n || last[wire.Pipe_STDERR] != 2*n || count > 4 {
		t.Errorf("%d acknowledgements, the last of %v", count, last)
	}
}
