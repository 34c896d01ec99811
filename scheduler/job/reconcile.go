package job

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
)

// exitMargin is how much longer than its worker's grace an exit that nobody takes
// is left alone.
const exitMargin = 2 * time.Minute

// reconcileAll compares what should be with what is, for all that went wrong
// unseen: a scheduler that died between two steps, a worker that hangs.
func (l *Launcher) reconcileAll(ctx context.Context) {
	tick := time.NewTicker(l.config.Reconcile)
	defer tick.Stop()
	doubts := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !l.Ready() {
			continue // nothing is a stray before everybody was asked
		}
		if err := l.reconcile(ctx, doubts); err != nil && ctx.Err() == nil {
			l.config.Log.Warn("the Jobs cannot be compared with their workers; trying again", zap.Error(err))
		}
	}
}

// reconcile deletes the Jobs that serve nobody. Those of which that is only likely
// are doubted first, for a while: after an outage everybody is late.
func (l *Launcher) reconcile(ctx context.Context, doubts map[string]time.Time) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// kube: jobs, list
	jobs, err := l.config.Client.BatchV1().Jobs(l.config.Namespace).List(call, metav1.ListOptions{
		LabelSelector: class.Label + "," + class.SessionLabel + "," + class.RoleLabel + "=" + class.RoleJob,
	})
	if err != nil {
		return fmt.Errorf("list the Jobs of namespace %s: %w", l.config.Namespace, err)
	}
	states := map[string]*channels.WorkerState{}
	for _, w := range l.keeper.Workers() {
		states[w.Job] = &w
	}
	before := maps.Clone(doubts)
	clear(doubts)
	for i := range jobs.Items {
		j := &jobs.Items[i]
		w, now := states[j.Name], time.Now()
		why, certain := l.useless(j, w, now)
		if why == "" || l.launching(j.Name) {
			continue
		}
		if !certain {
			doubts[j.Name] = cmp.Or(before[j.Name], now)
			certain = now.Sub(doubts[j.Name]) >= l.config.Doubt
		}
		if !certain || l.contradicted(ctx, w) || l.launching(j.Name) {
			continue
		}
		l.config.Log.Warn("a Job that serves nobody is deleted", zap.String("job", j.Name), zap.String("class", j.Labels[class.Label]),
			zap.String("session", j.Labels[class.SessionLabel]), zap.String("why", why))
		l.delete(ctx, j.Name, j.UID)
	}
	return nil
}

// launching reports whether a Job is being launched or was leased by its launch.
func (l *Launcher) launching(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.launches[name] != nil
}

// useless says why a Job serves nobody, "" when it may, and whether its worker
// has said so. w is nil when no pod of it is known. A Job whose worker said that a
// session runs is never useless, however long ago: other bounds end it.
func (l *Launcher) useless(j *batchv1.Job, w *channels.WorkerState, now time.Time) (why string, certain bool) {
	answers := w != nil && w.Ready
	switch {
	case j.DeletionTimestamp != nil || finished(j):
		return "", false
	case w != nil && (w.Runs() || w.Used > 0):
		return "", false
	case answers && len(w.Description.GetSessions()) == 0 && now.Sub(w.Ended) > l.config.Idle && now.Sub(w.Since) > l.config.Idle:
		return fmt.Sprintf("its worker has had no session for %s", now.Sub(w.Ended).Round(time.Second)), true
	case answers && len(w.Description.GetSessions()) > 0 && now.Sub(w.Ended) > l.config.Grace+exitMargin:
		return fmt.Sprintf("its session ended %s ago and nobody takes the exit", now.Sub(w.Ended).Round(time.Second)), true
	case answers || now.Before(unclaimed(j, l.config.Deadline)):
		return "", false
	case w == nil:
		return fmt.Sprintf("no scheduler has moved its deadline for %s, and its pod is not there", l.config.Deadline/2), false
	}
	return fmt.Sprintf("no scheduler has moved its deadline for %s, and its worker does not answer", l.config.Deadline/2), false
}

// unclaimed is when a Job will count as nobody's: whoever launches a Job, or has a
// session in it, moves its deadline before a third of it has passed.
func unclaimed(j *batchv1.Job, length time.Duration) time.Time {
	ends := begun(j)
	if s := j.Spec.ActiveDeadlineSeconds; s != nil {
		ends = ends.Add(time.Duration(*s) * time.Second)
	}
	return ends.Add(-length / 2)
}

// contradicted asks the worker once more, right before the deletion. A worker
// that has just answered and does not now is looked at again.
func (l *Launcher) contradicted(ctx context.Context, w *channels.WorkerState) bool {
	if w == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d := l.keeper.Ask(ctx, w.PodUID)
	if d == nil {
		return w.Ready
	}
	return !w.Ready || len(d.GetSessions()) != len(w.Description.GetSessions()) || channels.WorkerState{Description: d}.Runs()
}

func finished(j *batchv1.Job) bool {
	for _, c := range j.Status.Conditions {
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed || c.Type == batchv1.JobFailureTarget) {
			return true
		}
	}
	return false
}
