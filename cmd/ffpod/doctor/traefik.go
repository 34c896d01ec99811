package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func isTraefik(i networkingv1.Ingress) bool {
	return i.Spec.IngressClassName != nil && strings.Contains(*i.Spec.IngressClassName, "traefik")
}

// traefik checks the transports of Traefik's routes to Jellyfin and, if anything of
// Jellyfin is behind Traefik, its static configuration.
func traefik(ctx context.Context, p *Patient, behind bool) []Finding {
	routes, found := listed(ctx, p, p.Namespace, traefikKind("ingressroutes"))
	used := map[string]string{} // the ServersTransport of who uses it
	for _, r := range routes {
		rules, _, _ := unstructured.NestedSlice(r.Object, "spec", "routes")
		for _, item := range rules {
			rule, _ := item.(map[string]any)
			if !p.facts.toJellyfin(rule, "services") {
				continue
			}
			behind = true
			services, _, _ := unstructured.NestedSlice(rule, "services")
			for _, s := range services {
				service, _ := s.(map[string]any)
				if name, _, _ := unstructured.NestedString(service, "serversTransport"); name != "" {
					used[name] = "IngressRoute " + r.GetName()
				}
			}
		}
	}
	for _, s := range p.facts.services {
		if slices.Contains(p.facts.jellyfinServices(), s.Name) {
			if at := s.Annotations["traefik.ingress.kubernetes.io/service.serverstransport"]; at != "" {
				name, _, _ := strings.Cut(at, "@")
				used[strings.TrimPrefix(name, p.Namespace+"-")] = "Service " + s.Name
			}
		}
	}
	if !behind {
		return found
	}
	return slices.Concat(found, transports(ctx, p, used), static(ctx, p))
}

func traefikKind(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "traefik.io", Version: "v1alpha1", Resource: resource}
}

// transports checks how long the ServersTransports in use wait for an answer.
func transports(ctx context.Context, p *Patient, used map[string]string) []Finding {
	if len(used) == 0 {
		return nil
	}
	all, found := listed(ctx, p, p.Namespace, traefikKind("serverstransports"))
	least := p.facts.patienceNeeded()
	for _, t := range all {
		by := used[t.GetName()]
		if by == "" {
			continue
		}
		on := "ServersTransport " + t.GetName()
		value, _, _ := unstructured.NestedFieldNoCopy(t.Object, "spec", "forwardingTimeouts", "responseHeaderTimeout")
		has := span(fmt.Sprint(value), 0)
		if has > 0 && has < least {
			found = append(found, Finding{Level: Warn, On: on, What: fmt.Sprintf("responseHeaderTimeout is %s, for %s", has, by), Why: impatient(least),
				Remedy: fmt.Sprintf("`kubectl patch -n %s serverstransports.traefik.io %s --type=merge -p '{\"spec\":{\"forwardingTimeouts\":{\"responseHeaderTimeout\":\"0s\"}}}'` (and where it comes from)", p.Namespace, t.GetName())})
			continue
		}
		found = append(found, ok(on, "it waits long enough for %s", by))
	}
	return found
}

// installed is a Traefik of the cluster, by its container.
type installed struct {
	on        string
	container corev1.Container
}

// static checks the arguments and the environment of every Traefik that may be seen.
func static(ctx context.Context, p *Patient) (found []Finding) {
	least := p.facts.patienceNeeded()
	where := installs(ctx, p)
	if len(where) == 0 {
		return []Finding{{Level: Unknown, On: "Traefik", What: fmt.Sprintf("no Deployment or DaemonSet with app.kubernetes.io/name=traefik can be seen; its time-outs must exceed %s", least),
			Why: "it is in another namespace, which may not be read, or outside", Remedy: "let somebody run it who may list Deployments and DaemonSets of all namespaces; or see that respondingTimeouts.writeTimeout and readTimeout of its entry points, and responseHeaderTimeout, are 0"}}
	}
	for _, t := range where {
		found = append(found, t.examine(least)...)
	}
	return found
}

