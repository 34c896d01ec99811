package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
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
	for _, q := range slices.Concat(queue, recent) {
		out.Sessions = append(out.Sessions, told(q))
	}
	for _, c := range s.cfg.Classes.All() {
		s.mu.Lock()
		active := s.activeJobs(c.Name)
		s.mu.Unlock()
		out.Classes = append(out.Classes, api.Class{Name: c.Name, Deployment: c.Deployment, Usable: c.Usable, Problems: c.Problems, Kinds: c.Kinds,
			Devices: c.Holds(), Cost: c.Cost, Replicas: int(c.Replicas), Jobs: c.Jobs, ActiveJobs: active})
	}
	for role, workers := range map[string][]channels.WorkerState{class.RoleWarm: s.cfg.Pool.Workers(), class.RoleJob: s.cfg.Jobs.Workers()} {
		for _, w := range workers {
			out.Workers = append(out.Workers, api.Worker{Class: w.Class, Pod: w.Pod, Node: w.Node, Role: role, Slots: w.Slots, Used: w.Used,
				Ready: w.Ready, Draining: w.Draining, FFmpeg: w.FFmpegVersion, FFmpegBuild: w.FFmpegBuild})
		}
	}
	slices.SortFunc(out.Workers, func(a, b api.Worker) int {
		return cmp.Or(strings.Compare(a.Class, b.Class), strings.Compare(a.Pod, b.Pod))
	})
	return out, nil
}

// told is a session without what only its caller may know.
func told(q store.Session) api.Session {
	out := api.Session{ID: q.ID, Caller: q.Caller.ServiceAccount, CallerPod: q.Caller.Pod, Kind: q.Kind, State: string(q.State),
		CallerBuild: q.Build, Translated: q.Translated, Placement: q.Placement, Class: cmp.Or(q.Right.Class, q.WantClass), Pod: q.Right.Pod, Node: q.Right.Node, Reason: q.Reason,
		Asked: q.Times.Queued, Started: q.Times.Running, Ended: q.Times.Final}
	if !q.State.Final() {
		return out
	}
	e := q.Outcome
	own := e.Cause == callersSignal || strings.HasPrefix(e.Cause, session.ErrShimGone.Error())
	if out.Failed = !own && (q.State != store.Ended || e.Code != 0 || e.Signal != 0); q.State == store.Ended || e.Cause != "" {
		out.Exit = &api.Exit{Code: e.Code, Signal: e.Signal, Cause: e.Cause}
	}
	return out
}
