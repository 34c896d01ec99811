package pool

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/channels/channelstest"
	"github.com/ffpod/ffpod/scheduler/lease"
)

func TestMain(m *testing.M) {
	// client-go's WebSocket heartbeat notices the end of its stream only at its
	// next beat, seconds later.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("k8s.io/client-go/tools/remotecommand.(*heartbeat).start"))
}

const patience = 20 * time.Second

// The tests here are about faults that a real cluster does not produce on
// demand. What a real API server and node do is tested with the build tag
// cluster.

type channel = channelstest.Channel

// world is a pool before an API server without a cluster behind it.
type world struct {
	*Pool
	stop   func() // ends Run and waits
	read   atomic.Pointer[clienttesting.ReactionFunc]
	client *fake.Clientset
	opens  chan *channel // what the next Open gets; nil is a refusal
}

func newWorld(t *testing.T, pods ...*corev1.Pod) *world {
	t.Helper()
	return newWorldWith(t, Config{Settle: 200 * time.Millisecond, Describe: 10 * time.Millisecond, Unknown: 50 * time.Millisecond, Idle: 100 * time.Millisecond, Unready: 100 * time.Millisecond}, pods...)
}

func newWorldWith(t *testing.T, config Config, pods ...*corev1.Pod) *world {
	t.Helper()
	w := &world{client: fake.NewClientset(), opens: make(chan *channel, 16)}
	w.client.PrependReactor("get", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if f := w.read.Load(); f != nil {
			return (*f)(a)
		}
		return false, nil, nil
	})
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
	watched := channelstest.Watched(w.client)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	w.stop = func() { cancel(); running.Wait() }
	t.Cleanup(w.stop)
	<-watched
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

func says(slots uint32, running ...string) *wire.Description {
	d := &wire.Description{Slots: slots}
	for _, session := range running {
		d.Sessions = append(d.Sessions, &wire.SessionState{Session: session, Pid: 7, Record: []byte("of " + session)})
	}
	return d
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
			bad := channelstest.New(wrong)
			w.opens <- bad
			<-bad.Done() // it was closed
			if s := w.state(); s.Ready {
				t.Errorf("the worker is ready: %+v", s)
			}
			w.opens <- nil // and a refusal
			w.opens <- channelstest.New(describe("u1", "b1"))
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
	w.opens <- channelstest.New(describe("u1", "b1"))
	w.awaitNonce(t, "b1")
}

// A worker that is to go gets no session; one that has a session does not go.
func TestCordon(t *testing.T) {
	w := newWorld(t, pod("u1", nil))
	w.opens <- channelstest.New(describe("u1", "b1"))
	w.awaitNonce(t, "b1")
	held := mustLease(t, w, "u1", "b1", "s")
	if w.Cordon("u1") {
		t.Error("a worker with a session is cordoned")
	}
	held.Release()
	if !w.Cordon("u1") || !w.state().Draining {
		t.Errorf("an idle worker is not cordoned: %+v", w.state())
	}
	if _, err := w.Lease("w-u1", "b1", "t"); !errors.Is(err, ErrGone) {
		t.Errorf("lease of a cordoned worker: %v", err)
	}
	w.Uncordon("u1")
	if w.state().Draining {
		t.Error("it is cordoned for good")
	}
	mustLease(t, w, "u1", "b1", "t").Release()
}

func TestUnable(t *testing.T) {
	starting := func(change func(*corev1.Pod)) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
			change(p)
		}
	}
	w := newWorld(t,
		pod("fine", starting(func(*corev1.Pod) {})),
		pod("image", starting(func(p *corev1.Pod) {
			p.Labels["ffpod.dev/class"] = "gpu"
			p.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such\nimage"}
		})),
		pod("node", starting(func(p *corev1.Pod) {
			p.Labels["ffpod.dev/class"], p.Spec.NodeName = "amd", ""
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "Insufficient amd.com/gpu"}}
		})))
	w.await(t, "the pods are known", func() bool { return w.Unable("gpu") != "" && w.Unable("amd") != "" })
	for class, want := range map[string]string{"cpu": "", "gpu": "ImagePullBackOff: no such image", "amd": "Unschedulable: Insufficient amd.com/gpu"} {
		if got := w.Unable(class); got != want {
			t.Errorf("class %s: %q, want %q", class, got, want)
		}
	}
	if got := w.Unplaced(); len(got) != 1 || got[0] != "amd" {
		t.Errorf("without a node: %v", got)
	}
}

