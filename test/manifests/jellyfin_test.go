package manifests

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Jellyfin's pod and its workers' fit together in every tree that has them.
func TestJellyfin(t *testing.T) {
	found := 0
	for name, dir := range trees {
		all := objects(t, dir)
		if slices.ContainsFunc(typed[appsv1.Deployment](t, all, "Deployment"), isJellyfin) {
			t.Run(name, func(t *testing.T) {
				if checkJellyfin(t, all) > 0 {
					found++
				}
			})
		}
	}
	if found < 4 {
		t.Errorf("only %d trees have Jellyfin and workers", found)
	}
}

func isJellyfin(d appsv1.Deployment) bool {
	return d.Labels["app.kubernetes.io/name"] == "jellyfin" && d.Labels["app.kubernetes.io/component"] == "server"
}

// checkJellyfin returns how many classes it compared Jellyfin with.
func checkJellyfin(t *testing.T, all []*unstructured.Unstructured) (workers int) {
	t.Helper()
	deployments := typed[appsv1.Deployment](t, all, "Deployment")
	i := slices.IndexFunc(deployments, isJellyfin)
	if i < 0 {
		t.Fatal("there is no Jellyfin")
	}
	server := deployments[i]
	if server.Spec.Replicas == nil || *server.Spec.Replicas != 1 || server.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		t.Errorf("Jellyfin has replicas %v, strategy %v: want 1 and Recreate", server.Spec.Replicas, server.Spec.Strategy.Type)
	}
	for _, d := range deployments {
		if d.Labels["ffpod.dev/class"] != "" {
			workers++
			checkWorker(t, server.Spec.Template.Spec, d)
			checkListed(t, all, d)
		}
	}
	checkMounts(t, "Jellyfin", server.Spec.Template.Spec)
	checkIdentity(t, all, server.Spec.Template.Spec.SecurityContext)
	checkKept(t, all)
	checkOneConfig(t, all)
	checkRights(t, all)
	return workers
}

// checkWorker compares a class with Jellyfin: whatever Jellyfin calls shared,
// the worker has at the same path from the same place, and nothing else of
// Jellyfin's.
func checkWorker(t *testing.T, server corev1.PodSpec, d appsv1.Deployment) {
	t.Helper()
	pod := d.Spec.Template.Spec
	jellyfin, worker := container(t, server, "jellyfin"), container(t, pod, "worker")
	if !sameRelease(jellyfin.Image, worker.Image) {
		t.Errorf("Deployment %s runs %s, Jellyfin %s: their ffmpeg would differ", d.Name, worker.Image, jellyfin.Image)
	}
	checkMounts(t, d.Name, pod)
	for _, dir := range strings.Split(variable(jellyfin, "FFPOD_SHARED"), ":") {
		a, ok := claimAt(server, jellyfin, dir)
		b, too := claimAt(pod, worker, dir)
		if !ok || !too || a.claim != b.claim || a.subPath != b.subPath {
			t.Errorf("Deployment %s: %s is %+v there and %+v in Jellyfin", d.Name, dir, b, a)
		}
		if dir == "/media" && (!b.volumeReadOnly || !b.readOnly) {
			t.Errorf("Deployment %s can write to the library, or fsGroup to its owners: %+v", d.Name, b)
		}
	}
	for _, m := range worker.VolumeMounts {
		mounted, isClaim := claimAt(pod, worker, m.MountPath)
		if in, ok := claimAt(server, jellyfin, m.MountPath); isClaim && (!ok || in.claim != mounted.claim) {
			t.Errorf("Deployment %s mounts claim %s at %s, Jellyfin does not", d.Name, mounted.claim, m.MountPath)
		}
	}
}

// sameRelease: one image, or one that is made from the other and says so in its
// tag, as that with the PostgreSQL provider does.
func sameRelease(jellyfin, worker string) bool {
	_, a, _ := strings.Cut(jellyfin, ":")
	_, b, ok := strings.Cut(worker, ":")
	return jellyfin == worker || ok && strings.HasPrefix(a, b+"-")
}

// checkListed: Jobs of a class may mount its claims, says the account.
func checkListed(t *testing.T, all []*unstructured.Unstructured, d appsv1.Deployment) {
	t.Helper()
	var listed []string
	for _, a := range typed[corev1.ServiceAccount](t, all, "ServiceAccount") {
		for key, value := range a.Annotations {
			if a.Name == d.Spec.Template.Spec.ServiceAccountName && strings.HasPrefix(key, "ffpod.dev/claim") {
				listed = append(listed, strings.Split(value, ",")...)
			}
		}
	}
	for _, v := range d.Spec.Template.Spec.Volumes {
		if c := v.PersistentVolumeClaim; c != nil && !slices.Contains(listed, c.ClaimName) {
			t.Errorf("Deployment %s mounts claim %s, which its ServiceAccount does not list: %v", d.Name, c.ClaimName, listed)
		}
	}
}

