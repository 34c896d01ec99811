//go:build cluster

package job

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/class/classtest"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// fixture is a launcher that runs, and one class.
type fixture struct {
	*classtest.Cluster
	*Launcher
	class class.Class
	stop  func() // ends Run and waits
}

func launcher(t *testing.T, config Config, change func(*appsv1.Deployment)) *fixture {
	t.Helper()
	cluster := classtest.New(t)
	c, problems := class.FromDeployment(cluster.Deploy(t, change))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return start(t, cluster, config, c)
}

// start runs a launcher for a class that is there.
func start(t *testing.T, cluster *classtest.Cluster, config Config, c class.Class) *fixture {
	t.Helper()
	config.Client, config.Namespace, config.Open, config.Log = cluster.Client, cluster.Namespace, cluster.Open(), zaptest.NewLogger(t)
	l, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	f := &fixture{Cluster: cluster, Launcher: l, class: c, stop: func() { cancel(); running.Wait() }}
	t.Cleanup(f.stop)
	return f
}

// reasons collects progress.
type reasons struct {
	mu   sync.Mutex
	all  []string
	when time.Time
}

func (r *reasons) add(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, fmt.Sprintf("%4d ms %s", time.Since(r.when).Milliseconds(), reason))
}

func (r *reasons) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.all, "\n")
}

func (f *fixture) launch(t *testing.T, session string, timeout time.Duration) (*lease.Lease, *reasons, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	r := &reasons{when: time.Now()}
	held, err := f.Launch(ctx, f.class, session, r.add)
	t.Logf("launch of %s took %d ms:\n%s", session, time.Since(r.when).Milliseconds(), r)
	return held, r, err
}