func TestReady(t *testing.T) {
	t.Run("when all have answered", func(t *testing.T) {
		w := newWorldWith(t, Config{Settle: time.Hour}, pod("u1", nil))
		w.opens <- channelstest.New(describe("u1", "b1"))
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
	c := channelstest.New(describe("u1", "b1"))
	w.opens <- c
	w.awaitNonce(t, "b1")
	for name, tt := range map[string]struct{ pod, nonce string }{"no such pod": {"w-u2", "b1"}, "restarted since": {"w-u1", "b0"}} {
		if _, err := w.Lease(tt.pod, tt.nonce, "s"); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, want ErrGone", name, err)
		}
	}
	a, b := mustLease(t, w, "u1", "b1", "a"), mustLease(t, w, "u1", "b1", "b")
	c.Says(describe("u1", "b1", "a", "b"), nil)
	if _, err := w.Lease("w-u1", "b1", "c"); !errors.Is(err, ErrFull) {
		t.Errorf("third lease of two slots: %v, want ErrFull", err)
	}
	c.Says(describe("u1", "b1", "b"), nil)
	a.Release()
	w.await(t, "a free slot", func() bool { return w.state().Used == 1 })
	b.Destroy()
	if used := w.state().Used; used != 1 {
		t.Errorf("a session was given up and the worker still runs it: %d used, want 1", used)
	}
	c.Says(describe("u1", "b1"), nil)
	w.await(t, "both slots free", func() bool { return w.state().Used == 0 })
}

func TestDrainingWorkersTakeNoSessions(t *testing.T) {
	draining := describe("u1", "b1")
	draining.Draining = true
	tests := map[string]func(t *testing.T, w *world, c *channel){
		"the worker says so": func(_ *testing.T, _ *world, c *channel) { c.Says(draining, nil) },
		"the pod is being deleted": func(t *testing.T, w *world, _ *channel) {
			w.update(t, pod("u1", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Now()} }))
		},
	}
	for name, drain := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, pod("u1", nil))
			c := channelstest.New(describe("u1", "b1"))
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

func restarted(p *corev1.Pod) {
	s := &p.Status.ContainerStatuses[0]
	s.ContainerID, s.RestartCount = "c2", 1
	s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
}

func crashing(p *corev1.Pod) {
	restarted(p)
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
}

func unready(p *corev1.Pod) {
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue}}
}

