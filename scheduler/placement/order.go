package placement

import (
	"cmp"
	"iter"
	"slices"
	"time"
)

// floor is the part of the sessions on workers that starved sessions of lower
// priority may bring themselves up to: one in floor.
const floor = 8

// Waiting is a session in the queue.
type Waiting struct {
	Kind, Caller string
	Asked        time.Time
}

// Held is what runs on workers.
type Held struct {
	Callers map[string]int // sessions by caller
	Total   int
	// Low counts those of a lower priority than playback.
	Low int
}

// Order is the order in which those that wait are served, as indices of waiting:
// by the priority of their kind, then by how few sessions their caller has, counting
// those of it that are served before, then by time.
//
// Nobody starves: a session that has waited for Patience, or for StartWithin if
// somebody or something waits for it, is served before all of its priority, the
// oldest first; and before all, as long as fewer than one in eight of the sessions on
// workers are of a lower priority than playback. The arguments are not changed.
func Order(waiting []Waiting, held Held, now time.Time) iter.Seq[int] {
	return func(yield func(int) bool) {
		o := newOrdering(waiting, held, now)
		for range waiting {
			if !yield(o.next()) {
				return
			}
		}
	}
}

// ordering serves lines: the sessions of one caller and priority, oldest first. Of
// a line only the head can be next.
type ordering struct {
	waiting []Waiting
	now     time.Time
	lines   []*line
	callers map[string]int
	total   int
	low     int
}

type line struct {
	priority int
	caller   string
	queue    []int // indices, never empty
}

func newOrdering(waiting []Waiting, held Held, now time.Time) *ordering {
	o := &ordering{waiting: waiting, now: now, callers: make(map[string]int, len(held.Callers)), total: held.Total, low: held.Low}
	for c, n := range held.Callers {
		o.callers[c] = n
	}
	type key struct {
		priority int
		caller   string
	}
	at := map[key]*line{}
	for i, w := range waiting {
		k := key{Priority(w.Kind), w.Caller}
		if at[k] == nil {
			at[k] = &line{priority: k.priority, caller: k.caller}
			o.lines = append(o.lines, at[k])
		}
		at[k].queue = append(at[k].queue, i)
	}
	for _, l := range o.lines {
		slices.SortStableFunc(l.queue, func(i, j int) int { return waiting[i].Asked.Compare(waiting[j].Asked) })
	}
	return o
}

// next serves one.
func (o *ordering) next() int {
	best := 0
	for i := range o.lines {
		if o.before(o.lines[i], o.lines[best]) {
			best = i
		}
	}
	l := o.lines[best]
	i := l.queue[0]
	o.callers[l.caller]++
	o.total++
	if low(l.priority) {
		o.low++
	}
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		o.lines = slices.Delete(o.lines, best, best+1)
	}
	return i
}

// before compares the heads of two lines.
func (o *ordering) before(x, y *line) bool {
	a, b := o.waiting[x.queue[0]], o.waiting[y.queue[0]]
	starvedX, starvedY := o.starved(a), o.starved(b)
	below := o.low*floor < o.total+1
	if firstX, firstY := starvedX && low(x.priority) && below, starvedY && low(y.priority) && below; firstX != firstY {
		return firstX
	} else if firstX {
		return cmp.Or(a.Asked.Compare(b.Asked), cmp.Compare(x.queue[0], y.queue[0])) < 0
	}
	if x.priority != y.priority {
		return x.priority > y.priority
	}
	if starvedX != starvedY {
		return starvedX
	}
	fair := cmp.Compare(o.callers[x.caller], o.callers[y.caller])
	if starvedX {
		fair = 0
	}
	return cmp.Or(fair, a.Asked.Compare(b.Asked), cmp.Compare(x.queue[0], y.queue[0])) < 0
}

func (o *ordering) starved(w Waiting) bool { return o.now.Sub(w.Asked) >= traitsOf(w.Kind).patience() }

func low(priority int) bool { return priority < Priority("playback") }
