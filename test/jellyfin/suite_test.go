package jellyfin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/jellyfin"
	cluster "github.com/ffpod/ffpod/test/kubectl"
)

func TestJellyfin(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "jellyfin")
}

// Labels of specs, for --label-filter.
const (
	labelMachine = "machine" // on this machine, without a cluster
	labelCluster = "cluster" // the one of $KUBECONFIG
)

// Bounds of a scenario, of all vectors, and of what surrounds them.
const (
	scenarioBound = 3 * time.Minute
	vectorsBound  = 10 * time.Minute
	setUpBound    = 6 * time.Minute
	noticeBound   = 40 * time.Second // of what is to be found wrong
)

// place is where a simulator runs, with what it needs.
type place struct {
	root string
	// bare is the real ffmpeg, fake the simulator as one, shim the shim.
	bare, fake, shim string
	run              func(ctx context.Context, order []byte) ([]byte, error)
}

// way is how a server is given its ffmpeg.
type way struct {
	name  string
	shim  bool
	env   []string
	local bool // nothing leaves the caller
}

var (
	plain = way{name: "plain", local: true}
	// byItself is the shim's own decision.
	byItself = way{name: "auto", shim: true, env: []string{"FFPOD_MODE=auto", waitForWorker}}
	here     = way{name: "local", shim: true, local: true, env: []string{"FFPOD_MODE=local"}}
	warm     = way{name: "warm", shim: true, env: []string{"FFPOD_MODE=remote", "FFPOD_POLICY=warm", waitForWorker}}
	jobs     = way{name: "job", shim: true, env: []string{"FFPOD_MODE=remote", "FFPOD_POLICY=job", waitForWorker}}
)

const waitForWorker = "FFPOD_WAIT=100s"

// order makes a server of this place and way.
func (p place) order(w way, f jellyfin.Flavour, fake bool) jellyfin.Order {
	real, class := p.bare, "cpu"
	if fake {
		real, class = p.fake, "fake"
	}
	o := jellyfin.Order{Flavour: f, FFmpeg: real, Bare: p.bare, Root: p.root, Within: scenarioBound}
	if w.shim {
		o.FFmpeg = p.shim
		o.Env = append([]string{
			"FFPOD_CLASS=" + class, "FFPOD_FFMPEG=" + real, "FFPOD_FFPROBE=" + strings.TrimSuffix(real, "ffmpeg") + "ffprobe",
			"FFPOD_SHARED=" + p.root + "/media:" + p.root + "/cache",
		}, w.env...)
	}
	return o
}

// perform runs an order to its end.
func (p place) perform(ctx context.Context, o jellyfin.Order) *jellyfin.Report {
	GinkgoHelper()
	order, err := json.Marshal(o)
	Expect(err).NotTo(HaveOccurred())
	answer, err := p.run(ctx, order)
	Expect(err).NotTo(HaveOccurred())
	r := new(jellyfin.Report)
	Expect(json.Unmarshal(answer, r)).To(Succeed(), "%.300q", answer)
	for _, note := range r.Notes {
		AddReportEntry(note)
	}
	return r
}

// scenarios makes the one list of specs for a place: every scenario, both
// releases, each way. What a way answers is held against the plain answer.
func scenarios(p *place, skip func(jellyfin.Scenario, way) bool, ways ...way) {
	for _, s := range jellyfin.Scenarios {
		for _, f := range jellyfin.Flavours {
			if s.Only != "" && s.Only != f {
				continue
			}
			var base *jellyfin.Report
			for _, w := range ways {
				if s.Fenced && w.local || skip != nil && skip(s, w) {
					continue
				}
				It(fmt.Sprintf("%s, as %s, %s", s.Name, f, w.name), func(ctx SpecContext) {
					o := p.order(w, f, s.Fake)
					o.Scenario = s.Name
					r := p.perform(ctx, o)
					Expect(r.Problems).To(BeEmpty())
					if w.name == plain.name {
						base = r
					}
					expectSame(base, r)
				}, NodeTimeout(scenarioBound+time.Minute))
			}
		}
	}
}

// expectSame holds what was seen against what the plain way showed.
func expectSame(base, r *jellyfin.Report) {
	GinkgoHelper()
	if base == nil { // the plain way was filtered out, or failed and says so itself
		return
	}
	Expect(keys(r.Seen)).To(Equal(keys(base.Seen)))
	for name, want := range base.Seen {
		Expect(jellyfin.Compare(want, r.Seen[name])).To(BeEmpty(), name)
	}
}

func keys(m map[string]jellyfin.Seen) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// build compiles a program for the architecture.
func build(ctx context.Context, arch, name, path string) {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/ffpod/ffpod/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
}

// media is the library on this machine.
func media(ctx context.Context) string {
	GinkgoHelper()
	say("make the library, unless it is there (half a minute)")
	dir, err := jellyfin.MakeMedia(ctx, cluster.Cache())
	Expect(err).NotTo(HaveOccurred())
	return dir
}

// say shows what the suite is at, also while nothing fails.
func say(format string, args ...any) {
	fmt.Printf("jellyfin: %s\n", fmt.Sprintf(format, args...))
}

// run is a command's stdout; its error carries the end of its stderr.
func run(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(errs.String())
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, text[max(0, len(text)-600):])
	}
	return out.Bytes(), nil
}