func (f *fixture) mustLaunch(t *testing.T, session string) *lease.Lease {
	t.Helper()
	held, _, err := f.launch(t, session, classtest.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func (f *fixture) jobs(t *testing.T) []batchv1.Job {
	t.Helper()
	list, err := f.Client.BatchV1().Jobs(f.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func (f *fixture) nothingLeft(t *testing.T) {
	t.Helper()
	classtest.Await(t, "no Job and no pod is left", func() bool {
		pods, err := f.Client.CoreV1().Pods(f.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(pods.Items) == 0 && len(f.jobs(t)) == 0
	})
	if f.stopped { // and does not watch any more
		return
	}
	classtest.Await(t, "no Job is active", func() bool { return f.Active("cpu") == 0 })
}

func done(t *testing.T, held *lease.Lease) string {
	t.Helper()
	select {
	case <-held.Done():
		return held.Cause().Error()
	case <-time.After(classtest.Timeout):
		t.Fatal("the lease is not told that its worker is gone")
		return ""
	}
}

func TestJobEndsWithTheSession(t *testing.T) {
	tests := map[string]struct {
		args []string
		code int
		want batchv1.JobConditionType
	}{
		"success": {[]string{"version"}, 0, batchv1.JobComplete},
		"failure": {[]string{"bogus"}, 2, batchv1.JobFailed},
	}
	f := launcher(t, Config{}, nil)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			held := f.mustLaunch(t, name)
			w := held.Worker()
			if w.Class != "cpu" || w.Job == "" || !strings.HasPrefix(w.Pod, w.Job) || w.PodUID == "" || w.Nonce == "" || w.Node == "" {
				t.Errorf("worker is not described: %+v", w)
			}
			code, err := classtest.Run(t.Context(), held.Runner(), name, tt.args...)
			if err != nil || code != tt.code {
				t.Errorf("session: code %d, %v, want %d", code, err, tt.code)
			}
			held.Release()
			var j *batchv1.Job
			classtest.Await(t, "the Job has ended", func() bool {
				j, err = f.Client.BatchV1().Jobs(f.Namespace).Get(t.Context(), w.Job, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return len(j.Status.Conditions) > 0 && j.Status.Active == 0 && (j.Status.Succeeded+j.Status.Failed) > 0
			})
			for _, c := range j.Status.Conditions {
				if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Type != tt.want {
					t.Errorf("the Job is %s: %s, want %s", c.Type, c.Message, tt.want)
				}
			}
			pod, err := f.Client.CoreV1().Pods(f.Namespace).Get(t.Context(), w.Pod, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := lease.Status(pod).State.Terminated; got == nil || int(got.ExitCode) != tt.code {
				t.Errorf("container ended with %+v, want code %d", got, tt.code)
			}
			classtest.Await(t, "no Job is active", func() bool { return f.Active("cpu") == 0 })
		})
	}
}

func TestDestroyDeletesTheJob(t *testing.T) {
	f := launcher(t, Config{}, nil)
	held := f.mustLaunch(t, "s")
	s, err := classtest.Start(t.Context(), held.Runner(), "s", "dial")
	if err != nil {
		t.Fatal(err)
	}
	held.Destroy()
	if exit, err := s.Wait(); err == nil && exit.GetCause() != wire.Cause_CAUSE_SHUTDOWN {
		t.Errorf("the session ended well, although its Job was destroyed: %v", exit)
	}
	f.nothingLeft(t)
}

func TestLaunchSaysWhatItWaitsFor(t *testing.T) {
	tests := map[string]struct {
		change func(*testing.T, *fixture)
		want   []string
	}{
		"no node has the resource": {func(t *testing.T, f *fixture) {
			f.class.Template.Spec.Containers[0].Resources.Limits["nvidia.com/gpu"] = resource.MustParse("99")
		}, []string{"waiting: Unschedulable", "Insufficient nvidia.com/gpu"}},
		"no such image": {func(t *testing.T, f *fixture) {
			f.class.Template.Spec.Containers[0].Image = "localhost:1/none:1"
		}, []string{"waiting: ", "localhost:1/none:1"}},
		"image not on the node": {func(t *testing.T, f *fixture) {
			f.class.Template.Spec.Containers[0].Image = "ffpod/none:1"
			f.class.Template.Spec.Containers[0].ImagePullPolicy = corev1.PullNever
		}, []string{"ErrImageNeverPull"}},
		"missing ConfigMap": {func(t *testing.T, f *fixture) {
			f.class.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}}}}
		}, []string{"CreateContainerConfigError", `configmap "none" not found`}},
		"missing claim": {func(t *testing.T, f *fixture) {
			f.class.Template.Spec.Volumes = []corev1.Volume{{Name: "media", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "none"}}}}
		}, []string{"Unschedulable", `persistentvolumeclaim "none" not found`}},
		"quota": {func(t *testing.T, f *fixture) {
			f.quota(t, "pods")
		}, []string{"FailedCreate", "exceeded quota"}},
		"refused by Pod Security": {func(t *testing.T, f *fixture) {
			f.class.Template.Spec.HostNetwork = true
		}, []string{"FailedCreate", "violates PodSecurity"}},
		"another command": {func(t *testing.T, f *fixture) {
			f.class.Template.Spec.Containers[0].Command = []string{"/ffpod/worker", "bogus"}
		}, []string{"the worker exited with code 2"}},
		"no such program": {func(t *testing.T, f *fixture) {
			f.class.Template.Spec.Containers[0].Command = []string{"/none"}
		}, []string{"StartError"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := launcher(t, Config{}, nil)
			tt.change(t, f)
			_, r, err := f.launch(t, "s", 8*time.Second)
			if err == nil {
				t.Fatal("the launch succeeded")
			}
			t.Logf("error: %v", err)
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q", want)
				}
			}
			if strings.Contains(tt.want[0], "waiting") && !strings.Contains(r.String(), tt.want[0]) {
				t.Errorf("the progress does not say %q", tt.want[0])
			}
			f.nothingLeft(t)
		})
	}
}

func (f *fixture) quota(t *testing.T, of corev1.ResourceName) {
	t.Helper()
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "none"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{of: resource.MustParse("0")}}}
	if _, err := f.Client.CoreV1().ResourceQuotas(f.Namespace).Create(t.Context(), q, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	classtest.Await(t, "the quota is in force", func() bool {
		q, err := f.Client.CoreV1().ResourceQuotas(f.Namespace).Get(t.Context(), "none", metav1.GetOptions{})
		return err == nil && len(q.Status.Hard) > 0
	})
}

