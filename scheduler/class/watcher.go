package class

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	appsinformers "k8s.io/client-go/informers/apps/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// Config of a Watcher. All fields but Log are needed.
type Config struct {
	Client    kubernetes.Interface
	Namespace string
	// Log defaults to none.
	Log *zap.Logger
}

// Watcher knows the classes of one namespace. Its methods may be called from
// any goroutine, also before and after Run.
type Watcher struct {
	config   Config
	informer appsinformers.DeploymentIndexInformer
	events   record.EventBroadcaster
	recorder record.EventRecorder
	changed  chan struct{}

	mu       sync.RWMutex
	classes  map[string]Class     // by the Deployment's name
	reported map[types.UID]string // what was said about each Deployment, and of which generation
}

// NewWatcher makes a Watcher, which knows nothing until Run.
func NewWatcher(c Config) (*Watcher, error) {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	w := &Watcher{
		config: c, changed: make(chan struct{}, 1),
		classes: map[string]Class{}, reported: map[types.UID]string{},
	}
	// kube: deployments, list, watch
	w.informer = appsinformers.NewTypedFilteredDeploymentInformer(c.Client, c.Namespace, 0, nil,
		func(o *metav1.ListOptions) { o.LabelSelector = Label })
	if err := w.informer.SetTransform(WithoutManagedFields); err != nil {
		return nil, fmt.Errorf("watch the classes of namespace %s: %w", c.Namespace, err)
	}
	if err := w.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		c.Log.Warn("the classes cannot be watched; trying again", zap.String("namespace", c.Namespace), zap.Error(err))
	}); err != nil {
		return nil, fmt.Errorf("watch the classes of namespace %s: %w", c.Namespace, err)
	}
	return w, nil
}

// Run watches until ctx is done. It is called once.
func (w *Watcher) Run(ctx context.Context) error {
	w.events = record.NewBroadcaster(record.WithContext(ctx))
	// kube: events, create, patch
	w.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: w.config.Client.CoreV1().Events(w.config.Namespace)})
	defer w.events.Shutdown()
	w.recorder = w.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "ffpod-scheduler"})
	_, err := w.informer.AddTypedEventHandler(appsinformers.DeploymentHandlerFuncs{
		AddFunc:    w.update,
		UpdateFunc: func(_, d *appsv1.Deployment) { w.update(d) },
		DeleteFunc: func(d appsinformers.DeletedDeployment) { w.remove(d) },
	})
	if err != nil {
		return fmt.Errorf("watch the classes of namespace %s: %w", w.config.Namespace, err)
	}
	w.informer.RunWithContext(ctx)
	return nil
}

// Synced reports whether the classes that exist have been read.
func (w *Watcher) Synced() bool { return w.informer.HasSynced() }

// Changed wakes one reader after a class came, went or changed.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// List returns the classes that can be used, by name.
func (w *Watcher) List() []Class {
	return slices.DeleteFunc(w.All(), func(c Class) bool { return !c.Usable })
}

// All returns every class, also those that cannot be used, by name.
func (w *Watcher) All() []Class {
	w.mu.RLock()
	defer w.mu.RUnlock()
	all := make([]Class, 0, len(w.classes))
	for _, c := range w.classes {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Class) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Deployment, b.Deployment))
	})
	// Of two Deployments with one name, the first counts. It is the same one on
	// every replica of the scheduler and after every restart.
	for i := 1; i < len(all); i++ {
		if all[i].Name == all[i-1].Name {
			all[i].Usable = false
			all[i].Problems = append([]string{twice(all[i].Name, all[i-1].Deployment)}, all[i].Problems...)
		}
	}
	return all
}

// Get returns a class that can be used.
func (w *Watcher) Get(name string) (Class, bool) {
	for _, c := range w.List() {
		if c.Name == name {
			return c, true
		}
	}
	return Class{}, false
}

func twice(name, other string) string {
	return fmt.Sprintf("class %s is also the name of Deployment %s: this one is not used", name, other)
}

func (w *Watcher) update(d *appsv1.Deployment) {
	c, problems := FromDeployment(d)
	c.Usable = c.Usable && d.DeletionTimestamp == nil
	w.mu.Lock()
	w.classes[d.Name] = c
	w.mu.Unlock()
	for _, other := range w.All() {
		if other.UID == c.UID {
			problems = other.Problems
		}
	}
	w.report(d, problems)
	w.wake()
}

func (w *Watcher) remove(d appsinformers.DeletedDeployment) {
	w.mu.Lock()
	if c, ok := w.classes[d.GetObjectName().Name]; ok {
		delete(w.reported, c.UID)
		delete(w.classes, c.Deployment)
	}
	w.mu.Unlock()
	w.wake()
}

// report puts the problems on the Deployment as Events, once per generation.
func (w *Watcher) report(d *appsv1.Deployment, problems []string) {
	said := fmt.Sprint(d.Generation, problems)
	w.mu.Lock()
	old := w.reported[d.UID]
	w.reported[d.UID] = said
	w.mu.Unlock()
	if old == said {
		return
	}
	for _, p := range problems {
		w.recorder.Event(d, corev1.EventTypeWarning, "ClassProblem", p)
		w.config.Log.Warn("a class has a problem", zap.String("class", d.Labels[Label]), zap.String("deployment", d.Name), zap.String("problem", p))
	}
}

func (w *Watcher) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// WithoutManagedFields is an informer's transform: nobody reads them, and they are
// the larger part of an object.
func WithoutManagedFields(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}
