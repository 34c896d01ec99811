package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ffpod/ffpod/test/manifests"
)

// cluster is the API server's, as its administrator.
type cluster struct {
	config *rest.Config
	set    kubernetes.Interface
	mapper meta.RESTMapper
}

func connect() *cluster {
	GinkgoHelper()
	path := os.Getenv("KUBECONFIG")
	Expect(path).NotTo(BeEmpty(), "KUBECONFIG is not set; name a cluster's, e.g. that of `go run ./test/cluster up`")
	config, err := clientcmd.BuildConfigFromFlags("", path)
	Expect(err).NotTo(HaveOccurred())
	config.QPS, config.Burst = 200, 200
	config.WarningHandler = rest.NoWarnings{}
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	Expect(err).NotTo(HaveOccurred())
	return &cluster{config: config, set: kubernetes.NewForConfigOrDie(config), mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))}
}

// install applies the overlay and waits until its pods run. Of an older install
// it restarts every pod: a tag that stays the same tells Kubernetes nothing about
// newer images.
func (c *cluster) install(ctx context.Context) {
	GinkgoHelper()
	if !keep() {
		c.uninstall(ctx)
	}
	say("apply test/e2e/overlay to namespace %s (usually 10 s until it runs)", namespace)
	objects, err := manifests.Render("test/e2e/overlay")
	Expect(err).NotTo(HaveOccurred())
	for _, o := range objects {
		c.apply(ctx, o)
	}
	c.apply(ctx, &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": stranger}}})
	for _, d := range c.deployments(ctx) {
		if d.CreationTimestamp.Time.Before(time.Now().Add(-time.Minute)) {
			c.restart(ctx, d.Name)
		}
	}
	c.awaitDeployments(ctx)
}

func (c *cluster) apply(ctx context.Context, o *unstructured.Unstructured) {
	GinkgoHelper()
	// The page of the cluster serves other installs too: what others put there is
	// left, what was not there before goes when the suite ends.
	r := c.resource(o)
	_, err := r.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) && o.GetNamespace() == "" && !keep() {
		DeferCleanup(func(ctx SpecContext) {
			err := r.Delete(ctx, o.GetName(), metav1.DeleteOptions{})
			Expect(err == nil || apierrors.IsNotFound(err)).To(BeTrue(), "delete %s %s: %v", o.GetKind(), o.GetName(), err)
		})
	}
	_, err = r.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: "ffpod-e2e", Force: true})
	Expect(err).NotTo(HaveOccurred(), "apply %s %s", o.GetKind(), o.GetName())
}

func (c *cluster) resource(o *unstructured.Unstructured) dynamic.ResourceInterface {
	GinkgoHelper()
	kind := o.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	Expect(err).NotTo(HaveOccurred())
	r := dynamic.NewForConfigOrDie(c.config).Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return r.Namespace(o.GetNamespace())
	}
	return r
}

func (c *cluster) deployments(ctx context.Context) []appsv1.Deployment {
	GinkgoHelper()
	list, err := c.set.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
	Expect(err).NotTo(HaveOccurred())
	return list.Items
}

// restart replaces a Deployment's pods.
func (c *cluster) restart(ctx context.Context, name string) {
	GinkgoHelper()
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339))
	_, err := c.set.AppsV1().Deployments(namespace).Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	Expect(err).NotTo(HaveOccurred())
}

// awaitDeployments waits until every pod is what its Deployment wants, and says
// what it waits for.
func (c *cluster) awaitDeployments(ctx context.Context) {
	GinkgoHelper()
	said := ""
	Eventually(func(g Gomega) {
		var behind []string
		for _, d := range c.deployments(ctx) {
			want := *d.Spec.Replicas
			if s := d.Status; s.ObservedGeneration < d.Generation || s.UpdatedReplicas != want || s.AvailableReplicas != want || s.Replicas != want {
				behind = append(behind, fmt.Sprintf("%s has %d of %d pods available", d.Name, s.AvailableReplicas, want))
			}
		}
		why := strings.Join(append(behind, c.reasons(ctx)...), "; ")
		if now := time.Now().Format("15:04:05 ") + why; len(behind) > 0 && why != said {
			said = why
			say("%s", now)
		}
		if strings.Contains(why, "ImagePull") {
			StopTrying("an image is missing: " + why + "; run `make images`").Now()
		}
		g.Expect(behind).To(BeEmpty(), why)
	}).WithContext(ctx).WithTimeout(readyBound).WithPolling(time.Second).Should(Succeed())
}

// reasons are Kubernetes' own words for pods that do not run.
func (c *cluster) reasons(ctx context.Context) (why []string) {
	pods, err := c.set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range pods.Items {
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if w := s.State.Waiting; w != nil && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating" {
				why = append(why, fmt.Sprintf("%s: %s %s", p.Name, w.Reason, w.Message))
			}
		}
	}
	return why
}

