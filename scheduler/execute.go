package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/store"
)

// execute sends the first frame to the worker, Start or Resume, and passes frames
// until the end is known or one of the streams has ended.
func (r *run) execute(ctx context.Context, first *wire.Frame) error {
	w := r.worker
	if err := r.prepare(first.GetStart()); err != nil {
		return err
	}
	whole := ctx // of the shim's stream
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The worker's stream outlives the shim's: what the shim said last, the ExitAck,
	// has still to arrive.
	streaming, hangUp := context.WithCancelCause(context.WithoutCancel(whole))
	defer hangUp(nil)
	stream, err := r.held.Runner().Run(streaming)
	if err != nil && first.GetStart() == nil {
		return r.broken(ctx, err)
	}
	if err != nil { // nothing was sent
		return &elsewhere{cause: fmt.Errorf("open a stream to worker %s: %w", w.Pod, err), avoid: w.Pod, span: avoidWorker}
	}
	if err := r.begin(ctx, first); err != nil {
		return err
	}
	running := r.sched.cfg.Metrics.running.WithLabelValues(string(r.decision.Verdict))
	running.Inc()
	defer running.Dec()
	opts := r.sched.cfg.Link.ForClient()
	opts.Cancel = func() { hangUp(fmt.Errorf("worker %s is silent, or takes nothing more", w.Pod)) }
	link := session.NewLink(stream, opts)
	defer link.Close()
	watched := make(chan struct{})
	go func() { defer close(watched); r.watch(ctx, cancel) }()
	answer := r.listenIn(first)
	r.exit, err = r.relay.Run(ctx, link, first)
	r.keep(answer)
	if r.exit != nil && err == nil {
		r.untold = link.Flush() != nil
		link.Close()
		r.untold = !bye(stream) || r.untold
	}
	if errors.Is(link.Err(), session.ErrSilent) {
		r.held.Suspect()
	}
	cancel(nil)
	<-watched
	r.runsNow(ctx)
	return r.ended(whole, err)
}

// prepare completes a Start for the worker: its record, its bounds and its niceness,
// and its argv where it is rewritten for the worker's hardware. All else is the
// caller's.
func (r *run) prepare(start *wire.Start) error {
	if start == nil {
		return nil
	}
	record, err := r.record()
	if err != nil {
		return fmt.Errorf("write the record of session %s: %w", r.id, err)
	}
	grace := r.grace()
	start.Record, start.GraceMs, start.Orders = record, grace, grace > 0
	if start.Argv = r.given; r.translated == nil {
		start.Argv = asBytes(r.line)
	}
	start.Nice = max(start.GetNice(), placement.Nice(r.kind))
	return nil
}

// begin notes that from now on the process may run.
func (r *run) begin(ctx context.Context, first *wire.Frame) error {
	w := r.worker
	r.sched.fences.Placed(r.id, w)
	if first.GetStart() != nil && !r.move(ctx, store.Starting, store.Move{Right: &store.Right{Class: w.Class, Worker: w.Pod + "/" + w.Nonce, Pod: w.Pod, Node: w.Node}, Reason: r.decision.Reason, Translated: r.translated.String()}) {
		return fmt.Errorf("start session %s: the store knows it in another state", r.id)
	}
	r.started = make(chan struct{})
	if first.GetStart() != nil {
		r.times.starting = r.now()
	}
	r.begun.Store(true)
	return nil
}

// watch notes the start and ends the relay when the worker is gone.
func (r *run) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	started := r.started
	for {
		select {
		case <-started:
			r.runsNow(ctx)
			started = nil
		case <-r.held.Done():
			cancel(r.held.Cause())
			return
		case <-ctx.Done():
			return
		}
	}
}

// runsNow notes that the process runs, once.
func (r *run) runsNow(ctx context.Context) {
	if at := r.runs.Load(); at != 0 && r.state == store.Starting {
		r.times.running = time.Unix(0, at)
		r.move(ctx, store.Running, store.Move{})
	}
}

