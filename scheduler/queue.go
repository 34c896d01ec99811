package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/store"
)

// waiter is a session of this process in the queue. Guarded by Scheduler.mu.
type waiter struct {
	run      *run
	grant    chan grant // one, by the dispatcher
	reason   string
	position int
}

// grant is the dispatcher's answer to a waiter.
type grant struct {
	decision placement.Decision
	attempt  int
	lease    *lease.Lease // a warm slot, held
	build    string       // of its worker's ffmpeg
	class    class.Class  // of the Job to launch
	err      error        // nothing could ever run it
}

// await waits in the queue until the dispatcher grants a place.
func (r *run) await(ctx context.Context) (grant, error) {
	s := r.sched
	if r.times.queued.IsZero() {
		r.times.queued = r.now()
	}
	w := &waiter{run: r, grant: make(chan grant, 1)}
	s.mu.Lock()
	s.waiters[r.id] = w
	s.mu.Unlock()
	s.cfg.Metrics.queue.Inc()
	defer s.cfg.Metrics.queue.Dec()
	s.nudge()

	timeout := time.NewTimer(r.deadline.Sub(r.now()))
	defer timeout.Stop()
	var err error
	select {
	case g := <-w.grant:
		return r.accept(g)
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timeout.C:
	}
	s.mu.Lock()
	delete(s.waiters, r.id)
	reason := w.reason
	s.mu.Unlock()
	select {
	case g := <-w.grant: // in the same moment
		if err == nil {
			return r.accept(g)
		}
		if _, refused := r.accept(g); refused == nil {
			s.ungrant(g)
			if g.lease != nil {
				g.lease.Release() // its worker was never asked
			}
		}
	default:
		if err == nil {
			err = refuse(wire.Refusal_QUEUE_TIMEOUT, "add workers, allow Jobs, or wait longer (FFPOD_WAIT, queue.timeout)",
				"no worker within %s: %s", r.deadline.Sub(r.asked), cmp.Or(reason, "the queue was not reached")+r.before())
		}
	}
	return grant{}, err
}

// before words the attempt that failed before this wait.
func (r *run) before() string {
	if r.failure == nil {
		return ""
	}
	return "; before that: " + r.failure.Error()
}

func (r *run) accept(g grant) (grant, error) {
	if g.err == nil {
		r.state, r.attempt = store.Leased, g.attempt
	}
	return g, g.err
}

// dispatch walks the queue once, in order, and grants what can be granted. What
// an earlier session takes, a later one does not see.
func (s *Scheduler) dispatch(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiters) == 0 {
		return nil
	}
	queue, err := s.cfg.Store.Queue(ctx)
	if err != nil {
		return fmt.Errorf("read the queue: %w", err)
	}
	snap, known := s.snapshot()
	for i, q := range queue {
		w := s.waiters[q.ID]
		if w == nil { // another replica's, or being given up: it keeps what it would get
			snap = snap.Take(placement.Decide(snap, requestOf(q), placement.Policy(q.Policy), s.cfg.Now()))
			continue
		}
		if snap, err = s.place(ctx, w, q, i+1, snap, known); err != nil {
			return err
		}
	}
	return nil
}

// place decides one waiter and carries the decision out as far as it takes no
// time. It returns what is left for the next.
func (s *Scheduler) place(ctx context.Context, w *waiter, q store.Session, position int, snap placement.Snapshot, known map[string]class.Class) (placement.Snapshot, error) {
	for {
		d := placement.Decide(snap, w.run.request(), w.run.policy, s.cfg.Now())
		switch d.Verdict {
		case placement.Wait:
			return snap, s.tell(ctx, w, d.Reason, position)
		case placement.Reject:
			s.answer(w, grant{decision: d, err: refuse(d.Refusal, d.Remedy, "%s", d.Reason)})
			return snap, nil
		}
		g := grant{decision: d, class: known[d.Class], build: buildOf(d, snap)}
		granted, err := s.grant(ctx, &q, &g, rightOf(d, snap))
		if err != nil {
			return snap, err
		}
		if granted {
			s.answer(w, g)
			return snap.Take(d), nil
		}
		snap = snap.Without(d) // what looked free was not: look on
	}
}

// grant takes the right, then the slot. False: one of them is not free.
func (s *Scheduler) grant(ctx context.Context, q *store.Session, g *grant, right store.Right) (bool, error) {
	after, ok, err := s.cfg.Store.Move(ctx, store.Move{ID: q.ID, Attempt: q.Attempt, From: store.Queued, To: store.Leased,
		Right: &right, Placement: string(g.decision.Verdict), Reason: g.decision.Reason})
	if err != nil {
		return false, fmt.Errorf("grant session %s: %w", q.ID, err)
	}
	if !ok {
		return false, nil
	}
	*q, g.attempt = after, after.Attempt
	if g.decision.Verdict == placement.Job {
		s.granted[g.decision.Class]++
		return true, nil
	}
	if g.lease, err = s.cfg.Pool.Lease(g.decision.Pod, g.decision.Nonce, q.ID); err == nil {
		return true, nil
	}
	s.log.Debug("slot is not free", zap.String("session", q.ID), zap.String("worker", g.decision.Pod), zap.Error(err))
	after, ok, err = s.cfg.Store.Move(ctx, store.Move{ID: q.ID, Attempt: q.Attempt, From: store.Leased, To: store.Queued})
	if err != nil || !ok {
		return false, fmt.Errorf("return session %s to the queue: the store refused: %w", q.ID, err)
	}
	*q = after
	return false, nil
}

