package jellyfin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
)

// Outside applies settings to an install from outside its pod, with the operator's
// own rights. Jellyfin saves what it has in memory over its files, so it is not there
// when they change: its Deployment is scaled to 0, a Job with its claim and identity
// applies them, and the Deployment gets its replicas again whatever happens.
type Outside struct {
	Client    kubernetes.Interface
	Namespace string
	// Deployment is Jellyfin's.
	Deployment string
	// Settings are SETTING=VALUE, checked.
	Settings []string
	// Preview prints what would change, read in the running pod.
	Preview func(context.Context) error
	// Yes stops Jellyfin; without it nothing is written.
	Yes    bool
	Report io.Writer
	// Poll is the time between two looks; Wait the most that Jellyfin's end, and
	// the Job, may take each.
	Poll, Wait time.Duration
}

// replicasKept is where the Deployment's replicas are written down while it has none.
const replicasKept = "ffpod.dev/replicas-before-apply"

// Run does it.
func (o Outside) Run(ctx context.Context) (err error) {
	d, err := o.Client.AppsV1().Deployments(o.Namespace).Get(ctx, o.Deployment, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read Deployment %s: %w", o.Deployment, err)
	}
	if d.Annotations[replicasKept] != "" {
		return fmt.Errorf("deploy/%s was stopped by an apply that did not end, or goes on: `kubectl -n %s scale deploy/%s --replicas=%s` and `kubectl -n %s annotate deploy/%s %s-`, then this again",
			o.Deployment, o.Namespace, o.Deployment, d.Annotations[replicasKept], o.Namespace, o.Deployment, replicasKept)
	}
	job, err := o.job(d)
	if err != nil {
		return err
	}
	replicas := int32(1)
	if d.Spec.Replicas != nil {
		replicas = *d.Spec.Replicas
	}
	if replicas > 0 {
		if err := o.Preview(ctx); err != nil {
			return err
		}
	}
	if !o.Yes {
		_, err := fmt.Fprintf(o.Report, "nothing was written; with --yes Jellyfin (deploy/%s) is stopped, this is applied, and it is started again: all playback ends\n", o.Deployment)
		return err
	}
	// A refused Job must not cost a stop.
	if _, err := o.Client.BatchV1().Jobs(o.Namespace).Create(ctx, job.DeepCopy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		return fmt.Errorf("nothing was done: the Job would be refused: %w", err)
	}
	fmt.Fprintf(o.Report, "stopping deploy/%s; should this be killed: kubectl -n %s scale deploy/%s --replicas=%d\n", o.Deployment, o.Namespace, o.Deployment, replicas)
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, o.restore(after, replicas))
	}()
	if err := o.scale(ctx, 0, fmt.Sprint(replicas)); err != nil {
		return err
	}
	if err := o.gone(ctx, d); err != nil {
		return err
	}
	if err := o.apply(ctx, job); err != nil {
		return err
	}
	return o.still(ctx)
}

// still says that somebody else, as a GitOps controller, has started Jellyfin
// meanwhile, which may have read the old settings.
func (o Outside) still(ctx context.Context) error {
	d, err := o.Client.AppsV1().Deployments(o.Namespace).Get(ctx, o.Deployment, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("see whether deploy/%s was left alone: %w", o.Deployment, err)
	}
	if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
		return nil
	}
	return fmt.Errorf("somebody else, perhaps a GitOps controller, gave deploy/%s its replicas while its settings were changed: it may keep the old ones, and write them over these. Suspend self-heal, then this again", o.Deployment)
}

// scale sets the replicas, and with them what they were before; "" removes it.
func (o Outside) scale(ctx context.Context, replicas int32, before string) error {
	for {
		d, err := o.Client.AppsV1().Deployments(o.Namespace).Get(ctx, o.Deployment, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("scale deploy/%s to %d: %w", o.Deployment, replicas, err)
		}
		d.Spec.Replicas = &replicas
		if before == "" {
			delete(d.Annotations, replicasKept)
		} else {
			metav1.SetMetaDataAnnotation(&d.ObjectMeta, replicasKept, before)
		}
		_, err = o.Client.AppsV1().Deployments(o.Namespace).Update(ctx, d, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("scale deploy/%s to %d: %w", o.Deployment, replicas, err)
		}
		return nil
	}
}

// restore tries until the replicas are as they were, or the time is over.
func (o Outside) restore(ctx context.Context, replicas int32) error {
	for {
		err := o.scale(ctx, replicas, "")
		if err == nil {
			_, err = fmt.Fprintf(o.Report, "deploy/%s has %d replicas again\n", o.Deployment, replicas)
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; Jellyfin is stopped: `kubectl -n %s scale deploy/%s --replicas=%d`", err, o.Namespace, o.Deployment, replicas)
		case <-time.After(o.Poll):
		}
	}
}

// until looks until it is done.
func (o Outside) until(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.Wait, fmt.Errorf("%s not within %s", what, o.Wait))
	defer cancel()
	for {
		ok, err := done(ctx)
		if ok {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(o.Poll):
		}
	}
}

