package job

import (
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
	explainTimeout = 3 * time.Second        // for the pod's status to say why a channel broke
	lingerTimeout  = 5 * time.Second        // for a worker that has ended its session to end its channel
)

// launch is one Job from its making to the end of its lease. What the informer
// changes is guarded by the launcher's mutex.
type launch struct {
	class   string
	session string
	job     *batchv1.Job            // as we ask for it
	begun   time.Time               // before the Job was made
	fail    context.CancelCauseFunc // ends the launching
	say     func(reason string)     // reports what it waits for; "" says nothing

	created  bool
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
		fail: fail, say: last.say, updated: make(chan struct{}),
	}
	r.extended = r.begun
	if err := l.admit(ctx, r, c.Jobs); err != nil {
		return nil, fmt.Errorf("launch a Job of class %s: %w", c.Name, err)
	}
	held, err := l.start(ctx, r, c)
	if err != nil {
		if reason := last.reason(); reason != "" {
			err = fmt.Errorf("%w (%s)", err, reason)
		}
		err = fmt.Errorf("launch Job %s: %w", r.job.Name, err)
		if r.created {
			l.delete(ctx, r.job)
		}
		l.drop(r)
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
	held, err := l.lease(ctx, r, pod, channel)
	if err != nil {
		return nil, errors.Join(err, channel.Close())
	}
	return held, nil
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
	return nil
}

func (l *Launcher) drop(r *launch) {
	l.mu.Lock()
	delete(l.launches, r.job.Name)
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
			return fmt.Errorf("create it: %w", err)
		}
		r.say("waiting: create the Job: " + err.Error())
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
		case running(now):
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
		if passed && waits(pod) == nil || running(pod) && !running(before) {
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
	d := channel.Description()
	if err = lease.Verify(pod, pod.Labels[class.Label], d); err == nil && !d.GetOnce() {
		err = fmt.Errorf("verify worker %s: it does not serve a single session: env %s has no effect", pod.Name, onceEnv)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errWrong, err), channel.Close())
	}
	return channel, nil
}

func running(pod *corev1.Pod) bool {
	s := lease.Status(pod)
	return s != nil && s.State.Running != nil
}

// lease hands the worker to its holder, and watches it until the lease ends.
func (l *Launcher) lease(ctx context.Context, r *launch, pod *corev1.Pod, channel lease.Channel) (*lease.Lease, error) {
	ctx = context.WithoutCancel(ctx) // Destroy comes when the launch is long over
	var cause error
	gone, released, destroyed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return nil, errStopping
	}
	l.serving.Go(func() {
		cause = fmt.Errorf("worker %s of Job %s: %s", pod.Name, r.job.Name, l.watch(r, channel, released, destroyed))
		close(gone)
	})
	d := channel.Description()
	w := lease.Worker{Class: r.class, Pod: pod.Name, PodUID: string(pod.UID), Node: pod.Spec.NodeName, Nonce: d.GetNonce(), Job: r.job.Name}
	return lease.New(lease.Terms{Worker: w, Runner: channel.Runner(), Supervisor: channel.Supervisor(), Gone: gone, Cause: func() error { return cause },
		Release: func() {
			close(released)
			l.drop(r)
		},
		Leave: func() {
			close(released)
			l.drop(r)
		},
		Destroy: func() {
			close(destroyed)
			l.destroy(ctx, r)
		},
		Suspect: func() {},
	}), nil
}

// destroy deletes the Job, beside its caller: a session's last words do not wait
// for an API server that hangs.
func (l *Launcher) destroy(ctx context.Context, r *launch) {
	end := func() {
		l.delete(ctx, r.job)
		l.drop(r)
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

// watch closes the channel when it ends, the pod ends, or the lease ends, and
// says why it is of no use any more.
func (l *Launcher) watch(r *launch, channel lease.Channel, released, destroyed <-chan struct{}) string {
	why := l.ended(r, channel, released, destroyed)
	if err := channel.Close(); err != nil {
		l.config.Log.Debug("close a channel", zap.String("job", r.job.Name), zap.Error(err))
	}
	return why
}

func (l *Launcher) ended(r *launch, channel lease.Channel, released, destroyed <-chan struct{}) string {
	for {
		l.mu.Lock()
		over, why, updated := r.over, r.gone(), r.updated
		l.mu.Unlock()
		if over {
			return why
		}
		select {
		case <-updated:
		case <-released:
			linger := time.NewTimer(lingerTimeout)
			defer linger.Stop()
			select {
			case <-channel.Done():
			case <-linger.C:
			case <-l.stopping:
			}
			return "the lease was released"
		case <-destroyed:
			return "the lease was destroyed"
		case <-l.stopping:
			return "the scheduler closes its channels"
		case <-channel.Done():
			return l.broke(r, channel, released, destroyed)
		}
	}
}

// broke waits shortly for the pod's status to say why the channel broke.
func (l *Launcher) broke(r *launch, channel lease.Channel, released, destroyed <-chan struct{}) string {
	timeout := time.NewTimer(explainTimeout)
	defer timeout.Stop()
	for {
		l.mu.Lock()
		why, updated := r.gone(), r.updated
		l.mu.Unlock()
		if why != "" {
			return why
		}
		select {
		case <-updated:
			continue
		case <-timeout.C:
		case <-l.stopping:
		case <-released:
		case <-destroyed:
		}
		return fmt.Sprintf("its channel ended: %v", channel.Err())
	}
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
