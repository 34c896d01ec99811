package jellyfin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/test/jellyfin"
	cluster "github.com/ffpod/ffpod/test/kubectl"
	"github.com/ffpod/ffpod/test/manifests"
)

const namespace = "ffpod-jellyfin"

// Bounds in the cluster.
const (
	readyBound = 3 * time.Minute
	calmBound  = 45 * time.Second // until nothing of a scenario is left on a worker
)

// kubectl is a call in the suite's namespace; it returns stdout without the space
// around it.
func kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	out, err := cluster.New(namespace).Run(ctx, stdin, args...)
	return strings.TrimSpace(out), err
}

// do is kubectl where a failure is the suite's.
func do(ctx context.Context, stdin io.Reader, args ...string) string {
	GinkgoHelper()
	out, err := kubectl(ctx, stdin, args...)
	Expect(err).NotTo(HaveOccurred())
	return out
}

// inClient runs a script where the callers are.
func inClient(ctx context.Context, stdin io.Reader, script string) string {
	GinkgoHelper()
	return do(ctx, stdin, "exec", "-i", "deploy/ffpod-client", "-c", "client", "--", "/bin/sh", "-euc", script)
}

var _ = Describe("In a pod", Ordered, ContinueOnFailure, Label(labelCluster), func() {
	p := &place{
		bare: "/usr/bin/ffmpeg", fake: "/cache/bin/" + jellyfin.FakeDirectory + "/ffmpeg", shim: "/opt/ffpod/ffmpeg",
		run: func(ctx context.Context, order []byte) ([]byte, error) {
			out, err := kubectl(ctx, bytes.NewReader(order), "exec", "-i", "deploy/ffpod-client", "-c", "client", "--", "/cache/bin/simulator")
			return []byte(out), err
		},
	}

	BeforeAll(func(ctx SpecContext) {
		Expect(os.Getenv("KUBECONFIG")).NotTo(BeEmpty(), "KUBECONFIG is not set; name a cluster's, e.g. that of `go run ./test/cluster up`")
		install(ctx)
	}, NodeTimeout(setUpBound))

	AfterAll(func(ctx SpecContext) {
		expectNothingLeft(ctx, "ffpod.dev/role=job")
		if os.Getenv("JELLYFIN_KEEP") == "1" {
			say("JELLYFIN_KEEP=1: namespace %s stays", namespace)
			return
		}
		do(ctx, nil, "delete", "--ignore-not-found", "clusterrolebinding/"+namespace+"-token-review")
		do(ctx, nil, "delete", "--ignore-not-found", "namespace/"+namespace)
	}, NodeTimeout(readyBound))

	AfterEach(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			log, _ := kubectl(ctx, nil, "logs", "deploy/ffpod-scheduler", "--since=1m", "--tail=40")
			AddReportEntry("the scheduler", log, ReportEntryVisibilityFailureOrVerbose)
		}
		expectNothingLeft(ctx, "ffpod.dev/role=warm")
	}, NodeTimeout(readyBound))

	pointless := func(s jellyfin.Scenario, w way) bool { // a Job for each of 23 questions
		return w.name == jobs.name && strings.HasPrefix(s.Name, "startup")
	}
	scenarios(p, pointless, plain, byItself, warm, jobs)

	for _, w := range []way{plain, byItself, warm, jobs} {
		It("vectors for a GPU reach an ffmpeg unchanged, "+w.name, func(ctx SpecContext) {
			expectTold(vectorsOf(ctx, p, w, jellyfin.V10_11, true, gpuVectors()...))
		}, NodeTimeout(vectorsBound))
	}

	// A node that has no GPU refuses; one that pretends lets ffmpeg say so itself.
	It("a vector for a GPU is refused where there is none, or fails as ffmpeg does", func(ctx SpecContext) {
		const vector = "hls-ts-nvenc"
		base := vectorsOf(ctx, p, plain, jellyfin.V12_0, false, vector).Seen[vector]
		o := p.order(jobs, jellyfin.V12_0, false)
		o.Vectors = []string{vector}
		o.Env = append(o.Env, "FFPOD_CLASS=nvidia", "FFPOD_WAIT=5s")
		r := p.perform(ctx, o)
		Expect(r.Problems).To(BeEmpty())
		seen := r.Seen[vector]
		Expect(seen.Where).To(Equal("remote"))
		Expect(seen.Files).To(BeEmpty())
		if seen.Exit == session.InfrastructureExit {
			Expect(seen.Said).To(ConsistOf(HavePrefix("ffmpeg: ffpod: ")))
		} else {
			Expect(seen.Exit).NotTo(BeZero())
			Expect(jellyfin.Compare(base, seen)).To(BeEmpty())
		}
	}, NodeTimeout(scenarioBound))

	for _, f := range jellyfin.Flavours {
		var base *jellyfin.Report
		for _, w := range []way{plain, byItself, warm, jobs} {
			It("every vector, as "+string(f)+", "+w.name, func(ctx SpecContext) {
				r := vectorsOf(ctx, p, w, f, false)
				if w.name == plain.name {
					base = r
					expectExits(base)
				}
				expectSame(base, r)
				expectPlaces(r, w)
			}, NodeTimeout(vectorsBound+time.Minute))
		}
	}
})

