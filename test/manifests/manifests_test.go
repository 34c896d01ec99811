package manifests

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

var update = flag.Bool("update", false, "write the golden files")

// trees are the kustomizations that render by themselves.
var trees = map[string]string{
	"cluster":             "kustomize/cluster",
	"base":                "kustomize/base",
	"demo":                "kustomize/overlays/demo",
	"demo-rwo":            "kustomize/overlays/demo-rwo",
	"dev":                 "kustomize/overlays/dev",
	"prefixed":            "test/manifests/testdata/prefixed",
	"stock-image":         "test/manifests/testdata/stock-image",
	"minimal":             "kustomize/overlays/minimal",
	"production-sqlite":   "kustomize/overlays/production-sqlite",
	"production-postgres": "kustomize/overlays/production-postgres",
	"storage":             "test/manifests/testdata/storage",
	"gpu":                 "test/manifests/testdata/gpu",
	"exposed-nginx":       "test/manifests/testdata/exposed-nginx",
	"exposed-traefik":     "test/manifests/testdata/exposed-traefik",
	"exposed-haproxy":     "test/manifests/testdata/exposed-haproxy",
	"exposed-gateway":     "test/manifests/testdata/exposed-gateway",
	"postgres":            "test/manifests/testdata/postgres",
	"postgres-external":   "test/manifests/testdata/postgres-external",
	"postgres-cnpg":       "test/manifests/testdata/postgres-cnpg",
	"backup":              "test/manifests/testdata/backup",
	"autoscale":           "test/manifests/testdata/autoscale",
	"elastic":             "test/manifests/testdata/elastic",
}

func TestGolden(t *testing.T) {
	for name, dir := range trees {
		t.Run(name, func(t *testing.T) {
			_, got, err := render(filepath.Join(Root(), dir))
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata/golden", name+".yaml")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
				t.Errorf("%s renders differently; if that is meant, run with -update (-want +got):\n%s", dir, diff)
			}
		})
	}
}

// refused are components that exist to say no.
var refused = map[string]string{
	"kustomize/components/config-nfs": "component config-nfs is refused: SQLite on NFS loses data; use storage-class with block or local storage for jellyfin-config",
}

