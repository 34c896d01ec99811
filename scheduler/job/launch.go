package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
)

const (
	callTimeout    = 10 * time.Second       // one call to the API server, with its retries
	openTimeout    = 15 * time.Second       // one try at a channel
	firstPause     = 100 * time.Millisecond // from the choice of a node to the first exec
	leastPause     = 50 * time.Millisecond  // between tries
	mostPause      = 200 * time.Millisecond // at first
	mostPauseAfter = 2 * time.Second        // when it is slow
)

// launch is one Job from its making to the end of its first lease. What the
// informer changes is guarded by the launcher's mutex.
type launch struct {
	class   string
	session string
	job     *batchv1.Job            // as we ask for it
	begun   time.Time               // before the Job was made
	fail    context.CancelCauseFunc // ends the launching
	say     func(reason string)     // reports what it waits for; "" says nothing

	created  bool
	handed   bool // the keeper has the pod from now on
	extended time.Time
	pod      *corev1.Pod
	over     bool // the pod has ended or is gone
	updated  chan struct{}
}

// update is called by the informer, with the launcher's mutex held.
func (r *launch) update(pod *corev1.Pod, over bool) {
	if r.pod != nil && r.pod.UID != pod.UID {
		return // not the worker we speak to; a Job runs one pod only
	}
	r.pod, r.over = pod, r.over || over
	close(r.updated)
	r.updated = make(chan struct{})
	if over || pod.DeletionTimestamp != nil {
		r.fail(errors.New(r.gone()))
	}
}

// gone says why the pod has ended, "" while it lives.
func (r *launch) gone() string {
	if r.pod == nil {
		return ""
	}
	if why := lease.Gone(r.pod, 0); why != "" || !r.over {
		return why
	}
	return "the pod is gone"
}

// Launch makes a Job for a session and returns when its worker answers. progress
// is called, one call at a time, with what it waits for, in words; it must not
// block. ctx bounds the launch only. The error is ErrLimit, or says what was
// tried and what Kubernetes last said; then nothing is left behind.
func (l *Launcher) Launch(ctx context.Context, c class.Class, session string, progress func(reason string)) (*lease.Lease, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	last := &reporter{to: progress}
	r := &launch{
		class: c.Name, session: session, job: Spec(c, session, l.config.Deadline, l.config.TTL), begun: time.Now(),
		fail: fail, updated: make(chan struct{}),
		say: func(reason string) {
			last.say(reason)
			l.troubles.note(c.Name, reason, time.Now())
		},
	}
	r.extended = r.begun
	if err := l.admit(ctx, r, c.Jobs); err != nil {
		return nil, fmt.Errorf("launch a Job of class %s: %w", c.Name, err)
	}
	held, err := l.start(ctx, r, c)
	if err != nil {
		if reason := cmp.Or(l.evicted(ctx, r), last.reason()); reason != "" {
			err = fmt.Errorf("%w (%s)", err, reason)
		}
		err = fmt.Errorf("launch Job %s: %w", r.job.Name, err)
		if r.created {
			l.delete(ctx, r.job.Name, "")
		}
		l.forget(r.job.Name)
		return nil, err
	}
	return held, nil
}

// start is the launch after its admission.
func (l *Launcher) start(ctx context.Context, r *launch, c class.Class) (*lease.Lease, error) {
	// 1. The Job.
	if err := l.create(ctx, r, c); err != nil {
		return nil, err
	}
	r.say("Job " + r.job.Name + " created")

	// 2. Its pod gets a node. Meanwhile, and on, whoever waits is told why.
	telling, stop := context.WithCancel(ctx)
	var teller sync.WaitGroup
	teller.Go(func() { l.explain(telling, r) })
	defer teller.Wait()
	defer stop()
	pod, err := l.scheduled(ctx, r)
	if err != nil {
		return nil, err
	}

	// 3. A channel, and the worker's answer on it.
	channel, err := l.dial(ctx, r, pod)
	if err != nil {
		return nil, err
	}

	// 4. The lease.
	return l.lease(ctx, r, channel)
}

