package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
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
	// rewriting is of the line that the place was granted for; nil: the caller's.
	rewriting *rewriting
	retold    *session.Transcript // the answer to a hardware probe, without a worker
	err       error               // nothing could ever run it
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
			switch {
			case g.lease == nil:
			case g.lease.Worker().Job != "": // a standby serves one session, and this was it
				g.lease.Destroy()
			default:
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
	switch {
	case g.err == nil:
		r.state, r.attempt = store.Leased, g.attempt
	case g.decision.Verdict == placement.Local:
		r.decision = g.decision
	}
	return g, g.err
}

// dispatch walks the queue once, in order, and grants what can be granted. What
// an earlier session takes, a later one does not see.
func (s *Scheduler) dispatch(ctx context.Context) error {
	continued, err := s.walk(ctx)
	for _, c := range continued {
		s.goOn(c)
	}
	return err
}

// walk is dispatch with the mutex held. It returns the paused sessions that have
// their turn.
func (s *Scheduler) walk(ctx context.Context) ([]placement.Continuation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	workers := s.cfg.Pool.Workers()
	pauses := slices.ContainsFunc(workers, func(w channels.WorkerState) bool { return len(w.Paused) > 0 })
	if len(s.waiters) == 0 && !pauses {
		return nil, nil
	}
	queue, err := s.cfg.Store.Queue(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the queue: %w", err)
	}
	held := s.held()
	snap, known := s.snapshot(workers, held)
	round, position := placement.NewRound(snap), 0
	on := scene{round: round, classes: known, offers: offersOf(snap, known)}
	for i := range placement.Order(waiting(queue), held, s.cfg.Now()) {
		q := queue[i]
		position++
		w := s.waiters[q.ID]
		if w == nil { // another replica's, or being given up: it keeps what it would get
			round.Take(round.Decide(requestOf(q), placement.Policy(q.Policy), s.cfg.Now()))
			continue
		}
		if err := s.place(ctx, w, q, position, on); err != nil {
			return nil, err
		}
	}
	continued := slices.DeleteFunc(round.Continue(s.cfg.Now()), func(c placement.Continuation) bool {
		return s.cfg.Now().Sub(s.left[c.Pod]) < s.gap
	})
	for _, c := range continued {
		s.moving[c.Session] = true
	}
	return continued, nil
}

// waiting is the queue as placement orders it.
func waiting(queue []store.Session) []placement.Waiting {
	all := make([]placement.Waiting, len(queue))
	for i, q := range queue {
		all[i] = placement.Waiting{Kind: q.Kind, Caller: owner(q.Caller), Asked: q.Times.Queued}
	}
	return all
}

// held is what runs on workers from here, or will: a Job that starts counts. The
// mutex is held.
func (s *Scheduler) held() placement.Held {
	held := placement.Held{Callers: map[string]int{}}
	for _, r := range s.sessions {
		if waits := s.waiters[r.id] != nil; !r.placed.Load() && (waits || !r.granted) {
			continue
		}
		held.Total++
		held.Callers[owner(r.caller)]++
		if placement.Priority(r.kind) < placement.Priority(string(ffmpeg.Playback)) {
			held.Low++
		}
	}
	return held
}

// scene is what one walk of the queue places sessions on.
type scene struct {
	round   *placement.Round
	classes map[string]class.Class
	offers  []offer
}

// place decides one waiter and carries the decision out as far as it takes no
// time. What it gets is taken from the round.
func (s *Scheduler) place(ctx context.Context, w *waiter, q store.Session, position int, on scene) error {
	round := on.round
	for {
		d := round.Decide(w.run.request(on.offers), w.run.policy, s.cfg.Now())
		if g, ok := s.recall(w.run, d, on.classes); ok {
			granted, err := s.grant(ctx, &q, &g, store.Right{Class: g.class.Name})
			if granted {
				s.answer(w, g)
			}
			return err
		}
		switch d.Verdict {
		case placement.Wait:
			return s.tell(ctx, w, d.Reason, position)
		case placement.Local:
			s.answer(w, grant{decision: d, err: refuse(wire.Refusal_LOCAL, "add workers, or allow Jobs", "%s", d.Reason)})
			return nil
		case placement.Reject:
			s.answer(w, grant{decision: d, err: refuse(d.Refusal, d.Remedy, "%s", d.Reason)})
			return nil
		}
		worker, _ := round.Worker(d)
		g := grant{decision: d, class: on.classes[d.Class], build: worker.Build}
		if d.Translated {
			g.rewriting = w.run.rewritings[d.Class]
		}
		granted, err := s.grant(ctx, &q, &g, rightOf(d, worker))
		if err != nil {
			return err
		}
		if granted {
			s.answer(w, g)
			round.Take(d)
			s.viewers.note(d.Viewer, d.Pod)
			return nil
		}
		round.Without(d) // what looked free was not: look on
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
	switch d := g.decision; {
	case g.retold != nil:
		return true, nil
	case d.Verdict == placement.Job:
		s.granted[d.Class]++
		return true, nil
	case len(d.Pause) > 0: // the worker is asked later: it takes time
		for _, id := range d.Pause {
			s.moving[id] = true
		}
		return true, nil
	case d.Verdict == placement.Standby:
		g.lease, err = s.cfg.Standbys.Take(d.Pod, d.Nonce, q.ID)
	default:
		g.lease, err = s.cfg.Pool.Lease(d.Pod, d.Nonce, q.ID)
	}
	if err == nil {
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
	w.run.granted = g.err == nil && g.retold == nil
	w.grant <- g
}

// ungrant forgets a Job that was granted: the launcher counts it from now on, or
// it is not made. It forgets pauses likewise: they are orders now, or never will be.
func (s *Scheduler) ungrant(g grant) {
	if g.decision.Verdict != placement.Job && len(g.decision.Pause) == 0 {
		return
	}
	s.mu.Lock()
	if g.decision.Verdict == placement.Job {
		s.granted[g.decision.Class]--
	}
	for _, id := range g.decision.Pause {
		delete(s.moving, id)
	}
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
	snap, known := s.snapshot(s.cfg.Pool.Workers(), s.held())
	offers := offersOf(snap, known)
	snap.Workers = nil
	for _, c := range snap.Classes {
		snap.Workers = append(snap.Workers, placement.Worker{Class: c.Name, Pod: "any of " + c.Name, Slots: 1, Ready: true})
	}
	n := 0
	for _, w := range s.waiters {
		if d := placement.Decide(snap, w.run.request(offers), w.run.policy, s.cfg.Now()); d.Verdict == placement.Warm && d.Class == name {
			n++
		}
	}
	return n
}