func TestQuotaOnJobsEndsTheLaunchAtOnce(t *testing.T) {
	f := launcher(t, Config{}, nil)
	f.quota(t, "count/jobs.batch")
	begun := time.Now()
	_, _, err := f.launch(t, "s", classtest.Timeout)
	if !apierrors.IsForbidden(err) || time.Since(begun) > classtest.Timeout/2 {
		t.Errorf("after %v: %v, want a refusal at once", time.Since(begun), err)
	}
	if n := f.Active("cpu"); n != 0 {
		t.Errorf("%d Jobs are active, want 0", n)
	}
}

func TestLeaseIsToldWhyThePodIsGone(t *testing.T) {
	tests := map[string]struct {
		do   func(*testing.T, *fixture, lease.Worker)
		want string
	}{
		"pod deleted": {func(t *testing.T, f *fixture, w lease.Worker) {
			if err := f.Client.CoreV1().Pods(f.Namespace).Delete(t.Context(), w.Pod, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}, "the pod was deleted at "},
		"Job deleted": {func(t *testing.T, f *fixture, w lease.Worker) {
			background := metav1.DeletePropagationBackground
			if err := f.Client.BatchV1().Jobs(f.Namespace).Delete(t.Context(), w.Job, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
				t.Fatal(err)
			}
		}, "the pod was deleted at "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := launcher(t, Config{}, nil)
			held := f.mustLaunch(t, "s")
			if err := held.Cause(); err != nil {
				t.Errorf("Cause of a living worker = %v", err)
			}
			tt.do(t, f, held.Worker())
			if why := done(t, held); !strings.Contains(why, tt.want) {
				t.Errorf("cause %q, want %q", why, tt.want)
			}
			held.Destroy()
			f.nothingLeft(t)
		})
	}
}

func TestLimit(t *testing.T) {
	f := launcher(t, Config{}, nil)
	f.class.Jobs = 1
	held := f.mustLaunch(t, "a")
	if _, _, err := f.launch(t, "b", classtest.Timeout); !errors.Is(err, ErrLimit) {
		t.Errorf("launch above the limit = %v, want ErrLimit", err)
	}
	if n := f.Active("cpu"); n != 1 {
		t.Errorf("%d Jobs are active, want 1", n)
	}
	held.Destroy()
	for {
		select {
		case <-f.Changed():
		case <-time.After(classtest.Timeout):
			t.Fatal("no news that there is room again")
		}
		if f.Active("cpu") == 0 {
			break
		}
	}
	f.mustLaunch(t, "b").Destroy()
}

