package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/scheduler/class"
)

// maker tells what installs a resource, and how it is shared.
type maker struct{ prefix, plugin, shared string }

var makers = []maker{
	{"nvidia.com/", "the NVIDIA device plugin or GPU operator", "its ConfigMap's sharing.timeSlicing.resources[].replicas"},
	{"gpu.intel.com/", "the Intel GPU device plugin", "its argument --shared-dev-num"},
	{"amd.com/", "the AMD GPU device plugin", "nothing: one session per GPU"},
}

func makerOf(name string) maker {
	for _, m := range makers {
		if strings.HasPrefix(name, m.prefix) {
			return m
		}
	}
	return maker{plugin: "its device plugin"}
}

// extended reports whether a resource is a device plugin's.
func extended(name corev1.ResourceName) bool {
	domain, _, slash := strings.Cut(string(name), "/")
	return slash && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io")
}

// gpu compares what nodes offer with what classes ask for.
func gpu(_ context.Context, p *Patient) []Finding {
	f := p.facts
	if f.nodes == nil {
		return nil // said by read
	}
	found := offered(f.nodes)
	for _, d := range f.classes {
		found = append(found, f.asked(d)...)
	}
	return found
}

// offered tells what devices there are and how they are shared.
func offered(nodes []corev1.Node) (found []Finding) {
	for _, n := range nodes {
		on := "node " + n.Name
		has := false
		for _, name := range slices.Sorted(maps.Keys(n.Status.Allocatable)) {
			if !extended(name) || makerOf(string(name)).prefix == "" {
				continue
			}
			has = true
			count, capacity := n.Status.Allocatable[name], n.Status.Capacity[name]
			how := sharing(n, string(name))
			if count.IsZero() {
				found = append(found, Finding{Level: Warn, On: on, What: fmt.Sprintf("%s of %s %s can be used", count.String(), capacity.String(), name), Why: "the device plugin is gone or says that they are unhealthy", Remedy: "`kubectl get pods -A -o wide | grep -i plugin`, and its log on that node"})
				continue
			}
			found = append(found, ok(on, "%s × %s%s", count.String(), name, how))
		}
		if hint := hardwareWithoutPlugin(n); hint != "" && !has {
			found = append(found, Finding{Level: Warn, On: on, What: hint + ", but no device plugin offers it", Why: "a class can only request what a plugin offers", Remedy: "install " + makerOf(hinted(n)).plugin + ", or mount /dev/dri with a class of your own: docs/hardware.md"})
		}
	}
	return found
}

// hinted is the resource prefix that node-feature-discovery's labels suggest.
func hinted(n corev1.Node) string {
	for _, pci := range []struct{ id, prefix string }{{"10de", "nvidia.com/"}, {"8086", "gpu.intel.com/"}, {"1002", "amd.com/"}} {
		for _, class := range []string{"0300", "0302", "0380"} {
			if n.Labels["feature.node.kubernetes.io/pci-"+class+"_"+pci.id+".present"] == "true" {
				return pci.prefix
			}
		}
	}
	return ""
}

func hardwareWithoutPlugin(n corev1.Node) string {
	switch hinted(n) {
	case "nvidia.com/":
		return "it has an NVIDIA GPU"
	case "gpu.intel.com/":
		return "it has an Intel GPU"
	case "amd.com/":
		return "it has an AMD GPU"
	}
	return ""
}

// sharing words how a resource is shared: time-slicing, MIG, .shared.
func sharing(n corev1.Node, name string) string {
	var how []string
	if strings.HasPrefix(name, "nvidia.com/") {
		if r := n.Labels["nvidia.com/gpu.replicas"]; r != "" && r != "1" && r != "0" {
			how = append(how, fmt.Sprintf("%s sessions per GPU by %s", r, cmp.Or(n.Labels["nvidia.com/gpu.sharing-strategy"], "time-slicing")))
		}
		if m := n.Labels["nvidia.com/mig.strategy"]; strings.HasPrefix(name, "nvidia.com/mig-") || m == "single" || m == "mixed" {
			how = append(how, "MIG "+m)
		}
		if product := n.Labels["nvidia.com/gpu.product"]; product != "" {
			how = append(how, product)
		}
	}
	if strings.HasSuffix(name, ".shared") {
		how = append(how, "renamed by the plugin because it is shared")
	}
	if len(how) == 0 {
		return ""
	}
	return " (" + strings.Join(how, ", ") + ")"
}

// asked checks one class's devices against the nodes that it may use.
func (f *facts) asked(d appsv1.Deployment) (found []Finding) {
	spec := d.Spec.Template.Spec
	on := className(d)
	c, there := container(spec, "worker")
	if !there {
		return nil
	}
	nodes := slices.DeleteFunc(slices.Clone(f.nodes), func(n corev1.Node) bool { return !eligible(spec, n) })
	if len(nodes) == 0 {
		return []Finding{{Level: Fail, On: on, What: "its nodeSelector and affinity match no node", Remedy: "label the nodes, or correct nodes.workers in settings.yaml"}}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Resources.Limits)) {
		if !extended(name) {
			continue
		}
		want := c.Resources.Limits[name]
		found = append(found, devices(d, on, string(name), want, nodes)...)
	}
	return append(found, f.render(d, c)...)
}