// admit registers the launch, within the limit of its class.
func (l *Launcher) admit(ctx context.Context, r *launch, most int) error {
	if !cache.WaitForCacheSync(ctx.Done(), l.informer.HasSynced) {
		return fmt.Errorf("the pods of Jobs are not known yet: %w", context.Cause(ctx))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.stopped:
		return errStopping
	case l.launches[r.job.Name] != nil:
		return fmt.Errorf("session %s has Job %s already", r.session, r.job.Name)
	case l.active(r.class) >= most:
		return fmt.Errorf("%w: %d", ErrLimit, most)
	}
	l.launches[r.job.Name] = r
	l.started(r.class)
	return nil
}

// forget ends a launch: its Job, if it stays, is like any other.
func (l *Launcher) forget(name string) {
	l.mu.Lock()
	if r := l.launches[name]; r != nil {
		delete(l.launches, name)
		if r.handed {
			l.deadlines[name] = deadline{begun: r.begun, extended: r.extended}
		}
	}
	l.mu.Unlock()
	l.wake()
}

// create makes the Job. It tries again while the API server gives no answer: the
// name makes that safe.
func (l *Launcher) create(ctx context.Context, r *launch, c class.Class) error {
	for pause := leastPause; ; pause = min(2*pause, mostPauseAfter) {
		// kube: jobs, create
		_, err := l.config.Client.BatchV1().Jobs(r.job.Namespace).Create(ctx, r.job, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			err = l.adopt(ctx, r, c)
		}
		if err == nil || !permanent(err) {
			l.mu.Lock()
			r.created = true // without an answer it may have been made
			l.mu.Unlock()
		}
		switch {
		case err == nil:
			return nil
		case permanent(err):
			l.troubles.note(c.Name, waiting+err.Error(), time.Now())
			return fmt.Errorf("create it: %w", err)
		}
		r.say(waiting + "create the Job: " + err.Error())
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

// adopt takes a Job that exists already, if it is the one of this session.
func (l *Launcher) adopt(ctx context.Context, r *launch, c class.Class) error {
	// kube: jobs, get
	j, err := l.config.Client.BatchV1().Jobs(r.job.Namespace).Get(ctx, r.job.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := mine(j, c, r.session); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

// scheduled waits until the pod has a node.
func (l *Launcher) scheduled(ctx context.Context, r *launch) (*corev1.Pod, error) {
	for {
		pod, updated := l.look(r)
		if pod != nil && pod.Spec.NodeName != "" {
			return pod, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-updated:
		}
	}
}

// dial tries to open a channel until the worker answers. It does not wait for
// the pod's status, which may be a second late: an exec in a container that does
// not run yet is refused at once by its node.
func (l *Launcher) dial(ctx context.Context, r *launch, pod *corev1.Pod) (lease.Channel, error) {
	begun := time.Now()
	// No node has a container running in less than this.
	if err := l.rest(ctx, r, firstPause); err != nil {
		return nil, err
	}
	for pause := leastPause; ; pause *= 2 {
		channel, err := l.open(ctx, pod)
		if err == nil {
			return channel, nil
		}
		switch now, _ := l.look(r); {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case apierrors.IsForbidden(err) || errors.Is(err, errWrong):
			return nil, err
		case lease.Running(now) != nil:
			r.say("running, but the worker does not answer: " + err.Error())
		}
		// A slow start is tried less often: the status will be in time to tell.
		pause = min(pause, max(mostPause, time.Since(begun)/10), mostPauseAfter)
		if err := l.rest(ctx, r, pause); err != nil {
			return nil, err
		}
	}
}

// rest waits between two tries: until the time has passed, or the news comes
// that the container runs now. While something is known to keep it from
// starting, it waits for that to change.
func (l *Launcher) rest(ctx context.Context, r *launch, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	before, _ := l.look(r)
	for passed := false; ; {
		pod, updated := l.look(r)
		if passed && lease.Waiting(pod) == nil || lease.Running(pod) != nil && lease.Running(before) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			passed = true
		case <-updated:
		}
	}
}

// errWrong marks a worker that answers but is not the one meant.
var errWrong = errors.New("not the worker of this Job")

// open makes one try, and verifies who answers.
func (l *Launcher) open(ctx context.Context, pod *corev1.Pod) (lease.Channel, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	channel, err := l.config.Open(ctx, podexec.Target{Namespace: pod.Namespace, Pod: pod.Name})
	if err != nil {
		return nil, err
	}
	if err := verify(pod, channel.Description()); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errWrong, err), channel.Close())
	}
	return channel, nil
}

