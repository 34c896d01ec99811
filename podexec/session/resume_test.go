package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

// exchange hands a client one stream after another, and the test their far ends.
type exchange struct {
	t    *testing.T
	far  chan *end
	fail chan error // Open returns these first
}

func newExchange(t *testing.T) *exchange {
	return &exchange{t: t, far: make(chan *end, 16), fail: make(chan error, 16)}
}

func (x *exchange) open(ctx context.Context) (Stream, error) {
	select {
	case err := <-x.fail:
		return nil, err
	default:
	}
	near, far := pair(x.t)
	x.far <- far
	return near.open(ctx)
}

func (x *exchange) next() *end {
	x.t.Helper()
	select {
	case far := <-x.far:
		return far
	case <-time.After(bound):
		x.t.Fatal("no stream was opened")
		return nil
	}
}

func keptTicket() *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Ticket{Ticket: &wire.Ticket{Session: "s", Pod: "p", Nonce: "n", GraceMs: 60_000}}}
}

func attachedFrame(epoch, stdin, signals uint64) *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Attached{Attached: &wire.Attached{Epoch: epoch, Stdin: stdin, Signals: signals}}}
}

// until returns the next frame that want accepts.
func until(t *testing.T, far *end, want func(*wire.Frame) bool) *wire.Frame {
	t.Helper()
	for {
		if f := far.next(t); want(f) {
			return f
		}
	}
}

func sendAll(far *end, frames ...*wire.Frame) {
	for _, f := range frames {
		_ = far.Send(f)
	}
}

// Whatever was on its way when the stream broke is sent again, and nothing twice.
func TestClientResumes(t *testing.T) {
	x := newExchange(t)
	var out bytes.Buffer
	signals := make(chan syscall.Signal, 4)
	var broken, resumed int
	c := &Client{Stdin: strings.NewReader("0123456789"), Stdout: &out, Signals: signals,
		OnBroken: func(error) { broken++ }, OnResumed: func() { resumed++ }}
	done := runClient(t, c, x)
	one := x.next()
	sendAll(one, keptTicket(), startedFrame(), data(wire.Pipe_STDOUT, 0, "ab", false))
	until(t, one, func(f *wire.Frame) bool { return f.GetData().GetEof() })
	signals <- syscall.SIGUSR1
	until(t, one, func(f *wire.Frame) bool { return f.GetSignal() != nil })
	one.out.close(io.EOF)

	x.fail <- errors.New("connection refused") // and it tries again
	two := x.next()
	resume := two.next(t).GetResume()
	if resume.GetStdout() != 2 || resume.GetStderr() != 0 || resume.GetTicket().GetNonce() != "n" {
		t.Fatalf("resume %v", resume)
	}
	signals <- syscall.SIGUSR2 // while nothing is attached
	sendAll(two, attachedFrame(2, 4, 0), data(wire.Pipe_STDOUT, 0, "abc", false))
	got := map[int32]uint64{}
	for len(got) < 2 {
		switch f := two.next(t); {
		case f.GetSignal() != nil:
			got[f.GetSignal().Number] = f.GetSignal().Sequence
		case f.GetData() != nil && !f.GetData().Eof && (f.GetData().Offset != 4 || string(f.GetData().Bytes) != "456789"):
			t.Fatalf("stdin again: %v", f)
		}
	}
	if got[int32(syscall.SIGUSR1)] != 1 || got[int32(syscall.SIGUSR2)] != 2 {
		t.Errorf("signals %v", got)
	}
	sendAll(two, data(wire.Pipe_STDOUT, 3, "d", true), exitFrame(7, 4, 0))
	end := <-done
	if end.err != nil || end.exit.Code != 7 || out.String() != "abcd" {
		t.Errorf("exit %v, %v, stdout %q", end.exit, end.err, &out)
	}
	if broken != 1 || resumed != 1 {
		t.Errorf("told %d times that it broke, %d times that it goes on", broken, resumed)
	}
}

// A signal that the far end has is not delivered twice.
func TestSignalsAreNotRepeated(t *testing.T) {
	x := newExchange(t)
	signals := make(chan syscall.Signal, 4)
	done := runClient(t, &Client{Signals: signals}, x)
	one := x.next()
	sendAll(one, keptTicket(), startedFrame())
	signals <- syscall.SIGTERM
	until(t, one, func(f *wire.Frame) bool { return f.GetSignal() != nil })
	one.out.close(io.EOF)
	two := x.next()
	sendAll(two, attachedFrame(2, 0, 1), exitFrame(0, 0, 0))
	<-done
	two.in.close(io.EOF)
	for {
		f, err := two.Recv()
		if err != nil {
			break
		}
		if f.GetSignal() != nil {
			t.Error("the signal was sent again")
		}
	}
}

