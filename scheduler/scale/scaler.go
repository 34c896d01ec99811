package scale

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applyautoscalingv1 "k8s.io/client-go/applyconfigurations/autoscaling/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
)

const (
	callTimeout  = 10 * time.Second
	fieldManager = "ffpod-scheduler"
	// cordonLasts is longer than Kubernetes takes to remove a pod after it was told to.
	cordonLasts = 20 * time.Second
	// costAnnotation orders the pods that a ReplicaSet removes, the cheapest first.
	costAnnotation = "controller.kubernetes.io/pod-deletion-cost"
	// costEpoch keeps the cost, which falls with time, in 32 bits.
	costEpoch = 1_700_000_000
)

// workers is what the Scaler needs of *pool.Pool.
type workers interface {
	Workers() []channels.WorkerState
	Cordon(podUID string) bool
	Uncordon(podUID string)
}

// Config of a Scaler.
type Config struct {
	Client    kubernetes.Interface
	Namespace string
	// List returns the classes that exist.
	List func() []class.Class
	Pool workers
	// Waiting counts the sessions in the queue that want a warm worker of the class.
	Waiting func(class string) int
	// Unable says why Kubernetes runs no more warm workers of the class.
	Unable func(class string) string
	// Log defaults to none.
	Log *zap.Logger
	// Every is how often the classes are looked at. Defaults to 1 s.
	Every time.Duration
	// Window defaults to the constant.
	Window time.Duration
}

// Scaler scales the classes of one namespace. It is a prometheus.Collector of how
// many workers each class needs.
type Scaler struct {
	config Config
	wanted *prometheus.GaugeVec

	// Of Run alone.
	peaks     map[string]*peaks
	cordoned  map[string]time.Time // by pod UID, since when
	told      map[string]string    // what was logged of a class, so that it is logged once
	forbidden bool                 // to mark pods
}

// New makes a Scaler, which does nothing until Run.
func New(c Config) *Scaler {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	c.Every, c.Window = cmp.Or(c.Every, time.Second), cmp.Or(c.Window, Window)
	return &Scaler{config: c, peaks: map[string]*peaks{}, cordoned: map[string]time.Time{}, told: map[string]string{},
		wanted: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ffpod_workers_wanted",
			Help: "Warm workers that a class needs: those that have sessions, and enough for the sessions that wait."}, []string{"class"})}
}

// Describe implements prometheus.Collector.
func (s *Scaler) Describe(ch chan<- *prometheus.Desc) { s.wanted.Describe(ch) }

// Collect implements prometheus.Collector.
func (s *Scaler) Collect(ch chan<- prometheus.Metric) { s.wanted.Collect(ch) }

