package session

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/wire"
)

// ErrShimGone is the end of a Relay whose shim's stream ended first.
var ErrShimGone = errors.New("the shim's stream ended")

// Relay is the scheduler's part of one session: it reads the shim's stream from
// the first frame on, so that the shim's death is noticed while the session is
// queued, and later passes frames between the shim and a worker. Frames that it
// does not understand pass unchanged. It acknowledges nothing and holds no bytes
// but the links' queues.
//
//	NewRelay ─▶ Opening ─┬─ Start ──▶ (place, lease) ─▶ Ticket ─▶ Run ─┬─▶ exit
//	                     │                  ▲                          ├─▶ broken, or the shim is gone
//	                     │                  └──────── refused ─────────┤
//	                     └─ Resume ─▶ (find the worker) ─────▶ Run ────┘
//
// Its goroutines end with the shim's stream and link: after the last call, Close
// the link and return from the gRPC handler.
type Relay struct {
	shim    *Link
	observe func(*wire.Frame, int, bool)

	first chan *wire.Frame // a Start or a Resume
	acked chan struct{}    // one per TicketAck
	gone  chan struct{}    // the shim's stream ended: goneErr is set

	mu      sync.Mutex
	worker  *Link // frames go there; nil before Started
	record  *Recorder
	early   []packet // frames of the shim that came before
	waiting int      // their bytes
	begun   bool     // a worker has started or attached the session
	goneErr error
	passed  bool          // the shim was sent the exit and has not acknowledged it
	ended   chan struct{} // of the present Run: the shim acknowledged the exit
}

// RelayOptions are what a Relay tells its owner.
type RelayOptions struct {
	// Observe sees every frame that is passed on, and of a Data how many bytes it
	// has: the bytes themselves may be left out. It is called from one goroutine per
	// direction. It must not keep it, change it or block.
	Observe func(f *wire.Frame, bytes int, fromWorker bool)
}

// maxEarly and maxEarlyBytes bound the frames of a shim whose session has not
// started: a few signals. stdin is not sent before Started.
const (
	maxEarly      = 64
	maxEarlyBytes = 1 << 20
)