// awaitWorkers waits until the scheduler has a channel to every warm worker: the
// first session of a class waits for nothing then.
func (c *cluster) awaitWorkers(ctx context.Context) {
	GinkgoHelper()
	var warm int
	for _, d := range c.deployments(ctx) {
		if d.Labels["ffpod.dev/class"] != "" {
			warm += int(*d.Spec.Replicas)
		}
	}
	Eventually(func(g Gomega) {
		g.Expect(strings.Count(c.schedulerLog(ctx), `"msg":"worker answers"`)).To(BeNumerically(">=", warm))
	}).WithContext(ctx).WithTimeout(readyBound).Should(Succeed(), "the scheduler has no channel to some worker")
}

func (c *cluster) schedulerLog(ctx context.Context) string {
	GinkgoHelper()
	p := c.find(ctx, "app.kubernetes.io/component=scheduler", "scheduler")
	b, err := c.set.CoreV1().Pods(namespace).GetLogs(p.name, &corev1.PodLogOptions{}).DoRaw(ctx)
	Expect(err).NotTo(HaveOccurred())
	return string(b)
}

// uninstall deletes the namespaces, waits until they are gone, and deletes what
// is outside them for this install alone.
func (c *cluster) uninstall(ctx context.Context) {
	GinkgoHelper()
	err := c.set.RbacV1().ClusterRoleBindings().Delete(ctx, namespace+"-token-review", metav1.DeleteOptions{})
	Expect(err == nil || apierrors.IsNotFound(err)).To(BeTrue(), "%v", err)
	names := []string{namespace, stranger}
	for _, name := range names {
		err := c.set.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		Expect(err == nil || apierrors.IsConflict(err)).To(BeTrue(), "%v", err)
		say("remove namespace %s (usually 15 s)", name)
	}
	for _, name := range names {
		Eventually(func() error {
			_, err := c.set.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
			return err
		}).WithContext(ctx).WithTimeout(goneBound).Should(MatchError(apierrors.IsNotFound, "IsNotFound"), "namespace %s is still there", name)
	}
}

// architecture is that of the nodes.
func (c *cluster) architecture(ctx context.Context) string {
	GinkgoHelper()
	nodes, err := c.set.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	Expect(err).NotTo(HaveOccurred())
	Expect(nodes.Items).NotTo(BeEmpty())
	return nodes.Items[0].Status.NodeInfo.Architecture
}

// find returns the one running pod that a selector matches.
func (c *cluster) find(ctx context.Context, selector, container string) pod {
	GinkgoHelper()
	var found pod
	Eventually(func(g Gomega) {
		pods := c.pods(ctx, selector)
		g.Expect(pods).To(HaveLen(1), "pods of %s", selector)
		found = pod{cluster: c, name: pods[0].Name, uid: pods[0].UID, container: container}
	}).WithContext(ctx).WithTimeout(readyBound).Should(Succeed())
	return found
}

// pods are those that run and are not being deleted.
func (c *cluster) pods(ctx context.Context, selector string) []corev1.Pod {
	GinkgoHelper()
	list, err := c.set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	Expect(err).NotTo(HaveOccurred())
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning
	})
}

// warm is the one warm worker of a class.
func (c *cluster) warm(ctx context.Context, class string) pod {
	GinkgoHelper()
	return c.find(ctx, "ffpod.dev/class="+class+",ffpod.dev/role=warm", "worker")
}

// serving is the worker of the class, warm or of a Job, in which the process with
// the mark runs. The API server may still call a worker running that has ended.
func (c *cluster) serving(ctx context.Context, class, role, mark string) pod {
	GinkgoHelper()
	var found []pod
	Eventually(func() []pod {
		found = nil
		for _, p := range c.pods(ctx, "ffpod.dev/class="+class+",ffpod.dev/role="+role) {
			candidate := pod{cluster: c, name: p.Name, uid: p.UID, container: "worker"}
			if marked, err := candidate.marked(ctx, mark); err == nil && len(marked) > 0 {
				found = append(found, candidate)
			}
		}
		return found
	}).WithContext(ctx).WithTimeout(lossBound).Should(HaveLen(1), "workers of class %s with %s", class, mark)
	return found[0]
}

// metric reads one number of the scheduler's /metrics.
func (c *cluster) metric(ctx context.Context, name string) float64 {
	GinkgoHelper()
	p := c.find(ctx, "app.kubernetes.io/component=scheduler", "scheduler")
	b, err := c.set.CoreV1().RESTClient().Get().Namespace(namespace).Resource("pods").Name(p.name + ":8080").SubResource("proxy").Suffix("metrics").DoRaw(ctx)
	Expect(err).NotTo(HaveOccurred())
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			var v float64
			Expect(json.Unmarshal([]byte(strings.TrimSpace(text)), &v)).To(Succeed())
			return v
		}
	}
	Fail("the scheduler has no metric " + name)
	return 0
}