// expectTold sees that ffmpeg got the command line that Jellyfin made: all that
// can be said of a device that is not there.
func expectTold(r *jellyfin.Report) {
	GinkgoHelper()
	Expect(keys(r.Seen)).To(ConsistOf(gpuVectors()))
	vectors, err := jellyfin.Vectors()
	Expect(err).NotTo(HaveOccurred())
	for _, v := range vectors {
		if v.GPU != "" {
			want, err := json.Marshal(v.Argv)
			Expect(err).NotTo(HaveOccurred())
			told := r.Seen[v.Name].Parsed
			Expect(told).NotTo(BeEmpty(), v.Name)
			Expect(told[len(told)-1]).To(MatchJSON(bytes.ReplaceAll(want, []byte(`"libfdk_aac"`), []byte(`"aac"`))), v.Name)
		}
	}
}

// expectPlaces holds where each vector ran against where it belongs.
func expectPlaces(r *jellyfin.Report, w way) {
	GinkgoHelper()
	vectors, err := jellyfin.Vectors()
	Expect(err).NotTo(HaveOccurred())
	for _, v := range vectors {
		want := string(v.Where)
		switch {
		case !w.shim:
			want = ""
		case w.name != byItself.name, v.Egress:
			want = "remote"
		}
		if seen, ok := r.Seen[v.Name]; ok {
			Expect(seen.Where).To(Equal(want), v.Name)
		}
	}
}

// install applies the overlay and puts library and simulator on its volumes.
func install(ctx context.Context) {
	GinkgoHelper()
	library := media(ctx)
	say("apply test/jellyfin/overlay to namespace %s (usually 20 s until it runs)", namespace)
	do(ctx, nil, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(manifests.Root(), "test", "jellyfin", "overlay"))
	for _, d := range []string{"client", "scheduler", "cpu", "fake"} {
		do(ctx, nil, "rollout", "status", "deploy/ffpod-"+d, "--timeout=120s")
	}
	arch := do(ctx, nil, "get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.architecture}")
	simulator := filepath.Join(GinkgoT().TempDir(), "simulator")
	build(ctx, arch, "test/jellyfin/simulator", simulator)
	program, err := os.Open(simulator)
	Expect(err).NotTo(HaveOccurred())
	defer program.Close()
	inClient(ctx, program, `mkdir -p /cache/bin/fake; cd /cache/bin; rm -f simulator fake/*; cat > simulator; chmod 755 simulator
		ln simulator fake/ffmpeg; ln simulator fake/ffprobe`)

	say("put the library into the cluster")
	Expect(cluster.New(namespace).Unpack(ctx, library, "media", "deploy/ffpod-client", "-c", "client")).To(Succeed())
	Eventually(func() error { // the scheduler has its channels
		_, err := kubectl(ctx, nil, "exec", "deploy/ffpod-client", "-c", "client", "--", "env", "FFPOD_MODE=remote", "FFPOD_POLICY=warm", "FFPOD_CLASS=cpu", "/opt/ffpod/ffmpeg", "-version")
		return err
	}).WithContext(ctx).WithTimeout(readyBound).WithPolling(time.Second).Should(Succeed())
}

// expectNothingLeft waits until no ffmpeg runs in any worker of the selector.
func expectNothingLeft(ctx context.Context, selector string) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		programs, err := cluster.New(namespace).Programs(ctx, selector)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(programs).NotTo(ContainElement(MatchRegexp("/(ffmpeg|ffprobe|simulator)$")))
	}).WithContext(ctx).WithTimeout(calmBound).WithPolling(500 * time.Millisecond).Should(Succeed())
}
