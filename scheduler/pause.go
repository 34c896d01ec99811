package scheduler

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/scheduler/placement"
)

// A session that nobody watches makes room for one that somebody waits for: it is
// stopped, and goes on when a slot of its worker is free again and nobody wants it.
//
//	dispatch: Decision.Pause ─▶ makeRoom: worker stops it, slot leased ─▶ Start
//	dispatch: Round.Continue ─▶ goOn: worker continues it
//
// The worker is the last word: it refuses to stop a session that its caller speaks
// to, and continues one by itself when no order came for mostPause.
const (
	// mostPause is the worker's own bound: this process may be dead by then.
	mostPause = 2 * placement.LongestPause
	// pauseTimeout bounds one order.
	pauseTimeout = 2 * time.Second
)

// makeRoom has the worker stop the sessions that the decision names, and takes the
// slot. What was stopped in vain goes on.
func (r *run) makeRoom(ctx context.Context, won grant) error {
	d, pool := won.decision, r.sched.cfg.Pool
	defer r.sched.ungrant(won)
	call, cancel := context.WithTimeout(ctx, pauseTimeout)
	defer cancel()
	for n, id := range d.Pause {
		if err := pool.Pause(call, d.Pod, d.Nonce, id, mostPause); err != nil {
			r.sched.resumePaused(d, d.Pause[:n+1]) // this one too: its answer may be lost
			return &elsewhere{cause: fmt.Errorf("make room: pause %w", err), avoid: d.Pod, span: avoidWorker, free: true}
		}
		r.sched.switched(id)
		r.sched.cfg.Metrics.pauses.Inc()
		r.sched.log.Info("session is paused", zap.String("session", id), zap.String("worker", d.Pod), zap.String("for", r.id))
	}
	held, err := pool.Lease(d.Pod, d.Nonce, r.id)
	if err != nil {
		r.sched.resumePaused(d, d.Pause)
		return &elsewhere{cause: err, avoid: d.Pod, span: avoidWorker, free: true}
	}
	r.hold(held, won.build)
	return nil
}

// switched notes that a session was paused or continued.
func (s *Scheduler) switched(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.sessions[id]; r != nil {
		r.switched.Store(s.cfg.Now().UnixNano())
	}
}

func (s *Scheduler) resumePaused(d placement.Decision, ids []string) {
	for _, id := range ids {
		s.goOn(placement.Continuation{Pod: d.Pod, Nonce: d.Nonce, Session: id})
	}
}

// goOn has a worker continue a session, in the background. One that fails is tried
// in the next round.
func (s *Scheduler) goOn(c placement.Continuation) {
	s.background(pauseTimeout, func(ctx context.Context) {
		err := s.cfg.Pool.Continue(ctx, c.Pod, c.Nonce, c.Session)
		if err == nil {
			s.switched(c.Session)
		}
		s.log.Info("session goes on after a pause", zap.String("session", c.Session), zap.String("worker", c.Pod), zap.Error(err))
		s.mu.Lock()
		delete(s.moving, c.Session)
		s.mu.Unlock()
	})
}

// vacated notes that a session left a warm worker which others had made room for: a
// seek takes the slot again, before what is paused does.
func (s *Scheduler) vacated(r *run) {
	if r.worker.Job != "" || placement.Pausable(r.kind) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left[r.worker.Pod] = s.cfg.Now()
	for pod, at := range s.left {
		if s.cfg.Now().Sub(at) > s.gap {
			delete(s.left, pod)
		}
	}
}