func devices(d appsv1.Deployment, on, name string, want resource.Quantity, nodes []corev1.Node) []Finding {
	total, most := int64(0), int64(0)
	var near []string
	for _, n := range nodes {
		q := n.Status.Allocatable[corev1.ResourceName(name)]
		total, most = total+q.Value(), max(most, q.Value())
		for other := range n.Status.Allocatable {
			if extended(other) && makerOf(string(other)).prefix != "" && makerOf(string(other)) == makerOf(name) && string(other) != name {
				near = append(near, string(other))
			}
		}
	}
	slices.Sort(near)
	near = slices.Compact(near)
	m := makerOf(name)
	switch {
	case total == 0 && len(near) > 0:
		return []Finding{{Level: Fail, On: on, What: "it requests " + name + ", but its nodes offer " + strings.Join(near, ", "), Why: "plugins rename what they share or split (.shared, mig-…), and i915 and xe are two drivers",
			Remedy: "request " + near[0] + " in Deployment " + d.Name + " (gpu in settings.yaml)"}}
	case total == 0:
		return []Finding{{Level: Fail, On: on, What: "it requests " + name + ", which no node that it may use offers", Remedy: "install " + m.plugin + " there; verify with `kubectl get nodes -o custom-columns=N:.metadata.name,G:.status.allocatable`"}}
	case want.Value() > most:
		return []Finding{{Level: Fail, On: on, What: fmt.Sprintf("it requests %d × %s, and no node has more than %d", want.Value(), name, most), Remedy: "request 1 in Deployment " + d.Name}}
	}
	var found []Finding
	warm := int64(1)
	if d.Spec.Replicas != nil {
		warm = int64(*d.Spec.Replicas)
	}
	jobs := int64(class.DefaultJobs)
	if n, err := strconv.ParseInt(d.Annotations["ffpod.dev/jobs"], 10, 64); err == nil {
		jobs = n
	}
	if left := total/want.Value() - warm; jobs > 0 && left <= 0 && warm > 0 {
		found = append(found, Finding{Level: Warn, On: on, What: fmt.Sprintf("its %d warm workers hold all %d × %s, so its Jobs never start", warm, total, name), Why: "a session beyond the slots waits for a warm one",
			Remedy: "set ffpod.dev/jobs: \"0\" there, or share the devices (" + m.shared + ")"})
	}
	return append(found, ok(on, "%d × %s for it on %d nodes", total, name, len(nodes)))
}

// eligible tells whether a pod may be on a node, by selector, affinity and taints.
func eligible(spec corev1.PodSpec, n corev1.Node) bool {
	if n.Spec.Unschedulable {
		return false
	}
	match, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: spec}).Match(&n)
	if err != nil || !match {
		return false
	}
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectPreferNoSchedule || t.Key == "node.kubernetes.io/not-ready" {
			continue
		}
		if !slices.ContainsFunc(spec.Tolerations, func(x corev1.Toleration) bool {
			return (x.Effect == "" || x.Effect == t.Effect) && (x.Key == t.Key && (x.Operator == corev1.TolerationOpExists || x.Value == t.Value) || x.Key == "" && x.Operator == corev1.TolerationOpExists)
		}) {
			return false
		}
	}
	return true
}

// render finds a class that uses /dev/dri and is in no group for it.
func (f *facts) render(d appsv1.Deployment, c corev1.Container) []Finding {
	uses := false
	for name := range c.Resources.Limits {
		uses = uses || strings.HasPrefix(string(name), "gpu.intel.com/") || strings.HasPrefix(string(name), "amd.com/")
	}
	for _, v := range d.Spec.Template.Spec.Volumes {
		uses = uses || v.HostPath != nil && strings.HasPrefix(v.HostPath.Path, "/dev/dri")
	}
	s := d.Spec.Template.Spec.SecurityContext
	if uses && (s == nil || len(s.SupplementalGroups) == 0) {
		return []Finding{{Level: Warn, On: className(d), What: "it uses /dev/dri and has no supplemental group", Why: "render nodes are mode 0660 of the node's group render, unless its runtime hands devices over to the pod's user (containerd: device_ownership_from_security_context)",
			Remedy: "put the number that `getent group render` says on that node into identity.supplementalGroups of settings.yaml"}}
	}
	return nil
}

