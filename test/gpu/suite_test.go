package gpu_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/test/kubectl"
	"github.com/ffpod/ffpod/test/manifests"
)

const (
	namespace = "ffpod-gpu"

	readyBound = 3 * time.Minute // pods, trials, the end of a namespace
	specBound  = 3 * time.Minute
	soon       = time.Minute // what takes seconds
)

// Classes, by the directory of kustomize/classes they come from.
const (
	cpu     = "cpu"
	nvidia  = "nvidia"
	intel   = "intel-i915"
	amd     = "amd"
	elastic = "elastic"
)

func TestGPU(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyPollingInterval(500 * time.Millisecond)
	RunSpecs(t, "gpu")
}

func say(format string, args ...any) { fmt.Printf("gpu: %s\n", fmt.Sprintf(format, args...)) }

// program is `ffpod`, built by the suite.
var program string

func do(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := kubectl.New(namespace).Run(ctx, nil, args...)
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(out)
}

// run runs one of the project's own programs.
func run(ctx context.Context, name string, args ...string) string {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = manifests.Root()
	out, err := cmd.Output()
	if failed, ok := err.(*exec.ExitError); ok {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, failed.Stderr)
	}
	Expect(err).NotTo(HaveOccurred())
	return string(out)
}

func read[T any](ctx context.Context, args ...string) (v T) {
	GinkgoHelper()
	Expect(json.Unmarshal([]byte(do(ctx, append([]string{"get", "-o", "json"}, args...)...)), &v)).To(Succeed())
	return v
}

// workers are the pods of a class that have not ended. Role is warm, job, or empty.
func workers(ctx context.Context, class, role string) []corev1.Pod {
	GinkgoHelper()
	selector := "ffpod.dev/class=" + class
	if role != "" {
		selector += ",ffpod.dev/role=" + role
	}
	return slices.DeleteFunc(read[corev1.PodList](ctx, "pods", "-l", selector).Items, func(p corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
}

// status is what `ffpod status` tells.
func status(ctx context.Context) (s api.Status) {
	GinkgoHelper()
	Expect(json.Unmarshal([]byte(run(ctx, program, "status", "-n", namespace, "--json")), &s)).To(Succeed())
	return s
}

// ready waits until every class has the warm workers it wants, and each has told the
// scheduler what it can.
func ready(ctx context.Context, classes ...string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		var answer, want []string
		for _, w := range status(ctx).Workers {
			if w.Role == "warm" && w.Ready && !w.Draining && slices.Contains(classes, w.Class) {
				answer = append(answer, w.Pod)
			}
		}
		for _, class := range classes {
			d := read[appsv1.Deployment](ctx, "deployment/ffpod-"+class)
			g.Expect(d.Status.ObservedGeneration).To(Equal(d.Generation))
			g.Expect(d.Status.UpdatedReplicas).To(Equal(*d.Spec.Replicas), class)
			for _, p := range workers(ctx, class, "warm") {
				want = append(want, p.Name)
				if class != cpu && class != elastic {
					g.Expect(kubectl.New(namespace).Run(ctx, nil, "logs", p.Name)).To(ContainSubstring("worker proved its ffmpeg"))
				}
			}
		}
		g.Expect(answer).To(ConsistOf(want))
	}).WithContext(ctx).WithTimeout(readyBound).Should(Succeed(), func() string { return do(ctx, "get", "pods,events") })
}

var _ = BeforeSuite(func(ctx SpecContext) {
	Expect(os.Getenv("KUBECONFIG")).To(Equal(kubectl.LocalConfig), "devices are lost and found here, which only the local cluster can: `make cluster`")
	program = filepath.Join(GinkgoT().TempDir(), "ffpod")
	run(ctx, "go", "build", "-o", program, "./cmd/ffpod")
	find(ctx)
	say("apply test/gpu/overlay to namespace %s", namespace)
	overlay := filepath.Join(manifests.Root(), "test", "gpu", "overlay")
	do(ctx, "apply", "--server-side", "--force-conflicts", "-f", filepath.Join(overlay, "namespace.yaml"))
	do(ctx, "delete", "configmap", "gpu-ffmpeg", "--ignore-not-found")
	do(ctx, "create", "configmap", "gpu-ffmpeg", "--from-file="+filepath.Join(manifests.Root(), "podexec/prove/testdata/ffmpeg"))
	do(ctx, "delete", "jobs,pods", "--all", "--wait=false") // of a run that left them: its images had the same names
	do(ctx, "apply", "--server-side", "--force-conflicts", "-k", overlay)
	do(ctx, "rollout", "status", "deployment/ffpod-scheduler", "--timeout=2m")
	do(ctx, "rollout", "restart", "deployment/ffpod-client") // the kubelet brings the address that was just published within a minute, to a new pod at once
	do(ctx, "rollout", "status", "deployment/ffpod-client", "--timeout=2m")
	do(ctx, "exec", "deploy/ffpod-client", "--", "sh", "-c", "rm -rf /cache/lost "+home+"; mkdir "+home)
	ready(ctx, cpu, nvidia, intel, amd)
}, NodeTimeout(2*readyBound))

var _ = AfterSuite(func(ctx SpecContext) {
	find(ctx)
	if os.Getenv("GPU_KEEP") == "1" {
		say("GPU_KEEP=1: namespace %s stays", namespace)
		return
	}
	do(ctx, "delete", "--ignore-not-found", "clusterrolebinding/ffpod-gpu-token-review", "namespace/"+namespace)
}, NodeTimeout(readyBound))

var _ = AfterEach(func(ctx SpecContext) {
	if CurrentSpecReport().Failed() {
		text := do(ctx, "get", "pods,events", "-o", "wide") + "\n" + do(ctx, "logs", "deploy/ffpod-scheduler", "--tail=60")
		AddReportEntry("the install", text, ReportEntryVisibilityFailureOrVerbose)
	}
	stopAll(ctx)
}, NodeTimeout(specBound))

var _ = Describe("In a cluster with GPUs,", Ordered, ContinueOnFailure, func() {
	Describe("placement", placements)
	Describe("the only device", onlyDevice)
	Describe("time", times)
	Describe("a device that is lost", lostDevice)
})
