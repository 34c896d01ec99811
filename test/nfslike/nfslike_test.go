package nfslike_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/cmd/ffmpeg/visible"
	"github.com/ffpod/ffpod/podexec/output"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/test/nfslike"
)

func TestMain(m *testing.M) {
	nfslike.Child()
	if os.Getenv(workerSocket) != "" {
		if err := worker(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestNFSLike(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "nfslike")
}

const (
	// poll is how often Jellyfin looks for a segment.
	poll = 100 * time.Millisecond
	// stale is for how long the specs watch a cache being wrong; it is well below
	// the caches' own times.
	stale = 2 * time.Second
	// fresh is how soon a segment must be seen when it is kept fresh.
	fresh = time.Second
	// between bounds the time between two calls of one look.
	between = 50 * time.Millisecond
)

// place is a mount and the server's side of it.
type place struct {
	*nfslike.Mount
}

func mount() place {
	GinkgoHelper()
	backing, path := GinkgoT().TempDir(), GinkgoT().TempDir()
	m, err := nfslike.New(backing, path, nfslike.Default())
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(m.Unmount()).To(Succeed()) })
	return place{m}
}

// here is a path as this machine sees it, there as the worker does.
func (p place) here(name string) string  { return filepath.Join(p.Path, name) }
func (p place) there(name string) string { return filepath.Join(p.Backing, name) }

// write is what the worker does.
func (p place) write(name string, size int) {
	GinkgoHelper()
	Expect(os.WriteFile(p.there(name), make([]byte, size), 0o644)).To(Succeed())
}

// size is what the caller sees: -1 is no file.
func (p place) size(name string) int64 {
	st, err := os.Stat(p.here(name))
	if err != nil {
		return -1
	}
	return st.Size()
}

// look is what the worker tells in the Exit, under the paths both machines use.
func (p place) look(outputs []*wire.Output) []*wire.File {
	var there []*wire.Output
	for _, o := range outputs {
		rel, err := filepath.Rel(p.Path, string(o.Directory))
		Expect(err).NotTo(HaveOccurred())
		there = append(there, &wire.Output{Directory: []byte(p.there(rel)), Prefix: o.Prefix, Exact: o.Exact})
	}
	files := output.Look(context.Background(), there)
	for _, f := range files {
		rel, err := filepath.Rel(p.Backing, string(f.Path))
		Expect(err).NotTo(HaveOccurred())
		f.Path = []byte(p.here(rel))
	}
	return files
}

// outputs are those of a real command line.
func (p place) outputs(argv ...string) []*wire.Output {
	c := ffmpeg.Parse("ffmpeg", argv, ffmpeg.Host{Dir: p.Path})
	return visible.Outputs(&c, []string{p.Path})
}

func (p place) hls() []*wire.Output {
	return p.outputs("-i", "/media/a.mkv", "-f", "hls", "-hls_fmp4_init_filename", "8f-1.mp4",
		"-hls_segment_filename", p.here("8f%d.mp4"), "-y", p.here("8f.m3u8"))
}

// keep runs Keep until the spec ends.
func keep(outputs []*wire.Output) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { visible.Keep(ctx, outputs) })
	DeferCleanup(func() {
		cancel()
		running.Wait()
	})
}

var _ = Describe("without help", func() {
	It("shows no file that was asked for too early, and the size it had", func() {
		p := mount()
		p.write("8f0.mp4", 10)
		Expect(p.size("8f0.mp4")).To(BeEquivalentTo(10))
		Expect(p.size("8f1.mp4")).To(BeEquivalentTo(-1))

		p.write("8f0.mp4", 1000)
		p.write("8f1.mp4", 1000)
		Consistently(func() []int64 { return []int64{p.size("8f0.mp4"), p.size("8f1.mp4")} }, stale, poll).
			Should(Equal([]int64{10, -1}), "the mount must be as bad as NFS, or it proves nothing")

		By("opening the directory, which tells of names but not of sizes")
		d, err := os.Open(p.Path)
		Expect(err).NotTo(HaveOccurred())
		Expect(d.Close()).To(Succeed())
		Expect([]int64{p.size("8f0.mp4"), p.size("8f1.mp4")}).To(Equal([]int64{10, 1000}))

		By("opening the file")
		f, err := os.Open(p.here("8f0.mp4"))
		Expect(err).NotTo(HaveOccurred())
		Expect(f.Close()).To(Succeed())
		Expect(p.size("8f0.mp4")).To(BeEquivalentTo(1000))
	})
})