// verify says what is wrong with who answers in the pod of a Job.
func verify(pod *corev1.Pod, d *wire.Description) error {
	if err := lease.Verify(pod, pod.Labels[class.Label], d); err != nil {
		return err
	}
	if !d.GetOnce() {
		return fmt.Errorf("verify worker %s: it does not serve a single session: env %s has no effect", pod.Name, onceEnv)
	}
	return nil
}

// lease hands the worker to the keeper, which owns the channel from then on, and
// takes its one slot.
func (l *Launcher) lease(ctx context.Context, r *launch, channel lease.Channel) (*lease.Lease, error) {
	d := channel.Description()
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return nil, errors.Join(errStopping, channel.Close())
	}
	err := context.Cause(ctx)
	if err == nil {
		err = l.keeper.Enter(r.pod, channel)
	}
	r.handed = err == nil
	pod := r.pod
	l.mu.Unlock()
	l.troubles.answered(r.class)
	if err != nil {
		return nil, errors.Join(err, channel.Close())
	}
	// A Job that was there before its launch has been seen already: the keeper has
	// its own channel, or is about to.
	if _, err := l.keeper.Supervisor(ctx, pod.Name, string(pod.UID), d.GetNonce()); err != nil {
		return nil, err
	}
	terms, err := l.keeper.Lease(pod.Name, d.GetNonce(), r.session)
	if err != nil {
		return nil, err
	}
	return lease.New(l.terms(context.WithoutCancel(ctx), terms)), nil // Destroy comes when the launch is long over
}

// terms adds to the end of a lease what it means for the Job.
func (l *Launcher) terms(ctx context.Context, t lease.Terms) lease.Terms {
	release, leave, destroy := t.Release, t.Leave, t.Destroy
	t.Release = func() {
		release()
		l.keeper.Part(t.Worker.PodUID)
		l.forget(t.Worker.Job)
	}
	t.Leave = func() {
		leave()
		l.forget(t.Worker.Job)
	}
	t.Destroy = func() {
		destroy()
		l.keeper.Part(t.Worker.PodUID)
		l.destroy(ctx, t.Worker.Job)
	}
	return t
}

// destroy deletes the Job, beside its caller: a session's last words do not wait
// for an API server that hangs.
func (l *Launcher) destroy(ctx context.Context, name string) {
	end := func() {
		l.delete(ctx, name, "")
		l.forget(name)
	}
	l.mu.Lock()
	stopped := l.stopped
	if !stopped {
		l.serving.Go(end)
	}
	l.mu.Unlock()
	if stopped {
		end()
	}
}

// Discard deletes the Job of a session that is lost with its worker: the Job's
// controller may make another pod for it, which would serve nobody. It does not
// wait.
func (l *Launcher) Discard(session string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.serving.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		// kube: jobs, list
		jobs, err := l.config.Client.BatchV1().Jobs(l.config.Namespace).List(ctx, metav1.ListOptions{
			LabelSelector: class.SessionLabel + "=" + Session(session) + "," + class.RoleLabel + "=" + class.RoleJob,
		})
		if err != nil {
			l.config.Log.Warn("the Job of a lost session cannot be found; its worker's idle bound ends it", zap.String("session", session), zap.Error(err))
			return
		}
		for i := range jobs.Items {
			if j := &jobs.Items[i]; !finished(j) {
				l.delete(ctx, j.Name, j.UID)
			}
		}
	})
}

// reporter passes on what is new.
type reporter struct {
	to   func(string)
	mu   sync.Mutex
	last string
}

func (p *reporter) say(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reason == "" || reason == p.last {
		return
	}
	p.last = reason
	if p.to != nil {
		p.to(reason)
	}
}

func (p *reporter) reason() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}
