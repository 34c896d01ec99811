package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ffpod/ffpod/podexec/session"
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
	// forward. Defaults to 10 min, or twice the grace when that is more.
	Deadline time.Duration
	// TTL is how long a finished Job stays to be looked at. Defaults to 2 min.
	TTL time.Duration
	// Explain is how long a start may be slow before Events are read, and how
	// often they are read again. Defaults to 1 s.
	Explain time.Duration
	// Grace is the longest time for which a worker keeps a session, or its exit,
	// that nobody is attached to. Defaults to 5 min.
	Grace time.Duration
	// Idle is how long a worker may have no session before its Job is deleted: it
	// ends by itself before. Defaults to 75 s.
	Idle time.Duration
	// Reconcile is how often Jobs, pods and sessions are compared. Defaults to
	// 15 s.
	Reconcile time.Duration
	// Doubt is how long a Job whose worker has not told that it serves nobody must
	// have looked like it. Defaults to 1 min.
	Doubt time.Duration
	// Settle is how long Ready waits for silent workers, Describe how often a
	// worker is asked. The defaults are those of package channels.
	Settle, Describe time.Duration
}

// Launcher makes the Jobs of one namespace. It owns the channels to their
// workers. Its methods may be called from any goroutine.
type Launcher struct {
	config   Config
	informer coreinformers.PodIndexInformer
	changed  chan struct{}
	keeper   *channels.Keeper
	serving  sync.WaitGroup // loops and deletions

	mu        sync.Mutex
	launches  map[string]*launch  // by the Job's name, until its first lease has ended
	deadlines map[string]deadline // of the Jobs that are no launch, by name
	standbys  map[string]*standby // Jobs made ahead of need that are known, by name
	starts    map[string][]time.Time
	ended     time.Time // when a Job's pod last ended
	stopped   bool

	troubles troubles
}

// New makes a Launcher, which launches while Run runs.
func New(c Config) (*Launcher, error) {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	c.Grace = cmp.Or(c.Grace, session.DefaultGrace)
	c.Deadline = cmp.Or(c.Deadline, max(10*time.Minute, 2*c.Grace))
	c.TTL = cmp.Or(c.TTL, 2*time.Minute)
	c.Explain = cmp.Or(c.Explain, time.Second)
	c.Idle = cmp.Or(c.Idle, 75*time.Second)
	c.Doubt = cmp.Or(c.Doubt, time.Minute)
	c.Reconcile = cmp.Or(c.Reconcile, 15*time.Second)
	l := &Launcher{config: c, changed: make(chan struct{}, 1), launches: map[string]*launch{}, deadlines: map[string]deadline{},
		standbys: map[string]*standby{}, starts: map[string][]time.Time{}}
	l.keeper = channels.New(channels.Config{
		// kube: pods, get
		Get: func(ctx context.Context, name string) (*corev1.Pod, error) {
			return c.Client.CoreV1().Pods(c.Namespace).Get(ctx, name, metav1.GetOptions{})
		},
		Open: c.Open, ClassLabel: class.Label, Ours: ofJob, Verify: verify, Wake: l.wake, Log: c.Log, Settle: c.Settle, Describe: c.Describe,
	})
	// kube: pods, list, watch
	l.informer = coreinformers.NewTypedFilteredPodInformer(c.Client, c.Namespace, 0, nil,
		func(o *metav1.ListOptions) {
			o.LabelSelector = class.Label + "," + class.RoleLabel + "=" + class.RoleJob
		})
	err := errors.Join(
		l.informer.SetTransform(class.WithoutManagedFields),
		l.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			c.Log.Warn("the pods of Jobs cannot be watched; trying again", zap.String("namespace", c.Namespace), zap.Error(err))
		}))
	if err != nil {
		return nil, fmt.Errorf("watch the Jobs of namespace %s: %w", c.Namespace, err)
	}
	return l, nil
}

