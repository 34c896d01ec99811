package policy

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/ffpod/ffpod/test/manifests"
)

// install is ffpod in one namespace.
type install struct {
	name           string
	prefix, suffix string
	labels         bool
	warm           batchv1.JobTemplateSpec // what its scheduler would make of class cpu
	pod            string                  // a pod with a container worker
}

// installs are one as the demo has it, and one under a prefix, a suffix and
// common labels.
var installs = []*install{
	{name: "plain"},
	{name: "prefixed", prefix: "film-", suffix: "-x", labels: true},
}

// bare holds only what the manifests grant.
var bare = &install{name: "bare"}

func (i *install) namespace() string { return run + "-" + i.name }

// rename is what kustomize makes of a name.
func (i *install) rename(name string) string { return i.prefix + name + i.suffix }

func (i *install) scheduler() *rest.Config {
	return account(i.namespace(), i.rename("ffpod-scheduler"))
}

// stranger is a namespace without ffpod.
func stranger() string { return run + "-stranger" }

// alice is the admin of every namespace of this run and of no other.
const alice = "alice@example.invalid"

func (i *install) render() []*unstructured.Unstructured {
	GinkgoHelper()
	text := fmt.Sprintf(`
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: %s
namePrefix: %q
nameSuffix: %q
resources: [ROOT/kustomize/base, ROOT/kustomize/classes/nvidia]
components: [ROOT/kustomize/components/class-cpu, ROOT/kustomize/components/demo]
`, i.namespace(), i.prefix, i.suffix)
	if i.labels {
		text += "labels: [{pairs: {team: films}, includeSelectors: true, includeTemplates: true}]\n"
	}
	objects, err := manifests.RenderText(text)
	Expect(err).NotTo(HaveOccurred())
	return objects
}

// create makes the namespace and applies the install as its admin, who has no
// other right. The Deployments get no replicas: no image is needed here.
func (i *install) create(ctx context.Context) {
	GinkgoHelper()
	makeNamespace(ctx, i.namespace())
	grant(ctx, i.namespace(), "admin", rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: alice})
	for _, o := range i.render() {
		if o.GetKind() == "Deployment" {
			Expect(unstructured.SetNestedField(o.Object, int64(0), "spec", "replicas")).To(Succeed())
			if o.GetLabels()["ffpod.dev/class"] == "cpu" {
				i.warm = jobOf(o)
			}
		}
		Expect(apply(ctx, user(alice), o)).To(Succeed(), "%s %s, applied by the namespace's admin", o.GetKind(), o.GetName())
	}
	// With this RBAC refuses the account nothing: what is refused, a policy refused.
	grant(ctx, i.namespace(), "admin", rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: i.namespace(), Name: i.rename("ffpod-scheduler")})
	i.pod = makePod(ctx, i.namespace())
}

// jobOf is a Job from a class's pod template, as the scheduler makes it.
func jobOf(o *unstructured.Unstructured) batchv1.JobTemplateSpec {
	GinkgoHelper()
	var d appsv1.Deployment
	Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d)).To(Succeed())
	template := d.Spec.Template
	template.Labels["ffpod.dev/role"] = "job"
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	// Admission is all that is asked of it: nothing must start.
	suspend := true
	return batchv1.JobTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "session-", Labels: map[string]string{"ffpod.dev/session": "test"}},
		Spec:       batchv1.JobSpec{Template: template, Suspend: &suspend},
	}
}

// makePod makes a pod with the containers worker and other that never starts.
func makePod(ctx context.Context, namespace string) string {
	GinkgoHelper()
	container := func(name string) corev1.Container {
		return corev1.Container{Name: name, Image: "ffpod/worker:dev", ImagePullPolicy: corev1.PullNever}
	}
	pod, err := kubernetes.NewForConfigOrDie(admin).CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "target-"},
		Spec: corev1.PodSpec{
			Containers:   []corev1.Container{container("worker"), container("other")},
			NodeSelector: map[string]string{"ffpod.dev/test": "no-node"},
		},
	}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	return pod.Name
}

// createJob is a dry run, after change.
func (i *install) createJob(ctx context.Context, as *rest.Config, namespace string, change func(*corev1.PodSpec)) error {
	job := i.job()
	if change != nil {
		change(&job.Spec.Template.Spec)
	}
	return tryJob(ctx, as, namespace, job)
}

// job is what the install's scheduler would make.
func (i *install) job() *batchv1.Job {
	return &batchv1.Job{ObjectMeta: *i.warm.ObjectMeta.DeepCopy(), Spec: *i.warm.Spec.DeepCopy()}
}

func tryJob(ctx context.Context, as *rest.Config, namespace string, job *batchv1.Job) error {
	_, err := kubernetes.NewForConfigOrDie(as).BatchV1().Jobs(namespace).Create(ctx, job, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// exec asks for the pod's subresource; without an upgrade the request ends
// right after admission.
func (i *install) exec(ctx context.Context, as *rest.Config, subresource, container string, command ...string) error {
	return connect(ctx, as, i.namespace(), i.pod, subresource, container, false, command...)
}

func connect(ctx context.Context, as *rest.Config, namespace, pod, subresource, container string, tty bool, command ...string) error {
	request := kubernetes.NewForConfigOrDie(as).CoreV1().RESTClient().Post().
		Namespace(namespace).Resource("pods").Name(pod).SubResource(subresource)
	switch subresource {
	case "exec":
		request.VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdin: true, Stdout: true, TTY: tty}, scheme.ParameterCodec)
	case "attach":
		request.VersionedParams(&corev1.PodAttachOptions{Container: container, Stdin: true, Stdout: true}, scheme.ParameterCodec)
	case "portforward":
		request.VersionedParams(&corev1.PodPortForwardOptions{Ports: []int32{80}}, scheme.ParameterCodec)
	}
	return request.Do(ctx).Error()
}