func TestJobOfTheSameName(t *testing.T) {
	f := launcher(t, Config{}, nil)
	create := func(j *batchv1.Job) {
		t.Helper()
		if _, err := f.Client.BatchV1().Jobs(f.Namespace).Create(t.Context(), j, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create(Spec(f.class, "mine", time.Minute, time.Minute))
	f.mustLaunch(t, "mine").Destroy()

	foreign := Spec(f.class, "foreign", time.Minute, time.Minute)
	foreign.Labels[class.SessionLabel] = "another"
	create(foreign)
	_, _, err := f.launch(t, "foreign", classtest.Timeout)
	if err == nil || !strings.Contains(err.Error(), "taken by a Job of something else") {
		t.Errorf("launch = %v, want that the name is taken", err)
	}
	if len(f.jobs(t)) == 0 {
		t.Error("the Job of something else was deleted")
	}
}

func TestDeadlineIsMovedWhileTheSchedulerLives(t *testing.T) {
	f := launcher(t, Config{Deadline: 10 * time.Second}, nil)
	held := f.mustLaunch(t, "s")
	begun := time.Now()
	select {
	case <-held.Done():
		t.Fatalf("the Job ended although its deadline was to be moved: %v", held.Cause())
	case <-time.After(14 * time.Second):
	}
	j := f.jobs(t)[0]
	if *j.Spec.ActiveDeadlineSeconds <= 10 {
		t.Errorf("the deadline is still %d s", *j.Spec.ActiveDeadlineSeconds)
	}
	f.stop()
	held.Release()
	classtest.Await(t, "the Job without a scheduler ends by its deadline", func() bool {
		j, err := f.Client.BatchV1().Jobs(f.Namespace).Get(t.Context(), j.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range j.Status.Conditions {
			if c.Type == batchv1.JobFailed && c.Reason == batchv1.JobReasonDeadlineExceeded {
				return true
			}
		}
		return false
	})
	t.Logf("ended %v after the launch", time.Since(begun).Round(time.Second))
}

func TestDeploymentTakesItsJobsAlong(t *testing.T) {
	f := launcher(t, Config{}, nil)
	held := f.mustLaunch(t, "s")
	if err := f.Client.AppsV1().Deployments(f.Namespace).Delete(t.Context(), f.class.Deployment, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	done(t, held)
	held.Destroy()
	f.nothingLeft(t)
}

func TestCancelLeavesNothing(t *testing.T) {
	f := launcher(t, Config{}, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	errGone := errors.New("the shim is gone")
	_, err := f.Launch(ctx, f.class, "s", func(reason string) {
		if strings.HasPrefix(reason, "Job ") {
			cancel(errGone)
		}
	})
	if !errors.Is(err, errGone) {
		t.Errorf("launch = %v, want the reason of the cancellation", err)
	}
	f.nothingLeft(t)
}

// A scheduler that begins finds the session of the one before it.
func TestAnotherSchedulerResumes(t *testing.T) {
	f := launcher(t, Config{Deadline: 20 * time.Second}, classtest.Echo)
	held := f.mustLaunch(t, "s")
	w := held.Worker()
	talk := classtest.Begin(t, held, "s")
	talk.Type(t, 0, "hello", false)
	if got := talk.Read(t, 0, 5); got != "hello" {
		t.Fatalf("read %q", got)
	}
	talk.Leave()
	held.Leave()
	f.stop()

	next := start(t, f.Cluster, Config{Deadline: time.Minute, Reconcile: 100 * time.Millisecond, Idle: time.Nanosecond}, f.class)
	ctx, cancel := context.WithTimeout(t.Context(), classtest.Timeout)
	defer cancel()
	begun := time.Now()
	again, state, err := next.Resume(ctx, w.Pod, w.PodUID, w.Nonce, "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("resumed after %v: %v", time.Since(begun), state)
	if again.Worker() != w || string(state.GetRecord()) != "of s" || !next.Ready() || next.Active("cpu") != 1 {
		t.Errorf("worker %+v, state %v, ready %v, %d active", again.Worker(), state, next.Ready(), next.Active("cpu"))
	}
	classtest.Await(t, "the deadline is moved", func() bool { return *f.jobs(t)[0].Spec.ActiveDeadlineSeconds >= 60 })
	talk, attached := classtest.Resume(t, again, "s", 2)
	if attached.GetEpoch() != 2 || attached.GetStdin() != 5 {
		t.Errorf("attached as %v", attached)
	}
	talk.Type(t, 5, " again", true)
	if got := talk.Read(t, 2, 9); got != "llo again" {
		t.Errorf("read %q", got)
	}
	if exit := talk.Exit(t); exit.GetCode() != 0 || exit.GetStdout() != 11 {
		t.Errorf("exit %v", exit)
	}
	again.Release()
	classtest.Await(t, "the Job is complete", func() bool { return f.jobs(t)[0].Status.Succeeded == 1 })
	classtest.Await(t, "no Job is active", func() bool { return next.Active("cpu") == 0 })
}

// A worker that nobody gives a session ends by itself; one that does not is ended.
func TestAnIdleStrayIsDeleted(t *testing.T) {
	f := launcher(t, Config{}, nil)
	j := Spec(f.class, "stray", 10*time.Minute, time.Minute)
	if _, err := f.Client.BatchV1().Jobs(f.Namespace).Create(t.Context(), j, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	classtest.Await(t, "its worker answers", func() bool { all := f.Workers(); return len(all) == 1 && all[0].Ready })
	f.stop()
	begun := time.Now()
	next := start(t, f.Cluster, Config{Reconcile: 100 * time.Millisecond, Idle: time.Second, Describe: 200 * time.Millisecond}, f.class)
	next.nothingLeft(t)
	t.Logf("deleted after %v", time.Since(begun))
}
