package job

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// Standby is a Job that was made ahead of need.
type Standby struct {
	Class    string
	Job      string
	UID      types.UID
	Template string    // Fingerprint of the class that it was made from
	Made     time.Time // by the API server's clock
	// Pod and Node are empty until there is one, Nonce until its worker has answered.
	Pod, PodUID, Nonce, Node string
	// Ready: its worker answers and is free.
	Ready bool
	// Taken: a session has it, or had it.
	Taken bool
	// Over: it has ended, or is being deleted.
	Over bool
	// Waits is what keeps it from running, in Kubernetes' words. "": nothing is
	// known to.
	Waits string
}

// standby is what the launcher keeps in mind of a Standby. It is guarded by the
// launcher's mutex.
type standby struct {
	class string
	made  time.Time // zero: not by this process, or seen in a list
	taken bool
	kept  bool // its deadline is to be moved
}

// startsKept bounds the memory of when sessions took a Job.
const startsKept = time.Hour

// Fingerprint is the same for two classes if their Jobs are.
func Fingerprint(c class.Class) string {
	text, err := json.Marshal(StandbySpec(c, "", time.Minute, 0))
	if err != nil { // a template that came as JSON goes as JSON
		return ""
	}
	return digest(string(text))
}

// StandbySpec makes a Job ahead of need: that of a session without one, whose
// worker waits for as long as a scheduler asks for it.
func StandbySpec(c class.Class, name string, deadline, ttl time.Duration) *batchv1.Job {
	j := Spec(c, name, deadline, ttl)
	for _, labels := range []map[string]string{j.Labels, j.Spec.Template.Labels} {
		delete(labels, class.SessionLabel)
	}
	for i := range j.Spec.Template.Spec.Containers {
		if w := &j.Spec.Template.Spec.Containers[i]; w.Name == podexec.Container {
			w.Env = slices.DeleteFunc(w.Env, func(e corev1.EnvVar) bool { return e.Name == standbyEnv || e.Name == idleEnv })
			w.Env = append(w.Env, corev1.EnvVar{Name: standbyEnv, Value: "1"}, corev1.EnvVar{Name: idleEnv, Value: (deadline / 2).String()})
		}
	}
	return j
}

// MakeStandby makes one Job ahead of need and does not wait for it. The error is
// ErrLimit, or the API server's.
func (l *Launcher) MakeStandby(ctx context.Context, c class.Class) error {
	template := Fingerprint(c)
	j := StandbySpec(c, "standby/"+rand.Text(), l.config.Deadline, l.config.TTL)
	j.Labels[class.StandbyLabel], j.Spec.Template.Labels[class.StandbyLabel] = template, template
	now := time.Now()
	l.mu.Lock()
	switch {
	case l.stopped:
		l.mu.Unlock()
		return errStopping
	case l.active(c.Name) >= c.Jobs:
		l.mu.Unlock()
		return fmt.Errorf("make a standby Job of class %s: %w: %d", c.Name, ErrLimit, c.Jobs)
	}
	l.standbys[j.Name] = &standby{class: c.Name, made: now, kept: true}
	l.deadlines[j.Name] = deadline{begun: now, extended: now}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// kube: jobs, create
	if _, err := l.config.Client.BatchV1().Jobs(j.Namespace).Create(ctx, j, metav1.CreateOptions{}); err != nil {
		l.troubles.note(c.Name, waiting+err.Error(), now)
		if permanent(err) { // else it may have been made, and the next list tells
			l.mu.Lock()
			delete(l.standbys, j.Name)
			l.mu.Unlock()
		}
		return fmt.Errorf("make standby Job %s: %w", j.Name, err)
	}
	return nil
}

// Standbys asks for all Jobs that were made ahead of need, whoever made them, by
// name.
func (l *Launcher) Standbys(ctx context.Context) ([]Standby, error) {
	asked := time.Now()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// kube: jobs, list
	jobs, err := l.config.Client.BatchV1().Jobs(l.config.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: class.Label + "," + class.StandbyLabel + "," + class.RoleLabel + "=" + class.RoleJob,
	})
	if err != nil {
		return nil, fmt.Errorf("list the standby Jobs of namespace %s: %w", l.config.Namespace, err)
	}
	all := make([]Standby, 0, len(jobs.Items))
	for i := range jobs.Items {
		all = append(all, l.describe(ctx, &jobs.Items[i]))
	}
	slices.SortFunc(all, func(a, b Standby) int { return strings.Compare(a.Job, b.Job) })
	l.remember(all, asked)
	return all, nil
}