// gone waits until no pod of the Deployment is left, also none that ends.
func (o Outside) gone(ctx context.Context, d *appsv1.Deployment) error {
	selector := labels.Set(d.Spec.Selector.MatchLabels).String()
	return o.until(ctx, "Jellyfin's pod is not gone:", func(ctx context.Context) (bool, error) {
		pods, err := o.Client.CoreV1().Pods(o.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return false, fmt.Errorf("wait for Jellyfin's end: %w", err)
		}
		return len(pods.Items) == 0, nil
	})
}

// apply runs the Job, prints what it said and removes it.
func (o Outside) apply(ctx context.Context, job *batchv1.Job) error {
	made, err := o.Client.BatchV1().Jobs(o.Namespace).Create(ctx, job, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make the Job: %w", err)
	}
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		_ = o.remove(after, made.Name) // its own time to live does it, too
	}()
	failed := false
	err = o.until(ctx, "Job "+made.Name+" has not ended:", func(ctx context.Context) (bool, error) {
		j, err := o.Client.BatchV1().Jobs(o.Namespace).Get(ctx, made.Name, metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("wait for Job %s: %w", made.Name, err)
		}
		failed = j.Status.Failed > 0
		return failed || j.Status.Succeeded > 0, nil
	})
	said := o.log(ctx, made.Name)
	if err != nil {
		return err
	}
	if failed {
		return fmt.Errorf("the Job %s failed: %s", made.Name, strings.ReplaceAll(strings.TrimSpace(said), "\n", "; "))
	}
	_, err = io.WriteString(o.Report, said)
	return err
}

// remove deletes the Job and waits until its pod, which has the claim, is gone.
func (o Outside) remove(ctx context.Context, job string) error {
	background := metav1.DeletePropagationBackground
	if err := o.Client.BatchV1().Jobs(o.Namespace).Delete(ctx, job, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		return err
	}
	return o.until(ctx, "the Job's pod is not gone:", func(ctx context.Context) (bool, error) {
		pods, err := o.Client.CoreV1().Pods(o.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + job})
		return err == nil && len(pods.Items) == 0, err
	})
}

// log is what the Job's pod wrote.
func (o Outside) log(ctx context.Context, job string) string {
	pods, err := o.Client.CoreV1().Pods(o.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=" + job})
	if err != nil || len(pods.Items) == 0 {
		return ""
	}
	from, err := o.Client.CoreV1().Pods(o.Namespace).GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{}).Stream(ctx)
	if err != nil {
		return fmt.Sprintf("its log cannot be read: %v\n", err)
	}
	defer from.Close()
	var b strings.Builder
	for lines := bufio.NewScanner(from); lines.Scan() && b.Len() < 1<<16; {
		b.WriteString(lines.Text() + "\n")
	}
	return b.String()
}

// job has what the Deployment's pod gives the init container prepare: image, claim,
// identity, nodes; and no token, no network label, no other volume.
func (o Outside) job(d *appsv1.Deployment) (*batchv1.Job, error) {
	pod := d.Spec.Template.Spec
	for _, init := range pod.InitContainers {
		if init.Name != "prepare" || len(init.Command) == 0 {
			continue
		}
		volume := corev1.Volume{}
		mount := corev1.VolumeMount{}
		for _, m := range init.VolumeMounts {
			if m.MountPath == "/config" {
				mount = m
			}
		}
		for _, v := range pod.Volumes {
			if v.Name == mount.Name {
				volume = v
			}
		}
		if mount.Name == "" || volume.PersistentVolumeClaim == nil {
			break
		}
		c := corev1.Container{Name: "apply", Image: init.Image, ImagePullPolicy: init.ImagePullPolicy, Resources: init.Resources, SecurityContext: init.SecurityContext,
			Command: append([]string{path.Clean(init.Command[0]), "jellyfin", "apply", "--config=/config", "--"}, o.Settings...), VolumeMounts: []corev1.VolumeMount{mount},
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError}
		marks := map[string]string{"app.kubernetes.io/name": "jellyfin-apply", "app.kubernetes.io/component": "settings", "app.kubernetes.io/part-of": "ffpod"}
		return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{GenerateName: o.Deployment + "-apply-", Namespace: o.Namespace, Labels: marks},
			Spec: batchv1.JobSpec{BackoffLimit: new(int32(0)), ActiveDeadlineSeconds: new(int64(o.Wait.Seconds()) + 1), TTLSecondsAfterFinished: new(int32(600)),
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: marks}, Spec: corev1.PodSpec{
					RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: new(false), EnableServiceLinks: new(false), SecurityContext: pod.SecurityContext,
					NodeSelector: pod.NodeSelector, Affinity: pod.Affinity, Tolerations: pod.Tolerations, ImagePullSecrets: pod.ImagePullSecrets,
					Containers: []corev1.Container{c}, Volumes: []corev1.Volume{volume}}}}}, nil
	}
	return nil, fmt.Errorf("deploy/%s has no init container prepare with a claim at /config, as kustomize/jellyfin has it; apply inside its pod instead: --while-running, and a restart", o.Deployment)
}
