package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/ffpod/ffpod/test/bench/agent"
	"github.com/ffpod/ffpod/test/kubectl"
)

const (
	// class is the one that is measured.
	class = "cpu"
	// realFFmpeg is what the shim stands for, the same in the client and in the
	// worker.
	realFFmpeg = "/usr/bin/ffmpeg"
	shim       = "/opt/ffpod/ffmpeg"
	// podDir is the client's, mediaDir and cacheDir are shared with the workers.
	podDir   = "/tmp/ffpod-bench"
	mediaDir = "/media/ffpod-bench"
	cacheDir = "/cache/ffpod-bench"
)

// forced makes the shim run remotely or fail.
func forced(policy string) []string {
	return []string{"FFPOD_MODE=remote", "FFPOD_FALLBACK=fail", "FFPOD_POLICY=" + policy, "FFPOD_CLASS=" + class}
}

// cluster is the demo as it was found, and an agent in its client pod.
type cluster struct {
	config         *rest.Config
	client         kubernetes.Interface
	kubectl        string
	kubeconfig     string
	namespace      string
	clientPod      string
	workerPod      string
	agent          *agent.Client
	architecture   string
	kubeletVersion string

	cancel context.CancelFunc
	work   sync.WaitGroup
}

// prepare checks what the benchmark needs and starts the agent. Its error says
// what is missing and what to do about it.
func prepare(ctx context.Context, namespace string) (*cluster, error) {
	c := &cluster{kubeconfig: os.Getenv("KUBECONFIG"), namespace: namespace}
	if c.kubeconfig == "" {
		return nil, errors.New("KUBECONFIG is not set: `make bench` sets it to the local cluster's, or name your own")
	}
	var err error
	if c.config, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w: `make cluster` makes the local one", c.kubeconfig, err)
	}
	c.config.QPS, c.config.Burst = 200, 200
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return nil, err
	}
	c.kubectl = kubectl.New(c.namespace).Path
	if _, err := exec.LookPath(c.kubectl); err != nil {
		return nil, fmt.Errorf("kubectl is one of the baselines: %w; install it, or set FFPOD_CACHE to where test/cluster keeps its own", err)
	}
	if err := c.find(ctx); err != nil {
		return nil, err
	}
	if err := c.startAgent(ctx); err != nil {
		c.close()
		return nil, err
	}
	if err := c.agentReady(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// find looks for the demo's pods.
func (c *cluster) find(ctx context.Context) error {
	for _, p := range []struct {
		pod      *string
		what     string
		selector string
	}{
		{&c.clientPod, "client", "app.kubernetes.io/component=client"},
		{&c.workerPod, "warm worker", "ffpod.dev/class=" + class + ",ffpod.dev/role=warm"},
		{new(string), "scheduler", "app.kubernetes.io/component=scheduler"},
	} {
		pod, err := c.running(ctx, p.selector)
		if err != nil {
			return fmt.Errorf("look for the demo's %s in namespace %s: %w", p.what, c.namespace, err)
		}
		if pod == nil {
			return fmt.Errorf("namespace %s has no ready %s pod (%s): deploy the demo first, with `make demo`", c.namespace, p.what, p.selector)
		}
		*p.pod = pod.Name
		node, err := c.client.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		c.architecture, c.kubeletVersion = node.Status.NodeInfo.Architecture, node.Status.NodeInfo.KubeletVersion
	}
	return nil
}

// running is the newest ready pod, nil when there is none.
func (c *cluster) running(ctx context.Context, selector string) (*corev1.Pod, error) {
	list, err := c.client.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	var best *corev1.Pod
	for i := range list.Items {
		p := &list.Items[i]
		if p.DeletionTimestamp == nil && ready(p) && (best == nil || best.CreationTimestamp.Before(&p.CreationTimestamp)) {
			best = p
		}
	}
	return best, nil
}

func ready(p *corev1.Pod) bool {
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady {
			return cond.Status == corev1.ConditionTrue
		}
	}
	return false
}

// startAgent compiles test/bench/inside for the node, copies it into the client
// pod and execs it.
func (c *cluster) startAgent(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "ffpod-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "inside")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "github.com/ffpod/ffpod/test/bench/inside")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+c.architecture)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("compile test/bench/inside: %w: %s", err, bytes.TrimSpace(out))
	}
	f, err := os.Open(binary)
	if err != nil {
		return err
	}
	defer f.Close()
	// A new file each time: the one of an interrupted run may still be executed.
	script := "mkdir -p " + podDir + " && rm -f " + podDir + "/inside && cat >" + podDir + "/inside && chmod 755 " + podDir + "/inside"
	if err := c.exec(ctx, c.clientPod, "client", f, nil, "sh", "-c", script); err != nil {
		return fmt.Errorf("copy the agent into pod %s: %w", c.clientPod, err)
	}
	stdin, toAgent := io.Pipe()
	fromAgent, stdout := io.Pipe()
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.work.Go(func() {
		err := c.exec(ctx, c.clientPod, "client", stdin, stdout, podDir+"/inside")
		if err == nil {
			err = errors.New("the agent's exec stream ended")
		}
		stdin.CloseWithError(err)
		stdout.CloseWithError(err)
	})
	c.agent = agent.NewClient(toAgent, fromAgent)
	return nil
}

func (c *cluster) agentReady(ctx context.Context) error {
	if _, err := c.agent.Do(ctx, agent.Request{Op: agent.Run, Argv: []string{"mkdir", "-p", mediaDir, cacheDir}}); err != nil {
		return err
	}
	if _, err := c.agent.Do(ctx, agent.Request{Op: agent.Run, Argv: []string{realFFmpeg, "-version"}}); err != nil {
		return err
	}
	if _, err := c.agent.Do(ctx, agent.Request{Op: agent.Run, Argv: []string{shim, "-version"}, Env: forced("warm")}); err != nil {
		return fmt.Errorf("no session runs on a warm worker: %w", err)
	}
	return nil
}

// close ends the agent, and removes what the benchmark made.
func (c *cluster) close() {
	if c.agent != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, _ = c.agent.Do(ctx, agent.Request{Op: agent.Run, Argv: []string{"rm", "-rf", mediaDir, cacheDir, podDir}})
		cancel()
		c.agent.Close()
	}
	if c.cancel != nil {
		c.cancel()
	}
	c.work.Wait()
}

// exec runs a command in a pod as client-go does it, over a new stream.
func (c *cluster) exec(ctx context.Context, pod, container string, stdin io.Reader, stdout io.Writer, argv ...string) error {
	if stdout == nil {
		stdout = io.Discard
	}
	url := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: argv, Stdin: stdin != nil, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, url.String())
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: stdout, Stderr: &stderr}); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// run runs a command in the client pod.
func (c *cluster) run(ctx context.Context, env []string, argv ...string) (agent.Result, error) {
	return c.agent.Do(ctx, agent.Request{Op: agent.Run, Argv: argv, Env: env})
}

// observe describes where the figures come from.
func observe(_ context.Context, c *cluster) machine {
	m := machine{cores: runtime.NumCPU(), before: load()}
	m.text = fmt.Sprintf("bench: Kubernetes %s (%s), namespace %s, client %s, worker %s; here %d cores, load %.1f",
		c.kubeletVersion, c.architecture, c.namespace, c.clientPod, c.workerPod, m.cores, m.before)
	return m
}
