package e2e_test

import (
	"os"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/e2e"
)

// Each of these breaks a plain exec: it loses the exit code and the tail, delivers
// nothing past a full pipe, or is cut by the transport's own time-outs.
var _ = everyWay("What a plain exec fails at", func(w way) {
	It("works: a flood of stdin, and an early exit", func(ctx SpecContext) {
		flood := e2e.Flood{Seed: 5, Bytes: 3 * mib}
		run := w.child(e2e.Child{Stdout: flood, Code: 42})
		run.Stdin = &e2e.Input{Random: e2e.Flood{Bytes: 1 << 40}}
		r := one(ctx, run)
		Expect(r).To(exit(42))
		Expect(r.Stdout.SHA).To(Equal(flood.SHA()))
	}, NodeTimeout(planBound))

	It("works: q past a blocked stdout", func(ctx SpecContext) {
		run := w.child(e2e.Child{Ready: true, Answer: true, Stdout: e2e.Flood{Bytes: 64 * mib}})
		run.Stdout.HoldAfter = -1
		run.Stdin = &e2e.Input{Open: true}
		run.Steps = []e2e.Step{ready, {Write: []byte("q\n")}, {Seen: &e2e.Seen{FD: 2, Text: "answer q\n"}}, {Release: 1}}
		r := one(ctx, run)
		Expect(r).To(exit(0))
		Expect(r.Stdout.SHA).To(Equal(e2e.Flood{Bytes: 64 * mib}.SHA()))
	}, NodeTimeout(planBound))
})

// soakBound is longer than ten minutes of silence.
const soakBound = 15 * time.Minute

var _ = remoteWays("For long", func(w way) {
	BeforeEach(func() {
		if os.Getenv("E2E_SOAK") == "" {
			Skip("`make soak` runs it: it takes eleven minutes")
		}
	})

	It("a session that says nothing for ten minutes ends as it would locally", func(ctx SpecContext) {
		run := w.child(e2e.Child{Ready: true, Answer: true, Stay: true, Code: 6})
		run.Stdin, run.Within = &e2e.Input{Open: true}, soakBound
		run.Steps = []e2e.Step{ready, {Pause: 10*time.Minute + 10*time.Second}, {Write: []byte("awake\n")}, {Seen: &e2e.Seen{FD: 2, Text: "answer awake\n"}}, {CloseStdin: true}}
		Expect(one(ctx, run)).To(exit(6))
	}, NodeTimeout(soakBound))

	It("a consumer that reads nothing for three minutes loses nothing", func(ctx SpecContext) {
		flood := e2e.Flood{Seed: 8, Bytes: 64 * mib}
		run := w.child(e2e.Child{Stdout: flood})
		run.Stdout.HoldAfter, run.Within = mib, soakBound
		run.Steps = []e2e.Step{{Seen: &e2e.Seen{FD: 1, Bytes: mib}}, {Pause: 3 * time.Minute}, {Release: 1}}
		r := one(ctx, run)
		Expect(r).To(exit(0))
		Expect(r.Stdout.SHA).To(Equal(flood.SHA()))
	}, NodeTimeout(soakBound))
})
