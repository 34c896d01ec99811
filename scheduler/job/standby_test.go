package job

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/channels/channelstest"
	"github.com/ffpod/ffpod/scheduler/class"
)

// ahead makes a found Job one that was made ahead of need.
func ahead(f found) found {
	job, pod := f.job, f.pod
	f.job = func(j *batchv1.Job) {
		delete(j.Labels, class.SessionLabel)
		j.Labels[class.StandbyLabel] = "t1"
		if job != nil {
			job(j)
		}
	}
	f.pod = func(p *corev1.Pod) {
		delete(p.Labels, class.SessionLabel)
		p.Labels[class.StandbyLabel] = "t1"
		if pod != nil {
			pod(p)
		}
	}
	return f
}

func (w *world) standbys(t *testing.T) map[string]Standby {
	t.Helper()
	all, err := w.Standbys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]Standby{}
	for _, s := range all {
		by[s.Job] = s
	}
	return by
}

func TestStandbySpec(t *testing.T) {
	c := cpu()
	c.Template.Spec.Containers[1].Env = append(c.Template.Spec.Containers[1].Env, corev1.EnvVar{Name: "FFPOD_IDLE", Value: "1s"})
	j := StandbySpec(c, "x", 10*time.Minute, time.Minute)
	env := map[string]string{}
	for _, e := range j.Spec.Template.Spec.Containers[1].Env {
		env[e.Name] += e.Value
	}
	if env["FFPOD_ONCE"] != "1" || env["FFPOD_STANDBY"] != "1" || env["FFPOD_IDLE"] != "5m0s" {
		t.Errorf("environment %v", env)
	}
	if j.Labels[class.SessionLabel] != "" || j.Spec.Template.Labels[class.SessionLabel] != "" {
		t.Errorf("it has a session: %v", j.Labels)
	}
	other := cpu()
	if Fingerprint(cpu()) != Fingerprint(other) {
		t.Error("the same class has two fingerprints")
	}
	if other.QueueName = "gpus"; Fingerprint(cpu()) == Fingerprint(other) {
		t.Error("another queue makes no difference")
	}
}

func TestStandbysAreDescribed(t *testing.T) {
	w := newWorld(t, Config{Explain: time.Millisecond},
		ahead(found{name: "free", says: worker("free")}),
		ahead(found{name: "used", says: worker("used", runs("s"))}),
		ahead(found{name: "taken", says: worker("taken"), job: func(j *batchv1.Job) { j.Labels[class.SessionLabel] = "s" }}),
		ahead(found{name: "ended", pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }}),
		ahead(found{name: "pending", pod: func(p *corev1.Pod) {
			p.Spec.NodeName, p.Status = "", corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes"}}}
		}}),
		ahead(found{name: "queued", bare: true, age: time.Minute, job: func(j *batchv1.Job) { j.Spec.Suspend, j.Labels[queueLabel] = new(true), "gpus" }}),
		found{name: "session", says: worker("session", runs("session"))},
	)
	until(t, "all have answered", func() bool {
		all := w.standbys(t)
		return all["free"].Ready && all["used"].Nonce != "" && all["taken"].Nonce != ""
	})
	all := w.standbys(t)
	if len(all) != 6 {
		t.Fatalf("%d are listed: %+v", len(all), all)
	}
	for name, ok := range map[string]bool{
		"free":    all["free"].Pod == "free-0" && all["free"].Nonce == "b-free" && all["free"].Node == "n1" && !all["free"].Taken,
		"used":    all["used"].Taken && !all["used"].Ready,
		"taken":   all["taken"].Taken && !all["taken"].Ready,
		"ended":   all["ended"].Over,
		"pending": all["pending"].Waits == "Unschedulable: 0/1 nodes" && all["pending"].Node == "",
		"queued":  all["queued"].Waits == "for quota: the Job is suspended, in queue gpus",
	} {
		if !ok {
			t.Errorf("%s is %+v", name, all[name])
		}
	}
	if free := w.Free(); len(free) != 1 || free[0].Pod != "free-0" {
		t.Errorf("free are %+v", free)
	}
	if got := w.Active("cpu"); got != 6 { // the ended one is not
		t.Errorf("%d Jobs are active, want 6", got)
	}
	if got := w.Unable("cpu"); !strings.Contains(got, "Unschedulable") && !strings.Contains(got, "for quota") {
		t.Errorf("unable: %q", got)
	}
}

