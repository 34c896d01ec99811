package scheduler

import (
	"fmt"
	"testing"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/pool"
	"github.com/ffpod/ffpod/scheduler/store"
)

// BenchmarkWalk is one walk of a queue that nothing can be granted from, which is
// what every answer of a worker costs while sessions wait: by workers and waiters.
func BenchmarkWalk(b *testing.B) {
	for _, n := range []struct{ workers, waiters int }{{10, 1}, {1000, 1}, {1000, 10}, {1000, 100}} {
		b.Run(fmt.Sprintf("%d-workers-%d-waiters", n.workers, n.waiters), func(b *testing.B) {
			r := newRig(b, func(c *Config) {
				c.Classes = fakeClasses{{Name: "cpu", Replicas: int32(n.workers)}}
				c.Store = store.NewMemory(store.MemoryConfig{Limit: 1000})
			})
			var proves []string
			for i := range 1165 { // as many as Debian's ffmpeg has
				proves = append(proves, fmt.Sprintf("encoder:e%d", i))
			}
			template := lease.Template(&new(class.Class).Template.Spec)
			for i := range n.workers {
				d := &wire.Description{Proves: true, Profile: "p", Capabilities: append(proves, "encoder:libx264")}
				r.pool.workers = append(r.pool.workers, &fakeWorker{gone: make(chan struct{}), state: pool.WorkerState{
					Worker: lease.Worker{Class: "cpu", Pod: fmt.Sprint("w", i), Nonce: "n", Node: fmt.Sprint("node-", i/2)}, Slots: 2, Used: 2, Ready: true, Description: d, Template: template}})
			}
			var all []*shim
			for i := range n.waiters {
				s := r.start(fmt.Sprint("s", i), argv(fmt.Sprintf("-i /media/a.mkv -c:v libx264 /cache/%d.mp4", i)), nil)
				<-s.progress
				all = append(all, s)
			}
			for b.Loop() {
				if _, err := r.sched.walk(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			for _, s := range all {
				s.cancel()
			}
		})
	}
}