// Run watches the Jobs' pods, keeps a channel to every worker, moves the
// deadlines of living Jobs and deletes those that serve nobody, until ctx is
// done. Then launches fail, channels are closed, and it waits for both. Jobs whose
// session runs are left to themselves. It is called once.
func (l *Launcher) Run(ctx context.Context) error {
	handler, err := l.informer.AddTypedEventHandler(coreinformers.PodHandlerFuncs{
		AddFunc:    func(pod *corev1.Pod) { l.seen(pod, false) },
		UpdateFunc: func(_, pod *corev1.Pod) { l.seen(pod, false) },
		DeleteFunc: func(d coreinformers.DeletedPod) { l.seen(d.OptionalObj, true) },
	})
	if err != nil {
		return fmt.Errorf("watch the Jobs of namespace %s: %w", l.config.Namespace, err)
	}
	l.serving.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
			l.keeper.Settle()
		}
	})
	l.serving.Go(func() { l.extendAll(ctx) })
	l.serving.Go(func() { l.reconcileAll(ctx) })
	l.informer.RunWithContext(ctx)
	l.mu.Lock()
	l.stopped = true
	for _, r := range l.launches {
		r.fail(errStopping)
	}
	l.mu.Unlock()
	l.keeper.Stop()
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
	for job, s := range l.standbys {
		if s.class == name {
			jobs[job] = true
		}
	}
	for _, o := range l.informer.GetStore().List() {
		if pod := o.(*corev1.Pod); pod.Labels[class.Label] == name && !lease.Over(pod) {
			jobs[lease.JobOf(pod)] = true
		}
	}
	return len(jobs)
}

// Resume takes over the session that the worker of a Job runs: from an older
// lease, which then is a mere shell, or from nobody, whoever made the Job. It
// waits, bounded by ctx alone, for a channel to this very pod and boot, and
// returns what the worker now says of the session. The error is lease.ErrGone or
// lease.ErrUnknown, both final, or says what was waited for when ctx ended.
func (l *Launcher) Resume(ctx context.Context, pod, podUID, nonce, session string) (*lease.Lease, *wire.SessionState, error) {
	terms, state, err := l.keeper.Resume(ctx, pod, podUID, nonce, session)
	if err != nil {
		return nil, nil, err
	}
	return lease.New(l.terms(context.WithoutCancel(ctx), terms)), state, nil
}

// Supervisor returns a way to order the worker of a Job about its session. It
// waits as Resume does. The error is lease.ErrGone, or says what was waited for.
func (l *Launcher) Supervisor(ctx context.Context, pod, podUID, nonce string) (wire.SupervisorClient, error) {
	return l.keeper.Supervisor(ctx, pod, podUID, nonce)
}

// Workers returns the workers of all Jobs whose pod may run, whoever made them,
// but for those that are being launched here.
func (l *Launcher) Workers() []channels.WorkerState { return l.keeper.Workers() }

// Ready reports whether every worker of a Job that runs has answered once, or the
// time for it has passed. Once true it stays true.
func (l *Launcher) Ready() bool {
	return l.keeper.Ready(l.informer.HasSynced, func() (all []*corev1.Pod) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, o := range l.informer.GetStore().List() {
			pod := o.(*corev1.Pod)
			if r := l.launches[lease.JobOf(pod)]; ofJob(pod) && (r == nil || r.handed) {
				all = append(all, pod)
			}
		}
		return all
	})
}

// Changed wakes one reader after a Job may have made room for another.
func (l *Launcher) Changed() <-chan struct{} { return l.changed }

func (l *Launcher) wake() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// seen takes the newest state of a pod, which may have ended or be gone. The pod
// of a launch is the launch's until its worker has answered.
func (l *Launcher) seen(pod *corev1.Pod, deleted bool) {
	if pod == nil || !ofJob(pod) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r := l.launches[lease.JobOf(pod)]; {
	case r != nil && !r.handed:
		r.update(pod, deleted || lease.Over(pod))
	case deleted:
		l.keeper.Deleted(pod)
	default:
		l.keeper.Seen(pod)
	}
	if deleted || lease.Over(pod) {
		if c := lease.Status(pod); c != nil && (c.State.Running != nil || c.State.Terminated != nil) { // else it held nothing
			l.ended = time.Now()
		}
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

// delete deletes a Job with its pod, also when the caller is done; with a UID,
// only that very one. When that fails, the Job's deadline ends it.
func (l *Launcher) delete(ctx context.Context, name string, uid types.UID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	background := metav1.DeletePropagationBackground // the default would leave the pod running
	options := metav1.DeleteOptions{PropagationPolicy: &background}
	if uid != "" {
		options.Preconditions = &metav1.Preconditions{UID: &uid}
	}
	for pause := leastPause; ; pause *= 2 {
		// kube: jobs, delete
		err := l.config.Client.BatchV1().Jobs(l.config.Namespace).Delete(ctx, name, options)
		if err == nil || apierrors.IsNotFound(err) {
			return
		}
		if permanent(err) || !sleep(ctx, pause) {
			l.config.Log.Error("a Job cannot be deleted; its deadline will end it", zap.String("job", name), zap.Error(err))
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

// ofJob reports whether the pod is that of a Job made from a class.
func ofJob(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "Job" && pod.Labels[class.Label] != "" && pod.Labels[class.RoleLabel] == class.RoleJob
}
