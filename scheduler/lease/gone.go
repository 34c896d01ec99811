package lease

import (
	"fmt"
	"strings"
	"syscall"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ffpod/ffpod/podexec"
)

// Gone says in words why a worker's pod no longer serves, as far as its status
// tells, most telling first: a disruption, its deletion, the end of its
// container, its node. It is "" while the status tells nothing.
//
// since is the restart count of the container when the worker was last known
// to serve: the end of an earlier run of it explains nothing.
func Gone(pod *corev1.Pod, since int32) string {
	if c := condition(pod, corev1.DisruptionTarget); c != nil && c.Status == corev1.ConditionTrue {
		return join(disruption(c.Reason), c.Message)
	}
	if pod.Status.Reason != "" { // Evicted, NodeLost, Shutdown, OutOfcpu, UnexpectedAdmissionError...
		return join(pod.Status.Reason, pod.Status.Message)
	}
	if pod.DeletionTimestamp != nil {
		return "the pod was deleted" + clock(pod)
	}
	if t := terminated(pod, since); t != nil {
		return ended(t)
	}
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return "the pod is " + string(pod.Status.Phase)
	}
	if NodeSilent(pod) {
		return "node " + pod.Spec.NodeName + " is not ready"
	}
	return ""
}

// Restarts counts the restarts of the worker container.
func Restarts(pod *corev1.Pod) int32 {
	if s := Status(pod); s != nil {
		return s.RestartCount
	}
	return 0
}

// Status is the status of the worker container, nil before the kubelet has
// reported one.
func Status(pod *corev1.Pod) *corev1.ContainerStatus {
	for i := range pod.Status.ContainerStatuses {
		if s := &pod.Status.ContainerStatuses[i]; s.Name == podexec.Container {
			return s
		}
	}
	return nil
}

// Running is the status of the worker container while it runs, else nil.
func Running(pod *corev1.Pod) *corev1.ContainerStatus {
	if s := Status(pod); s != nil && s.State.Running != nil {
		return s
	}
	return nil
}

// JobOf is the name of the Job that made the pod, "" when none did.
func JobOf(pod *corev1.Pod) string { return pod.Labels[batchv1.JobNameLabel] }

// Over reports whether the pod will never run a container again.
func Over(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

func condition(pod *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == t {
			return c
		}
	}
	return nil
}

// disruption says what stands behind the reasons that Kubernetes gives a pod
// it is about to end. Who asked for it is not recorded on the pod.
func disruption(reason string) string {
	switch reason {
	case "EvictionByEvictionAPI":
		return "evicted (drain of its node, or a disruption by an operator)"
	case corev1.PodReasonPreemptionByScheduler:
		return "preempted by a pod of higher priority"
	case "DeletionByTaintManager":
		return "evicted by a taint of its node (not ready, unreachable)"
	case corev1.PodReasonTerminationByKubelet:
		return "ended by its node (resource pressure, shutdown, preemption)"
	case "DeletionByPodGC":
		return "deleted because its node is gone"
	}
	return "disrupted: " + reason
}

func terminated(pod *corev1.Pod, since int32) *corev1.ContainerStateTerminated {
	s := Status(pod)
	if s == nil {
		return nil
	}
	if s.State.Terminated != nil {
		return s.State.Terminated
	}
	if s.RestartCount > since {
		return s.LastTerminationState.Terminated
	}
	return nil
}

func ended(t *corev1.ContainerStateTerminated) string {
	what := fmt.Sprintf("the worker exited with code %d", t.ExitCode)
	switch {
	case t.Reason == "OOMKilled":
		what = fmt.Sprintf("OOMKilled: the container exceeded its memory limit (exit code %d)", t.ExitCode)
	case t.Signal != 0:
		what = fmt.Sprintf("the worker was killed by signal %d", t.Signal)
	case t.ExitCode > 128 && t.ExitCode < 128+65:
		what += fmt.Sprintf(" (%s)", syscall.Signal(t.ExitCode-128))
	case t.Reason != "" && t.Reason != "Error" && t.Reason != "Completed":
		what = fmt.Sprintf("%s (exit code %d)", t.Reason, t.ExitCode)
	}
	return join(what, t.Message)
}

// NodeSilent reports whether the pod's node does not answer Kubernetes. It
// recognises the mark of the node lifecycle controller: it sets a
// pod's Ready to false and leaves what the kubelet said of its containers.
// Nodes themselves are not readable with rights in one namespace.
func NodeSilent(pod *corev1.Pod) bool {
	ready, containers := condition(pod, corev1.PodReady), condition(pod, corev1.ContainersReady)
	return ready != nil && ready.Status == corev1.ConditionFalse && len(pod.Spec.ReadinessGates) == 0 &&
		containers != nil && containers.Status == corev1.ConditionTrue
}

func clock(pod *corev1.Pod) string {
	return " at " + pod.DeletionTimestamp.UTC().Format("15:04:05Z")
}

// join puts a message of Kubernetes behind our words, on one line.
func join(what, message string) string {
	if message = strings.Join(strings.Fields(message), " "); message == "" {
		return what
	}
	return what + ": " + message
}
