package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/store"
)

// run is one session in Serve. Its fields belong to the goroutine of Serve but
// for what is said.
type run struct {
	sched   *Scheduler
	caller  store.Caller
	asked   time.Time
	leave   context.CancelCauseFunc // ends this run of the session; any goroutine
	cancel  context.CancelCauseFunc // ends its stream; any goroutine
	stop    func() bool
	counted bool          // by Scheduler.serving
	over    chan struct{} // closed when nothing of it runs here any more
	link    *session.Link // to the shim
	relay   *session.Relay
	heard   chan struct{} // closed when nobody listens for the shim's end any more

	// Of Start, or of the worker's record.
	id       string
	start    *wire.Start // nil for a session that was resumed
	command  ffmpeg.Command
	kind     string
	needs    ffmpeg.Requirements
	line     []string // the caller's argv
	asks     string   // what a hardware probe asks; empty: it is none, or its answer is not kept
	viewer   string   // whom it is for, as far as its outputs tell
	outputs  []string // keys
	claimed  bool     // they are fenced in this session's name
	resumes  bool     // the shim dials again when its stream ends
	policy   placement.Policy
	deadline time.Time // for the wait
	bounded  bool      // the caller named the bound: it covers a Job's start too

	// In the store.
	state   store.State // "": not in it
	attempt int

	// Of the present placement.
	avoid      map[string]time.Time        // read by the dispatcher while the session waits
	rewritings map[string]*rewriting       // by class, of the last request. Guarded by Scheduler.mu
	tried      map[rewritingKey]*rewriting // Guarded by Scheduler.mu
	translated *Translated                 // nil: its line is the caller's
	given      [][]byte                    // the rewritten line, with translated
	decision   placement.Decision
	held       *lease.Lease          // nil once given back
	worker     lease.Worker          // of the last lease
	build      string                // of its ffmpeg, if known
	at         atomic.Pointer[place] // where it runs or ran; any goroutine
	owned      atomic.Bool           // the caller is proved to be the session's; any goroutine
	begun      atomic.Bool           // Start was sent to a worker that has not refused it
	placed     atomic.Bool           // it holds a lease, and what it is does not change any more; any goroutine
	granted    bool                  // a place was, the last time it waited. Guarded by Scheduler.mu
	switched   atomic.Int64          // when it was last paused or continued, Unix nanoseconds; any goroutine
	epoch      atomic.Uint64         // of the stream to the worker
	attempts   int
	failure    error // of the last attempt

	exit    *wire.Exit
	untold  bool          // the worker may not know that the exit was acknowledged
	started chan struct{} // closed when Started has passed, at:
	runs    atomic.Int64  // Unix nanoseconds
	times   times
	bytes   struct{ stdin, stdout, stderr atomic.Uint64 }
}

// times are when each phase began; zero: it did not.
type times struct{ queued, leased, ready, starting, running time.Time }

// elsewhere says that nothing has started and why: the session may be placed again.
type elsewhere struct {
	cause error
	avoid string // a key of placement.Request.Avoid
	span  time.Duration
	free  bool // it was a race, not a failure: it does not count as a try
}

func (e *elsewhere) Error() string { return e.cause.Error() }
func (e *elsewhere) Unwrap() error { return e.cause }

func (r *run) now() time.Time { return r.sched.cfg.Now() }

// listen reads the shim's stream from now on. Its end cancels the session, in
// whatever phase it is.
func (r *run) listen(stream session.Stream) {
	r.link = session.NewLink(stream, r.sched.cfg.Link)
	r.relay = session.NewRelay(r.link, session.RelayOptions{Observe: r.observe})
	r.heard = make(chan struct{})
	go func() {
		defer close(r.heard)
		<-r.relay.Gone()
		r.cancel(session.ErrShimGone)
	}()
}

// hangUp sends what is queued and stops listening. A shim that is at another stream
// already waits for nothing that is queued here.
func (r *run) hangUp(life context.Context) {
	if !errors.Is(context.Cause(life), errSuperseded) {
		_ = r.link.Flush()
	}
	r.link.Close()
	<-r.heard
}

