package scheduler

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/fence"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/store"
)

// reconcileInterval is how often the workers' word is compared with the sessions
// that this process knows.
const reconcileInterval = 3 * time.Second

// reconcile takes what workers tell of sessions that are not run from here: those
// of an earlier scheduler, or of another replica. Their outputs are fenced; one to
// which nobody has been attached for as long as a living shim would need is
// orphaned, instead of keeping a GPU for the rest of its grace.
func (s *Scheduler) reconcile() {
	s.reconciling.Lock()
	defer s.reconciling.Unlock()
	workers := slices.Concat(s.cfg.Pool.Workers(), s.cfg.Jobs.Workers())
	told := map[string]bool{}
	present := map[lease.Worker]bool{}
	stuck := 0
	for _, w := range workers {
		if w.Description == nil {
			continue
		}
		present[w.Worker] = w.Ready
		for _, state := range w.Description.GetSessions() {
			if state.GetStuck() {
				stuck++
			}
			if state.GetExit() == nil {
				told[state.GetSession()] = true
				s.foreign(w, state)
			}
		}
	}
	s.cfg.Metrics.stuck.Set(float64(stuck))
	s.forgetAdopted(told, present)
}

// foreign looks after a session that another process began.
func (s *Scheduler) foreign(w channels.WorkerState, state *wire.SessionState) {
	id := state.GetSession()
	s.mu.Lock()
	_, ours := s.sessions[id]
	_, known := s.adopted[id]
	s.mu.Unlock()
	if ours {
		return
	}
	var rec Record
	if !known {
		var err error
		if rec, err = readRecord(state.GetRecord()); err != nil {
			return // of nobody that could be told
		}
	}
	s.mu.Lock()
	if s.sessions[id] != nil {
		s.mu.Unlock()
		return
	}
	s.adopted[id] = w.Worker
	orphaned := !state.GetAttached() && time.Duration(state.GetUnattachedMs())*time.Millisecond >= shimSilent &&
		time.Since(s.begun) >= shimSilent && !s.ordered[id] && w.Ready
	if orphaned {
		s.ordered[id] = true
	}
	s.mu.Unlock()
	if !known && s.fences.Adopt(fence.Session{ID: id, Owner: owner(rec.Caller), Keys: rec.keys(), Asked: rec.Asked}, w.Worker) {
		s.fenceOff(id, w.Worker)
	}
	if orphaned {
		s.background(time.Minute, func(ctx context.Context) { s.orphanForeign(ctx, w.Worker, state) })
	}
}

func (s *Scheduler) orphanForeign(ctx context.Context, w lease.Worker, state *wire.SessionState) {
	sup, err := s.supervisor(ctx, w, verdictOf(w))
	if err == nil {
		call, cancel := context.WithTimeout(ctx, orderTimeout)
		_, err = sup.Orphan(call, &wire.OrphanRequest{Session: state.GetSession(), Epoch: state.GetEpoch()})
		cancel()
	}
	s.cfg.Metrics.orphans.Inc()
	s.log.Info("session is orphaned: nobody has resumed it", zap.String("session", state.GetSession()), zap.String("worker", w.Pod), zap.Error(err))
	if err != nil {
		s.mu.Lock()
		delete(s.ordered, state.GetSession()) // the next round tries again
		s.mu.Unlock()
	}
}

// forgetAdopted frees what the workers do not speak of any more. A worker that is
// not there is asked for: it may only be silent.
func (s *Scheduler) forgetAdopted(told map[string]bool, present map[lease.Worker]bool) {
	missing := map[string]lease.Worker{}
	var ended []string
	s.mu.Lock()
	for id, w := range s.adopted {
		answers, there := present[w]
		if told[id] || there && !answers {
			continue
		}
		delete(s.adopted, id)
		delete(s.ordered, id)
		switch {
		case s.sessions[id] != nil: // resumed
		case there:
			s.fences.Free(id)
			ended = append(ended, id)
		default:
			missing[id] = w
		}
	}
	s.mu.Unlock()
	for _, id := range ended {
		s.lose(id)
	}
	for id, w := range missing {
		s.lose(id)
		s.fences.Until(id, time.Now().Add(s.bound()))
		s.background(time.Minute, func(ctx context.Context) {
			_, err := s.supervisor(ctx, w, verdictOf(w))
			if is, dead := gone(err); is && dead {
				s.fences.Free(id)
			}
		})
	}
}

// lose ends the row of a session that the store has as running, and that nobody runs
// any more.
func (s *Scheduler) lose(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), orderTimeout)
	defer cancel()
	row, known, err := s.cfg.Store.Get(ctx, id)
	if err != nil || !known || !row.State.Holds() {
		return
	}
	_, _, err = s.cfg.Store.Move(ctx, store.Move{ID: id, Attempt: row.Attempt, From: row.State, To: store.Lost,
		Outcome: store.Outcome{Cause: "its worker does not speak of it any more"}})
	if err != nil {
		s.log.Warn("the end of a session is not in the store", zap.String("session", id), zap.Error(err))
	}
}
