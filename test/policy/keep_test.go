package policy

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// gone bounds the end of a namespace with a claim in it.
const gone = 90 * time.Second

var dryRun = metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}

// makeClaim makes one that no pod uses and that nothing binds.
func makeClaim(ctx context.Context, namespace string, labels map[string]string) *corev1.PersistentVolumeClaim {
	GinkgoHelper()
	class := "no-class"
	claim, err := kubernetes.NewForConfigOrDie(admin).CoreV1().PersistentVolumeClaims(namespace).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "claim-", Labels: labels},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": oneGi}},
		},
	}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	return claim
}

var keep = map[string]string{"ffpod.dev/keep": "true"}

var _ = Describe("what is labelled ffpod.dev/keep", func() {
	It("is a claim that nobody deletes before its label is off", func(ctx SpecContext) {
		claims := kubernetes.NewForConfigOrDie(admin).CoreV1().PersistentVolumeClaims(stranger())
		kept := makeClaim(ctx, stranger(), keep)
		awaitKept(ctx, kept)

		grant(ctx, stranger(), "admin", rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: alice})
		for who, config := range map[string]*rest.Config{"the cluster's admin": admin, "the namespace's admin": user(alice)} {
			err := kubernetes.NewForConfigOrDie(config).CoreV1().PersistentVolumeClaims(stranger()).Delete(ctx, kept.Name, dryRun)
			Expect(err).To(refusedBy("ffpod-keep", kept.Name, "kubectl label -n "+stranger()+" pvc "+kept.Name+" ffpod.dev/keep-"), who)
		}
		// One request for all of them is refused claim by claim.
		other := makeClaim(ctx, stranger(), nil)
		Expect(claims.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "ffpod.dev/keep=true"})).To(refusedBy("ffpod-keep", kept.Name))
		Expect(claims.Get(ctx, kept.Name, metav1.GetOptions{})).To(HaveField("DeletionTimestamp", BeNil()))

		By("leaving alone what has no label, another value, or changes")
		Expect(claims.Delete(ctx, other.Name, metav1.DeleteOptions{})).To(Succeed())
		Expect(claims.Delete(ctx, makeClaim(ctx, stranger(), map[string]string{"ffpod.dev/keep": "false"}).Name, metav1.DeleteOptions{})).To(Succeed())
		off := []byte(`{"metadata":{"labels":{"ffpod.dev/keep":null}}}`)
		_, err := claims.Patch(ctx, kept.Name, types.MergePatchType, off, metav1.PatchOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(claims.Delete(ctx, kept.Name, metav1.DeleteOptions{})).To(Succeed())
	}, SpecTimeout(specTimeout+inForce))

	It("is a volume, and a namespace", func(ctx SpecContext) {
		set := kubernetes.NewForConfigOrDie(admin).CoreV1()
		awaitKept(ctx, makeClaim(ctx, stranger(), keep))
		volume, err := set.PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: run + "-kept", Labels: keep},
			Spec: corev1.PersistentVolumeSpec{
				Capacity:                      corev1.ResourceList{"storage": oneGi},
				AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
				PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
				StorageClassName:              "no-class-" + run,
				PersistentVolumeSource:        corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: "nas.example.invalid", Path: "/"}},
			},
		}, metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) {
			_, err := set.PersistentVolumes().Patch(ctx, volume.Name, types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), metav1.PatchOptions{})
			Expect(err).NotTo(HaveOccurred())
			Expect(set.PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})).To(Succeed())
		})
		Expect(set.PersistentVolumes().Delete(ctx, volume.Name, dryRun)).To(refusedBy("ffpod-keep", "kubectl label pv "+volume.Name+" ffpod.dev/keep-"))

		namespace := makeKeptNamespace(ctx, run+"-kept")
		Expect(set.Namespaces().Delete(ctx, namespace, dryRun)).To(refusedBy("ffpod-keep", "kubectl label namespace "+namespace+" ffpod.dev/keep-"))
		Expect(set.Namespaces().Delete(ctx, stranger(), dryRun)).To(Succeed())
	}, SpecTimeout(specTimeout+inForce))

	It("goes with its namespace once that is being deleted", func(ctx SpecContext) {
		set := kubernetes.NewForConfigOrDie(admin).CoreV1()
		name := run + "-ending"
		_, err := set.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		awaitKept(ctx, makeClaim(ctx, name, keep))
		Expect(set.Namespaces().Delete(ctx, name, metav1.DeleteOptions{})).To(Succeed())
		Eventually(func() bool {
			_, err := set.Namespaces().Get(ctx, name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}).WithContext(ctx).WithTimeout(gone).WithPolling(poll).Should(BeTrue(), "the namespace stays, for a claim in it may not go")
	}, SpecTimeout(inForce+2*gone))
})

// awaitKept waits for the policy to be in force.
func awaitKept(ctx context.Context, claim *corev1.PersistentVolumeClaim) {
	GinkgoHelper()
	Eventually(func() error {
		return kubernetes.NewForConfigOrDie(admin).CoreV1().PersistentVolumeClaims(claim.Namespace).Delete(ctx, claim.Name, dryRun)
	}).WithContext(ctx).WithTimeout(inForce).WithPolling(poll).Should(refusedBy("ffpod-keep"), "the policy is not in force")
}

// makeKeptNamespace makes one as the overlays do, and takes it away at the end.
func makeKeptNamespace(ctx context.Context, name string) string {
	GinkgoHelper()
	set := kubernetes.NewForConfigOrDie(admin).CoreV1().Namespaces()
	_, err := set.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: keep}}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		_, err := set.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"labels":{"ffpod.dev/keep":null}}}`), metav1.PatchOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(set.Delete(ctx, name, metav1.DeleteOptions{})).To(Succeed())
	})
	return name
}
