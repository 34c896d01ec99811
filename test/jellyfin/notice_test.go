package jellyfin_test

import (
	"fmt"
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/jellyfin"
)

// A simulator that finds nothing must be one that would find something: each of
// these programs does to ffmpeg what a bad shim would.
var _ = Describe("The simulator notices", Ordered, ContinueOnFailure, Label(labelMachine), func() {
	var p place

	BeforeAll(func(ctx SpecContext) {
		p = machine(ctx)
	}, NodeTimeout(setUpBound))

	// through makes the script the ffmpeg of an order; $REAL is the real one.
	through := func(script string, o jellyfin.Order) jellyfin.Order {
		dir := GinkgoT().TempDir()
		for _, name := range []string{"ffmpeg", "ffprobe"} {
			text := fmt.Sprintf("#!/bin/sh\nREAL=%s\n%s\n", filepath.Join(filepath.Dir(p.bare), name), script)
			Expect(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755)).To(Succeed())
		}
		Expect(os.Symlink(filepath.Join(p.root, "media"), filepath.Join(dir, "media"))).To(Succeed())
		o.FFmpeg, o.Root, o.Within = filepath.Join(dir, "ffmpeg"), dir, noticeBound
		return o
	}

	DescribeTable("in a vector", func(ctx SpecContext, vector, script, words string) {
		o := through(script, p.order(plain, jellyfin.V12_0, false))
		o.Vectors = []string{vector}
		Expect(p.perform(ctx, o).Problems).To(ContainElement(ContainSubstring(words)))
	},
		Entry("somebody who keeps its descriptors", "lufs-track", `sleep 9 >/dev/null & exec $REAL "$@"`, "held for"),
		Entry("somebody who keeps the server's log", "lufs-track", `sleep 9 2>/dev/null & exec $REAL "$@"`, "holds the descriptors"),
		Entry("a writer that outlives the process", "hls-audio-only",
			`for o in "$@"; do :; done; $REAL "$@"; code=$?; (sleep 0.1; echo >> "$o") </dev/null >/dev/null 2>&1 & exit $code`, "changed after the end"),
		Entry("a segment that grows late", "hls-ts-x264",
			`for o in "$@"; do :; done; $REAL "$@"; code=$?; echo >> "${o%.m3u8}0.ts"; exit $code`, "when the next one appeared"))

	DescribeTable("in a vector held against plain ffmpeg", func(ctx SpecContext, vector, script, words string) {
		o := p.order(plain, jellyfin.V12_0, false)
		o.Vectors = []string{vector}
		base, other := p.perform(ctx, o), p.perform(ctx, through(script, o))
		Expect(base.Seen).To(HaveKey(vector))
		Expect(jellyfin.Compare(base.Seen[vector], base.Seen[vector])).To(BeEmpty())
		Expect(jellyfin.Compare(base.Seen[vector], other.Seen[vector])).To(ContainElement(ContainSubstring(words)))
	},
		Entry("another exit", "attachments-mks-12.0", `$REAL "$@"; exit 0`, "exit"),
		Entry("one byte less on stdout", "plugin-introskipper-chromaprint", `$REAL "$@" | head -c -1`, "stdout"),
		Entry("a line more on stderr", "hls-audio-only", `echo hello >&2; exec $REAL "$@"`, "stderr"),
		Entry("what it parses, gone", "lufs-track", `$REAL "$@" 2>&1 | grep -v LUFS >&2`, "read out of stderr"),
		Entry("an argument that is empty, lost", "attachments-dump-all",
			`n=$#; while [ $n -gt 0 ]; do a=$1; shift; [ -z "$a" ] || set -- "$@" "$a"; n=$((n-1)); done; exec $REAL "$@"`, "files"),
		Entry("a file less", "hls-ts-x264", `for o in "$@"; do :; done; $REAL "$@"; rm "${o%.m3u8}3.ts"`, "files"))

	DescribeTable("in a scenario", func(ctx SpecContext, scenario string, f jellyfin.Flavour, script, words string) {
		o := through(script, p.order(plain, f, false))
		o.Scenario = scenario
		Expect(p.perform(ctx, o).Problems).To(ContainElement(ContainSubstring(words)))
	},
		Entry("that q is lost", "stop-at-once", jellyfin.V12_0, `exec $REAL "$@" </dev/null`, "did not heed q"),
		Entry("that progress is lost", "playback-ts", jellyfin.V12_0, `exec $REAL "$@" 2>/dev/null`, "no progress"),
		Entry("that a foreign file is in the way", "playback-ts", jellyfin.V12_0,
			`for o in "$@"; do :; done; touch -d '+1 hour' "${o%.m3u8}x.ts"; exec $REAL "$@"`, "in the way"),
		Entry("that ffprobe lives on after its reader", "keyframes", jellyfin.V12_0, `$REAL "$@"; exit 0`, "want 141"),
		Entry("that a picture comes after the exit", "image", jellyfin.V12_0, `($REAL "$@" &) >/dev/null 2>&1`, "no picture"),
		Entry("that 64 KiB on the stream it does not read stop 10.11", "startup", jellyfin.V10_11,
			`head -c 100000 /dev/zero >&2; exec $REAL "$@"`, "Jellyfin would hang"))
})
