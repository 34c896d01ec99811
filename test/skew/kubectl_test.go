package skew_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/e2e"
	cluster "github.com/ffpod/ffpod/test/kubectl"
)

// kubectl returns stdout without the space around it.
func kubectl(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	out, err := cluster.New("").Run(ctx, stdin, args...)
	return strings.TrimSpace(out), err
}

// must is kubectl in the install's namespace, without an excuse.
func (i *install) must(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := kubectl(ctx, nil, append([]string{"-n", i.namespace}, args...)...)
	Expect(err).NotTo(HaveOccurred())
	return out
}

// play runs a plan in the client pod. Stdin stays open until the end: when the
// suite goes away, so does the plan.
func (i *install) play(ctx context.Context, runs ...e2e.Run) []e2e.Result {
	GinkgoHelper()
	order, err := json.Marshal(e2e.Plan{Runs: runs})
	Expect(err).NotTo(HaveOccurred())
	in, hold, err := os.Pipe()
	Expect(err).NotTo(HaveOccurred())
	defer in.Close()
	defer hold.Close()
	go func() { _, _ = hold.Write(order) }()
	out, err := kubectl(ctx, in, "-n", i.namespace, "exec", "-i", "deploy/ffpod-client", "-c", "client", "--", e2e.Driver, "parent")
	Expect(err).NotTo(HaveOccurred())
	var results []e2e.Result
	Expect(json.Unmarshal([]byte(out), &results)).To(Succeed(), "%.200q", out)
	Expect(results).To(HaveLen(len(runs)))
	for n, r := range results {
		Expect(r.Error).To(BeEmpty(), "run %d: %s", n+1, words(r))
	}
	return results
}

// living are the processes with the mark in all workers, warm and of Jobs. A pod
// that cannot be asked is on its way or gone: ask again.
func (i *install) living(ctx context.Context, mark string) ([]string, error) {
	var found []string
	for _, pod := range i.workers(ctx) {
		out, err := kubectl(ctx, nil, "-n", i.namespace, "exec", pod, "-c", "worker", "--", e2e.Driver, "procs")
		if err != nil {
			return nil, err
		}
		var all []e2e.Process
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			return nil, err
		}
		for _, p := range all {
			if line := strings.Join(p.Args, " "); strings.Contains(line, mark) && p.State != "Z" {
				found = append(found, pod+": "+line)
			}
		}
	}
	return found, nil
}

// workers are the pods of all classes, warm and of Jobs, that run.
func (i *install) workers(ctx context.Context) []string {
	GinkgoHelper()
	return strings.Fields(i.must(ctx, "get", "pods", "-l", "ffpod.dev/class", "-o", "name", "--field-selector=status.phase=Running"))
}

// words is a result for a person.
func words(r e2e.Result) string {
	return fmt.Sprintf("code %d, signal %d after %s; stdout %d bytes, %.100q; stderr %d bytes, %.600q; shim: %s", r.Code, r.Signal,
		(r.Ended - r.Started).Round(time.Millisecond), r.Stdout.Bytes, r.Stdout.Head, r.Stderr.Bytes, r.Stderr.Head, r.Log)
}
