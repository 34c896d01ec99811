package stack_test

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
	"github.com/ffpod/ffpod/test/jellyfin/image"
	cluster "github.com/ffpod/ffpod/test/kubectl"
	"github.com/ffpod/ffpod/test/manifests"
)

func TestStack(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "stack")
}

const (
	namespace = "ffpod-stack"

	specBound  = 8 * time.Minute
	readyBound = 4 * time.Minute
	promptly   = 45 * time.Second
)

var overlay = filepath.Join(manifests.Root(), "test", "stack", "overlay")

// kubectl is a call in the suite's namespace; it returns stdout as it is.
var kubectl = cluster.New(namespace).Run

func do(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := kubectl(ctx, nil, args...)
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(out)
}

func say(format string, args ...any) { fmt.Printf("stack: %s\n", fmt.Sprintf(format, args...)) }

// ready waits until all parts are up: after a deletion the Deployment's own word
// may still be the one from before.
func ready(ctx context.Context) {
	GinkgoHelper()
	Eventually(func(g Gomega) {
		pods, err := kubectl(ctx, nil, "get", "pods", "-l", "ffpod.dev/role notin (job,standby)", "--field-selector=status.phase!=Succeeded", "-o", `jsonpath={range .items[*]}{.metadata.labels.app\.kubernetes\.io/component}={.metadata.deletionTimestamp}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(strings.Fields(pods)).To(ConsistOf("server=True", "scheduler=True", "worker=True"))
	}).WithContext(ctx).WithTimeout(readyBound).WithPolling(time.Second).Should(Succeed(), func() string {
		out, _ := kubectl(ctx, nil, "get", "pods,events", "-o", "wide")
		return out
	})
}

// podOf is the name of a component's pod that runs: Jobs leave theirs.
func podOf(ctx context.Context, component string) string {
	GinkgoHelper()
	return do(ctx, "get", "pods", "-l", "app.kubernetes.io/component="+component, "--field-selector=status.phase=Running", "-o", "jsonpath={.items[0].metadata.name}")
}

// decisions are how many commands the shim sent to workers since Jellyfin's start.
func decisions(ctx context.Context) int {
	GinkgoHelper()
	return strings.Count(do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "cat", "/tmp/decisions.log"), "remote")
}

// perform has a scenario done by a second server in Jellyfin's own container.
func perform(ctx context.Context, scenario string, flavour jellyfin.Flavour) *jellyfin.Report {
	GinkgoHelper()
	order, err := json.Marshal(jellyfin.Order{
		Scenario: scenario, Flavour: flavour, FFmpeg: "/opt/ffpod/ffmpeg", Bare: "/usr/lib/jellyfin-ffmpeg/ffmpeg", Config: "/config",
		Within: 3 * time.Minute,
	})
	Expect(err).NotTo(HaveOccurred())
	out, err := kubectl(ctx, bytes.NewReader(order), "exec", "-i", "deploy/jellyfin", "-c", "jellyfin", "--", "/jellyfin/simulator")
	Expect(err).NotTo(HaveOccurred())
	r := new(jellyfin.Report)
	Expect(json.Unmarshal([]byte(out), r)).To(Succeed(), "%.300q", out)
	return r
}

// transcodes are how many ffmpeg run in workers.
func transcodes(ctx context.Context) (int, error) {
	programs, err := cluster.New(namespace).Programs(ctx, "app.kubernetes.io/component=worker")
	n := 0
	for _, p := range programs {
		if filepath.Base(p) == "ffmpeg" {
			n++
		}
	}
	return n, err
}

// calm waits until no worker runs an ffmpeg.
func calm(ctx context.Context) {
	GinkgoHelper()
	Eventually(transcodes).WithContext(ctx).WithTimeout(promptly).WithPolling(500 * time.Millisecond).Should(BeZero())
}

var _ = Describe("Jellyfin from the minimal overlay", Ordered, ContinueOnFailure, func() {
	BeforeAll(func(ctx SpecContext) {
		Expect(os.Getenv("KUBECONFIG")).NotTo(BeEmpty(), "KUBECONFIG is not set; name a cluster's, e.g. that of `go run ./test/cluster up`")
		say("make and load an image with a simulated server")
		archive, err := image.Make(ctx, manifests.Root(), GinkgoT().TempDir(), image.Jellyfin, nil)
		Expect(err).NotTo(HaveOccurred())
		Expect(cluster.Load(ctx, manifests.Root(), archive)).To(Succeed())

		do(ctx, "delete", "pods", "--all") // of a run that left them: its image had the same name
		say("apply test/stack/overlay to namespace %s", namespace)
		do(ctx, "apply", "--server-side", "--force-conflicts", "-k", overlay)
		ready(ctx)
		fill(ctx)
	}, NodeTimeout(specBound))

	AfterAll(func(ctx SpecContext) {
		if os.Getenv("STACK_KEEP") == "1" {
			say("STACK_KEEP=1: namespace %s stays", namespace)
			return
		}
		_, _ = kubectl(ctx, nil, "label", "namespace", namespace, "ffpod.dev/keep-")
		do(ctx, "delete", "--ignore-not-found", "clusterrolebinding/ffpod-stack-token-review", "namespace/"+namespace)
	}, NodeTimeout(readyBound))

	AfterEach(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			for _, part := range []string{"deploy/jellyfin", "deploy/ffpod-scheduler", "deploy/ffpod-cpu"} {
				log, _ := kubectl(ctx, nil, "logs", part, "--all-containers", "--tail=40")
				AddReportEntry(part, log, ReportEntryVisibilityFailureOrVerbose)
			}
			state, _ := kubectl(ctx, nil, "get", "pods,pvc,events", "-o", "wide")
			AddReportEntry("state", state, ReportEntryVisibilityFailureOrVerbose)
		}
	}, NodeTimeout(readyBound))

	It("starts with the shim as its ffmpeg, and is ready by its own word", func(ctx SpecContext) {
		Eventually(func() string { // Jellyfin is healthy before it has asked its ffmpeg
			return do(ctx, "logs", "deploy/jellyfin", "-c", "jellyfin")
		}).WithContext(ctx).WithTimeout(readyBound).WithPolling(time.Second).Should(ContainSubstring("23 processes"))
		Expect(do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "/opt/ffpod/ffpod", "jellyfin", "healthy")).To(BeEmpty())
		files := strings.Fields(do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "ls", "/config/config"))
		Expect(files).To(ContainElements("encoding.xml", "system.xml"))
	}, NodeTimeout(specBound))

	It("gives one identity and one view of the files to both sides", func(ctx SpecContext) {
		const look = `id; for d in /media /cache/transcodes /cache/tmp /cache/concat /config/data/subtitles /config/data/attachments; do stat -c '%n %u:%g %i' $d; done`
		here := do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "/bin/sh", "-c", look)
		there := do(ctx, "exec", "deploy/ffpod-cpu", "-c", "worker", "--", "/bin/sh", "-c", look)
		Expect(there).To(Equal(here))
		_, err := kubectl(ctx, nil, "exec", "deploy/ffpod-cpu", "-c", "worker", "--", "/bin/sh", "-c", "ls /config/config || touch /media/x")
		Expect(err).To(HaveOccurred(), "a worker sees Jellyfin's configuration, or may write to the library")
	}, NodeTimeout(specBound))

	It("plays a film, and seeks in it, on a worker", func(ctx SpecContext) {
		before := decisions(ctx)
		v := watch(ctx, "alice", 0)
		Eventually(v.at).WithContext(ctx).WithTimeout(patience).Should(BeNumerically(">=", 4))
		v.seek(200)
		Eventually(v.at).WithContext(ctx).WithTimeout(patience).Should(BeNumerically(">=", 203))
		v.seek(100)
		Eventually(v.at).WithContext(ctx).WithTimeout(patience).Should(BeNumerically(">=", 103))
		AddReportEntry(v.end(ctx))
		Expect(v.failure()).NotTo(HaveOccurred())
		Expect(decisions(ctx)).To(BeNumerically(">=", before+3))
		calm(ctx)
	}, NodeTimeout(specBound))

	for _, scenario := range []string{"scan", "keyframes", "trickplay", "subtitles", "attachments", "image", "loudness", "progressive", "throttle"} {
		It("serves Jellyfin's "+scenario, func(ctx SpecContext) {
			Expect(perform(ctx, scenario, jellyfin.V12_0).Problems).To(BeEmpty())
			calm(ctx)
		}, NodeTimeout(specBound))
	}

	// A film goes on after each of these; a viewer repeats a request, no more.
	for _, c := range []struct {
		what  string
		force func(ctx context.Context)
	}{
		{"Jellyfin is restarted", func(ctx context.Context) { do(ctx, "delete", "--wait=false", "pod", podOf(ctx, "server")) }},
		{"the scheduler is restarted", func(ctx context.Context) { do(ctx, "rollout", "restart", "deploy/ffpod-scheduler") }},
		{"the workers are restarted", func(ctx context.Context) { do(ctx, "rollout", "restart", "deploy/ffpod-cpu") }},
		{"every pod is gone at once", func(ctx context.Context) {
			do(ctx, "delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
		}},
	} {
		It("plays on when "+c.what, func(ctx SpecContext) {
			v := watch(ctx, "bob", 0)
			Eventually(v.at).WithContext(ctx).WithTimeout(patience).Should(BeNumerically(">=", 3))
			Expect(transcodes(ctx)).To(BeNumerically(">", 0), "no worker is at it")
			c.force(ctx)
			// What is transcoded already lies on the shared claim: a seek ahead needs a
			// worker again.
			const ahead = 300
			v.seek(ahead)
			Eventually(v.at).WithContext(ctx).WithTimeout(patience).Should(BeNumerically(">=", ahead+8), func() string {
				return fmt.Sprint(v.failure(), v.end(ctx))
			})
			AddReportEntry(v.end(ctx))
			ready(ctx)
			calm(ctx)
		}, NodeTimeout(specBound))
	}

	It("is not restarted by a new release of ffpod", func(ctx SpecContext) {
		jellyfin, worker := podOf(ctx, "server"), podOf(ctx, "worker")
		release := GinkgoT().TempDir()
		base, err := filepath.Rel(release, overlay)
		Expect(err).NotTo(HaveOccurred())
		// The tag is the same image's: what counts is that the name has changed.
		Expect(os.WriteFile(filepath.Join(release, "kustomization.yaml"), fmt.Appendf(nil,
			"resources: [%s]\nimages: [{name: ffpod/ffpod, newName: ffpod/shim, newTag: dev}]\n", base), 0o600)).To(Succeed())
		do(ctx, "apply", "--server-side", "--force-conflicts", "-k", release)
		do(ctx, "rollout", "status", "deploy/ffpod-cpu", "--timeout=120s")
		do(ctx, "rollout", "status", "deploy/ffpod-scheduler", "--timeout=120s")
		ready(ctx)
		Expect(podOf(ctx, "worker")).NotTo(Equal(worker), "the workers did not notice the release")
		Expect(podOf(ctx, "server")).To(Equal(jellyfin))
		do(ctx, "apply", "--server-side", "--force-conflicts", "-k", overlay)
		do(ctx, "rollout", "status", "deploy/ffpod-cpu", "--timeout=120s")
		ready(ctx)
	}, NodeTimeout(specBound))

	// Back to the release before, with its shim; then on to this one, which leaves
	// Jellyfin and the shim in it as they are.
	It("plays on when the previous release takes its place, and when this one does again", func(ctx SpecContext) {
		v := watch(ctx, "carol", 0)
		moved := func(to string, release string) {
			Eventually(v.at).WithContext(ctx).WithTimeout(patience).Should(BeNumerically(">", v.at()+2))
			Expect(transcodes(ctx)).To(BeNumerically(">", 0), "no worker is at it")
			say("apply %s in mid-film", to)
			do(ctx, "apply", "--server-side", "--force-conflicts", "-k", release)
			for _, d := range []string{"ffpod-scheduler", "ffpod-cpu", "jellyfin"} {
				do(ctx, "rollout", "status", "deploy/"+d, "--timeout=180s")
			}
			ahead := v.at() + 150
			v.seek(ahead)
			Eventually(v.at).WithContext(ctx).WithTimeout(patience).Should(BeNumerically(">=", ahead+4), func() string {
				return fmt.Sprint(v.failure(), v.end(ctx))
			})
			ready(ctx)
		}
		moved("the previous release", previous("previous"))
		Expect(releases(ctx)).To(HaveEach(HaveSuffix(":previous")))
		server := podOf(ctx, "server")
		moved("this release", release(overlay, "previous"))
		Expect(releases(ctx)).To(HaveEach(HaveSuffix(":dev")))
		Expect(podOf(ctx, "server")).To(Equal(server), "Jellyfin was restarted")
		AddReportEntry(v.end(ctx))
		Expect(v.failure()).NotTo(HaveOccurred())
		calm(ctx)
		do(ctx, "apply", "--server-side", "--force-conflicts", "-k", overlay)
		ready(ctx)
	}, NodeTimeout(specBound))

	It("changes nothing when it is applied again", func(ctx SpecContext) {
		before := versions(ctx)
		do(ctx, "apply", "--server-side", "-k", overlay)
		Expect(versions(ctx)).To(Equal(before))
	}, NodeTimeout(specBound))

	It("takes settings from outside, and is back after them", func(ctx SpecContext) {
		const setting, element = "enableThrottling=true", "<EnableThrottling>true</EnableThrottling>"
		stored := func() string {
			return do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "cat", "/config/config/encoding.xml")
		}
		Expect(stored()).NotTo(ContainSubstring(element))
		server := podOf(ctx, "server")
		Expect(ffpod(ctx, "jellyfin", "apply", setting)).To(ContainSubstring("EnableThrottling"))
		Expect(podOf(ctx, "server")).To(Equal(server))
		Expect(stored()).NotTo(ContainSubstring(element), "without --yes nothing is written")
		AddReportEntry("said", ffpod(ctx, "jellyfin", "apply", "--yes", setting))
		ready(ctx)
		Expect(podOf(ctx, "server")).NotTo(Equal(server))
		Expect(stored()).To(ContainSubstring(element))
	}, NodeTimeout(specBound))

	It("leaves claims, and nothing else, when it is removed; and finds them again", func(ctx SpecContext) {
		do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "/bin/sh", "-c", "echo kept > /config/data/library.db")
		_, err := kubectl(ctx, nil, "delete", "--wait=true", "--timeout=120s", "-k", overlay)
		Expect(err).To(MatchError(ContainSubstring("ffpod.dev/keep")), "who deletes is told why claims stay")
		Eventually(func(g Gomega) {
			left, err := kubectl(ctx, nil, "get", "pods,deployments,statefulsets,jobs,cronjobs,services,secrets,roles,rolebindings,networkpolicies,pvc", "-o", "name")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(strings.Fields(left)).To(ConsistOf("persistentvolumeclaim/jellyfin-config", "persistentvolumeclaim/jellyfin-shared", "persistentvolumeclaim/jellyfin-media"))
		}).WithContext(ctx).WithTimeout(readyBound).WithPolling(time.Second).Should(Succeed())
		Expect(do(ctx, "get", "pvc", "-o", "jsonpath={.items[*].metadata.deletionTimestamp}")).To(BeEmpty())

		do(ctx, "apply", "--server-side", "--force-conflicts", "-k", overlay)
		ready(ctx)
		Expect(do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "cat", "/config/data/library.db")).To(Equal("kept"))
	}, NodeTimeout(specBound))
})

// ffpod runs the operator's program against the suite's namespace.
func ffpod(ctx context.Context, verb, what string, args ...string) string {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"run", "./cmd/ffpod", verb, what, "-n", namespace}, args)...)
	cmd.Dir = manifests.Root()
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	return string(out)
}

// release is an overlay beside base, with the shim of a tag.
func release(base, shim string, lines ...string) string {
	GinkgoHelper()
	dir := GinkgoT().TempDir()
	base, err := filepath.Rel(dir, base)
	Expect(err).NotTo(HaveOccurred())
	text := fmt.Sprintf("resources: [%s]\nimages:\n  - {name: ffpod/shim, newTag: %s}\n", base, shim)
	Expect(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text+strings.Join(lines, "\n")), 0o600)).To(Succeed())
	return dir
}

// previous is test/stack/overlay of the previous release's manifests.
func previous(tag string) string {
	GinkgoHelper()
	ours, err := os.ReadFile(filepath.Join(overlay, "kustomization.yaml"))
	Expect(err).NotTo(HaveOccurred())
	there := filepath.Join(cluster.Cache(), "previous")
	dir := filepath.Join(there, "test", "stack", "overlay")
	Expect(os.MkdirAll(dir, 0o755)).To(Succeed())
	Expect(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), ours, 0o644)).To(Succeed())
	return release(dir, tag, "  - {name: ffpod/ffpod, newTag: "+tag+"}")
}

// releases are the images of ffpod's own two processes that run.
func releases(ctx context.Context) []string {
	GinkgoHelper()
	return strings.Fields(do(ctx, "get", "pods", "-l", "app.kubernetes.io/component in (scheduler,worker)", "--field-selector=status.phase=Running",
		"-o", `jsonpath={range .items[*]}{.spec.initContainers[?(@.name=="supervisor")].image} {.spec.containers[?(@.name=="scheduler")].image} {end}`))
}

// fill puts the library where Jellyfin has it.
func fill(ctx context.Context) {
	GinkgoHelper()
	library, err := jellyfin.MakeMedia(ctx, cluster.Cache())
	Expect(err).NotTo(HaveOccurred())
	Expect(cluster.New(namespace).Unpack(ctx, library, "media", "deploy/jellyfin", "-c", "jellyfin")).To(Succeed())
}

// versions are the generations of what has one and the resource versions of the
// rest, of all that the overlay makes.
func versions(ctx context.Context) map[string]string {
	GinkgoHelper()
	objects, err := manifests.Render("test/stack/overlay")
	Expect(err).NotTo(HaveOccurred())
	all := map[string]string{}
	for _, o := range objects {
		kind := strings.ToLower(o.GetKind())
		if group := o.GroupVersionKind().Group; group != "" {
			kind += "." + group
		}
		version := do(ctx, "get", kind, o.GetName(), "-o", "jsonpath={.metadata.generation}/{.metadata.resourceVersion}")
		generation, resource, _ := strings.Cut(version, "/")
		if generation != "" {
			resource = "-" // its status may have changed
		}
		all[kind+"/"+o.GetName()] = generation + "/" + resource
	}
	return all
}