// A kustomization that is new must join trees, and a component some tree.
func TestEveryKustomizationIsRendered(t *testing.T) {
	used := map[string]bool{}
	for dir := range refused {
		used[dir] = true
	}
	for _, dir := range trees {
		used[dir] = true
		markUsed(t, dir, used)
	}
	err := filepath.WalkDir(filepath.Join(Root(), "kustomize"), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "kustomization.yaml" {
			return err
		}
		dir, err := filepath.Rel(Root(), filepath.Dir(file))
		if err == nil && !used[dir] {
			t.Errorf("%s is rendered by no test", dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func markUsed(t *testing.T, dir string, used map[string]bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(Root(), dir, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if item, ok := strings.CutPrefix(strings.TrimSpace(line), "- ../"); ok {
			below := filepath.Join(dir, "../"+item)
			used[below] = true
			markUsed(t, below, used)
		}
	}
}

// A namespace's admin must be able to apply the base, and every namespaced
// install built on it.
func TestBaseIsNamespaced(t *testing.T) {
	clusterScoped := []string{"Namespace", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy",
		"ValidatingAdmissionPolicyBinding", "PriorityClass", "RuntimeClass", "StorageClass", "PersistentVolume", "CustomResourceDefinition"}
	for _, name := range []string{"base", "prefixed", "stock-image", "gpu", "production-postgres"} {
		for _, o := range objects(t, trees[name]) {
			if slices.Contains(clusterScoped, o.GetKind()) {
				t.Errorf("%s holds the cluster-scoped %s %s", name, o.GetKind(), o.GetName())
			}
		}
	}
	for _, o := range objects(t, trees["cluster"]) {
		if !slices.Contains(clusterScoped, o.GetKind()) || o.GetNamespace() != "" {
			t.Errorf("cluster holds the namespaced %s %s", o.GetKind(), o.GetName())
		}
	}
}

func TestPods(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for name, dir := range trees {
		for _, d := range typed[appsv1.Deployment](t, objects(t, dir), "Deployment") {
			t.Run(name+"/"+d.Name, func(t *testing.T) {
				template := d.Spec.Template
				for _, result := range evaluator.EvaluatePod(restricted, &template.ObjectMeta, &template.Spec) {
					if !result.Allowed {
						t.Errorf("Pod Security restricted: %s: %s", result.ForbiddenReason, result.ForbiddenDetail)
					}
				}
				for _, c := range slices.Concat(template.Spec.InitContainers, template.Spec.Containers) {
					checkContainer(t, c)
				}
				checkPod(t, template.Spec)
			})
		}
	}
}

func checkContainer(t *testing.T, c corev1.Container) {
	t.Helper()
	for _, resource := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := c.Resources.Requests[resource], c.Resources.Limits[resource]
		if request.IsZero() || limit.IsZero() {
			t.Errorf("container %s: %s has request %v, limit %v; want both", c.Name, resource, &request, &limit)
		}
	}
	if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		t.Errorf("container %s: its root file system is writable", c.Name)
	}
	if c.ImagePullPolicy != corev1.PullIfNotPresent {
		t.Errorf("container %s: imagePullPolicy %q, want IfNotPresent", c.Name, c.ImagePullPolicy)
	}
	if len(c.Command) == 0 {
		t.Errorf("container %s: no command, so the image decides what runs", c.Name)
	}
}

func checkPod(t *testing.T, p corev1.PodSpec) {
	t.Helper()
	if p.EnableServiceLinks == nil || *p.EnableServiceLinks {
		t.Error("service links are on: Services of the namespace would set variables here")
	}
	if p.AutomountServiceAccountToken == nil {
		t.Error("automountServiceAccountToken is left to the ServiceAccount")
	}
	if s := p.SecurityContext; s == nil || s.RunAsUser == nil || *s.RunAsUser != 1000 || s.RunAsGroup == nil || *s.RunAsGroup != 1000 {
		t.Error("want uid and gid 1000, the one identity of callers and workers")
	}
	for _, v := range p.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.SizeLimit == nil {
			t.Errorf("volume %s: emptyDir without sizeLimit", v.Name)
		}
	}
}

func TestClasses(t *testing.T) {
	for name, dir := range trees {
		all := objects(t, dir)
		for _, d := range typed[appsv1.Deployment](t, all, "Deployment") {
			class, ok := d.Labels["ffpod.dev/class"]
			if !ok {
				continue
			}
			t.Run(name+"/"+class, func(t *testing.T) {
				checkClass(t, d, class)
			})
		}
	}
}

func checkClass(t *testing.T, d appsv1.Deployment, class string) {
	t.Helper()
	template, spec := d.Spec.Template, d.Spec.Template.Spec
	if got := template.Labels["ffpod.dev/class"]; got != class {
		t.Errorf("pods are of class %q, the Deployment of %q", got, class)
	}
	if want, got := d.Annotations["ffpod.dev/slots"], template.Annotations["ffpod.dev/slots"]; want == "" || got != want {
		t.Errorf("annotation ffpod.dev/slots: %q on the Deployment, %q on its template", want, got)
	}
	if d.Spec.Selector.MatchLabels["ffpod.dev/role"] != "warm" || template.Labels["ffpod.dev/role"] != "warm" {
		t.Error("the selector does not tell warm pods from Jobs of this class")
	}
	rolling := d.Spec.Strategy.RollingUpdate
	if rolling == nil || rolling.MaxSurge.String() != "0" || rolling.MaxUnavailable.String() != "1" {
		t.Errorf("strategy %v: want maxSurge 0, maxUnavailable 1, or one GPU blocks a rollout", d.Spec.Strategy)
	}
	if *spec.AutomountServiceAccountToken {
		t.Error("workers get a token")
	}
	i := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == "worker" })
	if i < 0 {
		t.Fatal("no container is called worker")
	}
	if diff := cmp.Diff([]string{"/ffpod/worker", "serve"}, spec.Containers[i].Command); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
	env := map[string]string{}
	for _, e := range spec.Containers[i].Env {
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			env[e.Name] = e.ValueFrom.FieldRef.FieldPath
		}
	}
	want := map[string]string{
		"FFPOD_CLASS": "metadata.labels['ffpod.dev/class']",
		"FFPOD_SLOTS": "metadata.annotations['ffpod.dev/slots']",
		"POD_NAME":    "metadata.name",
		"POD_UID":     "metadata.uid",
		"NODE_NAME":   "spec.nodeName",
	}
	if diff := cmp.Diff(want, env); diff != "" {
		t.Errorf("downward environment (-want +got):\n%s", diff)
	}
}

