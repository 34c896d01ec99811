package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Client is the caller's end of a session: the shim's, and podexec.Cmd's. It is
// used once.
type Client struct {
	// Open opens a stream for the session: the first, and, when that broke and the
	// session can be resumed, the next. Each ends when its ctx does. It is called by
	// one goroutine, and bounds a try itself.
	Open func(ctx context.Context) (Stream, error)
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
	// Signals are delivered to the process, each once. May be nil.
	Signals <-chan syscall.Signal
	// OnProgress, OnTicket and OnStarted are called in the order of the frames,
	// never after Run returned, and must not block. May be nil. Without a ticket,
	// OnStarted is called when the Exit has come.
	OnProgress func(*wire.Progress)
	OnTicket   func(*wire.Ticket)
	OnStarted  func(*wire.Started)
	// OnBroken is called when a stream broke and the session is resumed, OnResumed
	// when it goes on. May be nil.
	OnBroken  func(cause error)
	OnResumed func()
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

// Run runs the session and returns its Exit once every byte of stdout and stderr
// was written. Errors: *RefusedError (nothing started), *LostError (its end is
// unknown). Cancelling ctx ends the stream, not the process: who must end that
// says so in words.
//
// A session that has its Ticket survives its streams: Run opens another and
// resumes, at once and then again with growing pauses, for as long as the worker
// keeps the session (Ticket.GraceMs) and until it must be dead beyond doubt: when
// Run reports a loss for lack of a stream, nothing of the session runs any more.
//
// A session that is told without a Ticket runs nowhere: the scheduler answers from
// what it kept of another (Transcript). It is all or nothing: stdin stays unread, and
// no byte is written before its Exit has come. What ends before that has not started.
func (c *Client) Run(ctx context.Context) (*wire.Exit, error) {
	c.Link = c.Link.ForClient()
	c.Start.Stdin = c.Stdin != nil
	r := &clientRun{
		Client: c,
		stdin:  NewOutbound(wire.Pipe_STDIN, 0),
		stdout: NewInbound(wire.Pipe_STDOUT, 0),
		stderr: NewInbound(wire.Pipe_STDERR, 0),
		sure:   make(chan struct{}),
		ended:  make(chan struct{}),
		over:   make(chan struct{}),
	}
	if c.Direct {
		close(r.sure)
	}
	return r.run(ctx)
}

type clientRun struct {
	*Client
	stdin          *Outbound
	stdout, stderr *Inbound

	writers sync.WaitGroup // Copy of stdout and stderr
	signals sync.WaitGroup
	sure    chan struct{} // closed when what comes may be written: it is not taken back
	ended   chan struct{} // the session is decided: exit or err is set
	over    chan struct{} // run is over

	mu       sync.Mutex    // held while a frame is handled
	leg      *leg          // the present stream; frames of others do not count
	broke    error         // why the last one ended
	silent   *leg          // one of a peer that is silent, until another is attached
	left     bool          // run gave up: no frame counts any more, no ticket is taken
	begun    bool          // the process may have started
	ticket   *wire.Ticket  // held and acknowledged
	started  bool          // the process runs, or ran
	retold   *wire.Started // without a ticket: nothing runs
	sequence uint64        // of the last signal
	sent     []*wire.Signal
	exit     *wire.Exit
	err      error
	unsaved  error // of a write to Stdout or Stderr whose reader is still there
}

// leg is one stream of a session.
type leg struct {
	link     *Link
	cancel   context.CancelFunc // ends the stream
	received chan struct{}      // closed when nothing is received any more
	attached chan struct{}      // closed when a resumed stream carries the session
	broken   chan struct{}      // closed after cause is set
	cause    error
}

func (l *leg) isAttached() bool {
	select {
	case <-l.attached:
		return true
	default:
		return false
	}
}

// close ends the stream and waits until nothing of the rings is read for it.
func (l *leg) close() {
	l.cancel()
	l.link.Close()
	<-l.link.Stopped()
	<-l.received
}

func (r *clientRun) run(ctx context.Context) (*wire.Exit, error) {
	defer r.signals.Wait()
	defer close(r.over)
	defer r.stdin.Discard()
	r.write(r.stdout, r.Stdout)
	r.write(r.stderr, r.Stderr)

	first := &wire.Frame{Kind: &wire.Frame_Start{Start: r.Start}}
	var out outage
	defer out.end()
	defer r.retire(nil)
	for {
		l, err := r.open(ctx, first)
		if err == nil {
			if err = r.follow(ctx, l, &out); err == nil {
				return r.finish(l)
			}
			if errors.Is(err, ErrSilent) {
				r.retire(l)
			} else {
				l.close()
			}
			if r.decided() { // in the moment in which the stream ended
				return r.finish(l)
			}
		}
		if err = r.resumable(ctx, err); err == nil {
			err = r.pause(ctx, &out)
		}
		if err != nil {
			r.settle(ctx.Err() != nil)
			return nil, err
		}
		first = &wire.Frame{Kind: &wire.Frame_Resume{Resume: &wire.Resume{
			Ticket: r.ticket, Stdout: r.stdout.Received(), Stderr: r.stderr.Received(),
		}}}
	}
}

// open opens a stream and sends its first frame.
func (r *clientRun) open(ctx context.Context, first *wire.Frame) (*leg, error) {
	ctx, cancel := context.WithCancel(ctx)
	s, err := r.Open(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	opts := r.Link
	silent := make(chan *Link, 1)
	opts.Cancel = func() {
		// A peer that is silent may only be held up. If it hears of the end of this
		// stream before it hears of the next one, it takes this end for dead.
		if link := <-silent; !errors.Is(link.Err(), ErrSilent) {
			cancel()
		}
	}
	link := NewLink(s, opts)
	silent <- link
	l := &leg{link: link, cancel: cancel, received: make(chan struct{}), attached: make(chan struct{}), broken: make(chan struct{})}
	if first.GetStart() != nil {
		r.stdout.Attach(l.link)
		r.stderr.Attach(l.link)
		close(l.attached)
	}
	r.mu.Lock()
	r.leg, r.begun = l, r.begun || r.Direct
	r.mu.Unlock()
	l.link.Send(first)
	go r.receive(l)
	return l, nil
}

// follow waits until the session is decided: nil. Its error is why the stream is
// of no use any more.
func (r *clientRun) follow(ctx context.Context, l *leg, out *outage) error {
	attached := l.attached
	for {
		select {
		case <-r.ended:
			if l.isAttached() {
				r.resumed(out)
			}
			return nil
		case <-attached:
			attached = nil
			r.resumed(out)
		case <-l.broken:
			return l.cause
		case <-l.link.Dead():
			return l.link.Err()
		case <-out.late():
			return errors.New("no worker was reached")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// decided tells whether the session has ended. Nothing that a stream that is closed
// or silent still brings decides it later.
func (r *clientRun) decided() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// retire keeps the stream of a silent peer until the next one carries the session,
// and ends the one that was kept before.
func (r *clientRun) retire(l *leg) {
	r.mu.Lock()
	old := r.silent
	r.silent = l
	r.mu.Unlock()
	if old != nil {
		old.close()
	}
}

func (r *clientRun) resumed(out *outage) {
	r.retire(nil)
	if out.end() && r.OnResumed != nil {
		r.OnResumed()
	}
}

// resumable returns nil when another stream may carry the session on, else the
// error to report. Whoever is told that nothing has started may run the command
// elsewhere, so from then on no ticket is taken.
func (r *clientRun) resumable(ctx context.Context, cause error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ticket.GetGraceMs() > 0 && ctx.Err() == nil {
		r.broke = cause
		return nil
	}
	r.left = true
	r.tellEnd(nil)
	return r.lost(cause)
}

// pause waits before the next try. Its error is reported when there is none.
func (r *clientRun) pause(ctx context.Context, out *outage) error {
	bound := time.Duration(r.ticket.GetGraceMs())*time.Millisecond + AfterGrace
	if out.begin(bound) && r.OnBroken != nil {
		r.OnBroken(streamEnd(r.broke))
	}
	pause := time.NewTimer(out.next())
	defer pause.Stop()
	why := r.broke
	select {
	case <-pause.C:
		return nil
	case <-out.late():
		why = fmt.Errorf("it could not be resumed within %s: %w", bound, streamEnd(why))
	case <-ctx.Done():
		why = context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = true
	r.tellEnd(nil)
	return r.lost(why)
}

// settle ends both pipes. What arrived is written also before a failure is
// reported, as a process that dies leaves its output behind, unless the caller
// does not want to wait for it.
func (r *clientRun) settle(discard bool) {
	if discard || !r.isSure() {
		r.stdout.Discard()
		r.stderr.Discard()
	}
	r.stdout.Finish()
	r.stderr.Finish()
	r.assure()
	r.writers.Wait()
}

// assure lets the writers go. Its callers take turns.
func (r *clientRun) assure() {
	if !r.isSure() {
		close(r.sure)
	}
}

func (r *clientRun) isSure() bool {
	select {
	case <-r.sure:
		return true
	default:
		return false
	}
}

// finish returns the outcome of a session that is decided.
func (r *clientRun) finish(l *leg) (*wire.Exit, error) {
	defer l.link.Close() // the stream ends with ctx: cancelling it could overtake the ExitAck
	r.settle(false)
	if r.exit == nil {
		return nil, r.err
	}
	l.link.Send(&wire.Frame{Kind: &wire.Frame_ExitAck{ExitAck: &wire.ExitAck{}}})
	_ = l.link.Flush() // every byte and the exit are here: the rest is courtesy
	if r.unsaved != nil && r.exit.Code == 0 && r.exit.Signal == 0 {
		return nil, &LostError{Message: "its output could not be written", Cause: r.unsaved, MayHaveStarted: true}
	}
	return r.exit, nil
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

// write copies a pipe to the caller's writer.
func (r *clientRun) write(in *Inbound, w io.Writer) {
	if w == nil {
		w = io.Discard
	}
	r.writers.Go(func() {
		<-r.sure
		err := in.Copy(w)
		if err == nil || errors.Is(err, ErrSinkGone) || readerGone(err) {
			return
		}
		r.mu.Lock()
		r.unsaved = errors.Join(r.unsaved, err)
		r.mu.Unlock()
	})
}

// readerGone tells whether a write failed only because nobody reads any more.
func readerGone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed)
}

// receive handles the frames of one stream until the session is decided or the
// stream ends. After an Exit it goes on receiving: a consumer of stdout may take
// its time, and the peer's silence must be noticed by nobody.
func (r *clientRun) receive(l *leg) {
	defer close(l.received)
	for {
		f, err := l.link.Recv()
		decided, over := r.decide(l, f, err)
		if over {
			return
		}
		if decided {
			l.link.drain()
			return
		}
	}
}

// decide handles a frame, or the end of a stream. decided: an exit came, nothing
// later counts; over: nothing more is to be received from this stream.
func (r *clientRun) decide(l *leg, f *wire.Frame, err error) (decided, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if detached := f.GetDetached(); detached != nil {
		err = errors.New(detached.Reason)
	}
	if f.GetRefused().GetRefusal() == wire.Refusal_DRAINING && !l.isAttached() {
		err = errors.New(f.GetRefused().Message) // of this stream, not of the session
	}
	switch {
	case r.left, r.leg != l, errors.Is(l.link.Err(), ErrSilent):
		return false, true
	case err != nil:
		l.cause = err
		close(l.broken)
		return false, true
	}
	r.err = r.handle(l, f)
	if _, broken := errors.AsType[*ProtocolError](r.err); broken {
		r.err = &LostError{Cause: r.err, MayHaveStarted: r.begun}
	}
	if r.err == nil && r.exit == nil {
		return false, false
	}
	r.tellEnd(r.exit)
	close(r.ended)
	return r.exit != nil, r.exit == nil
}

func (r *clientRun) handle(l *leg, f *wire.Frame) error {
	switch k := f.Kind.(type) {
	case *wire.Frame_Data:
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
		if r.retold != nil {
			return protocolErrorf("a ticket after the start")
		}
		if r.OnTicket != nil {
			r.OnTicket(k.Ticket)
		}
		r.begun, r.ticket = true, k.Ticket
		r.assure()
		l.link.Send(&wire.Frame{Kind: &wire.Frame_TicketAck{TicketAck: &wire.TicketAck{}}})
	case *wire.Frame_Started:
		if r.started {
			return protocolErrorf("the process started twice")
		}
		if !r.begun {
			r.started, r.retold = true, k.Started
			return nil
		}
		r.start(k.Started)
		return r.stdin.Attach(l.link, 0)
	case *wire.Frame_Attached:
		return r.reattach(l, k.Attached)
	case *wire.Frame_Refused:
		return r.refused(k.Refused)
	case *wire.Frame_Lost:
		return &LostError{Message: k.Lost.Message, MayHaveStarted: true}
	case *wire.Frame_Exit:
		return r.finished(k.Exit)
	}
	return nil
}

// refused is the worker's or the scheduler's word that nothing was started, and
// never will be under this session's id.
func (r *clientRun) refused(f *wire.Refused) error {
	if r.started && r.begun {
		return protocolErrorf("refused after the start: %s", f.Message)
	}
	return &RefusedError{Refusal: f.Refusal, Message: f.Message, Remedy: f.Remedy}
}

// reattach goes on where the last stream stopped, and says again what that may
// have lost.
func (r *clientRun) reattach(l *leg, a *wire.Attached) error {
	if l.isAttached() {
		return protocolErrorf("attached without a resume")
	}
	close(l.attached)
	if !r.started {
		r.start(&wire.Started{Epoch: a.Epoch})
	}
	if r.silent != nil { // its frames are parts of the ring that is sent again now
		r.silent.cancel()
		<-r.silent.link.Stopped()
	}
	r.stdout.Attach(l.link)
	r.stderr.Attach(l.link)
	for _, s := range r.sent {
		if s.Sequence > a.Signals {
			l.link.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: s}})
		}
	}
	return r.stdin.Attach(l.link, a.Stdin)
}

// start begins to read stdin and to forward signals.
func (r *clientRun) start(s *wire.Started) {
	r.started = true
	if r.OnStarted != nil {
		r.OnStarted(s)
	}
	if r.Stdin != nil {
		go func() { _ = r.stdin.Pump(r.Stdin) }() // ends with Stdin's next byte or the session, see Client.Stdin
	}
	if r.Signals == nil {
		return
	}
	r.signals.Go(func() {
		for {
			select {
			case sig, open := <-r.Signals:
				if !open {
					return
				}
				r.signal(sig)
			case <-r.over:
				return
			}
		}
	})
}

// sentSignals bounds the signals that are kept for the next stream.
const sentSignals = 64

func (r *clientRun) signal(sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sequence++
	s := &wire.Signal{Number: int32(sig), Sequence: r.sequence}
	r.sent = append(r.sent, s)
	if len(r.sent) > sentSignals {
		r.sent = r.sent[1:]
	}
	if r.leg.isAttached() { // else it goes with the attaching
		r.leg.link.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: s}})
	}
}

// finished checks the totals: an Exit that does not match what arrived is no
// proof of anything, nor is one that no process of Linux can end with.
func (r *clientRun) finished(e *wire.Exit) error {
	if e.Code < 0 || e.Code > 255 || e.Signal < 0 || e.Signal > 64 {
		return protocolErrorf("exit with code %d and signal %d", e.Code, e.Signal)
	}
	if out, err := r.stdout.Received(), r.stderr.Received(); out != e.Stdout || err != e.Stderr {
		return protocolErrorf("exit after %d and %d bytes of stdout and stderr, got %d and %d", e.Stdout, e.Stderr, out, err)
	}
	if r.retold != nil && r.OnStarted != nil {
		r.OnStarted(r.retold)
	}
	r.exit = e
	r.assure()
	return nil
}