// mounted is where a path of a container comes from.
type mounted struct {
	claim, subPath           string
	readOnly, volumeReadOnly bool
}

func claimAt(p corev1.PodSpec, c corev1.Container, at string) (mounted, bool) {
	for _, m := range c.VolumeMounts {
		if m.MountPath != at {
			continue
		}
		for _, v := range p.Volumes {
			if v.Name == m.Name && v.PersistentVolumeClaim != nil {
				return mounted{v.PersistentVolumeClaim.ClaimName, m.SubPath, m.ReadOnly, v.PersistentVolumeClaim.ReadOnly}, true
			}
		}
	}
	return mounted{}, false
}

// checkMounts: a path is mounted once, and each directory of a claim that is
// mounted by its name is made by an init container before.
func checkMounts(t *testing.T, name string, p corev1.PodSpec) {
	t.Helper()
	made := map[string]bool{} // "VOLUME SUBPATH"
	for _, c := range p.InitContainers {
		for _, m := range c.VolumeMounts {
			for _, arg := range slices.Concat(c.Command, c.Args) {
				if dir, ok := strings.CutPrefix(arg, "--mkdir="+m.MountPath+"/"); ok {
					made[m.Name+" "+dir] = true
				}
				switch arg { // what `ffpod jellyfin prepare` makes; its own tests say so
				case "--config=" + m.MountPath:
					made[m.Name+" cache"] = true
				case "--shared=" + m.MountPath:
					for _, dir := range []string{"transcodes", "tmp", "concat", "subtitles", "attachments"} {
						made[m.Name+" "+dir] = true
					}
				}
			}
		}
	}
	for _, c := range p.Containers {
		paths := map[string]bool{}
		for _, m := range c.VolumeMounts {
			if paths[m.MountPath] {
				t.Errorf("%s: container %s mounts two volumes at %s", name, c.Name, m.MountPath)
			}
			paths[m.MountPath] = true
			if m.SubPath != "" && !made[m.Name+" "+m.SubPath] {
				t.Errorf("%s: no init container makes the directory %s of volume %s, so the kubelet would, as root", name, m.SubPath, m.Name)
			}
		}
		variables := map[string]bool{}
		for _, e := range c.Env {
			if variables[e.Name] {
				t.Errorf("%s: container %s sets %s twice", name, c.Name, e.Name)
			}
			variables[e.Name] = true
		}
	}
}

// checkIdentity: whoever mounts a claim of Jellyfin's, or is part of it, is the
// same user in the same groups.
func checkIdentity(t *testing.T, all []*unstructured.Unstructured, want *corev1.PodSecurityContext) {
	t.Helper()
	for name, p := range pods(t, all) {
		if !slices.ContainsFunc(p.Volumes, func(v corev1.Volume) bool {
			c := v.PersistentVolumeClaim
			return c != nil && (strings.Contains(c.ClaimName, "jellyfin-shared") || strings.Contains(c.ClaimName, "jellyfin-config"))
		}) {
			continue
		}
		if diff := cmp.Diff(want, p.SecurityContext); diff != "" {
			t.Errorf("%s has another identity than Jellyfin (-Jellyfin +it):\n%s", name, diff)
		}
	}
}

// pods are the pod templates of all workloads.
func pods(t *testing.T, all []*unstructured.Unstructured) map[string]corev1.PodSpec {
	t.Helper()
	out := map[string]corev1.PodSpec{}
	for _, o := range typed[appsv1.Deployment](t, all, "Deployment") {
		out["Deployment "+o.Name] = o.Spec.Template.Spec
	}
	for _, o := range typed[appsv1.StatefulSet](t, all, "StatefulSet") {
		out["StatefulSet "+o.Name] = o.Spec.Template.Spec
	}
	for _, o := range typed[batchv1.Job](t, all, "Job") {
		out["Job "+o.Name] = o.Spec.Template.Spec
	}
	for _, o := range typed[batchv1.CronJob](t, all, "CronJob") {
		out["CronJob "+o.Name] = o.Spec.JobTemplate.Spec.Template.Spec
	}
	return out
}

