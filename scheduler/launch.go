package scheduler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/job"
	"github.com/ffpod/ffpod/scheduler/placement"
)

// launch makes the Job that was granted and waits until its worker answers.
func (r *run) launch(ctx context.Context, won grant) error {
	bound := r.sched.cfg.JobStart
	if r.bounded {
		bound = min(bound, r.deadline.Sub(r.now()))
	}
	late := fmt.Errorf("no worker answered within %s", bound.Round(time.Second))
	timed, cancel := context.WithTimeoutCause(ctx, bound, late)
	defer cancel()
	launch, giveUp := context.WithCancelCause(timed)
	var said atomic.Pointer[string]
	var looking sync.WaitGroup
	if r.policy != placement.JobOnly {
		looking.Go(func() { r.sched.yieldToWarm(launch, won.class, &said, giveUp) })
	}
	defer looking.Wait()
	defer giveUp(nil)
	r.progress("starting", won.decision.Reason, 0)
	r.sched.ungrant(won) // from here on the launcher counts it, and keeps the limit itself
	held, err := r.sched.cfg.Jobs.Launch(launch, won.class, r.id, func(reason string) {
		r.progress("starting", reason, 0)
		said.Store(&reason)
	})
	jobs := placement.AvoidJobs(won.class.Name)
	switch {
	case err == nil:
		r.hold(held, "")
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, job.ErrLimit):
		return &elsewhere{cause: err, free: true, avoid: jobs}
	case errors.Is(context.Cause(launch), errHeld):
		return &elsewhere{cause: context.Cause(launch), free: true, avoid: jobs, span: avoidJobs}
	}
	if launch.Err() != nil && !errors.Is(err, late) {
		err = fmt.Errorf("%w: %w", late, err)
	}
	return &elsewhere{cause: fmt.Errorf("launch a Job of class %s: %w", won.class.Name, err), avoid: jobs, span: avoidJobs}
}

// errHeld is why a Job is given up that waits for what warm workers hold.
var errHeld = errors.New("the warm workers hold what a Job would need")

// yieldToWarm gives a launch up when its Job has waited for what warm workers hold,
// by the launch's last word, for heldPatience. It looks all the time: a warm worker
// may come up, and take the device, after Kubernetes has said its last word about the
// Job. It returns when the launch is over.
func (s *Scheduler) yieldToWarm(launch context.Context, c class.Class, said *atomic.Pointer[string], giveUp context.CancelCauseFunc) {
	const looks = 8
	tick := time.NewTicker(heldPatience / looks)
	defer tick.Stop()
	for seen := 0; seen < looks; {
		select {
		case <-launch.Done():
			return
		case <-tick.C:
		}
		var why error
		if reason := said.Load(); reason != nil {
			why = s.heldByWarm(c, *reason)
		}
		if seen++; why == nil {
			seen = 0
		} else if seen == looks {
			giveUp(why)
		}
	}
}

// heldByWarm says that a Job cannot start for want of a device that the class's own
// warm workers have: its session gets one of their slots sooner than a device. Who
// adds nodes by autoscaling has no warm worker that is full, or says policy job.
func (s *Scheduler) heldByWarm(c class.Class, reason string) error {
	claims := strings.Contains(reason, "cannot allocate all claims")
	for _, device := range c.Holds() {
		if !claims && !strings.Contains(reason, "Insufficient "+device) {
			continue
		}
		for _, w := range s.cfg.Pool.Workers() {
			if w.Class == c.Name && w.Ready && !w.Draining {
				return fmt.Errorf("class %s: %w: %s", c.Name, errHeld, device)
			}
		}
	}
	return nil
}