func (r *run) progress(phase, reason string, position int) {
	r.link.Send(&wire.Frame{Kind: &wire.Frame_Progress{Progress: &wire.Progress{Phase: phase, Reason: reason, Position: uint32(position)}}})
}

// lease makes what was granted usable: a warm slot is, or will be when another session
// has made room; a Job is launched.
func (r *run) lease(ctx context.Context, won grant) error {
	r.decision, r.times.leased = won.decision, r.now()
	switch {
	case won.lease != nil:
		r.hold(won.lease, won.build)
		return nil
	case len(won.decision.Pause) > 0:
		return r.makeRoom(ctx, won)
	}
	return r.launch(ctx, won)
}

func (r *run) hold(l *lease.Lease, build string) {
	r.held, r.worker, r.build, r.times.ready = l, l.Worker(), build, r.now()
	r.at.Store(&place{r.worker, string(r.decision.Verdict), r.decision.Encodes})
}

// place is a worker and the placement that chose it.
type place struct {
	worker  lease.Worker
	verdict string
	encodes bool // in hardware
}

// grace is how long the worker keeps the session without a stream: 0 for one, or
// for a shim, of a release that ends a session with its stream.
func (r *run) grace() uint32 {
	if !r.worker.Resumes || !r.resumes {
		return 0
	}
	return uint32(r.sched.cfg.Grace.Milliseconds())
}

// ticket gives the shim its ticket and waits until it holds it.
func (r *run) ticket(ctx context.Context) error {
	w := r.worker
	ctx, cancel := context.WithTimeoutCause(ctx, ackTimeout, fmt.Errorf("%w: it did not take its ticket within %s", session.ErrShimGone, ackTimeout))
	defer cancel()
	err := r.relay.Ticket(ctx, &wire.Ticket{
		Session: r.id, Namespace: r.sched.cfg.Namespace, Pod: w.Pod, PodUid: w.PodUID, Nonce: w.Nonce,
		Class: w.Class, Node: w.Node, Placement: string(r.decision.Verdict), Reason: r.decision.Reason,
		GraceMs: r.grace(),
	})
	if err != nil {
		return err
	}
	select {
	case <-r.held.Done():
		return &elsewhere{cause: r.held.Cause(), avoid: w.Pod, span: avoidWorker}
	default:
		return nil
	}
}

// again returns the session to its place in the queue if nothing has started.
// Otherwise, or after too many tries, it returns what is to be reported.
func (r *run) again(ctx context.Context, err error) error {
	var other *elsewhere
	if !errors.As(err, &other) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if r.outdone() {
		return errFenced
	}
	if !other.free {
		r.attempts++
	}
	if r.attempts >= maxAttempts {
		return refuse(wire.Refusal_WORKER, "look at the workers: kubectl get pods,events", "no worker could be had in %d tries: %s", r.attempts, other)
	}
	if r.deadline.Before(r.now()) {
		return refuse(wire.Refusal_WORKER, "look at the workers: kubectl get pods,events", "no worker could be had: %s", other)
	}
	r.sched.log.Info("session is placed again", zap.String("session", r.id), zap.String("worker", other.avoid), zap.Error(other))
	r.failure = other
	r.avoid[other.avoid] = r.now().Add(other.span)
	if !r.move(ctx, store.Queued, store.Move{Reason: other.Error()}) {
		return fmt.Errorf("place session %s again: the store knows it in another state", r.id)
	}
	r.translated = nil
	r.times.leased, r.times.ready, r.times.starting = time.Time{}, time.Time{}, time.Time{}
	return nil
}

// move does one step in the store. Only this goroutine, and the dispatcher while
// the session waits, move a session, so a false answer is a fault.
func (r *run) move(ctx context.Context, to store.State, m store.Move) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	m.ID, m.Attempt, m.From, m.To = r.id, r.attempt, r.state, to
	m.Placement = cmp.Or(m.Placement, string(r.decision.Verdict))
	after, ok, err := r.sched.cfg.Store.Move(ctx, m)
	if err != nil || !ok {
		r.sched.log.Error("a session's step is not in the store", zap.String("session", r.id), zap.String("from", string(m.From)), zap.String("to", string(to)), zap.Error(err))
		return false
	}
	r.state, r.attempt = after.State, after.Attempt
	return true
}
