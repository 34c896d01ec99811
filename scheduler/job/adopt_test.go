package job

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/channels/channelstest"
	"github.com/ffpod/ffpod/scheduler/lease"
)

const patience = 20 * time.Second

// world is a launcher before an API server without a cluster behind it: Jobs
// that another scheduler has made, with their pods, and what their workers say.
type world struct {
	*Launcher
	client *fake.Clientset
	logs   *observer.ObservedLogs
	stop   func()

	mu    sync.Mutex
	opens map[string][]*channelstest.Channel // by pod, the next one first
}

// found is a Job that the launcher finds.
type found struct {
	name string
	age  time.Duration
	says *wire.Description // nil: its worker does not answer
	job  func(*batchv1.Job)
	pod  func(*corev1.Pod)
	bare bool // without a pod
}

func newWorld(t *testing.T, config Config, jobs ...found) *world {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	w := &world{client: fake.NewClientset(), logs: logs, opens: map[string][]*channelstest.Channel{}}
	for _, f := range jobs {
		j, pod := f.objects()
		if err := w.client.Tracker().Add(j); err != nil {
			t.Fatal(err)
		}
		if f.bare {
			continue
		}
		if err := w.client.Tracker().Add(pod); err != nil {
			t.Fatal(err)
		}
		if f.says != nil {
			w.opens[pod.Name] = []*channelstest.Channel{channelstest.New(f.says)}
		}
	}
	config.Client, config.Namespace, config.Open, config.Log = w.client, "n", w.open, zap.New(core)
	var err error
	if w.Launcher, err = New(config); err != nil {
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

func (w *world) open(_ context.Context, target podexec.Target) (lease.Channel, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := w.opens[target.Pod]
	if len(next) == 0 {
		return nil, errors.New("container not found")
	}
	w.opens[target.Pod] = next[1:]
	return next[0], nil
}

func (w *world) answers(pod string, c *channelstest.Channel) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opens[pod] = append(w.opens[pod], c)
}

func (f found) objects() (*batchv1.Job, *corev1.Pod) {
	labels := map[string]string{"ffpod.dev/class": "cpu", "ffpod.dev/role": "job", "ffpod.dev/session": f.name}
	at := metav1.NewTime(time.Now().Add(-f.age))
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: f.name, Namespace: "n", UID: types.UID("j-" + f.name), Labels: labels, CreationTimestamp: at},
		Spec:       batchv1.JobSpec{ActiveDeadlineSeconds: new(int64(600))},
		Status:     batchv1.JobStatus{StartTime: &at},
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: f.name + "-0", Namespace: "n", UID: types.UID("u-" + f.name), Labels: maps.Clone(labels),
			OwnerReferences: []metav1.OwnerReference{{Kind: "Job", Controller: new(true)}}},
		Spec: corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
			Name: "worker", ContainerID: "c1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
	}
	pod.Labels[batchv1.JobNameLabel] = f.name
	if f.job != nil {
		f.job(j)
	}
	if f.pod != nil {
		f.pod(pod)
	}
	return j, pod
}

func worker(name string, sessions ...*wire.SessionState) *wire.Description {
	return &wire.Description{Nonce: "b-" + name, Class: "cpu", Pod: name + "-0", PodUid: "u-" + name, Once: true, Slots: 1, Sessions: sessions}
}

func runs(session string) *wire.SessionState {
	return &wire.SessionState{Session: session, Pid: 7, Epoch: 1, Record: []byte("of " + session), UnattachedMs: 1500}
}

func exit(session string) *wire.SessionState {
	return &wire.SessionState{Session: session, Exit: &wire.Exit{Session: session, Code: 3}}
}

// until polls: the API server without a cluster tells nobody.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		case <-tick.C:
		}
	}
}

func (w *world) resume(t *testing.T, name, session string) (*lease.Lease, *wire.SessionState, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return w.Resume(ctx, name+"-0", "u-"+name, "b-"+name, session)
}

func (w *world) names(t *testing.T) []string {
	t.Helper()
	list, err := w.client.BatchV1().Jobs("n").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, j := range list.Items {
		names = append(names, j.Name)
	}
	slices.Sort(names)
	return names
}

func (w *world) seconds(t *testing.T, name string) int64 {
	t.Helper()
	j, err := w.client.BatchV1().Jobs("n").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return *j.Spec.ActiveDeadlineSeconds
}

func TestJobsOfAnotherSchedulerAreFound(t *testing.T) {
	w := newWorld(t, Config{Settle: time.Hour},
		found{name: "a", says: worker("a", runs("a"))}, found{name: "b", says: worker("b")},
		found{name: "over", pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }},
		found{name: "foreign", pod: func(p *corev1.Pod) { p.OwnerReferences = nil }})
	until(t, "every worker has answered", w.Ready)
	got := w.Workers()
	if len(got) != 2 || got[0].Job != "a" || got[0].Used != 1 || !got[0].Runs() || got[1].Job != "b" || got[1].Used != 0 || got[1].Runs() {
		t.Fatalf("workers %+v", got)
	}
	if s := got[0].Description.GetSessions()[0]; string(s.GetRecord()) != "of a" || s.GetUnattachedMs() != 1500 {
		t.Errorf("session %v", s)
	}
	if n := w.Active("cpu"); n != 3 { // the foreign one holds resources, too
		t.Errorf("%d active, want 3", n)
	}
}

