package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ffpod/ffpod/test/kubectl"
)

// deploy applies the overlay as a user would and waits until it works.
func deploy(ctx context.Context, k kubectl.Client) error {
	overlay, err := overlayFor(ctx, k)
	if err != nil {
		return err
	}
	fmt.Println("deploy: kustomize build", overlay, "| kubectl apply -f -")
	if err := step("render and apply", func() error { return apply(ctx, k, overlay) }); err != nil {
		return err
	}
	if err := step("same images as on this machine", func() error { return stampImages(ctx, k) }); err != nil {
		return err
	}
	for _, d := range []struct{ name, what string }{
		{"ffpod-scheduler", "scheduler is ready (usually 5 s, first time 20 s)"},
		{"ffpod-cpu", "a warm worker of class cpu runs"},
		{"ffpod-client", "the client pod runs, with the shim as its ffmpeg"},
	} {
		if err := step(d.what, func() error { return rollout(ctx, k, d.name) }); err != nil {
			return err
		}
	}
	return nil
}

// overlayFor knows the clusters whose default storage cannot be shared by nodes.
func overlayFor(ctx context.Context, k kubectl.Client) (string, error) {
	current, err := contextOf(ctx, k)
	if err != nil {
		return "", err
	}
	for _, prefix := range []string{"kind-", "k3d-"} {
		if strings.HasPrefix(current, prefix) {
			return "kustomize/overlays/demo-rwo", nil
		}
	}
	return "kustomize/overlays/demo", nil
}

func apply(ctx context.Context, k kubectl.Client, overlay string) error {
	render := exec.CommandContext(ctx, "go", "tool", "kustomize", "build", overlay)
	var errs bytes.Buffer
	render.Stderr = &errs
	manifests, err := render.Output()
	if err != nil {
		return fmt.Errorf("kustomize build %s: %w: %s", overlay, err, strings.TrimSpace(errs.String()))
	}
	_, err = k.Run(ctx, bytes.NewReader(manifests), "apply", "-f", "-")
	return err
}

// stampImages rolls the Deployments when the content behind their tag changed: a
// tag that stays the same tells Kubernetes nothing.
func stampImages(ctx context.Context, k kubectl.Client) error {
	stamp, err := imagesDigest("out/images")
	if err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"demo/images":%q}}}}}`, stamp)
	for _, name := range []string{"ffpod-scheduler", "ffpod-cpu", "ffpod-nvidia", "ffpod-client"} {
		if _, err := k.Run(ctx, nil, "patch", "deploy", name, "--type=strategic", "-p", patch); err != nil {
			return err
		}
	}
	return nil
}

func imagesDigest(dir string) (string, error) {
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(archives) == 0 {
		return "", fmt.Errorf("no image archives in %s: run `make images`", dir)
	}
	sum := sha256.New()
	for _, path := range archives {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(sum, f)
		f.Close()
		if err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// rolloutBound is long enough for a cluster that pulls images.
const rolloutBound = 3 * time.Minute

// rollout waits for a Deployment; what keeps it is said while it waits.
func rollout(ctx context.Context, k kubectl.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, rolloutBound)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := k.Run(ctx, nil, "rollout", "status", "deploy/"+name, "--timeout="+rolloutBound.String())
		done <- err
	}()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	said := ""
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("deployment %s is not ready: %w; %s", name, err, reasons(context.WithoutCancel(ctx), k))
			}
			return nil
		case <-tick.C:
			if why := reasons(ctx, k); why != "" && why != said {
				said = why
				fmt.Printf("\n    still waiting: %s\n  %-62s", why, "")
			}
		}
	}
}

// reasons are Kubernetes' own words for pods that do not run.
func reasons(ctx context.Context, k kubectl.Client) string {
	const path = `{range .items[*]}{.metadata.name}{"\t"}{range .status.conditions[?(@.status=="False")]}{.message}{" "}{end}{range .status.containerStatuses[*]}{.state.waiting.reason}{" "}{.state.waiting.message}{end}{"\n"}{end}`
	out, err := k.Run(ctx, nil, "get", "pods", "--field-selector=status.phase!=Succeeded", "-o", "jsonpath="+path)
	if err != nil {
		return ""
	}
	var why []string
	for line := range strings.Lines(out) {
		pod, text, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if text = strings.TrimSpace(text); text != "" {
			why = append(why, pod+": "+text)
		}
	}
	return strings.Join(why, "; ")
}

// bringImages loads the archives into a cluster that is the user's own, with the
// loader of its kind, or says how.
func bringImages(ctx context.Context, k kubectl.Client, dir string) error {
	current, err := contextOf(ctx, k)
	if err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(archives) == 0 {
		return fmt.Errorf("no image archives in %s: run `make images`", dir)
	}
	loader := func(prefix, program string, args ...string) bool {
		return strings.HasPrefix(current, prefix) && inPath(program) && load(ctx, program, args, archives) == nil
	}
	cluster := func(prefix string) string { return strings.TrimPrefix(current, prefix) }
	switch {
	case loader("kind-", "kind", "load", "image-archive", "--name", cluster("kind-")):
	case loader("k3d-", "k3d", "image", "import", "--cluster", cluster("k3d-")):
	case loader("minikube", "minikube", "image", "load"):
	default:
		fmt.Printf(`images: your cluster %q has to get them from you. Either
  on each node:      ctr -n k8s.io images import %s   (k3s: k3s ctr images import ...)
  or by a registry:  push the archives, then set images: in the overlay's kustomization.yaml
Pods that wait for an image say so below.
`, current, strings.Join(archives, " "))
	}
	return nil
}

func load(ctx context.Context, program string, args, archives []string) error {
	var all []error
	for _, a := range archives {
		cmd := exec.CommandContext(ctx, program, append(append([]string{}, args...), a)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		all = append(all, cmd.Run())
	}
	return errors.Join(all...)
}
