package pool

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
)

func TestMain(m *testing.M) {
	// client-go's WebSocket heartbeat notices the end of its stream only at its
	// next beat, seconds later.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("k8s.io/client-go/tools/remotecommand.(*heartbeat).start"))
}

const patience = 20 * time.Second

// The tests here are about faults that a real cluster does not produce on
// demand: wrong answers, silence, broken channels. What a real API server and
// node do is tested with the build tag cluster.

// channel is the far end of a channel as the test wants it.
type channel struct {
	mu          sync.Mutex
	description *wire.Description
	fault       error // of Describe
	done        chan struct{}
	err         error
	closed      bool
}

func answering(d *wire.Description) *channel {
	return &channel{description: d, done: make(chan struct{})}
}

func (c *channel) Description() *wire.Description    { return c.description }
func (c *channel) Runner() wire.RunnerClient         { return nil }
func (c *channel) Supervisor() wire.SupervisorClient { return nil }
func (c *channel) Done() <-chan struct{}             { return c.done }
func (c *channel) Err() error                        { return c.err }

func (c *channel) Describe(context.Context) (*wire.Description, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.description, c.fault
}

func (c *channel) Close() error {
	c.breaks(context.Canceled)
	return nil
}

func (c *channel) breaks(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed, c.err = true, err
		close(c.done)
	}
}

func (c *channel) says(d *wire.Description, fault error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.description, c.fault = d, fault
}

// world is a pool before an API server without a cluster behind it.
type world struct {
	*Pool
	client *fake.Clientset
	opens  chan *channel // what the next Open gets; nil is a refusal
}

func newWorld(t *testing.T, pods ...*corev1.Pod) *world {
	t.Helper()
	return newWorldWith(t, Config{Settle: 200 * time.Millisecond, Describe: 10 * time.Millisecond, Unknown: 50 * time.Millisecond}, pods...)
}

func newWorldWith(t *testing.T, config Config, pods ...*corev1.Pod) *world {
	t.Helper()
	w := &world{client: fake.NewClientset(), opens: make(chan *channel, 16)}
	for _, pod := range pods {
		if err := w.client.Tracker().Add(pod); err != nil {
			t.Fatal(err)
		}
	}
	open := func(ctx context.Context, _ podexec.Target) (lease.Channel, error) {
		select {
		case c := <-w.opens:
			if c == nil {
				return nil, errors.New("container not found")
			}
			return c, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	config.Client, config.Namespace, config.Open = w.client, "n", open
	var err error
	w.Pool, err = New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

func pod(uid string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "w-" + uid, Namespace: "n", UID: types.UID(uid), Labels: map[string]string{"ffpod.dev/class": "cpu"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Controller: new(true)}}},
		Spec: corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "worker", ContainerID: "c1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
	}
	if change != nil {
		change(p)
	}
	return p
}

func describe(uid, nonce string, running ...string) *wire.Description {
	d := says(2, running...)
	d.PodUid, d.Nonce, d.Class, d.Pod = uid, nonce, "cpu", "w-"+uid
	return d
}

// await waits for news until the condition holds.
func (w *world) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(patience)
	for !ok() {
		select {
		case <-w.Changed():
		case <-timeout:
			t.Fatalf("timed out: %s; workers: %+v", what, w.Workers())
		}
	}
}

func (w *world) state() (s WorkerState) {
	if all := w.Workers(); len(all) == 1 {
		s = all[0]
	}
	return s
}

func (w *world) awaitNonce(t *testing.T, nonce string) {
	t.Helper()
	w.await(t, "worker with nonce "+nonce, func() bool { return w.state().Ready && w.state().Nonce == nonce })
}

func cause(t *testing.T, l *lease.Lease) string {
	t.Helper()
	select {
	case <-l.Done():
		return l.Cause().Error()
	case <-time.After(patience):
		t.Fatal("the lease is not told that its worker is gone")
		return ""
	}
}

