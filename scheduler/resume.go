package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

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
	if err := r.takeOver(ctx); err != nil {
		return err
	}
	if err := r.remember(ctx); err != nil {
		return err
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
	if known.State.Holds() {
		r.state, r.attempt = known.State, known.Attempt
	}
	return nil
}

// workersOf are those that a placement chose among.
func (s *Scheduler) workersOf(verdict string) reachable {
	if verdict == string(placement.Warm) {
		return s.cfg.Pool
	}
	return s.cfg.Jobs
}

// takeOver ends an older run of the session in this process, and waits for that.
func (r *run) takeOver(ctx context.Context) error {
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
		if old.caller != r.caller {
			return r.stranger()
		}
		old.leave(errSuperseded)
		select {
		case <-old.over:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
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
	call, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	answer, unreached := sup.Orphan(call, &wire.OrphanRequest{Session: r.id})
	if unreached != nil {
		return r.unresumed(ctx, unreached)
	}
	if !answer.GetKnown() {
		r.begun.Store(false)
		return refuse(wire.Refusal_UNKNOWN_SESSION, "start the command again", "session %s never came to worker %s", r.id, r.worker.Pod)
	}
	return &session.LostError{Message: fmt.Sprintf("worker %s has ended it, and its exit was not kept", r.worker.Pod), Cause: err, MayHaveStarted: true}
}

// recall takes what the worker has kept of the session.
func (r *run) recall(state *wire.SessionState) error {
	rec, err := readRecord(state.GetRecord())
	if err != nil {
		r.begun.Store(false)
		return refuse(wire.Refusal_POLICY, "look at the worker's log", "%s", err)
	}
	if rec.Caller != r.caller {
		return r.stranger()
	}
	r.kind, r.policy, r.outputs = rec.Kind, placement.Policy(rec.Policy), rec.keys()
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
		Placement: string(r.decision.Verdict), Reason: r.decision.Reason, Times: store.Times{Queued: r.asked},
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
	s.mu.Unlock()
	r.claimed = true
	if s.fences.Adopt(r.fenced(), w) {
		s.fenceOff(r.id, w)
	}
}

// Bounds of orders to workers.
const (
	orderTimeout = 2 * time.Second // for an answer
	leastLook    = 20 * time.Millisecond
	mostLook     = 2 * time.Second
)

// supervisor is a way to give orders to the session's worker. It waits for a
// channel until ctx ends.
func (r *run) supervisor(ctx context.Context) (wire.SupervisorClient, error) {
	return r.sched.supervisor(ctx, r.worker, string(r.decision.Verdict))
}

func (s *Scheduler) supervisor(ctx context.Context, w lease.Worker, verdict string) (wire.SupervisorClient, error) {
	return s.workersOf(verdict).Supervisor(ctx, w.Pod, w.PodUID, w.Nonce)
}

// verdictOf is the placement that made a worker.
func verdictOf(w lease.Worker) string {
	if w.Job == "" {
		return string(placement.Warm)
	}
	return string(placement.Job)
}

// end tells how the stream ended. What it returns goes on with the session after
// that, in a goroutine of its own.
func (r *run) end(life context.Context, err error) func() {
	begun := r.begun.Load() && r.exit == nil
	switch {
	case r.id == "" && errors.Is(err, errDraining): // before it said what it wants
		r.detached(err)
		return nil
	case begun && (errors.Is(err, errSuperseded) || errors.Is(context.Cause(life), errSuperseded)):
		return nil // another stream tells the rest
	case begun && r.start == nil && r.epoch.Load() == 0 && errors.Is(err, session.ErrShimGone):
		return func() { r.awaited(life, err) } // it was never attached here: its shim may be back elsewhere
	case r.exit != nil && errors.Is(err, session.ErrShimGone):
		// The shim has the exit, or is dead. Either way nobody asks for it again.
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
		r.sched.fences.Until(r.id, time.Now().Add(r.bound()))
		return nil
	}
	return func() { r.kill(life, wire.Cause_CAUSE_ORPHANED) }
}

// bound is when a session that nobody resumes is dead, by its worker's own timers.
func (r *run) bound() time.Duration { return r.sched.cfg.Grace + afterGrace }

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
		r.sched.fences.Until(r.id, time.Now().Add(r.bound()))
	}
	r.finish(life, why)
}