// observe counts, and notes which stream of the session this is. It is called by
// two goroutines, one per direction.
func (r *run) observe(f *wire.Frame, bytes int, fromWorker bool) {
	switch k := f.Kind.(type) {
	case *wire.Frame_Data:
		if fromWorker == (k.Data.GetPipe() == wire.Pipe_STDIN) {
			return // nobody's to send
		}
		end := k.Data.GetOffset() + uint64(bytes)
		switch k.Data.GetPipe() {
		case wire.Pipe_STDIN:
			r.bytes.stdin.Store(end)
		case wire.Pipe_STDOUT:
			r.bytes.stdout.Store(end)
		case wire.Pipe_STDERR:
			r.bytes.stderr.Store(end)
		}
	case *wire.Frame_Attached:
		if fromWorker {
			r.epoch.Store(k.Attached.GetEpoch())
		}
	case *wire.Frame_Started:
		if !fromWorker {
			return
		}
		r.epoch.Store(k.Started.GetEpoch())
		select {
		case <-r.started: // a worker says it once
		default:
			r.runs.Store(r.now().UnixNano())
			close(r.started)
		}
	}
}

// bye lets the worker end the stream whose exit is acknowledged: cancelling it
// could overtake the acknowledgement. False: the worker has not.
func bye(stream wire.Runner_RunClient) bool {
	_ = stream.CloseSend()
	timeout := time.NewTimer(byeTimeout)
	defer timeout.Stop()
	select {
	case <-stream.Context().Done():
		return true
	case <-timeout.C:
		return false
	}
}

// ended makes of a relay's error what it means for the session.
func (r *run) ended(ctx context.Context, err error) error {
	if r.exit != nil {
		return err // the end is known, whoever else went away
	}
	if ctx.Err() != nil {
		// The shim is gone, or this process goes. That ends the worker's stream
		// too, and which of the two the relay noticed first says nothing.
		return context.Cause(ctx)
	}
	w := r.worker
	if refused, ok := errors.AsType[*session.RefusedError](err); ok {
		r.begun.Store(false)
		if refused.Refusal == wire.Refusal_NO_SLOT || refused.Refusal == wire.Refusal_DRAINING {
			return &elsewhere{cause: err, avoid: w.Pod, span: avoidWorker}
		}
		return refused
	}
	if _, lost := errors.AsType[*session.LostError](err); lost || errors.Is(err, session.ErrShimGone) || errors.Is(err, errDraining) {
		return err
	}
	if r.grace() > 0 {
		return r.broken(ctx, err)
	}
	// Kubernetes knows a better reason than the end of a stream, a little later.
	r.explained(ctx, causeTimeout)
	if gone := r.held.Cause(); gone != nil {
		err = gone
	}
	return &session.LostError{Cause: err, MayHaveStarted: true} // who reports it names the worker
}

// broken is the end of the worker's stream of a session that can be resumed, unless
// the worker itself is known to be gone.
func (r *run) broken(ctx context.Context, err error) error {
	if gone := r.held.Cause(); gone != nil {
		return &session.LostError{Cause: gone, MayHaveStarted: true}
	}
	if !errors.Is(err, session.ErrBroken) {
		err = fmt.Errorf("%w: %w", session.ErrBroken, err)
	}
	return err
}

// explained waits until the worker is known to be gone.
func (r *run) explained(ctx context.Context, within time.Duration) {
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	select {
	case <-r.held.Done():
	case <-ctx.Done():
	case <-timeout.C:
	}
}

// giveBack ends the lease: Release when the worker's slot is free for certain, Leave
// when the session may go on.
func (r *run) giveBack(err error) {
	refused, _ := errors.AsType[*session.RefusedError](err)
	full, _ := errors.AsType[*elsewhere](err)
	_, lost := errors.AsType[*session.LostError](err)
	untouched := !r.begun.Load() && r.times.starting.IsZero()
	r.sched.vacated(r) // before the slot is free
	switch {
	case r.exit != nil, r.worker.Job == "" && (untouched || refused != nil && full == nil):
		r.held.Release()
	case r.begun.Load() && !lost && r.grace() > 0:
		r.held.Leave()
	default:
		r.held.Destroy()
	}
	r.held = nil
	r.placed.Store(false)
	r.sched.nudge()
}

// gone tells whether an error is the worker's end, and whether its processes are
// dead with it: those of a node that is merely silent may not be.
func gone(err error) (is, dead bool) {
	g, is := errors.AsType[*lease.GoneError](err)
	return is, is && !g.Silent
}
