package gpu_test

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

func placements() {
	It("gives each session a worker that proved what it needs, under a mixed load", func(ctx SpecContext) {
		wants := map[string]string{}
		var all []session
		for i := range 4 {
			for _, class := range []string{cpu, nvidia, intel, amd} {
				name := fmt.Sprintf("mix-%s-%d", class, i)
				wants[name] = class
				all = append(all, playback(name, class, source(2, false)))
			}
		}
		begin(ctx, all...)
		ended := end(ctx, names(wants)...)
		for name, class := range wants {
			r := ended[name]
			Expect(r.code).To(BeZero(), "%s: %s", name, r.stderr)
			Expect(audit(ctx, r)).To(And(HaveField("Class", class), HaveField("Exit", "0"), HaveField("Reason", HavePrefix("class "+class))))
			complete(ctx, name)
		}
	}, NodeTimeout(specBound))

	It("gives nothing to an encoder that lies, or stalls, and says why", func(ctx SpecContext) {
		for encoder, why := range map[string]string{"av1_vaapi": "No usable encoding profile found", "hevc_vaapi": "stalled"} {
			name := "lie-" + encoder
			r := one(ctx, onVAAPI(name, encoder, source(1, false)))
			Expect(r.code).NotTo(BeZero())
			Expect(r.stderr).To(And(ContainSubstring("encoder:"+encoder), ContainSubstring(why)))
			Expect(audit(ctx, r)).To(And(HaveField("Exit", "refused"), HaveField("Cause", ContainSubstring(why)), HaveField("Worker", "")))
		}
		r := one(ctx, onVAAPI("honest", "h264_vaapi", source(1, false)))
		Expect(r.code).To(BeZero(), r.stderr)
		Expect(audit(ctx, r).Class).To(Equal(amd))
	}, NodeTimeout(specBound))

	It("goes from warm slots to a Job, to the queue, and for pictures to the caller", func(ctx SpecContext) {
		begin(ctx, long("warm-1", nvidia), long("warm-2", nvidia))
		for _, name := range []string{"warm-1", "warm-2"} {
			Expect(runs(ctx, name).Placement).To(Equal("warm"))
		}
		begin(ctx, long("job", nvidia))
		job := runs(ctx, "job")
		Expect(job).To(And(HaveField("Placement", "job"), HaveField("Class", nvidia), HaveField("Reason", ContainSubstring("2 of 2 warm slots taken"))))

		begin(ctx, long("queue-1", nvidia))
		waits(ctx, "queue-1", "2 of 2 warm slots taken", "1 of 1 Jobs run")
		begin(ctx, long("queue-2", nvidia))
		waits(ctx, "queue-2", "1 of 1 Jobs run")
		Eventually(func() string { return results(ctx)["queue-2"].stderr }).WithContext(ctx).WithTimeout(soon).
			Should(ContainSubstring("waiting for a worker"), "the notice to a server")

		// One picture the shim makes itself without asking; a series goes to workers.
		pictures := session{name: "pictures", env: []string{"FFPOD_CLASS=" + nvidia, "FFPOD_MODE=auto"},
			argv: append(append([]string{"-v", "error", "-y"}, source(3, false)...), "-vf", "fps=1", "-f", "image2", home+"/pictures-%d.jpg")}
		r := one(ctx, pictures)
		Expect(r.code).To(BeZero(), r.stderr)
		Expect(r.log).To(ContainSubstring("local"))
		told := audit(ctx, r)
		Expect(told.Placement).To(Equal("local"))
		Expect(told.Cause).To(And(ContainSubstring("2 of 2 warm slots taken"), ContainSubstring("kind trickplay runs locally after 5s")))

		stop(ctx, "warm-1")
		first := runs(ctx, "queue-1")
		Expect(first).To(And(HaveField("Placement", "warm"), HaveField("Class", nvidia)))
		stop(ctx, "job")
		Expect(runs(ctx, "queue-2").Class).To(Equal(nvidia))
		Expect(strings.Count(results(ctx)["queue-1"].stderr, "waiting for a worker")).To(Equal(1))
	}, NodeTimeout(specBound))
}
