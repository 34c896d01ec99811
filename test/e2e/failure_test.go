package e2e_test

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/test/e2e"
)

var _ = everyWay("A failure of ffpod's own is one line:", func(w way) {
	It("no ffmpeg to run", func(ctx SpecContext) {
		run := w.childOf("broken", e2e.Child{})
		run.Env = append(run.Env, "FFPOD_FFMPEG=/nonexistent/ffmpeg")
		Expect(one(ctx, run)).To(refuse("/nonexistent/ffmpeg"))
	}, NodeTimeout(planBound))

	It("a setting that says nothing", func(ctx SpecContext) {
		run := w.child(e2e.Child{})
		run.Env = append(run.Env, "FFPOD_WAIT=soon")
		Expect(one(ctx, run)).To(refuse("FFPOD_WAIT", "soon"))
	}, NodeTimeout(planBound))
})

var _ = remoteWays("A session is refused in one line", func(w way) {
	It("when no slot becomes free in time", Serial, func(ctx SpecContext) {
		holder := w.childOf("single", e2e.Child{Ready: true, Stay: true, Answer: true})
		holder.Stdin = &e2e.Input{Open: true}
		late := w.childOf("single", e2e.Child{})
		late.Env = append(late.Env, "FFPOD_WAIT=2s")
		// The late one is gone before the holder is let go.
		holder.Steps = []e2e.Step{ready, {Gather: 2}, {Gather: 4}, {CloseStdin: true}}
		script := w.script("read -r go; rc=0; " + e2e.Shim + ` "$@" || rc=$?; echo done $rc; read -r end`)
		script.Env, script.Args = late.Env, append(append(script.Args, []byte("sh")), late.Args...)
		script.Stdin = &e2e.Input{Open: true}
		script.Steps = []e2e.Step{{Gather: 2}, {Write: []byte("go\n")}, {Seen: &e2e.Seen{FD: 1, Text: "done "}}, {Gather: 4}, {Write: []byte("end\n")}}
		results := play(ctx, e2e.Plan{Runs: []e2e.Run{holder, script}})
		Expect(results[0]).To(exit(0))
		Expect(string(results[1].Stdout.Head)).To(Equal("done 125\n"), words(results[1]))
		Expect(string(results[1].Stderr.Head)).To(Satisfy(isOneLine), words(results[1]))
		Expect(string(results[1].Stderr.Head)).To(And(ContainSubstring("2s"), ContainSubstring("single")))
	}, NodeTimeout(planBound))

	It("when its class does not exist", func(ctx SpecContext) {
		Expect(one(ctx, w.childOf("nowhere", e2e.Child{}))).To(refuse("nowhere"))
	}, NodeTimeout(planBound))

	It("when its working directory is not the workers'", func(ctx SpecContext) {
		client.shell(ctx, "mkdir -p /tmp/mine")
		run := w.child(e2e.Child{})
		run.Dir = "/tmp/mine"
		Expect(one(ctx, run)).To(refuse("/tmp/mine"))
	}, NodeTimeout(planBound))

	It("when a file is not shared", func(ctx SpecContext) {
		Expect(one(ctx, w.ffmpeg("-nostdin", "-i", "/tmp/mine.mkv", "-f", "null", "-"))).To(refuse("/tmp/mine.mkv"))
	}, NodeTimeout(planBound))
})

var _ = Describe("Without a scheduler", Label(labelWarm), func() {
	nobody := "FFPOD_ADDRESS=127.0.0.1:9"

	It("a session that must be remote fails in one line", func(ctx SpecContext) {
		run := warm.child(e2e.Child{})
		run.Env = append(run.Env, nobody)
		Expect(one(ctx, run)).To(refuse("127.0.0.1:9", "refused"))
	}, NodeTimeout(planBound))

	It("no byte of stdin is lost to the next command", func(ctx SpecContext) {
		run := warm.script(`while read -r line; do ffmpeg -f lavfi -i nullsrc -f null - 2>/dev/null || echo "$? $line"; done`)
		run.Env = append(run.Env, nobody)
		run.Stdin = &e2e.Input{Text: []byte("one\ntwo\nthree\n")}
		Expect(string(one(ctx, run).Stdout.Head)).To(Equal("125 one\n125 two\n125 three\n"))
	}, NodeTimeout(planBound))

	It("software work runs where it is, and says so", func(ctx SpecContext) {
		run := warm.ffmpeg("-v", "error", "-nostdin", "-i", film, "-c:v", "libx264", "-preset", "ultrafast", "-f", "null", "-")
		run.Env = append(run.Env, nobody, "FFPOD_MODE=auto")
		r := one(ctx, run)
		Expect(r).To(exit(0))
		Expect(string(r.Stderr.Head)).To(Satisfy(isOneLine), words(r))
		Expect(string(r.Stderr.Head)).To(ContainSubstring("running it here instead"))
	}, NodeTimeout(planBound))
})

