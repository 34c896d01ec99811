package server

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

// Policies proves that the admission policies of kustomize/cluster bind this
// scheduler, by attempts that must be refused and that do nothing if they are
// not. It decides nothing: an install without them works, and is told so.
type Policies struct {
	Client kubernetes.Interface
	Self   Self
	Log    *zap.Logger
	// InForce is 1 or 0 by policy.
	InForce *prometheus.GaugeVec
	// First is how often to try until they are in force, which takes seconds
	// after they were applied, and Patience how long before saying loudly that
	// they are not. Again is how often after that. Default to 3 s, 30 s, 10 m.
	First, Patience, Again time.Duration

	mu   sync.Mutex
	last []string
}

// Last is what Check found last: nil, it has not run; empty, they are in force.
func (p *Policies) Last() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// NewPolicyMetric makes the gauge of Policies.InForce.
func NewPolicyMetric() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ffpod_policy_in_force",
		Help: "1 when an attempt that the admission policy must refuse was refused, else 0."}, []string{"policy"})
}

// Run tries until ctx is done.
func (p *Policies) Run(ctx context.Context) error {
	first, patience, again := orDefault(p.First, 3*time.Second), orDefault(p.Patience, 30*time.Second), orDefault(p.Again, 10*time.Minute)
	begun := time.Now()
	said := ""
	for {
		problems := p.Check(ctx)
		state := strings.Join(problems, "; ")
		pause := again
		switch {
		case ctx.Err() != nil:
			return nil
		case len(problems) == 0:
			if said != "ok" {
				p.Log.Info("admission policies are in force")
			}
			said = "ok"
		case time.Since(begun) < patience:
			pause = first
		case said != state:
			said = state
			p.Log.Warn("ADMISSION POLICIES ARE NOT IN FORCE: nothing keeps a stolen scheduler token from running any command in the pods of this namespace; "+
				"apply kustomize/cluster", zap.Strings("problems", problems))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// Check makes the attempts once, and says which were not refused by a policy.
func (p *Policies) Check(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	problems := []string{}
	for _, attempt := range []struct {
		policy string
		try    func(context.Context) error
	}{{"exec", p.exec}, {"jobs", p.job}} {
		problem := verdict(attempt.try(ctx))
		value := 0.0
		if problem == "" {
			value = 1
		} else {
			problems = append(problems, attempt.policy+": "+problem)
		}
		if p.InForce != nil {
			p.InForce.WithLabelValues(attempt.policy).Set(value)
		}
	}
	p.mu.Lock()
	p.last = problems
	p.mu.Unlock()
	return problems
}

// verdict reads the answer to a forbidden attempt: only a refusal by a policy is
// what we want, and it names itself.
func verdict(err error) string {
	switch {
	case err == nil:
		return "the attempt was allowed"
	case strings.Contains(err.Error(), "ValidatingAdmissionPolicy"):
		return ""
	}
	return fmt.Sprintf("no policy refused the attempt: %v", err)
}

// exec asks for a command that no scheduler may run, in its own container. The
// request does not ask for the upgrade that a stream needs, so when it is
// admitted the API server answers Bad Request, and nothing has run.
//
// kube: pods/exec, create
func (p *Policies) exec(ctx context.Context) error {
	if p.Self.Pod == "" {
		return fmt.Errorf("not tried: this scheduler runs in no pod")
	}
	return p.Client.CoreV1().RESTClient().Post().Namespace(p.Self.Namespace).Resource("pods").Name(p.Self.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: p.Self.Container, Command: []string{"/ffpod/policy-self-test"}, Stdout: true}, scheme.ParameterCodec).
		Do(ctx).Error()
}

// job asks, dry, for a Job that reads a Secret with a token mounted. Pod Security
// has nothing against it, so that only the policy can refuse, and nobody is
// warned of a Job that never was.
//
// kube: jobs, create
func (p *Policies) job(ctx context.Context) error {
	_, err := p.Client.BatchV1().Jobs(p.Self.Namespace).Create(ctx, &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "ffpod-policy-self-test-"},
		Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy:                corev1.RestartPolicyNever,
			AutomountServiceAccountToken: new(true),
			SecurityContext:              &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{Name: "worker", Image: "none",
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
				VolumeMounts:    []corev1.VolumeMount{{Name: "secret", MountPath: "/secret"}}}},
			Volumes: []corev1.Volume{{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: p.Self.Secret}}}},
		}}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