func (w *world) delete(t *testing.T) {
	t.Helper()
	if err := w.client.CoreV1().Pods("n").Delete(t.Context(), "w-u1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// down makes every read of a pod fail until what it returns is called. Watches
// stay silent.
func (w *world) down() (up func()) {
	w.reads(func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("connection refused")
	})
	return func() { w.read.Store(nil) }
}

// reads replaces what answers the reads of a pod.
func (w *world) reads(f clienttesting.ReactionFunc) { w.read.Store(&f) }

// gones are the ways in which a worker ends, and what is said then.
var gones = map[string]struct {
	fault func(t *testing.T, w *world, c *channel)
	want  string
}{
	"restarted, the status follows": {func(t *testing.T, w *world, c *channel) {
		c.Breaks(errors.New("EOF"))
		w.await(t, "not ready", func() bool { return !w.state().Ready })
		w.opens <- channelstest.New(describe("u1", "b2"))
		w.awaitNonce(t, "b2")
		w.update(t, pod("u1", restarted))
	}, "OOMKilled"},
	"restarted, the status tells nothing": {func(_ *testing.T, w *world, c *channel) {
		c.Breaks(errors.New("EOF"))
		w.opens <- channelstest.New(describe("u1", "b2"))
	}, "it has restarted"},
	"the nonce has changed": {func(_ *testing.T, w *world, c *channel) {
		c.Says(describe("u1", "b2"), nil)
		w.opens <- channelstest.New(describe("u1", "b2"))
	}, "it has restarted"},
	"crashes again and again": {func(t *testing.T, w *world, c *channel) {
		w.update(t, pod("u1", crashing))
		w.opens <- nil
		c.Breaks(errors.New("EOF"))
	}, "OOMKilled"},
	"pod deleted": {func(t *testing.T, w *world, _ *channel) { w.delete(t) }, "the pod is gone"},
	"pod evicted": {func(t *testing.T, w *world, _ *channel) {
		w.update(t, pod("u1", func(p *corev1.Pod) { p.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"} }))
	}, "Evicted"},
	"node not ready": {func(t *testing.T, w *world, c *channel) {
		w.update(t, pod("u1", unready))
		c.Breaks(errors.New("EOF"))
		for range 8 {
			w.opens <- nil
		}
	}, "node n1 is not ready"},
}

func TestLeaseIsToldThatItsWorkerIsGone(t *testing.T) {
	for name, tt := range gones {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, pod("u1", nil))
			c := channelstest.New(describe("u1", "b1", "a"))
			w.opens <- c
			w.awaitNonce(t, "b1")
			l, _ := w.mustResume(t, "b1", "a")
			tt.fault(t, w, c)
			if why := cause(t, l); !strings.Contains(why, tt.want) {
				t.Errorf("cause %q, want %q", why, tt.want)
			}
			gone, ok := errors.AsType[*lease.GoneError](l.Cause())
			if !ok || !errors.Is(l.Cause(), lease.ErrGone) || gone.Silent != (name == "node not ready") {
				t.Errorf("cause %#v", l.Cause())
			}
			l.Destroy()
		})
	}
}

func TestResumeSaysThatTheWorkerIsGone(t *testing.T) {
	for name, tt := range gones {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, pod("u1", nil))
			c := channelstest.New(describe("u1", "b1", "a"))
			w.opens <- c
			w.awaitNonce(t, "b1")
			l, _ := w.mustResume(t, "b1", "a")
			tt.fault(t, w, c)
			c.Breaks(errors.New("EOF"))
			l.Leave()
			_, _, err := w.resume(t, patience, "u1", "b1", "a")
			if !errors.Is(err, lease.ErrGone) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("resume: %v, want ErrGone with %q", err, tt.want)
			}
			if _, err := w.Supervisor(t.Context(), "w-u1", "u1", "b1"); !errors.Is(err, lease.ErrGone) {
				t.Errorf("order: %v, want ErrGone", err)
			}
		})
	}
}

func (w *world) resume(t *testing.T, within time.Duration, uid, nonce, session string) (*lease.Lease, *wire.SessionState, error) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), within, errPatience)
	defer cancel()
	return w.Resume(ctx, "w-"+uid, uid, nonce, session)
}

var errPatience = errors.New("patience ran out")

func (w *world) mustResume(t *testing.T, nonce, session string) (*lease.Lease, *wire.SessionState) {
	t.Helper()
	l, state, err := w.resume(t, patience, "u1", nonce, session)
	if err != nil {
		t.Fatal(err)
	}
	return l, state
}

func TestABrokenChannelEndsNoLease(t *testing.T) {
	breaks := map[string]func(t *testing.T, w *world, c *channel, l *lease.Lease){
		"it breaks": func(_ *testing.T, _ *world, c *channel, _ *lease.Lease) {
			c.Breaks(errors.New("connection reset by peer"))
		},
		"it is silent":     func(_ *testing.T, _ *world, c *channel, _ *lease.Lease) { c.Says(nil, context.DeadlineExceeded) },
		"it is suspected":  func(_ *testing.T, _ *world, c *channel, l *lease.Lease) { c.Hangs(); l.Suspect(); l.Suspect() },
		"an order in vain": func(t *testing.T, w *world, c *channel, _ *lease.Lease) { w.orderInVain(t, c) },
	}
	for name, broken := range breaks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldWith(t, Config{Describe: 200 * time.Millisecond}, pod("u1", nil))
			first, second := channelstest.New(describe("u1", "b1")), channelstest.New(describe("u1", "b1", "a"))
			w.opens <- first
			w.awaitNonce(t, "b1")
			old := mustLease(t, w, "u1", "b1", "a")
			first.Says(describe("u1", "b1", "a"), nil)
			broken(t, w, first, old)
			select {
			case <-first.Done():
			case <-time.After(patience):
				t.Fatal("the channel is not given up")
			}
			w.opens <- nil // one refusal on the way
			w.opens <- second
			l, state := w.mustResume(t, "b1", "a")
			if state.GetSession() != "a" || string(state.GetRecord()) != "of a" {
				t.Errorf("state %v", state)
			}
			if err := old.Cause(); err != nil {
				t.Errorf("the older lease is told %v", err)
			}
			if s := w.state(); s.Used != 1 || !s.Ready {
				t.Errorf("worker %+v, want 1 used", s)
			}
			old.Destroy() // a shell: nothing happens
			if s := w.state(); s.Used != 1 {
				t.Errorf("%d used after the end of the shell, want 1", s.Used)
			}
			second.Says(describe("u1", "b1"), nil)
			l.Release()
			if s := w.state(); s.Used != 0 {
				t.Errorf("%d used after the end, want 0", s.Used)
			}
		})
	}
}