// Tokens are minted as the kubelet mints them, bound to a pod, each wrong in one
// respect only. The right one, made the same way, proves that.
var _ = Describe("The scheduler", Label(labelWarm), func() {
	with := func(ctx SpecContext, token string) e2e.Result {
		GinkgoHelper()
		run := warm.script("umask 077; cat > /tmp/token.$$; export FFPOD_TOKEN_FILE=/tmp/token.$$; " + `exec ` + e2e.Shim + ` "$@"`)
		of := warm.child(e2e.Child{Code: 6})
		run.Env, run.Args = of.Env, append(append(run.Args, []byte("sh")), of.Args...)
		run.Stdin = &e2e.Input{Text: []byte(token)}
		return one(ctx, run)
	}

	It("takes a caller's token", func(ctx SpecContext) {
		Expect(with(ctx, mint(ctx, namespace, "ffpod-client", client.name, "ffpod"))).To(exit(6))
	}, NodeTimeout(planBound))

	It("refuses a token that nobody signed", func(ctx SpecContext) {
		token := mint(ctx, namespace, "ffpod-client", client.name, "ffpod")
		cut := strings.LastIndexByte(token, '.')
		forged := token[:cut+1] + strings.Repeat("A", len(token)-cut-1)
		Expect(with(ctx, forged)).To(refuse("token"))
	}, NodeTimeout(planBound))

	It("refuses what is no token", func(ctx SpecContext) {
		Expect(with(ctx, "mellon")).To(refuse("token"))
	}, NodeTimeout(planBound))

	It("refuses a token for another audience", func(ctx SpecContext) {
		Expect(with(ctx, mint(ctx, namespace, "ffpod-client", client.name, "elsewhere"))).To(refuse("audience"))
	}, NodeTimeout(planBound))

	It("refuses a ServiceAccount that it does not know", func(ctx SpecContext) {
		worker := world.warm(ctx, "cpu")
		Expect(with(ctx, mint(ctx, namespace, "ffpod-worker", worker.name, "ffpod"))).To(refuse("ffpod-worker"))
	}, NodeTimeout(planBound))

	It("refuses the same ServiceAccount of another namespace", func(ctx SpecContext) {
		Expect(with(ctx, mint(ctx, stranger, "ffpod-client", strange(ctx), "ffpod"))).To(refuse(stranger))
	}, NodeTimeout(planBound))

	It("refuses a caller that has no token", func(ctx SpecContext) {
		run := warm.child(e2e.Child{})
		run.Env = append(run.Env, "FFPOD_TOKEN_FILE=/nonexistent/token")
		Expect(one(ctx, run)).To(refuse("/nonexistent/token"))
	}, NodeTimeout(planBound))

	It("is not trusted with another's certificate", func(ctx SpecContext) {
		run := warm.child(e2e.Child{})
		run.Env = append(run.Env, "FFPOD_CA_FILE=/etc/ssl/certs/ca-certificates.crt")
		Expect(one(ctx, run)).To(refuse("trusted"))
	}, NodeTimeout(planBound))
})

// mint makes a token of the ServiceAccount, bound to the pod.
func mint(ctx context.Context, ns, account, pod, audience string) string {
	GinkgoHelper()
	p, err := world.set.CoreV1().Pods(ns).Get(ctx, pod, metav1.GetOptions{})
	Expect(err).NotTo(HaveOccurred())
	life := int64(600)
	token, err := world.set.CoreV1().ServiceAccounts(ns).CreateToken(ctx, account, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{audience}, ExpirationSeconds: &life,
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod, UID: p.UID},
	}}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	return token.Status.Token
}

// strange makes a caller in a namespace without ffpod. It need not run to have a
// token.
func strange(ctx context.Context) string {
	GinkgoHelper()
	_, err := world.set.CoreV1().ServiceAccounts(stranger).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "ffpod-client"}}, metav1.CreateOptions{})
	Expect(err == nil || apierrors.IsAlreadyExists(err)).To(BeTrue(), "%v", err)
	_, err = world.set.CoreV1().Pods(stranger).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "caller"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "ffpod-client", NodeSelector: map[string]string{"ffpod.dev/no": "node"},
			Containers: []corev1.Container{{Name: "caller", Image: "ffpod/worker:dev"}},
		},
	}, metav1.CreateOptions{})
	Expect(err == nil || apierrors.IsAlreadyExists(err)).To(BeTrue(), "%v", err)
	return "caller"
}
