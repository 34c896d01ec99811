package placement

import (
	"cmp"
	"slices"
	"time"
)

// Round is a snapshot that is being given away: what one session takes, the next
// one does not see. It is for one walk of the queue, and one goroutine. What it was
// made from is not changed.
type Round struct {
	s       Snapshot
	own     bool             // s is a copy
	classes map[string][]int // indices of workers by class
	node    []int            // of each worker, an index of sessions
	load    []int            // sessions by node
	scratch []int
	callers map[string]int    // sessions taken in this round
	viewers map[string]string // and where
	hints   hint
}

// hint remembers the last answer for a profile: workers share them.
type hint struct {
	of    *Profile
	asked *question
	lacks string
}

// NewRound starts on a snapshot, which must stay as it is until the round is over.
func NewRound(s Snapshot) *Round {
	b := &Round{s: s, classes: make(map[string][]int, len(s.Classes)), node: make([]int, len(s.Workers)),
		callers: map[string]int{}, viewers: map[string]string{}}
	nodes := make(map[string]int, len(s.Workers))
	class, members := "", []int(nil) // of the last worker: they come in runs
	for i := range s.Workers {
		w := &s.Workers[i]
		if w.Class != class {
			b.classes[class] = members
			class, members = w.Class, b.classes[w.Class]
		}
		members = append(members, i)
		at, known := nodes[w.Node]
		if !known {
			at = len(b.load)
			nodes[w.Node], b.load = at, append(b.load, 0)
		}
		b.node[i] = at
		b.load[at] += w.Used
	}
	b.classes[class] = members
	return b
}

// Take carries a decision out.
func (b *Round) Take(d Decision) {
	if !d.placed() {
		return
	}
	b.change()
	b.callers[d.Caller]++
	if c := b.class(d.Class); d.Verdict == Job && c != nil {
		c.ActiveJobs++
		for _, name := range c.Devices {
			if have, known := b.s.Supply[name]; known {
				have.Free = max(0, have.Free-1)
				b.s.Supply[name] = have
			}
		}
	}
	if i := b.worker(d); i >= 0 {
		b.occupy(i, d)
	}
}

func (b *Round) occupy(i int, d Decision) {
	w := &b.s.Workers[i]
	w.Used++
	b.load[b.node[i]]++
	if d.Encodes {
		w.Encodes++
	}
	if len(d.Pause) > 0 {
		w.Running = slices.Clone(w.Running)
		for j := range w.Running {
			if slices.Contains(d.Pause, w.Running[j].ID) {
				w.Running[j].Paused = true
				w.Used--
				b.load[b.node[i]]--
			}
		}
	}
	if d.Viewer != "" && d.Verdict == Warm {
		b.viewers[d.Viewer] = w.Pod
	}
}

// Without marks what a decision chose as taken to the last slot, because it turned
// out to be.
func (b *Round) Without(d Decision) {
	if !d.placed() {
		return
	}
	b.change()
	if c := b.class(d.Class); d.Verdict == Job && c != nil {
		c.ActiveJobs = max(c.ActiveJobs, c.Jobs)
	}
	if i := b.worker(d); i >= 0 {
		w := &b.s.Workers[i]
		w.Used, w.Running = max(w.Used, w.Slots), nil
	}
}

// Continuation is a paused session whose turn has come.
type Continuation struct{ Pod, Nonce, Session string }

// Continue gives slots that are free to the paused sessions of their workers,
// longest paused first. It is for the end of the round, when those that wait have
// had theirs; a slot that is due to a session paused for LongestPause was not
// offered to them.
func (b *Round) Continue(now time.Time) []Continuation {
	var all []Continuation
	for i := range b.s.Workers {
		if paused, _ := b.s.Workers[i].paused(now); paused == 0 || b.s.Workers[i].free() == 0 {
			continue
		}
		b.change()
		w := &b.s.Workers[i]
		w.Running = slices.Clone(w.Running)
		slices.SortFunc(w.Running, func(x, y Running) int { return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.ID, y.ID)) })
		for j := range w.Running {
			if x := &w.Running[j]; x.Paused && w.free() > 0 {
				x.Paused, x.Since = false, now
				w.Used++
				b.load[b.node[i]]++
				all = append(all, Continuation{Pod: w.Pod, Nonce: w.Nonce, Session: x.ID})
			}
		}
	}
	return all
}

// Worker is the worker that a decision chose, as it is now. False: there is none.
func (b *Round) Worker(d Decision) (Worker, bool) {
	if i := b.worker(d); i >= 0 {
		return b.s.Workers[i], true
	}
	return Worker{}, false
}

// last is the pod that ran the last session of a viewer; empty: unknown.
func (b *Round) last(viewer string) string {
	if viewer == "" {
		return ""
	}
	return cmp.Or(b.viewers[viewer], b.s.Viewers[viewer])
}

// change makes the snapshot the round's own.
func (b *Round) change() {
	if !b.own {
		b.s, b.own = b.s.clone(), true
	}
}

func (b *Round) class(name string) *Class {
	for i := range b.s.Classes {
		if b.s.Classes[i].Name == name {
			return &b.s.Classes[i]
		}
	}
	return nil
}

func (b *Round) worker(d Decision) int {
	if d.Verdict != Warm && d.Verdict != Standby {
		return -1
	}
	for _, i := range b.classes[d.Class] {
		if w := &b.s.Workers[i]; w.Pod == d.Pod && w.Nonce == d.Nonce {
			return i
		}
	}
	return -1
}

// lacks is Profile.Lacks of a worker's profile for the needs of a question.
func (b *Round) lacks(p *Profile, q *question) string {
	if p == nil || len(q.Needs) == 0 {
		return ""
	}
	if b.hints.of != p || b.hints.asked != q {
		b.hints = hint{of: p, asked: q, lacks: p.Lacks(q.Needs)}
	}
	return b.hints.lacks
}
