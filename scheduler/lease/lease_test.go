package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/podexec"
)

func TestLeaseEndsOnce(t *testing.T) {
	release, leave, destroy := (*Lease).Release, (*Lease).Leave, (*Lease).Destroy
	tests := map[string]struct {
		end       []func(*Lease)
		want      []string
		wantPanic bool
	}{
		"release":                 {[]func(*Lease){release}, []string{"release"}, false},
		"destroy":                 {[]func(*Lease){destroy}, []string{"destroy"}, false},
		"leave":                   {[]func(*Lease){leave}, []string{"leave"}, false},
		"leave after a release":   {[]func(*Lease){release, leave}, []string{"release"}, true},
		"destroy after a leave":   {[]func(*Lease){leave, destroy}, []string{"leave"}, true},
		"release twice":           {[]func(*Lease){release, release}, []string{"release"}, true},
		"destroy twice":           {[]func(*Lease){destroy, destroy}, []string{"destroy"}, true},
		"destroy after a release": {[]func(*Lease){release, destroy}, []string{"release"}, true},
		"release after a destroy": {[]func(*Lease){destroy, release}, []string{"destroy"}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			ends := func(how string) func() { return func() { got = append(got, how) } }
			l := New(Terms{Worker: Worker{Pod: "w"}, Release: ends("release"), Leave: ends("leave"), Destroy: ends("destroy")})
			panicked := func() (p bool) {
				defer func() { p = recover() != nil }()
				for _, end := range tt.end {
					end(l)
				}
				return false
			}()
			if panicked != tt.wantPanic {
				t.Errorf("panicked = %v, want %v", panicked, tt.wantPanic)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("calls (-want +got):\n%s", d)
			}
		})
	}
}

func TestCauseFollowsDone(t *testing.T) {
	gone, why := make(chan struct{}), errors.New("OOMKilled")
	l := New(Terms{Worker: Worker{Pod: "w"}, Gone: gone, Cause: func() error { return why }})
	if err := l.Cause(); err != nil {
		t.Errorf("Cause before Done = %v, want nil", err)
	}
	close(gone)
	<-l.Done()
	if err := l.Cause(); !errors.Is(err, why) {
		t.Errorf("Cause after Done = %v, want %v", err, why)
	}
}

func TestGone(t *testing.T) {
	container := func(s corev1.ContainerStatus) corev1.PodStatus {
		s.Name = podexec.Container
		return corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "sidecar"}, s}}
	}
	dead := func(code, signal int32, reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Signal: signal, Reason: reason}}
	}
	at := metav1.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := map[string]struct {
		pod   corev1.Pod
		since int32
		want  string
	}{
		"running": {corev1.Pod{Status: container(corev1.ContainerStatus{})}, 0, ""},
		"out of memory": {corev1.Pod{Status: container(corev1.ContainerStatus{State: dead(137, 0, "OOMKilled")})}, 0,
			"OOMKilled: the container exceeded its memory limit (exit code 137)"},
		"out of memory and running again": {corev1.Pod{Status: container(corev1.ContainerStatus{RestartCount: 1, LastTerminationState: dead(137, 0, "OOMKilled")})}, 0,
			"OOMKilled: the container exceeded its memory limit (exit code 137)"},
		"an older restart explains nothing": {corev1.Pod{Status: container(corev1.ContainerStatus{RestartCount: 1, LastTerminationState: dead(137, 0, "OOMKilled")})}, 1, ""},
		"exit code":                         {corev1.Pod{Status: container(corev1.ContainerStatus{State: dead(3, 0, "Error")})}, 0, "the worker exited with code 3"},
		"exit code of a signal":             {corev1.Pod{Status: container(corev1.ContainerStatus{State: dead(143, 0, "Error")})}, 0, "the worker exited with code 143 (terminated)"},
		"signal":                            {corev1.Pod{Status: container(corev1.ContainerStatus{State: dead(137, 9, "Error")})}, 0, "the worker was killed by signal 9"},
		"could not start":                   {corev1.Pod{Status: container(corev1.ContainerStatus{State: dead(128, 0, "StartError")})}, 0, "StartError (exit code 128)"},
		"evicted by the kubelet": {corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node was low on\nresource: memory."}}, 0,
			"Evicted: The node was low on resource: memory."},
		"drained": {corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI"}}}}, 0,
			"evicted (drain of its node, or a disruption by an operator)"},
		"deleted": {corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &at}}, 0, "the pod was deleted at 03:04:05Z"},
		"node silent": {corev1.Pod{Spec: corev1.PodSpec{NodeName: "n1"}, Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionFalse}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue}}}}, 0, "node n1 is not ready"},
		"merely not ready": {corev1.Pod{Spec: corev1.PodSpec{NodeName: "n1"}, Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionFalse}, {Type: corev1.ContainersReady, Status: corev1.ConditionFalse}}}}, 0, ""},
		"completed": {corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}, 0, "the pod is Succeeded"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Gone(&tt.pod, tt.since); got != tt.want {
				t.Errorf("Gone = %q, want %q", got, tt.want)
			}
		})
	}
}
