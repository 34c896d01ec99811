package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authzv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	versions "k8s.io/apimachinery/pkg/version"
	discovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/ffpod/ffpod/scheduler/api"
)

// install is a healthy one, which tests then make ill.
type install struct {
	scheduler, jellyfin, cpu, gpu *appsv1.Deployment
	pods                          map[string]*corev1.Pod
	claims                        map[string]*corev1.PersistentVolumeClaim
	volumes                       map[string]*corev1.PersistentVolume
	nodes                         []*corev1.Node
	configMaps                    map[string]*corev1.ConfigMap
	services                      []*corev1.Service
	ingresses                     []*networkingv1.Ingress
	runtimeClasses                []*nodev1.RuntimeClass
	storageClasses                []*storagev1.StorageClass
	secrets                       []*corev1.Secret
	rules                         []authzv1.ResourceRule
	version                       versions.Info
	forbidden                     []string // resources
	files                         map[string]string
	written                       sync.Map // token by file, between a writer and who waits for it
	status                        api.Status
	exec                          func(pod string, args []string) (Output, bool)
}

const (
	uid = int64(1000)
)

func meta(name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "media", Name: name, Labels: labels}
}

func labelsOf(name, component string) map[string]string {
	return map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/component": component}
}

func claimVolume(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}
}

func deployment(name string, labels map[string]string, spec corev1.PodSpec) *appsv1.Deployment {
	spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(uid), RunAsGroup: new(uid)}
	spec.EnableServiceLinks = new(false)
	return &appsv1.Deployment{ObjectMeta: meta(name, labels), Spec: appsv1.DeploymentSpec{Replicas: new(int32(1)), Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec}}}
}

func classOf(name, device string) *appsv1.Deployment {
	labels := labelsOf("ffpod", "worker")
	labels["ffpod.dev/class"] = name
	d := deployment("ffpod-"+name, labels, corev1.PodSpec{
		Containers: []corev1.Container{{Name: "worker", Image: "jellyfin/jellyfin:10.11.11", VolumeMounts: []corev1.VolumeMount{
			{Name: "jellyfin-media", MountPath: "/media", ReadOnly: true}, {Name: "jellyfin-shared", MountPath: "/cache/transcodes", SubPath: "transcodes"}}}},
		Volumes: []corev1.Volume{claimVolume("jellyfin-media"), claimVolume("jellyfin-shared")},
	})
	if device != "" {
		d.Spec.Template.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceName(device): quantity("1")}
		d.Annotations = map[string]string{"ffpod.dev/jobs": "0"}
	}
	return d
}

func running(d *appsv1.Deployment, node string) *corev1.Pod {
	spec := *d.Spec.Template.Spec.DeepCopy()
	spec.NodeName = node
	name := d.Name + "-0"
	var states []corev1.ContainerStatus
	for _, c := range spec.Containers {
		states = append(states, corev1.ContainerStatus{Name: c.Name, Ready: true, ImageID: c.Image + "@sha256:1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(now.Add(-time.Hour))}}})
	}
	return &corev1.Pod{ObjectMeta: meta(name, d.Spec.Template.Labels), Spec: spec, Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: states,
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
}

var now = time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)

func healthy() *install {
	x := &install{
		scheduler: deployment("ffpod-scheduler", labelsOf("ffpod", "scheduler"), corev1.PodSpec{ServiceAccountName: "ffpod-scheduler",
			Containers: []corev1.Container{{Name: "scheduler", Ports: []corev1.ContainerPort{{Name: "grpc", ContainerPort: 7443}}}},
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "ffpod-scheduler"}}}},
				{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "ffpod-tls"}}},
				{Name: "client", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "ffpod-client"}}}}}}),
		jellyfin: deployment("jellyfin", labelsOf("jellyfin", "server"), corev1.PodSpec{ServiceAccountName: "jellyfin",
			InitContainers: []corev1.Container{{Name: "shim", Command: []string{"/ffpod/ffpod", "install", "shim", "/install"}, VolumeMounts: []corev1.VolumeMount{{Name: "ffpod", MountPath: "/install"}}}},
			Containers: []corev1.Container{{Name: "jellyfin", Image: "jellyfin/jellyfin:10.11.11",
				Env: []corev1.EnvVar{{Name: "JELLYFIN_FFMPEG", Value: "/opt/ffpod/ffmpeg"}, {Name: "FFPOD_SHARED", Value: "/media:/cache/transcodes"}},
				VolumeMounts: []corev1.VolumeMount{{Name: "ffpod", MountPath: "/opt/ffpod"}, {Name: "credentials", MountPath: "/var/run/ffpod"}, {Name: "jellyfin-config", MountPath: "/config"},
					{Name: "jellyfin-media", MountPath: "/media"}, {Name: "jellyfin-shared", MountPath: "/cache/transcodes", SubPath: "transcodes"}}}},
			Volumes: []corev1.Volume{{Name: "ffpod"}, claimVolume("jellyfin-config"), claimVolume("jellyfin-media"), claimVolume("jellyfin-shared"),
				{Name: "credentials", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "ffpod", Path: "token"}}}}}}}}),
		cpu: classOf("cpu", ""), gpu: classOf("nvidia", "nvidia.com/gpu"),
		claims: map[string]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{},
		configMaps: map[string]*corev1.ConfigMap{
			"ffpod-scheduler": {ObjectMeta: meta("ffpod-scheduler", nil), Data: map[string]string{"scheduler.yaml": "apiVersion: ffpod.dev/v1alpha1\nkind: SchedulerConfiguration\n"}},
			"ffpod-client":    {ObjectMeta: meta("ffpod-client", nil), Data: map[string]string{"address": "ffpod-scheduler.media.svc:7443", "ca.crt": testCA}}},
		services:       []*corev1.Service{{ObjectMeta: meta("jellyfin", nil), Spec: corev1.ServiceSpec{Selector: labelsOf("jellyfin", "server")}}},
		storageClasses: []*storagev1.StorageClass{{ObjectMeta: metav1.ObjectMeta{Name: "local-path", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}}, Provisioner: "rancher.io/local-path"}},
		rules:          []authzv1.ResourceRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}},
		version:        versions.Info{Major: "1", Minor: "35", GitVersion: "v1.35.1"},
		files: map[string]string{
			"encoding.xml":      `<EncodingOptions><HardwareAccelerationType>nvenc</HardwareAccelerationType><EncoderAppPathDisplay>/opt/ffpod/ffmpeg</EncoderAppPathDisplay></EncodingOptions>`,
			"network.xml":       `<NetworkConfiguration><BaseUrl /></NetworkConfiguration>`,
			"system.xml":        `<ServerConfiguration></ServerConfiguration>`,
			"/proc/self/mounts": "nas:/media /media nfs4 ro,hard,actimeo=60 0 0\nnas:/shared /cache/transcodes nfs4 rw,hard,actimeo=1 0 0\n/dev/sda1 /config ext4 rw 0 0\n",
		},
		status: api.Status{Version: "v1", Pod: "ffpod-scheduler-0", Policies: []string{},
			Classes:  []api.Class{{Name: "cpu", Usable: true, Replicas: 1, Jobs: 4}, {Name: "nvidia", Usable: true, Replicas: 1}},
			Workers:  []api.Worker{{Pod: "ffpod-cpu-0", Class: "cpu", Role: "warm", Ready: true, FFmpeg: "7.1.3-Jellyfin", FFmpegBuild: "b1"}},
			Sessions: []api.Session{{ID: "p", Kind: "probe", CallerPod: "jellyfin-0", CallerBuild: "b1", State: "ended", Asked: now.Add(-time.Minute)}}},
	}
	for _, name := range []string{"jellyfin-config", "jellyfin-media", "jellyfin-shared"} {
		mode := corev1.ReadWriteMany
		if name == "jellyfin-config" {
			mode = corev1.ReadWriteOnce
		}
		modes := []corev1.PersistentVolumeAccessMode{mode}
		x.claims[name] = &corev1.PersistentVolumeClaim{ObjectMeta: meta(name, map[string]string{"ffpod.dev/keep": "true"}), Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes, VolumeName: "pv-" + name},
			Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, AccessModes: modes}}
		x.volumes["pv-"+name] = &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + name}, Spec: corev1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain}}
	}
	for i, devices := range []string{"0", "1"} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i+1)}, Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{"cpu": quantity("8")}}}
		if devices != "0" {
			n.Status.Allocatable["nvidia.com/gpu"] = quantity(devices)
			n.Status.Capacity = n.Status.Allocatable
		}
		x.nodes = append(x.nodes, n)
	}
	return x
}