// A reader that went away, and bytes that were written, are said again: the
// connection may have lost both.
func TestAResumedPipeSaysAgainWhatItSaid(t *testing.T) {
	x := newExchange(t)
	wrote := make(signalling, 8)
	done := runClient(t, &Client{Stdout: failing{}, Stderr: wrote}, x)
	one := x.next()
	sendAll(one, keptTicket(), startedFrame(), data(wire.Pipe_STDOUT, 0, "x", false), data(wire.Pipe_STDERR, 0, "abc", false), data(wire.Pipe_STDERR, 3, "d", false))
	until(t, one, func(f *wire.Frame) bool { return f.GetClose() != nil })
	<-wrote
	<-wrote // the second write began, so the first is counted
	one.out.close(io.EOF)
	two := x.next()
	_ = two.Send(attachedFrame(2, 0, 0))
	closed, acked := false, false
	for !closed || !acked {
		f := two.next(t)
		closed = closed || f.GetClose().GetPipe() == wire.Pipe_STDOUT
		acked = acked || f.GetAck().GetPipe() == wire.Pipe_STDERR && f.GetAck().GetOffset() >= 3
	}
	sendAll(two, data(wire.Pipe_STDOUT, 1, "", true), exitFrame(3, 1, 4))
	if got := <-done; got.exit.GetCode() != 3 {
		t.Errorf("got %v, %v", got.exit, got.err)
	}
}

// signalling says that a write has returned from here.
type signalling chan struct{}

func (s signalling) Write(p []byte) (int, error) { s <- struct{}{}; return len(p), nil }

// What the scheduler or the worker answers to a Resume.
func TestResumeIsAnswered(t *testing.T) {
	lost := func(t *testing.T, err error) *LostError {
		t.Helper()
		l, ok := errors.AsType[*LostError](err)
		if !ok {
			t.Fatalf("got %v", err)
		}
		return l
	}
	tests := map[string]struct {
		before  []*wire.Frame // after the ticket, on the first stream
		answer  *wire.Frame
		inWords string
		refused bool
	}{
		"lost":                         {before: []*wire.Frame{startedFrame()}, answer: &wire.Frame{Kind: &wire.Frame_Lost{Lost: &wire.Lost{Message: "the pod is gone"}}}, inWords: "the pod is gone"},
		"never started":                {answer: refusedFrame(wire.Refusal_UNKNOWN_SESSION), refused: true},
		"never started, but it was":    {before: []*wire.Frame{startedFrame()}, answer: refusedFrame(wire.Refusal_UNKNOWN_SESSION), inWords: "refused after the start"},
		"stdin beyond what was sent":   {before: []*wire.Frame{startedFrame()}, answer: attachedFrame(2, 99, 0), inWords: "wanted from 99"},
		"an exit that does not add up": {before: []*wire.Frame{startedFrame(), data(wire.Pipe_STDOUT, 0, "ab", false)}, answer: exitFrame(0, 1, 0), inWords: "exit after 1"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			x := newExchange(t)
			done := runClient(t, &Client{Stdin: strings.NewReader("in")}, x)
			one := x.next()
			sendAll(one, append([]*wire.Frame{keptTicket()}, tc.before...)...)
			until(t, one, func(f *wire.Frame) bool { return f.GetTicketAck() != nil })
			one.out.close(io.EOF)
			two := x.next()
			sendAll(two, tc.answer)
			got := <-done
			if tc.refused {
				if _, ok := errors.AsType[*RefusedError](got.err); !ok {
					t.Errorf("got %v", got.err)
				}
				return
			}
			if l := lost(t, got.err); !l.MayHaveStarted || !strings.Contains(l.Error(), tc.inWords) {
				t.Errorf("got %v, may have started %v", l, l.MayHaveStarted)
			}
		})
	}
}

// A stream that ends in words is resumed as one that breaks.
func TestDetachedIsResumed(t *testing.T) {
	x := newExchange(t)
	why := make(chan error, 1)
	done := runClient(t, &Client{OnBroken: func(err error) { why <- err }}, x)
	sendAll(x.next(), keptTicket(), startedFrame(), &wire.Frame{Kind: &wire.Frame_Detached{Detached: &wire.Detached{Reason: "no channel to p"}}})
	two := x.next()
	if err := <-why; !strings.Contains(err.Error(), "no channel to p") {
		t.Errorf("told %v", err)
	}
	sendAll(two, attachedFrame(2, 0, 0), exitFrame(0, 0, 0))
	if got := <-done; got.err != nil {
		t.Error(got.err)
	}
}

// A caller that gives up while nothing is attached waits for nothing.
func TestAnOutageIsCancelled(t *testing.T) {
	x := newExchange(t)
	ctx, cancel := context.WithCancel(t.Context())
	c := &Client{Start: &wire.Start{Session: "s"}, Open: x.open, OnBroken: func(error) { cancel() }}
	done := make(chan error, 1)
	go func() { _, err := c.Run(ctx); done <- err }()
	one := x.next()
	sendAll(one, keptTicket(), startedFrame())
	until(t, one, func(f *wire.Frame) bool { return f.GetTicketAck() != nil })
	one.out.close(io.EOF)
	if lost, ok := errors.AsType[*LostError](<-done); !ok || !lost.MayHaveStarted {
		t.Errorf("got %v", lost)
	}
}

