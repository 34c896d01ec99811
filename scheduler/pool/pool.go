package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
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

// Errors of Lease. Both mean: look at Workers again.
var (
	// ErrFull occurs when the worker has no free slot.
	ErrFull = errors.New("no slot is free")
	// ErrGone occurs when the worker is not there any more, restarted, cannot be
	// reached now, or takes no new sessions.
	ErrGone = errors.New("the worker takes no sessions")
)

// Config of a Pool.
type Config struct {
	Client    kubernetes.Interface
	Namespace string
	Open      lease.Open // opens a channel
	// Log defaults to none.
	Log *zap.Logger
	// Settle is how long Ready waits for silent workers. Defaults to 5 s.
	Settle time.Duration
	// Describe is how often a worker is asked what it runs. Defaults to 10 s.
	Describe time.Duration
	// Unknown is how long a lease may stand for a session that the worker does
	// not know. Defaults to 30 s.
	Unknown time.Duration
}

// Pool is the warm workers of one namespace. It owns their channels. Its
// methods may be called from any goroutine.
type Pool struct {
	config   Config
	informer coreinformers.PodIndexInformer
	changed  chan struct{}
	tending  sync.WaitGroup // the goroutines of the workers

	mu      sync.Mutex
	workers map[types.UID]*worker
	settled bool // Settle has passed
	ready   bool // Ready was true once
}

// WorkerState is what placement sees of a worker.
type WorkerState = channels.WorkerState

// New makes a Pool, which knows nothing until Run.
func New(c Config) (*Pool, error) {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	c.Settle = cmp.Or(c.Settle, 5*time.Second)
	c.Describe = cmp.Or(c.Describe, 10*time.Second)
	c.Unknown = cmp.Or(c.Unknown, 30*time.Second)
	p := &Pool{config: c, changed: make(chan struct{}, 1), workers: map[types.UID]*worker{}}
	// kube: pods, list, watch
	p.informer = coreinformers.NewTypedFilteredPodInformer(c.Client, c.Namespace, 0, nil,
		func(o *metav1.ListOptions) {
			o.LabelSelector = class.Label + "," + class.RoleLabel + "!=" + class.RoleJob
		})
	err := errors.Join(
		p.informer.SetTransform(withoutManagedFields),
		p.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			c.Log.Warn("the warm workers cannot be watched; trying again", zap.String("namespace", c.Namespace), zap.Error(err))
		}))
	if err != nil {
		return nil, fmt.Errorf("watch the warm workers of namespace %s: %w", c.Namespace, err)
	}
	return p, nil
}

// Run watches the workers and serves their channels until ctx is done; then it
// closes them, which ends the leases, and waits. It is called once.
func (p *Pool) Run(ctx context.Context) error {
	handler, err := p.informer.AddTypedEventHandler(coreinformers.PodHandlerFuncs{
		AddFunc:    func(pod *corev1.Pod) { p.seen(ctx, pod) },
		UpdateFunc: func(_, pod *corev1.Pod) { p.seen(ctx, pod) },
		DeleteFunc: func(d coreinformers.DeletedPod) { p.deleted(d.OptionalObj) },
	})
	if err != nil {
		return fmt.Errorf("watch the warm workers of namespace %s: %w", p.config.Namespace, err)
	}
	p.tending.Go(func() { p.settle(ctx, handler) })
	p.informer.RunWithContext(ctx)
	p.tending.Wait()
	return nil
}

// settle ends the wait for silent workers.
func (p *Pool) settle(ctx context.Context, handler cache.ResourceEventHandlerRegistration) {
	if !cache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
		return
	}
	p.wake() // Ready may be true at once
	select {
	case <-ctx.Done():
	case <-time.After(p.config.Settle):
		p.mu.Lock()
		p.settled = true
		p.mu.Unlock()
		p.wake()
	}
}

// Ready reports whether every running worker has answered once, or the time for
// it has passed. Once true it stays true.
func (p *Pool) Ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready || !p.informer.HasSynced() {
		return p.ready
	}
	p.ready = p.settled || p.synced() && !slices.ContainsFunc(p.list(), func(w *worker) bool { return running(w.pod) != "" && !w.answered })
	return p.ready
}

// synced reports whether every pod in the cache has reached the handler: the
// two are filled one after the other.
func (p *Pool) synced() bool {
	for _, o := range p.informer.GetStore().List() {
		if pod := o.(*corev1.Pod); warm(pod) && !lease.Over(pod) && p.workers[pod.UID] == nil {
			return false
		}
	}
	return true
}

