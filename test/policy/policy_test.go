package policy

import (
	"context"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
	authorizationv1 "k8s.io/api/authorization/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ktypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ffpod/ffpod/test/manifests"
)

// passes is for requests that admission must let through.
func passes() types.GomegaMatcher { return WithTransform(refusal, Succeed()) }

func refusedBy(policy string, texts ...string) types.GomegaMatcher {
	return WithTransform(func(err error) string {
		if err == nil {
			return "not refused"
		}
		return err.Error()
	}, And(append([]types.GomegaMatcher{ContainSubstring("ValidatingAdmissionPolicy '" + policy + "'")}, containing(texts)...)...))
}

func containing(texts []string) []types.GomegaMatcher {
	var all []types.GomegaMatcher
	for _, text := range texts {
		all = append(all, ContainSubstring(text))
	}
	return all
}

// change is a Job that a class could ask for and that must be refused.
type change struct {
	what   string
	policy string
	text   string // of the refusal
	do     func(*corev1.PodSpec)
}

func volume(source corev1.VolumeSource) func(*corev1.PodSpec) {
	return func(p *corev1.PodSpec) {
		p.Volumes = append(p.Volumes, corev1.Volume{Name: "extra", VolumeSource: source})
	}
}

func worker(do func(*corev1.Container)) func(*corev1.PodSpec) {
	return func(p *corev1.PodSpec) { do(&p.Containers[0]) }
}

var secretKey = &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "k"}}

var (
	no, yes = false, true
	oneGi   = apiresource.MustParse("1Gi")
	oneGPU  = apiresource.MustParse("1")
)

// forbidden are the Jobs that no scheduler may make.
var forbidden = []change{
	{"another ServiceAccount", "ffpod-jobs", "serviceAccountName", func(p *corev1.PodSpec) { p.ServiceAccountName, p.DeprecatedServiceAccount = "default", "" }},
	{"the scheduler's ServiceAccount", "ffpod-jobs", "serviceAccountName", func(p *corev1.PodSpec) {
		p.ServiceAccountName = strings.Replace(p.ServiceAccountName, "worker", "scheduler", 1)
	}},
	{"a token by default", "ffpod-jobs", "automountServiceAccountToken", func(p *corev1.PodSpec) { p.AutomountServiceAccountToken = nil }},
	{"a token", "ffpod-jobs", "automountServiceAccountToken", func(p *corev1.PodSpec) { p.AutomountServiceAccountToken = &yes }},
	{"a Secret volume", "ffpod-jobs", "no Secret", volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}})},
	{"a projected token", "ffpod-jobs", "projected", volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}})},
	{"a projected Secret", "ffpod-jobs", "no Secret", volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}}})},
	{"a hostPath", "ffpod-jobs", "hostPath", volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}})},
	{"a CSI volume", "ffpod-jobs", "driver", volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "secrets-store.csi.k8s.io"}})},
	{"an NFS volume", "ffpod-jobs", "driver", volume(corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "nas", Path: "/"}})},
	{"a claim made for it", "ffpod-jobs", "driver", volume(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
		VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": oneGi}},
			DataSource:  &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "media"}}}}})},
	{"a Secret in the environment", "ffpod-jobs", "environment", worker(func(c *corev1.Container) {
		c.Env = append(c.Env, corev1.EnvVar{Name: "S", ValueFrom: secretKey})
	})},
	{"a Secret as the environment", "ffpod-jobs", "environment", worker(func(c *corev1.Container) {
		c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}
	})},
	{"a Secret in an init container", "ffpod-jobs", "environment", func(p *corev1.PodSpec) {
		c := *p.Containers[0].DeepCopy()
		c.Name, c.Env = "init", []corev1.EnvVar{{Name: "S", ValueFrom: secretKey}}
		p.InitContainers = append(p.InitContainers, c)
	}},
	{"the host's network", "ffpod-jobs", "host's", func(p *corev1.PodSpec) { p.HostNetwork = true }},
	{"the host's processes", "ffpod-jobs", "host's", func(p *corev1.PodSpec) { p.HostPID = true }},
	{"the host's IPC", "ffpod-jobs", "host's", func(p *corev1.PodSpec) { p.HostIPC = true }},
	{"a port of the host", "ffpod-jobs", "host's", worker(func(c *corev1.Container) { c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 80}} })},
	{"privileges", "ffpod-jobs", "privileges", worker(func(c *corev1.Container) {
		c.SecurityContext = &corev1.SecurityContext{Privileged: &yes}
	})},
	{"privilege escalation", "ffpod-jobs", "allowPrivilegeEscalation", worker(func(c *corev1.Container) { c.SecurityContext.AllowPrivilegeEscalation = nil })},
	{"no security context", "ffpod-jobs", "allowPrivilegeEscalation", worker(func(c *corev1.Container) { c.SecurityContext = nil })},
	{"a capability", "ffpod-jobs", "capabilities", worker(func(c *corev1.Container) { c.SecurityContext.Capabilities.Add = []corev1.Capability{"SYS_ADMIN"} })},
	{"root in the container", "ffpod-jobs", "runAsNonRoot", worker(func(c *corev1.Container) { c.SecurityContext.RunAsNonRoot = &no })},
	{"root in the pod", "ffpod-jobs", "runAsNonRoot", func(p *corev1.PodSpec) { p.SecurityContext.RunAsNonRoot = nil }},
	{"an unlisted claim", "ffpod-claims", "are listed on ServiceAccount", volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "config"}})},
	{"a claim whose name begins like a listed one", "ffpod-claims", "are listed on ServiceAccount", volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "med"}})},
}