func (w *world) orderInVain(t *testing.T, c *channel) {
	s, err := w.Supervisor(t.Context(), "w-u1", "u1", "b1")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Orphan(t.Context(), &wire.OrphanRequest{}); err != nil || !r.GetKnown() {
		t.Fatalf("order: %v, %v", r, err)
	}
	c.Hangs()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Orphan(ctx, &wire.OrphanRequest{}); err == nil {
		t.Error("the order was answered")
	}
}

func TestALeftSessionKeepsItsSlot(t *testing.T) {
	w := newWorldWith(t, Config{Describe: time.Hour}, pod("u1", nil))
	c := channelstest.New(describe("u1", "b1"))
	w.opens <- c
	w.awaitNonce(t, "b1")
	a, b := mustLease(t, w, "u1", "b1", "a"), mustLease(t, w, "u1", "b1", "b")
	c.Says(describe("u1", "b1", "a", "b"), nil)
	a.Leave()
	if used := w.state().Used; used != 2 {
		t.Errorf("%d used, want 2", used)
	}
	c.Says(describe("u1", "b1", "b"), nil)
	if _, _, err := w.resume(t, patience, "u1", "b1", "a"); !errors.Is(err, lease.ErrUnknown) || errors.Is(err, lease.ErrGone) {
		t.Errorf("resume of what the worker does not know: %v, want ErrUnknown", err)
	}
	if used := w.state().Used; used != 1 { // the question to resume it was answered
		t.Errorf("%d used, want 1", used)
	}
	b.Release()
}

// A session that was left and has died since frees its slot at once, not with the
// next of the regular questions: a player's seek waits for it.
func TestALeftSessionThatDiesFreesItsSlot(t *testing.T) {
	// Each returns the channel on which the worker says that the session is over.
	replaced := func(t *testing.T, w *world, c *channel) *channel {
		next := channelstest.New(describe("u1", "b1", "a"))
		c.Breaks(errors.New("EOF"))
		w.await(t, "no channel", func() bool { return !w.state().Ready })
		w.opens <- next
		w.await(t, "another channel", func() bool { return w.state().Ready })
		return next
	}
	tests := map[string]func(*testing.T, *world, *channel, *lease.Lease) *channel{
		"its channel": func(_ *testing.T, _ *world, c *channel, l *lease.Lease) *channel { l.Leave(); return c },
		"the next channel": func(t *testing.T, w *world, c *channel, l *lease.Lease) *channel {
			l.Leave()
			return replaced(t, w, c)
		},
		"the next channel, left late": func(t *testing.T, w *world, c *channel, l *lease.Lease) *channel {
			defer l.Leave()
			return replaced(t, w, c)
		},
	}
	for name, leaves := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorldWith(t, Config{Describe: time.Hour}, pod("u1", nil))
			c := channelstest.New(describe("u1", "b1"))
			w.opens <- c
			w.awaitNonce(t, "b1")
			l := mustLease(t, w, "u1", "b1", "a")
			c.Says(describe("u1", "b1", "a"), nil)
			leaves(t, w, c, l).Says(describe("u1", "b1"), nil)
			w.await(t, "the slot is free", func() bool { return w.state().Used == 0 })
		})
	}
}

