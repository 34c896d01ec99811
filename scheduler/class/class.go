package class

import (
	"fmt"
	"slices"
	"strings"

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
	SessionLabel = "ffpod.dev/session" // what a Job was made for, or is taken by
	StandbyLabel = "ffpod.dev/standby" // on a Job made ahead of need: the template it was made from
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
	Standby   Bounds        // Jobs made ahead of need. Defaults to none.
	Kinds     []string      // kinds of session it takes, empty for all. Defaults to all.
	Cost      int           // placement prefers the cheaper class. Defaults to 0.
	Devices   []string      // what its pods hold beyond the extended resources in their limits. Defaults to none.
	Egress    ffmpeg.Egress // which network inputs its pods may reach. Defaults to none.
	Scale     *Bounds       // replicas that the scheduler may choose between. Defaults to nil: it never touches them.
	Translate bool          // it takes sessions whose command line is rewritten for its hardware. Defaults to false.
	QueueName string        // Kueue's local queue for its Jobs. Defaults to none.

	Replicas int32                  // warm workers wanted
	Template corev1.PodTemplateSpec // what warm workers and Jobs are made from

	// Unable is why Kubernetes makes no pod for a replica, in its words; "": it does.
	Unable string

	Problems []string // what is wrong with the Deployment, one line each
	Usable   bool     // false: one of the problems forbids its use
}

// Bounds are the least and the most of something.
type Bounds struct{ Min, Max int }

// Clamp brings n between the bounds.
func (b Bounds) Clamp(n int) int { return min(max(n, b.Min), b.Max) }

// Holds lists the extended resources of the class's pods, and what else it says
// they hold, by name.
func (c Class) Holds() []string {
	names := slices.Clone(c.Devices)
	for _, container := range c.Template.Spec.Containers {
		for name := range container.Resources.Limits {
			domain, _, extended := strings.Cut(string(name), "/")
			if extended && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io") {
				names = append(names, string(name))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
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
	for _, condition := range d.Status.Conditions {
		// A refusal by quota or by admission: no pod is there whose status could tell it.
		if condition.Type == appsv1.DeploymentReplicaFailure && condition.Status == corev1.ConditionTrue {
			c.Unable = condition.Reason + ": " + strings.Join(strings.Fields(condition.Message), " ")
		}
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
