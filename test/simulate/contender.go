package main

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ffpod/ffpod/scheduler/placement"
)

// contender is a way to place sessions. Each knows which workers can run a session,
// and which class suits it; none puts more on a worker than it has slots and
// encoders for; images run locally after the same time.
type contender interface {
	name() string
	begin(w *world)
	enqueue(s *session)
	dispatch(w *world)
	waiting() int
}

// contenders are all that are compared: ours is the last.
func contenders(seed uint64) []contender {
	rnd := rand.New(rand.NewPCG(seed, 2))
	return []contender{
		&simple{title: "round-robin", choose: roundRobin()},
		&simple{title: "random", choose: func(free []int, _ *world, _ *shape) int { return free[rnd.IntN(len(free))] }},
		&simple{title: "least-connections", choose: leastConnections},
		&simple{title: "least-connections, our order", choose: leastConnections, ordered: true},
		&ours{},
	}
}

// line is the queue of the sessions that fare alike: one caller, kind and shape.
type line struct {
	shape *shape
	queue []*session
}

// lines are the sessions that wait, by what they have in common.
type lines struct {
	all  []*line
	byID map[lineID]*line
	n    int
}

type lineID struct {
	shape        *shape
	caller, kind string
}

func (l *lines) add(s *session) {
	id := lineID{s.shape, s.caller, s.model.kind}
	if l.byID == nil {
		l.byID = map[lineID]*line{}
	}
	if l.byID[id] == nil {
		l.byID[id] = &line{shape: s.shape}
		l.all = append(l.all, l.byID[id])
	}
	l.byID[id].queue = append(l.byID[id].queue, s)
	l.n++
}

// remove takes out the sessions that have been served.
func (l *lines) remove() {
	for _, x := range l.all {
		for len(x.queue) > 0 && (x.queue[0].over || x.queue[0].worker >= 0) {
			x.queue = x.queue[1:]
			l.n--
		}
	}
}

// heads are the first few of every line that still hopes. Who is served beyond them
// is served in the next turn.
func (l *lines) heads(hopes func(*session) bool) []*session {
	const few = 6
	var all []*session
	for _, x := range l.all {
		if len(x.queue) > 0 && hopes(x.queue[0]) {
			all = append(all, x.queue[:min(few, len(x.queue))]...)
		}
	}
	return all
}

// inOrder puts sessions into the order in which they are served: ours, or that in
// which they came.
func inOrder(w *world, sessions []*session, ordered bool) func(func(*session) bool) {
	if !ordered {
		slices.SortFunc(sessions, func(a, b *session) int { return cmp.Or(cmp.Compare(a.asked, b.asked), cmp.Compare(a.id, b.id)) })
		return slices.Values(sessions)
	}
	waiting := make([]placement.Waiting, len(sessions))
	for i, s := range sessions {
		waiting[i] = placement.Waiting{Kind: s.model.kind, Caller: s.caller, Asked: clock(s.asked)}
	}
	return func(yield func(*session) bool) {
		for i := range placement.Order(waiting, w.running, clock(w.now)) {
			if !yield(sessions[i]) {
				return
			}
		}
	}
}

// simple is a contender that chooses among the workers with a free slot.
type simple struct {
	title   string
	choose  func(free []int, w *world, s *shape) int
	ordered bool
	able    map[*shape][]int
	lines   lines
}

func (c *simple) name() string       { return c.title }
func (c *simple) enqueue(s *session) { c.lines.add(s) }
func (c *simple) waiting() int       { return c.lines.n }

// begin finds out who can do what, by asking Decide with each worker alone.
func (c *simple) begin(w *world) {
	c.able = map[*shape][]int{}
	for _, s := range []*shape{software, nvenc, nvencAV1, qsv, vaapi} {
		for i := range w.workers {
			alone := placement.Snapshot{Classes: w.classes, Workers: w.workers[i : i+1]}
			if placement.Decide(alone, placement.Request{Kind: "playback", Needs: s.needs, Hardware: s.hardware}, placement.WarmOnly, epoch).Verdict == placement.Warm {
				c.able[s] = append(c.able[s], i)
			}
		}
	}
}

