package job

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// podReason says what a starting pod waits for, as far as its status tells.
func podReason(pod *corev1.Pod) string {
	switch why := lease.Waits(pod); {
	case why != "":
		return waiting + why
	case pod.Spec.NodeName == "":
		return "pod created"
	case lease.Running(pod) != nil:
		return "running on " + pod.Spec.NodeName + ", waiting for the worker's answer"
	}
	return "scheduled on " + pod.Spec.NodeName
}

// waiting begins what tells of trouble, not of progress.
const waiting = "waiting: "

// eventReason is what the newest Event of an object tells: trouble, or an image
// on its way. Everything else is progress that the status shows, too.
func eventReason(events []corev1.Event) string {
	if len(events) == 0 {
		return ""
	}
	newest := slices.MaxFunc(events, func(a, b corev1.Event) int { return cmp.Compare(at(a).UnixNano(), at(b).UnixNano()) })
	switch {
	case newest.Type == corev1.EventTypeWarning:
		return words(waiting+newest.Reason, newest.Message)
	case newest.Reason == "Pulling":
		return words("pulling image", strings.TrimPrefix(newest.Message, "Pulling image "))
	}
	return ""
}

func at(e corev1.Event) time.Time {
	last := e.CreationTimestamp.Time
	for _, t := range []time.Time{e.LastTimestamp.Time, e.EventTime.Time} {
		if t.After(last) {
			last = t
		}
	}
	if e.Series != nil && e.Series.LastObservedTime.After(last) {
		last = e.Series.LastObservedTime.Time
	}
	return last
}

// jobReason says why a Job has no pod yet, and whether it never will.
func jobReason(j *batchv1.Job) (reason string, over bool) {
	for _, c := range j.Status.Conditions {
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobFailed || c.Type == batchv1.JobFailureTarget) {
			return words("the Job failed: "+c.Reason, c.Message), true
		}
	}
	if j.Spec.Suspend != nil && *j.Spec.Suspend {
		if queue := j.Labels[queueLabel]; queue != "" {
			return waiting + "for quota: the Job is suspended, in queue " + queue, false
		}
		return waiting + "the Job is suspended", false
	}
	return "", false
}

// explain reports what a launch waits for until ctx is done. The pod's status
// comes by the informer; once that is slow, Events and the Job are asked too.
func (l *Launcher) explain(ctx context.Context, r *launch) {
	tick := time.NewTicker(l.config.Explain)
	defer tick.Stop()
	for {
		pod, updated := l.look(r)
		if pod != nil {
			r.say(podReason(pod))
		}
		select {
		case <-ctx.Done():
			return
		case <-updated:
			continue
		case <-tick.C:
		}
		l.inquire(ctx, r, pod)
	}
}

// inquire asks the API server why there is no running pod yet. What cannot be
// asked stays unsaid: it is no reason to end the launch.
func (l *Launcher) inquire(ctx context.Context, r *launch, pod *corev1.Pod) {
	if pod != nil {
		if pod.Spec.NodeName != "" && lease.Waiting(pod) == nil && lease.Running(pod) == nil {
			r.say(l.events(ctx, r.job.Namespace, pod.UID))
		}
		return
	}
	// kube: jobs, get
	j, err := l.config.Client.BatchV1().Jobs(r.job.Namespace).Get(ctx, r.job.Name, metav1.GetOptions{})
	if err != nil {
		return
	}
	reason, over := jobReason(j)
	if over {
		r.fail(fmt.Errorf("%s", reason))
		return
	}
	if e := l.events(ctx, j.Namespace, j.UID); reason == "" {
		reason = e
	}
	r.say(reason)
}

// evicted says that a Job was suspended after it had got a pod, as Kueue does to one
// whose quota another one takes. "": it was not.
func (l *Launcher) evicted(ctx context.Context, r *launch) string {
	if pod, _ := l.look(r); pod == nil || r.gone() == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	// kube: jobs, get
	j, err := l.config.Client.BatchV1().Jobs(r.job.Namespace).Get(ctx, r.job.Name, metav1.GetOptions{})
	if err != nil || j.Spec.Suspend == nil || !*j.Spec.Suspend {
		return ""
	}
	return "evicted: the Job was suspended, its queue is " + cmp.Or(j.Labels[queueLabel], "none")
}

func (l *Launcher) events(ctx context.Context, namespace string, of types.UID) string {
	// kube: events, list
	list, err := l.config.Client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(of)).String(),
	})
	if err != nil {
		return ""
	}
	return eventReason(list.Items)
}

// mine reports whether a Job that has the name already is the one we would make.
func mine(j *batchv1.Job, c class.Class, session string) error {
	owned := slices.ContainsFunc(j.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == c.UID })
	switch {
	case j.Labels[class.SessionLabel] != Session(session) || j.Labels[class.Label] != c.Name || !owned:
		return fmt.Errorf("the name is taken by a Job of something else: delete it")
	case j.DeletionTimestamp != nil:
		return fmt.Errorf("the session had a Job before, which is being deleted")
	case j.Status.CompletionTime != nil || j.Status.Failed > 0:
		return fmt.Errorf("the session had a Job before, which has ended")
	}
	return nil
}

// words puts a message of Kubernetes behind our words, on one line.
func words(what, message string) string {
	if message = strings.Join(strings.Fields(message), " "); message == "" {
		return what
	}
	return what + ": " + message
}