func TestResumeOfAnEndedSession(t *testing.T) {
	ended := describe("u1", "b1")
	ended.Sessions = []*wire.SessionState{{Session: "a", Exit: &wire.Exit{Session: "a", Code: 3}}}
	w := newWorld(t, pod("u1", nil))
	w.opens <- channelstest.New(ended)
	l, state := w.mustResume(t, "b1", "a")
	if state.GetExit().GetCode() != 3 || w.state().Used != 0 {
		t.Errorf("state %v, %d used, want the exit and no slot", state, w.state().Used)
	}
	l.Release()
}

// What the watch has not told yet, and what it never told, is read.
func TestResumeBesideTheWatch(t *testing.T) {
	w := newWorldWith(t, Config{Describe: 10 * time.Millisecond}, nil...)
	w.await(t, "ready", w.Ready)
	silent := clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder()) // of which no watch knows
	w.reads(clienttesting.ObjectReaction(silent))
	if err := silent.Add(pod("u1", nil)); err != nil {
		t.Fatal(err)
	}
	c := channelstest.New(describe("u1", "b1", "a"))
	w.opens <- c
	l, _ := w.mustResume(t, "b1", "a")
	if err := silent.Delete(corev1.SchemeGroupVersion.WithResource("pods"), "n", "w-u1"); err != nil {
		t.Fatal(err)
	}
	stop := refuse(w)
	defer stop()
	c.Breaks(errors.New("EOF"))
	if why := cause(t, l); !strings.Contains(why, "the pod is gone") {
		t.Errorf("cause %q", why)
	}
	l.Destroy()
}

// A node that comes back brings its sessions along.
func TestAnUnreadyNodeComesBack(t *testing.T) {
	w := newWorld(t, pod("u1", unready))
	stop := refuse(w)
	_, _, err := w.resume(t, patience, "u1", "b1", "a")
	gone, ok := errors.AsType[*lease.GoneError](err)
	if !ok || !gone.Silent {
		t.Fatalf("resume: %v, want that the node is silent", err)
	}
	stop()
	w.update(t, pod("u1", nil))
	w.opens <- channelstest.New(describe("u1", "b1", "a"))
	w.awaitNonce(t, "b1")
	l, _ := w.mustResume(t, "b1", "a")
	l.Leave()
}

func TestWhatCannotBeResumed(t *testing.T) {
	tests := map[string]struct {
		pods  []*corev1.Pod
		uid   string
		nonce string
	}{
		"no such pod":                {nil, "u1", "b1"},
		"the name has another pod":   {[]*corev1.Pod{pod("u1", func(p *corev1.Pod) { p.UID = "u2" })}, "u1", "b1"},
		"not a worker":               {[]*corev1.Pod{pod("u1", func(p *corev1.Pod) { p.OwnerReferences, p.Labels = nil, nil })}, "u1", "b1"},
		"the worker of a Job":        {[]*corev1.Pod{pod("u1", func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "Job" })}, "u1", "b1"},
		"over":                       {[]*corev1.Pod{pod("u1", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })}, "u1", "b1"},
		"another boot, from a start": {[]*corev1.Pod{pod("u1", nil)}, "u1", "b0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tt.pods...)
			w.opens <- channelstest.New(describe("u1", "b1", "a"))
			if _, _, err := w.resume(t, patience, tt.uid, tt.nonce, "a"); !errors.Is(err, lease.ErrGone) {
				t.Errorf("resume: %v, want ErrGone", err)
			}
		})
	}
}

// An API server that is down proves nothing, whatever was seen before.
func TestNothingIsGoneWhileTheAPIServerIsDown(t *testing.T) {
	tests := map[string]func(*corev1.Pod){
		"never seen":               nil,
		"seen":                     func(*corev1.Pod) {},
		"its node was not ready":   unready,
		"its container was broken": crashing,
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			up := w.down()
			if change != nil {
				if err := w.client.Tracker().Add(pod("u1", change)); err != nil {
					t.Fatal(err)
				}
				w.await(t, "the worker", func() bool { return len(w.Workers()) == 1 })
			}
			stop := refuse(w)
			_, _, err := w.resume(t, 300*time.Millisecond, "u1", "b1", "a")
			if err == nil || errors.Is(err, lease.ErrGone) || errors.Is(err, lease.ErrUnknown) || !errors.Is(err, errPatience) {
				t.Fatalf("resume: %v, want only that it waited", err)
			}
			t.Log(err)
			if change == nil {
				if err := w.client.Tracker().Add(pod("u1", nil)); err != nil {
					t.Fatal(err)
				}
			} else {
				w.update(t, pod("u1", nil))
			}
			stop()
			up()
			w.opens <- channelstest.New(describe("u1", "b1", "a"))
			l, _ := w.mustResume(t, "b1", "a")
			l.Leave()
		})
	}
}