func mustLease(t *testing.T, w *world, uid, nonce, session string) *lease.Lease {
	t.Helper()
	l, err := w.Lease("w-"+uid, nonce, session)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestOnlyVerifiedWorkersServe(t *testing.T) {
	wrongClass := describe("u1", "b1")
	wrongClass.Class = "gpu"
	tests := map[string]*wire.Description{
		"another pod":   describe("u2", "b1"),
		"another class": wrongClass,
		"no nonce":      describe("u1", ""),
	}
	for name, wrong := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, pod("u1", nil))
			bad := answering(wrong)
			w.opens <- bad
			<-bad.done // it was closed
			if s := w.state(); s.Ready {
				t.Errorf("the worker is ready: %+v", s)
			}
			w.opens <- nil // and a refusal
			w.opens <- answering(describe("u1", "b1"))
			w.awaitNonce(t, "b1")
		})
	}
}

func TestPodsOfOthersAreNoWorkers(t *testing.T) {
	w := newWorld(t, pod("u1", nil),
		pod("u2", func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "Job" }),
		pod("u3", func(p *corev1.Pod) { p.OwnerReferences = nil }),
		pod("u4", func(p *corev1.Pod) { p.Labels["ffpod.dev/role"] = "job" }),
		pod("u5", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }))
	w.opens <- answering(describe("u1", "b1"))
	w.awaitNonce(t, "b1")
}

func TestReady(t *testing.T) {
	t.Run("when all have answered", func(t *testing.T) {
		w := newWorldWith(t, Config{Settle: time.Hour}, pod("u1", nil))
		w.opens <- answering(describe("u1", "b1"))
		w.await(t, "ready", w.Ready)
		if !w.state().Ready {
			t.Error("the pool is ready before its worker answered")
		}
	})
	t.Run("silent workers are waited for, then count as full", func(t *testing.T) {
		w := newWorld(t, pod("u1", nil))
		begun := time.Now()
		w.await(t, "ready", w.Ready)
		if since := time.Since(begun); since < 150*time.Millisecond {
			t.Errorf("ready after %v, want the time to settle", since)
		}
		if s := w.state(); s.Ready || s.Slots != 0 {
			t.Errorf("silent worker: %+v", s)
		}
	})
	t.Run("workers that do not run are not waited for", func(t *testing.T) {
		w := newWorld(t, pod("u1", func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodPending} }))
		w.await(t, "ready", w.Ready)
	})
}

func TestLeaseErrors(t *testing.T) {
	w := newWorld(t, pod("u1", nil))
	c := answering(describe("u1", "b1"))
	w.opens <- c
	w.awaitNonce(t, "b1")
	for name, tt := range map[string]struct{ pod, nonce string }{"no such pod": {"w-u2", "b1"}, "restarted since": {"w-u1", "b0"}} {
		if _, err := w.Lease(tt.pod, tt.nonce, "s"); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, want ErrGone", name, err)
		}
	}
	a, b := mustLease(t, w, "u1", "b1", "a"), mustLease(t, w, "u1", "b1", "b")
	c.says(describe("u1", "b1", "a", "b"), nil)
	if _, err := w.Lease("w-u1", "b1", "c"); !errors.Is(err, ErrFull) {
		t.Errorf("third lease of two slots: %v, want ErrFull", err)
	}
	c.says(describe("u1", "b1", "b"), nil)
	a.Release()
	w.await(t, "a free slot", func() bool { return w.state().Used == 1 })
	b.Destroy()
	if used := w.state().Used; used != 1 {
		t.Errorf("a session was given up and the worker still runs it: %d used, want 1", used)
	}
	c.says(describe("u1", "b1"), nil)
	w.await(t, "both slots free", func() bool { return w.state().Used == 0 })
}

func TestDrainingWorkersTakeNoSessions(t *testing.T) {
	draining := describe("u1", "b1")
	draining.Draining = true
	tests := map[string]func(t *testing.T, w *world, c *channel){
		"the worker says so": func(_ *testing.T, _ *world, c *channel) { c.says(draining, nil) },
		"the pod is being deleted": func(t *testing.T, w *world, _ *channel) {
			w.update(t, pod("u1", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Now()} }))
		},
	}
	for name, drain := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, pod("u1", nil))
			c := answering(describe("u1", "b1"))
			w.opens <- c
			w.awaitNonce(t, "b1")
			l := mustLease(t, w, "u1", "b1", "a")
			drain(t, w, c)
			w.await(t, "draining", func() bool { return w.state().Draining })
			if _, err := w.Lease("w-u1", "b1", "b"); !errors.Is(err, ErrGone) {
				t.Errorf("lease of a draining worker: %v, want ErrGone", err)
			}
			if err := l.Cause(); err != nil {
				t.Errorf("the running session is told %v", err)
			}
			l.Release()
		})
	}
}