func (c *simple) dispatch(w *world) {
	full := map[*shape]bool{}
	for s := range c.able {
		full[s] = len(c.free(w, s)) == 0
	}
	for again := true; again; c.lines.remove() {
		again = false
		heads := c.lines.heads(func(s *session) bool { return !full[s.shape] })
		for s := range inOrder(w, heads, c.ordered) {
			if full[s.shape] {
				continue
			}
			free := c.free(w, s.shape)
			if len(free) == 0 {
				full[s.shape] = true
				continue
			}
			w.begin(s, c.choose(free, w, s.shape))
			again = true
		}
	}
	c.giveUp(w)
}

// giveUp runs images locally that have waited too long.
func (c *simple) giveUp(w *world) {
	for _, x := range c.lines.all {
		for len(x.queue) > 0 && x.queue[0].model.local && w.now-x.queue[0].asked >= patience {
			w.out.ranLocally(x.queue[0], w.now)
			c.lines.remove()
		}
	}
}

func (c *simple) free(w *world, s *shape) []int {
	var free []int
	for _, i := range c.able[s] {
		if v := &w.workers[i]; v.Used < v.Slots && (s == software || v.ParallelEncodes == 0 || v.Encodes < v.ParallelEncodes) {
			free = append(free, i)
		}
	}
	return free
}

func roundRobin() func(free []int, w *world, s *shape) int {
	last := map[*shape]int{}
	return func(free []int, _ *world, s *shape) int {
		at, _ := slices.BinarySearch(free, last[s]+1)
		i := free[at%len(free)]
		last[s] = i
		return i
	}
}

func leastConnections(free []int, w *world, _ *shape) int {
	return slices.MinFunc(free, func(i, j int) int { return cmp.Compare(w.workers[i].Used, w.workers[j].Used) })
}

// ours is scheduler/placement itself, used as the dispatcher uses it.
type ours struct {
	lines lines
	pods  map[string]int
}

func (c *ours) name() string       { return "ffpod" }
func (c *ours) enqueue(s *session) { c.lines.add(s) }
func (c *ours) waiting() int       { return c.lines.n }
func (c *ours) begin(w *world) {
	c.pods = map[string]int{}
	for i := range w.workers {
		c.pods[w.workers[i].Pod] = i
	}
}

// fate is a sort of session whose answer cannot change before the next walk.
type fate struct {
	kind  string
	shape *shape
	late  bool
}

func (c *ours) dispatch(w *world) {
	round := placement.NewRound(placement.Snapshot{Classes: w.classes, Workers: slices.Clone(w.workers), Viewers: w.viewers})
	hopeless := map[fate]bool{}
	for again := true; again; c.lines.remove() {
		again = false
		heads := c.lines.heads(func(s *session) bool { return c.hopes(w, round, s, hopeless) })
		for s := range inOrder(w, heads, true) {
			if f := fateOf(w, s); hopeless[f] {
				continue
			} else if c.place(w, round, s) == placement.Wait {
				hopeless[f] = true
			} else {
				again = true
			}
		}
	}
	for _, x := range round.Continue(clock(w.now)) {
		w.pause(c.pods[x.Pod], x.Session, false)
	}
}

func fateOf(w *world, s *session) fate {
	return fate{s.model.kind, s.shape, w.now-s.asked >= patience}
}

// hopes asks once for each fate whether it is any use to come up in this walk: a
// walk only takes, so who waits at its beginning waits at its end.
func (c *ours) hopes(w *world, round *placement.Round, s *session, hopeless map[fate]bool) bool {
	f := fateOf(w, s)
	if _, known := hopeless[f]; !known {
		hopeless[f] = c.decide(w, round, s).Verdict == placement.Wait
	}
	return !hopeless[f]
}

func (c *ours) decide(w *world, round *placement.Round, s *session) placement.Decision {
	return round.Decide(placement.Request{Kind: s.model.kind, Needs: s.shape.needs, Hardware: s.shape.hardware, Realtime: s.model.kind == "live",
		Viewer: s.viewer, LocalOK: s.model.local, Asked: clock(s.asked)}, placement.WarmOnly, clock(w.now).Add(time.Microsecond))
}

// place decides one session, and carries the decision out.
func (c *ours) place(w *world, round *placement.Round, s *session) placement.Verdict {
	d := c.decide(w, round, s)
	switch d.Verdict {
	case placement.Reject:
		panic("the simulated cluster can run everything: " + d.Reason)
	case placement.Local:
		w.out.ranLocally(s, w.now)
	case placement.Warm:
		round.Take(d)
		i := c.pods[d.Pod]
		for _, id := range d.Pause {
			w.pause(i, id, true)
		}
		w.begin(s, i)
	}
	return d.Verdict
}
