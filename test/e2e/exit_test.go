package e2e_test

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/e2e"
)

// deadly are the signals whose default action ends a process.
func deadly() (all []int) {
	for n := 1; n <= 64; n++ {
		switch syscall.Signal(n) {
		case syscall.SIGCHLD, syscall.SIGCONT, syscall.SIGURG, syscall.SIGWINCH, // ignored
			syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, // stop
			32, 33: // the C library's own
		default:
			all = append(all, n)
		}
	}
	return all
}

func numbers(from, to int) (all []int) {
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

var _ = everyWay("A session ends", func(w way) {
	It("with every exit code from 0 to 255", func(ctx SpecContext) {
		codes := sample(w, numbers(0, 255))
		plan := e2e.Plan{Parallel: w.wide}
		for _, code := range codes {
			plan.Runs = append(plan.Runs, w.child(e2e.Child{Code: code}))
		}
		for i, r := range play(ctx, plan) {
			Expect(r).To(exit(codes[i]))
			Expect(r.Stdout).To(silent())
			Expect(r.Stderr).To(silent(), words(r))
		}
	}, NodeTimeout(planBound))

	It("by the signal that ended ffmpeg, as its parent sees it", func(ctx SpecContext) {
		// Of a Job: those that ffmpeg really dies of.
		signals := deadly()
		if w.few < len(signals) {
			signals = []int{int(syscall.SIGABRT), int(syscall.SIGKILL), int(syscall.SIGSEGV), int(syscall.SIGTERM)}
		}
		plan := e2e.Plan{Parallel: w.wide}
		for _, s := range signals {
			plan.Runs = append(plan.Runs, w.child(e2e.Child{Die: s}))
		}
		for i, r := range play(ctx, plan) {
			Expect(r).To(killed(signals[i]))
			Expect(r.Stderr).To(silent(), words(r))
		}
	}, NodeTimeout(planBound))

	It("by the signal, although ffmpeg wrote before", func(ctx SpecContext) {
		out, errs := e2e.Flood{Seed: 1, Bytes: 300_000}, e2e.Flood{Seed: 2, Bytes: 200_000}
		r := one(ctx, w.child(e2e.Child{Stdout: out, Stderr: errs, Die: int(syscall.SIGSEGV)}))
		Expect(r).To(killed(int(syscall.SIGSEGV)))
		Expect(r.Stdout).To(carry(out))
		Expect(r.Stderr).To(carry(errs))
	}, NodeTimeout(planBound))

	It("as ffmpeg ends when its caller signals it", func(ctx SpecContext) {
		signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}
		plan, caught := e2e.Plan{Parallel: w.wide}, len(signals)
		for _, s := range signals {
			run := w.child(e2e.Child{Ready: true, Catch: []int{int(s)}, Stay: true})
			run.Steps = []e2e.Step{ready, {Signal: s}}
			plan.Runs = append(plan.Runs, run)
		}
		// Not caught: the default action.
		for _, s := range sample(way{few: min(w.few/3, len(signals))}, signals) {
			run := w.child(e2e.Child{Ready: true, Default: []int{int(s)}, Stay: true})
			run.Steps = []e2e.Step{ready, {Signal: s}}
			plan.Runs = append(plan.Runs, run)
			signals = append(signals, s)
		}
		for i, r := range play(ctx, plan) {
			if i >= caught {
				Expect(r).To(killed(int(signals[i])))
				continue
			}
			Expect(r).To(exit(e2e.CaughtCode + int(signals[i])))
			Expect(string(r.Stderr.Head)).To(Equal(fmt.Sprintf("ready\ncaught %d\n", signals[i])))
		}
	}, NodeTimeout(planBound))

	It("not by a signal that ffmpeg ignores", func(ctx SpecContext) {
		run := w.child(e2e.Child{Ready: true, Ignore: []int{int(syscall.SIGTERM), int(syscall.SIGINT)}, Answer: true, Stay: true, Code: 5})
		run.Stdin = &e2e.Input{Open: true}
		run.Steps = []e2e.Step{
			ready, {Signal: syscall.SIGTERM}, {Signal: syscall.SIGINT},
			{Write: []byte("alive\n")}, {Seen: &e2e.Seen{FD: 2, Text: "answer alive"}}, {CloseStdin: true},
		}
		Expect(one(ctx, run)).To(exit(5))
	}, NodeTimeout(planBound))

	It("with real ffmpeg's own words and code after SIGTERM", func(ctx SpecContext) {
		run := w.ffmpeg("-hide_banner", "-re", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25", "-f", "null", "-")
		run.Steps = []e2e.Step{{Seen: &e2e.Seen{FD: 2, Text: "frame="}}, {Signal: syscall.SIGTERM}}
		r := one(ctx, run)
		Expect(r).To(exit(255))
		Expect(string(r.Stderr.Head)).To(ContainSubstring("received signal 15"))
	}, NodeTimeout(planBound))

	It("only when both streams are complete", func(ctx SpecContext) {
		plan := e2e.Plan{Parallel: w.wide}
		var want [][2]e2e.Flood
		for i := range min(40, w.few/2) {
			out := e2e.Flood{Seed: uint64(2 * i), Bytes: int64(1 + i*i*997)}
			errs := e2e.Flood{Seed: uint64(2*i + 1), Bytes: int64(1 + i*33_333)}
			run := w.child(e2e.Child{Stdout: out, Stderr: errs, Code: i})
			if i%4 == 3 { // nobody reads until all is written or every buffer is full
				run.Stdout.HoldAfter, run.Stderr.HoldAfter = -1, -1
				run.Steps = []e2e.Step{{Pause: 2 * time.Second}, {Release: 2}, {Release: 1}}
			}
			want = append(want, [2]e2e.Flood{out, errs})
			plan.Runs = append(plan.Runs, run)
		}
		for i, r := range play(ctx, plan) {
			Expect(r).To(exit(i))
			Expect(r.Stdout).To(carry(want[i][0]))
			Expect(r.Stderr).To(carry(want[i][1]))
		}
	}, NodeTimeout(planBound))

	It("with what a missing file ends with", func(ctx SpecContext) {
		run := w.ffmpeg("-hide_banner", "-nostdin", "-i", "/media/none.mkv", "-f", "null", "-")
		same(ctx, run, func(b []byte) string { return string(b) })
		Expect(string(one(ctx, bare(run)).Stderr.Head)).To(ContainSubstring("No such file"))
	}, NodeTimeout(planBound))
})

// ready waits for a child to have set up its signals.
var ready = e2e.Step{Seen: &e2e.Seen{FD: 2, Text: "ready\n"}}

// same runs a command with and without the shim, and expects one parent to see
// what the other sees. clean drops from stderr what differs between any two runs.
func same(ctx SpecContext, run e2e.Run, clean func([]byte) string) {
	GinkgoHelper()
	results := play(ctx, e2e.Plan{Parallel: 1, Runs: []e2e.Run{bare(run), run}})
	plain, got := results[0], results[1]
	Expect(got.Code).To(Equal(plain.Code), words(got))
	Expect(got.Signal).To(Equal(plain.Signal), words(got))
	Expect(got.Stdout.SHA).To(Equal(plain.Stdout.SHA), "%s\nbut without the shim\n%s", words(got), words(plain))
	Expect(strings.Split(clean(got.Stderr.Head), "\n")).To(Equal(strings.Split(clean(plain.Stderr.Head), "\n")))
}
