package scheduler

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/fence"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/store"
)

// fenced is the session as a writer.
func (r *run) fenced() fence.Session {
	return fence.Session{ID: r.id, Owner: owner(r.caller), Keys: r.outputs, Asked: r.asked}
}

func owner(c store.Caller) string { return c.Namespace + "/" + c.ServiceAccount }

// claim makes the session the writer of its outputs: older ones are ended, and the
// session waits in its place in the queue until they are dead.
func (r *run) claim(ctx context.Context) error {
	if len(r.outputs) == 0 {
		return nil
	}
	s := r.sched
	late := errors.New("its outputs are not free")
	waiting, cancel := context.WithDeadlineCause(ctx, r.deadline, late)
	defer cancel()
	reason := ""
	say := func(why string) { reason = why; r.progress("queued", why, 0) }
	if err := s.supersede(waiting, r.fenced(), say); err != nil {
		return err
	}
	r.claimed = true
	err := s.fences.Wait(waiting, r.id, say)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fence.ErrSuperseded):
		return fencedOff()
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return refuse(wire.Refusal_FENCED, "wait until then, or write other files", "the outputs are not free: %s", reason)
}

// outdone tells whether a newer writer has come. While a worker might have started the
// session it was not cancelled for that, but killed there.
func (r *run) outdone() bool {
	if !r.claimed {
		return false
	}
	newer := r.sched.fences.Superseded(r.id)
	select {
	case <-newer:
		return true
	default:
		return newer == nil // killed, and freed
	}
}

// supersede makes w the writer of its outputs, and ends the older ones. It does not
// wait for their death.
func (s *Scheduler) supersede(ctx context.Context, w fence.Session, say func(reason string)) error {
	s.awaitSilent(ctx, say)
	s.reconcile() // what workers of another scheduler write
	older, err := s.fences.Claim(w)
	if err != nil {
		return fmt.Errorf("claim the outputs of session %s: %w", w.ID, err)
	}
	for _, h := range older {
		s.log.Info("session is ended for a newer writer", zap.String("session", h.Session), zap.String("newer", w.ID), zap.String("worker", h.Worker.Pod))
		s.fenceOff(h.Session, h.Worker)
	}
	return nil
}

// awaitSilent waits until every worker has answered that ran before this
// scheduler did: one that is silent may run a writer of which nobody here knows. It
// gives up when such a writer is dead by its worker's own timers, and with ctx.
func (s *Scheduler) awaitSilent(ctx context.Context, say func(reason string)) {
	known := s.begun.Add(s.bound())
	for said := ""; time.Now().Before(known); {
		reason := s.silentWorker()
		if reason == "" || ctx.Err() != nil {
			return
		}
		if reason != said {
			said = reason
			say(reason)
		}
		sleep(ctx, silentInterval)
	}
}

const silentInterval = 250 * time.Millisecond

// silentWorker says which worker has not answered yet.
func (s *Scheduler) silentWorker() string {
	for _, w := range slices.Concat(s.cfg.Pool.Workers(), s.cfg.Jobs.Workers()) {
		if w.Description == nil && !w.Began.IsZero() && w.Began.Before(s.begun) {
			return "worker " + w.Pod + " has not told yet what it writes"
		}
	}
	return ""
}

func fencedOff() error {
	return refuse(wire.Refusal_FENCED, "give each session outputs of its own", "%s", errFenced)
}

// fenceOff ends a session for a newer writer: one that has not started is refused,
// one that may have is killed.
func (s *Scheduler) fenceOff(id string, w lease.Worker) {
	s.cfg.Metrics.fenced.Inc()
	s.mu.Lock()
	r := s.sessions[id]
	s.mu.Unlock()
	verdict := verdictOf(w)
	if r != nil {
		if !r.begun.Load() {
			r.cancel(errFenced)
			return
		}
		if at := r.at.Load(); at != nil {
			w, verdict = at.worker, at.verdict
		}
	}
	if w.Pod == "" {
		return
	}
	s.background(s.bound(), func(ctx context.Context) { s.killed(ctx, id, w, verdict, wire.Cause_CAUSE_FENCED) })
}

// Clear returns once no session of the caller's account writes the outputs any
// more. Those that do are killed.
func (s *Scheduler) Clear(ctx context.Context, caller store.Caller, keys []string) error {
	id := "clear-" + strings.ToLower(rand.Text())
	w := fence.Session{ID: id, Owner: owner(caller), Keys: keys, Asked: s.cfg.Now()}
	if err := s.supersede(ctx, w, func(string) {}); err != nil {
		return err
	}
	defer s.fences.Free(id)
	return s.fences.Wait(ctx, id, nil)
}
