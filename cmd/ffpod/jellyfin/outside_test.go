package jellyfin

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
)

func stopped(replicas int32) *appsv1.Deployment {
	marks := map[string]string{"app.kubernetes.io/name": "jellyfin"}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "media", Name: "jellyfin"}, Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: marks},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(1000))},
			InitContainers: []corev1.Container{{Name: "prepare", Image: "ffpod/shim:dev", Command: []string{"/ffpod/ffpod", "jellyfin", "prepare"}, VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/config"}, {Name: "shared", MountPath: "/shared"}}}},
			Volumes:        []corev1.Volume{{Name: "shared"}, {Name: "config", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "jellyfin-config"}}}}}}}}
}

// TestOutside follows the replicas and the Job through every way that it can end.
func TestOutside(t *testing.T) {
	for name, c := range map[string]struct {
		yes          bool
		before       string // the annotation of an apply that was killed
		preview, job error
		fails, hangs bool // the Job; Jellyfin's pod
		refused      bool // the first try to start it again
		cancel       bool
		healed       bool   // somebody else starts it while the Job runs
		want         string // in the error
		stops        bool
	}{
		"shown only":  {},
		"applied":     {yes: true, stops: true},
		"no preview":  {yes: true, preview: errors.New("forbidden"), want: "forbidden"},
		"refused Job": {yes: true, job: errors.New("quota"), want: "nothing was done: the Job would be refused: quota"},
		"failed Job":  {yes: true, fails: true, stops: true, want: "failed"},
		"never gone":  {yes: true, hangs: true, stops: true, want: "Jellyfin's pod is not gone"},
		"interrupted": {yes: true, cancel: true, hangs: true, stops: true, want: "canceled"},
		"API is away": {yes: true, refused: true, stops: true},
		"healed":      {yes: true, healed: true, stops: true, want: "Suspend self-heal"},
		"killed once": {yes: true, before: "1", want: "--replicas=1"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			d := stopped(1)
			if c.before != "" {
				d.Annotations = map[string]string{replicasKept: c.before}
			}
			objects := []runtime.Object{d}
			if c.hangs {
				objects = append(objects, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "media", Name: "jellyfin-0", Labels: d.Spec.Selector.MatchLabels}})
			}
			client := fake.NewClientset(objects...)
			var seen []int32
			var ran *batchv1.Job
			refused := c.refused
			client.PrependReactor("update", "deployments", func(a kubetesting.Action) (bool, runtime.Object, error) {
				replicas := *a.(kubetesting.UpdateAction).GetObject().(*appsv1.Deployment).Spec.Replicas
				if replicas > 0 && refused {
					refused = false
					return true, nil, errors.New("connection refused")
				}
				seen = append(seen, replicas)
				if c.cancel && replicas == 0 {
					cancel()
				}
				return false, nil, nil
			})
			client.PrependReactor("create", "jobs", func(a kubetesting.Action) (bool, runtime.Object, error) {
				if a.(kubetesting.CreateActionImpl).CreateOptions.DryRun != nil {
					return true, &batchv1.Job{}, c.job
				}
				if !slices.Equal(seen, []int32{0}) {
					t.Errorf("the Job came at replicas %v", seen)
				}
				ran = a.(kubetesting.CreateAction).GetObject().(*batchv1.Job)
				ran.Name = "jellyfin-apply-x"
				ran.Status.Succeeded = 1
				if c.healed {
					if err := client.Tracker().Update(appsv1.SchemeGroupVersion.WithResource("deployments"), stopped(1), "media"); err != nil {
						t.Error(err)
					}
				}
				if c.fails {
					ran.Status.Succeeded, ran.Status.Failed = 0, 1
				}
				return false, nil, nil
			})
			var out bytes.Buffer
			o := Outside{Client: client, Namespace: "media", Deployment: "jellyfin", Settings: []string{"baseUrl=/tv"}, Yes: c.yes, Report: &out, Poll: time.Millisecond, Wait: 200 * time.Millisecond,
				Preview: func(context.Context) error { out.WriteString("network.xml: BaseUrl\n"); return c.preview }}
			err := o.Run(ctx)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, not %q", err, c.want)
			}
			if want := map[bool][]int32{true: {0, 1}}[c.stops]; !slices.Equal(seen, want) {
				t.Errorf("replicas %v, not %v", seen, want)
			}
			after, err := client.AppsV1().Deployments("media").Get(t.Context(), "jellyfin", metav1.GetOptions{})
			if err != nil || *after.Spec.Replicas != 1 || c.before == "" && after.Annotations[replicasKept] != "" {
				t.Errorf("left as %v %v %v", after.Spec.Replicas, after.Annotations, err)
			}
			if left, err := client.BatchV1().Jobs("media").List(t.Context(), metav1.ListOptions{}); err != nil || len(left.Items) != 0 {
				t.Errorf("left %d Jobs, %v", len(left.Items), err)
			}
			if ran == nil {
				return
			}
			pod := ran.Spec.Template.Spec
			if len(pod.Volumes) != 1 || pod.Volumes[0].PersistentVolumeClaim.ClaimName != "jellyfin-config" || *pod.SecurityContext.RunAsUser != 1000 || *pod.AutomountServiceAccountToken ||
				strings.Join(pod.Containers[0].Command, " ") != "/ffpod/ffpod jellyfin apply --config=/config -- baseUrl=/tv" || ran.Spec.Template.Labels["app.kubernetes.io/name"] == "jellyfin" {
				t.Errorf("%+v", ran.Spec.Template)
			}
		})
	}
}
