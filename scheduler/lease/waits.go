package lease

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Unplaced says in Kubernetes' words why a pod has no node, "" while nothing is
// known to keep it from getting one.
func Unplaced(pod *corev1.Pod) string {
	if c := condition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && !Over(pod) {
		return join(c.Reason, c.Message)
	}
	return ""
}

// Waiting is what keeps a container of the pod from starting, nil while nothing
// is known to.
func Waiting(pod *corev1.Pod) *corev1.ContainerStateWaiting {
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "" && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			return w
		}
	}
	return nil
}

// Waits says in Kubernetes' words what keeps a pod from running: no node, no
// image, a volume that is not there. "" while nothing is known to.
func Waits(pod *corev1.Pod) string {
	if why := Unplaced(pod); why != "" {
		return why
	}
	if w := Waiting(pod); w != nil && !Over(pod) {
		return join(w.Reason, w.Message)
	}
	return ""
}
