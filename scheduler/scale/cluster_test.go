//go:build cluster

package scale

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/class/classtest"
	"github.com/ffpod/ffpod/scheduler/pool"
)

// From zero by the queue, down to the busy worker when the queue is empty, and to
// zero when nobody needs it; the session of the busy one is not touched.
func TestScaleOnACluster(t *testing.T) {
	cluster := classtest.New(t)
	cluster.Deploy(t, classtest.Echo, func(d *appsv1.Deployment) { d.Annotations = map[string]string{"ffpod.dev/scale": "0..3"} })
	log := zaptest.NewLogger(t)
	classes, err := class.NewWatcher(class.Config{Client: cluster.Client, Namespace: cluster.Namespace, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	p, err := pool.New(pool.Config{Client: cluster.Client, Namespace: cluster.Namespace, Open: cluster.Open(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	var waiting atomic.Int64
	s := New(Config{Client: cluster.Client, Namespace: cluster.Namespace, List: classes.List, Pool: p, Log: log, Unable: p.Unable,
		Waiting: func(string) int { return int(waiting.Load()) }, Every: 200 * time.Millisecond, Window: 3 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, part := range []func(context.Context) error{classes.Run, p.Run, s.Run} {
		running.Go(func() {
			if err := part(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	await := func(what string, ok func() bool) {
		t.Helper()
		classtest.Await(t, what, ok, func() any { return p.Workers() })
	}
	replicas := func() int32 {
		c, _ := classes.Get("cpu")
		return c.Replicas
	}
	ready := func() (all []channels.WorkerState) {
		for _, w := range p.Workers() {
			if w.Ready && !w.Draining {
				all = append(all, w)
			}
		}
		return all
	}
	await("the class", func() bool { _, ok := classes.Get("cpu"); return ok })
	waiting.Store(5) // of which a worker takes two
	await("three workers", func() bool { return replicas() == 3 && len(ready()) == 3 })
	busy := ready()[1]
	held, err := p.Lease(busy.Pod, busy.Nonce, "s")
	if err != nil {
		t.Fatal(err)
	}
	session, err := classtest.Start(t.Context(), held.Runner(), "s")
	if err != nil {
		t.Fatal(err)
	}
	waiting.Store(0)
	await("one worker, the busy one", func() bool { return replicas() == 1 && len(p.Workers()) == 1 })
	if w := p.Workers()[0]; w.Pod != busy.Pod || w.Used != 1 || held.Cause() != nil {
		t.Fatalf("left is %+v, the lease %v; want %s", w, held.Cause(), busy.Pod)
	}
	session.End()
	if exit, err := session.Wait(); err != nil || exit.GetCode() != 0 {
		t.Errorf("the session ended with %v, %v", exit, err)
	}
	held.Release()
	await("no worker", func() bool { return replicas() == 0 && len(p.Workers()) == 0 })
}
