package session

import (
	"context"
	"errors"
	"io"
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
	// error of Write closes the pipe at the process, as a local reader would.
	Stdout, Stderr io.Writer
	// Signals are delivered to the process. May be nil.
	Signals <-chan syscall.Signal
	// OnProgress, OnTicket and OnStarted are called in the order of the frames
	// and must not block. May be nil.
	OnProgress func(*wire.Progress)
	OnTicket   func(*wire.Ticket)
	OnStarted  func(*wire.Started)
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
	ended   chan struct{} // receive is over: exit and err are set
	over    chan struct{} // run is over
	exit    *wire.Exit
	err     error
	begun   bool // the process may have started
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

	go r.receive()
	select {
	case <-r.ended:
	case <-r.link.Dead():
		// A blocked Recv ends with the stream, which is the caller's.
		select {
		case <-r.ended:
		default:
			r.stdout.Discard()
			r.stderr.Discard()
			r.writers.Wait()
			return nil, r.lost(r.link.Err())
		}
	case <-ctx.Done():
		r.stdout.Discard()
		r.stderr.Discard()
		r.writers.Wait()
		return nil, r.lost(context.Cause(ctx))
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
	return r.exit, nil
}

// lost is the error of a stream that ended. It must not be called before the
// receiver ended unless the link is dead.
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
		if err := in.Copy(w); err != nil && !errors.Is(err, ErrSinkGone) {
			r.link.Send(&wire.Frame{Kind: &wire.Frame_Close{Close: &wire.Close{Pipe: pipe}}})
		}
	})
}

// receive handles the server's frames until the session is decided. After an
// Exit it goes on receiving: a consumer of stdout may take its time, and the
// peer's silence must be noticed by nobody.
func (r *clientRun) receive() {
	for {
		f, err := r.link.Recv()
		if r.exit != nil {
			if err != nil {
				return
			}
			continue
		}
		if err == nil {
			err = r.handle(f)
		} else {
			err = r.lost(err)
		}
		if err != nil || r.exit != nil {
			if _, broken := errors.AsType[*ProtocolError](err); broken {
				err = &LostError{Cause: err, MayHaveStarted: r.begun}
			}
			r.err = err
			close(r.ended)
			if err != nil {
				return
			}
		}
	}
}

func (r *clientRun) handle(f *wire.Frame) error {
	switch k := f.Kind.(type) {
	case *wire.Frame_Data:
		if k.Data.Pipe == wire.Pipe_STDERR {
			return r.stderr.Accept(k.Data)
		}
		return r.stdout.Accept(k.Data)
	case *wire.Frame_Ack:
		return r.stdin.Ack(k.Ack.Offset)
	case *wire.Frame_Close:
		r.stdin.Discard()
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
		r.started(k.Started)
	case *wire.Frame_Refused:
		return &RefusedError{Refusal: k.Refused.Refusal, Message: k.Refused.Message, Remedy: k.Refused.Remedy}
	case *wire.Frame_Lost:
		return &LostError{Message: k.Lost.Message, MayHaveStarted: true}
	case *wire.Frame_Exit:
		return r.finished(k.Exit)
	}
	return nil
}

func (r *clientRun) started(s *wire.Started) {
	if r.OnStarted != nil {
		r.OnStarted(s)
	}
	_ = r.stdin.Attach(r.link, 0)
	if r.Stdin != nil {
		go func() { _ = r.stdin.Pump(r.Stdin) }() // ends with Stdin's next byte or the session, see Client.Stdin
	}
	if r.Signals == nil {
		return
	}
	r.signals.Go(func() {
		for {
			select {
			case sig := <-r.Signals:
				r.link.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: int32(sig)}}})
			case <-r.over:
				return
			}
		}
	})
}

// finished checks the totals: an Exit that does not match what arrived is no
// proof of anything.
func (r *clientRun) finished(e *wire.Exit) error {
	if out, err := r.stdout.Received(), r.stderr.Received(); out != e.Stdout || err != e.Stderr {
		return protocolErrorf("exit after %d and %d bytes of stdout and stderr, got %d and %d", e.Stdout, e.Stderr, out, err)
	}
	r.stdout.Finish()
	r.stderr.Finish()
	r.exit = e
	return nil
}
