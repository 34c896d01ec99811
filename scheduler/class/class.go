package class

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// Label makes a Deployment a class and names it; its pods carry it too.
const Label = "ffpod.dev/class"

// Labels of worker pods and of the Jobs made from a class.
const (
	RoleLabel    = "ffpod.dev/role"    // warm | job
	SessionLabel = "ffpod.dev/session" // what a Job was made for
	RoleWarm     = "warm"
	RoleJob      = "job"
)

// Class is a named shape of worker, as its Deployment describes it. Values are
// not to be changed: they are shared by all who read them.
type Class struct {
	Name       string // the label's value
	Namespace  string
	Deployment string
	UID        types.UID // of the Deployment: it owns the Jobs

	Slots     int           // sessions at a time per warm worker. Defaults to 2.
	Jobs      int           // most Jobs at a time, 0 none. Defaults to 4.
	Standby   int           // Jobs made ahead of need. Defaults to 0.
	Kinds     []string      // kinds of session it takes, empty for all. Defaults to all.
	Cost      int           // placement prefers the cheaper class. Defaults to 0.
	Devices   []string      // what its pods hold beyond the extended resources in their limits. Defaults to none.
	Egress    ffmpeg.Egress // which network inputs its pods may reach. Defaults to none.
	Min, Max  *int          // bounds for the scheduler's scaling. Default to nil: it never touches replicas.
	QueueName string        // Kueue's local queue for its Jobs. Defaults to none.

	Replicas int32                  // warm workers wanted
	Template corev1.PodTemplateSpec // what warm workers and Jobs are made from

	Problems []string // what is wrong with the Deployment, one line each
	Usable   bool     // false: one of the problems forbids its use
}

// FromDeployment reads a class. It returns the problems too, in words for the
// person who wrote the Deployment: an annotation that is unknown or bad counts
// as absent, so its default holds; a pod that cannot serve makes the class
// unusable. The Deployment is not changed and not kept.
func FromDeployment(d *appsv1.Deployment) (Class, []string) {
	c := Class{
		Name: d.Labels[Label], Namespace: d.Namespace, Deployment: d.Name, UID: d.UID,
		Slots: DefaultSlots, Jobs: DefaultJobs,
		Replicas: 1, Template: *d.Spec.Template.DeepCopy(),
	}
	if d.Spec.Replicas != nil {
		c.Replicas = *d.Spec.Replicas
	}
	r := reader{class: &c}
	r.annotations(d)
	fatal := r.template(d)
	c.Problems = append(fatal, r.problems...)
	c.Usable = len(fatal) == 0
	return c, c.Problems
}

// template checks what no default can repair.
func (r *reader) template(d *appsv1.Deployment) (fatal []string) {
	if label, ok := d.Spec.Template.Labels[Label]; label != r.class.Name {
		was := "is " + label
		if !ok {
			was = "is absent"
		}
		fatal = append(fatal, fmt.Sprintf("the pod template's label %s %s: set it to %s, as on the Deployment", Label, was, r.class.Name))
	}
	if role, ok := d.Spec.Template.Labels[RoleLabel]; ok && role != RoleWarm {
		fatal = append(fatal, fmt.Sprintf("the pod template's label %s is %s: set it to %s", RoleLabel, role, RoleWarm))
	}
	return append(fatal, worker(&d.Spec.Template.Spec)...)
}