// order gives the Orphan order, as soon as the worker can be reached.
func (r *run) order(life context.Context, after time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(life, r.bound(), errors.New("its worker could not be reached until its grace was over"))
	defer cancel()
	for pause := leastLook; ; pause = min(2*pause, mostLook) {
		sup, err := r.supervisor(ctx)
		if err != nil {
			return err
		}
		if err := r.learn(ctx, sup); err != nil {
			return err
		}
		call, done := context.WithTimeout(ctx, orderTimeout)
		_, err = sup.Orphan(call, &wire.OrphanRequest{Session: r.id, Epoch: max(r.epoch.Load(), 1), AfterMs: uint32(after.Milliseconds())})
		done()
		if err == nil {
			r.sched.cfg.Metrics.orphans.Inc()
			return nil
		}
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

// learn asks which stream is the last of a session that was resumed and never
// attached here. errSuperseded: somebody is attached, at another replica.
func (r *run) learn(ctx context.Context, sup wire.SupervisorClient) error {
	if r.start != nil || r.epoch.Load() != 0 {
		return nil
	}
	call, done := context.WithTimeout(ctx, orderTimeout)
	defer done()
	d, err := sup.Describe(call, &wire.DescribeRequest{})
	if err != nil {
		return nil // the order fails too, and is tried again
	}
	state := stateOf(d, r.id)
	if state.GetAttached() {
		return errSuperseded
	}
	r.epoch.Store(state.GetEpoch())
	return nil
}

// dead waits until the worker says that the session is over. errSuperseded:
// somebody has resumed it.
func (r *run) dead(life context.Context, after time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(life, r.bound(), errors.New("its worker does not say that it is dead"))
	defer cancel()
	if !sleep(ctx, after) {
		return context.Cause(ctx)
	}
	for pause := leastLook; sleep(ctx, pause); pause = min(2*pause, mostLook) {
		sup, err := r.supervisor(ctx)
		if err != nil {
			return err
		}
		call, done := context.WithTimeout(ctx, orderTimeout)
		d, err := sup.Describe(call, &wire.DescribeRequest{})
		done()
		if err != nil {
			continue
		}
		switch state := stateOf(d, r.id); {
		case state == nil, state.GetExit() != nil:
			return nil
		case state.GetEpoch() > r.epoch.Load():
			return errSuperseded
		}
	}
	return context.Cause(ctx)
}

func stateOf(d *wire.Description, id string) *wire.SessionState {
	for _, s := range d.GetSessions() {
		if s.GetSession() == id {
			return s
		}
	}
	return nil
}

// kill ends a session at once, as soon as its worker can be reached.
func (r *run) kill(life context.Context, cause wire.Cause) {
	ctx, cancel := context.WithTimeout(life, r.bound())
	defer cancel()
	r.sched.killed(ctx, r.id, r.worker, string(r.decision.Verdict), cause)
}

// killed has the worker kill a session, and frees its outputs when it is dead. It
// tries until ctx ends; then they are fenced for as long as the session can live.
func (s *Scheduler) killed(ctx context.Context, id string, w lease.Worker, verdict string, cause wire.Cause) {
	for pause := leastLook; ; pause = min(2*pause, mostLook) {
		sup, err := s.supervisor(ctx, w, verdict)
		if is, dead := gone(err); is && dead {
			s.fences.Free(id)
			return
		}
		if err == nil {
			call, done := context.WithTimeout(ctx, killTimeout)
			var answer *wire.KillResponse
			answer, err = sup.Kill(call, &wire.KillRequest{Session: id, Cause: cause})
			done()
			if err == nil && answer.GetDead() {
				s.fences.Free(id)
				return
			}
		}
		if !sleep(ctx, pause) {
			s.fences.Until(id, time.Now().Add(s.cfg.Grace+afterGrace))
			return
		}
	}
}

// killTimeout is how long a worker may take to say that a killed process is gone.
const killTimeout = 8 * time.Second

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
