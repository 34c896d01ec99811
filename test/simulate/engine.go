package main

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"

	"github.com/ffpod/ffpod/scheduler/placement"
)

// Figures of the model, in seconds.
const (
	tick     = .05 // between two walks of the queue
	reports  = 5   // between two reports of a worker's load
	start    = .01 // a session's start on a worker: docs/performance.md
	cold     = .15 // opening a file where the viewer's last session did not run
	locally  = 2.  // how much longer an image takes on the caller's busy pod
	patience = 5.  // a kind with a liveness limit runs locally after it
)

// epoch is the evening's first moment.
var epoch = time.Date(2026, 1, 1, 19, 30, 0, 0, time.UTC)

func clock(at float64) time.Time { return epoch.Add(time.Duration(at * float64(time.Second))) }

// host is a worker: its sessions share its capacity.
type host struct {
	capacity float64
	sessions []*session
	at       float64 // up to here the work is done
	busy     float64 // capacity times seconds in use since the last report
	plan     int     // an event of an older plan is void
}

// world is one evening as one contender handles it.
type world struct {
	cfg       Config
	contender contender
	now       float64
	hosts     []host
	workers   []placement.Worker // what a scheduler knows of the hosts
	classes   []placement.Class
	slots     int
	running   placement.Held
	viewers   map[string]string
	events    events
	out       *Result
}

