package data_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/jellyfin/image"
	cluster "github.com/ffpod/ffpod/test/kubectl"
	"github.com/ffpod/ffpod/test/manifests"
)

// ours puts the suite's namespace and the cluster's storage class into a page's commands.
var ours = strings.NewReplacer("-n media", "-n "+namespace, "-n films", "-n "+namespace, "namespace films", "namespace "+namespace,
	"longhorn-rwx", "standard", "longhorn", "standard")

// encoding is Jellyfin's hardware acceleration, as its file says.
func encoding(ctx context.Context) string {
	GinkgoHelper()
	xml := do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "cat", "/config/config/encoding.xml")
	found := regexp.MustCompile(`<HardwareAccelerationType>(\w+)<`).FindStringSubmatch(xml)
	Expect(found).To(HaveLen(2), xml)
	return found[1]
}

// settled waits for what the last command set going.
func settled(ctx context.Context) {
	GinkgoHelper()
	do(ctx, "rollout", "status", "deployment/jellyfin", "--timeout=120s")
}

var _ = Describe("an install begun small, on one node", Ordered, func() {
	var desk string // where the person works
	at := func(ctx context.Context, script string) string {
		GinkgoHelper()
		return perform(ctx, "cd "+desk+"\n"+script)
	}
	BeforeAll(func() { desk = GinkgoT().TempDir() })
	AfterAll(func(ctx SpecContext) { remove(ctx) }, NodeTimeout(readyBound))

	It("is looked at before, its storage tried, and nothing is left of that", func(ctx SpecContext) {
		do(ctx, "create", "namespace", namespace)
		before := strings.Split(ours.Replace(script("operating.md", "ffpod doctor --before")), "\n")[0]
		Expect(at(ctx, before)).To(ContainSubstring("0 failed"))
		Expect(at(ctx, ours.Replace(strings.Split(script("storage.md", "ffpod doctor --before"), "\n")[0]))).To(ContainSubstring("0 failed"))
		at(ctx, strings.TrimPrefix(strings.Split(script("install.md", "bin/ffpod doctor --before"), "\n")[1], "bin/"))
		Expect(do(ctx, "get", "pods,pvc", "-o", "name")).To(BeEmpty())
	}, NodeTimeout(specBound))

	It("is applied as docs/install.md says, and answers at the port", func(ctx SpecContext) {
		lines := strings.Split(script("install.md", "kubectl apply --server-side -k kustomize/overlays/minimal"), "\n")
		Expect(lines).To(HaveLen(3))
		perform(ctx, strings.Join(lines[:2], "\n"))

		forward := exec.CommandContext(ctx, client.Path, strings.Fields(strings.Split(lines[2], "#")[0])[1:]...)
		Expect(forward.Start()).To(Succeed())
		defer func() { _ = forward.Process.Kill(); _ = forward.Wait() }()
		Eventually(func() (string, error) {
			answer, err := http.Get("http://localhost:8096/health") //nolint:noctx // of this process's own child
			if err != nil {
				return "", err
			}
			defer answer.Body.Close()
			text, err := io.ReadAll(answer.Body)
			return string(text), err
		}).WithContext(ctx).WithTimeout(time.Minute).WithPolling(200 * time.Millisecond).Should(Equal("Healthy"))
	}, NodeTimeout(specBound))

	It("is looked at as docs/operating.md says, and every class proves itself", func(ctx SpecContext) {
		for _, line := range strings.Split(script("operating.md", "ffpod doctor --before"), "\n")[1:] {
			at(ctx, ours.Replace(line))
		}
		at(ctx, ours.Replace("ffpod status -n films && "+strings.Split(script("hardware.md", "ffpod doctor -n jellyfin --only encoders --prove"), "\n")[0]))
		for page, line := range map[string]string{"hardware.md": "kubectl get nodes -o custom-columns", "storage.md": "ffpod doctor --before"} {
			at(ctx, strings.Split(script(page, line), "\n")[map[string]int{"storage.md": 1}[page]])
		}
		explained := at(ctx, script("hardware.md", "kubectl -n jellyfin exec deploy/jellyfin -- /opt/ffpod/ffpod explain --translate"))
		Expect(explained).To(ContainSubstring("h264_qsv"))
		at(ctx, script("troubleshooting.md", "ffpod doctor -n jellyfin"))
		held := at(ctx, "tar -tzf bug.tar.gz")
		Expect(held).To(And(ContainSubstring("report.json"), ContainSubstring("log/ffpod-scheduler")))
		at(ctx, "mkdir report && tar -C report -xzf bug.tar.gz && ! grep -rE 'BEGIN (EC |RSA )?PRIVATE KEY|eyJhbGciOi' report")
		out := at(ctx, ours.Replace("ffpod doctor -n films --prove -v"))
		Expect(out).To(And(ContainSubstring("0 failed"), ContainSubstring("encoders")))
	}, NodeTimeout(specBound))

	It("runs a command as docs/operating.md says", func(ctx SpecContext) {
		do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "/usr/lib/jellyfin-ffmpeg/ffmpeg", "-v", "error", "-y",
			"-f", "lavfi", "-i", "testsrc=size=320x240:rate=25", "-t", "12", "-c:v", "libx264", "-preset", "ultrafast", "/media/film.mkv")
		at(ctx, ours.Replace(script("operating.md", "ffpod run"))+"\ntest $(stat -c %s ten-seconds.ts) -gt 1000 && head -c 1 ten-seconds.ts | grep -q G")
	}, NodeTimeout(specBound))

	It("takes Jellyfin's settings in the pod, and from outside", func(ctx SpecContext) {
		Expect(encoding(ctx)).To(Equal("none"))
		at(ctx, ours.Replace(script("operating.md", "kubectl -n media exec deploy/jellyfin -- /opt/ffpod/ffpod jellyfin apply")))
		settled(ctx)
		Expect(encoding(ctx)).To(Equal("nvenc"))

		outside := strings.Split(strings.ReplaceAll(ours.Replace(script("operating.md", "ffpod jellyfin apply -n media")), "nvenc", "none"), "\n")
		Expect(at(ctx, outside[0])).To(ContainSubstring("HardwareAccelerationType"))
		Expect(encoding(ctx)).To(Equal("nvenc"), "the first only says what would change")
		at(ctx, outside[1])
		settled(ctx)
		Expect(encoding(ctx)).To(Equal("none"))

		at(ctx, script("networking.md", "ffpod jellyfin apply"))
		settled(ctx)
		Expect(do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "cat", "/config/config/network.xml")).To(ContainSubstring("10.42.0.0/16"))
	}, NodeTimeout(specBound))

	It("is taken away", func(ctx SpecContext) { remove(ctx) }, NodeTimeout(specBound))

	It("is written by ffpod init, applied, and uninstalled as docs/upgrade.md says", func(ctx SpecContext) {
		// Without cluster, as the page wants it: other installs rely on the policies.
		do(ctx, "create", "namespace", namespace)
		do(ctx, "label", "namespace", namespace, "ffpod.dev/keep=true")
		at(ctx, ours.Replace("ffpod init -n films --namespace-only --vendor --shared one-node films"))
		at(ctx, ours.Replace("ffpod render films | kubectl apply --server-side -f -"))
		at(ctx, ours.Replace(script("install.md", "kubectl -n films rollout status")))

		By("bringing a directory along as docs/migration.md says")
		old := GinkgoT().TempDir()
		Expect(os.WriteFile(filepath.Join(old, "brought"), []byte("along"), 0o600)).To(Succeed())
		at(ctx, ours.Replace("kubectl -n films scale deployment/jellyfin --replicas=0"))
		do(ctx, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=jellyfin,app.kubernetes.io/component=server", "--timeout=60s")
		copying := strings.NewReplacer("busybox", image.Jellyfin, "/srv/jellyfin/config", old, "-n films", "-n "+namespace).Replace(script("migration.md", "kubectl -n films run copy"))
		lines := strings.Split(copying, "\n")
		at(ctx, lines[0]+"\nkubectl -n "+namespace+" wait --for=condition=Ready pod/copy --timeout=60s")
		at(ctx, lines[1])
		Expect(do(ctx, "exec", "copy", "--", "cat", "/config/brought")).To(Equal("along"))
		at(ctx, lines[2])
		kept := strings.Split(strings.ReplaceAll(script("migration.md", "kubectl -n jellyfin-system annotate pvc"), "jellyfin-system", namespace), "\n")
		at(ctx, strings.Join(kept[:2], "\n"))
		retain := strings.Replace(kept[2], "NAME", do(ctx, "get", "pvc", "jellyfin-shared", "-o", "jsonpath={.spec.volumeName}"), 1)
		at(ctx, retain+"\n"+strings.Replace(retain, "Retain", "Delete", 1)) // and nothing stays on the machine

		steps := strings.SplitN(script("upgrade.md", "ffpod render films > films.yaml"), "\n", 2)
		at(ctx, ours.Replace(steps[0]))
		out := at(ctx, "! "+ours.Replace(steps[1]))
		Expect(out).To(ContainSubstring("ffpod.dev/keep"))
		Eventually(func() (string, error) {
			return client.Run(ctx, nil, "get", "pods,deployments,services,networkpolicies,roles", "-o", "name")
		}).WithContext(ctx).WithTimeout(readyBound).WithPolling(time.Second).Should(BeEmpty())
		Expect(do(ctx, "get", "pvc", "-o", "name")).To(ContainSubstring("jellyfin-config"))
		at(ctx, script("storage.md", "kubectl -n jellyfin label pvc jellyfin-shared"))
		Expect(do(ctx, "get", "pvc", "-o", "name")).NotTo(ContainSubstring("jellyfin-shared"))

		lines = strings.Split(script("upgrade.md", "kubectl label namespace films"), "\n")
		at(ctx, ours.Replace(strings.Join(lines[:2], "\n")))
		out, err := client.Run(ctx, nil, "get", "namespace", namespace, "--ignore-not-found", "-o", "name")
		Expect(err).NotTo(HaveOccurred())
		Expect(out).To(BeEmpty())
	}, NodeTimeout(specBound))
})

