package session

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Client is the caller's end of a session: the shim's, and podexec.Cmd's. It is
// used once.
type Client struct {
	// Start is sent first. Its session id must be new.
	Start *wire.Start
	// Stdin is read only after the process started, and only as fast as the
	// process reads. Nil: the process reads /dev/null, whatever Start says.
	// A Read that is in progress when the session ends is abandoned: Run does
	// not wait for it.
	Stdin io.Reader
	// Stdout and Stderr get the bytes, each from one goroutine. Nil: dropped. An
	// error of Write closes the pipe at the process, as a local reader would; but
	// for a reader that went away it also makes a success a *LostError: a local
	// process would have seen it.
	Stdout, Stderr io.Writer
	// Signals are delivered to the process. May be nil.
	Signals <-chan syscall.Signal
	// OnProgress, OnTicket and OnStarted are called in the order of the frames,
	// never after Run returned, and must not block. May be nil.
	OnProgress func(*wire.Progress)
	OnTicket   func(*wire.Ticket)
	OnStarted  func(*wire.Started)
	// OnExit is called when the session is over, before the last bytes are written: a
	// signal has nothing to go to any more. Its argument is nil when the session is
	// lost or was refused. May be nil.
	OnExit func(*wire.Exit)
	// Direct says that the peer is the supervisor itself: there is no Ticket, so
	// the process may have started as soon as Start was sent.
	Direct bool
	// Link are the bounds of the hop.
	Link LinkOptions
}

// Run runs the session over s and returns its Exit once every byte of stdout and
// stderr was written. Errors: *RefusedError (nothing started), *LostError (its
// end is unknown). Cancelling ctx must end s: use the context of the stream.
// The stream may be used no more.
func (c *Client) Run(ctx context.Context, s Stream) (*wire.Exit, error) {
	r := &clientRun{
		Client: c,
		link:   NewLink(s, c.Link),
		stdin:  NewOutbound(wire.Pipe_STDIN, 0),
		stdout: NewInbound(wire.Pipe_STDOUT, 0),
		stderr: NewInbound(wire.Pipe_STDERR, 0),
		ended:  make(chan struct{}),
		over:   make(chan struct{}),
	}
	return r.run(ctx)
}

type clientRun struct {
	*Client
	link           *Link
	stdin          *Outbound
	stdout, stderr *Inbound

	writers sync.WaitGroup // Copy of stdout and stderr
	signals sync.WaitGroup
	ended   chan struct{} // the session is decided: exit or err is set
	over    chan struct{} // run is over

	mu      sync.Mutex // held while a frame is handled
	left    bool       // run gave up: no frame counts any more, no ticket is taken
	begun   bool       // the process may have started
	started bool       // Started came
	exit    *wire.Exit
	err     error
	unsaved error // of a write to Stdout or Stderr whose reader is still there
}

func (r *clientRun) run(ctx context.Context) (*wire.Exit, error) {
	defer r.signals.Wait()
	defer close(r.over)
	defer r.stdin.Discard()
	defer r.link.Close()
	start := r.Start
	start.Stdin = r.Stdin != nil
	r.begun = r.Direct
	r.stdout.Attach(r.link)
	r.stderr.Attach(r.link)
	r.write(r.stdout, wire.Pipe_STDOUT, r.Stdout)
	r.write(r.stderr, wire.Pipe_STDERR, r.Stderr)
	r.link.Send(&wire.Frame{Kind: &wire.Frame_Start{Start: start}})

	go r.receive() // ends with the stream, which is the caller's
	var left error
	select {
	case <-r.ended:
	case <-r.link.Dead():
		left = r.leave(r.link.Err())
	case <-ctx.Done():
		left = r.leave(context.Cause(ctx))
	}
	if left != nil {
		r.stdout.Discard()
		r.stderr.Discard()
		r.writers.Wait()
		return nil, left
	}
	if r.exit == nil {
		// What arrived is written before the failure is reported, as a process
		// that dies leaves its output behind.
		r.stdout.Finish()
		r.stderr.Finish()
		r.writers.Wait()
		return nil, r.err
	}
	r.writers.Wait()
	r.link.Send(&wire.Frame{Kind: &wire.Frame_ExitAck{ExitAck: &wire.ExitAck{}}})
	_ = r.link.Flush() // every byte and the exit are here: the rest is courtesy
	if r.unsaved != nil && r.exit.Code == 0 && r.exit.Signal == 0 {
		return nil, &LostError{Message: "its output could not be written", Cause: r.unsaved, MayHaveStarted: true}
	}
	return r.exit, nil
}

// leave gives the session up unless it is decided already: then it returns nil.
// Whoever is told that nothing has started may run the command elsewhere, so from
// here on no ticket is taken.
func (r *clientRun) leave(cause error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.exit != nil || r.err != nil {
		return nil
	}
	r.left = true
	r.tellEnd(nil)
	return r.lost(cause)
}

func (r *clientRun) tellEnd(e *wire.Exit) {
	if r.OnExit != nil {
		r.OnExit(e)
	}
}

