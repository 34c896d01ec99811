package skew_test

import (
	"context"
	"fmt"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gcustom"
	"github.com/onsi/gomega/types"

	"github.com/ffpod/ffpod/test/e2e"
)

const mib = 1 << 20

// combination is whose release each part is.
type combination struct{ shim, scheduler, worker string }

func (c combination) String() string {
	return fmt.Sprintf("shim %s, scheduler %s, worker %s", c.shim, c.scheduler, c.worker)
}

func (c combination) install() *install { return installs[c.scheduler] }

func combinations() (all []combination) {
	for _, scheduler := range []string{previous, present} {
		for _, shim := range []string{previous, present} {
			for _, worker := range []string{previous, present} {
				all = append(all, combination{shim, scheduler, worker})
			}
		}
	}
	return all
}

const (
	warm = "warm"
	jobs = "job"
)

// ffmpeg is a run of the combination's shim.
func (c combination) ffmpeg(policy string, args ...string) e2e.Run {
	return e2e.Run{Path: "/opt/ffpod/" + c.shim + "/ffmpeg", Args: e2e.Args(args...), Env: []string{
		"FFPOD_MODE=remote", "FFPOD_POLICY=" + policy, "FFPOD_CLASS=" + c.worker, "FFPOD_WAIT=60s",
	}}
}

// child is one whose ffmpeg is the driver's child.
func (c combination) child(policy string, child e2e.Child) e2e.Run {
	r := c.ffmpeg(policy)
	r.Args = child.Argv(child.Echo)
	return r
}

var _ = Describe("A release and the next", func() {
	for _, c := range combinations() {
		Describe(c.String(), func() {
			It("run every kind of session", func(ctx SpecContext) { c.runEverything(ctx) }, NodeTimeout(playBound))
			It("leave no ffmpeg behind a shim that was killed", func(ctx SpecContext) { c.killShims(ctx) }, NodeTimeout(playBound))
		})
	}
	for _, scheduler := range []string{previous, present} {
		It("lose nothing with scheduler "+scheduler+" when it is killed", func(ctx SpecContext) {
			i := installs[scheduler]
			i.disturb(ctx, func() {
				i.must(ctx, "delete", "pod", "-l", "app.kubernetes.io/component=scheduler", "--force", "--grace-period=0")
			})
			i.must(ctx, "rollout", "status", "deploy/ffpod-scheduler", "--timeout="+readyBound.String())
			i.reaches(ctx)
		}, NodeTimeout(playBound+readyBound))

		It("lose nothing with scheduler "+scheduler+" when its channels break", func(ctx SpecContext) {
			i := installs[scheduler]
			i.disturb(ctx, func() { i.breakChannels(ctx) })
			i.reaches(ctx)
		}, NodeTimeout(playBound+readyBound))
	}
})