// refuse refuses every channel until what it returns is called.
func refuse(w *world) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var refusing sync.WaitGroup
	refusing.Go(func() {
		for {
			select {
			case w.opens <- nil:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		refusing.Wait()
		for {
			select {
			case <-w.opens:
			default:
				return
			}
		}
	}
}

// Whoever waits does not wait for a backoff that grew before it came.
func TestAWantedWorkerIsTriedSoon(t *testing.T) {
	w := newWorld(t, pod("u1", nil))
	for range 7 { // 100 ms, 200 ms, ... 3 s
		w.opens <- nil
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(patience); len(w.opens) > 2; {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("five refusals are not taken")
		}
	}
	for len(w.opens) > 0 {
		<-w.opens
	}
	w.opens <- channelstest.New(describe("u1", "b1", "a"))
	begun := time.Now()
	l, _ := w.mustResume(t, "b1", "a")
	if took := time.Since(begun); took > time.Second {
		t.Errorf("resumed after %v, want half a second", took)
	}
	l.Leave()
}

func TestAStoppingPoolTellsNoLease(t *testing.T) {
	w := newWorld(t, pod("u1", nil))
	w.opens <- channelstest.New(describe("u1", "b1", "a"))
	l, _ := w.mustResume(t, "b1", "a")
	w.stop()
	if err := l.Cause(); err != nil {
		t.Errorf("the lease is told %v", err)
	}
	if _, _, err := w.resume(t, patience, "u1", "b1", "a"); err == nil || errors.Is(err, lease.ErrGone) {
		t.Errorf("resume: %v, want that the scheduler stops", err)
	}
	l.Leave()
}

func TestASessionThatTheWorkerDoesNotKnow(t *testing.T) {
	w := newWorld(t, pod("u1", nil))
	w.opens <- channelstest.New(describe("u1", "b1"))
	w.awaitNonce(t, "b1")
	l := mustLease(t, w, "u1", "b1", "a")
	if why := cause(t, l); !errors.Is(l.Cause(), lease.ErrUnknown) {
		t.Errorf("cause %q, want ErrUnknown", why)
	}
	l.Destroy()
}

func TestASilentWorkerIsFullUntilItAnswers(t *testing.T) {
	w := newWorldWith(t, Config{Describe: 200 * time.Millisecond}, pod("u1", nil))
	c := channelstest.New(describe("u1", "b1"))
	w.opens <- c
	w.awaitNonce(t, "b1")
	c.Says(nil, context.DeadlineExceeded)
	w.await(t, "not ready", func() bool { return !w.state().Ready })
	if _, err := w.Lease("w-u1", "b1", "a"); !errors.Is(err, ErrGone) {
		t.Errorf("lease of a silent worker: %v, want ErrGone", err)
	}
	c.Says(describe("u1", "b1"), nil)
	w.opens <- channelstest.New(describe("u1", "b1"))
	w.awaitNonce(t, "b1")
}

func TestTheWorkerIsBelievedAboutSessionsOfOthers(t *testing.T) {
	w := newWorld(t, pod("u1", nil))
	w.opens <- channelstest.New(describe("u1", "b1", "x", "y"))
	w.awaitNonce(t, "b1")
	if s := w.state(); s.Used != 2 || s.Slots != 2 {
		t.Errorf("used %d of %d, want 2 of 2", s.Used, s.Slots)
	}
	if _, err := w.Lease("w-u1", "b1", "a"); !errors.Is(err, ErrFull) {
		t.Errorf("lease: %v, want ErrFull", err)
	}
}