// lost is the error of a stream that ended. It must be called with the lock held.
func (r *clientRun) lost(cause error) error {
	return &LostError{Cause: streamEnd(cause), MayHaveStarted: r.begun}
}

// write copies a pipe to the caller's writer and closes the far end when that
// fails.
func (r *clientRun) write(in *Inbound, pipe wire.Pipe, w io.Writer) {
	if w == nil {
		w = io.Discard
	}
	r.writers.Go(func() {
		err := in.Copy(w)
		if err == nil || errors.Is(err, ErrSinkGone) {
			return
		}
		r.link.Send(&wire.Frame{Kind: &wire.Frame_Close{Close: &wire.Close{Pipe: pipe}}})
		if !readerGone(err) {
			r.mu.Lock()
			r.unsaved = errors.Join(r.unsaved, err)
			r.mu.Unlock()
		}
	})
}

// readerGone tells whether a write failed only because nobody reads any more.
func readerGone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed)
}

// receive handles the server's frames until the session is decided. After an
// Exit it goes on receiving: a consumer of stdout may take its time, and the
// peer's silence must be noticed by nobody.
func (r *clientRun) receive() {
	for {
		f, err := r.link.Recv()
		if r.decide(f, err) {
			break
		}
	}
	if r.exit != nil {
		r.link.drain()
	}
}

// decide handles a frame, or the end of the stream. It returns true when nothing
// that comes later counts.
func (r *clientRun) decide(f *wire.Frame, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.left:
		return true
	case err != nil:
		r.err = r.lost(err)
	default:
		r.err = r.handle(f)
	}
	if _, broken := errors.AsType[*ProtocolError](r.err); broken {
		r.err = &LostError{Cause: r.err, MayHaveStarted: r.begun}
	}
	decided := r.err != nil || r.exit != nil
	if decided {
		r.tellEnd(r.exit)
		close(r.ended)
	}
	return decided
}

func (r *clientRun) handle(f *wire.Frame) error {
	switch k := f.Kind.(type) {
	case *wire.Frame_Data:
		r.begun = true
		if k.Data.Pipe == wire.Pipe_STDERR {
			return r.stderr.Accept(k.Data)
		}
		return r.stdout.Accept(k.Data) // or it is a pipe that nobody knows
	case *wire.Frame_Ack:
		if k.Ack.Pipe == wire.Pipe_STDIN {
			return r.stdin.Ack(k.Ack.Offset)
		}
	case *wire.Frame_Close:
		if k.Close.Pipe == wire.Pipe_STDIN {
			r.stdin.Discard()
		}
	case *wire.Frame_Progress:
		if r.OnProgress != nil {
			r.OnProgress(k.Progress)
		}
	case *wire.Frame_Ticket:
		if r.OnTicket != nil {
			r.OnTicket(k.Ticket)
		}
		r.begun = true
		r.link.Send(&wire.Frame{Kind: &wire.Frame_TicketAck{TicketAck: &wire.TicketAck{}}})
	case *wire.Frame_Started:
		return r.start(k.Started)
	case *wire.Frame_Refused:
		if r.started {
			return protocolErrorf("refused after the start")
		}
		return &RefusedError{Refusal: k.Refused.Refusal, Message: k.Refused.Message, Remedy: k.Refused.Remedy}
	case *wire.Frame_Lost:
		return &LostError{Message: k.Lost.Message, MayHaveStarted: true}
	case *wire.Frame_Exit:
		return r.finished(k.Exit)
	}
	return nil
}

func (r *clientRun) start(s *wire.Started) error {
	r.begun = true
	if r.started {
		return protocolErrorf("the process started twice")
	}
	r.started = true
	if r.OnStarted != nil {
		r.OnStarted(s)
	}
	_ = r.stdin.Attach(r.link, 0)
	if r.Stdin != nil {
		go func() { _ = r.stdin.Pump(r.Stdin) }() // ends with Stdin's next byte or the session, see Client.Stdin
	}
	if r.Signals == nil {
		return nil
	}
	r.signals.Go(func() {
		for {
			select {
			case sig, open := <-r.Signals:
				if !open {
					return
				}
				r.link.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: int32(sig)}}})
			case <-r.over:
				return
			}
		}
	})
	return nil
}

// finished checks the totals: an Exit that does not match what arrived is no
// proof of anything, nor is one that no process of Linux can end with.
func (r *clientRun) finished(e *wire.Exit) error {
	r.begun = true
	if e.Code < 0 || e.Code > 255 || e.Signal < 0 || e.Signal > 64 {
		return protocolErrorf("exit with code %d and signal %d", e.Code, e.Signal)
	}
	if out, err := r.stdout.Received(), r.stderr.Received(); out != e.Stdout || err != e.Stderr {
		return protocolErrorf("exit after %d and %d bytes of stdout and stderr, got %d and %d", e.Stdout, e.Stderr, out, err)
	}
	r.stdout.Finish()
	r.stderr.Finish()
	r.exit = e
	return nil
}
