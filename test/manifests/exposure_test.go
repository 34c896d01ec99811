package manifests

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ffpod/ffpod/scheduler/config"
)

// exposed are the trees with a way in.
func exposed() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(trees)) {
		if strings.HasPrefix(name, "exposed-") || strings.HasPrefix(name, "production-") {
			names = append(names, name)
		}
	}
	return names
}

// Every way in ends at a port that Jellyfin's Service has, for one host, and the
// certificate, where one is asked for, is for that host and in the Secret that is
// used.
func TestWaysIn(t *testing.T) {
	for _, name := range exposed() {
		t.Run(name, func(t *testing.T) {
			all := objects(t, trees[name])
			ports := map[string][]string{} // of Services, by number and name
			for _, s := range typed[corev1.Service](t, all, "Service") {
				for _, p := range s.Spec.Ports {
					ports[s.Name] = append(ports[s.Name], p.Name, strconv.Itoa(int(p.Port)))
				}
			}
			hosts, secrets := map[string]bool{}, map[string]string{}
			ingresses := typed[networkingv1.Ingress](t, all, "Ingress")
			if len(ingresses) > 1 {
				t.Errorf("%d Ingresses for one Jellyfin", len(ingresses))
			}
			for _, i := range ingresses {
				for _, r := range i.Spec.Rules {
					hosts[r.Host] = true
					for _, p := range r.HTTP.Paths {
						if port := p.Backend.Service.Port; !slices.Contains(ports[p.Backend.Service.Name], cmp.Or(port.Name, strconv.Itoa(int(port.Number)))) {
							t.Errorf("Ingress %s leads to %s:%v, Services are %v", i.Name, p.Backend.Service.Name, port, ports)
						}
					}
				}
				for _, tls := range i.Spec.TLS {
					for _, host := range tls.Hosts {
						secrets[tls.SecretName] = host
						if !hosts[host] {
							t.Errorf("Ingress %s has TLS for %s, and rules for %v", i.Name, host, hosts)
						}
					}
				}
			}
			for _, o := range all {
				switch o.GetKind() {
				case "HTTPRoute":
					checkRoute(t, o, ports)
				case "Certificate":
					names, _, _ := unstructured.NestedStringSlice(o.Object, "spec", "dnsNames")
					secret, _, _ := unstructured.NestedString(o.Object, "spec", "secretName")
					if host, used := secrets[secret]; used && !slices.Contains(names, host) {
						t.Errorf("Certificate %s, in the Secret for %s, is for %q", o.GetName(), host, names)
					}
				}
			}
		})
	}
}

func checkRoute(t *testing.T, o *unstructured.Unstructured, ports map[string][]string) {
	t.Helper()
	var route struct {
		Spec struct {
			Rules []struct {
				Timeouts    struct{ Request, BackendRequest string }
				BackendRefs []struct {
					Name string
					Port int
				}
			}
		}
	}
	text, err := json.Marshal(o.Object)
	if err == nil {
		err = json.Unmarshal(text, &route)
	}
	if err != nil || len(route.Spec.Rules) == 0 {
		t.Fatalf("HTTPRoute %s: %d rules: %v", o.GetName(), len(route.Spec.Rules), err)
	}
	for _, rule := range route.Spec.Rules {
		for _, b := range rule.BackendRefs {
			if !slices.Contains(ports[b.Name], strconv.Itoa(b.Port)) {
				t.Errorf("HTTPRoute %s leads to %s:%d, Services are %v", o.GetName(), b.Name, b.Port, ports)
			}
		}
		if rule.Timeouts.Request != "0s" || rule.Timeouts.BackendRequest != "0s" {
			t.Errorf("HTTPRoute %s has time-outs %+v: a film takes longer", o.GetName(), rule.Timeouts)
		}
	}
}

