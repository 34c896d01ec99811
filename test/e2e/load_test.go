package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/test/e2e"
)

// idle are the processes a warm worker may have between sessions: the
// supervisor, and the far ends of channels.
func idle(p e2e.Process) bool {
	return len(p.Args) == 2 && p.Args[0] == "/ffpod/worker" && (p.PID == 1 && p.Args[1] == "serve" || p.PID != 1 && p.Args[1] == "dial")
}

// expectIdle waits until no process of a session is left in the worker.
func expectIdle(ctx SpecContext, worker pod, within time.Duration) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		all, err := worker.processes(ctx)
		g.Expect(err).NotTo(HaveOccurred())
		left := slices.DeleteFunc(all, idle)
		g.Expect(left).To(BeEmpty(), "processes in %s", worker.name)
	}).WithContext(ctx).WithTimeout(within).Should(Succeed())
}

// expectNothingLeft looks at what all specs together may have left behind: no
// process in a worker, and no Job but finished ones, which are kept a while to be
// looked at.
func expectNothingLeft(ctx SpecContext) {
	GinkgoHelper()
	for _, class := range []string{"fake", "single", "cpu", "broken"} {
		expectIdle(ctx, world.warm(ctx, class), calmBound)
	}
	Eventually(func(g Gomega) {
		list, err := world.set.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		for _, j := range list.Items {
			g.Expect(condition(j, batchv1.JobComplete) || condition(j, batchv1.JobFailed)).To(BeTrue(), "Job %s is still active", j.Name)
			g.Expect(j.Spec.TTLSecondsAfterFinished).NotTo(BeNil(), "Job %s is kept for ever", j.Name)
		}
	}).WithContext(ctx).WithTimeout(calmBound).Should(Succeed())
}

var _ = Describe("Many sessions", Label(labelWarm), func() {
	It("run at once, each byte-exact, and leave nothing behind", Serial, func(ctx SpecContext) {
		before := world.metric(ctx, "go_goroutines")
		var plan e2e.Plan
		var data []e2e.Flood
		for i := range crowdSize {
			data = append(data, e2e.Flood{Seed: uint64(1000 + i), Bytes: 2*mib + int64(i)*4099})
			run := warm.child(e2e.Child{Ready: true, Echo: true, Code: i})
			run.Stdin = &e2e.Input{Random: data[i]}
			// More than every buffer on the way holds: none is through before all run.
			run.Stdout.HoldAfter = 1024
			run.Steps = []e2e.Step{ready, {Gather: crowdSize}, {Release: 1}}
			plan.Runs = append(plan.Runs, run)
		}
		for i, r := range play(ctx, plan) {
			Expect(r).To(exit(i))
			Expect(r.Stdout).To(carry(data[i]), "session %d", i)
			Expect(string(r.Stderr.Head)).To(Equal("ready\n"))
		}
		expectIdle(ctx, world.warm(ctx, "fake"), calmBound)
		Expect(client.marked(ctx, e2e.Shim)).To(BeEmpty())
		Eventually(func() float64 { return world.metric(ctx, "go_goroutines") }).WithContext(ctx).WithTimeout(calmBound).
			Should(BeNumerically("<=", before+10), "goroutines of the scheduler, %v before", before)
		Expect(world.metric(ctx, "ffpod_queue_length")).To(BeZero())
	}, NodeTimeout(planBound))
})

var _ = Describe("A slow consumer", Label(labelWarm, labelSlow), func() {
	It("loses nothing and disturbs no neighbour on the same worker", func(ctx SpecContext) {
		// Far more than all buffers on the way hold, so that ffmpeg itself stops.
		data := e2e.Flood{Seed: 90, Bytes: 32 * mib}
		stalled := warm.child(e2e.Child{Answer: true, Stdout: data, Code: 2})
		stalled.Stdin = &e2e.Input{Open: true}
		stalled.Stdout.HoldAfter = mib
		asked := func(i int) []e2e.Step {
			return []e2e.Step{
				{Pause: stall / 3},
				{Write: fmt.Appendf(nil, "question %d\n", i)}, {Seen: &e2e.Seen{FD: 2, Text: fmt.Sprintf("answer question %d\n", i)}},
			}
		}
		stalled.Steps = slices.Concat([]e2e.Step{{Seen: &e2e.Seen{FD: 1, Bytes: mib}}, {Gather: 3}}, asked(1), asked(2), asked(3), []e2e.Step{{Release: 1}})

		slow := warm.child(e2e.Child{Stdout: data, Code: 3})
		slow.Stdout.Rate = slowRate
		slow.Steps = []e2e.Step{{Seen: &e2e.Seen{FD: 1, Bytes: slowRate}}, {Gather: 3}, {Pause: slowSpan}, {Release: 1}}

		// The neighbour begins when both are at it, again and again. The shell adds
		// up what cksum says of each turn.
		const turns = 6
		full := warm.child(e2e.Child{Stdout: e2e.Flood{Seed: 91, Bytes: 32 * mib}})
		fast := warm.script(`read -r go; for turn in 1 2 3 4 5 6; do ` + e2e.Shim + ` "$@" | sha256sum; done; echo finished`)
		fast.Env, fast.Args = full.Env, append(append(fast.Args, []byte("sh")), full.Args...)
		fast.Stdin = &e2e.Input{Open: true}
		fast.Steps = []e2e.Step{{Gather: 3}, {Write: []byte("go\n")}, {Seen: &e2e.Seen{FD: 1, Text: "finished"}}}

		results := play(ctx, e2e.Plan{Runs: []e2e.Run{stalled, slow, fast}})
		Expect(results[0]).To(exit(2))
		Expect(results[0].Stdout).To(carry(data))
		Expect(results[1]).To(exit(3))
		Expect(results[1].Stdout).To(carry(data))
		Expect(results[2]).To(exit(0))
		Expect(strings.Count(string(results[2].Stdout.Head), e2e.Flood{Seed: 91, Bytes: 32 * mib}.SHA())).To(Equal(turns), words(results[2]))
		Expect(results[2].Ended).To(BeNumerically("<", results[0].Steps[len(results[0].Steps)-1]), "the fast session was held up until the stalled one went on")
	}, NodeTimeout(slowPlanBound))
})
