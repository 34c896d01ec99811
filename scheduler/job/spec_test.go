package job

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ffpod/ffpod/scheduler/class"
)

func cpu() class.Class {
	return class.Class{
		Name: "cpu", Namespace: "media", Deployment: "ffpod-cpu", UID: "u1",
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{
				Labels:      map[string]string{"app.kubernetes.io/name": "ffpod", "team": "av", "ffpod.dev/class": "cpu", "ffpod.dev/role": "warm"},
				Annotations: map[string]string{"ffpod.dev/slots": "4"},
			},
			Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: new(int64(3600)), ServiceAccountName: "ffpod-worker",
				Containers: []corev1.Container{{Name: "sidecar"}, {Name: "worker", Env: []corev1.EnvVar{{Name: "FFPOD_ONCE", Value: "0"}, {Name: "HOME", Value: "/tmp"}}}},
			},
		},
	}
}

func TestSpec(t *testing.T) {
	c := cpu()
	c.QueueName = "gpus"
	got := Spec(c, "s1", 10*time.Minute, 2*time.Minute)
	labels := map[string]string{"app.kubernetes.io/name": "ffpod", "team": "av", "ffpod.dev/class": "cpu", "ffpod.dev/role": "job", "ffpod.dev/session": "s1"}
	want := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: Name(c, "s1"), Namespace: "media",
			Labels: map[string]string{"app.kubernetes.io/name": "ffpod", "team": "av", "ffpod.dev/class": "cpu", "ffpod.dev/role": "job", "ffpod.dev/session": "s1",
				"app.kubernetes.io/managed-by": "ffpod-scheduler", "kueue.x-k8s.io/queue-name": "gpus"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "ffpod-cpu", UID: "u1"}},
		},
		Spec: batchv1.JobSpec{
			Completions: new(int32(1)), Parallelism: new(int32(1)), BackoffLimit: new(int32(0)), PodReplacementPolicy: new(batchv1.Failed),
			ActiveDeadlineSeconds: new(int64(600)), TTLSecondsAfterFinished: new(int32(120)),
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionFailJob,
				OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}}}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{"ffpod.dev/slots": "4"}},
				Spec: corev1.PodSpec{
					RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: new(int64(30)), ServiceAccountName: "ffpod-worker",
					AutomountServiceAccountToken: new(false), EnableServiceLinks: new(false),
					Containers: []corev1.Container{{Name: "sidecar"}, {Name: "worker", Env: []corev1.EnvVar{{Name: "HOME", Value: "/tmp"}, {Name: "FFPOD_ONCE", Value: "1"}}}},
				},
			},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Job (-want +got):\n%s", d)
	}
	unchanged := cpu()
	unchanged.QueueName = "gpus"
	if d := cmp.Diff(unchanged, c); d != "" {
		t.Errorf("the class was changed (-want +got):\n%s", d)
	}
}

func TestSpecKeepsWhatIsTheUsers(t *testing.T) {
	c := cpu()
	c.Template.Labels["app.kubernetes.io/managed-by"] = "argocd"
	c.Template.Spec.TerminationGracePeriodSeconds = new(int64(5))
	got := Spec(c, "s1", time.Minute, time.Minute)
	if by := got.Labels["app.kubernetes.io/managed-by"]; by != "argocd" {
		t.Errorf("managed-by = %q, want the template's", by)
	}
	if g := *got.Spec.Template.Spec.TerminationGracePeriodSeconds; g != 5 {
		t.Errorf("grace = %d s, want the template's", g)
	}
	if _, ok := got.Labels["kueue.x-k8s.io/queue-name"]; ok {
		t.Error("a Job without a queue carries Kueue's label")
	}
}

func TestNamesAndSessionsFitTheirLabels(t *testing.T) {
	long := cpu()
	long.Deployment = strings.Repeat("prefix-", 30) + "cpu"
	dotted := cpu()
	dotted.Deployment = strings.Repeat("a", 49) + ".b"
	seen := map[string]string{}
	for name, c := range map[string]class.Class{"short": cpu(), "long": long, "dotted": dotted} {
		for _, session := range []string{"s1", "s2", "01JB2Q6V6JX6", "", "with space", "ümlaut", strings.Repeat("x", 64), strings.Repeat("x", 4096), "../../etc"} {
			job, label := Name(c, session), Session(session)
			if e := append(validation.IsDNS1123Subdomain(job), validation.IsValidLabelValue(job)...); len(e) > 0 {
				t.Errorf("%s, session %.20q: name %q: %v", name, session, job, e)
			}
			if e := validation.IsValidLabelValue(label); len(e) > 0 || label == "" {
				t.Errorf("session %.20q: label %q: %v", session, label, e)
			}
			if job != Name(c, session) {
				t.Errorf("%s: the name is not the same twice", name)
			}
			if other, ok := seen[job]; ok {
				t.Errorf("%s and %s/%.20q share the name %s", other, name, session, job)
			}
			seen[job] = name + "/" + session
		}
	}
	if got := Session("01JB2Q6V6JX6"); got != "01JB2Q6V6JX6" {
		t.Errorf("Session of a usual id = %q, want it unchanged", got)
	}
}

