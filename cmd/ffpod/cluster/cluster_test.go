package cluster

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

// manifest reads the first object of a file of kustomize.
func manifest[T any](t *testing.T, name string) *T {
	t.Helper()
	b, err := os.ReadFile("../../../kustomize/" + name)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(b), "\n---\n")
	out := new(T)
	if err := yaml.Unmarshal([]byte(text), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCallerOf reads the pod that the repository ships, so that the two agree.
func TestCallerOf(t *testing.T) {
	d := manifest[appsv1.Deployment](t, "components/demo/client.yaml")
	got, ok := CallerOf(&corev1.Pod{Spec: d.Spec.Template.Spec})
	if !ok || got.Container != "client" || got.Shim != "/opt/ffpod/ffmpeg" || got.Audience != "ffpod" {
		t.Errorf("%+v, %v", got, ok)
	}
	worker := manifest[appsv1.Deployment](t, "classes/template/deployment.yaml")
	if got, ok := CallerOf(&corev1.Pod{Spec: worker.Spec.Template.Spec}); ok {
		t.Errorf("a worker is a caller: %+v", got)
	}
}

func TestCallerOfPlaces(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Command: []string{"/ffpod/ffpod"}, Args: []string{"install", "shim", "/work/bin/"}, VolumeMounts: []corev1.VolumeMount{{Name: "other", MountPath: "/"}, {Name: "v", MountPath: "/work"}}}},
		Containers:     []corev1.Container{{Name: "side"}, {Name: "app", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/shim"}}}},
	}}
	if got, ok := CallerOf(pod); !ok || got.Container != "app" || got.Shim != "/shim/bin/ffmpeg" {
		t.Errorf("%+v, %v", got, ok)
	}
}

func pod(name string, labels map[string]string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "media", Name: name, Labels: labels},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	if change != nil {
		change(p)
	}
	return p
}

func TestScheduler(t *testing.T) {
	labels := map[string]string{"app.kubernetes.io/name": "ffpod", "app.kubernetes.io/component": "scheduler"}
	now := metav1.Now()
	c := &Cluster{Namespace: "media", Client: fake.NewSimpleClientset(
		pod("a-going", labels, func(p *corev1.Pod) { p.DeletionTimestamp, p.Finalizers = &now, []string{"x"} }),
		pod("b-unready", labels, func(p *corev1.Pod) { p.Status.Conditions = nil }),
		pod("c-ready", labels, nil), pod("d-other", nil, nil))}
	if p, err := c.Scheduler(t.Context()); err != nil || p.Name != "c-ready" {
		t.Errorf("%v, %v", p, err)
	}
	c.Namespace = "empty"
	if _, err := c.Scheduler(t.Context()); err == nil || !strings.Contains(err.Error(), "--namespace") {
		t.Error(err)
	}
}

func TestShared(t *testing.T) {
	deployment := func(name string, paths ...string) *appsv1.Deployment {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "media", Name: name, Labels: map[string]string{"ffpod.dev/class": name}}}
		spec := &d.Spec.Template.Spec
		spec.Volumes = []corev1.Volume{{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}}, {Name: "tmp"}}
		spec.Containers = []corev1.Container{{Name: "worker", VolumeMounts: []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}}}}
		for _, p := range paths {
			spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "c", MountPath: p, SubPath: p[1:]})
		}
		return d
	}
	c := &Cluster{Namespace: "media", Client: fake.NewSimpleClientset(deployment("cpu", "/media", "/cache"), deployment("gpu", "/media"))}
	for only, want := range map[string][]string{"": {"/media"}, "cpu": {"/cache", "/media"}} {
		got, err := c.Shared(t.Context(), only)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", only, err, diff)
		}
	}
	if _, err := c.Shared(t.Context(), "none"); err == nil {
		t.Error("an unknown class")
	}
}
