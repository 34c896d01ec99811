package class

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// Defaults of the annotations.
const (
	DefaultSlots = 2
	DefaultJobs  = 4
)

// Bounds that only catch slips of the keyboard.
const (
	mostSlots = 256
	mostJobs  = 1000
	mostCost  = 1000000
)

const prefix = "ffpod.dev/"

// Kinds are the kinds of session that a class may be restricted to.
func Kinds() (names []string) {
	for _, k := range ffmpeg.Kinds() {
		names = append(names, string(k))
	}
	return names
}

// reader fills a class from annotations and collects what is wrong with them.
type reader struct {
	class    *Class
	problems []string
}

func (r *reader) problem(name, value, want string) {
	r.problems = append(r.problems, fmt.Sprintf("annotation %s%s: %q is not %s: it is ignored", prefix, name, value, want))
}

// annotations reads the Deployment's annotations, and the slots also from its
// pod template, where the downward API can show them to the worker: the
// template's value is what the worker believes, so it wins.
func (r *reader) annotations(d *appsv1.Deployment) {
	for _, key := range sorted(d.Annotations) {
		if name, ours := strings.CutPrefix(key, prefix); ours && !r.read(name, d.Annotations[key]) {
			r.problems = append(r.problems, fmt.Sprintf("annotation %s is unknown: it is ignored (known: %s)", key, known))
		}
	}
	outer := d.Annotations[prefix+"slots"]
	for _, key := range sorted(d.Spec.Template.Annotations) {
		name, ours := strings.CutPrefix(key, prefix)
		value := d.Spec.Template.Annotations[key]
		switch {
		case !ours:
		case name == "slots":
			r.read(name, value)
			if outer != "" && outer != value {
				r.problems = append(r.problems, fmt.Sprintf("annotation %s is %q on the Deployment and %q on its pod template: the pod template's holds", key, outer, value))
			}
		default:
			r.problems = append(r.problems, fmt.Sprintf("annotation %s on the pod template is ignored: set it on the Deployment", key))
		}
	}
	if c := r.class; c.Standby.Max > c.Jobs {
		r.problems = append(r.problems, fmt.Sprintf("annotation %sstandby: %d is more than the %d Jobs allowed: %d are kept", prefix, c.Standby.Max, c.Jobs, c.Jobs))
		c.Standby = Bounds{min(c.Standby.Min, c.Jobs), c.Jobs}
	}
}

const known = "slots, jobs, standby, kinds, cost, devices, egress, scale, translate, queue-name"

// read reports whether it knows the annotation.
func (r *reader) read(name, value string) bool {
	c := r.class
	switch name {
	case "slots":
		r.number(name, value, 1, mostSlots, &c.Slots)
	case "jobs":
		r.number(name, value, 0, mostJobs, &c.Jobs)
	case "standby":
		if b, ok := bounds(value); ok {
			c.Standby = b
		} else if n, ok := integer(value); ok && n <= mostJobs {
			c.Standby = Bounds{n, n}
		} else {
			r.problem(name, value, "a number, such as 1, or two numbers MIN..MAX, such as 0..2")
		}
	case "cost":
		r.number(name, value, 0, mostCost, &c.Cost)
	case "kinds":
		r.kinds(value)
	case "devices":
		r.devices(value)
	case "egress":
		switch value {
		case "true", "caller":
			c.Egress = ffmpeg.Egress(value)
		case "false":
		default:
			r.problem(name, value, "true, caller or false")
		}
	case "scale":
		if b, ok := bounds(value); ok {
			c.Scale = &b
		} else {
			r.problem(name, value, "two numbers MIN..MAX, such as 0..3")
		}
	case "translate":
		switch value {
		case "true":
			c.Translate = true
		case "false":
		default:
			r.problem(name, value, "true or false")
		}
	case "queue-name":
		if len(validation.IsDNS1123Subdomain(value)) > 0 || len(value) > validation.LabelValueMaxLength {
			r.problem(name, value, "the name of a Kueue LocalQueue")
			break
		}
		c.QueueName = value
	default:
		return false
	}
	return true
}

func (r *reader) number(name, value string, least, most int, to *int) {
	n, ok := integer(value)
	if !ok || n < least || n > most {
		r.problem(name, value, fmt.Sprintf("a number from %d to %d", least, most))
		return
	}
	*to = n
}

func (r *reader) kinds(value string) {
	var kinds []string
	for _, kind := range strings.Split(value, ",") {
		if kind = strings.TrimSpace(kind); !slices.Contains(Kinds(), kind) {
			r.problem("kinds", value, "a comma list of "+strings.Join(Kinds(), ", "))
			return
		}
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	r.class.Kinds = kinds
}

// devices are names like those of extended resources or of DeviceClasses.
func (r *reader) devices(value string) {
	var devices []string
	for _, d := range strings.Split(value, ",") {
		if d = strings.TrimSpace(d); len(validation.IsQualifiedName(d)) > 0 {
			r.problem("devices", value, "a comma list of names such as nvidia.com/gpu or gpu.intel.com")
			return
		}
		if !slices.Contains(devices, d) {
			devices = append(devices, d)
		}
	}
	r.class.Devices = devices
}

// bounds reads MIN..MAX.
func bounds(value string) (Bounds, bool) {
	low, high, ok := strings.Cut(value, "..")
	least, okLow := integer(low)
	most, okHigh := integer(high)
	return Bounds{least, most}, ok && okLow && okHigh && least <= most && most <= mostJobs
}

// integer accepts plain digits only: no sign, space, or second spelling.
func integer(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && strconv.Itoa(n) == s
}

// worker checks the container that serves sessions.
func worker(pod *corev1.PodSpec) (fatal []string) {
	for i := range pod.Containers {
		c := &pod.Containers[i]
		if c.Name != podexec.Container {
			continue
		}
		if run := slices.Concat(c.Command, c.Args); !slices.Equal(run, lease.ServeCommand()) {
			fatal = append(fatal, fmt.Sprintf("container %s runs %q: its command has to be %q", c.Name, run, lease.ServeCommand()))
		}
		return fatal
	}
	return []string{fmt.Sprintf("the pod template has no container named %s: sessions have nowhere to run", podexec.Container)}
}

func sorted(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
