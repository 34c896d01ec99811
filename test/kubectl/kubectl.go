// Package kubectl runs kubectl for what must be seen as a person sees it: the demo,
// and suites that apply manifests, restart things and look into pods.
package kubectl

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

// LocalConfig is the kubeconfig of the local cluster, see test/cluster.
const LocalConfig = "/var/lib/ffpod-cluster/kubeconfig"

// Client runs kubectl against the cluster of $KUBECONFIG. It is a value; any number
// of goroutines may use it.
type Client struct {
	Path      string // of the program
	Namespace string // of every call; empty: the context's
	local     bool
}

// New finds the program: for the local cluster, or where PATH has none, the one that
// test/cluster keeps in Cache.
func New(namespace string) Client {
	c := Client{Path: "kubectl", Namespace: namespace, local: os.Getenv("KUBECONFIG") == LocalConfig}
	_, missing := exec.LookPath("kubectl")
	cached := filepath.Join(Cache(), "bin", "kubectl")
	if _, err := os.Stat(cached); err == nil && (c.local || missing != nil) {
		c.Path = cached
	}
	return c
}

// Cache is where binaries and test media are kept between runs: $FFPOD_CACHE, else
// ffpod in the user's cache directory, as `make` has it.
func Cache() string {
	if dir := os.Getenv("FFPOD_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "ffpod")
}

// String is how a person calls it.
func (c Client) String() string {
	if !c.local {
		return "kubectl"
	}
	return "KUBECONFIG=" + LocalConfig + " " + c.Path
}

// Local tells whether it is the local cluster's.
func (c Client) Local() bool { return c.local }

// In is the client for another namespace.
func (c Client) In(namespace string) Client {
	c.Namespace = namespace
	return c
}

// Run returns stdout as it is. Its error carries all that kubectl said, on one line.
// A child that keeps the pipes open is not waited for longer than a second.
func (c Client) Run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	if c.Namespace != "" {
		args = append([]string{"-n", c.Namespace}, args...)
	}
	cmd := exec.CommandContext(ctx, c.Path, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = stdin, &out, &errs, time.Second
	if err := cmd.Run(); err != nil {
		said := strings.ReplaceAll(strings.TrimSpace(errs.String()), "\n", "; ")
		return out.String(), fmt.Errorf("kubectl %.200s: %w: %s", strings.Join(args, " "), err, said)
	}
	return out.String(), nil
}

// Programs are the executables that run in the workers of a label selector, one for
// each process. A pod that cannot be asked is an error: ask again.
func (c Client) Programs(ctx context.Context, selector string) ([]string, error) {
	pods, err := c.Run(ctx, nil, "get", "pods", "-l", selector, "--field-selector=status.phase=Running", "-o", "name")
	if err != nil {
		return nil, err
	}
	var all []string
	for _, pod := range strings.Fields(pods) {
		programs, err := c.Run(ctx, nil, "exec", pod, "-c", "worker", "--", "/bin/sh", "-c", "readlink /proc/[0-9]*/exe; true")
		if err != nil {
			return nil, err
		}
		all = append(all, strings.Fields(programs)...)
	}
	return all, nil
}