// Every name that one object uses of another is a name that the tree renders,
// with and without prefix, suffix and common labels.
func TestReferences(t *testing.T) {
	for _, name := range []string{"base", "demo", "demo-rwo", "dev", "prefixed", "stock-image", "gpu", "minimal", "production-sqlite", "storage"} {
		t.Run(name, func(t *testing.T) {
			all := objects(t, trees[name])
			known := map[string]bool{}
			for _, o := range all {
				known[o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName()] = true
			}
			need := func(by, kind, namespace, ref string) {
				t.Helper()
				if !known[kind+" "+namespace+"/"+ref] {
					t.Errorf("%s refers to %s %s/%s, which is not rendered", by, kind, namespace, ref)
				}
			}
			for _, d := range typed[appsv1.Deployment](t, all, "Deployment") {
				podReferences(d.Spec.Template.Spec, func(kind, ref string) { need("Deployment "+d.Name, kind, d.Namespace, ref) })
			}
			for _, r := range typed[rbacv1.Role](t, all, "Role") {
				for _, rule := range r.Rules {
					for _, ref := range rule.ResourceNames {
						kind := map[string]string{"secrets": "Secret", "configmaps": "ConfigMap"}[rule.Resources[0]]
						need("Role "+r.Name, kind, r.Namespace, ref)
					}
				}
			}
			for _, b := range typed[rbacv1.RoleBinding](t, all, "RoleBinding") {
				need("RoleBinding "+b.Name, b.RoleRef.Kind, b.Namespace, b.RoleRef.Name)
				for _, s := range b.Subjects {
					need("RoleBinding "+b.Name, s.Kind, s.Namespace, s.Name)
				}
			}
			for _, b := range typed[rbacv1.ClusterRoleBinding](t, all, "ClusterRoleBinding") {
				need("ClusterRoleBinding "+b.Name, b.RoleRef.Kind, "", b.RoleRef.Name)
				for _, s := range b.Subjects {
					need("ClusterRoleBinding "+b.Name, s.Kind, s.Namespace, s.Name)
				}
			}
			for _, a := range typed[corev1.ServiceAccount](t, all, "ServiceAccount") {
				for key, ref := range a.Annotations {
					if strings.HasPrefix(key, "ffpod.dev/claim.") {
						need("ServiceAccount "+a.Name, "PersistentVolumeClaim", a.Namespace, ref)
					}
				}
			}
		})
	}
}

func podReferences(p corev1.PodSpec, need func(kind, name string)) {
	need("ServiceAccount", p.ServiceAccountName)
	for _, c := range p.ResourceClaims {
		need("ResourceClaimTemplate", *c.ResourceClaimTemplateName)
	}
	for _, v := range p.Volumes {
		switch {
		case v.ConfigMap != nil:
			need("ConfigMap", v.ConfigMap.Name)
		case v.Secret != nil:
			need("Secret", v.Secret.SecretName)
		case v.PersistentVolumeClaim != nil:
			need("PersistentVolumeClaim", v.PersistentVolumeClaim.ClaimName)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					need("ConfigMap", s.ConfigMap.Name)
				}
			}
		}
	}
}