// answer hands a grant over: the waiter is one no more.
func (s *Scheduler) answer(w *waiter, g grant) {
	delete(s.waiters, w.run.id)
	w.grant <- g
}

// ungrant forgets a Job that was granted: the launcher counts it from now on, or
// it is not made.
func (s *Scheduler) ungrant(g grant) {
	if g.decision.Verdict != placement.Job {
		return
	}
	s.mu.Lock()
	s.granted[g.decision.Class]--
	s.mu.Unlock()
	s.nudge()
}

// tell says to the shim and the store why a session waits, when that has changed.
func (s *Scheduler) tell(ctx context.Context, w *waiter, reason string, position int) error {
	if w.reason == reason && w.position == position {
		return nil
	}
	w.run.progress("queued", reason, position)
	same := w.reason == reason
	w.reason, w.position = reason, position
	if same {
		return nil
	}
	if err := s.cfg.Store.Note(ctx, w.run.id, reason); err != nil {
		return fmt.Errorf("note why session %s waits: %w", w.run.id, err)
	}
	return nil
}

// snapshot is everything that could run a session, now.
func (s *Scheduler) snapshot() (placement.Snapshot, map[string]class.Class) {
	var snap placement.Snapshot
	known := map[string]class.Class{}
	for _, c := range s.cfg.Classes.List() {
		known[c.Name] = c
		snap.Classes = append(snap.Classes, placement.Class{
			Name: c.Name, Kinds: c.Kinds, Cost: c.Cost, Jobs: c.Jobs,
			ActiveJobs: s.activeJobs(c.Name), Replicas: replicas(c), Devices: c.Holds(),
		})
	}
	for _, w := range s.cfg.Pool.Workers() {
		snap.Workers = append(snap.Workers, placement.Worker{
			Class: w.Class, Pod: w.Pod, Nonce: w.Nonce, Node: w.Node, Slots: w.Slots, Used: w.Used,
			Ready: w.Ready, Draining: w.Draining, Build: w.FFmpegBuild,
		})
	}
	return snap, known
}

// replicas is how many warm workers a class has or, where the scheduler scales it,
// may have: a class at zero is worth waiting for.
func replicas(c class.Class) int {
	if c.Scale == nil {
		return int(c.Replicas)
	}
	return max(int(c.Replicas), c.Scale.Max)
}

// Waiting counts the sessions in the queue that would have a warm worker of the
// class, if every class had a free one.
func (s *Scheduler) Waiting(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiters) == 0 {
		return 0
	}
	snap, _ := s.snapshot()
	snap.Workers = nil
	for _, c := range snap.Classes {
		snap.Workers = append(snap.Workers, placement.Worker{Class: c.Name, Pod: "any of " + c.Name, Slots: 1, Ready: true})
	}
	n := 0
	for _, w := range s.waiters {
		if d := placement.Decide(snap, w.run.request(), w.run.policy, s.cfg.Now()); d.Verdict == placement.Warm && d.Class == name {
			n++
		}
	}
	return n
}

// activeJobs counts the Jobs of a class, made or granted.
func (s *Scheduler) activeJobs(class string) int {
	return s.cfg.Jobs.Active(class) + s.granted[class]
}

// rightOf is the right to what a decision chose.
func rightOf(d placement.Decision, snap placement.Snapshot) store.Right {
	right := store.Right{Class: d.Class, Pod: d.Pod, Node: d.Node}
	if d.Verdict == placement.Warm {
		right.Worker = d.Pod + "/" + d.Nonce
		for _, w := range snap.Workers {
			if w.Pod == d.Pod && w.Nonce == d.Nonce {
				right.Limit = w.Slots
			}
		}
	}
	return right
}

// buildOf is the build of the ffmpeg of the worker that a decision chose.
func buildOf(d placement.Decision, snap placement.Snapshot) string {
	for _, w := range snap.Workers {
		if d.Verdict == placement.Warm && w.Pod == d.Pod {
			return w.Build
		}
	}
	return ""
}

// requestOf is the request of a session that another replica holds.
func requestOf(q store.Session) placement.Request {
	return placement.Request{Kind: q.Kind, Class: q.WantClass, Hardware: q.Hardware, Build: q.Build}
}