// runtimeClass checks the names that classes give, and that NVIDIA's is not forgotten.
func runtimeClass(ctx context.Context, p *Patient) []Finding {
	list, err := p.Client.NodeV1().RuntimeClasses().List(ctx, metav1.ListOptions{})
	if err != nil {
		if apierrors.IsForbidden(err) && len(p.facts.classes) == 0 {
			return nil
		}
		return []Finding{unknown("cluster", "its RuntimeClasses cannot be read", err)}
	}
	there := map[string]bool{}
	for _, r := range list.Items {
		there[r.Name] = true
	}
	var found []Finding
	for _, d := range p.facts.classes {
		spec, on := d.Spec.Template.Spec, className(d)
		nvidia := false
		if c, is := container(spec, "worker"); is {
			for name := range c.Resources.Limits {
				nvidia = nvidia || strings.HasPrefix(string(name), "nvidia.com/")
			}
		}
		switch {
		case spec.RuntimeClassName != nil && !there[*spec.RuntimeClassName]:
			found = append(found, Finding{Level: Fail, On: on, What: "there is no RuntimeClass " + *spec.RuntimeClassName, Remedy: "create it (k3s makes `nvidia` when it finds the NVIDIA container runtime at its start), or remove the component runtime-class-nvidia"})
		case nvidia && spec.RuntimeClassName == nil && there["nvidia"]:
			found = append(found, Finding{Level: Warn, On: on, What: "it names no runtime class, and the cluster has RuntimeClass nvidia", Why: "where NVIDIA's is not the default runtime, as on k3s, its workers get no driver", Remedy: "list the component runtime-class-nvidia, unless nvidia is the nodes' default runtime"})
		case spec.RuntimeClassName != nil:
			found = append(found, ok(on, "runtime class %s", *spec.RuntimeClassName))
		}
	}
	return found
}

// encoders takes the workers' word on the encoder of each class's hardware, and, to
// prove it, has each class that can take a session encode something.
func encoders(ctx context.Context, p *Patient) []Finding {
	if p.facts.status == nil {
		return nil
	}
	var found []Finding
	for _, d := range p.facts.classes {
		on, encoder, name := className(d), encoderOf(d), d.Labels[class.Label]
		if workers := told(p, name); encoder != software && len(workers) > 0 {
			trials := proved(on, encoder, "encoder:"+encoder, workers, encodersOf, "it does not encode with "+encoder, func(reason string) string { return remedyOf(reason, proofRemedy(encoder)) })
			trials = spared(trials, encoder, workers)
			found = append(append(found, trials...), bounded(on, workers)...)
			if slices.ContainsFunc(trials, func(f Finding) bool { return f.Level != OK }) {
				continue
			}
		}
		if p.Prove == nil {
			continue
		}
		said, err := p.Prove(ctx, name, encoder)
		if err != nil {
			found = append(found, Finding{Level: Fail, On: on, What: "it does not encode with " + encoder, Why: err.Error(), Remedy: remedyOf(err.Error(), proofRemedy(encoder))})
			continue
		}
		found = append(found, ok(on, "%s: %s", encoder, said))
	}
	return found
}

// spared weakens the verdict on QSV where VAAPI does the same on the same card.
func spared(trials []Finding, encoder string, workers []api.Worker) []Finding {
	other := strings.Replace(encoder, "_qsv", "_vaapi", 1)
	if other == encoder || !slices.ContainsFunc(workers, func(w api.Worker) bool { return w.Hardware != nil && slices.Contains(w.Hardware.Encoders, other) }) {
		return trials
	}
	for i := range trials {
		if trials[i].Level == Fail {
			trials[i].Level = Warn
			trials[i].Remedy = "set Jellyfin to vaapi, for " + other + " works; or " + trials[i].Remedy
		}
	}
	return trials
}

// software is the encoder of classes without devices.
const software = "libx264"

// encoderOf is what a class is for, by the devices it requests.
func encoderOf(d appsv1.Deployment) string {
	if c, there := container(d.Spec.Template.Spec, "worker"); there {
		for _, name := range slices.Sorted(maps.Keys(c.Resources.Limits)) {
			switch makerOf(string(name)).prefix {
			case "nvidia.com/":
				return "h264_nvenc"
			case "gpu.intel.com/":
				return "h264_qsv"
			case "amd.com/":
				return "h264_vaapi"
			}
		}
	}
	return software
}

func proofRemedy(encoder string) string {
	switch {
	case strings.HasSuffix(encoder, "_nvenc"):
		return "`kubectl exec` into a worker: `nvidia-smi` must answer and `ls /dev/nvidia*` not be empty; else see runtime-class; the driver must be new enough for the ffmpeg"
	case strings.HasSuffix(encoder, "_qsv"), strings.HasSuffix(encoder, "_vaapi"):
		return "`kubectl exec` into a worker: `/usr/lib/jellyfin-ffmpeg/vainfo --display drm` must list an encoder; permission denied on /dev/dri/renderD*: identity.supplementalGroups"
	}
	return "see the checks scheduler and callers"
}