// However often a stream breaks, every byte passes once, in both directions.
func TestEveryByteOnceThroughBrokenStreams(t *testing.T) {
	const size = 6 << 20
	sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	x := newExchange(t)
	var out bytes.Buffer
	done := runClient(t, &Client{Stdin: bytes.NewReader(sent), Stdout: &out}, x)

	in, stdout := NewInbound(wire.Pipe_STDIN, 0), NewOutbound(wire.Pipe_STDOUT, 0)
	var took bytes.Buffer
	taken, pumped := make(chan struct{}), make(chan struct{})
	go func() { defer close(taken); _ = in.Copy(&took) }()
	go func() { defer close(pumped); _ = stdout.Pump(bytes.NewReader(sent)) }()
	// No frame need follow the last byte: both ends are awaited beside the frames.
	whole := make(chan struct{})
	go func() { <-taken; <-pumped; close(whole) }()
	for leg := uint64(1); ; leg++ {
		far := x.next()
		link := NewLink(far, LinkOptions{})
		first, err := link.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if leg == 1 {
			link.Send(keptTicket())
			link.Send(startedFrame())
			in.Attach(link)
		} else {
			link.Send(attachedFrame(leg, in.Received(), 0))
			in.Attach(link)
		}
		if err := stdout.Attach(link, first.GetResume().GetStdout()); err != nil {
			t.Fatal(err)
		}
		enough := make(chan struct{})
		go func() {
			defer close(enough)
			for n := 0; n < 40; n++ {
				f, err := link.Recv()
				switch {
				case err != nil:
					return // this end cut it
				case f.GetData() != nil:
					err = in.Accept(f.GetData())
				case f.GetAck() != nil:
					err = stdout.Ack(f.GetAck().Offset)
				}
				if err != nil {
					t.Error(err)
				}
			}
		}()
		select {
		case <-whole:
			link.Send(exitFrame(0, size, 0))
			got := <-done
			if got.err != nil || !bytes.Equal(out.Bytes(), sent) || !bytes.Equal(took.Bytes(), sent) || leg < 5 {
				t.Errorf("%v after %d streams: stdout is right: %v, stdin: %v", got.err, leg, bytes.Equal(out.Bytes(), sent), bytes.Equal(took.Bytes(), sent))
			}
			far.cut(io.EOF)
			link.Close()
			<-enough
			return
		case <-enough:
		}
		far.cut(io.EOF)
		link.Close()
		<-link.Stopped()
	}
}

// A peer that is held up may live: the stream to it ends only when another carries
// the session, or it would take that end for a death.
func TestASilentPeerKeepsItsStreamUntilTheNext(t *testing.T) {
	x := newExchange(t)
	done := runClient(t, &Client{Link: LinkOptions{Heartbeat: 20 * time.Millisecond, Silence: 200 * time.Millisecond}}, x)
	one := x.next()
	sendAll(one, keptTicket(), startedFrame())
	two := x.next() // it was silent
	one.in.mu.Lock()
	ended := one.in.err
	one.in.mu.Unlock()
	if ended != nil {
		t.Fatalf("the silent peer heard of the end: %v", ended)
	}
	_ = two.Send(attachedFrame(2, 0, 0))
	for {
		if _, err := one.Recv(); err != nil {
			break
		}
	}
	_ = two.Send(exitFrame(4, 0, 0))
	if got := <-done; got.exit.GetCode() != 4 {
		t.Errorf("%v, %v", got.exit, got.err)
	}
}

// A stream that breaks in the moment of the exit does not undo it.
func TestAnExitIsDecidedOnce(t *testing.T) {
	x := newExchange(t)
	exiting := make(chan struct{})
	c := &Client{Stdout: gate{exiting}, OnExit: func(*wire.Exit) {
		close(exiting)
		time.Sleep(50 * time.Millisecond) // the acknowledgement of what is written now kills the link
	}}
	done := runClient(t, c, x)
	one := x.next()
	sendAll(one, keptTicket(), startedFrame())
	until(t, one, func(f *wire.Frame) bool { return f.GetTicketAck() != nil })
	one.in.close(errors.New("connection reset")) // what the client sends fails from here on
	const size = DefaultRing
	for at := uint64(0); at < size; at += chunk {
		_ = one.Send(data(wire.Pipe_STDOUT, at, strings.Repeat("x", chunk), at+chunk == size))
	}
	_ = one.Send(exitFrame(7, size, 0))
	select {
	case got := <-done:
		if got.exit.GetCode() != 7 {
			t.Errorf("exit %v, %v", got.exit, got.err)
		}
	case <-x.far:
		t.Error("a session that has ended is resumed")
	}
}

// gate writes nothing until it is open.
type gate struct{ open chan struct{} }

func (g gate) Write(p []byte) (int, error) { <-g.open; return len(p), nil }