// patient is the install as the doctor sees it: a fake API with real objects, and a
// shell that knows what the doctor runs.
func (x *install) patient(t *testing.T) *Patient {
	t.Helper()
	var objects []runtime.Object
	add := func(o ...runtime.Object) { objects = append(objects, o...) }
	add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "media"}})
	for i, d := range []*appsv1.Deployment{x.scheduler, x.jellyfin, x.cpu, x.gpu} {
		if d == nil {
			continue
		}
		add(d)
		if _, own := x.pods[d.Name]; !own && *d.Spec.Replicas > 0 {
			add(running(d, fmt.Sprintf("n%d", i%2+1)))
		}
	}
	for _, p := range x.pods {
		if p != nil {
			add(p)
		}
	}
	for _, c := range x.claims {
		add(c)
	}
	for _, v := range x.volumes {
		add(v)
	}
	for _, n := range x.nodes {
		add(n)
	}
	for _, c := range x.configMaps {
		add(c)
	}
	for _, s := range x.services {
		add(s)
	}
	for _, i := range x.ingresses {
		add(i)
	}
	for _, r := range x.runtimeClasses {
		add(r)
	}
	for _, s := range x.storageClasses {
		add(s)
	}
	for _, s := range x.secrets {
		add(s)
	}
	client := fake.NewSimpleClientset(objects...)
	client.Discovery().(*discovery.FakeDiscovery).FakedServerVersion = &x.version
	client.PrependReactor("create", "selfsubjectrulesreviews", func(kubetesting.Action) (bool, runtime.Object, error) {
		return true, &authzv1.SelfSubjectRulesReview{Status: authzv1.SubjectRulesReviewStatus{ResourceRules: x.rules}}, nil
	})
	client.PrependReactor("*", "*", func(a kubetesting.Action) (bool, runtime.Object, error) {
		if slices.Contains(x.forbidden, a.GetResource().Resource) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: a.GetResource().Resource}, "", errors.New("no"))
		}
		return false, nil, nil
	})
	p := &Patient{Client: client, Namespace: "media", Now: func() time.Time { return now },
		Status: func(context.Context) (api.Status, error) { return x.status, nil }}
	p.Exec = func(_ context.Context, pod, _ string, args ...string) (Output, error) { return x.run(pod, args) }
	p.Watch = func(ctx context.Context, _, _ string, line func(string), args ...string) error {
		line("watching")
		for range 200 {
			if _, there := x.written.Load(args[len(args)-2]); there {
				line("seen 1000:1000")
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
		line("never")
		return nil
	}
	return p
}

// run is the shell.
func (x *install) run(pod string, args []string) (Output, error) {
	if x.exec != nil {
		if out, handled := x.exec(pod, args); handled {
			return out, nil
		}
	}
	switch {
	case args[0] == "cat":
		name := strings.TrimPrefix(args[1], "/config/config/")
		if text, there := x.files[name]; there {
			return Output{Stdout: text}, nil
		}
		return Output{Code: 1, Stderr: "cat: " + args[1] + ": No such file or directory"}, nil
	case args[0] == "getent":
		return Output{Stdout: "10.43.0.7 STREAM ffpod-scheduler\n"}, nil
	case args[0] == "df":
		return Output{Stdout: "Filesystem 1024-blocks Used Available Capacity Mounted on\nnas:/shared 104857600 1 100000000 1% /cache/transcodes\n"}, nil
	case strings.HasSuffix(args[0], "ffmpeg"):
		return Output{Stdout: "ffmpeg version 7.1.3-Jellyfin Copyright"}, nil
	case args[0] == "sh" && args[2] == writeScript:
		x.written.Store(args[4], args[5])
		return Output{Stdout: "written 1000:1000\n"}, nil
	case args[0] == "sh":
		return Output{Stdout: "123 456\n"}, nil
	}
	return Output{}, nil
}

func examine(t *testing.T, p *Patient, only ...string) Report {
	t.Helper()
	r, err := Examine(t.Context(), p, only, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// quick are the checks that a fault of the API's objects shows in.
var quick = slices.DeleteFunc(Names(), func(n string) bool { return n == "policies" || n == "trust" })

func TestHealthy(t *testing.T) {
	r := examine(t, healthy().patient(t), quick...)
	for _, f := range r.Findings {
		if f.Level != OK {
			t.Errorf("%+v", f)
		}
	}
	seen := map[string]bool{}
	for _, f := range r.Findings {
		seen[f.Check] = true
	}
	for _, c := range checks() {
		if c.after && c.name != "policies" && c.name != "trust" && c.name != "ingress" && c.name != "runtime-class" && c.name != "encoders" && c.name != "tone-mapping" && !seen[c.name] {
			t.Errorf("check %s said nothing of a whole install", c.name)
		}
	}
}

// TestFaults makes one thing ill at a time: the doctor must say so, on the right
// thing, with a remedy.
func TestFaults(t *testing.T) {
	worker := func(d *appsv1.Deployment) *corev1.Container { return &d.Spec.Template.Spec.Containers[0] }
	for name, c := range map[string]struct {
		ill          func(*install)
		check, on    string
		level        Level
		what, remedy string
	}{
		"old Kubernetes": {func(x *install) { x.version.Minor, x.version.GitVersion = "29+", "v1.29.4" }, "api-server", "API server", Fail, "v1.29.4 is too old", "1.30"},
		"new Kubernetes": {func(x *install) { x.version.Minor = "99" }, "api-server", "API server", Warn, "newer", ""},
		"no portforward": {func(x *install) {
			x.rules = []authzv1.ResourceRule{{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"pods/exec"}}}
		}, "rights", "you", Warn, "create pods/portforward", "role edit"},
		"no scheduler":      {func(x *install) { x.scheduler = nil }, "scheduler", "namespace media", Fail, "no scheduler is installed", "ffpod init"},
		"bad configuration": {func(x *install) { x.configMaps["ffpod-scheduler"].Data["scheduler.yaml"] += "queue: {limit: -1}\n" }, "read", "ConfigMap ffpod-scheduler", Fail, "cannot be used", "rollout restart"},
		"not ready":         {func(x *install) { x.status.NotReady = []string{"certificate: none"} }, "scheduler", "scheduler ffpod-scheduler-0", Fail, "not ready", "kubectl logs"},
		"unusable class": {func(x *install) {
			x.status.Classes[0].Usable = false
			x.status.Classes[0].Problems = []string{"it has no container worker"}
		}, "scheduler", "class cpu", Fail, "no container worker", "Deployment"},
		"idle class":    {func(x *install) { x.status.Classes[1].Replicas = 0 }, "scheduler", "class nvidia", Warn, "neither warm workers nor Jobs", "kubectl scale"},
		"silent worker": {func(x *install) { x.status.Workers[0].Ready = false }, "scheduler", "worker ffpod-cpu-0", Fail, "does not answer", "kubectl logs"},
		"stranger":      {func(x *install) { x.jellyfin.Spec.Template.Spec.ServiceAccountName = "default" }, "callers", "pod jellyfin-0", Fail, "default may not open sessions", "auth.allowedServiceAccounts"},
		"other audience": {func(x *install) {
			x.jellyfin.Spec.Template.Spec.Volumes[4].Projected.Sources[0].ServiceAccountToken.Audience = "vault"
		}, "callers", "pod jellyfin-0", Fail, "audience vault", "auth.audience"},
		"no JELLYFIN_FFMPEG": {func(x *install) { x.jellyfin.Spec.Template.Spec.Containers[0].Env[0].Value = "" }, "callers", "pod jellyfin-0", Fail, "does not use the shim", "/opt/ffpod/ffmpeg"},
		"mode local": {func(x *install) {
			x.jellyfin.Spec.Template.Spec.Containers[0].Env = append(x.jellyfin.Spec.Template.Spec.Containers[0].Env, corev1.EnvVar{Name: "FFPOD_MODE", Value: "local"})
		}, "callers", "pod jellyfin-0", Warn, "FFPOD_MODE is local", "auto"},
		"no CA mounted": {func(x *install) {
			x.exec = func(_ string, a []string) (Output, bool) {
				return Output{Code: 1}, a[0] == "test" && strings.HasSuffix(a[2], "ca.crt")
			}
		}, "callers", "pod jellyfin-0", Fail, "ca.crt is missing", "ffpod-client"},
		"no DNS": {func(x *install) {
			x.exec = func(_ string, a []string) (Output, bool) { return Output{Code: 2}, a[0] == "getent" }
		}, "dns", "pod jellyfin-0", Fail, "ffpod-scheduler.media.svc is not resolved", "kube-dns"},
		"no claim": {func(x *install) { delete(x.claims, "jellyfin-media") }, "claims", "claim jellyfin-media", Fail, "does not exist", "media.claim"},
		"claim going": {func(x *install) {
			x.claims["jellyfin-config"].DeletionTimestamp, x.claims["jellyfin-config"].Finalizers = &metav1.Time{Time: now}, []string{"kubernetes.io/pvc-protection"}
		}, "claims", "claim jellyfin-config", Fail, "being deleted", "Retain"},
		"RWX on local-path": {func(x *install) {
			c := x.claims["jellyfin-shared"]
			c.Status.Phase, c.Spec.VolumeName, c.Spec.StorageClassName = corev1.ClaimPending, "", new("local-path")
		}, "claims", "claim jellyfin-shared", Fail, "Pending", "shared-nfs"},
		"no such class": {func(x *install) {
			c := x.claims["jellyfin-shared"]
			c.Status.Phase, c.Spec.VolumeName, c.Spec.StorageClassName = corev1.ClaimPending, "", new("longhorn")
		}, "claims", "claim jellyfin-shared", Fail, "Pending", "kubectl get storageclass"},
		"RWO for many on one node": {func(x *install) {
			x.claims["jellyfin-shared"].Status.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
			x.pods = map[string]*corev1.Pod{"jellyfin": running(x.jellyfin, "n1"), "ffpod-cpu": running(x.cpu, "n1"), "ffpod-nvidia": running(x.gpu, "n1")}
		}, "claims", "claim jellyfin-shared", Warn, "ReadWriteOnce", "shared-rwx"},
		"RWO for many": {func(x *install) {
			x.claims["jellyfin-shared"].Status.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		}, "claims", "claim jellyfin-shared", Fail, "ReadWriteOnce", "shared-rwx"},
		"reclaim Delete": {func(x *install) {
			x.volumes["pv-jellyfin-config"].Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
		}, "claims", "volume pv-jellyfin-config", Warn, "reclaim policy is Delete", "kubectl patch pv"},
		"config on NFS": {func(x *install) {
			x.volumes["pv-jellyfin-config"].Spec.NFS = &corev1.NFSVolumeSource{Server: "nas", Path: "/c"}
		}, "claims", "claim jellyfin-config", Fail, "on NFS", "block"},
		"nocto": {func(x *install) {
			v := x.volumes["pv-jellyfin-shared"]
			v.Spec.NFS, v.Spec.MountOptions = &corev1.NFSVolumeSource{}, []string{"hard", "nocto"}
		}, "claims", "volume pv-jellyfin-shared", Fail, "nocto", "remove"},
		"soft": {func(x *install) { x.files["/proc/self/mounts"] = "nas:/s /cache/transcodes nfs4 rw,soft 0 0\n" }, "mounts", "pod jellyfin-0, /cache/transcodes", Warn, "mounted soft", "hard"},
		"long cache": {func(x *install) {
			x.files["/proc/self/mounts"] = "nas:/s /cache/transcodes nfs4 rw,hard,acregmax=60 0 0\n"
		}, "mounts", "pod jellyfin-0, /cache/transcodes", Warn, "up to 60 s", "actimeo=1"},
		"config mounted NFS": {func(x *install) { x.files["/proc/self/mounts"] = "nas:/s /config nfs4 rw,hard 0 0\n" }, "mounts", "pod jellyfin-0, /config", Fail, "lies on nfs4", "block"},
		"disk full": {func(x *install) {
			x.exec = func(_ string, a []string) (Output, bool) {
				return Output{Stdout: "nas:/s 9 9 1048576 99% /cache/transcodes\n"}, a[0] == "df"
			}
		}, "mounts", "pod jellyfin-0, /cache/transcodes", Warn, "1.0 GiB", "enlarge"},
		"not mounted":      {func(x *install) { worker(x.cpu).VolumeMounts = worker(x.cpu).VolumeMounts[:1] }, "paths", "pod jellyfin-0, /cache/transcodes", Fail, "class cpu does not mount it", "claim jellyfin-shared subPath transcodes"},
		"other subPath":    {func(x *install) { worker(x.gpu).VolumeMounts[1].SubPath = "tmp" }, "paths", "pod jellyfin-0, /cache/transcodes", Fail, "subPath tmp in class nvidia", "same claim"},
		"worker read-only": {func(x *install) { worker(x.cpu).VolumeMounts[1].ReadOnly = true }, "paths", "pod jellyfin-0, /cache/transcodes", Fail, "read-only", "readOnly"},
		"no claim at all":  {func(x *install) { x.jellyfin.Spec.Template.Spec.Containers[0].Env[1].Value += ":/tmp" }, "paths", "pod jellyfin-0, /tmp", Fail, "no claim is mounted", "FFPOD_SHARED"},
		"other user":       {func(x *install) { x.cpu.Spec.Template.Spec.SecurityContext.RunAsUser = new(int64(568)) }, "identity", "class cpu", Fail, "568:1000", "identity in settings.yaml"},
		"other groups":     {func(x *install) { x.gpu.Spec.Template.Spec.SecurityContext.SupplementalGroups = []int64{109} }, "identity", "class nvidia", Warn, "[109]", "identity"},
		"other image":      {func(x *install) { worker(x.cpu).Image = "ffpod/worker:dev" }, "images", "class cpu", Warn, "ffpod/worker:dev", "jellyfin-workers"},
		"other ffmpeg":     {func(x *install) { x.status.Workers[0].FFmpeg = "8.0-Jellyfin" }, "images", "worker ffpod-cpu-0", Warn, "8.0-Jellyfin", "same"},
		"no plugin":        {func(x *install) { delete(x.nodes[1].Status.Allocatable, "nvidia.com/gpu") }, "gpu", "class nvidia", Fail, "no node that it may use offers", "NVIDIA device plugin"},
		"shared name": {func(x *install) {
			delete(x.nodes[1].Status.Allocatable, "nvidia.com/gpu")
			x.nodes[1].Status.Allocatable["nvidia.com/gpu.shared"] = quantity("4")
		}, "gpu", "class nvidia", Fail, "offer nvidia.com/gpu.shared", "request nvidia.com/gpu.shared"},
		"MIG name": {func(x *install) {
			delete(x.nodes[1].Status.Allocatable, "nvidia.com/gpu")
			x.nodes[1].Status.Allocatable["nvidia.com/mig-1g.5gb"] = quantity("7")
		}, "gpu", "class nvidia", Fail, "mig-1g.5gb", "request nvidia.com/mig-1g.5gb"},
		"unhealthy GPU": {func(x *install) { x.nodes[1].Status.Allocatable["nvidia.com/gpu"] = quantity("0") }, "gpu", "node n2", Warn, "0 of", "plugin"},
		"GPU without plugin": {func(x *install) {
			x.nodes[0].Labels = map[string]string{"feature.node.kubernetes.io/pci-0300_8086.present": "true"}
		}, "gpu", "node n1", Warn, "Intel GPU", "Intel GPU device plugin"},
		"no node fits": {func(x *install) { x.gpu.Spec.Template.Spec.NodeSelector = map[string]string{"gpu": "yes"} }, "gpu", "class nvidia", Fail, "match no node", "label the nodes"},
		"tainted": {func(x *install) {
			x.nodes[1].Spec.Taints = []corev1.Taint{{Key: "nvidia.com/gpu", Effect: corev1.TaintEffectNoSchedule}}
		}, "gpu", "class nvidia", Fail, "no node that it may use offers", ""},
		"Jobs cannot start": {func(x *install) { x.gpu.Annotations = nil }, "gpu", "class nvidia", Warn, "Jobs never start", "ffpod.dev/jobs"},
		"no render group": {func(x *install) {
			worker(x.gpu).Resources.Limits = corev1.ResourceList{"gpu.intel.com/i915": quantity("1")}
			x.nodes[1].Status.Allocatable["gpu.intel.com/i915"] = quantity("1")
		}, "gpu", "class nvidia", Warn, "no supplemental group", "getent group render"},
		"no runtime class": {func(x *install) { x.gpu.Spec.Template.Spec.RuntimeClassName = new("nvidia") }, "runtime-class", "class nvidia", Fail, "no RuntimeClass nvidia", "k3s"},
		"k3s": {func(x *install) {
			x.runtimeClasses = []*nodev1.RuntimeClass{{ObjectMeta: metav1.ObjectMeta{Name: "nvidia"}, Handler: "nvidia"}}
		}, "runtime-class", "class nvidia", Warn, "names no runtime class", "runtime-class-nvidia"},
		"not writable": {func(x *install) {
			x.exec = func(_ string, a []string) (Output, bool) {
				return Output{Code: 1, Stderr: "sh: 1: cannot create: Permission denied"}, len(a) > 2 && a[2] == writeScript
			}
		}, "rwx", "/cache/transcodes", Fail, "cannot be written", "chown -R"},
		"other library": {func(x *install) {
			x.exec = func(pod string, a []string) (Output, bool) {
				return Output{Stdout: pod}, a[0] == "sh" && strings.HasPrefix(a[2], "ls")
			}
		}, "rwx", "/media", Fail, "different files", "hostPath"},
		"wrong hardware": {func(x *install) {
			x.files["encoding.xml"] = strings.Replace(x.files["encoding.xml"], "nvenc", "qsv", 1)
		}, "jellyfin", "encoding.xml", Fail, "is qsv, and no class has", "hardwareAcceleration=none"},
		"hardware off": {func(x *install) {
			x.files["encoding.xml"] = strings.Replace(x.files["encoding.xml"], "nvenc", "none", 1)
		}, "jellyfin", "encoding.xml", Warn, "is off", "hardwareAcceleration=nvenc"},
		"not the shim": {func(x *install) {
			x.files["encoding.xml"] = strings.Replace(x.files["encoding.xml"], "/opt/ffpod/ffmpeg", "/usr/lib/jellyfin-ffmpeg/ffmpeg", 1)
		}, "jellyfin", "encoding.xml", Fail, "not the shim", "rollout restart"},
		"temp elsewhere": {func(x *install) {
			x.files["encoding.xml"] = "<EncodingOptions><HardwareAccelerationType>nvenc</HardwareAccelerationType><TranscodingTempPath>/dev/shm</TranscodingTempPath></EncodingOptions>"
		}, "jellyfin", "encoding.xml", Fail, "/dev/shm", "transcodingTempPath="},
		"no patience": {func(x *install) { x.cpu.Spec.Replicas, x.gpu.Spec.Replicas = new(int32(0)), new(int32(0)) }, "jellyfin", "system.xml", Warn, "ImageExtractionTimeoutMs is 0", "imageExtractionTimeoutMs=60000"},
		"asked too early": {func(x *install) {
			x.status.Sessions[0].State, x.status.Sessions[0].Exit = "refused", &api.Exit{Cause: "QUEUE_TIMEOUT: no worker"}
		}, "probes", "pod jellyfin-0", Warn, "not answered", "rollout restart"},
		"proxy unknown": {func(x *install) {
			x.ingresses = []*networkingv1.Ingress{ingressTo("jellyfin", "/", "nginx", map[string]string{"nginx.ingress.kubernetes.io/proxy-read-timeout": "3600", "nginx.ingress.kubernetes.io/proxy-send-timeout": "3600"})}
		}, "jellyfin", "network.xml", Warn, "KnownProxies is empty", "knownProxies="},
		"other base":        {func(x *install) { x.ingresses = []*networkingv1.Ingress{ingressTo("jellyfin", "/tv", "nginx", nil)} }, "jellyfin", "network.xml", Fail, `BaseUrl is "", and Ingress web sends /tv`, "baseUrl=/tv"},
		"proxy impatient":   {func(x *install) { x.ingresses = []*networkingv1.Ingress{ingressTo("jellyfin", "/", "nginx", nil)} }, "ingress", "Ingress web", Warn, "proxy-read-timeout is 1m0s", "proxy-read-timeout=\"3600\""},
		"traefik":           {func(x *install) { x.ingresses = []*networkingv1.Ingress{ingressTo("jellyfin", "/", "traefik", nil)} }, "ingress", "Traefik", Unknown, "can be seen", "respondingTimeouts"},
		"unknown proxy":     {func(x *install) { x.ingresses = []*networkingv1.Ingress{ingressTo("jellyfin", "/", "alb", nil)} }, "ingress", "Ingress web", Unknown, "cannot be seen", "controller's own"},
		"other build":       {func(x *install) { x.status.Workers[0].FFmpegBuild = "b2" }, "images", "worker ffpod-cpu-0", Warn, "another build (b2) than Jellyfin's (b1)", "one image"},
		"build not told":    {func(x *install) { x.status.Sessions[0].CallerBuild = "" }, "images", "pod jellyfin-0", Unknown, "is not known", "ffpod test"},
		"no worker's build": {func(x *install) { x.status.Workers[0].FFmpegBuild = "" }, "images", "pod jellyfin-0", Unknown, "no worker has told", "one warm worker"},
		"password in sight": {postgres(corev1.EnvVar{Name: "POSTGRES_PASSWORD", Value: "hunter2"}), "database", "pod jellyfin-0", Fail, "stands in the Deployment", "Secret"},
		"no secret":         {postgres(), "database", "Secret jellyfin-database", Fail, "does not exist", "host, port, database, username, password"},
		"no password": {func(x *install) {
			postgres()(x)
			x.secrets = []*corev1.Secret{{ObjectMeta: meta("jellyfin-database", nil), Data: map[string][]byte{"host": []byte("h"), "port": []byte("1"), "database": []byte("d"), "username": []byte("u")}}}
		}, "database", "Secret jellyfin-database", Fail, "password", "add them"},
		"fell back": {func(x *install) {
			postgres()(x)
			x.files["database.xml"] = "<DatabaseConfigurationOptions><DatabaseType>Jellyfin-SQLite</DatabaseType></DatabaseConfigurationOptions>"
		}, "database", "database.xml", Fail, "uses Jellyfin-SQLite", "stop Jellyfin"},
		"database away": {func(x *install) {
			postgres()(x)
			x.exec = func(_ string, a []string) (Output, bool) {
				return Output{Code: 1, Stderr: "Connection refused"}, a[0] == "bash"
			}
		}, "database", "pod jellyfin-0", Fail, "does not accept a connection", "NetworkPolicies"},
		"nodes forbidden": {func(x *install) { x.forbidden = []string{"nodes"} }, "read", "cluster", Unknown, "Nodes cannot be read", "may list them"},
		"image missing":   {waiting("ImagePullBackOff", "not found"), "pods", "pod ffpod-cpu-0, container worker", Fail, "ImagePullBackOff", "images:"},
		"died of 139": {func(x *install) {
			p := running(x.jellyfin, "n1")
			p.Status.ContainerStatuses[0].RestartCount = 3
			p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 139}
			x.pods = map[string]*corev1.Pod{"jellyfin": p}
		}, "pods", "pod jellyfin-0, container jellyfin", Warn, "exit 139", "--previous"},
		"unschedulable": {func(x *install) {
			p := running(x.gpu, "")
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."}}}
			x.pods = map[string]*corev1.Pod{"ffpod-nvidia": p}
		}, "pods", "pod ffpod-nvidia-0", Fail, "no node takes it", "device plugins"},
	} {
		t.Run(name, func(t *testing.T) {
			x := healthy()
			c.ill(x)
			only := []string{c.check}
			if c.check == "read" {
				only = []string{"api-server"}
			}
			r := examine(t, x.patient(t), only...)
			for _, f := range r.Findings {
				if f.Check == c.check && f.Level == c.level && strings.Contains(f.On, c.on) && strings.Contains(f.What, c.what) && strings.Contains(f.Remedy, c.remedy) {
					if f.Remedy == "" && f.Level != Unknown && c.remedy != "" {
						t.Errorf("no remedy: %+v", f)
					}
					return
				}
			}
			t.Errorf("not found in %+v", r.Findings)
		})
	}
}

func waiting(reason, message string) func(*install) {
	return func(x *install) {
		p := running(x.cpu, "n1")
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
		x.pods = map[string]*corev1.Pod{"ffpod-cpu": p}
	}
}

func postgres(more ...corev1.EnvVar) func(*install) {
	return func(x *install) {
		c := &x.jellyfin.Spec.Template.Spec.Containers[0]
		c.Env = append(c.Env, corev1.EnvVar{Name: "POSTGRES_HOST", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "jellyfin-database"}, Key: "host"}}})
		c.Env = append(c.Env, more...)
		x.files["database.xml"] = "<DatabaseConfigurationOptions><DatabaseType>PLUGIN_PROVIDER</DatabaseType></DatabaseConfigurationOptions>"
	}
}

