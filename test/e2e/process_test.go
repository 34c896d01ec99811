package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/e2e"
)

// tell runs a child that describes itself.
func tell(ctx SpecContext, run e2e.Run) e2e.Told {
	GinkgoHelper()
	r := one(ctx, run)
	Expect(r).To(exit(0))
	var told e2e.Told
	Expect(json.Unmarshal(r.Stdout.Head, &told)).To(Succeed(), words(r))
	return told
}

var _ = everyWay("ffmpeg gets", func(w way) {
	telling := e2e.Child{Tell: true}

	It("its arguments: empty, with line ends, in every script, of any byte", func(ctx SpecContext) {
		strange := [][]byte{
			[]byte("-metadata"), {},
			[]byte("-metadata"), []byte("two\nlines\r\nand a tab\t"),
			[]byte("-metadata"), []byte("título=日本語 🎬 e\u0301"),
			[]byte("-metadata"), []byte(` ' " \ $HOME * ; | & `),
			[]byte("-metadata"), {0xff, 0xfe, 1, 2, 0x80, '=', 0xc3},
			[]byte("-metadata"), []byte("-y"),
		}
		run := w.child(telling, strange...)
		told := tell(ctx, run)
		Expect(told.Args).To(Equal(run.Args))
	}, NodeTimeout(planBound))

	It("arguments up to the kernel's limits", func(ctx SpecContext) {
		// One argument may have 128 KiB with its NUL; all of argv and envp with
		// their pointers a quarter of the stack's limit, 2 MiB by default. The
		// environment and a worker's longer one get 64 KiB of them here.
		longest := bytes.Repeat([]byte("x"), 128<<10-1)
		one := w.child(telling, []byte("-metadata"), longest)
		var most, many [][]byte
		for left := 2<<20 - 64<<10; left > len(longest); left -= len(longest) + 1 + 8 + 10 + 8 {
			most = append(most, []byte("-metadata"), longest)
		}
		for range 50_000 {
			many = append(many, []byte("-metadata"), []byte("k=v"))
		}
		for _, run := range []e2e.Run{one, w.child(telling, most...), w.child(telling, many...)} {
			told := tell(ctx, run)
			Expect(told.Count).To(Equal(len(run.Args)))
			Expect(told.SHA).To(Equal(e2e.SumArgs(run.Args)))
		}
	}, NodeTimeout(planBound))

	It("its working directory", func(ctx SpecContext) {
		dir := e2e.Home + "/a dir, ünï \\ 'quoted'"
		_, err := client.exec(ctx, nil, "mkdir", "-p", dir)
		Expect(err).NotTo(HaveOccurred())
		run := w.child(telling)
		run.Dir = dir
		Expect(tell(ctx, run).Dir).To(Equal(dir))

		relative := w.ffmpeg("-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", "sine=duration=1", w.name+".wav")
		relative.Dir = dir
		Expect(one(ctx, relative)).To(exit(0))
		out, err := client.exec(ctx, nil, "head", "-c", "4", dir+"/"+w.name+".wav")
		Expect(err).NotTo(HaveOccurred())
		Expect(out).To(Equal("RIFF"))
	}, NodeTimeout(planBound))

	It("the environment that concerns it, and nothing of ffpod's", func(ctx SpecContext) {
		concerns := []string{"LIBVA_DRIVER_NAME=x y", "TZ=Asia/Kolkata", "LC_ALL=C.UTF-8", "ROC_ENABLE_PRE_VEGA=1"}
		run := w.child(telling)
		run.Env = append(run.Env, concerns...)
		run.Env = append(run.Env, "AWS_SECRET_ACCESS_KEY=hush", "MY_OWN=1")
		env := tell(ctx, run).Env
		Expect(env).To(ContainElements(concerns))
		// By its mark a worker finds what has left the process group of its session.
		env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "FFPOD_SESSION=") })
		if w.remote() {
			Expect(strings.Join(env, "\n")).NotTo(Or(ContainSubstring("hush"), ContainSubstring("MY_OWN"), ContainSubstring("FFPOD_")))
			Expect(env).To(ContainElement("HOME=/tmp"), "the worker's own")
		} else {
			Expect(env).To(ContainElements("AWS_SECRET_ACCESS_KEY=hush", "MY_OWN=1"))
		}
	}, NodeTimeout(planBound))

	It("its caller's umask and identity for what it writes", func(ctx SpecContext) {
		mask := 0o027
		out := fmt.Sprintf("%s/owned-%s.png", e2e.Home, w.name)
		client.shell(ctx, "rm -f "+out)
		run := w.ffmpeg("-v", "error", "-nostdin", "-f", "lavfi", "-i", "testsrc2=size=64x64", "-frames:v", "1", out)
		run.Umask = &mask
		Expect(one(ctx, run)).To(exit(0))
		Expect(client.shell(ctx, "stat -c '%a %u %g' "+out)).To(Equal("640 1000 1000"))

		told := w.child(telling)
		told.Umask = &mask
		got := tell(ctx, told)
		Expect([]int{got.Umask, got.UID, got.GID}).To(Equal([]int{mask, 1000, 1000}))
	}, NodeTimeout(planBound))

	It("its segments where a player looks for them", func(ctx SpecContext) {
		dir := fmt.Sprintf("%s/hls-%s", e2e.Home, w.name)
		client.shell(ctx, "rm -rf "+dir+"; mkdir "+dir)
		run := w.ffmpeg("-v", "error", "-nostdin", "-i", film, "-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-c:a", "aac",
			"-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod", "-hls_segment_filename", dir+"/%03d.ts", dir+"/index.m3u8")
		Expect(one(ctx, run)).To(exit(0))
		playlist := client.shell(ctx, "cat "+dir+"/index.m3u8")
		Expect(playlist).To(HaveSuffix("#EXT-X-ENDLIST"))
		Expect(strings.Count(playlist, "#EXTINF")).To(BeNumerically(">=", 6))
		Expect(client.shell(ctx, "ffprobe -v error -show_entries format=duration -of csv=p=0 "+dir+"/index.m3u8")).To(HavePrefix("12."))
		for _, line := range strings.Split(playlist, "\n") {
			if strings.HasSuffix(line, ".ts") {
				client.shell(ctx, "test -s "+dir+"/"+line)
			}
		}
	}, NodeTimeout(planBound))

	It("ffprobe's answers through it too", func(ctx SpecContext) {
		same(ctx, w.ffprobe("-v", "error", "-of", "json", "-show_format", "-show_streams", film), func(b []byte) string { return string(b) })
	}, NodeTimeout(planBound))
})
