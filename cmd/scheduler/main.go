// Command scheduler is ffpod's control plane: configuration → parts → run → drain.
//
//	scheduler [--config FILE] [serve]   run until SIGTERM or SIGINT
//	scheduler version                   print the version
//
// In a cluster it uses its pod's ServiceAccount and finds the names of its objects
// in its own pod (POD_NAME, POD_NAMESPACE). Elsewhere it uses KUBECONFIG and its
// current context's namespace, which is meant for development.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
