package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/scheduler/api"
)

// operator runs ffpod on this machine as an operator does, with the kubeconfig of
// the suite.
type operator struct{ binary string }

func newOperator(ctx context.Context) operator {
	GinkgoHelper()
	path := filepath.Join(GinkgoT().TempDir(), "ffpod")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/ffpod/ffpod/cmd/ffpod").CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	return operator{path}
}

func (o operator) run(ctx context.Context, stdin io.Reader, args ...string) (code int, stdout []byte, stderr string) {
	GinkgoHelper()
	verb := append([]string{args[0], "-n", namespace}, args[1:]...)
	cmd := exec.CommandContext(ctx, o.binary, verb...)
	var out, words bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &words
	cmd.Env = os.Environ()
	err := cmd.Run()
	var exit *exec.ExitError
	Expect(err == nil || errors.As(err, &exit)).To(BeTrue(), "%v", err)
	return cmd.ProcessState.ExitCode(), out.Bytes(), words.String()
}

var _ = Describe("the operator's verbs", Label(labelWarm), func() {
	var ffpod operator
	BeforeEach(func(ctx SpecContext) { ffpod = newOperator(ctx) })

	It("test says which worker did the work, and fails when none may", func(ctx SpecContext) {
		code, stdout, stderr := ffpod.run(ctx, nil, "test", "--class", "cpu")
		Expect(code).To(BeZero(), stderr)
		Expect(string(stdout)).To(MatchRegexp(`^ok: pod ffpod-client-\S+, worker ffpod-cpu-\S+ of class cpu on node \S+ \((warm|job)\) encoded 2 s with libx264, in \S+\n$`))

		code, _, stderr = ffpod.run(ctx, nil, "test", "--class", "no-such-class")
		Expect(code).To(Equal(1))
		Expect(stderr).To(ContainSubstring("no-such-class"))

		By("an account that may not open sessions")
		code, _, stderr = ffpod.run(ctx, nil, "test", "--in", "deploy/ffpod-scheduler")
		Expect(code).To(Equal(1))
		Expect(stderr).To(ContainSubstring("has the shim"))
	}, NodeTimeout(planBound))

	It("status tells of classes, workers and sessions, and of no command", func(ctx SpecContext) {
		code, _, stderr := ffpod.run(ctx, nil, "run", "--class", "cpu", "--", "ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=d=0.2:s=64x64", "-metadata", "title=secret-title", "-f", "null", "-")
		Expect(code).To(BeZero(), stderr)
		code, stdout, stderr := ffpod.run(ctx, nil, "status", "--json")
		Expect(code).To(BeZero(), stderr)
		var got api.Status
		Expect(json.Unmarshal(stdout, &got)).To(Succeed())
		Expect(got.Namespace).To(Equal(namespace))
		Expect(got.Classes).To(ContainElement(HaveField("Name", "cpu")))
		Expect(got.Workers).To(ContainElement(And(HaveField("Class", "cpu"), HaveField("Ready", true), HaveField("Slots", 8))))
		Expect(got.Sessions).NotTo(BeEmpty())
		Expect(string(stdout)).NotTo(ContainSubstring("secret-title"))
		Expect(string(stdout)).NotTo(ContainSubstring("testsrc2"))
		code, stdout, _ = ffpod.run(ctx, nil, "status")
		Expect(code).To(BeZero())
		Expect(string(stdout)).To(ContainSubstring("CLASS"))
	}, NodeTimeout(planBound))

	It("run carries stdin, stdout, stderr and the exit code, byte for byte", func(ctx SpecContext) {
		raw := bytes.Repeat([]byte("0123456789abcdef"), 64*64*3/16*40) // 40 pictures of 64x64 rgb24
		code, stdout, stderr := ffpod.run(ctx, bytes.NewReader(raw), "run", "--class", "cpu", "--", "ffmpeg", "-v", "error",
			"-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x64", "-i", "-", "-c", "copy", "-f", "rawvideo", "-")
		Expect(code).To(BeZero(), stderr)
		Expect(bytes.Equal(stdout, raw)).To(BeTrue(), "%d bytes came back of %d", len(stdout), len(raw))

		code, _, stderr = ffpod.run(ctx, nil, "run", "-v", "--class", "cpu", "--", "ffmpeg", "-v", "error", "-i", "/media/no-such-film.mkv", "-f", "null", "-")
		Expect(code).To(And(BeNumerically(">", 0), BeNumerically("<", 125)))
		Expect(stderr).To(And(ContainSubstring("no-such-film"), ContainSubstring("worker ffpod-cpu-")))

		By("a file that no worker mounts")
		code, _, stderr = ffpod.run(ctx, nil, "run", "--class", "cpu", "--", "ffmpeg", "-i", "/home/me/film.mkv", "-f", "null", "-")
		Expect(code).To(Equal(125))
		Expect(stderr).To(ContainSubstring("/home/me/film.mkv"))
	}, NodeTimeout(planBound))

	It("doctor finds the policies in force, sees one pod's file in the other, and leaves nothing", func(ctx SpecContext) {
		bundle := filepath.Join(GinkgoT().TempDir(), "bundle.tar.gz")
		_, stdout, stderr := ffpod.run(ctx, nil, "doctor", "--json", "--bundle", bundle)
		var got struct {
			Findings []struct{ Check, Level, On, What, Why, Remedy string }
		}
		Expect(json.Unmarshal(stdout, &got)).To(Succeed(), "%s%s", stdout, stderr)
		level := map[string][]string{}
		for _, f := range got.Findings {
			level[f.Check] = append(level[f.Check], f.Level+" "+f.On+": "+f.What+": "+f.Why)
		}
		for _, check := range []string{"api-server", "policies", "trust", "callers", "dns"} {
			Expect(level[check]).NotTo(BeEmpty(), check)
			Expect(level[check]).To(HaveEach(HavePrefix("ok ")), check)
		}
		Expect(level["rwx"]).To(ContainElement(And(HavePrefix("ok /cache"), ContainSubstring("a new file is seen after"))), strings.Join(level["rwx"], "\n"))
		Expect(client.shell(ctx, "ls -A /cache")).NotTo(ContainSubstring("ffpod-doctor"))
		info, err := os.Stat(bundle)
		Expect(err).NotTo(HaveOccurred())
		Expect(info.Mode().Perm()).To(BeEquivalentTo(0o600))
	}, NodeTimeout(planBound))

	It("doctor --before removes the claim and the pods of its trial", func(ctx SpecContext) {
		pods, err := world.set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=client"})
		Expect(err).NotTo(HaveOccurred())
		Expect(pods.Items).NotTo(BeEmpty())
		image := pods.Items[0].Spec.Containers[0].Image
		_, stdout, stderr := ffpod.run(ctx, nil, "doctor", "--before", "--verbose", "--only", "rwx", "--claim", "cache", "--image", image)
		Expect(string(stdout)).To(ContainSubstring("a new file is seen after"), stderr)
		left, err := world.set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "ffpod.dev/trial"})
		Expect(err).NotTo(HaveOccurred())
		for _, p := range left.Items {
			Expect(p.DeletionTimestamp).NotTo(BeNil(), p.Name)
		}
	}, NodeTimeout(planBound))
})
