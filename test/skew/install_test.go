package skew_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ffpod/ffpod/test/e2e"
	"github.com/ffpod/ffpod/test/manifests"
)

func TestSkew(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyPollingInterval(250 * time.Millisecond)
	RunSpecs(t, "skew")
}

// Bounds, for two busy cores.
const (
	readyBound  = 2 * time.Minute
	playBound   = 2 * time.Minute
	promptBound = 10 * time.Second // what must happen at once; looking takes most of it
	goneBound   = 2 * time.Minute
)

// The releases, by the names of their classes, their directories and namespaces.
const (
	previous = "old"
	present  = "new"
)

// image is the one with a release's binaries. SKEW_IMAGE names another present.
func image(release string) (repository, tag string) {
	if release == previous {
		return "ffpod/ffpod", "previous"
	}
	if set := os.Getenv("SKEW_IMAGE"); set != "" {
		repository, tag, _ = strings.Cut(set, ":")
		return repository, tag
	}
	return "ffpod/ffpod", "dev"
}

// install is one scheduler's.
type install struct{ release, namespace string }

var installs = map[string]*install{
	previous: {previous, "ffpod-skew-old"},
	present:  {present, "ffpod-skew-new"},
}

// With SKEW_KEEP=1 the installs stay, for a look and for a quick next run.
func keep() bool { return os.Getenv("SKEW_KEEP") == "1" }

var _ = BeforeSuite(func(ctx SpecContext) {
	Expect(os.Getenv("KUBECONFIG")).NotTo(BeEmpty(), "KUBECONFIG is not set; name a cluster's, e.g. that of `go run ./test/cluster up`")
	driver := filepath.Join(GinkgoT().TempDir(), "driver")
	arch, err := kubectl(ctx, nil, "get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.architecture}")
	Expect(err).NotTo(HaveOccurred())
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", driver, "github.com/ffpod/ffpod/test/e2e/driver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	out, err := build.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	if !keep() {
		uninstall(ctx)
	}
	page(ctx)
	both(func(i *install) { i.up(ctx, driver) })
}, NodeTimeout(readyBound+goneBound))

var _ = AfterSuite(func(ctx SpecContext) {
	if !keep() {
		uninstall(ctx)
	}
}, NodeTimeout(goneBound))

func both(do func(*install)) {
	var all sync.WaitGroup
	for _, i := range installs {
		all.Go(func() { defer GinkgoRecover(); do(i) })
	}
	all.Wait()
}

func uninstall(ctx context.Context) {
	GinkgoHelper()
	both(func(i *install) {
		_, err := kubectl(ctx, nil, "delete", "--ignore-not-found", "clusterrolebinding/"+i.namespace+"-token-review", "namespace/"+i.namespace)
		Expect(err).NotTo(HaveOccurred())
	})
}

// page applies what serves every install of the cluster. What was not there before
// goes when the suite ends.
func page(ctx context.Context) {
	GinkgoHelper()
	objects, err := manifests.Render("kustomize/cluster")
	Expect(err).NotTo(HaveOccurred())
	for _, o := range objects {
		name := strings.ToLower(o.GetKind()) + "/" + o.GetName()
		there, err := kubectl(ctx, nil, "get", "--ignore-not-found", "-o", "name", name)
		Expect(err).NotTo(HaveOccurred())
		if there != "" {
			continue
		}
		apply(ctx, []*unstructured.Unstructured{o})
		if !keep() {
			DeferCleanup(func(ctx SpecContext) {
				_, err := kubectl(ctx, nil, "delete", "--ignore-not-found", name)
				Expect(err).NotTo(HaveOccurred())
			})
		}
	}
}

func apply(ctx context.Context, objects []*unstructured.Unstructured) {
	GinkgoHelper()
	var list strings.Builder
	for _, o := range objects {
		text, err := o.MarshalJSON()
		Expect(err).NotTo(HaveOccurred())
		list.Write(text)
	}
	_, err := kubectl(ctx, strings.NewReader(list.String()), "apply", "--server-side", "--force-conflicts", "--field-manager=ffpod-skew", "-f", "-")
	Expect(err).NotTo(HaveOccurred())
}

