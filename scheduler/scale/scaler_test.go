package scale

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
)

// fakePool is workers of which some get a session at the last moment.
type fakePool struct {
	workers []channels.WorkerState
	late    string // the UID of one that has got a session since it was looked at
	out     []string
}

func (p *fakePool) Workers() []channels.WorkerState { return slices.Clone(p.workers) }

func (p *fakePool) Cordon(uid string) bool {
	if uid == p.late || slices.ContainsFunc(p.workers, func(w channels.WorkerState) bool { return w.PodUID == uid && w.Used > 0 }) {
		return false
	}
	p.out = append(p.out, uid)
	return true
}

func (p *fakePool) Uncordon(uid string) {
	p.out = slices.DeleteFunc(p.out, func(u string) bool { return u == uid })
}

// api records patches, and refuses those of some resources.
func api(refused ...string) (*fake.Clientset, *[]string) {
	client := fake.NewClientset()
	var said []string
	client.PrependReactor("patch", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		p := a.(clienttesting.PatchAction)
		what := strings.TrimSuffix(p.GetResource().Resource+"/"+p.GetSubresource(), "/")
		if slices.Contains(refused, what) {
			return true, nil, apierrors.NewForbidden(p.GetResource().GroupResource(), p.GetName(), errors.New("not granted"))
		}
		text, _, _ := strings.Cut(string(p.GetPatch()), "cost\":\"") // the rest is the time
		said = append(said, what+" "+p.GetName()+" "+text)
		if what == "pods" {
			return true, &corev1.Pod{}, nil
		}
		return true, &autoscalingv1.Scale{}, nil
	})
	return client, &said
}

func TestScaler(t *testing.T) {
	mark := func(pod string) string {
		return `pods ` + pod + ` {"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-`
	}
	scale := func(n string) string {
		return `deployments/scale ffpod-cpu {"kind":"Scale","apiVersion":"autoscaling/v1","spec":{"replicas":` + n + `}}`
	}
	type all = []channels.WorkerState
	tests := map[string]struct {
		replicas int
		bounds   []int
		workers  all
		waiting  int
		late     string
		refused  []string
		want     []string
		out      []string // cordoned afterwards
	}{
		"without the annotation": {1, nil, all{worker(1, 0)}, 9, "", nil, nil, nil},
		"up":                     {1, []int{0, 3}, all{worker(1, 2)}, 1, "", nil, []string{scale("2")}, nil},
		"down by one, the other busy": {2, []int{0, 3}, all{worker(1, 1), worker(2, 0)}, 0, "", nil,
			[]string{mark("w2"), scale("1")}, []string{"u-w2"}},
		"to zero needs no mark": {2, []int{0, 3}, all{worker(1, 0), worker(2, 0)}, 0, "", nil, []string{scale("0")}, []string{"u-w1", "u-w2"}},
		"a session comes in between": {3, []int{0, 3}, all{worker(1, 0), worker(2, 0), worker(3, 1)}, 0, "u-w1", nil,
			[]string{mark("w2"), scale("2")}, []string{"u-w2"}},
		"a session comes in between, and all were to go": {2, []int{0, 3}, all{worker(1, 0), worker(2, 0)}, 0, "u-w2", nil, nil, nil},
		"pods may not be marked":                         {2, []int{0, 3}, all{worker(1, 1), worker(2, 0)}, 0, "", []string{"pods"}, nil, nil},
		"pods may not be marked, all are idle": {2, []int{1, 3}, all{worker(1, 0), worker(2, 0)}, 0, "", []string{"pods"},
			[]string{scale("1")}, []string{"u-w1", "u-w2"}},
		"replicas may not be set": {2, []int{0, 3}, all{worker(1, 1), worker(2, 0)}, 0, "", []string{"deployments/scale"}, []string{mark("w2")}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			client, said := api(tt.refused...)
			p := &fakePool{workers: tt.workers, late: tt.late}
			c := cpu(tt.replicas, tt.bounds...)
			s := New(Config{Client: client, Namespace: "n", Pool: p, List: func() []class.Class { return []class.Class{c} }, Waiting: func(string) int { return tt.waiting }})
			s.peaks["cpu"] = &peaks{last: 9} // as if it had been so for long
			for range 2 {                    // the second time nothing is new but what the first has learned
				s.look(t.Context(), now)
				if len(*said) > 0 {
					break
				}
			}
			if d := cmp.Diff(tt.want, *said); d != "" {
				t.Errorf("patches (-want +got):\n%s", d)
			}
			if slices.Sort(p.out); !slices.Equal(p.out, tt.out) {
				t.Errorf("cordoned are %v, want %v", p.out, tt.out)
			}
			s.look(t.Context(), now.Add(cordonLasts+time.Second))
		})
	}
}

// A worker that was to go and is still there works again.
func TestCordonsEnd(t *testing.T) {
	client, _ := api()
	p := &fakePool{workers: []channels.WorkerState{worker(1, 0)}}
	c := cpu(1, 0, 1)
	s := New(Config{Client: client, Namespace: "n", Pool: p, List: func() []class.Class { return []class.Class{c} }, Waiting: func(string) int { return 0 }})
	s.peaks["cpu"] = &peaks{last: 9}
	s.look(t.Context(), now)
	if len(p.out) != 1 {
		t.Fatalf("cordoned are %v", p.out)
	}
	c.Scale = nil
	s.look(t.Context(), now.Add(cordonLasts+time.Second))
	if len(p.out) != 0 {
		t.Errorf("still cordoned are %v", p.out)
	}
}

// The metric is there for every class, for autoscalers, and goes with it.
func TestMetric(t *testing.T) {
	p := &fakePool{workers: []channels.WorkerState{worker(1, 1), worker(2, 1)}}
	classes := []class.Class{cpu(2)}
	s := New(Config{Pool: p, List: func() []class.Class { return classes }, Waiting: func(string) int { return 5 }})
	s.look(t.Context(), now)
	want := "# HELP ffpod_workers_wanted Warm workers that a class needs: those that have sessions, and enough for the sessions that wait.\n" +
		"# TYPE ffpod_workers_wanted gauge\nffpod_workers_wanted{class=\"cpu\"} 4\n"
	if err := testutil.CollectAndCompare(s, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	classes = nil
	s.look(t.Context(), now)
	if n := testutil.CollectAndCount(s); n != 0 {
		t.Errorf("%d classes are told of, want none", n)
	}
}
