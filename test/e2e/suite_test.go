package e2e_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestE2E(t *testing.T) {
	RegisterFailHandler(Fail)
	SetDefaultEventuallyPollingInterval(pollInterval)
	RunSpecs(t, "e2e")
}

// With E2E_KEEP=1 the install stays, for a look and for a quick next run.
func keep() bool { return os.Getenv("E2E_KEEP") == "1" }

var (
	world  *cluster // the same in every process of a parallel run
	client pod      // where the shim is
)

var _ = SynchronizedBeforeSuite(func(ctx SpecContext) {
	world = connect()
	world.install(ctx)
	client = world.find(ctx, "app.kubernetes.io/component=client", "client")
	client.upload(ctx, buildDriver(ctx, world.architecture(ctx)), "driver")
	say("make a film of 12 s")
	client.shell(ctx, `/usr/bin/ffmpeg -v error -y -f lavfi -i testsrc2=size=320x180:rate=25 -f lavfi -i sine=frequency=440 -t 12 \
		-c:v libx264 -preset ultrafast -g 50 -c:a aac `+film)
	world.awaitWorkers(ctx)
	works(ctx)
}, func(ctx SpecContext) {
	if world == nil {
		world = connect()
	}
	client = world.find(ctx, "app.kubernetes.io/component=client", "client")
}, NodeTimeout(readyBound+goneBound))

var _ = SynchronizedAfterSuite(func() {}, func(ctx SpecContext) {
	if client.name != "" {
		expectNothingLeft(ctx)
	}
	if keep() {
		say("E2E_KEEP=1: namespace %s stays", namespace)
		return
	}
	world.uninstall(ctx)
}, NodeTimeout(goneBound+calmBound))

// say shows what the suite is at, also while nothing fails.
func say(format string, args ...any) {
	fmt.Printf("e2e: %s\n", fmt.Sprintf(format, args...))
}

var _ = AfterEach(func(ctx SpecContext) {
	if CurrentSpecReport().Failed() {
		AddReportEntry("the install", world.picture(ctx), ReportEntryVisibilityFailureOrVerbose)
	}
})

// picture is what a person would ask the cluster about after a failure.
func (c *cluster) picture(ctx context.Context) string {
	var b strings.Builder
	pods, err := c.set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, p := range pods.Items {
		fmt.Fprintf(&b, "pod %s: %s, made %s ago%s\n", p.Name, p.Status.Phase, time.Since(p.CreationTimestamp.Time).Round(time.Second), deleting(&p))
		for _, s := range p.Status.ContainerStatuses {
			switch {
			case s.State.Waiting != nil:
				fmt.Fprintf(&b, "  %s waits: %s %s\n", s.Name, s.State.Waiting.Reason, s.State.Waiting.Message)
			case s.State.Terminated != nil:
				fmt.Fprintf(&b, "  %s ended: %s, code %d\n", s.Name, s.State.Terminated.Reason, s.State.Terminated.ExitCode)
			}
			if s.RestartCount > 0 {
				fmt.Fprintf(&b, "  %s was restarted %d times\n", s.Name, s.RestartCount)
			}
		}
		b.WriteString(c.lastLines(ctx, &p))
	}
	events, err := c.set.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning"})
	if err == nil {
		for _, e := range events.Items[max(0, len(events.Items)-20):] {
			fmt.Fprintf(&b, "event on %s %s: %s: %s\n", e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
	return b.String()
}

func deleting(p *corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return ", being deleted"
	}
	return ""
}

func (c *cluster) lastLines(ctx context.Context, p *corev1.Pod) string {
	lines := int64(12)
	if p.Labels["app.kubernetes.io/component"] == "scheduler" {
		lines = 40
	}
	b, err := c.set.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{TailLines: &lines}).DoRaw(ctx)
	if err != nil || len(b) == 0 {
		return ""
	}
	return "  | " + strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "\n  | ") + "\n"
}
