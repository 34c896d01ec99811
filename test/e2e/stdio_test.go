package e2e_test

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/e2e"
)

const mib = 1 << 20

var _ = everyWay("Bytes", func(w way) {
	It("are exact, 64 MiB from stdin to stdout", func(ctx SpecContext) {
		data := e2e.Flood{Seed: 64, Bytes: 64 * mib}
		run := w.child(e2e.Child{Echo: true, Code: 3})
		run.Stdin = &e2e.Input{Random: data}
		r := one(ctx, run)
		Expect(r).To(exit(3))
		Expect(r.Stdout).To(carry(data))
		Expect(r.Stderr).To(silent())
	}, NodeTimeout(planBound))

	It("are exact, 256 MiB of stdout", func(ctx SpecContext) {
		data := e2e.Flood{Seed: 256, Bytes: 256 * mib}
		r := one(ctx, w.child(e2e.Child{Stdout: data}))
		Expect(r).To(exit(0))
		Expect(r.Stdout).To(carry(data))
	}, NodeTimeout(planBound))

	It("are those of real ffmpeg on a pipe", func(ctx SpecContext) {
		run := w.ffmpeg("-v", "error", "-nostdin", "-i", film, "-map", "0:v", "-c:v", "copy", "-f", "mpegts", "-flags", "bitexact", "-")
		same(ctx, run, func(b []byte) string { return string(b) })
	}, NodeTimeout(planBound))

	It("of progress come at once, with carriage returns", func(ctx SpecContext) {
		// It would run for ten minutes; the first reports alone let it be ended.
		run := w.ffmpeg("-hide_banner", "-re", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25", "-t", "600", "-f", "null", "-")
		run.Stdin = &e2e.Input{Open: true}
		report := []e2e.Step{{Seen: &e2e.Seen{FD: 2, Text: "time=00:00:01."}}, {Seen: &e2e.Seen{FD: 2, Text: "time=00:00:02."}}}
		run.Steps = append(report, e2e.Step{Write: []byte("q")})
		r := one(ctx, run)
		Expect(r).To(exit(0))
		Expect(bytes.Count(r.Stderr.Head, []byte("\r"))).To(BeNumerically(">=", 3), words(r))
	}, NodeTimeout(planBound))
})

var _ = everyWay("Stdin", func(w way) {
	It("brings q to ffmpeg", func(ctx SpecContext) {
		out := fmt.Sprintf("%s/q-%s.mkv", e2e.Home, w.name)
		run := w.ffmpeg("-hide_banner", "-y", "-re", "-f", "lavfi", "-i", "testsrc2=size=64x64:rate=25", "-c:v", "libx264", "-preset", "ultrafast", out)
		run.Stdin = &e2e.Input{Open: true}
		run.Steps = []e2e.Step{{Seen: &e2e.Seen{FD: 2, Text: "frame="}}, {Write: []byte("q\n")}}
		Expect(one(ctx, run)).To(exit(0))
		Expect(client.shell(ctx, "ffprobe -v error -show_entries stream=codec_name -of csv=p=0 "+out)).To(Equal("h264"), "the file was not closed properly")
	}, NodeTimeout(planBound))

	It("ends when its caller's does", func(ctx SpecContext) {
		run := w.child(e2e.Child{Answer: true, Stay: true, Ready: true, Code: 9})
		run.Stdin = &e2e.Input{Text: []byte("one\ntwo\n"), Open: true}
		run.Steps = []e2e.Step{{Seen: &e2e.Seen{FD: 2, Text: "answer two\n"}}, {CloseStdin: true}}
		Expect(one(ctx, run)).To(exit(9))
	}, NodeTimeout(planBound))

	It("at its end answers no to the overwrite prompt, and y answers yes", func(ctx SpecContext) {
		out := fmt.Sprintf("%s/prompt-%s.wav", e2e.Home, w.name)
		client.shell(ctx, "echo old > "+out)
		command := []string{"-hide_banner", "-f", "lavfi", "-i", "sine=duration=1", out}
		no, null, yes := w.ffmpeg(command...), w.ffmpeg(command...), w.ffmpeg(command...)
		no.Stdin, yes.Stdin = &e2e.Input{}, &e2e.Input{Text: []byte("y\n")}
		results := play(ctx, e2e.Plan{Parallel: 1, Runs: []e2e.Run{no, null, yes}})
		for _, r := range results[:2] {
			Expect(r).To(exit(1))
			Expect(string(r.Stderr.Head)).To(ContainSubstring("Not overwriting"))
		}
		Expect(results[2]).To(exit(0))
		Expect(client.shell(ctx, "head -c 4 "+out)).To(Equal("RIFF"))
	}, NodeTimeout(planBound))

	It("loses no line in a shell's read loop", func(ctx SpecContext) {
		// Without -nostdin a local ffmpeg takes lines too; ffprobe never reads.
		turns := min(12, w.few/3)
		var lines strings.Builder
		for i := range turns {
			fmt.Fprintf(&lines, "line %d of the list\n", i)
		}
		loop := w.script(`while read -r line; do
			ffmpeg -v error -nostdin -i ` + film + ` -frames:v 1 -f null - || exit 7
			echo "$line"
		done`)
		probe := w.script(`while read -r line; do ffprobe -v error ` + film + ` || exit 7; echo "$line"; done`)
		loop.Stdin, probe.Stdin = &e2e.Input{Text: []byte(lines.String())}, &e2e.Input{Text: []byte(lines.String())}
		for _, r := range play(ctx, e2e.Plan{Runs: []e2e.Run{loop, probe}}) {
			Expect(r).To(exit(0))
			Expect(string(r.Stdout.Head)).To(Equal(lines.String()))
		}
	}, NodeTimeout(planBound))

	It("is nothing that a caller waits for", func(ctx SpecContext) {
		run := w.child(e2e.Child{Code: 4})
		run.Stdin = &e2e.Input{Open: true} // and never written or closed
		Expect(one(ctx, run)).To(exit(4))
	}, NodeTimeout(planBound))
})

var _ = everyWay("A consumer that goes away", func(w way) {
	It("ends a flood of stdout by SIGPIPE", func(ctx SpecContext) {
		run := w.child(e2e.Child{Stdout: e2e.Flood{Bytes: 512 * mib}})
		run.Stdout.CloseAfter = mib
		r := one(ctx, run)
		Expect(r).To(killed(int(syscall.SIGPIPE)))
		Expect(r.Stdout.SHA).To(Equal(e2e.Flood{Bytes: mib}.SHA()))
		Expect(r.Stderr).To(silent(), words(r))
	}, NodeTimeout(planBound))

	It("ends a flood of stderr by SIGPIPE", func(ctx SpecContext) {
		run := w.child(e2e.Child{Stderr: e2e.Flood{Bytes: 512 * mib}})
		run.Stderr.CloseAfter = mib
		Expect(one(ctx, run)).To(killed(int(syscall.SIGPIPE)))
	}, NodeTimeout(planBound))

	It("makes real ffmpeg end as it would locally", func(ctx SpecContext) {
		run := w.ffmpeg("-v", "error", "-nostdin", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25", "-f", "rawvideo", "-")
		run.Stdout.CloseAfter = 64 << 10
		results := play(ctx, e2e.Plan{Runs: []e2e.Run{bare(run), run}})
		Expect(results[1].Code).To(Equal(results[0].Code), words(results[1]))
		Expect(results[1].Signal).To(Equal(results[0].Signal), words(results[1]))
	}, NodeTimeout(planBound))

	It("does not keep real ffmpeg from its file when stderr is closed", func(ctx SpecContext) {
		out := fmt.Sprintf("%s/unheard-%s.mkv", e2e.Home, w.name)
		run := w.ffmpeg("-hide_banner", "-y", "-nostdin", "-i", film, "-c", "copy", out)
		run.Stderr.CloseAfter = 1
		Expect(one(ctx, run)).To(exit(0))
		Expect(client.shell(ctx, "ffprobe -v error -show_entries format=duration -of csv=p=0 "+out)).To(HavePrefix("12."))
	}, NodeTimeout(planBound))
})
