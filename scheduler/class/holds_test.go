package class

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Placement is told of a device that stands in the limits, and of one that only
// the class's annotation names, as those of a ResourceClaim; of no other resource.
func TestHolds(t *testing.T) {
	c := Class{Devices: []string{"gpu.intel.com", "amd.com/gpu"}}
	one := resource.MustParse("1")
	c.Template.Spec.Containers = []corev1.Container{
		{Name: "worker", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{
			"cpu": one, "nvidia.com/gpu.shared": one, "amd.com/gpu": one, "requests.kubernetes.io/x": one}}},
	}
	before := slices.Clone(c.Devices)
	if got, want := c.Holds(), []string{"amd.com/gpu", "gpu.intel.com", "nvidia.com/gpu.shared"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !slices.Equal(c.Devices, before) {
		t.Errorf("the class's own list is %q now", c.Devices)
	}
}