// installs finds Traefik in all namespaces, or in those where it usually is.
func installs(ctx context.Context, p *Patient) (out []installed) {
	labels := metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=traefik"}
	add := func(kind string, m metav1.ObjectMeta, spec corev1.PodSpec) {
		for _, c := range spec.Containers {
			if c.Name == "traefik" || len(spec.Containers) == 1 {
				out = append(out, installed{kind + " " + m.Namespace + "/" + m.Name, c})
			}
		}
	}
	for _, namespace := range []string{metav1.NamespaceAll, "kube-system", "traefik", p.Namespace} {
		deployments, err := p.Client.AppsV1().Deployments(namespace).List(ctx, labels)
		sets, err2 := p.Client.AppsV1().DaemonSets(namespace).List(ctx, labels)
		if err == nil {
			for _, d := range deployments.Items {
				add("Deployment", d.ObjectMeta, d.Spec.Template.Spec)
			}
		}
		if err2 == nil {
			for _, d := range sets.Items {
				add("DaemonSet", d.ObjectMeta, d.Spec.Template.Spec)
			}
		}
		if namespace == metav1.NamespaceAll && err == nil && err2 == nil {
			return out
		}
	}
	return out
}

// settings are its static configuration, keys in small letters, as far as arguments
// and environment say it.
func (t installed) settings() map[string]string {
	out := map[string]string{}
	for _, e := range t.container.Env {
		if key, its := strings.CutPrefix(strings.ToLower(e.Name), "traefik_"); its {
			out[strings.ReplaceAll(key, "_", ".")] = e.Value
		}
	}
	for _, a := range slices.Concat(t.container.Command, t.container.Args) {
		if key, value, its := strings.Cut(strings.TrimLeft(a, "-"), "="); its && strings.HasPrefix(a, "--") {
			out[strings.ToLower(key)] = value
		}
	}
	return out
}

// readDefault is Traefik's own limit for reading a request, since its 2.11.2.
const readDefault = time.Minute

func (t installed) examine(least time.Duration) (found []Finding) {
	s := t.settings()
	if file := s["configfile"]; file != "" {
		return []Finding{{Level: Unknown, On: t.on, What: "its configuration is in the file " + file + ", which is not read", Remedy: "see there that respondingTimeouts.writeTimeout and readTimeout, and forwardingTimeouts.responseHeaderTimeout, are 0"}}
	}
	flag := func(key, why string, has time.Duration) {
		found = append(found, Finding{Level: Warn, On: t.on, What: fmt.Sprintf("%s is %s", key, has), Why: why,
			Remedy: "start it with --" + key + "=0 (k3s: a HelmChartConfig traefik in kube-system, additionalArguments)"})
	}
	const header = "serversTransport.forwardingTimeouts.responseHeaderTimeout"
	if has := span(s[strings.ToLower(header)], 0); has > 0 && has < least {
		flag(header, impatient(least), has)
	}
	points := map[string]bool{}
	for key := range s {
		parts := strings.Split(key, ".")
		if len(parts) > 2 && parts[0] == "entrypoints" && parts[1] != "metrics" && parts[1] != "traefik" {
			points[parts[1]] = true
		}
	}
	for _, point := range slices.Sorted(maps.Keys(points)) {
		limits := "entryPoints." + point + ".transport.respondingTimeouts."
		read, write := limits+"readTimeout", limits+"writeTimeout"
		if has := span(s[strings.ToLower(write)], 0); has > 0 {
			flag(write, cmp.Or(map[bool]string{true: impatient(least)}[has < least], "an answer that takes longer, as a film does, is cut off"), has)
		}
		if has := span(s[strings.ToLower(read)], readDefault); has > 0 && has < least {
			flag(read, "a request that takes longer to arrive, such as an upload, is cut off", has)
		}
	}
	if len(found) == 0 {
		found = append(found, ok(t.on, "it waits without limit"))
	}
	return found
}