func ingressTo(service, at, class string, annotations map[string]string) *networkingv1.Ingress {
	i := &networkingv1.Ingress{ObjectMeta: meta("web", nil), Spec: networkingv1.IngressSpec{IngressClassName: &class, Rules: []networkingv1.IngressRule{{IngressRuleValue: networkingv1.IngressRuleValue{
		HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: at, Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service}}}}}}}}}}
	i.Annotations = annotations
	return i
}

// TestBefore has an empty namespace, as two users know it.
func TestBefore(t *testing.T) {
	x := healthy()
	x.scheduler, x.jellyfin, x.cpu, x.gpu, x.claims = nil, nil, nil, nil, nil
	p := x.patient(t)
	p.Before = true
	words := map[string]string{}
	for _, f := range examine(t, p).Findings {
		words[f.Check+" "+string(f.Level)] += f.What + "; "
	}
	for key, want := range map[string]string{"rights ok": "every right", "policies warn": "ffpod-exec", "storage warn": "ReadWriteMany", "storage ok": "it is the default", "rwx unknown": "not tried", "gpu ok": "1 × nvidia.com/gpu"} {
		if !strings.Contains(words[key], want) {
			t.Errorf("%s: %q in %v", key, want, words)
		}
	}
	x.rules = []authzv1.ResourceRule{{Verbs: []string{"*"}, APIGroups: []string{"", "apps", "networking.k8s.io"}, Resources: []string{"*"}}}
	p = x.patient(t)
	p.Before = true
	r := examine(t, p, "rights")
	if r.Count(Fail) != 1 || !strings.Contains(r.Findings[0].What, "create roles.rbac") || !strings.Contains(r.Findings[0].What, "create jobs.batch") || !strings.Contains(r.Findings[0].Remedy, "--clusterrole=admin") {
		t.Errorf("%+v", r.Findings)
	}
}

