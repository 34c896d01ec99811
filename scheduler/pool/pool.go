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
	ErrFull = channels.ErrFull
	// ErrGone occurs when the worker is not there any more, restarted, cannot be
	// reached now, or takes no new sessions.
	ErrGone = channels.ErrGone
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
	// Idle and Unready are how long a pod without a running container, and one
	// whose node is not ready, is given before it counts as gone. The defaults are
	// those of package channels.
	Idle, Unready time.Duration
}

// Pool is the warm workers of one namespace. It owns their channels. Its
// methods may be called from any goroutine.
type Pool struct {
	config   Config
	informer coreinformers.PodIndexInformer
	keeper   *channels.Keeper
	changed  chan struct{}
}

// WorkerState is what placement sees of a worker.
type WorkerState = channels.WorkerState

// New makes a Pool, which knows nothing until Run.
func New(c Config) (*Pool, error) {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	p := &Pool{config: c, changed: make(chan struct{}, 1)}
	p.keeper = channels.New(channels.Config{
		// kube: pods, get
		Get: func(ctx context.Context, name string) (*corev1.Pod, error) {
			return c.Client.CoreV1().Pods(c.Namespace).Get(ctx, name, metav1.GetOptions{})
		},
		Open: c.Open, ClassLabel: class.Label, Ours: warm, Wake: p.wake, Log: c.Log, Settle: c.Settle, Describe: c.Describe, Unknown: c.Unknown, Idle: c.Idle, Unready: c.Unready,
		Verify: func(pod *corev1.Pod, d *wire.Description) error { return lease.Verify(pod, pod.Labels[class.Label], d) },
	})
	// kube: pods, list, watch
	p.informer = coreinformers.NewTypedFilteredPodInformer(c.Client, c.Namespace, 0, nil,
		func(o *metav1.ListOptions) {
			o.LabelSelector = class.Label + "," + class.RoleLabel + "!=" + class.RoleJob
		})
	err := errors.Join(
		p.informer.SetTransform(class.WithoutManagedFields),
		p.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			c.Log.Warn("the warm workers cannot be watched; trying again", zap.String("namespace", c.Namespace), zap.Error(err))
		}))
	if err != nil {
		return nil, fmt.Errorf("watch the warm workers of namespace %s: %w", c.Namespace, err)
	}
	return p, nil
}

// Run watches the workers and serves their channels until ctx is done; then it
// closes them, which breaks the streams on them but ends no session, and waits.
// It is called once.
func (p *Pool) Run(ctx context.Context) error {
	seen := func(pod *corev1.Pod) {
		if warm(pod) {
			p.keeper.Seen(pod)
		}
	}
	handler, err := p.informer.AddTypedEventHandler(coreinformers.PodHandlerFuncs{
		AddFunc:    seen,
		UpdateFunc: func(_, pod *corev1.Pod) { seen(pod) },
		DeleteFunc: func(d coreinformers.DeletedPod) { p.keeper.Deleted(d.OptionalObj) },
	})
	if err != nil {
		return fmt.Errorf("watch the warm workers of namespace %s: %w", p.config.Namespace, err)
	}
	var settling sync.WaitGroup
	settling.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), handler.HasSynced) {
			p.keeper.Settle()
		}
	})
	p.informer.RunWithContext(ctx)
	p.keeper.Stop()
	settling.Wait()
	return nil
}

// Ready reports whether every running worker has answered once, or the time for
// it has passed. Once true it stays true.
func (p *Pool) Ready() bool {
	return p.keeper.Ready(p.informer.HasSynced, func() (all []*corev1.Pod) {
		for _, o := range p.informer.GetStore().List() {
			if pod := o.(*corev1.Pod); warm(pod) {
				all = append(all, pod)
			}
		}
		return all
	})
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
func (p *Pool) Workers() []WorkerState { return p.keeper.Workers() }

// Lease takes a slot of the worker for a session that is to be started. The error
// is ErrFull or ErrGone.
func (p *Pool) Lease(pod, nonce, session string) (*lease.Lease, error) {
	terms, err := p.keeper.Lease(pod, nonce, session)
	if err != nil {
		return nil, err
	}
	return lease.New(terms), nil
}

// Resume takes over the slot of a session that runs on the worker: from an older
// lease, which then is a mere shell, or from nobody. It waits, bounded by ctx
// alone, for a channel to this very pod and boot, and returns what the worker now
// says of the session. The error is lease.ErrGone or lease.ErrUnknown, both final,
// or says what was waited for when ctx ended.
func (p *Pool) Resume(ctx context.Context, pod, podUID, nonce, session string) (*lease.Lease, *wire.SessionState, error) {
	terms, state, err := p.keeper.Resume(ctx, pod, podUID, nonce, session)
	if err != nil {
		return nil, nil, err
	}
	return lease.New(terms), state, nil
}

// Supervisor returns a way to order the worker about its sessions. It waits as
// Resume does. The error is lease.ErrGone, or says what was waited for.
func (p *Pool) Supervisor(ctx context.Context, pod, podUID, nonce string) (wire.SupervisorClient, error) {
	return p.keeper.Supervisor(ctx, pod, podUID, nonce)
}

// warm reports whether the pod is one of a Deployment's: Jobs made from the same
// template carry the same labels.
func warm(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "ReplicaSet" && pod.Labels[class.Label] != ""
}

// Cordon keeps a worker that has no session from getting one until Uncordon. False:
// it has one.
func (p *Pool) Cordon(podUID string) bool { return p.keeper.Cordon(podUID) }

// Uncordon lets a worker have sessions again.
func (p *Pool) Uncordon(podUID string) { p.keeper.Uncordon(podUID) }

// Unable says why a warm worker of the class does not start, in Kubernetes' words.
// "": nothing is known to keep one from it.
func (p *Pool) Unable(name string) string {
	for _, pod := range p.starting() {
		if why := lease.Waits(pod); why != "" && pod.Labels[class.Label] == name {
			return why
		}
	}
	return ""
}

// Unplaced lists the classes that have a warm worker which gets no node.
func (p *Pool) Unplaced() (names []string) {
	for _, pod := range p.starting() {
		if lease.Unplaced(pod) != "" {
			names = append(names, pod.Labels[class.Label])
		}
	}
	return names
}

// starting lists the pods without a running worker, the oldest first.
func (p *Pool) starting() (all []*corev1.Pod) {
	for _, o := range p.informer.GetStore().List() {
		if pod := o.(*corev1.Pod); warm(pod) && lease.Running(pod) == nil && pod.DeletionTimestamp == nil {
			all = append(all, pod)
		}
	}
	slices.SortFunc(all, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	return all
}
