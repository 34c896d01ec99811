package scheduler

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

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
	s.reconcile() // what workers of another scheduler write
	older, err := s.fences.Claim(r.fenced())
	if err != nil {
		return fmt.Errorf("claim the outputs of session %s: %w", r.id, err)
	}
	r.claimed = true
	for _, h := range older {
		s.log.Info("session is ended for a newer writer", zap.String("session", h.Session), zap.String("newer", r.id), zap.String("worker", h.Worker.Pod))
		s.fenceOff(h.Session, h.Worker)
	}
	late := errors.New("its outputs are not free")
	waiting, cancel := context.WithDeadlineCause(ctx, r.deadline, late)
	defer cancel()
	reason := ""
	err = s.fences.Wait(waiting, r.id, func(why string) { reason = why; r.progress("queued", why, 0) })
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
		w, verdict = r.worker, string(r.decision.Verdict)
	}
	if w.Pod == "" {
		return
	}
	s.background(s.cfg.Grace+afterGrace, func(ctx context.Context) { s.killed(ctx, id, w, verdict, wire.Cause_CAUSE_FENCED) })
}

// Clear returns once no session of the caller's account writes the outputs any
// more. Those that do are killed.
func (s *Scheduler) Clear(ctx context.Context, caller store.Caller, keys []string) error {
	s.reconcile()
	id := "clear-" + strings.ToLower(rand.Text())
	older, err := s.fences.Claim(fence.Session{ID: id, Owner: owner(caller), Keys: keys, Asked: s.cfg.Now()})
	if err != nil {
		return err
	}
	defer s.fences.Free(id)
	for _, h := range older {
		s.fenceOff(h.Session, h.Worker)
	}
	return s.fences.Wait(ctx, id, nil)
}