// TestTrialRemovesWhatItMade also when no pod ever runs.
func TestTrialRemovesWhatItMade(t *testing.T) {
	x := healthy()
	p := x.patient(t)
	p.Before, p.Trial = true, Trial{StorageClass: "nfs", Image: "i", User: 1000, Group: 1000}
	p.facts = gather(t.Context(), p)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	found := rwx(ctx, p)
	if len(found) != 1 || found[0].Level != Fail || !strings.Contains(found[0].What, "does not start") {
		t.Errorf("%+v", found)
	}
	if trial, _ := p.Client.CoreV1().Pods("media").List(t.Context(), metav1.ListOptions{LabelSelector: "ffpod.dev/trial"}); len(trial.Items) != 0 {
		t.Errorf("pods are left: %v", trial.Items)
	}
	if trial, _ := p.Client.CoreV1().PersistentVolumeClaims("media").List(t.Context(), metav1.ListOptions{LabelSelector: "ffpod.dev/trial"}); len(trial.Items) != 0 {
		t.Errorf("claims are left: %v", trial.Items)
	}
}

// TestProof asks each class for the encoder of its hardware.
func TestProof(t *testing.T) {
	p := healthy().patient(t)
	p.Prove = func(_ context.Context, class, encoder string) (string, error) {
		if class == "cpu" {
			return "by " + encoder, nil
		}
		return "", fmt.Errorf("exit 1: no %s", encoder)
	}
	r := examine(t, p, "encoders")
	if len(r.Findings) != 2 || r.Findings[0].Level != OK || !strings.Contains(r.Findings[0].What, "by libx264") ||
		r.Findings[1].Level != Fail || !strings.Contains(r.Findings[1].Why, "no h264_nvenc") || !strings.Contains(r.Findings[1].Remedy, "nvidia-smi") {
		t.Errorf("%+v", r.Findings)
	}
}

