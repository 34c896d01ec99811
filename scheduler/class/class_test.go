package class

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

func deployment(changes ...func(*appsv1.Deployment)) *appsv1.Deployment {
	d := &appsv1.Deployment{}
	d.Name, d.Namespace, d.UID = "ffpod-cpu", "media", "u1"
	d.Labels = map[string]string{Label: "cpu"}
	d.Annotations = map[string]string{"deployment.kubernetes.io/revision": "1"}
	d.Spec.Template.Labels = map[string]string{Label: "cpu", RoleLabel: RoleWarm}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "worker", Command: []string{"/ffpod/worker", "serve"}}}
	for _, change := range changes {
		change(d)
	}
	return d
}

func annotated(kv ...string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		for i := 0; i < len(kv); i += 2 {
			d.Annotations[kv[i]] = kv[i+1]
		}
	}
}

func onTemplate(kv ...string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			d.Spec.Template.Annotations[kv[i]] = kv[i+1]
		}
	}
}

func TestFromDeployment(t *testing.T) {
	base := Class{Name: "cpu", Namespace: "media", Deployment: "ffpod-cpu", UID: "u1", Slots: 2, Jobs: 4, Replicas: 1, Usable: true}
	with := func(change func(*Class)) Class {
		c := base
		change(&c)
		return c
	}
	kinds := "probe, playback, live, image, trickplay, subtitle, loudness, keyframes, other"
	tests := map[string]struct {
		deployment *appsv1.Deployment
		want       Class
		problems   []string
	}{
		"defaults": {deployment(), base, nil},
		"everything set": {
			deployment(annotated("ffpod.dev/slots", "8", "ffpod.dev/jobs", "3", "ffpod.dev/standby", "1", "ffpod.dev/kinds", "playback, image,playback",
				"ffpod.dev/cost", "10", "ffpod.dev/devices", "gpu.intel.com, nvidia.com/gpu,gpu.intel.com", "ffpod.dev/egress", "true", "ffpod.dev/scale", "0..5", "ffpod.dev/translate", "true", "ffpod.dev/queue-name", "gpus")),
			with(func(c *Class) {
				c.Slots, c.Jobs, c.Standby, c.Cost, c.Egress, c.QueueName = 8, 3, Bounds{1, 1}, 10, ffmpeg.AnyEgress, "gpus"
				c.Kinds, c.Scale, c.Translate = []string{"playback", "image"}, &Bounds{0, 5}, true
				c.Devices = []string{"gpu.intel.com", "nvidia.com/gpu"}
			}), nil},
		"no Jobs": {deployment(annotated("ffpod.dev/jobs", "0")), with(func(c *Class) { c.Jobs = 0 }), nil},
		"no warm workers": {deployment(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32) }),
			with(func(c *Class) { c.Replicas = 0 }), nil},
		"command split over command and args": {deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Command, d.Spec.Template.Spec.Containers[0].Args = []string{"/ffpod/worker"}, []string{"serve"}
		}), base, nil},
		"command in args alone": {deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Command, d.Spec.Template.Spec.Containers[0].Args = nil, []string{"/ffpod/worker", "serve"}
		}), base, nil},
		"slots of the pod template": {deployment(onTemplate("ffpod.dev/slots", "5")), with(func(c *Class) { c.Slots = 5 }), nil},
		"slots on both, different": {deployment(annotated("ffpod.dev/slots", "3"), onTemplate("ffpod.dev/slots", "5")),
			with(func(c *Class) { c.Slots = 5 }),
			[]string{`annotation ffpod.dev/slots is "3" on the Deployment and "5" on its pod template: the pod template's holds`}},
		"other annotations of the pod template": {deployment(onTemplate("ffpod.dev/jobs", "5", "prometheus.io/scrape", "true")), base,
			[]string{"annotation ffpod.dev/jobs on the pod template is ignored: set it on the Deployment"}},
		"unknown": {deployment(annotated("ffpod.dev/slot", "3")), base,
			[]string{"annotation ffpod.dev/slot is unknown: it is ignored (known: slots, jobs, standby, kinds, cost, devices, egress, scale, translate, queue-name)"}},
		"slots zero":        {deployment(annotated("ffpod.dev/slots", "0")), base, []string{`annotation ffpod.dev/slots: "0" is not a number from 1 to 256: it is ignored`}},
		"slots many":        {deployment(annotated("ffpod.dev/slots", "257")), base, []string{`annotation ffpod.dev/slots: "257" is not a number from 1 to 256: it is ignored`}},
		"jobs signed":       {deployment(annotated("ffpod.dev/jobs", "+3")), base, []string{`annotation ffpod.dev/jobs: "+3" is not a number from 0 to 1000: it is ignored`}},
		"translate refused": {deployment(annotated("ffpod.dev/translate", "false")), base, nil},
		"translate for one target": {deployment(annotated("ffpod.dev/translate", "qsv")), base,
			[]string{`annotation ffpod.dev/translate: "qsv" is not true or false: it is ignored`}},
		"translate on the pod template": {deployment(onTemplate("ffpod.dev/translate", "true")), base,
			[]string{"annotation ffpod.dev/translate on the pod template is ignored: set it on the Deployment"}},
		"cost empty": {deployment(annotated("ffpod.dev/cost", "")), base, []string{`annotation ffpod.dev/cost: "" is not a number from 0 to 1000000: it is ignored`}},
		"kind unknown": {deployment(annotated("ffpod.dev/kinds", "playback,movies")), base,
			[]string{`annotation ffpod.dev/kinds: "playback,movies" is not a comma list of ` + kinds + `: it is ignored`}},
		"devices no names": {deployment(annotated("ffpod.dev/devices", "gpu intel")), base,
			[]string{`annotation ffpod.dev/devices: "gpu intel" is not a comma list of names such as nvidia.com/gpu or gpu.intel.com: it is ignored`}},
		"egress spelt otherwise": {deployment(annotated("ffpod.dev/egress", "True")), base, []string{`annotation ffpod.dev/egress: "True" is not true, caller or false: it is ignored`}},
		"scale reversed":         {deployment(annotated("ffpod.dev/scale", "3..1")), base, []string{`annotation ffpod.dev/scale: "3..1" is not two numbers MIN..MAX, such as 0..3: it is ignored`}},
		"scale open":             {deployment(annotated("ffpod.dev/scale", "3..")), base, []string{`annotation ffpod.dev/scale: "3.." is not two numbers MIN..MAX, such as 0..3: it is ignored`}},
		"queue name":             {deployment(annotated("ffpod.dev/queue-name", "My Queue")), base, []string{`annotation ffpod.dev/queue-name: "My Queue" is not the name of a Kueue LocalQueue: it is ignored`}},
		"more standby than Jobs": {deployment(annotated("ffpod.dev/jobs", "1", "ffpod.dev/standby", "2")), with(func(c *Class) { c.Jobs, c.Standby = 1, Bounds{1, 1} }),
			[]string{"annotation ffpod.dev/standby: 2 is more than the 1 Jobs allowed: 1 are kept"}},
		"standby within bounds": {deployment(annotated("ffpod.dev/standby", "0..2")), with(func(c *Class) { c.Standby = Bounds{0, 2} }), nil},
		"standby bounds, more than Jobs": {deployment(annotated("ffpod.dev/jobs", "1", "ffpod.dev/standby", "0..3")), with(func(c *Class) { c.Jobs, c.Standby = 1, Bounds{0, 1} }),
			[]string{"annotation ffpod.dev/standby: 3 is more than the 1 Jobs allowed: 1 are kept"}},
		"standby reversed": {deployment(annotated("ffpod.dev/standby", "2..1")), base,
			[]string{`annotation ffpod.dev/standby: "2..1" is not a number, such as 1, or two numbers MIN..MAX, such as 0..2: it is ignored`}},
		"no pod by quota": {deployment(func(d *appsv1.Deployment) {
			d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "pods is forbidden:\n exceeded quota"}}
		}), with(func(c *Class) { c.Unable = "FailedCreate: pods is forbidden: exceeded quota" }), nil},
		"several problems": {deployment(annotated("ffpod.dev/slots", "x", "ffpod.dev/egress", "1")), base,
			[]string{`annotation ffpod.dev/egress: "1" is not true, caller or false: it is ignored`, `annotation ffpod.dev/slots: "x" is not a number from 1 to 256: it is ignored`}},
		"no container worker": {deployment(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Name = "ffmpeg" }),
			with(func(c *Class) { c.Usable = false }), []string{"the pod template has no container named worker: sessions have nowhere to run"}},
		"worker only as init container": {deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.InitContainers, d.Spec.Template.Spec.Containers = d.Spec.Template.Spec.Containers, []corev1.Container{{Name: "main"}}
		}), with(func(c *Class) { c.Usable = false }), []string{"the pod template has no container named worker: sessions have nowhere to run"}},
		"another command": {deployment(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Command = []string{"sleep", "1"} }),
			with(func(c *Class) { c.Usable = false }), []string{`container worker runs ["sleep" "1"]: its command has to be ["/ffpod/worker" "serve"]`}},
		"the image's own command": {deployment(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Command = nil }),
			with(func(c *Class) { c.Usable = false }), []string{`container worker runs []: its command has to be ["/ffpod/worker" "serve"]`}},
		"template without the label": {deployment(func(d *appsv1.Deployment) { delete(d.Spec.Template.Labels, Label) }),
			with(func(c *Class) { c.Usable = false }), []string{"the pod template's label ffpod.dev/class is absent: set it to cpu, as on the Deployment"}},
		"template of another class": {deployment(func(d *appsv1.Deployment) { d.Spec.Template.Labels[Label] = "gpu" }),
			with(func(c *Class) { c.Usable = false }), []string{"the pod template's label ffpod.dev/class is gpu: set it to cpu, as on the Deployment"}},
		"template with the role of Jobs": {deployment(func(d *appsv1.Deployment) { d.Spec.Template.Labels[RoleLabel] = RoleJob }),
			with(func(c *Class) { c.Usable = false }), []string{"the pod template's label ffpod.dev/role is job: set it to warm"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			before := tt.deployment.DeepCopy()
			got, problems := FromDeployment(tt.deployment)
			if d := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Class{}, "Template", "Problems")); d != "" {
				t.Errorf("class (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.problems, problems, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.deployment.Spec.Template, got.Template); d != "" {
				t.Errorf("template (-want +got):\n%s", d)
			}
			got.Template.Labels["added"] = "by the caller"
			if d := cmp.Diff(before, tt.deployment); d != "" {
				t.Errorf("the Deployment was changed (-before +after):\n%s", d)
			}
		})
	}
}