func TestReadyWaitsForSilentWorkers(t *testing.T) {
	w := newWorld(t, Config{Settle: 300 * time.Millisecond}, found{name: "a"})
	begun := time.Now()
	until(t, "ready", w.Ready)
	if took := time.Since(begun); took < 250*time.Millisecond {
		t.Errorf("ready after %v, want the time to settle", took)
	}
}

func TestAnotherSchedulersSessionIsResumed(t *testing.T) {
	ends := map[string]struct {
		do   func(*lease.Lease)
		want []string
	}{
		"left":      {(*lease.Lease).Leave, []string{"a"}},
		"released":  {(*lease.Lease).Release, []string{"a"}},
		"destroyed": {(*lease.Lease).Destroy, []string{}},
	}
	for name, tt := range ends {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{}, found{name: "a", says: worker("a", runs("a"))})
			l, state, err := w.resume(t, "a", "a")
			if err != nil {
				t.Fatal(err)
			}
			if l.Worker().Job != "a" || string(state.GetRecord()) != "of a" {
				t.Errorf("worker %+v, state %v", l.Worker(), state)
			}
			tt.do(l)
			w.stop() // waits for the deletion
			if diff := cmp.Diff(tt.want, w.names(t)); diff != "" {
				t.Errorf("Jobs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResumeOverANewChannel(t *testing.T) {
	first := channelstest.New(worker("a", runs("a")))
	w := newWorld(t, Config{}, found{name: "a"})
	w.answers("a-0", first)
	old, _, err := w.resume(t, "a", "a")
	if err != nil {
		t.Fatal(err)
	}
	first.Breaks(errors.New("connection reset by peer"))
	w.answers("a-0", channelstest.New(worker("a", runs("a"))))
	l, _, err := w.resume(t, "a", "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Cause(); err != nil {
		t.Errorf("the older lease is told %v", err)
	}
	old.Leave()
	if _, _, err := w.resume(t, "a", "other"); !errors.Is(err, lease.ErrUnknown) {
		t.Errorf("another session: %v, want ErrUnknown", err)
	}
	if err := w.client.CoreV1().Pods("n").Delete(t.Context(), "a-0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.Done():
	case <-time.After(patience):
		t.Fatal("the lease is not told that its worker is gone")
	}
	if !errors.Is(l.Cause(), lease.ErrGone) {
		t.Errorf("cause %v, want ErrGone", l.Cause())
	}
	if _, _, err := w.resume(t, "a", "a"); !errors.Is(err, lease.ErrGone) {
		t.Errorf("resume: %v, want ErrGone", err)
	}
}

func TestWhatIsNotTheWorkerOfAJob(t *testing.T) {
	for name, change := range map[string]func(*corev1.Pod){
		"a warm one": func(p *corev1.Pod) { p.OwnerReferences[0].Kind, p.Labels["ffpod.dev/role"] = "ReplicaSet", "warm" },
		"any pod":    func(p *corev1.Pod) { p.OwnerReferences, p.Labels = nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{}, found{name: "a", pod: change})
			if _, _, err := w.resume(t, "a", "a"); !errors.Is(err, lease.ErrGone) {
				t.Errorf("resume: %v, want ErrGone", err)
			}
			if _, err := w.Supervisor(t.Context(), "a-0", "u-a", "b-a"); !errors.Is(err, lease.ErrGone) {
				t.Errorf("order: %v, want ErrGone", err)
			}
		})
	}
}

// A Job lives for as long as its worker says that a session runs, whoever made it.
func TestDeadlinesOfFoundJobs(t *testing.T) {
	w := newWorld(t, Config{Deadline: 10 * time.Second},
		found{name: "runs", age: time.Hour, says: worker("runs", runs("a"))},
		found{name: "ended", age: time.Hour, says: worker("ended", exit("b"))},
		found{name: "idle", age: time.Hour, says: worker("idle")})
	until(t, "the deadline of the running one is moved", func() bool { return w.seconds(t, "runs") >= 3600+10 })
	if got := w.seconds(t, "runs"); got > 3600+20 {
		t.Errorf("the deadline is %d s after the start, want 10 s from now", got)
	}
	for _, name := range []string{"ended", "idle"} {
		if got := w.seconds(t, name); got != 600 {
			t.Errorf("the deadline of %s was moved to %d s", name, got)
		}
	}
}

