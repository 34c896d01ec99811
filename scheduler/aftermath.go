package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
)

// end tells how the stream ended. What it returns goes on with the session after
// that, in a goroutine of its own.
func (r *run) end(life context.Context, err error) func() {
	begun := r.begun.Load() && r.exit == nil
	switch {
	case r.id == "" && errors.Is(err, errDraining): // before it said what it wants
		r.detached(err)
		return nil
	case begun && !r.owned.Load():
		return r.unproved(life, err)
	case begun && (errors.Is(err, errSuperseded) || errors.Is(context.Cause(life), errSuperseded)):
		return nil // another stream tells the rest
	case begun && r.start == nil && r.epoch.Load() == 0 && errors.Is(err, session.ErrShimGone):
		return func() { r.awaited(life, err) } // it was never attached here: its shim may be back elsewhere
	case r.exit != nil && (errors.Is(err, session.ErrShimGone) || r.untold):
		// The shim has the exit, or is dead. Either way nobody asks for it again, and
		// a Job's worker that waits for that keeps its GPU.
		r.finish(life, nil)
		r.free()
		return func() { _ = r.order(life, shimGone) }
	case begun && errors.Is(err, session.ErrShimGone):
		return func() { r.orphan(life, err, shimGone) }
	case begun && errors.Is(err, errFenced):
		r.link.Send(lostFrame(err))
		return func() { r.orphan(life, err, 0) }
	case begun && errors.Is(err, errDraining) && r.grace() > 0:
		r.detached(err)
		return nil
	case begun && errors.Is(err, session.ErrBroken):
		r.detached(err)
		return func() { r.awaited(life, err) }
	}
	r.finish(life, err)
	if begun {
		return r.settle(life, err)
	}
	r.free()
	return nil
}

// unproved answers a caller that asked for a session and was not proved to be its
// own. It gives no orders: if the session is that caller's, reconcile looks after it.
func (r *run) unproved(life context.Context, err error) func() {
	switch {
	case errors.Is(err, session.ErrShimGone), errors.Is(err, errSuperseded):
	case errors.Is(err, errDraining), errors.Is(err, session.ErrBroken):
		r.detached(err)
	default:
		r.finish(life, err)
	}
	return nil
}

// free gives the session's outputs to the next writer.
func (r *run) free() {
	if r.claimed {
		r.sched.fences.Free(r.id)
	}
}

// detached tells the shim to dial again.
func (r *run) detached(why error) {
	r.sched.cfg.Metrics.detached.Inc()
	r.sched.log.Info("session is left for its shim to resume", zap.String("session", r.id), zap.String("worker", r.worker.Pod), zap.Error(why))
	r.link.Send(&wire.Frame{Kind: &wire.Frame_Detached{Detached: &wire.Detached{Reason: why.Error()}}})
}

// settle looks after a session that was given up: its outputs are fenced until its
// process is dead.
func (r *run) settle(life context.Context, err error) func() {
	is, dead := gone(err)
	if is && r.decision.Verdict == placement.Job {
		r.sched.cfg.Jobs.Discard(r.id)
	}
	switch {
	case r.exit != nil, is && dead, errors.Is(err, lease.ErrUnknown):
		r.free()
		return nil
	case is:
		r.sched.fences.Until(r.id, time.Now().Add(r.sched.bound()))
		return nil
	}
	return func() { r.kill(life, wire.Cause_CAUSE_ORPHANED) }
}

// awaited waits for the shim to resume; it is as dead as a silent one when it does
// not.
func (r *run) awaited(life context.Context, why error) {
	timer := time.NewTimer(r.sched.silent)
	defer timer.Stop()
	select {
	case <-life.Done():
	case <-timer.C:
		r.orphan(life, fmt.Errorf("%w, and nobody resumed within %s: %w", session.ErrShimGone, r.sched.silent, why), shimGone)
	}
}

// orphan has the worker kill the session unless somebody resumes it, sees it die,
// and writes its end. It gives up with life: another stream, or another scheduler,
// has the session then.
func (r *run) orphan(life context.Context, why error, after time.Duration) {
	err := r.order(life, after)
	if err == nil {
		err = r.dead(life, after)
	}
	switch is, died := gone(err); {
	case life.Err() != nil, errors.Is(err, errSuperseded):
		return
	case err == nil, is && died:
		r.free()
	default:
		why = fmt.Errorf("%w; %w", why, err)
		r.sched.fences.Until(r.id, time.Now().Add(r.sched.bound()))
	}
	r.finish(life, why)
}