// checkKept: no claim or volume can be lost with the tree, by Argo CD, Flux or
// kubectl.
func checkKept(t *testing.T, all []*unstructured.Unstructured) {
	t.Helper()
	for _, o := range all {
		if kind := o.GetKind(); kind != "PersistentVolumeClaim" && kind != "PersistentVolume" && kind != "Namespace" {
			continue
		}
		if o.GetLabels()["ffpod.dev/keep"] != "true" ||
			o.GetAnnotations()["argocd.argoproj.io/sync-options"] != "Prune=false,Delete=false" ||
			o.GetAnnotations()["kustomize.toolkit.fluxcd.io/prune"] != "disabled" {
			t.Errorf("%s %s does not carry the marks that keep it: %v %v", o.GetKind(), o.GetName(), o.GetLabels(), o.GetAnnotations())
		}
	}
	for _, v := range typed[corev1.PersistentVolume](t, all, "PersistentVolume") {
		if v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
			t.Errorf("PersistentVolume %s is not retained", v.Name)
		}
		checkBound(t, v, typed[corev1.PersistentVolumeClaim](t, all, "PersistentVolumeClaim"))
	}
}

// checkBound: a volume and its claim name each other, fully.
func checkBound(t *testing.T, v corev1.PersistentVolume, claims []corev1.PersistentVolumeClaim) {
	t.Helper()
	i := slices.IndexFunc(claims, func(c corev1.PersistentVolumeClaim) bool { return c.Spec.VolumeName == v.Name })
	if i < 0 || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.Name != claims[i].Name || v.Spec.ClaimRef.Namespace != claims[i].Namespace || claims[i].Namespace == "" {
		t.Errorf("PersistentVolume %s is for %+v, of claims %+v", v.Name, v.Spec.ClaimRef, claims)
		return
	}
	c := claims[i]
	if c.Spec.StorageClassName == nil || *c.Spec.StorageClassName != v.Spec.StorageClassName {
		t.Errorf("PersistentVolume %s and its claim have different classes, so they are never bound", v.Name)
	}
	for _, mode := range c.Spec.AccessModes {
		if !slices.Contains(v.Spec.AccessModes, mode) {
			t.Errorf("PersistentVolume %s has no %s, which its claim wants", v.Name, mode)
		}
	}
	if has, wants := v.Spec.Capacity["storage"], c.Spec.Resources.Requests["storage"]; has.Cmp(wants) < 0 {
		t.Errorf("PersistentVolume %s has %v, its claim wants %v", v.Name, &has, &wants)
	}
}

// checkOneConfig: the claim with the database and the keys is Jellyfin's, and
// that of Jobs which are placed beside it for a backup; no class's.
func checkOneConfig(t *testing.T, all []*unstructured.Unstructured) {
	t.Helper()
	for name, p := range pods(t, all) {
		for _, v := range p.Volumes {
			c := v.PersistentVolumeClaim
			if c == nil || !strings.Contains(c.ClaimName, "jellyfin-config") || slices.Contains([]string{"Deployment jellyfin", "CronJob jellyfin-backup", "CronJob jellyfin-restore"}, strings.Replace(name, "film-", "", 1)) {
				continue
			}
			t.Errorf("%s mounts the claim %s", name, c.ClaimName)
		}
	}
	for _, a := range typed[corev1.ServiceAccount](t, all, "ServiceAccount") {
		for key, value := range a.Annotations {
			if strings.HasPrefix(key, "ffpod.dev/claim") && strings.Contains(value, "jellyfin-config") {
				t.Errorf("ServiceAccount %s lets Jobs mount %s", a.Name, value)
			}
		}
	}
}

var renderedBase = sync.OnceValues(func() ([]*unstructured.Unstructured, error) { return Render("kustomize/base") })

// checkRights: Jellyfin brings none. The scheduler's Role is kustomize/base's.
func checkRights(t *testing.T, all []*unstructured.Unstructured) {
	t.Helper()
	base, err := renderedBase()
	if err != nil {
		t.Fatal(err)
	}
	want := typed[rbacv1.Role](t, base, "Role")
	own := func(name string) bool { return !strings.HasSuffix(name, "ffpod-scheduler-scale") } // else component autoscale's
	got := slices.DeleteFunc(typed[rbacv1.Role](t, all, "Role"), func(r rbacv1.Role) bool { return !own(r.Name) })
	if len(got) != len(want) || strings.TrimPrefix(got[0].Name, "film-") != want[0].Name {
		t.Fatalf("there are Roles %v", got)
	}
	bindings := slices.DeleteFunc(typed[rbacv1.RoleBinding](t, all, "RoleBinding"), func(b rbacv1.RoleBinding) bool { return !own(b.Name) })
	if len(bindings) != 1 {
		t.Error("there are further RoleBindings")
	}
	for i := range got[0].Rules {
		if got[0].Rules[i].ResourceNames == nil { // those follow prefixes
			if diff := cmp.Diff(want[0].Rules[i], got[0].Rules[i]); diff != "" {
				t.Errorf("rule %d of the scheduler's Role (-base +tree):\n%s", i, diff)
			}
		}
	}
}

