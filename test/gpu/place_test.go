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

	It("rewrites a line for a class that offers itself, when the line's own hardware is taken", func(ctx SpecContext) {
		film := session{name: "film", argv: append(append([]string{"-v", "error", "-y"}, source(2, false)...), "-c:v", "libx264", home+"/film.mkv")}
		r := one(ctx, film.with("FFPOD_CLASS="+cpu))
		Expect(r.code).To(BeZero(), r.stderr)
		do(ctx, "annotate", "--overwrite", "deployment/ffpod-"+cpu, "ffpod.dev/translate=true")
		DeferCleanup(func(ctx SpecContext) { do(ctx, "annotate", "deployment/ffpod-"+cpu, "ffpod.dev/translate-") })
		begin(ctx, long("own-1", nvidia), long("own-2", nvidia))
		runs(ctx, "own-1")
		runs(ctx, "own-2")

		line := strings.Fields("-hwaccel cuda -hwaccel_output_format cuda -i " + home + "/film.mkv -c:v h264_nvenc -b:v 400000 -maxrate 400000 -bufsize 800000 -an -f hls -hls_time 1 -hls_list_size 0 " + home + "/rewritten.m3u8")
		r = one(ctx, session{name: "rewritten", argv: line})
		Expect(r.code).To(BeZero(), r.stderr)
		told := audit(ctx, r)
		Expect(told).To(And(HaveField("Class", cpu), HaveField("Placement", "warm"), HaveField("Reason", ContainSubstring("rewritten"))))
		Expect(told.Translated).To(HavePrefix("software: "))
		complete(ctx, "rewritten")
	}, NodeTimeout(specBound))

	It("tells a hardware probe what a worker of the class said, while none is up", func(ctx SpecContext) {
		probe := func(name string) *result {
			return one(ctx, session{name: name, env: []string{"FFPOD_CLASS=" + amd, "FFPOD_WAIT=20s"},
				argv: []string{"-hide_banner", "-init_hw_device", "vaapi=va:/dev/dri/renderD128"}})
		}
		first := probe("probe-1")
		Expect(audit(ctx, first).Placement).To(Equal("warm"))
		Expect(first.stderr).To(ContainSubstring("Use -h to get full help"))
		do(ctx, "scale", "deployment/ffpod-"+amd, "--replicas=0")
		DeferCleanup(func(ctx SpecContext) {
			do(ctx, "scale", "deployment/ffpod-"+amd, "--replicas=1")
			ready(ctx, amd)
		})
		Eventually(func() int { return len(workers(ctx, amd, "")) }).WithContext(ctx).WithTimeout(soon).Should(BeZero())
		again := probe("probe-2")
		Expect(again.code).To(Equal(first.code))
		Expect(again.stderr).To(Equal(first.stderr))
		Expect(audit(ctx, again)).To(And(HaveField("Placement", "transcript"), HaveField("Reason", ContainSubstring("answered by class "+amd))))
	}, NodeTimeout(specBound))
}
