package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/ffpod/ffpod/test/kubectl"
)

func inPath(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// contextOf names the cluster, by which kind and k3d are known.
func contextOf(ctx context.Context, k kubectl.Client) (string, error) {
	current, err := k.Run(ctx, nil, "config", "current-context")
	return strings.TrimSpace(current), err
}

// inClient runs a shell script in the client pod and returns its stdout.
func inClient(ctx context.Context, k kubectl.Client, script string) (string, error) {
	return k.Run(ctx, nil, "exec", "deploy/ffpod-client", "-c", "client", "--", "bash", "-euo", "pipefail", "-c", script)
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
