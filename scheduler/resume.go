package scheduler

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/store"
)

// resume goes on with a session that runs already: of an earlier stream of this
// scheduler, of another replica, or of one that is dead. The ticket says where; the
// worker says whose it is.
func (r *run) resume(ctx context.Context, q *wire.Resume) error {
	t := q.GetTicket()
	if err := r.name(t.GetSession()); err != nil {
		return err
	}
	r.begun.Store(true)
	r.resumes, r.worker = true, lease.Worker{Class: t.GetClass(), Pod: t.GetPod(), PodUID: t.GetPodUid(), Node: t.GetNode(), Nonce: t.GetNonce(), Resumes: true}
	r.decision = placement.Decision{Verdict: placement.Verdict(t.GetPlacement()), Class: t.GetClass(), Pod: t.GetPod(), Node: t.GetNode(), Nonce: t.GetNonce(), Reason: t.GetReason()}
	if err := r.takeOver(); err != nil {
		return err
	}
	if err := r.remember(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	held, state, err := r.sched.workersOf(t.GetPlacement()).Resume(ctx, t.GetPod(), t.GetPodUid(), t.GetNonce(), r.id)
	if err != nil {
		return r.unresumed(ctx, err)
	}
	r.hold(held, "")
	if err := r.recall(state); err != nil {
		r.held.Leave()
		return err
	}
	r.adopt(ctx)
	r.placed.Store(true)
	r.sched.cfg.Metrics.resumes.Inc()
	r.sched.log.Info("session is resumed", zap.String("session", r.id), zap.String("worker", r.worker.Pod))
	err = r.execute(ctx, &wire.Frame{Kind: &wire.Frame_Resume{Resume: q}})
	r.giveBack(err)
	return err
}

// remember takes what the store knows of the session.
func (r *run) remember(ctx context.Context) error {
	known, ok, err := r.sched.cfg.Store.Get(ctx, r.id)
	if err != nil || !ok {
		return nil // the worker knows enough
	}
	if known.Caller != r.caller {
		return r.stranger()
	}
	r.kind = known.Kind
	r.owned.Store(true)
	if known.State.Holds() {
		r.state, r.attempt = known.State, known.Attempt
	}
	return nil
}

// takeOver ends an older run of the session in this process, and waits for that:
// what it held is then this run's. A run whose caller is not proved to be the
// session's is in nobody's way.
func (r *run) takeOver() error {
	s := r.sched
	for {
		s.mu.Lock()
		old := s.sessions[r.id]
		if old == nil {
			s.sessions[r.id] = r
		}
		s.mu.Unlock()
		if old == nil {
			return nil
		}
		if old.owned.Load() && old.caller != r.caller {
			return r.stranger()
		}
		old.leave(errSuperseded)
		<-old.over // soon: nothing of it waits any more
		r.claimed = r.claimed || old.claimed
	}
}

// stranger refuses who did not begin the session: it is none of this run's.
func (r *run) stranger() error {
	r.begun.Store(false)
	return refuse(wire.Refusal_POLICY, "resume a session from the pod that began it", "session %s belongs to another caller", r.id)
}

// unresumed makes of the failure to reach the worker what it means for the session.
func (r *run) unresumed(ctx context.Context, err error) error {
	switch is, _ := gone(err); {
	case is:
		return &session.LostError{Cause: err, MayHaveStarted: true}
	case errors.Is(err, lease.ErrUnknown):
		return r.unknown(ctx, err)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", session.ErrBroken, err)
}

// unknown asks the worker whether the session was ever there. If not it never will
// be: the worker bars what it is asked about.
func (r *run) unknown(ctx context.Context, err error) error {
	sup, unreached := r.supervisor(ctx)
	if unreached != nil {
		return r.unresumed(ctx, unreached)
	}
	// The order bars what never came. What came a moment ago is resumed long before
	// the order is due.
	call, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	answer, unreached := sup.Orphan(call, &wire.OrphanRequest{Session: r.id, Epoch: 1, AfterMs: uint32(shimSilent.Milliseconds())})
	if unreached != nil {
		return r.unresumed(ctx, unreached)
	}
	if !answer.GetKnown() {
		r.begun.Store(false)
		return refuse(wire.Refusal_UNKNOWN_SESSION, "start the command again", "session %s never came to worker %s", r.id, r.worker.Pod)
	}
	if d, unreached := sup.Describe(call, &wire.DescribeRequest{}); unreached != nil || stateOf(d, r.id) != nil {
		return fmt.Errorf("%w: it is just starting", session.ErrBroken)
	}
	return &session.LostError{Message: fmt.Sprintf("worker %s has ended it, and its exit was not kept", r.worker.Pod), Cause: err, MayHaveStarted: true}
}

// recall takes what the worker has kept of the session.
func (r *run) recall(state *wire.SessionState) error {
	rec, err := readRecord(state.GetRecord())
	if err != nil { // whosever it is, it may run: a refusal would say that it does not
		return &session.LostError{Cause: err, MayHaveStarted: true}
	}
	if rec.Caller != r.caller {
		return r.stranger()
	}
	r.owned.Store(true)
	r.kind, r.policy, r.outputs, r.translated = rec.Kind, placement.Policy(rec.Policy), rec.keys(), rec.Translated
	r.command.Kind = ffmpeg.Kind(rec.Kind)
	if rec.Asked.Before(r.asked) {
		r.asked = rec.Asked
	}
	return nil
}

// adopt enters the session into the store and the fences.
func (r *run) adopt(ctx context.Context) {
	w := r.worker
	known, ok, err := r.sched.cfg.Store.Adopt(ctx, store.Session{
		ID: r.id, Caller: r.caller, Kind: r.kind, Policy: string(r.policy),
		Right:     store.Right{Class: w.Class, Worker: w.Pod + "/" + w.Nonce, Pod: w.Pod, Node: w.Node},
		Placement: string(r.decision.Verdict), Reason: r.decision.Reason, Translated: r.translated.String(), Times: store.Times{Queued: r.asked},
	})
	switch {
	case err != nil:
		r.sched.log.Error("a resumed session is not in the store", zap.String("session", r.id), zap.Error(err))
	case ok:
		r.state, r.attempt = known.State, known.Attempt
		r.times = times{queued: known.Times.Queued, leased: known.Times.Leased, running: known.Times.Running, ready: r.times.ready}
	}
	s := r.sched
	s.mu.Lock()
	delete(s.adopted, r.id) // it is a run now
	delete(s.ordered, r.id)
	s.mu.Unlock()
	r.claimed = true
	if s.fences.Adopt(r.fenced(), w) {
		s.fenceOff(r.id, w)
	}
}