// A proxy waits longer for an answer than anything of ffpod's may take: Jellyfin's
// ten minutes of hardware probes, or the start of a Job on top of them.
func TestProxiesWaitLonger(t *testing.T) {
	longest := 10*time.Minute + config.Default().Session.JobStart.Duration
	for tree, annotations := range map[string][]string{
		"exposed-nginx":   {"nginx.ingress.kubernetes.io/proxy-read-timeout", "nginx.ingress.kubernetes.io/proxy-send-timeout"},
		"exposed-haproxy": {"haproxy.org/timeout-server", "haproxy-ingress.github.io/timeout-server", "haproxy-ingress.github.io/timeout-tunnel"},
	} {
		ingresses := typed[networkingv1.Ingress](t, objects(t, trees[tree]), "Ingress")
		if len(ingresses) != 1 {
			t.Fatalf("%s: %d Ingresses", tree, len(ingresses))
		}
		for _, key := range annotations {
			value := ingresses[0].Annotations[key]
			if strings.Trim(value, "0123456789") == "" {
				value += "s" // nginx counts in seconds
			}
			if got, err := time.ParseDuration(value); err != nil || got <= longest {
				t.Errorf("%s: %s is %q, want more than %s: %v", tree, key, value, longest, err)
			}
		}
	}
}

// What component network-policy lets through, judged as a network plug-in would.
func TestNetworkPolicies(t *testing.T) {
	all := objects(t, trees["exposed-gateway"])
	policies := typed[networkingv1.NetworkPolicy](t, all, "NetworkPolicy")
	for _, p := range typed[networkingv1.NetworkPolicy](t, objects(t, trees["postgres"]), "NetworkPolicy") {
		if p.Name == "jellyfin-postgres" { // component postgres brings its own
			policies = append(policies, p)
		}
	}
	pods := map[string]labels.Set{
		"stranger": {"app.kubernetes.io/name": "stranger"},
		"database": {"app.kubernetes.io/name": "jellyfin-postgres", "app.kubernetes.io/component": "database"},
		"backup":   {"app.kubernetes.io/name": "jellyfin", "app.kubernetes.io/component": "backup"},
	}
	for _, d := range typed[appsv1.Deployment](t, all, "Deployment") {
		pods[strings.TrimPrefix(d.Name, "film-")] = d.Spec.Template.Labels
	}
	pods["ffpod-cpu job"] = labels.Merge(pods["ffpod-cpu"], labels.Set{"ffpod.dev/role": "job"})
	quiet := labels.Merge(pods["ffpod-cpu"], nil)
	delete(quiet, "ffpod.dev/egress")
	pods["quiet worker"] = quiet
	for _, tt := range []struct {
		from, to string
		port     int32
		protocol corev1.Protocol
		want     bool
	}{
		{"stranger", "jellyfin", 8096, "TCP", true},
		{"stranger", "jellyfin", 8920, "TCP", true},
		{"stranger", "jellyfin", 22, "TCP", false},
		{"jellyfin", "ffpod-scheduler", 7443, "TCP", true},
		{"jellyfin", "ffpod-scheduler", 22, "TCP", false},
		{"jellyfin", "database", 5432, "TCP", true},
		{"backup", "database", 5432, "TCP", true},
		{"stranger", "database", 5432, "TCP", false},
		{"ffpod-cpu", "database", 5432, "TCP", false},
		{"database", "stranger", 443, "TCP", false},
		{"jellyfin", "stranger", 443, "TCP", true},
		{"jellyfin", "stranger", 65001, "UDP", true},
		{"jellyfin", "stranger", 65001, "TCP", false},
		{"jellyfin", "stranger", 53, "UDP", true},
		{"jellyfin", "stranger", 22, "TCP", false},
		{"ffpod-cpu", "jellyfin", 8096, "TCP", true},
		{"ffpod-cpu job", "jellyfin", 8096, "TCP", true},
		{"ffpod-cpu", "stranger", 53, "UDP", false},
		{"ffpod-cpu", "ffpod-scheduler", 7443, "TCP", false},
		{"ffpod-cpu", "stranger", 443, "TCP", false},
		{"quiet worker", "jellyfin", 8096, "TCP", false},
		{"quiet worker", "stranger", 53, "UDP", false},
		{"stranger", "ffpod-cpu", 8096, "TCP", false},
	} {
		out := allowed(t, policies, networkingv1.PolicyTypeEgress, pods[tt.from], pods[tt.to], tt.port, tt.protocol)
		in := allowed(t, policies, networkingv1.PolicyTypeIngress, pods[tt.to], pods[tt.from], tt.port, tt.protocol)
		if got := out && in; got != tt.want {
			t.Errorf("%s to %s:%d/%s: %v (out %v, in %v), want %v", tt.from, tt.to, tt.port, tt.protocol, got, out, in, tt.want)
		}
	}
}

