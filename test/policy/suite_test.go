// Package policy proves on a real cluster, the one of $KUBECONFIG, that
// kustomize/cluster keeps the scheduler's account to its trade and touches
// nobody else's requests, and that kustomize/base can be applied by a user who
// has nothing but the built-in role `admin` in one namespace.
//
// Requests are made by impersonation, mostly as server-side dry runs: admission
// does not know the difference. To prove that a policy refuses, and not RBAC,
// the accounts here hold far more rights than an install grants.
package policy

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ffpod/ffpod/test/manifests"
)

const (
	// specTimeout bounds one spec; each is a handful of requests.
	specTimeout = 60 * time.Second
	// inForce bounds the time from a policy's creation to its first refusal.
	inForce = 60 * time.Second
	poll    = 200 * time.Millisecond
)

func TestPolicy(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "policy")
}

// cluster is what every spec uses; the warnings are those of all requests.
var (
	admin    *rest.Config
	mapper   meta.RESTMapper
	warnings = &recorder{}
	run      string // makes the names of this run its own
)

// recorder keeps the API server's warnings.
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (r *recorder) HandleWarningHeader(_ int, _, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, text)
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

var _ = BeforeSuite(func(ctx SpecContext) {
	path := os.Getenv("KUBECONFIG")
	Expect(path).NotTo(BeEmpty(), "KUBECONFIG is not set; name a cluster's, e.g. that of `go run ./test/cluster up`")
	var err error
	admin, err = clientcmd.BuildConfigFromFlags("", path)
	Expect(err).NotTo(HaveOccurred())
	admin.QPS, admin.Burst = 200, 200
	admin.WarningHandler = warnings
	disco, err := discovery.NewDiscoveryClientForConfig(admin)
	Expect(err).NotTo(HaveOccurred())
	mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))
	run = "policy-" + strings.ToLower(rand())

	applyCluster(ctx)
	for _, i := range installs {
		i.create(ctx)
	}
	makeNamespace(ctx, stranger())
	Eventually(func() error {
		return refusal(installs[0].exec(ctx, installs[0].scheduler(), "exec", "worker", "sh"))
	}).WithTimeout(inForce).WithPolling(poll).Should(MatchError(ContainSubstring("ffpod-exec")), "the policies are not in force")
}, NodeTimeout(3*time.Minute))

// rand is the shared part of this run's names.
func rand() string {
	b := make([]byte, 3)
	f, err := os.Open("/dev/urandom")
	Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	_, err = f.Read(b)
	Expect(err).NotTo(HaveOccurred())
	const letters = "bcdfghjklmnpqrstvwxz"
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b)
}

// applyCluster applies the page and leaves it there: another install, or another
// suite, may have come to rely on it meanwhile.
func applyCluster(ctx context.Context) {
	GinkgoHelper()
	objects, err := manifests.Render("kustomize/cluster")
	Expect(err).NotTo(HaveOccurred())
	for _, o := range objects {
		Expect(apply(ctx, admin, o)).To(Succeed())
	}
}

func makeNamespace(ctx context.Context, name string) {
	GinkgoHelper()
	set := kubernetes.NewForConfigOrDie(admin)
	_, err := set.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		Expect(set.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})).To(Succeed())
	})
}

// grant binds the ClusterRole in the namespace.
func grant(ctx context.Context, namespace, role string, subject rbacv1.Subject) {
	GinkgoHelper()
	_, err := kubernetes.NewForConfigOrDie(admin).RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{subject},
	}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
}

// account is the ServiceAccount's configuration, by impersonation.
func account(namespace, name string) *rest.Config {
	c := rest.CopyConfig(admin)
	c.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + name,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	return c
}

// user is a person's.
func user(name string) *rest.Config {
	c := rest.CopyConfig(admin)
	c.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: []string{"system:authenticated"}}
	return c
}

// resource is the client for the object's kind and namespace.
func resource(as *rest.Config, o *unstructured.Unstructured) dynamic.ResourceInterface {
	GinkgoHelper()
	gvk := o.GroupVersionKind()
	mapping, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	Expect(err).NotTo(HaveOccurred())
	c := dynamic.NewForConfigOrDie(as).Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return c.Namespace(o.GetNamespace())
	}
	return c
}

// apply is a server-side apply, strict, and in kubectl's name: what stays in the
// cluster is no conflict for who applies it next.
func apply(ctx context.Context, as *rest.Config, o *unstructured.Unstructured, dryRun ...string) error {
	_, err := resource(as, o).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: "kubectl", Force: true, DryRun: dryRun})
	return err
}

// refusal is the error of a request that admission refused, nil of one that
// passed it: what comes after, such as a pod without a node, is no matter here.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "ValidatingAdmissionPolicy"), apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return err
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || slices.Contains([]metav1.StatusReason{metav1.StatusReasonNotFound, metav1.StatusReasonUnauthorized}, status.Status().Reason) {
		return err
	}
	return nil
}
