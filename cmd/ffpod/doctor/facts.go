package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/config"
)

// facts are what several checks look at, read once.
type facts struct {
	problems []Finding // what could not be read

	deployments []appsv1.Deployment
	cronJobs    []batchv1.CronJob
	pods        []corev1.Pod
	claims      map[string]corev1.PersistentVolumeClaim
	services    []corev1.Service
	ingresses   []networkingv1.Ingress

	nodes          []corev1.Node // nil: they may not be read
	volumes        map[string]corev1.PersistentVolume
	storageClasses map[string]storagev1.StorageClass

	scheduler, jellyfin *appsv1.Deployment
	classes             []appsv1.Deployment
	callers             []cluster.Caller
	configuration       config.Configuration
	status              *api.Status
}

// gather reads what it may. What it may not is a finding.
func gather(ctx context.Context, p *Patient) *facts {
	f := &facts{claims: map[string]corev1.PersistentVolumeClaim{}, configuration: config.Default()}
	f.namespaced(ctx, p)
	f.clusterWide(ctx, p)
	for i := range f.deployments {
		d := &f.deployments[i]
		switch {
		case d.Labels[class.Label] != "":
			f.classes = append(f.classes, *d)
		case d.Labels["app.kubernetes.io/name"] == "ffpod" && d.Labels["app.kubernetes.io/component"] == "scheduler":
			f.scheduler = d
		case d.Labels["app.kubernetes.io/name"] == "jellyfin":
			f.jellyfin = d
		}
	}
	for i := range f.pods {
		pod := &f.pods[i]
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			continue
		}
		if caller, ok := cluster.CallerOf(pod); ok {
			f.callers = append(f.callers, caller)
		}
	}
	if !p.Before && f.scheduler != nil {
		f.ask(ctx, p)
	}
	return f
}

func (f *facts) namespaced(ctx context.Context, p *Patient) {
	read := func(what string, err error) bool {
		if err != nil {
			f.problems = append(f.problems, Finding{Level: Unknown, On: "namespace " + p.Namespace, What: what + " cannot be read, so not everything is checked", Why: err.Error(),
				Remedy: "run it as someone with the role view, or admin, in the namespace"})
		}
		return err == nil
	}
	core, all := p.Client.CoreV1(), metav1.ListOptions{}
	if l, err := p.Client.AppsV1().Deployments(p.Namespace).List(ctx, all); read("Deployments", err) {
		f.deployments = l.Items
	}
	if l, err := p.Client.BatchV1().CronJobs(p.Namespace).List(ctx, all); read("CronJobs", err) {
		f.cronJobs = l.Items
	}
	if l, err := core.Pods(p.Namespace).List(ctx, all); read("Pods", err) {
		f.pods = l.Items
	}
	if l, err := core.Services(p.Namespace).List(ctx, all); read("Services", err) {
		f.services = l.Items
	}
	if l, err := p.Client.NetworkingV1().Ingresses(p.Namespace).List(ctx, all); read("Ingresses", err) {
		f.ingresses = l.Items
	}
	if l, err := core.PersistentVolumeClaims(p.Namespace).List(ctx, all); read("PersistentVolumeClaims", err) {
		for _, c := range l.Items {
			f.claims[c.Name] = c
		}
	}
}

// clusterWide reads what a namespace's admin often may not.
func (f *facts) clusterWide(ctx context.Context, p *Patient) {
	all := metav1.ListOptions{}
	var hidden []string
	if l, err := p.Client.CoreV1().Nodes().List(ctx, all); err == nil {
		f.nodes = l.Items
	} else {
		hidden = append(hidden, "Nodes")
	}
	if l, err := p.Client.CoreV1().PersistentVolumes().List(ctx, all); err == nil {
		f.volumes = map[string]corev1.PersistentVolume{}
		for _, v := range l.Items {
			f.volumes[v.Name] = v
		}
	} else {
		hidden = append(hidden, "PersistentVolumes")
	}
	if l, err := p.Client.StorageV1().StorageClasses().List(ctx, all); err == nil {
		f.storageClasses = map[string]storagev1.StorageClass{}
		for _, s := range l.Items {
			f.storageClasses[s.Name] = s
		}
	} else {
		hidden = append(hidden, "StorageClasses")
	}
	if len(hidden) > 0 {
		f.problems = append(f.problems, Finding{Level: Unknown, On: "cluster", What: strings.Join(hidden, ", ") + " cannot be read, so not everything is checked",
			Remedy: "let somebody run it who may list them; `ffpod doctor` needs no right to change them"})
	}
}

// ask reads the scheduler's configuration and its word.
func (f *facts) ask(ctx context.Context, p *Patient) {
	for _, v := range f.scheduler.Spec.Template.Spec.Volumes {
		if v.Name != "config" || v.ConfigMap == nil {
			continue
		}
		cm, err := p.Client.CoreV1().ConfigMaps(p.Namespace).Get(ctx, v.ConfigMap.Name, metav1.GetOptions{})
		if err == nil {
			var c config.Configuration
			if c, err = config.Parse([]byte(cm.Data["scheduler.yaml"])); err == nil {
				f.configuration = c
			}
		}
		if err != nil {
			f.problems = append(f.problems, Finding{Level: Fail, On: "ConfigMap " + v.ConfigMap.Name, What: "the scheduler's configuration cannot be used", Why: err.Error(),
				Remedy: "correct scheduler.yaml in the overlay, apply it, and `kubectl rollout restart deploy/" + f.scheduler.Name + "`"})
		}
	}
	if p.Status == nil {
		return
	}
	s, err := p.Status(ctx)
	if err != nil {
		f.problems = append(f.problems, unknown("scheduler", "it cannot be asked", err))
		return
	}
	f.status = &s
}

// errNotThere says that a part of the install is missing.
var errNotThere = errors.New("it is not there")

// workerPods returns the running pods of a class that are warm workers.
func (f *facts) workerPods(name string) []corev1.Pod {
	var out []corev1.Pod
	for _, p := range f.pods {
		if p.Labels[class.Label] == name && p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
			out = append(out, p)
		}
	}
	return out
}

// jellyfinCaller is the running pod of Jellyfin.
func (f *facts) jellyfinCaller() (cluster.Caller, bool) {
	for _, c := range f.callers {
		if c.Pod.Labels["app.kubernetes.io/name"] == "jellyfin" {
			return c, true
		}
	}
	return cluster.Caller{}, false
}

// container returns one of a pod's by name.
func container(spec corev1.PodSpec, name string) (corev1.Container, bool) {
	for _, c := range spec.Containers {
		if c.Name == name {
			return c, true
		}
	}
	return corev1.Container{}, false
}

// env is the value of a variable that a container is given literally.
func env(c corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

func className(d appsv1.Deployment) string { return fmt.Sprintf("class %s", d.Labels[class.Label]) }
