package scheduler

import (
	"context"
	"errors"
	"time"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
)

// workersOf are those that a placement chose among.
func (s *Scheduler) workersOf(verdict string) reachable {
	if verdict == string(placement.Warm) {
		return s.cfg.Pool
	}
	return s.cfg.Jobs
}

// bound is how long a session that nobody resumes may live, by its worker's own
// timers.
func (s *Scheduler) bound() time.Duration { return s.cfg.Grace + session.AfterGrace }

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

// order gives the Orphan order, as soon as the worker can be reached.
func (r *run) order(life context.Context, after time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(life, r.sched.bound(), errors.New("its worker could not be reached until its grace was over"))
	defer cancel()
	for pause := leastLook; ; pause = min(2*pause, mostLook) {
		sup, err := r.supervisor(ctx)
		if err != nil {
			return err
		}
		if err = r.learn(ctx, sup); errors.Is(err, errSuperseded) {
			return err
		}
		if err == nil {
			call, done := context.WithTimeout(ctx, orderTimeout)
			_, err = sup.Orphan(call, &wire.OrphanRequest{Session: r.id, Epoch: r.stream(), AfterMs: uint32(after.Milliseconds())})
			done()
		}
		if err == nil {
			r.sched.cfg.Metrics.orphans.Inc()
			return nil
		}
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

// stream is the epoch of the last stream that this run gave the worker: the first,
// also when it ended before the worker's Started came.
func (r *run) stream() uint64 { return max(r.epoch.Load(), 1) }

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
		return err
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
	ctx, cancel := context.WithTimeoutCause(life, r.sched.bound(), errors.New("its worker does not say that it is dead"))
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
		case state.GetEpoch() > r.stream():
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
	ctx, cancel := context.WithTimeout(life, r.sched.bound())
	defer cancel()
	r.sched.killed(ctx, r.id, r.worker, string(r.decision.Verdict), cause)
}

// killed has the worker kill a session, and frees its outputs when it is dead. It
// tries until ctx ends; then they are fenced for as long as the session can live, or,
// when its worker has said that the kernel does not let it go, until it says otherwise.
func (s *Scheduler) killed(ctx context.Context, id string, w lease.Worker, verdict string, cause wire.Cause) {
	dead := time.Now().Add(s.bound()) // by the worker's own timers
	var alive time.Time               // by its worker's last word
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
				s.forsake(id, w)
				return
			}
			if err == nil {
				alive = time.Now()
			}
		}
		if !sleep(ctx, pause) {
			if time.Since(alive) > killTimeout+mostLook { // else its run, or reconcile, hears of its end
				s.fences.Until(id, dead)
			}
			return
		}
	}
}

// forsake ends the Job of a killed session that nobody asks for any more: its worker
// would keep its pod, and a GPU, until its grace is over.
func (s *Scheduler) forsake(id string, w lease.Worker) {
	if w.Job == "" {
		return
	}
	s.background(2*shimSilent, func(ctx context.Context) {
		if !sleep(ctx, shimSilent) { // a living shim has come for the exit by then
			return
		}
		s.mu.Lock()
		here := s.sessions[id] != nil
		s.mu.Unlock()
		if !here {
			s.cfg.Jobs.Discard(id)
		}
	})
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
