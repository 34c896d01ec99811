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
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// ErrLimit occurs when the class has as many Jobs as it may. Changed tells when
// to try again.
var ErrLimit = errors.New("the class has all the Jobs it may have")

// errStopping ends launches when Run ends.
var errStopping = errors.New("the scheduler stops")

// Config of a Launcher.
type Config struct {
	Client    kubernetes.Interface
	Namespace string
	Open      lease.Open // opens a channel
	// Log defaults to none.
	Log *zap.Logger
	// Deadline is how long a Job outlives the scheduler that moves its deadline
	// forward. Defaults to 10 min.
	Deadline time.Duration
	// TTL is how long a finished Job stays to be looked at. Defaults to 2 min.
	TTL time.Duration
	// Explain is how long a start may be slow before Events are read, and how
	// often they are read again. Defaults to 1 s.
	Explain time.Duration
}

// Launcher makes the Jobs of one namespace. It owns the channels to their
// workers. Its methods may be called from any goroutine.
type Launcher struct {
	config   Config
	informer coreinformers.PodIndexInformer
	changed  chan struct{}
	serving  sync.WaitGroup // the channels of leased workers
	stopping chan struct{}  // closed when Run ends

	mu       sync.Mutex
	launches map[string]*launch // by the Job's name, until the lease has ended
	stopped  bool
}

// New makes a Launcher, which launches while Run runs.
func New(c Config) (*Launcher, error) {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	c.Deadline = cmp.Or(c.Deadline, 10*time.Minute)
	c.TTL = cmp.Or(c.TTL, 2*time.Minute)
	c.Explain = cmp.Or(c.Explain, time.Second)
	l := &Launcher{config: c, changed: make(chan struct{}, 1), stopping: make(chan struct{}), launches: map[string]*launch{}}
	// kube: pods, list, watch
	l.informer = coreinformers.NewTypedFilteredPodInformer(c.Client, c.Namespace, 0, nil,
		func(o *metav1.ListOptions) {
			o.LabelSelector = class.Label + "," + class.RoleLabel + "=" + class.RoleJob
		})
	err := errors.Join(
		l.informer.SetTransform(withoutManagedFields),
		l.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			c.Log.Warn("the pods of Jobs cannot be watched; trying again", zap.String("namespace", c.Namespace), zap.Error(err))
		}))
	if err != nil {
		return nil, fmt.Errorf("watch the Jobs of namespace %s: %w", c.Namespace, err)
	}
	return l, nil
}

// Run watches the Jobs' pods and moves the deadlines of living Jobs until ctx is
// done. Then launches fail, channels are closed, which ends their leases, and it
// waits for both. Jobs whose session runs are left to themselves. It is called
// once.
func (l *Launcher) Run(ctx context.Context) error {
	_, err := l.informer.AddTypedEventHandler(coreinformers.PodHandlerFuncs{
		AddFunc:    func(pod *corev1.Pod) { l.seen(pod, false) },
		UpdateFunc: func(_, pod *corev1.Pod) { l.seen(pod, false) },
		DeleteFunc: func(d coreinformers.DeletedPod) { l.seen(d.OptionalObj, true) },
	})
	if err != nil {
		return fmt.Errorf("watch the Jobs of namespace %s: %w", l.config.Namespace, err)
	}
	l.serving.Go(func() { l.extendAll(ctx) })
	l.informer.RunWithContext(ctx)
	l.mu.Lock()
	l.stopped = true
	close(l.stopping)
	for _, r := range l.launches {
		r.fail(errStopping)
	}
	l.mu.Unlock()
	l.serving.Wait()
	return nil
}

// Active counts the Jobs of a class that hold its resources: those being
// started, those that run, and those whose pod has not ended yet.
func (l *Launcher) Active(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active(name)
}

func (l *Launcher) active(name string) int {
	jobs := map[string]bool{}
	for _, r := range l.launches {
		if r.class == name {
			jobs[r.job.Name] = true
		}
	}
	for _, o := range l.informer.GetStore().List() {
		if pod := o.(*corev1.Pod); pod.Labels[class.Label] == name && !lease.Over(pod) {
			jobs[jobOf(pod)] = true
		}
	}
	return len(jobs)
}

