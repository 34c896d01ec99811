package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// kubectl runs the kubectl of the local cluster's cache, or the one in PATH.
type kubectl struct {
	path  string
	local bool // the local cluster's kubeconfig
}

const localConfig = "/var/lib/ffpod-cluster/kubeconfig"

func newKubectl() *kubectl {
	k := &kubectl{path: "kubectl", local: os.Getenv("KUBECONFIG") == localConfig}
	cached := filepath.Join(os.Getenv("FFPOD_CACHE"), "bin", "kubectl")
	if _, err := os.Stat(cached); err == nil && (k.local || !inPath("kubectl")) {
		k.path = cached
	}
	return k
}

func inPath(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// name is how a person calls it.
func (k *kubectl) name() string {
	if !k.local {
		return "kubectl"
	}
	return "KUBECONFIG=" + localConfig + " " + k.path
}

// run returns stdout; its error carries kubectl's own last line.
func (k *kubectl) run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.path, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	if err := cmd.Run(); err != nil {
		said := strings.Split(strings.TrimSpace(errs.String()), "\n")
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args[:min(len(args), 4)], " "), err, said[len(said)-1])
	}
	return out.String(), nil
}

// context names the cluster, by which kind and k3d are known.
func (k *kubectl) context(ctx context.Context) (string, error) {
	current, err := k.run(ctx, nil, "config", "current-context")
	return strings.TrimSpace(current), err
}

// inClient runs a shell script in the client pod and returns its stdout.
func (k *kubectl) inClient(ctx context.Context, script string) (string, error) {
	return k.run(ctx, nil, "-n", namespace, "exec", "deploy/ffpod-client", "-c", "client", "--", "bash", "-euo", "pipefail", "-c", script)
}

// step prints what begins and, at its end, how long it took.
func step(what string, f func() error) error {
	fmt.Printf("  %-62s", what)
	began := time.Now()
	err := f()
	mark := "ok"
	if err != nil {
		mark = "failed"
	}
	fmt.Printf(" %s  %.1f s\n", mark, time.Since(began).Seconds())
	return err
}
