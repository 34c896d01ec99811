package e2e_test

import (
	"context"
	"regexp"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/test/e2e"
)

var sessionInLog = regexp.MustCompile(`session ([0-9a-f-]{36})`)

// sessionOf reads the session's id from the shim's log.
func sessionOf(r e2e.Result) string {
	GinkgoHelper()
	found := sessionInLog.FindStringSubmatch(r.Log)
	Expect(found).To(HaveLen(2), words(r))
	return found[1]
}

func jobsOf(ctx context.Context, session string) []batchv1.Job {
	GinkgoHelper()
	list, err := world.set.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{LabelSelector: "ffpod.dev/session=" + session})
	Expect(err).NotTo(HaveOccurred())
	return list.Items
}

func podsOf(ctx context.Context, session string) []corev1.Pod {
	GinkgoHelper()
	list, err := world.set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "ffpod.dev/session=" + session})
	Expect(err).NotTo(HaveOccurred())
	return list.Items
}

func condition(j batchv1.Job, kind batchv1.JobConditionType) bool {
	for _, c := range j.Status.Conditions {
		if c.Type == kind && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

var _ = Describe("A Job", Label(labelJob), func() {
	It("tells by its status how ffmpeg ended", func(ctx SpecContext) {
		good, bad, dead := jobs.child(e2e.Child{}), jobs.child(e2e.Child{Code: 7}), jobs.child(e2e.Child{Die: int(syscall.SIGSEGV)})
		results := play(ctx, e2e.Plan{Runs: []e2e.Run{good, bad, dead}})
		for i, want := range []struct {
			condition batchv1.JobConditionType
			code      int32
		}{{batchv1.JobComplete, 0}, {batchv1.JobFailed, 7}, {batchv1.JobFailed, 128 + int32(syscall.SIGSEGV)}} {
			session := sessionOf(results[i])
			Eventually(func(g Gomega) {
				found := jobsOf(ctx, session)
				g.Expect(found).To(HaveLen(1))
				g.Expect(condition(found[0], want.condition)).To(BeTrue(), "%+v", found[0].Status)
				pods := podsOf(ctx, session)
				g.Expect(pods).To(HaveLen(1))
				g.Expect(pods[0].Status.ContainerStatuses[0].State.Terminated).To(HaveField("ExitCode", want.code))
			}).WithContext(ctx).WithTimeout(jobTruthBound).Should(Succeed())
		}
	}, NodeTimeout(planBound))

	It("requests a GPU and gets its device", func(ctx SpecContext) {
		mark := unique("gpu")
		seen := e2e.Home + "/seen-" + mark
		run := jobs.ffmpeg("-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25", "-metadata", "title="+mark, "-f", "null", "-progress", "pipe:1", "-")
		run.Env = append(run.Env, "FFPOD_CLASS=nvidia")
		run.Stdin = &e2e.Input{Open: true}
		run.Steps = []e2e.Step{{Seen: &e2e.Seen{FD: 1, Text: "progress=continue"}}, {File: seen}, {Write: []byte("q")}}
		done := begin(ctx, e2e.Plan{Runs: []e2e.Run{run}})

		worker := world.serving(ctx, "nvidia", labelJob, mark)
		spec, err := world.set.CoreV1().Pods(namespace).Get(ctx, worker.name, metav1.GetOptions{})
		Expect(err).NotTo(HaveOccurred())
		gpus := spec.Spec.Containers[0].Resources.Limits["nvidia.com/gpu"]
		Expect(gpus.String()).To(Equal("1"))
		environ, err := worker.exec(ctx, nil, "cat", "/proc/1/environ")
		Expect(err).NotTo(HaveOccurred())
		Expect(strings.Split(environ, "\x00")).To(ContainElement(HavePrefix("FFPOD_FAKE_GPU=")), "the fake device plugin's; run against `go run ./test/cluster up`")
		client.shell(ctx, "touch "+seen)
		Expect(result(done)).To(exit(0))
	}, NodeTimeout(planBound))

	It("ends when the shim is killed, and tells how", func(ctx SpecContext) {
		mark := unique("killed")
		run := jobs.child(e2e.Child{Mark: mark, Ready: true, Stay: true})
		run.Steps = []e2e.Step{ready, {Signal: syscall.SIGKILL}}
		r := one(ctx, run)
		Expect(r).To(killed(int(syscall.SIGKILL)))
		session := sessionOf(r)
		Eventually(func(g Gomega) {
			for _, p := range podsOf(ctx, session) {
				g.Expect(p.Status.Phase).To(Equal(corev1.PodFailed))
			}
			for _, j := range jobsOf(ctx, session) {
				g.Expect(condition(j, batchv1.JobFailed)).To(BeTrue())
			}
		}).WithContext(ctx).WithTimeout(jobTruthBound).Should(Succeed())
	}, NodeTimeout(planBound))

	It("that no node takes is deleted when its caller gives up", Serial, func(ctx SpecContext) {
		seen := e2e.Home + "/" + unique("seen")
		run := jobs.childOf("stuck", e2e.Child{})
		run.Steps = []e2e.Step{{File: seen}, {Signal: syscall.SIGTERM}}
		done := begin(ctx, e2e.Plan{Runs: []e2e.Run{run}})
		stuck := func() []batchv1.Job {
			GinkgoHelper()
			list, err := world.set.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{LabelSelector: "ffpod.dev/class=stuck"})
			Expect(err).NotTo(HaveOccurred())
			return list.Items
		}
		Eventually(stuck).WithContext(ctx).WithTimeout(jobTruthBound).Should(HaveLen(1))
		client.shell(ctx, "touch "+seen)
		Expect(result(done)).To(killed(int(syscall.SIGTERM)))
		Eventually(stuck).WithContext(ctx).WithTimeout(jobTruthBound).Should(BeEmpty())
	}, NodeTimeout(planBound))

	It("that no node takes in time is a refusal in Kubernetes' words", func(ctx SpecContext) {
		run := jobs.childOf("stuck", e2e.Child{})
		run.Env = append(run.Env, "FFPOD_WAIT=5s")
		r := one(ctx, run)
		Expect(r).To(refuse("stuck", "node"))
	}, NodeTimeout(planBound))
})

// begin plays a plan while the suite does something else.
func begin(ctx context.Context, plan e2e.Plan) <-chan []e2e.Result {
	done := make(chan []e2e.Result, 1)
	go func() {
		defer GinkgoRecover()
		defer close(done)
		done <- play(ctx, plan)
	}()
	return done
}
