package doctor

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"sigs.k8s.io/yaml"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	route = `apiVersion: traefik.io/v1alpha1
kind: IngressRoute
metadata: {name: tv, namespace: media}
spec: {routes: [{match: "Host(x)", services: [{name: jellyfin, port: 8096, serversTransport: slow}]}]}`
	transport = `apiVersion: traefik.io/v1alpha1
kind: ServersTransport
metadata: {name: slow, namespace: media}
spec: {forwardingTimeouts: {responseHeaderTimeout: `
	httpRoute = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: tv, namespace: media}
spec: {rules: [{backendRefs: [{name: other}]}, {backendRefs: [{name: jellyfin, port: 8096}], timeouts: `
)

// TestProxies has routes and Traefiks whose limits are too short, or long enough.
func TestProxies(t *testing.T) {
	for name, c := range map[string]struct {
		objects      []string
		args         []string
		env          []corev1.EnvVar
		ingress      bool
		forbidden    bool
		on           string
		level        Level
		what, remedy string
	}{
		"nothing of theirs":    {args: []string{"--entryPoints.web.transport.respondingTimeouts.writeTimeout=5"}},
		"short writeTimeout":   {ingress: true, args: []string{"--entrypoints.web.address=:80", "--entryPoints.web.transport.respondingTimeouts.writeTimeout=5s"}, on: "kube-system/traefik", level: Warn, what: "writeTimeout is 5s", remedy: "--entryPoints.web.transport.respondingTimeouts.writeTimeout=0"},
		"default readTimeout":  {ingress: true, args: []string{"--entrypoints.websecure.address=:443"}, on: "kube-system/traefik", level: Warn, what: "websecure.transport.respondingTimeouts.readTimeout is 1m0s", remedy: "readTimeout=0"},
		"of the environment":   {ingress: true, env: []corev1.EnvVar{{Name: "TRAEFIK_SERVERSTRANSPORT_FORWARDINGTIMEOUTS_RESPONSEHEADERTIMEOUT", Value: "7"}}, on: "kube-system/traefik", level: Warn, what: "responseHeaderTimeout is 7s", remedy: "=0"},
		"without limit":        {ingress: true, args: []string{"--entrypoints.web.address=:80", "--entryPoints.web.transport.respondingTimeouts.readTimeout=0"}, on: "kube-system/traefik", level: OK, what: "without limit"},
		"a file":               {ingress: true, args: []string{"--configFile=/etc/traefik.yml"}, on: "kube-system/traefik", level: Unknown, what: "/etc/traefik.yml", remedy: "writeTimeout"},
		"short transport":      {objects: []string{route, transport + "10s}}"}, args: []string{"--x.y=z"}, on: "ServersTransport slow", level: Warn, what: "is 10s, for IngressRoute tv", remedy: "kubectl patch -n media serverstransports"},
		"number of seconds":    {objects: []string{route, transport + "10}}"}, args: []string{"--x.y=z"}, on: "ServersTransport slow", level: Warn, what: "is 10s", remedy: "patch"},
		"patient transport":    {objects: []string{route, transport + "1h}}"}, args: []string{"--x.y=z"}, on: "ServersTransport slow", level: OK, what: "long enough"},
		"Gateway without":      {objects: []string{httpRoute + "{request: 0s}}]}"}, on: "HTTPRoute tv", level: Unknown, what: "spec.rules[1].timeouts.backendRequest is not set", remedy: "0s"},
		"Gateway short":        {objects: []string{httpRoute + "{request: 10s, backendRequest: 0s}}]}"}, on: "HTTPRoute tv", level: Warn, what: "timeouts.request is 10s", remedy: "kubectl edit httproute tv"},
		"Gateway as component": {objects: []string{httpRoute + "{request: 0s, backendRequest: 0s}}]}"}, on: "HTTPRoute tv", level: OK, what: "timeouts.backendRequest is 0s"},
		"Traefik hidden":       {ingress: true, forbidden: true, on: "Traefik", level: Unknown, what: "can be seen", remedy: "all namespaces"},
	} {
		t.Run(name, func(t *testing.T) {
			x := healthy()
			if c.ingress {
				x.ingresses = []*networkingv1.Ingress{ingressTo("jellyfin", "/", "traefik", nil)}
			}
			p := x.patient(t)
			if c.args != nil || c.env != nil {
				d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "traefik", Labels: map[string]string{"app.kubernetes.io/name": "traefik"}},
					Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "traefik", Args: c.args, Env: c.env}}}}}}
				if _, err := p.Client.AppsV1().Deployments("kube-system").Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			p.Dynamic = kinds(t, c.objects)
			p.facts = gather(t.Context(), p)
			if c.forbidden {
				x.forbidden = []string{"deployments", "daemonsets"}
			}
			found := ingress(t.Context(), p)
			if c.on == "" {
				if len(found) != 0 {
					t.Errorf("%+v", found)
				}
				return
			}
			for _, f := range found {
				if f.Level == c.level && strings.Contains(f.On, c.on) && strings.Contains(f.What, c.what) && strings.Contains(f.Remedy, c.remedy) {
					return
				}
			}
			t.Errorf("not found in %+v", found)
		})
	}
}

func kinds(t *testing.T, objects []string) *fake.FakeDynamicClient {
	t.Helper()
	lists := map[schema.GroupVersionResource]string{traefikKind("ingressroutes"): "IngressRouteList", traefikKind("serverstransports"): "ServersTransportList",
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}: "HTTPRouteList"}
	var all []runtime.Object
	for _, text := range objects {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		all = append(all, u)
	}
	return fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists, all...)
}