// allowed are Jobs that a class may ask for.
var allowed = []change{
	{what: "as the class says", do: func(*corev1.PodSpec) {}},
	{what: "without claims", do: func(p *corev1.PodSpec) {
		p.Volumes, p.Containers[0].VolumeMounts = nil, nil
	}},
	{what: "a ConfigMap, an emptyDir, its own metadata", do: func(p *corev1.PodSpec) {
		p.Volumes = append(p.Volumes,
			corev1.Volume{Name: "a", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "fonts"}}}},
			corev1.Volume{Name: "b", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			corev1.Volume{Name: "c", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}})
	}},
	{what: "a GPU", do: worker(func(c *corev1.Container) { c.Resources.Limits["nvidia.com/gpu"] = oneGPU })},
}

var _ = Describe("the scheduler's account", func() {
	for _, i := range installs {
		Context("in an install that is "+i.name, func() {
			It("may open a channel and nothing else", func(ctx SpecContext) {
				as := i.scheduler()
				Expect(i.exec(ctx, as, "exec", "worker", "/ffpod/worker", "dial")).To(passes())
				for what, err := range map[string]error{
					"another command":      i.exec(ctx, as, "exec", "worker", "sh"),
					"the command and more": i.exec(ctx, as, "exec", "worker", "/ffpod/worker", "dial", "x"),
					"the program alone":    i.exec(ctx, as, "exec", "worker", "/ffpod/worker"),
					"one word":             i.exec(ctx, as, "exec", "worker", "/ffpod/worker dial"),
					"another container":    i.exec(ctx, as, "exec", "other", "/ffpod/worker", "dial"),
					"no container":         i.exec(ctx, as, "exec", "", "/ffpod/worker", "dial"),
					"a terminal":           connect(ctx, as, i.namespace(), i.pod, "exec", "worker", true, "/ffpod/worker", "dial"),
					"attach":               i.exec(ctx, as, "attach", "worker"),
					"portforward":          i.exec(ctx, as, "portforward", ""),
					"proxy":                i.exec(ctx, as, "proxy", ""),
				} {
					Expect(err).To(refusedBy("ffpod-exec", "/ffpod/worker dial"), what)
				}
			}, SpecTimeout(specTimeout))

			It("may not add an ephemeral container", func(ctx SpecContext) {
				// `admin` does not hold this right, so it is granted by hand.
				role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "test-debug"}, Rules: []rbacv1.PolicyRule{
					{APIGroups: []string{""}, Resources: []string{"pods/ephemeralcontainers"}, Verbs: []string{"update"}}}}
				rbac := kubernetes.NewForConfigOrDie(admin).RbacV1()
				_, err := rbac.Roles(i.namespace()).Create(ctx, role, metav1.CreateOptions{})
				Expect(err).NotTo(HaveOccurred())
				_, err = rbac.RoleBindings(i.namespace()).Create(ctx, &rbacv1.RoleBinding{
					ObjectMeta: metav1.ObjectMeta{Name: "test-debug"},
					RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "test-debug"},
					Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts:" + i.namespace()}},
				}, metav1.CreateOptions{})
				Expect(err).NotTo(HaveOccurred())

				pods := kubernetes.NewForConfigOrDie(i.scheduler()).CoreV1().Pods(i.namespace())
				pod, err := pods.Get(ctx, i.pod, metav1.GetOptions{})
				Expect(err).NotTo(HaveOccurred())
				pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "ffpod/worker:dev"}}}
				_, err = pods.UpdateEphemeralContainers(ctx, i.pod, pod, metav1.UpdateOptions{})
				Expect(err).To(refusedBy("ffpod-exec"))
				another := kubernetes.NewForConfigOrDie(account(i.namespace(), i.rename("ffpod-client"))).CoreV1().Pods(i.namespace())
				_, err = another.UpdateEphemeralContainers(ctx, i.pod, pod, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
				Expect(err).NotTo(HaveOccurred(), "another account with the same right")
			}, SpecTimeout(specTimeout))

			It("may mark a worker as the one to go and change nothing else of any pod", func(ctx SpecContext) {
				mark := func(as *rest.Config, pod, patch string) error {
					_, err := kubernetes.NewForConfigOrDie(as).CoreV1().Pods(i.namespace()).Patch(ctx, pod, ktypes.MergePatchType, []byte(patch),
						metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
					return err
				}
				worker := makePod(ctx, i.namespace())
				_, err := kubernetes.NewForConfigOrDie(admin).CoreV1().Pods(i.namespace()).Patch(ctx, worker, ktypes.MergePatchType,
					[]byte(`{"metadata":{"labels":{"ffpod.dev/class":"cpu"},"annotations":{"ffpod.dev/slots":"2"}}}`), metav1.PatchOptions{})
				Expect(err).NotTo(HaveOccurred())
				const cost = `{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":"-1"}}}`
				Expect(mark(i.scheduler(), worker, cost)).To(Succeed())
				for what, patch := range map[string]string{
					"its bound":             `{"spec":{"activeDeadlineSeconds":1}}`,
					"a label":               `{"metadata":{"labels":{"ffpod.dev/class":"gpu"}}}`,
					"another annotation":    `{"metadata":{"annotations":{"ffpod.dev/slots":"3"}}}`,
					"a further annotation":  `{"metadata":{"annotations":{"sidecar.example.org/inject":"yes"}}}`,
					"an annotation removed": `{"metadata":{"annotations":{"ffpod.dev/slots":null}}}`,
					"a finalizer":           `{"metadata":{"finalizers":["example.org/keep"]}}`,
				} {
					Expect(mark(i.scheduler(), worker, patch)).To(refusedBy("ffpod-pods", "pod-deletion-cost"), what)
				}
				Expect(mark(i.scheduler(), i.pod, cost)).To(refusedBy("ffpod-pods"), "a pod that is no worker")
				Expect(mark(user(alice), i.pod, cost)).To(Succeed(), "anyone else")
			}, SpecTimeout(specTimeout))

			for _, c := range allowed {
				It("may make a Job: "+c.what, func(ctx SpecContext) {
					Expect(i.createJob(ctx, i.scheduler(), i.namespace(), c.do)).To(Succeed())
				}, SpecTimeout(specTimeout))
			}
			for _, c := range forbidden {
				It("may not make a Job with "+c.what, func(ctx SpecContext) {
					Expect(i.createJob(ctx, i.scheduler(), i.namespace(), c.do)).To(refusedBy(c.policy, c.text))
				}, SpecTimeout(specTimeout))
			}

			It("may not make a Job whose pods no NetworkPolicy knows", func(ctx SpecContext) {
				for what, change := range map[string]func(labels map[string]string){
					"no class":       func(l map[string]string) { delete(l, "ffpod.dev/class") },
					"an empty class": func(l map[string]string) { l["ffpod.dev/class"] = "" },
					"no role":        func(l map[string]string) { delete(l, "ffpod.dev/role") },
					"a warm role":    func(l map[string]string) { l["ffpod.dev/role"] = "warm" },
					"no label":       func(l map[string]string) { clear(l) },
				} {
					job := i.job()
					change(job.Spec.Template.Labels)
					Expect(tryJob(ctx, i.scheduler(), i.namespace(), job)).To(refusedBy("ffpod-jobs", "workers' labels"), what)
				}
				standby := i.job()
				standby.Spec.Template.Labels["ffpod.dev/role"] = "standby"
				Expect(tryJob(ctx, i.scheduler(), i.namespace(), standby)).To(Succeed())
			}, SpecTimeout(specTimeout))

			It("may change its own Jobs and not those it could not have made", func(ctx SpecContext) {
				mine := createReal(ctx, i, i.scheduler(), nil)
				Expect(patchJob(ctx, i.scheduler(), mine)).To(Succeed())
				foreign := createReal(ctx, i, user(alice), func(p *corev1.PodSpec) { p.AutomountServiceAccountToken = &yes })
				Expect(patchJob(ctx, i.scheduler(), foreign)).To(refusedBy("ffpod-jobs"))
				Expect(patchJob(ctx, user(alice), foreign)).To(Succeed())
			}, SpecTimeout(specTimeout))
		})
	}

	It("is told apart from that of another install in the same namespace", func(ctx SpecContext) {
		namespace := run + "-two"
		makeNamespace(ctx, namespace)
		for name, claims := range map[string]string{"ffpod-worker": "media,cache", "film-ffpod-worker-x": "film-media-x,film-cache-x"} {
			_, err := kubernetes.NewForConfigOrDie(admin).CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{
				ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"ffpod.dev/claims": claims}},
			}, metav1.CreateOptions{})
			Expect(err).NotTo(HaveOccurred())
		}
		for _, i := range installs {
			grant(ctx, namespace, "admin", rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: i.rename("ffpod-scheduler")})
		}
		plain, prefixed := installs[0], installs[1]
		Eventually(func() error {
			return plain.createJob(ctx, account(namespace, "ffpod-scheduler"), namespace, func(p *corev1.PodSpec) { swapClaims(p, prefixed) })
		}).WithTimeout(inForce).WithPolling(poll).Should(refusedBy("ffpod-claims", "ServiceAccount ffpod-worker"))
		Expect(plain.createJob(ctx, account(namespace, "ffpod-scheduler"), namespace, nil)).To(Succeed())
		Expect(prefixed.createJob(ctx, account(namespace, "film-ffpod-scheduler-x"), namespace, nil)).To(Succeed())
		Expect(prefixed.createJob(ctx, account(namespace, "film-ffpod-scheduler-x"), namespace, func(p *corev1.PodSpec) { swapClaims(p, plain) })).
			To(refusedBy("ffpod-claims", "ServiceAccount film-ffpod-worker-x"))
	}, SpecTimeout(2*inForce))
})