// runEverything plays what a caller may do, all at the same time.
func (c combination) runEverything(ctx context.Context) {
	GinkgoHelper()
	bytes := e2e.Flood{Seed: 7, Bytes: 32 * mib}
	noise := e2e.Flood{Seed: 8, Bytes: mib}
	var runs []e2e.Run
	var checks []func(e2e.Result)
	run := func(r e2e.Run, check func(e2e.Result)) { runs, checks = append(runs, r), append(checks, check) }

	version := e2e.Run{Path: "/usr/bin/ffmpeg", Args: e2e.Args("-version")}
	var real e2e.Result
	run(version, func(r e2e.Result) { real = r; Expect(r).To(exit(0)) })
	encode := func(to string) []string {
		return []string{"-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=4", "-c:v", "libx264",
			"-preset", "ultrafast", "-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", e2e.Home + "/" + to + ".mkv"}
	}
	run(e2e.Run{Path: "/usr/bin/ffmpeg", Args: e2e.Args(encode("local-" + c.shim + c.worker)...)}, func(r e2e.Result) { Expect(r).To(exit(0)) })
	for _, policy := range []string{warm, jobs} {
		run(c.ffmpeg(policy, "-version"), func(r e2e.Result) {
			Expect(r).To(exit(0))
			Expect(r.Stdout.SHA).To(Equal(real.Stdout.SHA), words(r))
		})
		run(c.ffmpeg(policy, encode(policy+"-"+c.shim+c.worker)...), func(r e2e.Result) {
			Expect(r).To(exit(0))
			Expect(r.Stderr.Bytes).To(BeZero(), words(r))
		})
	}
	echo := c.child(warm, e2e.Child{Echo: true, Code: 3})
	echo.Stdin = &e2e.Input{Random: bytes}
	run(echo, func(r e2e.Result) {
		Expect(r).To(exit(3))
		Expect(r.Stdout).To(carry(bytes))
	})
	run(c.child(warm, e2e.Child{Stdout: noise, Stderr: e2e.Flood{Seed: 9, Bytes: mib}, Code: 255}), func(r e2e.Result) {
		Expect(r).To(exit(255))
		Expect(r.Stdout).To(carry(noise))
		Expect(r.Stderr).To(carry(e2e.Flood{Seed: 9, Bytes: mib}))
	})
	run(c.child(jobs, e2e.Child{Code: 7}), func(r e2e.Result) { Expect(r).To(exit(7)) })
	run(c.child(warm, e2e.Child{Die: int(syscall.SIGSEGV)}), func(r e2e.Result) { Expect(r).To(killed(syscall.SIGSEGV)) })
	term := c.child(warm, e2e.Child{Ready: true, Stay: true, Catch: []int{int(syscall.SIGTERM)}})
	term.Steps = []e2e.Step{{Seen: &e2e.Seen{FD: 2, Text: "ready\n"}}, {Signal: syscall.SIGTERM}}
	run(term, func(r e2e.Result) {
		Expect(r).To(exit(e2e.CaughtCode + int(syscall.SIGTERM)))
		Expect(string(r.Stderr.Head)).To(Equal("ready\ncaught 15\n"))
	})
	talk := c.child(warm, e2e.Child{Answer: true, Stay: true, Code: 9})
	talk.Stdin = &e2e.Input{Text: []byte("q\r\nu\n"), Open: true}
	talk.Steps = []e2e.Step{{Seen: &e2e.Seen{FD: 2, Text: "answer u\n"}}, {CloseStdin: true}}
	run(talk, func(r e2e.Result) { Expect(r).To(exit(9)) })
	missing := []string{"-v", "error", "-nostdin", "-i", "/cache/missing.mkv", "-f", "null", "-"}
	var bare e2e.Result
	run(e2e.Run{Path: "/usr/bin/ffmpeg", Args: e2e.Args(missing...)}, func(r e2e.Result) { bare = r; Expect(r).NotTo(exit(0)) })
	run(c.ffmpeg(warm, missing...), func(r e2e.Result) {
		Expect(r).To(exit(bare.Code))
		Expect(string(r.Stderr.Head)).To(Equal(string(bare.Stderr.Head)))
	})

	for n, r := range c.install().play(ctx, runs...) {
		checks[n](r)
	}
	sums := c.install().must(ctx, "exec", "deploy/ffpod-client", "-c", "client", "--", "sh", "-euc",
		fmt.Sprintf("cd %s; sha256sum local-%[2]s.mkv warm-%[2]s.mkv job-%[2]s.mkv | cut -d' ' -f1 | sort -u | wc -l", e2e.Home, c.shim+c.worker))
	Expect(sums).To(Equal("1"), "the films differ")
}

// killShims kills shims as Jellyfin does: what they ran goes at once.
func (c combination) killShims(ctx context.Context) {
	GinkgoHelper()
	mark := unique("killed")
	deaf := e2e.Child{Mark: mark, Ready: true, Stay: true, Ignore: []int{1, 2, 3, 13, 15}}
	busy := e2e.Child{Mark: mark, Ready: true, Stdout: e2e.Flood{Bytes: 1 << 40}}
	var runs []e2e.Run
	for _, r := range []e2e.Run{c.child(warm, deaf), c.child(warm, busy), c.child(jobs, deaf)} {
		r.Steps = []e2e.Step{{Seen: &e2e.Seen{FD: 2, Text: "ready\n"}}, {Signal: syscall.SIGKILL}}
		runs = append(runs, r)
	}
	for _, r := range c.install().play(ctx, runs...) {
		Expect(r).To(killed(syscall.SIGKILL))
	}
	c.install().expectGone(ctx, mark, promptBound)
}

