//go:build cluster

package class_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/class/classtest"
)

func TestWatcher(t *testing.T) {
	cluster := classtest.New(t)
	w, err := class.NewWatcher(class.Config{Client: cluster.Client, Namespace: cluster.Namespace})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	await := func(what string, ok func() bool) {
		t.Helper()
		timeout := time.After(classtest.Timeout)
		for !ok() {
			select {
			case <-w.Changed():
			case <-timeout:
				t.Fatalf("timed out: %s; classes: %+v", what, w.All())
			}
		}
	}
	change := func(d *appsv1.Deployment, patch string) {
		t.Helper()
		if _, err := cluster.Client.AppsV1().Deployments(cluster.Namespace).Patch(t.Context(), d.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}

	d := cluster.Deploy(t, nil)
	await("a class", func() bool { c, ok := w.Get("cpu"); return ok && c.Slots == 2 && c.UID == d.UID })

	change(d, `{"metadata":{"annotations":{"ffpod.dev/jobs":"many","ffpod.dev/cost":"7"}}}`)
	await("the annotations", func() bool { c, ok := w.Get("cpu"); return ok && c.Jobs == class.DefaultJobs && c.Cost == 7 })
	change(d, `{"metadata":{"labels":{"touched":"1"}}}`) // no new generation: nothing new to say
	awaitEvent(t, cluster, d.UID, `ffpod.dev/jobs: "many"`, 1)

	twin := cluster.Deploy(t, func(d *appsv1.Deployment) { d.Name = "ffpod-twin" })
	await("the twin", func() bool { return len(w.All()) == 2 })
	if c, ok := w.Get("cpu"); !ok || c.Deployment != d.Name || len(w.List()) != 1 {
		t.Errorf("two Deployments of one name: %+v is used, want the first", c)
	}
	awaitEvent(t, cluster, twin.UID, "is also the name of Deployment ffpod-cpu", 1)

	change(d, `{"metadata":{"labels":{"ffpod.dev/class":"other"}}}`)
	await("a label that does not agree", func() bool { c, ok := w.Get("cpu"); return ok && c.Deployment == twin.Name })
	awaitEvent(t, cluster, d.UID, "set it to other", 1)

	if err := cluster.Client.AppsV1().Deployments(cluster.Namespace).Delete(t.Context(), twin.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await("no class", func() bool { _, ok := w.Get("cpu"); return !ok })
}

// awaitEvent waits for an Event, which has to have been reported that often.
func awaitEvent(t *testing.T, cluster *classtest.Cluster, of types.UID, text string, times int32) {
	t.Helper()
	timeout := time.After(classtest.Timeout)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := cluster.Client.CoreV1().Events(cluster.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(of)})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list.Items, func(e corev1.Event) bool { return strings.Contains(e.Message, text) })
		if i >= 0 {
			if e := list.Items[i]; e.Count != times || e.Type != corev1.EventTypeWarning || e.Reason != "ClassProblem" {
				t.Errorf("Event %s %s, %d times, want Warning ClassProblem, %d times", e.Type, e.Reason, e.Count, times)
			}
			return
		}
		select {
		case <-timeout:
			t.Fatalf("no Event that says %q", text)
		case <-tick.C:
		}
	}
}
