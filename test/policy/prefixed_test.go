package policy

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/ffpod/ffpod/test/manifests"
)

// startTimeout bounds the start of an install whose images the node has.
const startTimeout = 2 * time.Minute

// running is a whole install under a prefix, a suffix and common labels, with
// the supervisor injected, and without TokenReview, which its admin cannot bind.
const running = `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: %s
namePrefix: film-
nameSuffix: -x
labels: [{pairs: {team: films}, includeSelectors: true, includeTemplates: true}]
resources: [ROOT/kustomize/base, ROOT/kustomize/classes/nvidia]
components:
  - ROOT/kustomize/components/class-cpu
  - ROOT/kustomize/components/demo
  - ROOT/kustomize/components/inject-supervisor
  - ROOT/kustomize/components/rwo
configMapGenerator:
  - name: ffpod-scheduler
    behavior: merge
    literals:
      - |
        scheduler.yaml={apiVersion: ffpod.dev/v1alpha1, kind: SchedulerConfiguration, auth: {allowedServiceAccounts: [film-ffpod-client-x]}}
`

var _ = Describe("an install under a prefix, applied by its namespace's admin", func() {
	It("runs warm and Job sessions under Pod Security restricted", func(ctx SpecContext) {
		namespace := run + "-running"
		makeNamespace(ctx, namespace)
		set := kubernetes.NewForConfigOrDie(admin)
		_, err := set.CoreV1().Namespaces().Patch(ctx, namespace, "application/merge-patch+json",
			[]byte(`{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`), metav1.PatchOptions{})
		Expect(err).NotTo(HaveOccurred())
		grant(ctx, namespace, "admin", rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: alice})
		objects, err := manifests.RenderText(fmt.Sprintf(running, namespace))
		Expect(err).NotTo(HaveOccurred())
		for _, o := range objects {
			Expect(apply(ctx, user(alice), o)).To(Succeed(), "%s %s", o.GetKind(), o.GetName())
		}
		for _, name := range []string{"scheduler", "cpu", "client"} {
			awaitDeployment(ctx, namespace, "film-ffpod-"+name+"-x")
		}

		var sums []string
		for _, settings := range []string{"FFPOD_MODE=local", "FFPOD_MODE=remote FFPOD_POLICY=warm", "FFPOD_MODE=remote FFPOD_POLICY=job"} {
			var out string
			// The first may come before the scheduler has published where it is.
			Eventually(func() (err error) {
				out, err = inClient(ctx, namespace, "set -o pipefail; "+settings+
					" ffmpeg -hide_banner -loglevel error -f lavfi -i testsrc=d=1:s=320x240 -c:v libx264 -threads 1 -f mpegts - | sha256sum")
				return err
			}).WithContext(ctx).WithTimeout(startTimeout).WithPolling(poll).Should(Succeed(), settings)
			sums = append(sums, out)
		}
		Expect(sums[1]).To(Equal(sums[0]), "warm and local")
		Expect(sums[2]).To(Equal(sums[0]), "Job and local")

		jobs, err := set.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(jobs.Items).NotTo(BeEmpty(), "no Job was made")
		for _, job := range jobs.Items {
			checkSelected(ctx, namespace, job)
		}
	}, SpecTimeout(3*startTimeout))
})

// checkSelected sees to it that the workers' NetworkPolicy holds the Job's pods
// and that no Deployment counts them as its own.
func checkSelected(ctx context.Context, namespace string, job batchv1.Job) {
	GinkgoHelper()
	set := kubernetes.NewForConfigOrDie(admin)
	count := func(selector *metav1.LabelSelector) int {
		pods, err := set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
			LabelSelector: metav1.FormatLabelSelector(selector) + ",batch.kubernetes.io/job-name=" + job.Name})
		Expect(err).NotTo(HaveOccurred())
		return len(pods.Items)
	}
	denied, err := set.NetworkingV1().NetworkPolicies(namespace).Get(ctx, "film-ffpod-worker-x", metav1.GetOptions{})
	Expect(err).NotTo(HaveOccurred())
	Expect(count(&denied.Spec.PodSelector)).To(Equal(1), "the NetworkPolicy does not hold Job %s", job.Name)
	class, err := set.AppsV1().Deployments(namespace).Get(ctx, "film-ffpod-cpu-x", metav1.GetOptions{})
	Expect(err).NotTo(HaveOccurred())
	Expect(count(class.Spec.Selector)).To(BeZero(), "the Deployment selects Job %s", job.Name)
}

// awaitDeployment fails with what the pods wait for, an image most of the time.
func awaitDeployment(ctx context.Context, namespace, name string) {
	GinkgoHelper()
	set := kubernetes.NewForConfigOrDie(admin)
	Eventually(func() error {
		d, err := set.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if d.Status.ObservedGeneration == d.Generation && d.Status.ReadyReplicas == *d.Spec.Replicas {
			return nil
		}
		var waits []string
		pods, err := set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
				if s.State.Waiting != nil {
					waits = append(waits, s.Name+": "+s.State.Waiting.Reason+" "+s.State.Waiting.Message)
				}
			}
		}
		return fmt.Errorf("deployment %s is not ready; load the images (go run ./images/build -o DIR) if the node lacks them: %s", name, strings.Join(waits, "; "))
	}).WithContext(ctx).WithTimeout(startTimeout).WithPolling(poll).Should(Succeed())
}

// inClient runs a script in the client's container.
func inClient(ctx context.Context, namespace, script string) (string, error) {
	set := kubernetes.NewForConfigOrDie(admin)
	pods, err := set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=client"})
	if err != nil || len(pods.Items) != 1 {
		return "", fmt.Errorf("find the client: %d pods, %w", len(pods.Items), err)
	}
	url := set.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name(pods.Items[0].Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: "client", Command: []string{"bash", "-c", script}, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewWebSocketExecutor(admin, "GET", url.String())
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}