// NewRelay begins to read the shim's stream.
func NewRelay(shim *Link, o RelayOptions) *Relay {
	r := &Relay{
		shim: shim, observe: o.Observe,
		first: make(chan *wire.Frame, 1), acked: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	if r.observe == nil {
		r.observe = func(*wire.Frame, int, bool) {}
	}
	go r.fromShim()
	go func() { // ends when the owner closes the link
		<-shim.Dead()
		r.leave(shim.Err())
	}()
	return r
}

// leave records the end of the shim's stream; the first cause counts.
func (r *Relay) leave(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.goneErr == nil {
		r.goneErr = cause
		close(r.gone)
	}
}

// Record has the next Run recorded.
func (r *Relay) Record(to *Recorder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record = to
}

// Gone is closed when the shim's stream ended, or its link died.
func (r *Relay) Gone() <-chan struct{} { return r.gone }

// Opening waits for the shim's first frame: a Start or a Resume.
func (r *Relay) Opening(ctx context.Context) (*wire.Frame, error) {
	select {
	case f := <-r.first:
		return f, nil
	case <-r.gone:
		return nil, r.shimGone()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Ticket hands the shim its ticket and waits until the shim holds it. Only then
// may Start go to the worker.
func (r *Relay) Ticket(ctx context.Context, t *wire.Ticket) error {
	select {
	case <-r.acked: // of an earlier ticket
	default:
	}
	r.shim.Send(&wire.Frame{Kind: &wire.Frame_Ticket{Ticket: t}})
	select {
	case <-r.acked:
		return nil
	case <-r.gone:
		return r.shimGone()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run sends the first frame to the worker, a Start or a Resume, and passes frames
// until the session ended on both sides. It returns the Exit once the shim
// acknowledged it; a *RefusedError, which the shim was NOT told, when the worker
// refused: Run may be called again with another worker; a *LostError, of which
// the shim was not told either, by the worker's word; ErrBroken, wrapped, when the
// worker's stream ended without an exit: the session itself may go on;
// ErrShimGone, wrapped, when the shim's did, with the Exit if it had passed. A
// goroutine is left in the worker's Recv: end that stream after Run returned.
func (r *Relay) Run(ctx context.Context, worker *Link, first *wire.Frame) (*wire.Exit, error) {
	w := &workerSide{link: worker, result: make(chan struct{})}
	r.mu.Lock()
	w.record, r.ended = r.record, make(chan struct{})
	ended := r.ended
	r.mu.Unlock()
	defer r.detach()

	worker.Send(first)
	go r.fromWorker(w)
	result, dead := w.result, worker.Dead()
	for {
		select {
		case <-ended:
			_ = worker.Flush() // the ExitAck
			return w.end()
		case <-result:
			if exit, err := w.end(); err != nil {
				return exit, err
			}
			result = nil // the exit passed: now the shim acknowledges it, or goes
		case <-dead:
			if exit, _ := w.end(); exit == nil {
				return nil, brokenWorker(worker.Err())
			}
			dead = nil
		case <-r.gone:
			select {
			case <-ended: // it acknowledged, and went
				_ = worker.Flush()
				return w.end()
			default:
			}
			exit, _ := w.end()
			return exit, r.shimGone()
		case <-ctx.Done():
			exit, _ := w.end()
			return exit, context.Cause(ctx)
		}
	}
}

// ErrBroken is the end of a Run whose worker's stream ended first.
var ErrBroken = errors.New("the worker's stream ended")

func brokenWorker(cause error) error { return fmt.Errorf("%w: %w", ErrBroken, streamEnd(cause)) }

// workerSide is what one Run knows of its worker.
type workerSide struct {
	link   *Link
	record *Recorder // nil: none
	mu     sync.Mutex
	exit   *wire.Exit
	err    error
	result chan struct{} // closed once exit or err is set
}

func (w *workerSide) end() (*wire.Exit, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.exit, w.err
}

func (w *workerSide) set(exit *wire.Exit, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.exit == nil && w.err == nil {
		w.exit, w.err = exit, err
		close(w.result)
	}
}

func (r *Relay) fromWorker(w *workerSide) {
	started := false
	for {
		p, err := w.link.recvPacket()
		if err != nil {
			w.set(nil, brokenWorker(err))
			return
		}
		f := p.frame
		if refused := f.GetRefused(); refused != nil {
			if started {
				w.set(nil, brokenWorker(protocolErrorf("refused after the start")))
				return
			}
			w.set(nil, &RefusedError{Refusal: refused.Refusal, Message: refused.Message, Remedy: refused.Remedy})
			return
		}
		if lost := f.GetLost(); lost != nil {
			w.set(nil, &LostError{Message: lost.Message, MayHaveStarted: true})
			return
		}
		if f.GetStarted() != nil || f.GetAttached() != nil {
			started = true
			r.attach(w.link)
		}
		r.observe(f, p.bytes(), true)
		if w.record != nil {
			w.record.hear(p)
		}
		exit := f.GetExit()
		if exit != nil {
			r.mu.Lock()
			r.passed = true
			r.mu.Unlock()
			w.set(exit, nil) // before the shim can acknowledge it
		}
		r.shim.pass(p)
		if exit != nil {
			w.link.drain()
			return
		}
	}
}

// attach lets the shim's frames through, those that came early first.
func (r *Relay) attach(worker *Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.early {
		worker.pass(p)
	}
	r.early, r.waiting, r.worker, r.begun = nil, 0, worker, true
}

func (r *Relay) detach() {
	r.mu.Lock()
	r.worker = nil
	r.mu.Unlock()
}

func (r *Relay) fromShim() {
	first := true
	for {
		p, err := r.shim.recvPacket()
		if err == nil {
			err = r.accept(p, first)
		}
		if err != nil {
			r.leave(err)
			return
		}
		first = false
	}
}

func (r *Relay) accept(p packet, first bool) error {
	f := p.frame
	if first {
		if f.GetStart() == nil && f.GetResume() == nil {
			return protocolErrorf("the first frame is %T, neither a start nor a resume", f.Kind)
		}
		r.first <- f
		return nil
	}
	if f.GetTicketAck() != nil {
		select {
		case r.acked <- struct{}{}:
		default:
		}
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	ack := f.GetExitAck() != nil
	switch {
	case ack && !r.passed:
		return protocolErrorf("the exit was acknowledged before it was sent")
	case ack:
		r.passed = false
		defer close(r.ended)
	case r.worker == nil && r.begun: // the worker's stream has ended: a Resume says it again
		p.free()
		return nil
	case r.worker == nil:
		r.early, r.waiting = append(r.early, p), r.waiting+proto.Size(f)+p.size
		if len(r.early) > maxEarly || r.waiting > maxEarlyBytes {
			return protocolErrorf("%d frames of %d bytes before the session started", len(r.early), r.waiting)
		}
		return nil
	}
	if r.worker != nil {
		r.observe(f, p.bytes(), false)
		if r.record != nil {
			r.record.told(p)
		}
		r.worker.pass(p)
	}
	if ack {
		r.worker = nil
	}
	return nil
}

func (r *Relay) shimGone() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrShimGone, streamEnd(r.goneErr))
}
