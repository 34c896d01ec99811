package scheduler

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/placement"
)

// proveBound is for how long one worker is waited for: it answers before its trials.
const proveBound = 5 * time.Second

// Prove has the workers of a class, or all of them, try their hardware again, and
// returns what each answered, by class and name. It does not wait for the trials:
// Status tells what they proved. A worker of an older release refuses, and so does
// one whose trials have just ended.
func (s *Scheduler) Prove(ctx context.Context, class string) []api.Proof {
	var all []api.Proof
	var mu sync.Mutex
	var asking sync.WaitGroup
	ask := func(placed placement.Verdict, workers []channels.WorkerState) {
		for _, w := range workers {
			if class != "" && w.Class != class {
				continue
			}
			asking.Go(func() {
				started, reason := s.prove(ctx, string(placed), w)
				mu.Lock()
				defer mu.Unlock()
				all = append(all, api.Proof{Class: w.Class, Worker: w.Pod, Started: started, Reason: reason})
			})
		}
	}
	ask(placement.Warm, s.cfg.Pool.Workers())
	ask(placement.Job, s.cfg.Jobs.Workers())
	asking.Wait()
	slices.SortFunc(all, func(a, b api.Proof) int {
		return cmp.Or(cmp.Compare(a.Class, b.Class), cmp.Compare(a.Worker, b.Worker))
	})
	return all
}

func (s *Scheduler) prove(ctx context.Context, placed string, w channels.WorkerState) (started bool, reason string) {
	ctx, cancel := context.WithTimeout(ctx, proveBound)
	defer cancel()
	worker, err := s.supervisor(ctx, w.Worker, placed)
	if err != nil {
		return false, err.Error()
	}
	answer, err := worker.Prove(ctx, &wire.ProveRequest{})
	if err != nil {
		return false, "worker " + w.Pod + ": " + err.Error()
	}
	return answer.GetStarted(), answer.GetReason()
}