// Run scales until ctx is done. It is called once.
func (s *Scaler) Run(ctx context.Context) error {
	tick := time.NewTicker(s.config.Every)
	defer tick.Stop()
	for {
		s.look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Scaler) look(ctx context.Context, now time.Time) {
	for uid, since := range s.cordoned {
		if now.Sub(since) > cordonLasts {
			s.config.Pool.Uncordon(uid)
			delete(s.cordoned, uid)
		}
	}
	all, classes := s.config.Pool.Workers(), s.config.List()
	for name := range s.peaks {
		if !slices.ContainsFunc(classes, func(c class.Class) bool { return c.Name == name }) {
			delete(s.peaks, name)
			s.wanted.DeleteLabelValues(name)
		}
	}
	for _, c := range classes {
		own := slices.DeleteFunc(slices.Clone(all), func(w channels.WorkerState) bool { return w.Class != c.Name })
		if err := s.class(ctx, c, own, now); ctx.Err() == nil {
			s.tell(c.Name, err)
		}
	}
}

// tell logs what keeps a class from being scaled, once.
func (s *Scaler) tell(name string, err error) {
	said := ""
	if err != nil {
		said = err.Error()
	}
	if said != s.told[name] && err != nil {
		s.config.Log.Warn("a class cannot be scaled; trying again", zap.String("class", name), zap.Error(err))
	}
	s.told[name] = said
}

func (s *Scaler) class(ctx context.Context, c class.Class, own []channels.WorkerState, now time.Time) error {
	waiting := s.config.Waiting(c.Name)
	need := Need(c, own, waiting)
	s.wanted.WithLabelValues(c.Name).Set(float64(need))
	if s.peaks[c.Name] == nil {
		s.peaks[c.Name] = &peaks{}
	}
	p := s.peaks[c.Name]
	p.add(need, int(c.Replicas), now)
	if c.Scale == nil {
		return nil
	}
	unable := c.Unable
	if s.config.Unable != nil {
		unable = cmp.Or(s.config.Unable(c.Name), unable)
	}
	d := Plan(c, own, Demand{Waiting: waiting, Peak: p.most(now, s.config.Window), Unable: unable})
	if d.Why == "" {
		return nil
	}
	return s.act(ctx, c, own, d, now)
}

// act carries a decision out.
func (s *Scaler) act(ctx context.Context, c class.Class, own []channels.WorkerState, d Decision, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if len(d.Go) > 0 {
		went, err := s.single(ctx, own, d.Go, now)
		if went == 0 || err != nil {
			return err
		}
		d.Replicas = int(c.Replicas) - went
	}
	if err := s.replicas(ctx, c, d.Replicas); err != nil {
		s.release(d.Go)
		return err
	}
	s.config.Log.Info("class scaled", zap.String("class", c.Name), zap.Int("from", int(c.Replicas)), zap.Int("to", d.Replicas), zap.String("why", d.Why))
	return nil
}

// single sees to it that Kubernetes removes these workers, as far as they are still
// idle, and no other. It returns how many may go.
func (s *Scaler) single(ctx context.Context, own, chosen []channels.WorkerState, now time.Time) (int, error) {
	if s.forbidden || len(chosen) == len(own) {
		return s.allOf(own, chosen, now), nil
	}
	went := 0
	for _, w := range chosen {
		if !s.cordon(w, now) {
			continue
		}
		err := s.mark(ctx, w.Pod, now)
		if apierrors.IsForbidden(err) {
			s.forbidden = true
			s.config.Log.Warn("workers go only when all of a class are idle: pods may not be marked; list component autoscale", zap.Error(err))
		}
		if err != nil {
			s.release(chosen)
			return 0, fmt.Errorf("mark worker %s as the one to go: %w", w.Pod, err)
		}
		went++
	}
	return went, nil
}

// allOf cordons every worker of the class, or none: any of them may be removed.
func (s *Scaler) allOf(own, chosen []channels.WorkerState, now time.Time) int {
	for _, w := range own {
		if !w.Draining && !s.cordon(w, now) {
			s.release(own)
			return 0
		}
	}
	return len(chosen)
}

func (s *Scaler) cordon(w channels.WorkerState, now time.Time) bool {
	if !s.config.Pool.Cordon(w.PodUID) {
		return false
	}
	s.cordoned[w.PodUID] = now
	return true
}

func (s *Scaler) release(all []channels.WorkerState) {
	for _, w := range all {
		if _, ours := s.cordoned[w.PodUID]; ours {
			s.config.Pool.Uncordon(w.PodUID)
			delete(s.cordoned, w.PodUID)
		}
	}
}

// mark makes a pod the first of its ReplicaSet to be removed, also before one that
// was marked earlier and stayed.
func (s *Scaler) mark(ctx context.Context, pod string, now time.Time) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"%d"}}}`, costAnnotation, costEpoch-now.Unix())
	// kube: pods, patch
	_, err := s.config.Client.CoreV1().Pods(s.config.Namespace).Patch(ctx, pod, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// replicas sets the number of warm workers. The field is the scheduler's from then on:
// who applies another number server-side is told of the conflict.
func (s *Scaler) replicas(ctx context.Context, c class.Class, n int) error {
	scale := applyautoscalingv1.Scale().WithSpec(applyautoscalingv1.ScaleSpec().WithReplicas(int32(n)))
	// kube: deployments/scale, patch
	_, err := s.config.Client.AppsV1().Deployments(s.config.Namespace).ApplyScale(ctx, c.Deployment, scale, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("scale Deployment %s: %w; list component autoscale, which grants it", c.Deployment, err)
	}
	if err != nil {
		return fmt.Errorf("scale Deployment %s to %d: %w", c.Deployment, n, err)
	}
	return nil
}