// A taken standby is the Job of its session from then on, and nobody else's.
func TestTake(t *testing.T) {
	w := newWorld(t, Config{Deadline: 2 * time.Second}, ahead(found{name: "a", says: worker("a")}))
	until(t, "it is free", func() bool { return w.standbys(t)["a"].Ready })
	if _, err := w.Take("a-0", "another boot", "s"); !errors.Is(err, channels.ErrGone) {
		t.Errorf("another boot: %v", err)
	}
	if _, err := w.Take("b-0", "b-a", "s"); !errors.Is(err, channels.ErrGone) {
		t.Errorf("another pod: %v", err)
	}
	l, err := w.Take("a-0", "b-a", "s")
	if err != nil {
		t.Fatal(err)
	}
	if l.Worker().Job != "a" || l.Worker().Pod != "a-0" {
		t.Errorf("leased %+v", l.Worker())
	}
	if _, err := w.Take("a-0", "b-a", "other"); !errors.Is(err, channels.ErrFull) {
		t.Errorf("taken twice: %v", err)
	}
	if len(w.Free()) != 0 || w.Retire(t.Context(), Standby{Job: "a", PodUID: "u-a"}) {
		t.Error("it is free, or was retired under its session")
	}
	if n := w.Starts("cpu", time.Now().Add(-time.Minute)); n != 1 {
		t.Errorf("%d starts, want 1", n)
	}
	until(t, "the Job says whose it is, and its deadline is moved", func() bool {
		j, err := w.client.BatchV1().Jobs("n").Get(t.Context(), "a", metav1.GetOptions{})
		return err == nil && j.Labels[class.SessionLabel] == "s" && w.standbys(t)["a"].Taken
	})
	l.Destroy()
	until(t, "a session that is given up takes its Job along", func() bool { return len(w.names(t)) == 0 })
}

func TestRetire(t *testing.T) {
	c := channelstest.New(worker("a"))
	w := newWorld(t, Config{Describe: time.Hour}, ahead(found{name: "a"}), ahead(found{name: "b", says: worker("b")}), ahead(found{name: "bare", bare: true}))
	w.answers("a-0", c)
	until(t, "they answer", func() bool { all := w.standbys(t); return all["a"].Ready && all["b"].Ready })
	all := w.standbys(t)
	c.Says(worker("a", runs("of another scheduler")), nil)
	if w.Retire(t.Context(), all["a"]) {
		t.Error("the session of another scheduler is ended")
	}
	for _, name := range []string{"b", "bare"} {
		if !w.Retire(t.Context(), all[name]) {
			t.Errorf("%s is not retired", name)
		}
	}
	if got := w.names(t); len(got) != 1 || got[0] != "a" {
		t.Errorf("there are %v", got)
	}
	if _, err := w.Take("b-0", "b-b", "s"); err == nil {
		t.Error("a retired one was taken")
	}
}

func TestMakeStandby(t *testing.T) {
	w := newWorld(t, Config{}, ahead(found{name: "there", says: worker("there")}))
	until(t, "it answers", func() bool { return w.standbys(t)["there"].Ready })
	c := cpu()
	c.Namespace, c.Jobs = "n", 2
	if err := w.MakeStandby(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := w.MakeStandby(t.Context(), c); !errors.Is(err, ErrLimit) {
		t.Errorf("above the limit: %v", err)
	}
	if _, err := w.Launch(t.Context(), c, "s", nil); !errors.Is(err, ErrLimit) {
		t.Errorf("a launch above the limit: %v", err)
	}
	w.client.PrependReactor("create", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(batchv1.Resource("jobs"), "j", errors.New("exceeded quota"))
	})
	c.Jobs = 4
	if err := w.MakeStandby(t.Context(), c); !apierrors.IsForbidden(err) {
		t.Errorf("refused: %v", err)
	}
	if got := w.Unable("cpu"); !strings.Contains(got, "exceeded quota") {
		t.Errorf("unable: %q", got)
	}
	if got := w.Active("cpu"); got != 2 {
		t.Errorf("%d are active, want 2: what was refused is none", got)
	}
}