// TestTold takes the workers' own trials for an answer: what failed, in ffmpeg's
// words, and what to do about that.
func TestTold(t *testing.T) {
	reads := "<EncodingOptions><HardwareAccelerationType>nvenc</HardwareAccelerationType><EnableTonemapping>true</EnableTonemapping></EncodingOptions>"
	both := &api.Hardware{Encoders: []string{"h264_nvenc"}, ToneMapping: []string{"tonemap_cuda"}}
	flaw := func(reason string) api.Worker {
		return api.Worker{Flaws: []api.Flaw{{Capability: "encoder:h264_nvenc", Reason: reason, Own: true}, {Capability: "filter:tonemap_cuda", Reason: reason, Own: true}}}
	}
	for name, c := range map[string]struct {
		worker api.Worker
		level  Level
		words  string
	}{
		"works":         {api.Worker{Hardware: both}, OK, "proved by gpu-0"},
		"no node":       {flaw("no /dev/nvidia[0-9]*, /dev/dxg in this pod"), Fail, "ask for the GPU's resource"},
		"permission":    {flaw("/dev/dri/renderD128 cannot be opened: permission denied; it belongs to group 993, which must be in supplementalGroups"), Fail, "identity.supplementalGroups"},
		"no driver":     {flaw("Cannot load libcuda.so.1; Device creation failed: -1."), Fail, "runtime-class-nvidia"},
		"stalled":       {flaw("stalled: it was killed when its time was over"), Fail, "dmesg"},
		"session limit": {flaw("OpenEncodeSessionEx failed: out of memory (10): (no details)"), Fail, "no session left"},
		"unheard of":    {flaw("something new"), Fail, "nvidia-smi"},
		"not listed":    {api.Worker{}, Fail, "jellyfin-ffmpeg"},
	} {
		t.Run(name, func(t *testing.T) {
			x := healthy()
			x.files["encoding.xml"] = reads
			w := c.worker
			w.Pod, w.Class, w.Role, w.Ready, w.Proves, w.Slots = "gpu-0", "nvidia", "warm", true, true, 2
			x.status.Workers = append(x.status.Workers, w)
			for _, check := range []string{"encoders", "tone-mapping"} {
				got := examine(t, x.patient(t), check).Findings // nothing may be tried
				if len(got) != 1 || got[0].On != "class nvidia" || got[0].Level != c.level || !strings.Contains(got[0].What+got[0].Remedy, c.words) {
					t.Errorf("%s: %+v", check, got)
				}
				if len(w.Flaws) > 0 && len(got) == 1 && got[0].Why != w.Flaws[0].Reason {
					t.Errorf("%s does not say what ffmpeg said: %q", check, got[0].Why)
				}
			}
		})
	}
}