// swapClaims makes the pod mount the claims of the other install.
func swapClaims(p *corev1.PodSpec, other *install) {
	for j := range p.Volumes {
		if claim := p.Volumes[j].PersistentVolumeClaim; claim != nil {
			claim.ClaimName = other.rename(p.Volumes[j].Name)
		}
	}
}

// createReal creates a suspended Job.
func createReal(ctx context.Context, i *install, as *rest.Config, change func(*corev1.PodSpec)) *batchv1.Job {
	GinkgoHelper()
	job := &batchv1.Job{ObjectMeta: *i.warm.ObjectMeta.DeepCopy(), Spec: *i.warm.Spec.DeepCopy()}
	if change != nil {
		change(&job.Spec.Template.Spec)
	}
	created, err := kubernetes.NewForConfigOrDie(as).BatchV1().Jobs(i.namespace()).Create(ctx, job, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	return created
}

// patchJob is how a scheduler extends a Job's lease.
func patchJob(ctx context.Context, as *rest.Config, job *batchv1.Job) error {
	_, err := kubernetes.NewForConfigOrDie(as).BatchV1().Jobs(job.Namespace).Patch(ctx, job.Name, ktypes.MergePatchType,
		[]byte(`{"spec":{"activeDeadlineSeconds":600}}`), metav1.PatchOptions{})
	return err
}

var _ = Describe("anyone else", func() {
	It("makes any Job and any exec, beside ffpod and without it", func(ctx SpecContext) {
		elsewhere := stranger()
		grant(ctx, elsewhere, "admin", rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: alice})
		grant(ctx, elsewhere, "admin", rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts:" + elsewhere})
		grant(ctx, installs[0].namespace(), "admin", rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts:" + installs[0].namespace()})
		pod := makePod(ctx, elsewhere)
		for who, as := range map[string]*rest.Config{
			"a person":                             user(alice),
			"the cluster's admin":                  admin,
			"a ServiceAccount":                     account(elsewhere, "default"),
			"one with a name like the scheduler's": account(elsewhere, "my-scheduler"),
			"one whose name holds the scheduler's": account(elsewhere, "notffpod-scheduler"),
		} {
			for _, c := range forbidden {
				Expect(installs[0].createJob(ctx, as, elsewhere, c.do)).To(Succeed(), "%s makes a Job with %s", who, c.what)
			}
			for _, subresource := range []string{"exec", "attach", "portforward", "proxy"} {
				Expect(connect(ctx, as, elsewhere, pod, subresource, "other", false, "sh")).To(passes(), "%s: %s", who, subresource)
			}
		}
		for who, as := range map[string]*rest.Config{
			"a person":         user(alice),
			"the workers":      account(installs[0].namespace(), "ffpod-worker"),
			"a client":         account(installs[0].namespace(), "ffpod-client"),
			"a ServiceAccount": account(installs[0].namespace(), "default"),
		} {
			for _, c := range forbidden {
				Expect(installs[0].createJob(ctx, as, installs[0].namespace(), c.do)).To(Succeed(), "%s, beside ffpod, makes a Job with %s", who, c.what)
			}
			Expect(installs[0].exec(ctx, as, "exec", "other", "sh")).To(passes(), "%s, beside ffpod", who)
		}
	}, SpecTimeout(2*specTimeout))

	It("of a namespace's admins cannot apply the cluster's page", func(ctx SpecContext) {
		objects, err := manifests.Render("kustomize/cluster")
		Expect(err).NotTo(HaveOccurred())
		for _, o := range objects {
			Expect(apply(ctx, user(alice), o)).To(Satisfy(apierrors.IsForbidden), o.GetName())
		}
	}, SpecTimeout(specTimeout))
})

// foreignGroups are those of other projects, which this cluster has not got: a
// test of test/manifests holds their objects against the published schemas.
var foreignGroups = []string{"cert-manager.io", "gateway.networking.k8s.io", "postgresql.cnpg.io"}

var _ = Describe("the manifests", func() {
	It("are accepted strictly and without a warning", func(ctx SpecContext) {
		warnings.take()
		for _, i := range installs {
			for _, o := range i.render() {
				Expect(apply(ctx, admin, o, metav1.DryRunAll)).To(Succeed(), "%s %s", o.GetKind(), o.GetName())
				Expect(warnings.take()).To(BeEmpty(), "%s %s", o.GetKind(), o.GetName())
			}
		}
		for _, dir := range []string{
			"kustomize/overlays/demo", "kustomize/overlays/demo-rwo", "kustomize/overlays/dev", "kustomize/overlays/minimal",
			"kustomize/overlays/production-sqlite", "kustomize/overlays/production-postgres",
			"test/manifests/testdata/storage", "test/manifests/testdata/gpu", "test/manifests/testdata/postgres",
		} {
			objects, err := manifests.Render(dir)
			Expect(err).NotTo(HaveOccurred())
			for _, o := range objects {
				if slices.Contains(foreignGroups, o.GroupVersionKind().Group) {
					continue
				}
				// The overlay's namespace need not exist: in a dry run nothing does.
				if o.GetNamespace() != "" {
					o.SetNamespace(stranger())
				}
				Expect(apply(ctx, admin, o, metav1.DryRunAll)).To(Succeed(), "%s: %s %s", dir, o.GetKind(), o.GetName())
				Expect(warnings.take()).To(BeEmpty(), "%s: %s %s", dir, o.GetKind(), o.GetName())
			}
		}
	}, SpecTimeout(specTimeout))

	It("hold policies whose expressions fit the types", func(ctx SpecContext) {
		policies := kubernetes.NewForConfigOrDie(admin).AdmissionregistrationV1().ValidatingAdmissionPolicies()
		for _, name := range []string{"ffpod-exec", "ffpod-jobs", "ffpod-claims", "ffpod-keep"} {
			Eventually(func(g Gomega) {
				p, err := policies.Get(ctx, name, metav1.GetOptions{})
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(p.Status.ObservedGeneration).To(Equal(p.Generation), "not checked yet")
				g.Expect(p.Status.TypeChecking).NotTo(BeNil())
				g.Expect(p.Status.TypeChecking.ExpressionWarnings).To(BeEmpty())
			}).WithContext(ctx).WithTimeout(inForce).WithPolling(poll).Should(Succeed(), name)
		}
	}, SpecTimeout(2*inForce))

	It("grant each account its trade and no more", func(ctx SpecContext) {
		namespace := bare.namespace()
		makeNamespace(ctx, namespace)
		for _, o := range bare.render() {
			switch o.GetKind() {
			case "ServiceAccount", "Role", "RoleBinding":
				Expect(apply(ctx, admin, o)).To(Succeed())
			}
		}
		type right struct{ verb, group, resource, name string }
		scheduler := map[right]bool{
			{"create", "", "pods/exec", "any"}:                true,
			{"get", "", "pods/exec", "any"}:                   true,
			{"watch", "", "pods", ""}:                         true,
			{"create", "batch", "jobs", ""}:                   true,
			{"patch", "batch", "jobs", "any"}:                 true,
			{"watch", "apps", "deployments", ""}:              true,
			{"create", "", "events", ""}:                      true,
			{"get", "", "secrets", "ffpod-tls"}:               true,
			{"update", "", "secrets", "ffpod-tls"}:            true,
			{"update", "", "configmaps", "ffpod-client"}:      true,
			{"get", "", "secrets", "other"}:                   false,
			{"list", "", "secrets", ""}:                       false,
			{"create", "", "secrets", ""}:                     false,
			{"patch", "", "serviceaccounts", "ffpod-worker"}:  false,
			{"create", "", "pods", ""}:                        false,
			{"delete", "", "pods", "any"}:                     false,
			{"create", "", "pods/attach", "any"}:              false,
			{"create", "", "pods/portforward", "any"}:         false,
			{"update", "", "pods/ephemeralcontainers", "any"}: false,
			{"create", "", "serviceaccounts/token", "any"}:    false,
			{"patch", "apps", "deployments", "ffpod-cpu"}:     false,
			{"get", "", "nodes/proxy", "any"}:                 false,
		}
		for account, rights := range map[string]map[right]bool{"ffpod-scheduler": scheduler, "ffpod-worker": nil, "ffpod-client": nil} {
			for r := range scheduler {
				resource, sub, _ := strings.Cut(r.resource, "/")
				review := &authorizationv1.LocalSubjectAccessReview{
					ObjectMeta: metav1.ObjectMeta{Namespace: namespace},
					Spec: authorizationv1.SubjectAccessReviewSpec{
						User:               "system:serviceaccount:" + namespace + ":" + account,
						Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
						ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: r.verb, Group: r.group, Resource: resource, Subresource: sub, Name: r.name},
					},
				}
				review, err := kubernetes.NewForConfigOrDie(admin).AuthorizationV1().LocalSubjectAccessReviews(namespace).Create(ctx, review, metav1.CreateOptions{})
				Expect(err).NotTo(HaveOccurred())
				Expect(review.Status.Allowed).To(Equal(rights[r]), "%s: %v", account, r)
			}
		}
	}, SpecTimeout(specTimeout))
})
