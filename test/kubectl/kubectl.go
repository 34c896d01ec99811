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
	"slices"
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

// Unpack puts dir/name into the root of the container that `kubectl exec -i` is told
// by target, with the modes but not the owners of its files.
func (c Client) Unpack(ctx context.Context, dir, name string, target ...string) error {
	pack := exec.CommandContext(ctx, "tar", "-C", dir, "-cf", "-", name)
	archive, err := pack.StdoutPipe()
	if err != nil {
		return err
	}
	if err := pack.Start(); err != nil {
		return fmt.Errorf("pack %s: %w", filepath.Join(dir, name), err)
	}
	unpack := []string{"--", "tar", "-C", "/", "--no-same-owner", "--no-overwrite-dir", "-m", "-xf", "-"}
	_, err = c.Run(ctx, archive, slices.Concat([]string{"exec", "-i"}, target, unpack)...)
	if packed := pack.Wait(); err == nil && packed != nil {
		err = fmt.Errorf("pack %s: %w", filepath.Join(dir, name), packed)
	}
	return err
}

// Load puts image archives into the local cluster. root is the checkout.
func Load(ctx context.Context, root string, archives ...string) error {
	load := exec.CommandContext(ctx, "go", slices.Concat([]string{"run", "./test/cluster", "load"}, archives)...)
	load.Dir = root
	if out, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("load images into the local cluster: %w: %s", err, out)
	}
	return nil
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
