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
	total   int
	low     int
}

type line struct {
	priority int
	low      bool  // below playback
	held     *int  // sessions of its caller
	queue    []int // indices, never empty
	// Of its head.
	asked   time.Time
	starved bool
}

func newOrdering(waiting []Waiting, held Held, now time.Time) *ordering {
	o := &ordering{waiting: waiting, now: now, total: held.Total, low: held.Low}
	type key struct {
		priority int
		caller   string
	}
	at, callers := map[key]*line{}, map[string]*int{}
	for i, w := range waiting {
		k := key{Priority(w.Kind), w.Caller}
		l := at[k]
		if l == nil {
			if callers[w.Caller] == nil {
				n := held.Callers[w.Caller]
				callers[w.Caller] = &n
			}
			l = &line{priority: k.priority, low: k.priority < Priority("playback"), held: callers[w.Caller]}
			at[k], o.lines = l, append(o.lines, l)
		}
		l.queue = append(l.queue, i)
	}
	for _, l := range o.lines {
		slices.SortStableFunc(l.queue, func(i, j int) int { return waiting[i].Asked.Compare(waiting[j].Asked) })
		o.head(l)
	}
	return o
}

// head notes what counts of the head of a line.
func (o *ordering) head(l *line) {
	w := o.waiting[l.queue[0]]
	l.asked, l.starved = w.Asked, o.now.Sub(w.Asked) >= traitsOf(w.Kind).patience()
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
	*l.held++
	o.total++
	if l.low {
		o.low++
	}
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		o.lines = slices.Delete(o.lines, best, best+1)
	} else {
		o.head(l)
	}
	return i
}

// before compares the heads of two lines.
func (o *ordering) before(x, y *line) bool {
	helped := o.low*floor < o.total+1
	firstX, firstY := helped && x.low && x.starved, helped && y.low && y.starved
	age := cmp.Or(x.asked.Compare(y.asked), cmp.Compare(x.queue[0], y.queue[0]))
	switch {
	case firstX != firstY:
		return firstX
	case firstX:
		return age < 0
	case x.priority != y.priority:
		return x.priority > y.priority
	case x.starved != y.starved:
		return x.starved
	case x.starved:
		return age < 0
	}
	return cmp.Or(cmp.Compare(*x.held, *y.held), age) < 0
}