// The deadline of a standby is moved while it is kept, and no longer.
func TestDeadlinesOfStandbys(t *testing.T) {
	w := newWorld(t, Config{Deadline: 10 * time.Second}, ahead(found{name: "a", age: time.Hour, says: worker("a")}))
	until(t, "the deadline is moved", func() bool { return len(w.standbys(t)) == 1 && w.seconds(t, "a") >= 3600+10 })
}

// A Job whose quota is taken away before its worker answers fails the launch, which
// says so: the session is placed again.
func TestAnEvictedLaunchSaysSo(t *testing.T) {
	w := newWorld(t, Config{})
	c := cpu()
	c.Namespace, c.Jobs, c.QueueName = "n", 2, "gpus"
	name := Name(c, "s")
	launched := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		_, err := w.Launch(ctx, c, "s", nil)
		launched <- err
	}()
	until(t, "the Job is made", func() bool { return len(w.names(t)) == 1 })
	_, pod := found{name: name, pod: func(p *corev1.Pod) { p.Labels[batchv1.JobNameLabel] = name }}.objects()
	if err := w.client.Tracker().Add(pod); err != nil {
		t.Fatal(err)
	}
	j, err := w.client.BatchV1().Jobs("n").Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	j.Spec.Suspend = new(true)
	if _, err := w.client.BatchV1().Jobs("n").Update(t.Context(), j, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the pod is seen", func() bool { return w.Active("cpu") == 1 })
	if err := w.client.CoreV1().Pods("n").Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case err = <-launched:
	case <-time.After(patience):
		t.Fatal("the launch goes on")
	}
	if err == nil || !strings.Contains(err.Error(), "evicted: the Job was suspended, its queue is gpus") {
		t.Errorf("launch: %v", err)
	}
	if got := w.names(t); len(got) != 0 {
		t.Errorf("the Job stays, to be admitted again without its session: %v", got)
	}
}

func TestTroubles(t *testing.T) {
	var k troubles
	now := time.Now()
	k.note("a", "scheduled on n1", now)
	if got := k.of("a", now); got != "" {
		t.Errorf("progress is trouble: %q", got)
	}
	k.note("a", "waiting: Unschedulable: 0/1", now)
	k.note("a", "pod created", now)
	if got := k.of("a", now.Add(troubleLasts-1)); got != "Unschedulable: 0/1" || k.of("b", now) != "" {
		t.Errorf("trouble %q", got)
	}
	if got := k.of("a", now.Add(3*time.Minute)); got != "" {
		t.Errorf("old trouble: %q", got)
	}
	k.answered("a")
	if got := k.of("a", now); got != "" {
		t.Errorf("after an answer: %q", got)
	}
}

// A session that has left is not followed by another one: the worker serves one.
func TestALeftStandbyStaysTaken(t *testing.T) {
	w := newWorld(t, Config{Describe: 10 * time.Millisecond}, ahead(found{name: "a", says: worker("a")}))
	until(t, "it is free", func() bool { return w.standbys(t)["a"].Ready })
	l, err := w.Take("a-0", "b-a", "s")
	if err != nil {
		t.Fatal(err)
	}
	l.Leave()
	until(t, "its worker says that no session runs", func() bool { return w.Workers()[0].Used == 0 })
	if _, err := w.Take("a-0", "b-a", "other"); !errors.Is(err, channels.ErrFull) || len(w.Free()) != 0 {
		t.Errorf("taken again: %v, %d are free", err, len(w.Free()))
	}
}
