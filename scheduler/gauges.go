package scheduler

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ffpod/ffpod/scheduler/placement"
)

// Gauges are what /metrics tells of workers and of the queue at the moment it is
// asked. It is a prometheus.Collector.
type Gauges struct {
	of                             *Scheduler
	workers, slots, flaws, waiting *prometheus.Desc
}

// Gauges returns those of the scheduler.
func (s *Scheduler) Gauges() *Gauges {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &Gauges{of: s,
		workers: desc("ffpod_workers", "Workers that are up, by class, role (warm, standby, job) and whether they answer.", "class", "role", "ready"),
		slots:   desc("ffpod_slots", "Slots of workers, by class and state: free and used; and paused, the sessions that gave theirs away.", "class", "state"),
		flaws:   desc("ffpod_capability_flaws", "What a class's hardware should do and, by a trial on a worker, does not.", "class"),
		waiting: desc("ffpod_queue_sessions", "Sessions that wait for a worker, by kind and by the class they ask for, any if none.", "kind", "class"),
	}
}

// Describe implements prometheus.Collector.
func (g *Gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.workers, g.slots, g.flaws, g.waiting} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A class without workers counts 0.
func (g *Gauges) Collect(ch chan<- prometheus.Metric) {
	classes := g.of.cfg.Classes.All()
	workers, slots, flaws := map[[3]string]int{}, map[[2]string]int{}, map[string]map[string]bool{}
	for _, c := range classes {
		flaws[c.Name] = map[string]bool{}
		workers[[3]string{c.Name, "warm", "true"}] = 0
		for _, state := range []string{"free", "used", "paused"} {
			slots[[2]string{c.Name, state}] = 0
		}
	}
	for _, w := range g.of.allWorkers() {
		ready := "false"
		if w.Ready {
			ready = "true"
			if !w.Draining {
				slots[[2]string{w.Class, "free"}] += max(0, w.Slots-w.Used)
			}
		}
		workers[[3]string{w.Class, w.role, ready}]++
		slots[[2]string{w.Class, "used"}] += w.Used
		slots[[2]string{w.Class, "paused"}] += len(w.Paused)
		held := devices(classes, w.Class)
		for _, f := range w.Description.GetFlaws() {
			if placement.Promised(f.GetCapability(), held) {
				flaws[w.Class][f.GetCapability()] = true
			}
		}
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	for k, n := range workers {
		gauge(g.workers, n, k[:]...)
	}
	for k, n := range slots {
		gauge(g.slots, n, k[:]...)
	}
	for name, all := range flaws {
		gauge(g.flaws, len(all), name)
	}
	for k, n := range g.of.queued() {
		gauge(g.waiting, n, k[:]...)
	}
}

// queued counts the sessions of this process that wait, by kind and class.
func (s *Scheduler) queued() map[[2]string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[[2]string]int{}
	for _, w := range s.waiters {
		n[[2]string{cmp.Or(w.run.kind, "unknown"), cmp.Or(s.asked(w), "any")}]++
	}
	return n
}

// asked is the class that a waiter names, if it exists: callers choose no labels of
// metrics.
func (s *Scheduler) asked(w *waiter) string {
	name := w.run.start.GetClass()
	for _, c := range s.cfg.Classes.All() {
		if c.Name == name {
			return name
		}
	}
	return ""
}
