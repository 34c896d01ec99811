// Command demo runs ffpod's main job on a cluster, visibly: it deploys
// kustomize/overlays/demo, or demo-rwo on kind and k3d, makes a real film, and has a client pod whose ffmpeg is
// the shim transcode it on other pods. `make demo` calls it.
//
//	demo                deploy, run the five steps, print a table
//	demo -deploy       only deploy: for the benchmark
//	demo -images DIR    bring the image archives of DIR to the cluster of KUBECONFIG, or say how
//
// It exits with 1 when any verdict is bad.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ffpod/ffpod/test/kubectl"
)

const namespace = "ffpod-demo"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	images := flags.String("images", "", "only bring the image archives of this directory to the cluster")
	only := flags.Bool("deploy", false, "only deploy")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return 2
	}
	k := kubectl.New(namespace)
	if *images != "" {
		return report(bringImages(ctx, k, *images))
	}
	began := time.Now()
	if err := deploy(ctx, k); err != nil || *only {
		return report(err)
	}
	results, err := runSteps(ctx, k)
	printTable(os.Stdout, results)
	if err != nil {
		return report(err)
	}
	if bad := countBad(results); bad > 0 {
		return report(fmt.Errorf("%d of %d verdicts are bad; the scheduler's words: %s -n %s logs deploy/ffpod-scheduler", bad, len(results), k, namespace))
	}
	fmt.Printf("\nAll good, in %s. The cluster stays up; `make demo-down` removes it. Try next:\n\n", time.Since(began).Round(time.Second))
	if k.Local() {
		fmt.Printf("  export KUBECONFIG=%s PATH=%s:$PATH\n\n", kubectl.LocalConfig, filepath.Dir(k.Path))
	}
	for _, hint := range []string{
		"exec -it deploy/ffpod-client -- bash    # ffmpeg in there runs on other pods",
		"logs deploy/ffpod-scheduler -f          # one audit line per session",
		"scale deploy/ffpod-cpu --replicas=2     # more warm workers",
	} {
		fmt.Printf("  kubectl -n %s %s\n", namespace, hint)
	}
	return 0
}

func report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	return 1
}
