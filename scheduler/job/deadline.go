package job

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// deadline is what is known of a Job's activeDeadlineSeconds.
type deadline struct {
	begun    time.Time // not after the moment from which the Job controller counts
	extended time.Time // zero: not by this process
}

// extendAll moves deadlines forward before a third of them has passed.
func (l *Launcher) extendAll(ctx context.Context) {
	tick := time.NewTicker(max(l.config.Deadline/100, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for name, d := range l.due() {
			l.extend(ctx, name, d)
		}
	}
}

// due lists the Jobs whose deadline is to be moved now: those that are being
// launched or were leased by it, the standbys that are kept, and those whose worker
// says that a session runs.
// What a worker said holds while it cannot be asked, for as long as one deadline:
// a worker that nobody reaches ends its session before that.
func (l *Launcher) due() map[string]deadline {
	due := map[string]deadline{}
	serves := map[string]bool{}
	for _, w := range l.keeper.Workers() {
		if w.Runs() && time.Since(w.Asked) < l.config.Deadline {
			serves[w.Job] = true
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := func(d deadline) bool { return time.Since(d.extended) > l.config.Deadline*3/10 }
	for name, r := range l.launches {
		if d := (deadline{r.begun, r.extended}); r.created && old(d) {
			due[name] = d
		}
	}
	for name, s := range l.standbys {
		if s.kept && !s.taken {
			serves[name] = true
		}
	}
	for name := range l.deadlines {
		if !serves[name] {
			delete(l.deadlines, name)
		}
	}
	for name := range serves {
		if d := l.deadlines[name]; l.launches[name] == nil && old(d) {
			due[name] = d
		}
	}
	return due
}

// extend sets the deadline to its full length from now.
func (l *Launcher) extend(ctx context.Context, name string, d deadline) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now := time.Now()
	err := l.move(ctx, name, &d, now)
	if apierrors.IsNotFound(err) {
		return // the Job is gone, its pod will follow
	}
	if err != nil {
		l.config.Log.Warn("the deadline of a Job cannot be moved; trying again", zap.String("job", name), zap.Error(err))
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.launches[name]; r != nil {
		r.begun, r.extended = d.begun, now
		return
	}
	l.deadlines[name] = deadline{d.begun, now}
}

// move patches the deadline. When the Job's begin is not known it is asked for.
func (l *Launcher) move(ctx context.Context, name string, d *deadline, now time.Time) error {
	jobs := l.config.Client.BatchV1().Jobs(l.config.Namespace)
	seconds := int64(0)
	if d.begun.IsZero() {
		// kube: jobs, get
		j, err := jobs.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if d.begun = begun(j); j.Spec.ActiveDeadlineSeconds != nil {
			seconds = *j.Spec.ActiveDeadlineSeconds // another scheduler's clock may be ahead
		}
	}
	// Counted from our begin, which is not later than the Job's start time: the sum
	// is never too short.
	seconds = max(seconds, int64((now.Sub(d.begun)+l.config.Deadline)/time.Second))
	patch := fmt.Appendf(nil, `{"spec":{"activeDeadlineSeconds":%d}}`, seconds)
	// kube: jobs, patch
	_, err := jobs.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// begun is the moment from which the Job controller counts a Job's deadline, and
// before it has begun to, the Job's making.
func begun(j *batchv1.Job) time.Time {
	if s := j.Status.StartTime; s != nil {
		return s.Time
	}
	return j.CreationTimestamp.Time
}
