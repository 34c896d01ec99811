//go:build cluster

package pool

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/scheduler/class/classtest"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// fixture is a pool that runs before a real cluster, and one class.
type fixture struct {
	*classtest.Cluster
	*Pool
	opened chan error // how each try at a channel ended
	stop   func()     // ends Run and waits
}

func warmPool(t *testing.T, replicas int32, change func(*appsv1.Deployment)) *fixture {
	t.Helper()
	cluster := classtest.New(t)
	cluster.Deploy(t, classtest.Replicas(replicas), change)
	return run(t, cluster)
}

func run(t *testing.T, cluster *classtest.Cluster) *fixture {
	t.Helper()
	opened := make(chan error, 64)
	open := func(ctx context.Context, target podexec.Target) (lease.Channel, error) {
		c, err := cluster.Open()(ctx, target)
		select {
		case opened <- err:
		default:
		}
		return c, err
	}
	p, err := New(Config{Client: cluster.Client, Namespace: cluster.Namespace, Open: open, Log: zaptest.NewLogger(t), Describe: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	f := &fixture{Cluster: cluster, Pool: p, opened: opened, stop: func() { cancel(); running.Wait() }}
	t.Cleanup(f.stop)
	return f
}

func await(t *testing.T, p *Pool, what string, ok func([]WorkerState) bool) []WorkerState {
	t.Helper()
	timeout := time.After(classtest.Timeout)
	for {
		if all := p.Workers(); ok(all) {
			return all
		}
		select {
		case <-p.Changed():
		case <-timeout:
			t.Fatalf("timed out: %s; workers: %+v", what, p.Workers())
		}
	}
}

func ready(n int) func([]WorkerState) bool {
	return func(all []WorkerState) bool {
		for _, w := range all {
			if !w.Ready || w.Draining {
				return false
			}
		}
		return len(all) == n
	}
}

func TestWarmWorkersComeAndGo(t *testing.T) {
	f := warmPool(t, 2, nil)
	for _, w := range await(t, f.Pool, "two workers", ready(2)) {
		if w.Slots != 2 || w.Used != 0 || w.Class != "cpu" || w.Node == "" || w.PodUID == "" || w.Nonce == "" || w.Job != "" {
			t.Errorf("worker is not described: %+v", w)
		}
	}
	if !f.Ready() {
		t.Error("every worker has answered, and the pool is not ready")
	}
	f.scale(t, 0)
	await(t, f.Pool, "no workers", ready(0))
	f.scale(t, 1)
	await(t, f.Pool, "one worker", ready(1))
}

func (f *fixture) scale(t *testing.T, n int) {
	t.Helper()
	patch := []byte(`{"spec":{"replicas":` + string(rune('0'+n)) + `}}`)
	if _, err := f.Client.AppsV1().Deployments(f.Namespace).Patch(t.Context(), "ffpod-cpu", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestSessionsTakeSlots(t *testing.T) {
	f := warmPool(t, 1, nil)
	w := await(t, f.Pool, "one worker", ready(1))[0]

	a, err := f.Lease(w.Pod, w.Nonce, "a")
	if err != nil {
		t.Fatal(err)
	}
	if code, err := classtest.Run(t.Context(), a.Runner(), "a", "bogus"); err != nil || code != 2 {
		t.Errorf("session: code %d, %v, want 2", code, err)
	}
	a.Release()
	if used := f.Workers()[0].Used; used != 0 {
		t.Errorf("%d slots used after the exit, want 0", used)
	}

	b, err := f.Lease(w.Pod, w.Nonce, "b")
	if err != nil {
		t.Fatal(err)
	}
	running, err := classtest.Start(t.Context(), b.Runner(), "b", "dial")
	if err != nil {
		t.Fatal(err)
	}
	// Another scheduler learns of it from the worker alone.
	other := run(t, f.Cluster).Pool
	await(t, other, "the session of the first", func(all []WorkerState) bool { return ready(1)(all) && all[0].Used == 1 })
	c, err := other.Lease(w.Pod, w.Nonce, "c")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Lease(w.Pod, w.Nonce, "d"); !errors.Is(err, ErrFull) {
		t.Errorf("third session on two slots: %v, want ErrFull", err)
	}
	c.Destroy()

	// Given up while it runs: its slot is taken until the worker says it is free.
	b.Destroy()
	await(t, f.Pool, "the worker still runs it", func(all []WorkerState) bool { return all[0].Used == 1 })
	running.End()
	if _, err := running.Wait(); err != nil {
		t.Errorf("the session did not end well: %v", err)
	}
	await(t, f.Pool, "a free worker", func(all []WorkerState) bool { return all[0].Used == 0 })
	await(t, other, "a free worker", func(all []WorkerState) bool { return all[0].Used == 0 })
}

func TestLeaseIsToldWhyTheWorkerIsGone(t *testing.T) {
	tests := map[string]struct {
		do   func(*testing.T, *fixture, WorkerState)
		want string
	}{
		"pod deleted": {func(t *testing.T, f *fixture, w WorkerState) {
			if err := f.Client.CoreV1().Pods(f.Namespace).Delete(t.Context(), w.Pod, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}, "the pod was deleted at "},
		"deployment rolled out": {func(t *testing.T, f *fixture, _ WorkerState) {
			patch := []byte(`{"spec":{"template":{"metadata":{"annotations":{"again":"1"}}}}}`)
			if _, err := f.Client.AppsV1().Deployments(f.Namespace).Patch(t.Context(), "ffpod-cpu", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}, "the pod was deleted at "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := warmPool(t, 1, nil)
			w := await(t, f.Pool, "one worker", ready(1))[0]
			l, err := f.Lease(w.Pod, w.Nonce, "a")
			if err != nil {
				t.Fatal(err)
			}
			s, err := classtest.Start(t.Context(), l.Runner(), "a", "dial")
			if err != nil {
				t.Fatal(err)
			}
			tt.do(t, f, w)
			select {
			case <-l.Done():
			case <-time.After(classtest.Timeout):
				t.Fatal("the lease is not told")
			}
			if why := l.Cause().Error(); !strings.Contains(why, tt.want) {
				t.Errorf("cause %q, want %q", why, tt.want)
			}
			s.Abandon()
			_, err = s.Wait()
			t.Logf("cause: %v; session: %v", l.Cause(), err)
			l.Destroy()
			after := await(t, f.Pool, "another worker", func(all []WorkerState) bool { return ready(1)(all) && all[0].PodUID != w.PodUID })
			if after[0].Used != 0 {
				t.Errorf("the new worker uses %d slots", after[0].Used)
			}
		})
	}
}

func TestContainerRestart(t *testing.T) {
	f := warmPool(t, 1, nil)
	w := await(t, f.Pool, "one worker", ready(1))[0]
	l, err := f.Lease(w.Pod, w.Nonce, "a")
	if err != nil {
		t.Fatal(err)
	}
	f.endContainer(t, w)
	select {
	case <-l.Done():
	case <-time.After(classtest.Timeout):
		t.Fatal("the lease is not told")
	}
	if why := l.Cause().Error(); !strings.Contains(why, "the worker exited with code") {
		t.Errorf("cause %q, want the exit of the worker", why)
	}
	l.Destroy()
	again := await(t, f.Pool, "the worker again", func(all []WorkerState) bool { return ready(1)(all) && all[0].Nonce != w.Nonce })[0]
	if again.PodUID != w.PodUID {
		t.Errorf("another pod %s answers, want the same", again.Pod)
	}
	if _, err := f.Lease(w.Pod, w.Nonce, "b"); !errors.Is(err, ErrGone) {
		t.Errorf("lease with the old nonce: %v, want ErrGone", err)
	}
	b, err := f.Lease(w.Pod, again.Nonce, "b")
	if err != nil {
		t.Fatal(err)
	}
	if code, err := classtest.Run(t.Context(), b.Runner(), "b", "version"); err != nil || code != 0 {
		t.Errorf("session on the new container: code %d, %v", code, err)
	}
	b.Release()
}

// endContainer ends PID 1 of the worker, without the pod.
func (f *fixture) endContainer(t *testing.T, w WorkerState) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), classtest.Timeout)
	defer cancel()
	c, err := f.Open()(ctx, podexec.Target{Namespace: f.Namespace, Pod: w.Pod, Container: "worker", Command: []string{"/bin/sh", "-c", "kill -TERM 1"}})
	if err == nil {
		t.Error("a shell answers Describe")
		c.Close()
	}
	t.Logf("kill: %v", err)
}

func TestAWorkerThatIsNotWhoItSaysIsNotUsed(t *testing.T) {
	f := warmPool(t, 1, func(d *appsv1.Deployment) {
		env := d.Spec.Template.Spec.Containers[0].Env
		for i := range env {
			if env[i].Name == "POD_UID" {
				env[i] = corev1.EnvVar{Name: "POD_UID", Value: "another"}
			}
		}
	})
	for range 3 {
		select {
		case err := <-f.opened:
			if err != nil {
				t.Logf("open: %v", err)
			}
		case <-time.After(classtest.Timeout):
			t.Fatal("the pool does not try the worker")
		}
	}
	if all := f.Workers(); len(all) != 1 || all[0].Ready {
		t.Errorf("workers %+v, want one that is not ready", all)
	}
	pods, err := f.Client.CoreV1().Pods(f.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods, %v, want 1", len(pods.Items), err)
	}
	if _, err := f.Pool.Lease(pods.Items[0].Name, "", "a"); !errors.Is(err, ErrGone) {
		t.Errorf("lease: %v, want ErrGone", err)
	}
}
