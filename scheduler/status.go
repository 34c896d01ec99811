package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/store"
)

// recentSessions is how many sessions a Status tells of beside the queue.
const recentSessions = 200

// Status is what operators are told. No word of it is of a session's command.
func (s *Scheduler) Status(ctx context.Context) (api.Status, error) {
	out := api.Status{Version: s.cfg.Version, Namespace: s.cfg.Namespace, Time: s.cfg.Now(), Began: s.begun}
	queue, err := s.cfg.Store.Queue(ctx)
	if err != nil {
		return out, fmt.Errorf("read the queue: %w", err)
	}
	recent, err := s.cfg.Store.Recent(ctx, recentSessions)
	if err != nil {
		return out, fmt.Errorf("read the sessions: %w", err)
	}
	recent = slices.DeleteFunc(recent, func(q store.Session) bool { return q.State == store.Queued })
	classes := s.cfg.Classes.All()
	for _, c := range classes {
		out.Classes = append(out.Classes, s.classTold(c))
	}
	paused := map[string]bool{}
	for _, w := range s.allWorkers() {
		out.Workers = append(out.Workers, workerTold(w, devices(classes, w.Class)))
		for id := range w.Paused {
			paused[id] = true
		}
	}
	slices.SortFunc(out.Workers, func(a, b api.Worker) int {
		return cmp.Or(strings.Compare(a.Class, b.Class), strings.Compare(a.Pod, b.Pod))
	})
	for i, q := range s.inOrder(queue) {
		x := told(q)
		x.Position = i + 1
		out.Sessions = append(out.Sessions, x)
	}
	for _, q := range recent {
		x := told(q)
		x.Paused = x.Runs() && paused[x.ID]
		out.Sessions = append(out.Sessions, x)
	}
	return out, nil
}

// inOrder is the queue as it is served now.
func (s *Scheduler) inOrder(queue []store.Session) []store.Session {
	s.mu.Lock()
	held := s.held()
	s.mu.Unlock()
	served := make([]store.Session, 0, len(queue))
	for i := range placement.Order(waiting(queue), held, s.cfg.Now()) {
		served = append(served, queue[i])
	}
	return served
}

// classTold is a class as operators see it.
func (s *Scheduler) classTold(c class.Class) api.Class {
	s.mu.Lock()
	active := s.activeJobs(c.Name)
	s.mu.Unlock()
	out := api.Class{Name: c.Name, Deployment: c.Deployment, Usable: c.Usable, Problems: c.Problems, Kinds: c.Kinds,
		Devices: c.Holds(), Cost: c.Cost, Replicas: int(c.Replicas), Jobs: c.Jobs, ActiveJobs: active,
		Unable: s.cfg.Unable(c.Name), Egress: string(c.Egress)}
	if c.Standby.Max > 0 {
		out.Standby = &api.Bounds{Min: c.Standby.Min, Max: c.Standby.Max}
	}
	if c.Scale != nil {
		out.Scale = &api.Bounds{Min: c.Scale.Min, Max: c.Scale.Max}
	}
	return out
}

// told is a session without what only its caller may know.
func told(q store.Session) api.Session {
	out := api.Session{ID: q.ID, Caller: q.Caller.ServiceAccount, CallerPod: q.Caller.Pod, Kind: q.Kind, State: string(q.State),
		Priority: placement.Priority(q.Kind), CallerBuild: q.Build, Translated: q.Translated, Placement: q.Placement, Class: cmp.Or(q.Right.Class, q.WantClass), Pod: q.Right.Pod, Node: q.Right.Node, Reason: q.Reason,
		Asked: q.Times.Queued, Started: q.Times.Running, Ended: q.Times.Final}
	if !q.State.Final() {
		return out
	}
	e := q.Outcome
	out.Local = q.State == store.Refused && strings.HasPrefix(e.Cause, wire.Refusal_LOCAL.String()+":")
	own := e.Cause == callersSignal || strings.HasPrefix(e.Cause, session.ErrShimGone.Error())
	if out.Failed = !own && !out.Local && (q.State != store.Ended || e.Code != 0 || e.Signal != 0); q.State == store.Ended || e.Cause != "" {
		out.Exit = &api.Exit{Code: e.Code, Signal: e.Signal, Cause: e.Cause}
	}
	return out
}