// up applies the install and waits until its scheduler reaches its workers.
func (i *install) up(ctx context.Context, driver string) {
	GinkgoHelper()
	objects, err := manifests.RenderText(i.kustomization())
	Expect(err).NotTo(HaveOccurred())
	apply(ctx, objects)
	_, err = kubectl(ctx, nil, "-n", i.namespace, "rollout", "status", "deploy", "--timeout="+readyBound.String())
	Expect(err).NotTo(HaveOccurred())
	f, err := os.Open(driver)
	Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	_, err = kubectl(ctx, f, "-n", i.namespace, "exec", "-i", "deploy/ffpod-client", "-c", "client", "--", "sh", "-euc",
		fmt.Sprintf("mkdir -p %[1]s; cat > %[2]s.new; chmod 755 %[2]s.new; mv %[2]s.new %[2]s", e2e.Home, e2e.Driver))
	Expect(err).NotTo(HaveOccurred())
	i.reaches(ctx)
}

// reaches waits until a session of each class and each shim is served.
func (i *install) reaches(ctx context.Context) {
	GinkgoHelper()
	for _, shim := range []string{previous, present} {
		for _, worker := range []string{previous, present} {
			Eventually(func() e2e.Result {
				return i.play(ctx, combination{shim, i.release, worker}.child(warm, e2e.Child{Code: 5}))[0]
			}).WithContext(ctx).WithTimeout(readyBound).Should(exit(5), "the %s shim is not served by class %s in %s", shim, worker, i.namespace)
		}
	}
}

// kustomization is the install: one scheduler, a class of each release, a client
// with the shim of each. Workers run the driver as ffmpeg for who asks for a child,
// else the real one.
func (i *install) kustomization() string {
	class := func(release string) string {
		repository, tag := image(release)
		return fmt.Sprintf(`
  - target: {kind: Deployment, name: ffpod-%[1]s}
    patch: |
      - {op: replace, path: /metadata/annotations/ffpod.dev~1slots, value: "32"}
      - {op: add, path: /metadata/annotations/ffpod.dev~1jobs, value: "4"}
      - {op: replace, path: /spec/template/metadata/annotations/ffpod.dev~1slots, value: "32"}
      - {op: replace, path: /spec/template/spec/terminationGracePeriodSeconds, value: 5}
      - {op: replace, path: /spec/template/spec/initContainers/0/image, value: "%[2]s:%[3]s"}
      - {op: replace, path: /spec/template/spec/containers/0/resources/requests, value: {cpu: 10m, memory: 32Mi}}
      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: FFPOD_FFMPEG, value: /either/ffmpeg}}
      - {op: add, path: /spec/template/spec/containers/0/volumeMounts/-, value: {name: either, mountPath: /either, readOnly: true}}
      - {op: add, path: /spec/template/spec/volumes/-, value: {name: either, configMap: {name: either, defaultMode: 0755}}}`, release, repository, tag)
	}
	shim := func(at int, release string) string {
		repository, tag := image(release)
		return fmt.Sprintf(`
      - {op: replace, path: /spec/template/spec/initContainers/%d/image, value: "%s:%s"}
      - {op: replace, path: /spec/template/spec/initContainers/%d/command, value: [/ffpod/ffpod, install, shim, /install/%s]}`, at, repository, tag, at, release)
	}
	repository, tag := image(i.release)
	text := strings.NewReplacer("NAMESPACE", i.namespace, "SCHEDULER", repository+":"+tag).Replace(`
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: NAMESPACE
resources:
  - ROOT/test/skew/overlay
patches:
  - target: {kind: Namespace}
    options: {allowNameChange: true}
    patch: |
      - {op: replace, path: /metadata/name, value: NAMESPACE}
  - target: {kind: ClusterRoleBinding}
    options: {allowNameChange: true}
    patch: |
      - {op: replace, path: /metadata/name, value: NAMESPACE-token-review}
  - target: {kind: Deployment, name: ffpod-scheduler}
    patch: |
      - {op: replace, path: /spec/template/spec/containers/0/image, value: "SCHEDULER"}
  - target: {kind: Deployment, name: ffpod-client}
    patch: |
      - {op: copy, from: /spec/template/spec/initContainers/0, path: /spec/template/spec/initContainers/1}
      - {op: replace, path: /spec/template/spec/initContainers/1/name, value: shim-present}`)
	return text + shim(0, previous) + shim(1, present) + class(previous) + class(present)
}