// What a worker does not tell is tried, and a broken one is not tried again.
func TestToldOrTried(t *testing.T) {
	for name, c := range map[string]struct {
		worker api.Worker
		tried  bool
	}{
		"older":   {api.Worker{Ready: true}, true},
		"proving": {api.Worker{Ready: true, Proves: true, Proving: true}, true},
		"silent":  {api.Worker{Proves: true}, true},
		"works":   {api.Worker{Ready: true, Proves: true, Hardware: &api.Hardware{Encoders: []string{"h264_nvenc"}}}, true},
		"broken":  {api.Worker{Ready: true, Proves: true}, false},
	} {
		x := healthy()
		c.worker.Pod, c.worker.Class = "gpu-0", "nvidia"
		x.status.Workers = append(x.status.Workers, c.worker)
		p, tried := x.patient(t), false
		p.Prove = func(_ context.Context, class, _ string) (string, error) {
			tried = tried || class == "nvidia"
			return "done", nil
		}
		examine(t, p, "encoders")
		if tried != c.tried {
			t.Errorf("%s: tried %v", name, tried)
		}
	}
}

// A driver that encodes fewer streams than its worker has slots is told; QSV that
// fails where VAAPI works is not the end.
func TestToldLimits(t *testing.T) {
	x := healthy()
	x.gpu = classOf("intel", "gpu.intel.com/i915")
	x.status.Workers = []api.Worker{{Pod: "gpu-0", Class: "intel", Ready: true, Proves: true, Slots: 4, ParallelEncodes: 2, Hardware: &api.Hardware{Encoders: []string{"h264_vaapi"}},
		Flaws: []api.Flaw{{Capability: "encoder:h264_qsv", Reason: "Error creating a MFX session: -9."}}}}
	got := examine(t, x.patient(t), "encoders").Findings
	if len(got) != 2 || got[0].Level != Warn || !strings.Contains(got[0].Remedy, "vaapi") || got[1].Level != Warn || !strings.Contains(got[1].What, "2 streams at once") {
		t.Errorf("%+v", got)
	}
}

