package class

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// Whatever a person writes into an annotation: the class is usable with it, its
// numbers are within their bounds, and what was not taken is said.
func FuzzAnnotations(f *testing.F) {
	for name, value := range map[string]string{
		"slots": "4", "jobs": "0", "standby": "9", "kinds": "probe, live", "cost": "1000000", "devices": "gpu.intel.com, nvidia.com/gpu", "egress": "true", "scale": "0..3", "queue-name": "q", "slot": "1",
	} {
		f.Add(name, value, "3")
	}
	f.Add("scale", "-1..", "+1")
	f.Add("standby", "1..3", "2")
	f.Add("slots", "99999999999999999999", "0x4")
	f.Fuzz(func(t *testing.T, name, value, slots string) {
		d := deployment(func(d *appsv1.Deployment) { d.Annotations[prefix+name] = value }, onTemplate(prefix+"slots", slots))
		c, problems := FromDeployment(d)
		switch {
		case !c.Usable:
			t.Errorf("an annotation makes it useless: %q", problems)
		case c.Slots < 1 || c.Slots > mostSlots, c.Jobs < 0 || c.Jobs > mostJobs, c.Standby.Min < 0 || c.Standby.Max < c.Standby.Min || c.Standby.Max > c.Jobs, c.Cost < 0 || c.Cost > mostCost:
			t.Errorf("out of bounds: %+v", c)
		case c.Scale != nil && (c.Scale.Min < 0 || c.Scale.Max < c.Scale.Min || c.Scale.Max > mostJobs):
			t.Errorf("scale %v", *c.Scale)
		}
		for _, kind := range c.Kinds {
			if !slices.Contains(Kinds(), kind) {
				t.Errorf("kind %q", kind)
			}
		}
		plain, _ := FromDeployment(deployment())
		if _, ok := integer(slots); !ok && c.Slots == plain.Slots && name != "slots" && len(problems) == 0 {
			t.Errorf("slots %q were passed over in silence", slots)
		}
	})
}
