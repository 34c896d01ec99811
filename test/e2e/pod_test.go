package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/ffpod/ffpod/test/e2e"
)

// pod is one container of the install.
type pod struct {
	cluster         *cluster
	name, container string
	uid             types.UID
}

// exec runs a command in the pod as `kubectl exec` does.
func (p pod) exec(ctx context.Context, stdin io.Reader, command ...string) (string, error) {
	u := p.cluster.set.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name(p.name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: p.container, Command: command, Stdin: stdin != nil, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	websocket, err := remotecommand.NewWebSocketExecutor(p.cluster.config, "GET", u.String())
	if err != nil {
		return "", err
	}
	spdy, err := remotecommand.NewSPDYExecutor(p.cluster.config, "POST", u)
	if err != nil {
		return "", err
	}
	either, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return "", err
	}
	var out, errs bytes.Buffer
	err = either.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: &out, Stderr: &errs})
	if err != nil {
		err = fmt.Errorf("exec %s in %s: %w: %s", command[0], p.name, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), err
}

// shell runs a script and returns its stdout, without the last line's end.
func (p pod) shell(ctx context.Context, script string) string {
	GinkgoHelper()
	out, err := p.exec(ctx, nil, "/bin/sh", "-euc", script)
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSuffix(out, "\n")
}

// upload puts a local file on the shared volume, also over a running program.
func (p pod) upload(ctx context.Context, path, name string) {
	GinkgoHelper()
	f, err := os.Open(path)
	Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	to := e2e.Home + "/" + name
	_, err = p.exec(ctx, f, "/bin/sh", "-euc", "mkdir -p "+e2e.Home+"; cat > "+to+".new; chmod 755 "+to+".new; mv "+to+".new "+to)
	Expect(err).NotTo(HaveOccurred())
}

// buildDriver compiles the program that acts in the pods.
func buildDriver(ctx context.Context, arch string) string {
	GinkgoHelper()
	say("build the driver")
	path := filepath.Join(GinkgoT().TempDir(), "driver")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/ffpod/ffpod/test/e2e/driver")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), string(out))
	return path
}

// play runs a plan in the client pod and returns what the parent saw.
func play(ctx context.Context, plan e2e.Plan) []e2e.Result {
	GinkgoHelper()
	results, err := client.play(ctx, plan)
	Expect(err).NotTo(HaveOccurred())
	for i, r := range results {
		Expect(r.Error).To(BeEmpty(), "run %d of the plan: %s", i+1, words(r))
	}
	return results
}

// one is play for a single run.
func one(ctx context.Context, run e2e.Run) e2e.Result {
	GinkgoHelper()
	return play(ctx, e2e.Plan{Runs: []e2e.Run{run}})[0]
}

func (p pod) play(ctx context.Context, plan e2e.Plan) ([]e2e.Result, error) {
	order, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	// Stdin stays open until the end: when the suite goes away, so does the plan.
	in, hold := io.Pipe()
	defer hold.Close()
	go func() { _, _ = hold.Write(order) }()
	out, err := p.exec(ctx, in, e2e.Driver, "parent")
	if err != nil {
		return nil, err
	}
	var results []e2e.Result
	if err := json.Unmarshal([]byte(out), &results); err != nil {
		return nil, fmt.Errorf("driver's answer: %w: %.200q", err, out)
	}
	return results, nil
}

// processes are those of the container, without the exec that asks. An exec may
// fail while a container begins or ends: ask again.
func (p pod) processes(ctx context.Context) ([]e2e.Process, error) {
	out, err := p.exec(ctx, nil, e2e.Driver, "procs")
	if err != nil {
		return nil, err
	}
	var all []e2e.Process
	return all, json.Unmarshal([]byte(out), &all)
}

// marked are the processes that have the mark in their command line. Of the
// client those are shims.
func (p pod) marked(ctx context.Context, mark string) ([]e2e.Process, error) {
	all, err := p.processes(ctx)
	return slices.DeleteFunc(all, func(x e2e.Process) bool { return !strings.Contains(strings.Join(x.Args, " "), mark) }), err
}

// delete deletes the pod, at once if grace is 0.
func (p pod) delete(ctx context.Context, grace int64) {
	GinkgoHelper()
	err := p.cluster.set.CoreV1().Pods(namespace).Delete(ctx, p.name, metav1.DeleteOptions{GracePeriodSeconds: &grace, Preconditions: &metav1.Preconditions{UID: &p.uid}})
	Expect(err).NotTo(HaveOccurred())
}

// words is a result for a person.
func words(r e2e.Result) string {
	text := func(s e2e.Stream) string {
		if len(s.Head) > 600 {
			return fmt.Sprintf("%d bytes, %.300q ... %q", s.Bytes, s.Head, s.Head[len(s.Head)-300:])
		}
		return fmt.Sprintf("%d bytes, %q", s.Bytes, s.Head)
	}
	end := fmt.Sprintf("code %d", r.Code)
	if r.Signal != 0 {
		end = "signal " + r.Signal.String()
	}
	return fmt.Sprintf("%s after %s; stdout: %s; stderr: %s; shim: %s; %s",
		end, (r.Ended - r.Started).Round(time.Millisecond), text(r.Stdout), text(r.Stderr), r.Log, r.Error)
}