// example writes the files of a page's blocks that begin with `# NAME.yaml`.
func example(page, dir string) {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(manifests.Root(), "docs", page))
	Expect(err).NotTo(HaveOccurred())
	blocks := regexp.MustCompile("(?s)```yaml\n# ([a-z]+\\.yaml)\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	Expect(blocks).NotTo(BeEmpty(), page)
	for _, b := range blocks {
		Expect(os.WriteFile(filepath.Join(dir, b[1]), []byte(b[2]), 0o600)).To(Succeed())
	}
}

// shelf is the library of docs/callers.md, which its reader has, with one film.
const shelf = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: films}
spec:
  accessModes: [ReadWriteMany]
  resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: Pod
metadata: {name: shelf}
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: shelf
      image: ffpod/worker:dev
      imagePullPolicy: IfNotPresent
      command: [sh, -c, "mkdir -p /films/in /films/out && ffmpeg -v error -f lavfi -i testsrc=d=3 -c:v mpeg4 /films/in/a.mkv"]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: films, mountPath: /films}]
  volumes:
    - name: films
      persistentVolumeClaim: {claimName: films}
`

var _ = Describe("a plain script", func() {
	It("has its films made on a worker, as docs/callers.md says", func(ctx SpecContext) {
		encode := cluster.New("encode")
		run := func(stdin string, args ...string) string {
			GinkgoHelper()
			out, err := encode.Run(ctx, strings.NewReader(stdin), args...)
			Expect(err).NotTo(HaveOccurred())
			return out
		}
		DeferCleanup(func(ctx SpecContext) { do(ctx, "delete", "namespace", "encode", "--ignore-not-found") }, NodeTimeout(readyBound))
		do(ctx, "delete", "namespace", "encode", "--ignore-not-found")
		do(ctx, "create", "namespace", "encode")
		run(shelf, "apply", "-f", "-")
		run("", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/shelf", "--timeout=120s")

		dir := GinkgoT().TempDir()
		example("callers.md", dir)
		perform(ctx, "ffpod render "+dir+" | kubectl apply --server-side -f -")
		run("", "rollout", "status", "deployment/ffpod-scheduler", "deployment/ffpod-cpu", "deployment/encoder", "--timeout=120s")
		Eventually(func() (string, error) {
			return encode.Run(ctx, nil, "exec", "deployment/encoder", "-c", "encoder", "--", "/usr/bin/ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "/films/out/a.mkv")
		}).WithContext(ctx).WithTimeout(readyBound).WithPolling(time.Second).Should(ContainSubstring("h264"))
		Expect(run("", "logs", "deployment/ffpod-scheduler")).To(MatchRegexp(`"session ended".*"placement":"warm".*"exit":"0"`))
		out := perform(ctx, script("callers.md", "kubectl -n encode exec deployment/encoder"))
		Expect(out).To(And(ContainSubstring(`"where": "remote"`), ContainSubstring("ffpod-cpu")))
	}, NodeTimeout(specBound))
})