func TestPodReason(t *testing.T) {
	waiting := func(reason, message string) []corev1.ContainerStatus {
		return []corev1.ContainerStatus{{Name: "worker", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}
	}
	node := corev1.PodSpec{NodeName: "n1"}
	tests := map[string]struct {
		pod  corev1.Pod
		want string
	}{
		"new": {corev1.Pod{}, "pod created"},
		"unschedulable": {corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available."}}}},
			"waiting: Unschedulable: 0/1 nodes are available."},
		"gated": {corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "SchedulingGated"}}}},
			"waiting: SchedulingGated"},
		"scheduled":         {corev1.Pod{Spec: node}, "scheduled on n1"},
		"being created":     {corev1.Pod{Spec: node, Status: corev1.PodStatus{ContainerStatuses: waiting("ContainerCreating", "")}}, "scheduled on n1"},
		"image":             {corev1.Pod{Spec: node, Status: corev1.PodStatus{ContainerStatuses: waiting("ImagePullBackOff", "Back-off\npulling")}}, "waiting: ImagePullBackOff: Back-off pulling"},
		"an init container": {corev1.Pod{Spec: node, Status: corev1.PodStatus{InitContainerStatuses: waiting("ErrImagePull", ""), ContainerStatuses: waiting("PodInitializing", "")}}, "waiting: ErrImagePull"},
		"running": {corev1.Pod{Spec: node, Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "worker", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}},
			"running on n1, waiting for the worker's answer"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := podReason(&tt.pod); got != tt.want {
				t.Errorf("podReason = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEventReason(t *testing.T) {
	second := func(n int64) metav1.Time { return metav1.Time{Time: time.Unix(n, 0)} }
	scheduled := corev1.Event{Type: "Normal", Reason: "Scheduled", EventTime: metav1.NewMicroTime(time.Unix(1, 0))}
	pulling := corev1.Event{Type: "Normal", Reason: "Pulling", Message: `Pulling image "worker:1"`, LastTimestamp: second(2)}
	failed := corev1.Event{Type: "Warning", Reason: "FailedMount", Message: "MountVolume failed", FirstTimestamp: second(1), LastTimestamp: second(3)}
	created := corev1.Event{Type: "Normal", Reason: "Created", LastTimestamp: second(4)}
	tests := map[string]struct {
		events []corev1.Event
		want   string
	}{
		"none":                  {nil, ""},
		"nothing to tell":       {[]corev1.Event{scheduled}, ""},
		"pulling":               {[]corev1.Event{pulling, scheduled}, `pulling image: "worker:1"`},
		"the newest counts":     {[]corev1.Event{failed, pulling, scheduled}, "waiting: FailedMount: MountVolume failed"},
		"trouble that has gone": {[]corev1.Event{failed, created, pulling}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := eventReason(tt.events); got != tt.want {
				t.Errorf("eventReason = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestJobReason(t *testing.T) {
	tests := map[string]struct {
		job      batchv1.Job
		want     string
		wantOver bool
	}{
		"active":    {batchv1.Job{}, "", false},
		"suspended": {batchv1.Job{Spec: batchv1.JobSpec{Suspend: new(true)}}, "waiting: the Job is suspended", false},
		"queued by Kueue": {batchv1.Job{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"kueue.x-k8s.io/queue-name": "gpus"}}, Spec: batchv1.JobSpec{Suspend: new(true)}},
			"waiting: for quota: the Job is suspended, in queue gpus", false},
		"failed": {batchv1.Job{Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, Reason: "DeadlineExceeded"}}}},
			"the Job failed: DeadlineExceeded", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got, over := jobReason(&tt.job); got != tt.want || over != tt.wantOver {
				t.Errorf("jobReason = %q, %v, want %q, %v", got, over, tt.want, tt.wantOver)
			}
		})
	}
}