func container(t *testing.T, p corev1.PodSpec, name string) corev1.Container {
	t.Helper()
	i := slices.IndexFunc(p.Containers, func(c corev1.Container) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no container is called %s", name)
	}
	return p.Containers[i]
}

func variable(c corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// A release of ffpod restarts its own pods and not Jellyfin; one of Jellyfin
// restarts Jellyfin and the workers, and not the scheduler.
func TestWhatAnUpgradeRestarts(t *testing.T) {
	templates := func(images string) map[string]string {
		objects, err := RenderText(`
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [ROOT/kustomize/overlays/minimal]
images: [` + images + `]
`)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, d := range typed[appsv1.Deployment](t, objects, "Deployment") {
			out[d.Name] = d.Spec.Template.String()
		}
		return out
	}
	before := templates("")
	for images, want := range map[string][]string{
		"{name: ffpod/ffpod, newTag: v9}":             {"ffpod-cpu", "ffpod-scheduler"},
		"{name: ffpod/shim, newTag: v9}":              {"jellyfin"},
		"{name: jellyfin/jellyfin, newTag: 10.11.12}": {"ffpod-cpu", "jellyfin"},
	} {
		var restarted []string
		for name, template := range templates(images) {
			if template != before[name] {
				restarted = append(restarted, name)
			}
		}
		slices.Sort(restarted)
		if diff := cmp.Diff(want, restarted); diff != "" {
			t.Errorf("%s restarts (-want +got):\n%s", images, diff)
		}
	}
}

// A class that something else scales says no number: a second apply, or a sync,
// would set it again.
func TestScaledClassesHaveNoReplicas(t *testing.T) {
	scaled := 0
	for name, dir := range trees {
		tree := read(t, dir+"/kustomization.yaml")
		listed := slices.ContainsFunc([]string{"scaled", "autoscale", "keda"}, func(c string) bool { return strings.Contains(tree, "components/"+c+"\n") })
		for _, d := range typed[appsv1.Deployment](t, objects(t, dir), "Deployment") {
			isScaled := d.Labels["ffpod.dev/class"] != "" && (listed || d.Annotations["ffpod.dev/scale"] != "")
			if isScaled {
				scaled++
			}
			if isScaled == (d.Spec.Replicas != nil) {
				t.Errorf("%s: Deployment %s has replicas %v", name, d.Name, d.Spec.Replicas)
			}
		}
	}
	if scaled == 0 {
		t.Error("no tree has a scaled class")
	}
}

// What the tests render in process, the program renders too.
func TestKustomizeItselfRendersTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a program for each tree")
	}
	for name, dir := range trees {
		t.Run(name, func(t *testing.T) {
			_, want, err := render(filepath.Join(Root(), dir))
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("go", "tool", "kustomize", "build", dir)
			cmd.Dir = Root()
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			got, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, &stderr)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
				t.Errorf("(-api +kustomize build):\n%s", diff)
			}
		})
	}
}

// What is refused says why, in words that are not kustomize's.
func TestRefusedSaysWhy(t *testing.T) {
	files := copied(t)
	for dir, why := range refused {
		_, err := files.put(t, overlayOf([]string{filepath.Base(dir)}), read(t, "test/manifests/testdata/all/settings.yaml"))
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v; want it to say %q", dir, err, why)
		}
	}
}

// A setting that is missing is named with its path.
func TestMissingSettingIsNamed(t *testing.T) {
	files := copied(t)
	settings := read(t, "test/manifests/testdata/all/settings.yaml")
	missing := strings.Replace(settings, "server: nas.example.org", "", 1)
	_, err := files.put(t, overlayOf([]string{"class-cpu", "jellyfin-workers", "media-nfs", "settings"}), missing)
	if err == nil || !strings.Contains(err.Error(), "fieldPath `media.nfs.server` is missing") {
		t.Errorf("without media.nfs.server: %v", err)
	}
}