// Changed wakes one reader after a slot may have become free, a worker came or
// went, or Ready may have become true.
func (p *Pool) Changed() <-chan struct{} { return p.changed }

func (p *Pool) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Workers returns every warm worker, by name.
func (p *Pool) Workers() []WorkerState {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := make([]WorkerState, 0, len(p.workers))
	for _, w := range p.list() {
		states = append(states, w.state())
	}
	slices.SortFunc(states, func(a, b WorkerState) int { return strings.Compare(a.Pod, b.Pod) })
	return states
}

func (p *Pool) list() []*worker {
	all := make([]*worker, 0, len(p.workers))
	for _, w := range p.workers {
		all = append(all, w)
	}
	return all
}

// Lease takes a slot of the worker for a session. The error is ErrFull or
// ErrGone. The lease ends with the channel it was given on.
func (p *Pool) Lease(pod, nonce, session string) (*lease.Lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		c := w.conn
		if w.pod.Name != pod || c == nil || c.worker.Nonce != nonce || c.silent > 0 || w.draining() {
			continue
		}
		h := c.slots.hold(session)
		if h == nil {
			return nil, fmt.Errorf("lease worker %s: %w", pod, ErrFull)
		}
		return lease.New(lease.Terms{Worker: c.worker, Runner: c.channel.Runner(), Supervisor: c.channel.Supervisor(), Gone: h.gone, Cause: func() error { return h.cause },
			Release: func() { p.end(c, h, (*slots).release) },
			Leave:   func() { p.end(c, h, (*slots).destroy) },
			Destroy: func() {
				p.end(c, h, (*slots).destroy)
				c.ask()
			},
			Suspect: c.ask,
		}), nil
	}
	return nil, fmt.Errorf("lease worker %s: %w", pod, ErrGone)
}

// Resume takes over the slot of a session that runs on the worker: from an older
// lease, which then is a mere shell, or from nobody. It waits, bounded by ctx
// alone, for a channel to this very pod and boot, and returns what the worker now
// says of the session. The error is lease.ErrGone or lease.ErrUnknown, both final,
// or says what was waited for when ctx ended.
func (p *Pool) Resume(ctx context.Context, pod, podUID, nonce, session string) (*lease.Lease, *wire.SessionState, error) {
	return nil, nil, errors.ErrUnsupported
}

// Supervisor returns a way to order the worker about its sessions. It waits as
// Resume does. The error is lease.ErrGone, or says what was waited for.
func (p *Pool) Supervisor(ctx context.Context, pod, podUID, nonce string) (wire.SupervisorClient, error) {
	return nil, errors.ErrUnsupported
}

func (p *Pool) end(c *conn, h *hold, how func(*slots, *hold, time.Time)) {
	p.mu.Lock()
	how(&c.slots, h, time.Now())
	p.mu.Unlock()
	p.wake()
}

// seen takes the newest state of a pod.
func (p *Pool) seen(ctx context.Context, pod *corev1.Pod) {
	if !warm(pod) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.workers[pod.UID]
	switch {
	case lease.Over(pod):
		p.remove(w, pod)
	case w == nil:
		ctx, stop := context.WithCancel(ctx)
		w = &worker{pool: p, pod: pod, updated: make(chan struct{}), stop: stop}
		p.workers[pod.UID] = w
		p.tending.Go(func() { w.tend(ctx) })
	default:
		w.update(pod)
	}
	p.wake()
}

// deleted takes the last known state of a pod that is gone.
func (p *Pool) deleted(pod *corev1.Pod) {
	if pod == nil {
		return // never seen
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove(p.workers[pod.UID], pod)
	p.wake()
}

func (p *Pool) remove(w *worker, pod *corev1.Pod) {
	if w == nil {
		return
	}
	delete(p.workers, pod.UID)
	w.gone = true
	w.update(pod)
	w.stop()
}

// warm reports whether the pod is one of a Deployment's: Jobs made from the same
// template carry the same labels.
func warm(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "ReplicaSet"
}

// running is the id of the running worker container, "" when none runs.
func running(pod *corev1.Pod) string {
	if s := lease.Status(pod); s != nil && s.State.Running != nil {
		return s.ContainerID
	}
	return ""
}

func withoutManagedFields(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}