var _ = Describe("Keep", func() {
	It("shows each segment within a second, with its final size when the next exists", func() {
		p := mount()
		keep(p.hls())
		for n := range 6 {
			name, next := fmt.Sprintf("8f%d.mp4", n), fmt.Sprintf("8f%d.mp4", n+1)
			Expect(p.size(next)).To(BeEquivalentTo(-1)) // Jellyfin asks too early, always
			if n == 0 {
				p.write(name, 100)
			}
			Eventually(p.size, fresh, poll).WithArguments(name).Should(BeNumerically(">=", 0))
			p.write(name, 5000+n) // it grows
			p.write(next, 100)
			Eventually(p.size, fresh, poll).WithArguments(next).Should(BeNumerically(">=", 0))
			// Keep makes the name known by one call and the size by the next.
			Eventually(p.size, between, time.Millisecond).WithArguments(name).Should(BeEquivalentTo(5000 + n))
		}
	})

	It("shows segments that are written faster than it looks", func() {
		p := mount()
		keep(p.hls())
		for n := range 41 {
			Expect(p.size(fmt.Sprintf("8f%d.mp4", n))).To(BeEquivalentTo(-1))
		}
		for n := range 40 {
			name := fmt.Sprintf("8f%d.mp4", n)
			p.write(name+".tmp", 100)
			p.write(name+".tmp", 2000+n)
			Expect(os.Rename(p.there(name+".tmp"), p.there(name))).To(Succeed())
		}
		Eventually(p.size, fresh, poll).WithArguments("8f39.mp4").Should(BeEquivalentTo(2039))
		for n := range 40 {
			Eventually(p.size, between, time.Millisecond).WithArguments(fmt.Sprintf("8f%d.mp4", n)).Should(BeEquivalentTo(2000 + n))
		}
	})

	It("shows how one file grows, and how a playlist is replaced", func() {
		p := mount()
		keep(append(p.outputs("-i", "/media/a.mkv", p.here("whole.mp4")), p.hls()...))
		for size := 100; size < 400; size += 100 {
			p.write("whole.mp4", size)
			p.write("8f.m3u8.tmp", size)
			Expect(os.Rename(p.there("8f.m3u8.tmp"), p.there("8f.m3u8"))).To(Succeed())
			Eventually(p.size, fresh, poll).WithArguments("whole.mp4").Should(BeEquivalentTo(size))
			Eventually(p.size, fresh, poll).WithArguments("8f.m3u8").Should(BeEquivalentTo(size))
		}
	})

	It("works in a directory that comes later", func() {
		p := mount()
		Expect(p.size("later")).To(BeEquivalentTo(-1))
		keep(p.outputs("-i", "/media/a.mkv", "-f", "image2", p.here("later/%08d.jpg")))
		Expect(os.Mkdir(p.there("later"), 0o755)).To(Succeed())
		p.write("later/00000001.jpg", 77)
		Eventually(p.size, 2*fresh, poll).WithArguments("later/00000001.jpg").Should(BeEquivalentTo(77))
	})

	It("looks at what an earlier session left only once", func() {
		p := mount()
		for n := range 500 {
			p.write(fmt.Sprintf("8f%d.mp4", n), 1)
		}
		before, err := p.Opens()
		Expect(err).NotTo(HaveOccurred())
		keep(p.hls())
		Consistently(p.Opens, stale, poll).
			Should(BeNumerically("<", before+60), "it opened every old segment")
	})

	It("ends at once although the mount hangs", func() {
		p := mount()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			visible.Keep(ctx, p.hls())
		}()
		Eventually(p.Opens, fresh, poll/10).Should(BeNumerically(">", 0))
		Expect(p.Hang()).To(Succeed())
		Consistently(done, 2*poll).ShouldNot(BeClosed())
		began := time.Now()
		cancel()
		Eventually(done, fresh, time.Millisecond).Should(BeClosed())
		Expect(time.Since(began)).To(BeNumerically("<", 300*time.Millisecond))
	})
})