func TestRelease(t *testing.T) {
	for image, want := range map[string]string{
		"jellyfin/jellyfin:10.11.11": "10.11.11", "registry:5000/x/jellyfin.pgsql:10.11.11-1": "10.11.11", "jellyfin/jellyfin:10.11.11@sha256:0": "10.11.11",
		"jellyfin/jellyfin": "", "ffpod/worker:10.11.11": "", "registry:5000/jellyfin": "",
	} {
		if got := release(image); got != want {
			t.Errorf("%s: %q", image, got)
		}
	}
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		s    sight
		err  error
		want Level
		what string
	}{
		"fast":     {sight{delay: 40 * time.Millisecond, writer: "1000:1000", owner: "1000:1000"}, nil, OK, "40ms"},
		"slow":     {sight{delay: 3 * time.Second}, nil, Warn, "3s"},
		"too slow": {sight{delay: 12 * time.Second}, nil, Fail, "12s"},
		"never":    {sight{never: true}, nil, Fail, "30 s"},
		"squashed": {sight{writer: "1000:1000", owner: "65534:65534"}, nil, Fail, "65534:65534"},
		"refused":  {sight{refused: "Read-only file system"}, nil, Fail, "cannot be written"},
		"broken":   {sight{}, errors.New("no exec"), Unknown, "could not be tried"},
	} {
		if f := judge("x", c.s, c.err); f.Level != c.want || !strings.Contains(f.What, c.what) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestSchedulerRights keeps the doctor's list and the Role equal.
func TestSchedulerRights(t *testing.T) {
	b, err := os.ReadFile("../../../kustomize/base/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, doc := range strings.Split(string(b), "\n---\n") {
		var role rbacv1.Role
		if err := yaml.Unmarshal([]byte(doc), &role); err != nil || role.Kind != "Role" || role.Name != "ffpod-scheduler" {
			continue
		}
		for _, rule := range role.Rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						want = append(want, right{group, resource, verb, strings.Join(rule.ResourceNames, ",")}.String())
					}
				}
			}
		}
	}
	for _, r := range schedulerRights() {
		got = append(got, r.String())
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) == 0 || !slices.Equal(want, got) {
		t.Errorf("the Role has %v\nthe doctor %v", want, got)
	}
}

// TestReport has no line break in a line, and both forms hold every finding.
func TestReport(t *testing.T) {
	r := Report{Namespace: "media", Time: now}
	r.add("c", []Finding{{Level: Fail, On: "x", What: "two\nlines", Why: "because", Remedy: "do <this>"}, ok("y", "fine")})
	var text, j bytes.Buffer
	if err := errors.Join(r.Text(&text, false), r.JSON(&j)); err != nil {
		t.Fatal(err)
	}
	if want := "FAIL c: x: two lines: because\n       → do <this>\n1 failed, 0 to look at, 0 could not be checked, 1 ok\n"; text.String() != want {
		t.Errorf("%q", &text)
	}
	var back Report
	if err := json.Unmarshal(j.Bytes(), &back); err != nil || len(back.Findings) != 2 || back.Findings[0].Remedy != "do <this>" {
		t.Errorf("%v %s", err, &j)
	}
	if _, err := Examine(t.Context(), healthy().patient(t), []string{"nope"}, nil); err == nil || !strings.Contains(err.Error(), "api-server") {
		t.Error(err)
	}
}