// named are the ports that policies name.
var named = map[string]int32{"http": 8096, "https": 8920, "grpc": 7443, "postgres": 5432}

// allowed tells whether policies let the pod exchange with its peer.
func allowed(t *testing.T, all []networkingv1.NetworkPolicy, way networkingv1.PolicyType, pod, peer labels.Set, port int32, protocol corev1.Protocol) bool {
	t.Helper()
	free := true
	for _, p := range all {
		if !slices.Contains(p.Spec.PolicyTypes, way) || !selects(t, &p.Spec.PodSelector, pod) {
			continue
		}
		free = false
		if way == networkingv1.PolicyTypeIngress {
			for _, r := range p.Spec.Ingress {
				if passes(t, r.From, r.Ports, peer, port, protocol) {
					return true
				}
			}
			continue
		}
		for _, r := range p.Spec.Egress {
			if passes(t, r.To, r.Ports, peer, port, protocol) {
				return true
			}
		}
	}
	return free
}

func passes(t *testing.T, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, peer labels.Set, port int32, protocol corev1.Protocol) bool {
	t.Helper()
	// No peers, or no ports, are all of them.
	known := len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		return p.PodSelector != nil && selects(t, p.PodSelector, peer)
	})
	return known && (len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		of := corev1.ProtocolTCP
		if p.Protocol != nil {
			of = *p.Protocol
		}
		number := p.Port.IntVal
		if p.Port.StrVal != "" {
			number = named[p.Port.StrVal]
		}
		return of == protocol && number == port
	}))
}

// Pinning reaches every class and Jellyfin, and nobody else.
func TestPinning(t *testing.T) {
	want := map[string][]string{"film-ffpod-cpu": {"node-b", "node-c"}, "film-jellyfin": {"node-a"}, "film-ffpod-scheduler": nil}
	for _, d := range typed[appsv1.Deployment](t, objects(t, trees["exposed-gateway"]), "Deployment") {
		var got []string
		if a := d.Spec.Template.Spec.Affinity; a != nil {
			got = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions[0].Values
		}
		nodes, known := want[d.Name]
		if !known || !slices.Equal(got, nodes) {
			t.Errorf("Deployment %s is on %q, want %q", d.Name, got, nodes)
		}
	}
}

// The certificate of cert-manager-scheduler is one that the scheduler would take:
// in the Secret that its pod mounts, with its name, in mode secret.
func TestSchedulersCertificate(t *testing.T) {
	all := objects(t, trees["exposed-nginx"])
	i := slices.IndexFunc(all, func(o *unstructured.Unstructured) bool {
		return o.GetKind() == "Certificate" && o.GetName() == "ffpod-scheduler"
	})
	if i < 0 {
		t.Fatal("no Certificate ffpod-scheduler")
	}
	secret, _, _ := unstructured.NestedString(all[i].Object, "spec", "secretName")
	for _, d := range typed[appsv1.Deployment](t, all, "Deployment") {
		for _, v := range d.Spec.Template.Spec.Volumes {
			if d.Name == "ffpod-scheduler" && v.Name == "tls" && v.Secret.SecretName != secret {
				t.Errorf("the pod mounts Secret %s, the certificate is in %s", v.Secret.SecretName, secret)
			}
		}
	}
	for _, m := range typed[corev1.ConfigMap](t, all, "ConfigMap") {
		if m.Name != "ffpod-scheduler" {
			continue
		}
		conf, err := config.Parse([]byte(m.Data["scheduler.yaml"]))
		if err != nil || conf.TLS.Mode != config.TLSSecret {
			t.Errorf("scheduler.yaml: mode %q: %v", conf.TLS.Mode, err)
		}
	}
}
