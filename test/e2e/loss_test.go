package e2e_test

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/test/e2e"
)

var _ = everyWay("A shim that is killed", func(w way) {
	It("takes ffmpeg with it, also one that ignores every signal", func(ctx SpecContext) {
		mark := unique("orphan")
		run := w.child(e2e.Child{Mark: mark, Ready: true, Ignore: []int{1, 2, 3, 13, 15}, Stdout: e2e.Flood{Bytes: 1 << 40}})
		run.Steps = []e2e.Step{ready, {Seen: &e2e.Seen{FD: 1, Bytes: mib}}, {Signal: syscall.SIGKILL}}
		r := one(ctx, run)
		Expect(r).To(killed(int(syscall.SIGKILL)))
		if w.name == labelJob { // the worker goes with its Job
			Eventually(func() []corev1.Pod {
				return slices.DeleteFunc(podsOf(ctx, sessionOf(r)), func(p corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
			}).WithContext(ctx).WithTimeout(jobTruthBound).Should(BeEmpty())
			return
		}
		Eventually(func(g Gomega) {
			g.Expect(client.marked(ctx, mark)).To(BeEmpty())
			g.Expect(world.warm(ctx, "fake").marked(ctx, mark)).To(BeEmpty())
		}).WithContext(ctx).WithTimeout(promptBound).Should(Succeed())
	}, NodeTimeout(planBound))
})

// lingering starts a session of class single, and returns once ffmpeg runs.
func lingering(ctx context.Context, w way, c e2e.Child) (<-chan []e2e.Result, pod) {
	GinkgoHelper()
	c.Mark, c.Ready, c.Stay = unique("linger"), true, true
	done := begin(ctx, e2e.Plan{Runs: []e2e.Run{w.childOf("single", c)}})
	worker := world.serving(ctx, "single", w.name, c.Mark)
	return done, worker
}

// result waits for the session's end.
func result(done <-chan []e2e.Result) e2e.Result {
	GinkgoHelper()
	var results []e2e.Result
	Eventually(done).WithTimeout(lossBound).Should(Receive(&results), "the shim still waits")
	Expect(results).To(HaveLen(1))
	return results[0]
}

// afterReady is stderr without the child's own line.
func afterReady(r e2e.Result) string { return strings.TrimPrefix(string(r.Stderr.Head), "ready\n") }

// recovered waits until the install works again.
func recovered(ctx SpecContext) {
	GinkgoHelper()
	world.awaitDeployments(ctx)
	works(ctx)
}

// works waits until a session passes: a Service reaches a pod some time after
// that pod is ready, when every node's proxy has heard of it.
func works(ctx SpecContext) {
	GinkgoHelper()
	Eventually(func() e2e.Result { return one(ctx, warm.childOf("single", e2e.Child{Code: 8})) }).
		WithContext(ctx).WithTimeout(lossBound).Should(exit(8), "the install does not work")
}

var _ = remoteWays("The loss of a worker", func(w way) {
	AfterEach(recovered, NodeTimeout(readyBound))

	It("that is deleted ends ffmpeg in order, and the shim says why", Serial, Label(labelLosses), func(ctx SpecContext) {
		done, worker := lingering(ctx, w, e2e.Child{Catch: []int{int(syscall.SIGTERM)}})
		worker.delete(ctx, 10)
		r := result(done)
		Expect(r).To(exit(e2e.CaughtCode + int(syscall.SIGTERM)))
		said := strings.TrimPrefix(afterReady(r), "caught 15\n")
		Expect(said).To(Satisfy(isOneLine), words(r))
		Expect(said).To(ContainSubstring("deleted"))
	}, NodeTimeout(planBound))

	It("that is gone at once is not a success", Serial, Label(labelLosses), func(ctx SpecContext) {
		done, worker := lingering(ctx, w, e2e.Child{Ignore: []int{int(syscall.SIGTERM)}})
		worker.delete(ctx, 0)
		r := result(done)
		Expect(r).To(Or(exit(session.InfrastructureExit), killed(int(syscall.SIGKILL))))
		Expect(afterReady(r)).To(Satisfy(isOneLine), words(r))
		Expect(afterReady(r)).To(Or(ContainSubstring(worker.name), ContainSubstring("deleted")))
	}, NodeTimeout(planBound))
})

var _ = Describe("The loss of the scheduler", Serial, Label(labelWarm, labelLosses), func() {
	AfterEach(recovered, NodeTimeout(readyBound))

	It("is noticed by none of 20 sessions", func(ctx SpecContext) {
		release := e2e.Home + "/" + unique("release")
		var plan e2e.Plan
		var want []e2e.Flood
		for i := range 20 {
			flood := e2e.Flood{Seed: uint64(i), Bytes: 4*mib + int64(i)}
			run := warm.child(e2e.Child{Ready: true, Stdout: flood, Stderr: e2e.Flood{Seed: 99, Bytes: mib}, Code: i})
			run.Stdout.HoldAfter = mib // its ring and its pipes are full
			run.Stdin = &e2e.Input{Open: true}
			run.Steps = []e2e.Step{{Seen: &e2e.Seen{FD: 1, Bytes: mib}}, {File: release}, {Release: 1}}
			plan.Runs, want = append(plan.Runs, run), append(want, flood)
		}
		done := begin(ctx, plan)
		Eventually(func() float64 { return world.metric(ctx, `ffpod_sessions_running{placement="warm"}`) }).
			WithContext(ctx).WithTimeout(readyBound).Should(BeNumerically(">=", 20))
		world.find(ctx, "app.kubernetes.io/component=scheduler", "scheduler").delete(ctx, 10)
		world.awaitDeployments(ctx)
		client.shell(ctx, "touch "+release)
		var results []e2e.Result
		Eventually(done).WithContext(ctx).WithTimeout(planBound).Should(Receive(&results))
		for i, r := range results {
			Expect(r).To(exit(i), words(r))
			Expect(r.Stdout.SHA).To(Equal(want[i].SHA()))
			Expect(r.Stderr.Bytes).To(BeEquivalentTo(mib+len("ready\n")), "a line of ffpod's own")
		}
	}, NodeTimeout(planBound+readyBound))

	It("and of its caller at once leaves no ffmpeg behind", func(ctx SpecContext) {
		scheduler := world.find(ctx, "app.kubernetes.io/component=scheduler", "scheduler")
		mark := unique("both")
		gone := e2e.Home + "/" + mark
		run := warm.child(e2e.Child{Mark: mark, Ready: true, Stay: true, Ignore: []int{int(syscall.SIGTERM)}})
		run.Steps = []e2e.Step{ready, {File: gone}, {Signal: syscall.SIGKILL}}
		done := begin(ctx, e2e.Plan{Runs: []e2e.Run{run}})
		worker := world.serving(ctx, "fake", labelWarm, mark)
		scheduler.delete(ctx, 0)
		client.shell(ctx, "touch "+gone)
		Expect(result(done)).To(killed(int(syscall.SIGKILL)))
		world.awaitDeployments(ctx)
		// The next scheduler waits for a living shim, and knows then that there is none.
		Eventually(func() []e2e.Process {
			marked, err := worker.marked(ctx, mark)
			Expect(err).NotTo(HaveOccurred())
			return marked
		}).WithContext(ctx).WithTimeout(lossBound + 30*time.Second).Should(BeEmpty())
	}, NodeTimeout(planBound))

	It("for long refuses a session within a bound", func(ctx SpecContext) {
		scale := func(replicas int32) {
			GinkgoHelper()
			s, err := world.set.AppsV1().Deployments(namespace).GetScale(ctx, "ffpod-scheduler", metav1.GetOptions{})
			Expect(err).NotTo(HaveOccurred())
			s.Spec.Replicas = replicas
			_, err = world.set.AppsV1().Deployments(namespace).UpdateScale(ctx, "ffpod-scheduler", s, metav1.UpdateOptions{})
			Expect(err).NotTo(HaveOccurred())
		}
		scale(0)
		defer scale(1)
		Eventually(func(g Gomega) { // one that is being deleted may still serve
			list, err := world.set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=scheduler"})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(list.Items).To(BeEmpty())
		}).WithContext(ctx).WithTimeout(lossBound).Should(Succeed())
		run := warm.child(e2e.Child{})
		run.Within = 30 * time.Second
		Expect(one(ctx, run)).To(refuse("scheduler"))
	}, NodeTimeout(planBound))
})
