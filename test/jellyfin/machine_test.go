package jellyfin_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/test/jellyfin"
)

var _ = Describe("A vector", Label(labelMachine), func() {
	vectors, err := jellyfin.Vectors()

	It("is there for each kind of call", func() {
		Expect(err).NotTo(HaveOccurred())
		Expect(len(vectors)).To(BeNumerically(">=", 39))
	})

	for _, v := range vectors {
		It("is understood: "+v.Name, func() {
			env := ffmpeg.Environment{Host: ffmpeg.Host{Dir: "/cache"}, Shared: []string{"/media", "/cache"}}
			if v.Dir != "" {
				env.Dir = v.Dir
			}
			c := ffmpeg.Parse("/usr/bin/"+v.Program, v.Argv, env.Host)
			d := ffmpeg.Decide(c, env)
			Expect(d.Where).To(Equal(v.Where), d.Reason)
			Expect(c.Kind).To(Equal(v.Kind))
			var types []string
			for _, device := range c.Devices {
				types = append(types, string(device.Type))
			}
			types = append(types, c.HWAccels...)
			if v.GPU == "" {
				Expect(types).To(BeEmpty())
			} else {
				Expect(types).To(ContainElement(v.GPU))
			}
		})
	}
})

var _ = Describe("On this machine", Ordered, ContinueOnFailure, Label(labelMachine), func() {
	p := &place{}

	BeforeAll(func(ctx SpecContext) {
		*p = machine(ctx)
	}, NodeTimeout(setUpBound))

	scenarios(p, nil, plain, here)

	for _, f := range jellyfin.Flavours {
		It("every vector, as "+string(f), func(ctx SpecContext) {
			base := vectorsOf(ctx, p, plain, f, false)
			expectExits(base)
			r := vectorsOf(ctx, p, here, f, false)
			expectSame(base, r)
		}, NodeTimeout(vectorsBound))
	}
})

// gpuVectors are those that need a device which this machine and its cluster may
// not have.
func gpuVectors() (names []string) {
	vectors, _ := jellyfin.Vectors() // an error is another spec's
	for _, v := range vectors {
		if v.GPU != "" {
			names = append(names, v.Name)
		}
	}
	return names
}

// machine makes a place below a directory of its own.
func machine(ctx context.Context) place {
	GinkgoHelper()
	dir := media(ctx)
	bare, err := exec.LookPath("ffmpeg")
	Expect(err).NotTo(HaveOccurred())
	root := GinkgoT().TempDir()
	Expect(os.Symlink(filepath.Join(dir, "media"), filepath.Join(root, "media"))).To(Succeed())
	simulator := filepath.Join(root, "bin", "simulator")
	build(ctx, runtime.GOARCH, "test/jellyfin/simulator", simulator)
	build(ctx, runtime.GOARCH, "cmd/ffmpeg", filepath.Join(root, "shim", "ffmpeg"))
	Expect(os.Symlink("ffmpeg", filepath.Join(root, "shim", "ffprobe"))).To(Succeed())
	fake := filepath.Join(root, "bin", jellyfin.FakeDirectory)
	Expect(os.MkdirAll(fake, 0o755)).To(Succeed())
	for _, name := range []string{"ffmpeg", "ffprobe"} {
		Expect(os.Link(simulator, filepath.Join(fake, name))).To(Succeed())
	}
	return place{
		root: root, bare: bare, fake: filepath.Join(fake, "ffmpeg"), shim: filepath.Join(root, "shim", "ffmpeg"),
		run: func(ctx context.Context, order []byte) ([]byte, error) {
			cmd := exec.CommandContext(ctx, simulator)
			cmd.WaitDelay = time.Second
			cmd.Stdin = bytes.NewReader(order)
			return run(cmd)
		},
	}
}

// vectorsOf runs all of them in a way.
func vectorsOf(ctx context.Context, p *place, w way, f jellyfin.Flavour, fake bool, names ...string) *jellyfin.Report {
	GinkgoHelper()
	o := p.order(w, f, fake)
	o.Vectors, o.Parallel, o.Within = names, 2, vectorsBound
	say("vectors, as %s, %s", f, w.name)
	r := p.perform(ctx, o)
	Expect(r.Problems).To(BeEmpty())
	return r
}

// expectExits sees that each vector did its work: a list of equal failures would
// prove nothing.
func expectExits(r *jellyfin.Report) {
	GinkgoHelper()
	vectors, err := jellyfin.Vectors()
	Expect(err).NotTo(HaveOccurred())
	for _, v := range vectors {
		seen, ok := r.Seen[v.Name]
		if v.Exit == nil || !ok {
			continue
		}
		Expect(seen.Exit).To(Equal(*v.Exit), "%s: %q", v.Name, seen.Said)
		if len(v.Outputs) > 0 {
			Expect(seen.Files).NotTo(BeEmpty(), v.Name)
		}
	}
}