// disturb breaks something while sessions of all shims and workers of an install
// run. Each goes on, ends right, and leaves nothing running.
func (i *install) disturb(ctx context.Context, what func()) {
	GinkgoHelper()
	mark := unique("disturbed")
	bytes := e2e.Flood{Seed: 11, Bytes: 8 * mib}
	var of []combination
	var runs []e2e.Run
	for _, shim := range []string{previous, present} {
		for _, worker := range []string{previous, present} {
			for _, policy := range []string{warm, jobs} {
				c := combination{shim, i.release, worker}
				r := c.child(policy, e2e.Child{Mark: mark, Ready: true, Stdout: bytes})
				r.Stdout.Rate = 512 << 10 // so that it runs for 16 s
				of, runs = append(of, c), append(runs, r)
			}
		}
	}
	done := make(chan []e2e.Result, 1)
	go func() {
		defer GinkgoRecover()
		defer close(done)
		done <- i.play(ctx, runs...)
	}()
	Eventually(func() ([]string, error) { return i.living(ctx, mark) }).WithContext(ctx).WithTimeout(promptBound * 2).Should(HaveLen(len(runs)))
	what()
	results, ok := <-done
	Expect(ok).To(BeTrue(), "the plan was not played")
	for n, r := range results {
		AddReportEntry(fmt.Sprintf("%s, %s", of[n], runs[n].Env[1]), words(r), ReportEntryVisibilityFailureOrVerbose)
		Expect(r).To(exit(0), of[n].String())
		Expect(r.Stdout).To(carry(bytes), "a lie: "+of[n].String())
	}
	i.expectGone(ctx, mark, promptBound)
}

// breakChannels kills `worker dial` in every worker. One of a Job may end with its
// session, and take the exec that did it along.
func (i *install) breakChannels(ctx context.Context) {
	GinkgoHelper()
	const kill = `for p in /proc/[0-9]*; do case "$(tr '\0' ' ' <$p/cmdline 2>/dev/null)" in "/ffpod/worker dial "*) kill -9 ${p#/proc/} && echo killed;; esac; done`
	for _, pod := range i.workers(ctx) {
		out, err := kubectl(ctx, nil, "-n", i.namespace, "exec", pod, "-c", "worker", "--", "sh", "-c", kill)
		if err != nil {
			Expect(err).To(MatchError(ContainSubstring("exit code 137")))
		}
		Expect(out).To(ContainSubstring("killed"), "%s has no channel", pod)
	}
}

// expectGone waits until no process of any worker has the mark.
func (i *install) expectGone(ctx context.Context, mark string, bound time.Duration) {
	GinkgoHelper()
	Eventually(func() ([]string, error) { return i.living(ctx, mark) }).WithContext(ctx).WithTimeout(bound).Should(BeEmpty(), "ffmpeg is left")
}

func exit(code int) types.GomegaMatcher {
	return matcher(fmt.Sprintf("exit with code %d", code), func(r e2e.Result) bool { return r.Signal == 0 && r.Code == code })
}

func killed(signal syscall.Signal) types.GomegaMatcher {
	return matcher("end by signal "+signal.String(), func(r e2e.Result) bool { return r.Signal == signal })
}

func carry(f e2e.Flood) types.GomegaMatcher {
	return gcustom.MakeMatcher(func(s e2e.Stream) (bool, error) {
		return s.Bytes == f.Bytes && s.SHA == f.SHA() && !s.Held, nil
	}).WithTemplate("Expected a stream of {{.Data}} bytes with its sum, got {{.Actual.Bytes}}", f.Bytes)
}

func matcher(what string, test func(e2e.Result) bool) types.GomegaMatcher {
	return gcustom.MakeMatcher(func(r e2e.Result) (bool, error) { return test(r), nil }).
		WithTemplate("Expected to {{.Data.What}}, saw {{call .Data.Words .Actual}}", struct {
			What  string
			Words func(e2e.Result) string
		}{what, words})
}

// unique is a mark that no other process has.
func unique(what string) string { return what + "-" + time.Now().Format("150405.000000000") }
