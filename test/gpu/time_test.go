package gpu_test

import (
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
)

// loudness measures, and writes nothing.
func loudness(name string, seconds string) session {
	return session{name: name, argv: []string{"-hide_banner", "-re", "-f", "lavfi", "-i", "sine=d=" + seconds, "-af", "ebur128=framelog=verbose", "-f", "null", "-"}}
}

func times() {
	It("is taken from a measurement for a playback, and given back", func(ctx SpecContext) {
		begin(ctx, loudness("loud-1", "25"), loudness("loud-2", "25"))
		runs(ctx, "loud-1")
		runs(ctx, "loud-2")
		worker := workers(ctx, cpu, "warm")[0].Name
		begin(ctx, playback("urgent", cpu, source(6, true)))
		s := runs(ctx, "urgent")
		Expect(s).To(And(HaveField("Pod", worker), HaveField("Reason", ContainSubstring("is paused for it"))))
		stopped := func() int {
			out := do(ctx, "exec", worker, "-c", "worker", "--", "sh", "-c", `for s in /proc/[0-9]*/stat; do read -r _ name state _ <$s && echo "$name $state"; done 2>/dev/null; true`)
			return strings.Count(out, "(ffmpeg) T")
		}
		Expect(stopped()).To(Equal(1))
		all := end(ctx, "urgent", "loud-1", "loud-2")
		Expect(stopped()).To(BeZero())
		for _, name := range []string{"urgent", "loud-1", "loud-2"} {
			Expect(all[name].code).To(BeZero(), all[name].stderr)
		}
		for _, name := range []string{"loud-1", "loud-2"} {
			Expect(all[name].stderr).To(ContainSubstring("Integrated loudness"))
			Expect(audit(ctx, all[name]).Worker).To(Equal(worker))
		}
		complete(ctx, "urgent")
	}, NodeTimeout(specBound))

	It("is saved by a Job on standby, which is replaced", func(ctx SpecContext) {
		do(ctx, "annotate", "--overwrite", "deployment/ffpod-"+intel, "ffpod.dev/standby=1")
		standby := func() (found []string) {
			for _, w := range status(ctx).Workers {
				if w.Class == intel && w.Role != "warm" && w.Ready && w.Used == 0 {
					found = append(found, w.Pod)
				}
			}
			return found
		}
		Eventually(standby).WithContext(ctx).WithTimeout(soon).Should(HaveLen(1))
		was := standby()[0]
		r := one(ctx, playback("ahead", intel, source(1, false)).with("FFPOD_POLICY=job"))
		Expect(r.code).To(BeZero(), r.stderr)
		told := audit(ctx, r)
		Expect(told).To(And(HaveField("Placement", "standby"), HaveField("Worker", was)))
		Expect(told.Queued+told.Launching).To(BeNumerically("<", 1), "a pod takes longer")
		Eventually(standby).WithContext(ctx).WithTimeout(soon).Should(And(HaveLen(1), Not(ContainElement(was))))
		do(ctx, "annotate", "deployment/ffpod-"+intel, "ffpod.dev/standby-")
		Eventually(func() int { return len(workers(ctx, intel, "job")) }).WithContext(ctx).WithTimeout(soon).Should(BeZero(), "retired")
	}, NodeTimeout(specBound))

	It("of a worker that nobody needs is not spent: from zero to one and back", func(ctx SpecContext) {
		replicas := func() int32 {
			return *read[appsv1.Deployment](ctx, "deployment/ffpod-"+elastic).Spec.Replicas
		}
		Expect(replicas()).To(BeZero())
		r := one(ctx, session{name: "scaled", argv: append(append([]string{"-v", "error"}, source(1, false)...), "-f", "null", "-")}.with("FFPOD_CLASS="+elastic))
		Expect(r.code).To(BeZero(), r.stderr)
		Expect(audit(ctx, r)).To(And(HaveField("Class", elastic), HaveField("Placement", "warm")))
		Expect(replicas()).To(BeEquivalentTo(1))
		Eventually(replicas).WithContext(ctx).WithTimeout(soon).WithPolling(time.Second).Should(BeZero())
		Eventually(func() int { return len(workers(ctx, elastic, "")) }).WithContext(ctx).WithTimeout(soon).Should(BeZero())
	}, NodeTimeout(specBound))
}
