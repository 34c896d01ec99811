package doctor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// patienceNeeded is how long a proxy must wait for an answer: as long as a session
// may take to start.
func (f *facts) patienceNeeded() time.Duration {
	return f.configuration.Queue.Timeout.Duration + f.configuration.Session.JobStart.Duration
}

// ingress checks that proxies wait as long as a session may take to start: the
// controllers of Ingresses, Traefik's own routes, and Gateways.
func ingress(ctx context.Context, p *Patient) []Finding {
	var found []Finding
	behindTraefik := false
	for _, i := range p.facts.ingresses {
		if len(pathsTo(i, p.facts.jellyfinServices())) == 0 {
			continue
		}
		if isTraefik(i) {
			behindTraefik = true
			continue
		}
		found = append(found, annotated(i, p.facts.patienceNeeded())...)
	}
	return slices.Concat(found, traefik(ctx, p, behindTraefik), gateway(ctx, p))
}

// annotated checks what an Ingress's own annotations say.
func annotated(i networkingv1.Ingress, least time.Duration) (found []Finding) {
	on, known := "Ingress "+i.Name, false
	for key, otherwise := range map[string]time.Duration{"nginx.ingress.kubernetes.io/proxy-read-timeout": time.Minute, "nginx.ingress.kubernetes.io/proxy-send-timeout": time.Minute,
		"haproxy.org/timeout-server": 50 * time.Second, "haproxy-ingress.github.io/timeout-server": 50 * time.Second} {
		if !controls(i, key) {
			continue
		}
		known = true
		if has := span(i.Annotations[key], otherwise); has < least {
			found = append(found, Finding{Level: Warn, On: on, What: fmt.Sprintf("%s is %s", key, has), Why: impatient(least), Remedy: fmt.Sprintf("annotate it: `kubectl annotate ingress %s --overwrite %s=%q` (and in the overlay)", i.Name, key, written(key, max(least, time.Hour)))})
		}
	}
	switch {
	case !known:
		return []Finding{{Level: Unknown, On: on, What: fmt.Sprintf("its controller's time-outs cannot be seen here; they must exceed %s", least), Remedy: "look them up in the controller's own configuration; a cloud load balancer has its own idle time-out"}}
	case len(found) == 0:
		return []Finding{ok(on, "its time-outs exceed %s", least)}
	}
	return found
}

func impatient(least time.Duration) string {
	return fmt.Sprintf("a playback may wait up to %s for its worker, and the proxy gives up before", least)
}

// gateway checks the time-outs of the Gateway API's routes to Jellyfin.
func gateway(ctx context.Context, p *Patient) (found []Finding) {
	routes, problem := listed(ctx, p, p.Namespace, schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"})
	found = append(found, problem...)
	least := p.facts.patienceNeeded()
	for _, r := range routes {
		on := "HTTPRoute " + r.GetName()
		rules, _, _ := unstructured.NestedSlice(r.Object, "spec", "rules")
		for n, item := range rules {
			rule, _ := item.(map[string]any)
			if !p.facts.toJellyfin(rule, "backendRefs") {
				continue
			}
			for _, key := range []string{"request", "backendRequest"} {
				text, there, _ := unstructured.NestedString(rule, "timeouts", key)
				at := fmt.Sprintf("spec.rules[%d].timeouts.%s", n, key)
				remedy := fmt.Sprintf("set %s to 0s, no limit, in the overlay (component gateway does): `kubectl edit httproute %s`", at, r.GetName())
				switch has, err := time.ParseDuration(text); {
				case !there:
					found = append(found, Finding{Level: Unknown, On: on, What: at + " is not set, so the Gateway's own counts, which cannot be seen here", Why: "some have one of 15 s", Remedy: remedy})
				case err != nil:
					found = append(found, unknown(on, at+" is not understood", err))
				case has > 0 && has < least:
					found = append(found, Finding{Level: Warn, On: on, What: fmt.Sprintf("%s is %s", at, has), Why: impatient(least), Remedy: remedy})
				default:
					found = append(found, ok(on, "%s is %s", at, text))
				}
			}
		}
	}
	return found
}

// toJellyfin tells whether a list of a rule, such as backendRefs, names a Service in
// front of Jellyfin.
func (f *facts) toJellyfin(rule map[string]any, list string) bool {
	refs, _, _ := unstructured.NestedSlice(rule, list)
	return slices.ContainsFunc(refs, func(item any) bool {
		ref, _ := item.(map[string]any)
		name, _, _ := unstructured.NestedString(ref, "name")
		return slices.Contains(f.jellyfinServices(), name)
	})
}

// listed returns the objects of a kind that the cluster may not know. What may not
// be read is a finding.
func listed(ctx context.Context, p *Patient, namespace string, kind schema.GroupVersionResource) ([]unstructured.Unstructured, []Finding) {
	if p.Dynamic == nil {
		return nil, nil
	}
	l, err := p.Dynamic.Resource(kind).Namespace(namespace).List(ctx, metav1.ListOptions{})
	switch {
	case apierrors.IsNotFound(err): // no such kind
		return nil, nil
	case err != nil:
		return nil, []Finding{unknown("namespace "+namespace, kind.Resource+"."+kind.Group+" cannot be read, so their time-outs are not checked", err)}
	}
	return l.Items, nil
}

// controls tells whether an annotation is one of the Ingress's controller.
func controls(i networkingv1.Ingress, key string) bool {
	class := ""
	if i.Spec.IngressClassName != nil {
		class = *i.Spec.IngressClassName
	}
	if strings.HasPrefix(key, "nginx") {
		return strings.Contains(class, "nginx")
	}
	_, has := i.Annotations[key]
	return has || strings.Contains(class, "haproxy") && key == "haproxy.org/timeout-server"
}

func span(text string, otherwise time.Duration) time.Duration {
	if n, err := strconv.Atoi(text); err == nil {
		return time.Duration(n) * time.Second
	}
	if d, err := time.ParseDuration(text); err == nil {
		return d
	}
	return otherwise
}

func written(key string, d time.Duration) string {
	if strings.HasPrefix(key, "nginx") {
		return strconv.Itoa(int(d.Seconds()))
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}