// Resume is Pool.Resume for the worker of a Job.
func (l *Launcher) Resume(ctx context.Context, pod, podUID, nonce, session string) (*lease.Lease, *wire.SessionState, error) {
	return nil, nil, errors.ErrUnsupported
}

// Supervisor is Pool.Supervisor for the worker of a Job.
func (l *Launcher) Supervisor(ctx context.Context, pod, podUID, nonce string) (wire.SupervisorClient, error) {
	return nil, errors.ErrUnsupported
}

// Workers returns the workers of all Jobs whose pod runs, whoever made them.
func (l *Launcher) Workers() []channels.WorkerState { return nil }

// Ready reports whether every worker of a Job that runs has answered once, or the
// time for it has passed. Once true it stays true.
func (l *Launcher) Ready() bool { return true }

// Changed wakes one reader after a Job may have made room for another.
func (l *Launcher) Changed() <-chan struct{} { return l.changed }

func (l *Launcher) wake() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// seen takes the newest state of a pod, which may have ended or be gone.
func (l *Launcher) seen(pod *corev1.Pod, deleted bool) {
	if pod == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.launches[jobOf(pod)]; r != nil {
		r.update(pod, deleted || lease.Over(pod))
	}
	if deleted || lease.Over(pod) {
		l.wake()
	}
}

// look returns the newest state of a launch's pod, nil before there is one, and
// a channel that closes when it changes.
func (l *Launcher) look(r *launch) (*corev1.Pod, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return r.pod, r.updated
}

// extendAll moves deadlines forward before a third of them has passed.
func (l *Launcher) extendAll(ctx context.Context) {
	tick := time.NewTicker(max(l.config.Deadline/20, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.mu.Lock()
		var due []*launch
		for _, r := range l.launches {
			if time.Since(r.extended) > l.config.Deadline*3/10 && r.created {
				due = append(due, r)
			}
		}
		l.mu.Unlock()
		for _, r := range due {
			l.extend(ctx, r)
		}
	}
}

// extend sets the deadline to its full length from now. It counts from the Job's
// start time, which is later than our begin: the sum is never too short.
func (l *Launcher) extend(ctx context.Context, r *launch) {
	now := time.Now()
	patch := fmt.Appendf(nil, `{"spec":{"activeDeadlineSeconds":%d}}`, (now.Sub(r.begun)+l.config.Deadline)/time.Second)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// kube: jobs, patch
	_, err := l.config.Client.BatchV1().Jobs(r.job.Namespace).Patch(ctx, r.job.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		l.config.Log.Warn("the deadline of a Job cannot be moved; trying again", zap.String("job", r.job.Name), zap.Error(err))
		return
	}
	l.mu.Lock()
	r.extended = now
	l.mu.Unlock()
}

// delete deletes a Job with its pod, also when the caller is done. When that
// fails, the Job's deadline ends it.
func (l *Launcher) delete(ctx context.Context, j *batchv1.Job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	background := metav1.DeletePropagationBackground // the default would leave the pod running
	for pause := leastPause; ; pause *= 2 {
		// kube: jobs, delete
		err := l.config.Client.BatchV1().Jobs(j.Namespace).Delete(ctx, j.Name, metav1.DeleteOptions{PropagationPolicy: &background})
		if err == nil || apierrors.IsNotFound(err) {
			return
		}
		if permanent(err) || !sleep(ctx, pause) {
			l.config.Log.Error("a Job cannot be deleted; its deadline will end it", zap.String("job", j.Name), zap.Error(err))
			return
		}
	}
}

// permanent reports whether the API server has answered, and would answer the
// same again.
func permanent(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		apierrors.IsNotFound(err) || apierrors.IsUnauthorized(err) || apierrors.IsMethodNotSupported(err) || apierrors.IsAlreadyExists(err)
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func jobOf(pod *corev1.Pod) string { return pod.Labels[batchv1.JobNameLabel] }

func withoutManagedFields(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}
