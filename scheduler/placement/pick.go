package placement

import (
	"cmp"
	"slices"
	"time"
)

// free is how many slots nobody holds.
func (w *Worker) free() int { return max(0, w.Slots-w.Used) }

// paused counts the sessions that are paused, and of them those to whom the next
// free slots are due.
func (w *Worker) paused(now time.Time) (paused, due int) {
	for _, x := range w.Running {
		if !x.Paused {
			continue
		}
		paused++
		if !x.Since.IsZero() && now.Sub(x.Since) >= LongestPause {
			due++
		}
	}
	return paused, due
}

// tight: its supervisor is about to end its largest session for want of memory.
func (w *Worker) tight() bool {
	return w.Load.MemoryLimit > 0 && w.Load.Memory >= w.Load.MemoryLimit/10*9
}

// can tells whether a worker may ever run the session: whether it has room is
// another question.
func (b *Round) can(w *Worker, q *question) bool {
	return w.Ready && !w.Draining &&
		(!q.SameBuild || q.Build == "" || w.Build == "" || w.Build == q.Build) &&
		(len(q.Avoid) == 0 || !q.now.Before(q.Avoid[w.Pod])) &&
		b.lacks(w.Can, q) == ""
}

// encoder tells whether the driver has an encoder left.
func (q *question) encoder(w *Worker) bool {
	return !q.encodes || w.ParallelEncodes == 0 || w.Encodes < w.ParallelEncodes
}

// room is how many slots a worker has for the session. Paused sessions come before
// new ones of their own sort, and before any once their pause is over.
func (q *question) room(w *Worker) int {
	free := w.free()
	if free == 0 || !q.encoder(w) {
		return 0
	}
	if len(w.Running) == 0 {
		return free
	}
	paused, due := w.paused(q.now)
	if q.traits.pausable {
		due = paused
	}
	return max(0, free-due)
}

// pick takes the best worker of a class that has room, or nil. See the package
// comment for what is best. One near the end of its memory is the last choice.
func (b *Round) pick(class string, standby bool, q *question) *Worker {
	var used, slots [2]int // of workers with room: with memory, and without
	able := b.scratch[:0]
	for _, i := range b.classes[class] {
		w := &b.s.Workers[i]
		if w.Standby != standby || q.room(w) == 0 || !b.can(w, q) {
			continue
		}
		able = append(able, i)
		t := tightness(w)
		used[t] += w.Used
		slots[t] += w.Slots
	}
	b.scratch = able
	t := 0
	if slots[0] == 0 {
		t = 1
	}
	best, last := -1, b.last(q.Viewer)
	for _, i := range able {
		if w := &b.s.Workers[i]; tightness(w) != t || w.Used*slots[t] > used[t]*w.Slots {
			continue // more than its share
		}
		if best < 0 || b.better(i, best, last, q) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	return &b.s.Workers[best]
}

func tightness(w *Worker) int {
	if w.tight() {
		return 1
	}
	return 0
}

// better compares two fair workers. It is a total order: the answer does not depend
// on that of the snapshot.
func (b *Round) better(i, j int, last string, q *question) bool {
	x, y := &b.s.Workers[i], &b.s.Workers[j]
	if last != "" && (x.Pod == last) != (y.Pod == last) {
		return x.Pod == last
	}
	if c := q.level(x) - q.level(y); c != 0 {
		return c < 0
	}
	return cmp.Or(
		cmp.Compare(b.load[b.node[i]], b.load[b.node[j]]),
		cmp.Compare(x.Pod, y.Pod), cmp.Compare(x.Nonce, y.Nonce)) < 0
}

// level is how loaded a worker is for the session, in permille: its slots, and what
// it measured of what the session needs. What is not known is taken from its slots.
// A session that must keep up with a clock minds the measured load more.
func (q *question) level(w *Worker) int {
	slots := 1000 * w.Used / max(1, w.Slots)
	load := slots
	switch {
	case q.hardware && w.Load.GPUKnown:
		load = w.Load.GPU
	case !q.hardware && w.Load.Known:
		load = w.Load.CPU
	}
	if q.Realtime {
		load *= 2
	}
	return slots + load
}

// victim finds the worker of a class on which a session can be paused for this one,
// and that session: of the workers with the fewest paused sessions the least
// loaded, and on it the session that has run for longest.
func (b *Round) victim(class string, q *question) (best *Worker, pause Running) {
	fewest := 0
	for _, i := range b.classes[class] {
		w := &b.s.Workers[i]
		if w.Standby || len(w.Running) == 0 || w.tight() || !q.encoder(w) || !b.can(w, q) {
			continue
		}
		paused, _ := w.paused(q.now)
		x, found := w.longest(q.now)
		if !found || paused >= w.Slots || w.Used > w.Slots {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(paused, fewest), cmp.Compare(q.level(w), q.level(best)),
			cmp.Compare(w.Pod, best.Pod), cmp.Compare(w.Nonce, best.Nonce)) < 0 {
			best, pause, fewest = w, x, paused
		}
	}
	return best, pause
}

// longest is the session of a worker that may be paused and has run for longest.
func (w *Worker) longest(now time.Time) (Running, bool) {
	var able []Running
	for _, x := range w.Running {
		if !x.Paused && !x.Hardware && Pausable(x.Kind) && (x.Since.IsZero() || now.Sub(x.Since) >= BetweenPauses) {
			able = append(able, x)
		}
	}
	if len(able) == 0 {
		return Running{}, false
	}
	return slices.MinFunc(able, func(x, y Running) int { return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.ID, y.ID)) }), true
}