// describe joins a Job with what is known of its pod and worker.
func (l *Launcher) describe(ctx context.Context, j *batchv1.Job) Standby {
	s := Standby{Class: j.Labels[class.Label], Job: j.Name, UID: j.UID, Template: j.Labels[class.StandbyLabel], Made: j.CreationTimestamp.Time,
		Taken: j.Labels[class.SessionLabel] != "", Over: j.DeletionTimestamp != nil || finished(j)}
	for _, o := range l.informer.GetStore().List() {
		if pod := o.(*corev1.Pod); lease.JobOf(pod) == j.Name {
			s.Pod, s.PodUID, s.Node, s.Waits = pod.Name, string(pod.UID), pod.Spec.NodeName, lease.Waits(pod)
			s.Over = s.Over || lease.Over(pod) || pod.DeletionTimestamp != nil
		}
	}
	if s.Pod == "" && !s.Over && time.Since(s.Made) > l.config.Explain {
		reason, _ := jobReason(j)
		reason = strings.TrimPrefix(cmp.Or(reason, l.events(ctx, j.Namespace, j.UID)), waiting)
		s.Waits = cmp.Or(reason, "its pod is not there yet")
	}
	if s.Waits != "" {
		l.troubles.note(s.Class, waiting+s.Waits, time.Now())
	}
	for _, w := range l.keeper.Workers() {
		if w.Job == j.Name {
			s.Nonce, s.Ready = w.Nonce, free(w)
			s.Taken = s.Taken || w.Used > 0 || len(w.Description.GetSessions()) > 0
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.standbys[j.Name]; known != nil && known.taken {
		s.Taken = true
	}
	s.Ready = s.Ready && !s.Taken && !s.Over
	return s
}

// remember replaces what is known by what a list told. What was made since it was
// asked for stays.
func (l *Launcher) remember(all []Standby, asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.standbys
	l.standbys = map[string]*standby{}
	for name, s := range before {
		if s.made.After(asked.Add(-callTimeout)) || l.launches[name] != nil {
			l.standbys[name] = s
		}
	}
	for _, s := range all {
		switch known := before[s.Job]; {
		case s.Over:
			delete(l.standbys, s.Job)
		case known != nil:
			known.made, known.taken = time.Time{}, known.taken || s.Taken
			l.standbys[s.Job] = known
		default:
			l.standbys[s.Job] = &standby{class: s.Class, taken: s.Taken, kept: true}
		}
	}
}

// free reports whether the worker of a standby can be taken.
func free(w channels.WorkerState) bool {
	return w.Ready && !w.Draining && w.Used == 0 && w.Slots > 0 && len(w.Description.GetSessions()) == 0
}

// Free lists the standbys that can be taken now, by pod. It asks nobody.
func (l *Launcher) Free() []channels.WorkerState {
	workers := l.keeper.Workers()
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(workers, func(w channels.WorkerState) bool {
		s := l.standbys[w.Job]
		return s == nil || s.taken || !free(w)
	})
}

// Take leases a standby for a session that is to be started. From then on its Job
// is like one that was made for the session. The error is channels.ErrFull or
// channels.ErrGone: look at Free again.
func (l *Launcher) Take(pod, nonce, session string) (*lease.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found *corev1.Pod
	if o, ok, _ := l.informer.GetStore().GetByKey(l.config.Namespace + "/" + pod); ok {
		found = o.(*corev1.Pod)
	}
	if l.stopped || found == nil {
		return nil, fmt.Errorf("take standby %s: %w", pod, channels.ErrGone)
	}
	name := lease.JobOf(found)
	s := l.standbys[name]
	if s == nil || s.taken || l.launches[name] != nil {
		return nil, fmt.Errorf("take standby %s: %w", pod, channels.ErrFull)
	}
	terms, err := l.keeper.Lease(pod, nonce, session)
	if err != nil {
		return nil, err
	}
	s.taken = true
	l.launches[name] = &launch{
		class: s.class, session: session, job: &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: l.config.Namespace}},
		fail: func(error) {}, say: func(string) {}, created: true, handed: true, pod: found, updated: make(chan struct{}),
	}
	l.started(s.class)
	l.serving.Go(func() { l.claim(name, session) })
	return lease.New(l.terms(context.Background(), terms)), nil
}

// claim puts the session on the Job, by which it is found when it has to be
// deleted. The session does not wait for that.
func (l *Launcher) claim(name, session string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, class.SessionLabel, Session(session))
	for pause := leastPause; ; pause *= 2 {
		// kube: jobs, patch
		_, err := l.config.Client.BatchV1().Jobs(l.config.Namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err == nil {
			return
		}
		if permanent(err) || !sleep(ctx, pause) {
			l.config.Log.Warn("a standby Job that was taken cannot be labelled with its session", zap.String("job", name), zap.String("session", session), zap.Error(err))
			return
		}
	}
}

// Retire ends a standby that no session has. False: one has it.
func (l *Launcher) Retire(ctx context.Context, s Standby) bool {
	l.mu.Lock()
	known := l.standbys[s.Job]
	if s.Taken || known == nil || known.taken || !l.keeper.Cordon(s.PodUID) {
		l.mu.Unlock()
		return false
	}
	known.kept = false
	l.mu.Unlock()
	ask, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if s.PodUID != "" && len(l.keeper.Ask(ask, s.PodUID).GetSessions()) > 0 { // another scheduler's
		return false
	}
	l.delete(ctx, s.Job, s.UID)
	l.mu.Lock()
	delete(l.standbys, s.Job)
	l.mu.Unlock()
	return true
}

// started counts a session that takes a Job of a class. The mutex is held.
func (l *Launcher) started(name string) {
	now := time.Now()
	l.starts[name] = append(slices.DeleteFunc(l.starts[name], func(at time.Time) bool { return now.Sub(at) > startsKept }), now)
}

// Starts counts the sessions that took a Job of the class, or a standby, within
// the last hour and since then.
func (l *Launcher) Starts(name string, since time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, at := range l.starts[name] {
		if at.After(since) {
			n++
		}
	}
	return n
}

// Ended is when a pod of a Job last ended and left its resources to others.
func (l *Launcher) Ended() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// Unplaced lists the classes that have a session's Job which gets no node.
func (l *Launcher) Unplaced() []string {
	var names []string
	for _, o := range l.informer.GetStore().List() {
		if pod := o.(*corev1.Pod); ofJob(pod) && pod.Labels[class.StandbyLabel] == "" && lease.Unplaced(pod) != "" {
			names = append(names, pod.Labels[class.Label])
		}
	}
	return names
}