var _ = Describe("Await", func() {
	ctx := context.Background()

	It("shows what the worker saw, at once", func() {
		p := mount()
		outputs := p.hls()
		p.write("8f0.mp4", 10)
		for _, name := range []string{"8f0.mp4", "8f1.mp4", "8f-1.mp4", "8f.m3u8"} {
			p.size(name)
		}
		for n, name := range []string{"8f0.mp4", "8f1.mp4", "8f-1.mp4", "8f.m3u8"} {
			p.write(name, 1000+n)
		}
		files := p.look(outputs)
		Expect(files).To(HaveLen(4))
		began := time.Now()
		Expect(visible.Await(ctx, outputs, files, visible.Bound)).To(Succeed())
		Expect(time.Since(began)).To(BeNumerically("<", time.Second))
		for n, name := range []string{"8f0.mp4", "8f1.mp4", "8f-1.mp4", "8f.m3u8"} {
			Expect(p.size(name)).To(BeEquivalentTo(1000 + n))
		}
	})

	It("shows a file that was written again with the same size", func() {
		p := mount()
		outputs := p.outputs("-i", "/media/a.mkv", "-y", p.here("a.srt"))
		p.write("a.srt", 10)
		old, err := os.Stat(p.here("a.srt"))
		Expect(err).NotTo(HaveOccurred())
		Expect(os.Chtimes(p.there("a.srt"), time.Time{}, old.ModTime().Add(3*time.Second))).To(Succeed())
		Expect(visible.Await(ctx, outputs, p.look(outputs), visible.Bound)).To(Succeed())
		now, err := os.Stat(p.here("a.srt"))
		Expect(err).NotTo(HaveOccurred())
		Expect(now.ModTime()).To(BeTemporally("==", old.ModTime().Add(3*time.Second)))
	})

	It("waits for what comes late", func() {
		p := mount()
		outputs := p.outputs("-i", "/media/a.mkv", p.here("new/a.mp4"))
		Expect(p.size("new")).To(BeEquivalentTo(-1))
		files := []*wire.File{{Path: []byte(p.here("new/a.mp4")), Size: 3000}}
		result := make(chan error, 1)
		go func() { result <- visible.Await(ctx, outputs, files, visible.Bound) }()
		Consistently(result, 2*poll).ShouldNot(Receive())
		Expect(os.Mkdir(p.there("new"), 0o755)).To(Succeed())
		p.write("new/a.mp4", 1000)
		Consistently(result, 2*poll).ShouldNot(Receive())
		p.write("new/a.mp4", 3001)
		Eventually(result, fresh).Should(Receive(BeNil()))
		Expect(p.size("new/a.mp4")).To(BeEquivalentTo(3001))
	})

	It("says which file is short or missing, and for how long it waited", func() {
		p := mount()
		outputs := p.outputs("-i", "/media/a.mkv", p.here("a.mp4"), p.here("b.mp4"))
		p.write("a.mp4", 10)
		short := []*wire.File{{Path: []byte(p.here("a.mp4")), Size: 20}}
		err := visible.Await(ctx, outputs, short, 300*time.Millisecond)
		Expect(err).To(MatchError(MatchRegexp(`^output .*/a.mp4 is 10 bytes here and 20 bytes on the worker, after 3\d\dms$`)))
		missing := []*wire.File{{Path: []byte(p.here("b.mp4")), Size: 20}}
		err = visible.Await(ctx, outputs, missing, 300*time.Millisecond)
		Expect(err).To(MatchError(ContainSubstring("b.mp4 is missing here and 20 bytes on the worker")))
	})

	It("gives up a mount that hangs", func() {
		p := mount()
		outputs := p.outputs("-i", "/media/a.mkv", p.here("a.mp4"))
		p.write("a.mp4", 10)
		files := p.look(outputs)
		Expect(p.Hang()).To(Succeed())
		began := time.Now()
		Expect(visible.Await(ctx, outputs, files, 200*time.Millisecond)).To(BeAssignableToTypeOf(&visible.HungError{}))
		Expect(time.Since(began)).To(BeNumerically("<", 2*time.Second))
	})
})

var _ = Describe("the worker's look", func() {
	It("writes back first where another machine reads", func() {
		p := mount()
		p.write("8f0.mp4", 10)
		p.write("8f.m3u8", 20)
		files := output.Look(context.Background(), p.hls())
		Expect(files).To(HaveLen(2))
		Expect(p.Syncs()).To(Equal(2))

		By("a file system of this machine alone")
		Expect(p.look(p.hls())).To(HaveLen(2))
		Expect(p.Syncs()).To(Equal(2))
	})
})

var _ = Describe("Remember", func() {
	It("does not take a file for its own that the caches hid", func() {
		p := mount()
		Expect(p.size("theirs.srt")).To(BeEquivalentTo(-1))
		p.write("theirs.srt", 10) // another program, after this machine looked
		argv := []string{"-i", "/media/a.mkv", p.here("theirs.srt"), "-map", "0:3", p.here("ours.srt")}
		c := ffmpeg.Parse("ffmpeg", argv, ffmpeg.Host{Dir: p.Path})
		Expect(c.Kind).To(Equal(ffmpeg.Subtitle))
		left := visible.Remember(&c, []string{p.Path})
		p.write("theirs.srt", 20)
		p.write("ours.srt", 20)
		Expect(left.Remove()).To(Equal([]string{p.here("ours.srt")}))
		Expect(p.there("theirs.srt")).To(BeAnExistingFile())
		Expect(p.there("ours.srt")).NotTo(BeAnExistingFile())
	})
})