// event is what happens at a host (a session has done its present work) or to a
// session (its viewer leaves).
type event struct {
	at      float64
	host    int
	plan    int
	leaving *session
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

func newWorld(cfg Config, c contender) *world {
	w := &world{cfg: cfg, contender: c, viewers: map[string]string{}, out: newResult(c.name())}
	w.running.Callers = map[string]int{}
	for i, m := range cluster() {
		if !slices.ContainsFunc(w.classes, func(c placement.Class) bool { return c.Name == m.class.Name }) {
			w.classes = append(w.classes, m.class)
		}
		for range max(1, int(m.part*float64(cfg.Workers)+.5)) {
			n := len(w.workers)
			w.hosts = append(w.hosts, host{capacity: m.capacity})
			w.workers = append(w.workers, placement.Worker{Class: m.class.Name, Pod: fmt.Sprintf("%s-%d-%04d", m.class.Name, i, n), Nonce: "n",
				Node: fmt.Sprintf("node-%d", n/2), Slots: m.slots, Ready: true, Can: m.can, ParallelEncodes: m.encodes,
				Load: placement.Load{Known: true, GPUKnown: m.encodes > 0}})
			w.slots += m.slots
		}
	}
	c.begin(w)
	return w
}

// run is the evening.
func (w *world) run() *Result {
	came := newArrivals(w.cfg)
	next, more := came.next()
	report := 0.
	for end := w.cfg.Minutes * 60; w.now < end; w.now += tick {
		w.until(w.now)
		for ; more && next.asked <= w.now; next, more = came.next() {
			w.out.asked(next)
			w.contender.enqueue(next)
		}
		if w.now >= report {
			w.report()
			report += reports
		}
		w.contender.dispatch(w)
	}
	w.out.finish(w)
	return w.out
}

// until lets everything happen up to a moment.
func (w *world) until(at float64) {
	for len(w.events) > 0 && w.events[0].at <= at {
		e := heap.Pop(&w.events).(event)
		switch h := &w.hosts[e.host]; {
		case e.leaving != nil && !e.leaving.over:
			w.advance(e.host, e.at)
			w.end(e.leaving, e.at)
			w.replan(e.host)
		case e.leaving == nil && e.plan == h.plan:
			w.advance(e.host, e.at)
			w.milestones(e.host, e.at)
			w.replan(e.host)
		}
	}
}

// advance does the work of a host up to a moment.
func (w *world) advance(i int, at float64) {
	h := &w.hosts[i]
	for _, s := range h.sessions {
		s.left -= s.rate * (at - h.at)
		h.busy += s.rate * (at - h.at)
	}
	h.at = at
}

// milestones are first bytes and ends.
func (w *world) milestones(i int, at float64) {
	for _, s := range slices.Clone(w.hosts[i].sessions) {
		if s.left > 1e-9 || s.paused {
			continue
		}
		if !s.began {
			s.began, s.left = true, s.rest
			w.out.firstByte(s, at-s.asked+s.delay)
			if s.lasts > 0 {
				s.left = 1e18
				heap.Push(&w.events, event{at: at + s.lasts, host: i, leaving: s})
			}
		}
		if s.left <= 1e-9 {
			w.end(s, at)
		}
	}
}

// replan shares a host's capacity out, and says when it is next worth a look. It is
// up to date.
func (w *world) replan(i int) {
	h := &w.hosts[i]
	h.plan++
	share(h.sessions, h.capacity)
	next := 1e17
	for _, s := range h.sessions {
		if s.rate > 0 {
			next = min(next, s.left/s.rate)
		}
	}
	if next < 1e16 {
		heap.Push(&w.events, event{at: h.at + max(next, 1e-9), host: i, plan: h.plan})
	}
}

// share gives each session its weight's share of a capacity, and what some cannot
// use to the others.
func share(sessions []*session, capacity float64) {
	open, weights := make([]*session, 0, len(sessions)), 0.
	for _, s := range sessions {
		if s.rate = 0; !s.paused {
			open = append(open, s)
			weights += s.model.weight
		}
	}
	// Whoever wants least for its weight is served first.
	slices.SortFunc(open, func(a, b *session) int {
		return cmp.Or(cmp.Compare(a.wants()/a.model.weight, b.wants()/b.model.weight), cmp.Compare(a.id, b.id))
	})
	for _, s := range open {
		s.rate = min(s.wants(), capacity*s.model.weight/weights)
		capacity -= s.rate
		weights -= s.model.weight
	}
}

func (s *session) wants() float64 {
	if s.began {
		return s.model.steady
	}
	return s.model.appetite
}

// begin starts a session on a worker.
func (w *world) begin(s *session, i int) {
	v := &w.workers[i]
	s.worker, s.left = i, s.first
	s.delay = start
	if s.viewer != "" {
		if w.viewers[s.viewer] != v.Pod {
			s.delay += cold
		}
		w.viewers[s.viewer] = v.Pod
	}
	v.Used++
	if v.Used > v.Slots {
		panic(fmt.Sprintf("%s: %d sessions on %d slots of %s", w.contender.name(), v.Used, v.Slots, v.Pod))
	}
	if s.shape != software {
		v.Encodes++
	}
	if placement.Pausable(s.model.kind) {
		v.Running = append(v.Running, placement.Running{ID: fmt.Sprint(s.id), Kind: s.model.kind})
	}
	w.count(s, 1)
	w.advance(i, w.now)
	w.hosts[i].sessions = append(w.hosts[i].sessions, s)
	w.replan(i)
}

// end takes a session off its worker.
func (w *world) end(s *session, at float64) {
	i := s.worker
	v := &w.workers[i]
	s.over = true
	v.Used--
	if s.shape != software {
		v.Encodes--
	}
	w.count(s, -1)
	w.hosts[i].sessions = slices.DeleteFunc(w.hosts[i].sessions, func(x *session) bool { return x == s })
	v.Running = slices.DeleteFunc(v.Running, func(x placement.Running) bool { return x.ID == fmt.Sprint(s.id) })
	w.out.ended(s, at)
}

func (w *world) count(s *session, n int) {
	w.running.Callers[s.caller] += n
	w.running.Total += n
	if placement.Priority(s.model.kind) < placement.Priority("playback") {
		w.running.Low += n
	}
}

// pause stops a session, or lets it go on.
func (w *world) pause(i int, id string, paused bool) {
	v, h := &w.workers[i], &w.hosts[i]
	w.advance(i, w.now)
	for _, s := range h.sessions {
		if fmt.Sprint(s.id) == id && s.paused != paused {
			s.paused = paused
			if paused {
				v.Used--
				w.out.Pauses++
			} else {
				v.Used++
			}
		}
	}
	for j := range v.Running {
		if v.Running[j].ID == id {
			v.Running[j].Paused, v.Running[j].Since = paused, clock(w.now)
		}
	}
	w.replan(i)
}

// report is what every worker measured since the last one, and the evening's
// samples.
func (w *world) report() {
	for i := range w.hosts {
		w.advance(i, w.now)
		h := &w.hosts[i]
		load := int(1000 * h.busy / (h.capacity * reports))
		w.workers[i].Load.CPU, w.workers[i].Load.GPU = load, load
		w.out.busy(w.workers[i].Class, h.busy, h.capacity*reports)
		h.busy = 0
	}
	used := 0
	for i := range w.workers {
		used += w.workers[i].Used
	}
	w.out.sample(w.now, used, w.slots, w.contender.waiting())
}