func TestUselessJobs(t *testing.T) {
	now := time.Now()
	config := Config{}
	l, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	state := func(ready bool, since, ended time.Duration, sessions ...*wire.SessionState) *channels.WorkerState {
		w := &channels.WorkerState{Ready: ready, Since: now.Add(-since), Description: worker("w", sessions...)}
		if !w.Runs() {
			w.Ended = now.Add(-ended)
		}
		return w
	}
	fresh, stale := func(j *batchv1.Job) {}, func(j *batchv1.Job) { j.Status.StartTime.Time = now.Add(-6 * time.Minute) }
	claimed := func(j *batchv1.Job) { stale(j); *j.Spec.ActiveDeadlineSeconds = 6*60 + 600 }
	suspended := func(j *batchv1.Job) {
		j.Status.StartTime, j.CreationTimestamp.Time = nil, now.Add(-6*time.Minute)
	}
	deleted := func(j *batchv1.Job) { stale(j); j.DeletionTimestamp = &metav1.Time{Time: now} }
	over := func(j *batchv1.Job) {
		stale(j)
		j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
	}
	tests := map[string]struct {
		job  func(*batchv1.Job)
		w    *channels.WorkerState
		want string // "": it stays
	}{
		"a session runs": {stale, state(true, time.Hour, 0, runs("a")), ""},
		"a session ran when it was last heard of":    {stale, state(false, time.Hour, 0, runs("a")), ""},
		"a lease is held":                            {stale, &channels.WorkerState{Used: 1}, ""},
		"no session for a while":                     {fresh, state(true, 2*time.Minute, 2*time.Minute), "no session for 2m0s"},
		"no session yet":                             {fresh, state(true, 30*time.Second, 30*time.Second), ""},
		"no session yet, by a claimed Job":           {claimed, state(true, 30*time.Second, 30*time.Second), ""},
		"the exit waits to be taken":                 {stale, state(true, time.Hour, 6*time.Minute, exit("a")), ""},
		"nobody will take the exit":                  {fresh, state(true, time.Hour, 8*time.Minute, exit("a")), "its session ended 8m0s ago"},
		"no pod yet":                                 {fresh, nil, ""},
		"no pod, and somebody waits for it":          {claimed, nil, ""},
		"no pod, and nobody waits for it":            {stale, nil, "its pod is not there"},
		"suspended, and nobody waits for it":         {suspended, nil, "its pod is not there"},
		"no answer yet":                              {fresh, &channels.WorkerState{}, ""},
		"never an answer":                            {stale, &channels.WorkerState{}, "its worker does not answer"},
		"no answer any more, of an idle worker":      {stale, state(false, time.Hour, time.Hour), "its worker does not answer"},
		"being deleted":                              {deleted, nil, ""},
		"over":                                       {over, nil, ""},
		"another boot has just answered, idle since": {fresh, state(true, time.Second, time.Hour), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			j, _ := found{name: "a"}.objects()
			tt.job(j)
			got, certain := l.useless(j, tt.w, now)
			if told := tt.w != nil && tt.w.Ready; got != "" && certain != told {
				t.Errorf("certain: %v, want %v", certain, told)
			}
			if got == "" != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("useless: %q, want %q", got, tt.want)
			}
		})
	}
}

func TestStraysAreDeleted(t *testing.T) {
	w := newWorld(t, Config{Reconcile: 20 * time.Millisecond, Doubt: 100 * time.Millisecond, Idle: 200 * time.Millisecond, Describe: 20 * time.Millisecond, Settle: 50 * time.Millisecond},
		found{name: "runs", says: worker("runs", runs("a"))},
		found{name: "idle", says: worker("idle")},
		found{name: "never-came", age: 6 * time.Minute, bare: true},
		found{name: "never-answers", age: 6 * time.Minute},
		found{name: "ended", says: worker("ended", exit("b"))},
		found{name: "new", bare: true},
		found{name: "foreign", age: 6 * time.Minute, bare: true, job: func(j *batchv1.Job) { delete(j.Labels, "ffpod.dev/session") }},
	)
	until(t, "the strays are deleted", func() bool { return len(w.names(t)) == 4 })
	if diff := cmp.Diff([]string{"ended", "foreign", "new", "runs"}, w.names(t)); diff != "" {
		t.Errorf("Jobs (-want +got):\n%s", diff)
	}
	for _, name := range []string{"idle", "never-came", "never-answers"} {
		said := w.logs.FilterMessage("a Job that serves nobody is deleted").FilterField(zap.String("job", name)).All()
		if len(said) == 0 || said[0].ContextMap()["why"] == "" {
			t.Errorf("no line says why %s was deleted: %v", name, said)
		}
	}
}

// Between the look at a worker and the deletion a session may come.
func TestAStrayIsAskedOnceMore(t *testing.T) {
	c := channelstest.New(worker("a"))
	w := newWorld(t, Config{Reconcile: time.Hour, Idle: time.Nanosecond, Describe: time.Hour}, found{name: "a"})
	w.answers("a-0", c)
	until(t, "the worker answers", func() bool { return len(w.Workers()) == 1 && w.Workers()[0].Ready })
	c.Says(worker("a", runs("a")), nil)
	if err := w.reconcile(t.Context(), map[string]time.Time{}); err != nil {
		t.Fatal(err)
	}
	c.Says(nil, context.DeadlineExceeded)
	if err := w.reconcile(t.Context(), map[string]time.Time{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a"}, w.names(t)); diff != "" {
		t.Errorf("Jobs (-want +got):\n%s", diff)
	}
}
