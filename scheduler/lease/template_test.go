package lease

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ffpod/ffpod/podexec"
)

// What changes a worker's answers about its hardware has another name; what tells a
// warm pod from a Job's, or what Kubernetes adds to any pod, has not.
func TestTemplate(t *testing.T) {
	pod := func(change func(*corev1.PodSpec, *corev1.Container)) string {
		s := &corev1.PodSpec{Containers: []corev1.Container{{Name: "other"}, {Name: podexec.Container, Image: "worker:1",
			Env:       []corev1.EnvVar{{Name: "LIBVA_DRIVER_NAME", Value: "iHD"}},
			Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"gpu.intel.com/i915": resource.MustParse("1")}}}}}
		change(s, &s.Containers[1])
		return Template(s)
	}
	was := pod(func(*corev1.PodSpec, *corev1.Container) {})
	tests := map[string]struct {
		change func(*corev1.PodSpec, *corev1.Container)
		same   bool
	}{
		"a Job's": {func(s *corev1.PodSpec, c *corev1.Container) {
			s.RestartPolicy = "Never"
			c.Env = append(c.Env, corev1.EnvVar{Name: "FFPOD_ONCE", Value: "1"})
		}, true},
		"its node":  {func(s *corev1.PodSpec, _ *corev1.Container) { s.NodeName = "node-1" }, true},
		"image":     {func(_ *corev1.PodSpec, c *corev1.Container) { c.Image = "worker:2" }, false},
		"driver":    {func(_ *corev1.PodSpec, c *corev1.Container) { c.Env[0].Value = "radeonsi" }, false},
		"no driver": {func(_ *corev1.PodSpec, c *corev1.Container) { c.Env = nil }, false},
		"device": {func(_ *corev1.PodSpec, c *corev1.Container) {
			c.Resources.Limits = corev1.ResourceList{"amd.com/gpu": resource.MustParse("1")}
		}, false},
		"claim": {func(s *corev1.PodSpec, _ *corev1.Container) {
			s.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: new("a")}}
		}, false},
		"nodes":         {func(s *corev1.PodSpec, _ *corev1.Container) { s.NodeSelector = map[string]string{"gpu": "new"} }, false},
		"runtime class": {func(s *corev1.PodSpec, _ *corev1.Container) { s.RuntimeClassName = new("nvidia") }, false},
	}
	for name, c := range tests {
		if got := pod(c.change) == was; got != c.same {
			t.Errorf("%s: the same name: %t, want %t", name, got, c.same)
		}
	}
}