func (w *world) update(t *testing.T, p *corev1.Pod) {
	t.Helper()
	if _, err := w.client.CoreV1().Pods("n").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestLeaseEndsWithItsChannel(t *testing.T) {
	restarted := func(p *corev1.Pod) {
		s := &p.Status.ContainerStatuses[0]
		s.ContainerID, s.RestartCount = "c2", 1
		s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
	}
	tests := map[string]struct {
		fault func(t *testing.T, w *world, c *channel)
		want  string
	}{
		"channel broken, the worker goes on": {func(_ *testing.T, w *world, c *channel) {
			c.breaks(errors.New("connection reset by peer"))
			w.opens <- answering(describe("u1", "b1"))
		}, "its channel ended: connection reset by peer"},
		"worker restarted, the status follows": {func(t *testing.T, w *world, c *channel) {
			c.breaks(errors.New("EOF"))
			w.await(t, "not ready", func() bool { return !w.state().Ready })
			w.update(t, pod("u1", restarted))
			w.opens <- answering(describe("u1", "b2"))
		}, "OOMKilled"},
		"the nonce has changed": {func(_ *testing.T, w *world, c *channel) {
			c.says(describe("u1", "b2"), nil)
			w.opens <- answering(describe("u1", "b2"))
		}, "it has restarted"},
		"pod deleted": {func(t *testing.T, w *world, _ *channel) {
			if err := w.client.CoreV1().Pods("n").Delete(t.Context(), "w-u1", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}, "its pod is gone"},
		"pod evicted": {func(t *testing.T, w *world, _ *channel) {
			w.update(t, pod("u1", func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"} }))
		}, "Evicted"},
		"silence": {func(_ *testing.T, w *world, c *channel) {
			c.says(nil, context.DeadlineExceeded)
			w.opens <- nil
		}, "does not answer"},
		"unknown session": {func(*testing.T, *world, *channel) {}, "does not know session a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, pod("u1", nil))
			c := answering(describe("u1", "b1"))
			w.opens <- c
			w.awaitNonce(t, "b1")
			if name != "unknown session" {
				c.says(describe("u1", "b1", "a"), nil)
			}
			l := mustLease(t, w, "u1", "b1", "a")
			tt.fault(t, w, c)
			if why := cause(t, l); !strings.Contains(why, tt.want) {
				t.Errorf("cause %q, want %q", why, tt.want)
			}
			l.Destroy()
		})
	}
}

func TestASilentWorkerIsFullUntilItAnswers(t *testing.T) {
	w := newWorldWith(t, Config{Describe: 200 * time.Millisecond}, pod("u1", nil))
	c := answering(describe("u1", "b1"))
	w.opens <- c
	w.awaitNonce(t, "b1")
	c.says(nil, context.DeadlineExceeded)
	w.await(t, "not ready", func() bool { return !w.state().Ready })
	if _, err := w.Lease("w-u1", "b1", "a"); !errors.Is(err, ErrGone) {
		t.Errorf("lease of a silent worker: %v, want ErrGone", err)
	}
	c.says(describe("u1", "b1"), nil)
	w.opens <- answering(describe("u1", "b1"))
	w.awaitNonce(t, "b1")
}

func TestTheWorkerIsBelievedAboutSessionsOfOthers(t *testing.T) {
	w := newWorld(t, pod("u1", nil))
	w.opens <- answering(describe("u1", "b1", "x", "y"))
	w.awaitNonce(t, "b1")
	if s := w.state(); s.Used != 2 || s.Slots != 2 {
		t.Errorf("used %d of %d, want 2 of 2", s.Used, s.Slots)
	}
	if _, err := w.Lease("w-u1", "b1", "a"); !errors.Is(err, ErrFull) {
		t.Errorf("lease: %v, want ErrFull", err)
	}
}
