//go:build cluster

package standby

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/class/classtest"
	"github.com/ffpod/ffpod/scheduler/job"
)

// fixture is a maker of standbys of one class on a real cluster.
type fixture struct {
	*classtest.Cluster
	*Maker
	jobs *job.Launcher
	stop func() // ends what runs and waits

	mu    sync.Mutex
	class class.Class
}

func start(t *testing.T, change func(*appsv1.Deployment)) *fixture {
	t.Helper()
	cluster := classtest.New(t)
	c, problems := class.FromDeployment(cluster.Deploy(t, change))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	log := zaptest.NewLogger(t)
	jobs, err := job.New(job.Config{Client: cluster.Client, Namespace: cluster.Namespace, Open: cluster.Open(), Log: log, Deadline: 20 * time.Second, Describe: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{Cluster: cluster, jobs: jobs, class: c}
	f.Maker = New(Config{Jobs: jobs, Log: log, List: func() []class.Class {
		f.mu.Lock()
		defer f.mu.Unlock()
		return []class.Class{f.class}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, part := range []func(context.Context) error{jobs.Run, f.Run} {
		running.Go(func() {
			if err := part(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	f.stop = func() { cancel(); running.Wait() }
	t.Cleanup(f.stop)
	return f
}

// change changes the class, as a new state of its Deployment would.
func (f *fixture) change(change func(*class.Class)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.class
	c.Template = *c.Template.DeepCopy()
	change(&c)
	f.class = c
}

func (f *fixture) names(t *testing.T) (names []string) {
	t.Helper()
	list, err := f.Client.BatchV1().Jobs(f.Namespace).List(t.Context(), metav1.ListOptions{LabelSelector: class.StandbyLabel})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range list.Items {
		if j.DeletionTimestamp == nil {
			names = append(names, j.Name)
		}
	}
	return names
}

func standbys(bound string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Annotations = map[string]string{"ffpod.dev/standby": bound} }
}

// A standby is made and answers, a session takes it and runs at once, another one is
// made, and the Job ends with the session's code.
func TestStandbyIsTakenAndReplaced(t *testing.T) {
	f := start(t, standbys("1"))
	classtest.Await(t, "a standby is free", func() bool { return len(f.Free()) == 1 })
	first := f.Free()[0]
	begun := time.Now()
	held, err := f.Take(first.Pod, first.Nonce, "s1")
	if err != nil {
		t.Fatal(err)
	}
	code, err := classtest.Run(t.Context(), held.Runner(), "s1", "bogus")
	t.Logf("taken and run in %v", time.Since(begun).Round(time.Millisecond))
	if err != nil || code != 2 {
		t.Errorf("session: code %d, %v, want 2", code, err)
	}
	held.Release()
	classtest.Await(t, "another one is free", func() bool {
		return slices.ContainsFunc(f.Free(), func(w channels.WorkerState) bool { return w.Job != first.Job })
	})
	classtest.Await(t, "the Job of the session says how it ended", func() bool {
		j, err := f.Client.BatchV1().Jobs(f.Namespace).Get(t.Context(), first.Job, metav1.GetOptions{})
		return err == nil && j.Status.Failed == 1 && j.Labels[class.SessionLabel] == "s1"
	})
	if n := f.jobs.Starts("cpu", begun.Add(-time.Second)); n != 1 {
		t.Errorf("%d starts are counted, want 1", n)
	}
}

// A standby of an older template, and one that is wanted no more, go.
func TestStandbyIsRetired(t *testing.T) {
	f := start(t, standbys("1"))
	classtest.Await(t, "a standby is free", func() bool { return len(f.Free()) == 1 })
	first := f.Free()[0].Job
	f.change(func(c *class.Class) { c.Template.Annotations["ffpod.dev/test"] = "changed" })
	classtest.Await(t, "it is replaced by one of the new template", func() bool {
		free := f.Free()
		return len(free) == 1 && free[0].Job != first
	})
	f.change(func(c *class.Class) { c.Standby = class.Bounds{} })
	classtest.Await(t, "no standby is left", func() bool { return len(f.names(t)) == 0 })
}

// What the cluster cannot hold is made once and given up, and made again when
// something has ended.
func TestStandbyBeyondTheCluster(t *testing.T) {
	f := start(t, func(d *appsv1.Deployment) {
		standbys("3")(d)
		d.Spec.Template.Spec.Containers[0].Resources.Limits["nvidia.com/gpu"] = resource.MustParse("1")
	})
	classtest.Await(t, "both devices have a standby", func() bool { return len(f.Free()) == 2 })
	classtest.Await(t, "a third one is tried", func() bool { return len(f.names(t)) == 3 })
	classtest.Await(t, "it is given up", func() bool { return len(f.names(t)) == 2 })
	if why := f.jobs.Unable("cpu"); why == "" {
		t.Error("nothing says why the class runs no more")
	} else {
		t.Logf("unable: %s", why)
	}
	w := f.Free()[0]
	held, err := f.Take(w.Pod, w.Nonce, "s")
	if err != nil {
		t.Fatal(err)
	}
	if code, err := classtest.Run(t.Context(), held.Runner(), "s", "version"); err != nil || code != 0 {
		t.Errorf("session: code %d, %v", code, err)
	}
	held.Release()
	classtest.Await(t, "its device has a standby again", func() bool {
		free := f.Free()
		return len(free) == 2 && free[0].Job != w.Job && free[1].Job != w.Job
	})
}

// A standby outlives its deadline while a scheduler wants it, and ends by itself, with
// success, when none does.
func TestAStandbyWithoutASchedulerEnds(t *testing.T) {
	f := start(t, standbys("1"))
	classtest.Await(t, "a standby is free", func() bool { return len(f.Free()) == 1 })
	name := f.Free()[0].Job
	select {
	case <-time.After(22 * time.Second): // its deadline is 20 s
	case <-t.Context().Done():
	}
	if free := f.Free(); len(free) != 1 || free[0].Job != name {
		t.Fatalf("it is not there any more: %v", free)
	}
	f.stop()
	classtest.Await(t, "it ends with success", func() bool {
		j, err := f.Client.BatchV1().Jobs(f.Namespace).Get(context.WithoutCancel(t.Context()), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if j.Status.Failed > 0 {
			t.Fatalf("it failed: %+v", j.Status.Conditions)
		}
		return j.Status.Succeeded == 1
	})
}
