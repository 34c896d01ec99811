package job

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/scheduler/class"
)

const (
	// onceEnv tells the supervisor to serve one session and exit with its code.
	onceEnv = "FFPOD_ONCE"
	// standbyEnv tells it to wait for that session for as long as a scheduler asks,
	// idleEnv how long it waits unasked.
	standbyEnv = "FFPOD_STANDBY"
	idleEnv    = "FFPOD_IDLE"
	// queueLabel hands a Job to Kueue.
	queueLabel   = "kueue.x-k8s.io/queue-name"
	managedLabel = "app.kubernetes.io/managed-by"
	// mostGrace bounds the template's grace period: it may be hours there, so that
	// a warm worker can finish its sessions, but a Job that is deleted was given up.
	mostGrace = 30
)

// Spec makes the Job for a session from the template of its class. Nothing of
// the session but its id is in it: Jobs are readable by many.
func Spec(c class.Class, session string, deadline, ttl time.Duration) *batchv1.Job {
	template := *c.Template.DeepCopy()
	template.Labels = labels(c, session)
	once(&template.Spec)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: Name(c, session), Namespace: c.Namespace, Labels: jobLabels(c, session),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: c.Deployment, UID: c.UID}},
		},
		Spec: batchv1.JobSpec{
			Completions:             new(int32(1)),
			Parallelism:             new(int32(1)),
			BackoffLimit:            new(int32(0)),
			PodReplacementPolicy:    new(batchv1.Failed),
			ActiveDeadlineSeconds:   new(int64(deadline / time.Second)),
			TTLSecondsAfterFinished: new(int32(ttl / time.Second)),
			PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
				Action:          batchv1.PodFailurePolicyActionFailJob,
				OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
			}}},
			Template: template,
		},
	}
}

// once makes the pod of a warm worker that of a Job.
func once(pod *corev1.PodSpec) {
	pod.RestartPolicy = corev1.RestartPolicyNever
	pod.AutomountServiceAccountToken = new(false)
	pod.EnableServiceLinks = new(false)
	if g := pod.TerminationGracePeriodSeconds; g == nil || *g > mostGrace {
		pod.TerminationGracePeriodSeconds = new(int64(mostGrace))
	}
	for i := range pod.Containers {
		if c := &pod.Containers[i]; c.Name == podexec.Container {
			c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == onceEnv })
			c.Env = append(c.Env, corev1.EnvVar{Name: onceEnv, Value: "1"})
		}
	}
}

// labels keeps those of the template, so that NetworkPolicies and common labels
// select the pods of Jobs as they do warm ones.
func labels(c class.Class, session string) map[string]string {
	l := maps.Clone(c.Template.Labels)
	if l == nil {
		l = map[string]string{}
	}
	l[class.Label], l[class.RoleLabel], l[class.SessionLabel] = c.Name, class.RoleJob, Session(session)
	return l
}

func jobLabels(c class.Class, session string) map[string]string {
	l := labels(c, session)
	if l[managedLabel] == "" {
		l[managedLabel] = "ffpod-scheduler"
	}
	if c.QueueName != "" {
		l[queueLabel] = c.QueueName
	}
	return l
}

// Name is the name of the Job of a session: the same one at every try, so that
// creating it twice makes one Job. It fits a label, as Kubernetes puts it on the
// pod.
func Name(c class.Class, session string) string {
	base := c.Deployment
	if most := validation.LabelValueMaxLength - 1 - digits; len(base) > most {
		base = strings.TrimRight(base[:most], "-.")
	}
	return base + "-" + digest(c.Name+"\x00"+session)
}

// Session is the session's id as a label. An id that no label can hold is
// replaced by its digest.
func Session(id string) string {
	if id != "" && len(validation.IsValidLabelValue(id)) == 0 {
		return id
	}
	return "sha256-" + digest(id)
}

const digits = 12

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:digits]
}