// Selectors choose the pods that they mean, warm and Job pods alike, and no
// others, also when labels were added to everything.
func TestSelectors(t *testing.T) {
	for _, name := range []string{"base", "demo", "dev", "prefixed", "stock-image", "gpu"} {
		t.Run(name, func(t *testing.T) {
			all := objects(t, trees[name])
			pods := map[string]labels.Set{} // by component, and job for a class's Job
			for _, d := range typed[appsv1.Deployment](t, all, "Deployment") {
				set := labels.Set(d.Spec.Template.Labels)
				if !selects(t, d.Spec.Selector, set) {
					t.Errorf("Deployment %s does not select its own pods", d.Name)
				}
				if _, ok := d.Labels["ffpod.dev/class"]; !ok {
					pods[set["app.kubernetes.io/component"]] = set
					continue
				}
				pods[d.Name] = set
				job := labels.Merge(set, labels.Set{"ffpod.dev/role": "job", "ffpod.dev/session": "s"})
				pods[d.Name+" job"] = job
				if selects(t, d.Spec.Selector, job) {
					t.Errorf("Deployment %s selects Jobs of its class", d.Name)
				}
			}
			for _, s := range typed[corev1.Service](t, all, "Service") {
				expectSelected(t, "Service "+s.Name, &metav1.LabelSelector{MatchLabels: s.Spec.Selector}, pods,
					func(component string) bool { return component == "scheduler" })
			}
			for _, p := range typed[networkingv1.NetworkPolicy](t, all, "NetworkPolicy") {
				workers := slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
				if workers && len(p.Spec.Ingress)+len(p.Spec.Egress) > 0 {
					t.Errorf("NetworkPolicy %s lets workers speak to someone", p.Name)
				}
				expectSelected(t, "NetworkPolicy "+p.Name, &p.Spec.PodSelector, pods, func(component string) bool {
					return workers && component != "scheduler" && component != "client" || !workers && component == "scheduler"
				})
			}
		})
	}
}

func expectSelected(t *testing.T, by string, s *metav1.LabelSelector, pods map[string]labels.Set, want func(string) bool) {
	t.Helper()
	for component, set := range pods {
		if got := selects(t, s, set); got != want(component) {
			t.Errorf("%s selects pods of %s: %v, want %v", by, component, got, want(component))
		}
	}
}

func selects(t *testing.T, s *metav1.LabelSelector, set labels.Set) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(set)
}

// The names by which the policies derive the workers' account from the
// scheduler's survive a prefix, and every claim that a class mounts is listed
// there.
func TestDerivedNames(t *testing.T) {
	for name, want := range map[string]string{"base": "ffpod-scheduler", "demo": "ffpod-scheduler", "dev": "ffpod-scheduler", "prefixed": "film-ffpod-scheduler-x"} {
		t.Run(name, func(t *testing.T) {
			all := objects(t, trees[name])
			listed := map[string][]string{}
			for _, a := range typed[corev1.ServiceAccount](t, all, "ServiceAccount") {
				for key, value := range a.Annotations {
					if strings.HasPrefix(key, "ffpod.dev/claim") {
						listed[a.Name] = append(listed[a.Name], strings.Split(value, ",")...)
					}
				}
			}
			for _, d := range typed[appsv1.Deployment](t, all, "Deployment") {
				spec, role := d.Spec.Template.Spec, "ffpod-"+d.Spec.Template.Labels["app.kubernetes.io/component"]
				if want := strings.Replace(want, "ffpod-scheduler", role, 1); spec.ServiceAccountName != want {
					t.Errorf("Deployment %s has account %s, want %s", d.Name, spec.ServiceAccountName, want)
				}
				for _, v := range spec.Volumes {
					if c := v.PersistentVolumeClaim; role == "ffpod-worker" && c != nil && !slices.Contains(listed[spec.ServiceAccountName], c.ClaimName) {
						t.Errorf("Deployment %s mounts claim %s, which ServiceAccount %s does not list", d.Name, c.ClaimName, spec.ServiceAccountName)
					}
				}
			}
		})
	}
}

// GitOps would set an empty field, and so wipe what the scheduler wrote.
func TestStateHasNoData(t *testing.T) {
	for _, name := range []string{"base", "demo", "prefixed"} {
		for _, o := range objects(t, trees[name]) {
			if !strings.Contains(o.GetName(), "ffpod-tls") && !(o.GetKind() == "ConfigMap" && strings.Contains(o.GetName(), "ffpod-client")) {
				continue
			}
			for _, field := range []string{"data", "stringData", "binaryData"} {
				if _, ok := o.Object[field]; ok {
					t.Errorf("%s: %s %s has the field %s", name, o.GetKind(), o.GetName(), field)
				}
			}
		}
	}
}

func objects(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	all, err := Render(dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// typed converts the objects of the kind, strictly: an unknown field is a slip.
func typed[T any](t *testing.T, all []*unstructured.Unstructured, kind string) []T {
	t.Helper()
	var out []T
	for _, o := range all {
		if o.GetKind() != kind {
			continue
		}
		var v T
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, &v, true); err != nil {
			t.Fatalf("%s %s: %v", kind, o.GetName(), err)
		}
		out = append(out, v)
	}
	return out
}
