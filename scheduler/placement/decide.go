package placement

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Decide places one session. It reads its arguments only.
func Decide(s Snapshot, r Request, p Policy, now time.Time) Decision {
	return NewRound(s).Decide(r, p, now)
}

// Decide places one session on what is left. It changes nothing: Take does.
func (b *Round) Decide(r Request, p Policy, now time.Time) Decision {
	q := ask(r, p, now)
	classes, no := b.candidates(q)
	if no != nil && !r.LocalOK {
		q, classes, no = b.believe(q, no)
	}
	if no != nil {
		return q.refuse(*no)
	}
	if b.overLimit(q) == "" {
		for _, place := range []func([]candidate, *question) (Decision, bool){b.ready, b.makeRoom, b.job} {
			if d, ok := place(classes, q); ok {
				d.Caller, d.Viewer = r.Caller, r.Viewer
				return d
			}
		}
	}
	return b.later(classes, q)
}

// believe asks again without the software that no worker lists, for a session that
// can run nowhere else: what is misread here, or missing, is ffmpeg's to refuse, in
// its own words. Hardware stays asked for: a wrong worker would fail later, and worse.
func (b *Round) believe(q *question, no *Decision) (*question, []candidate, *Decision) {
	r := q.Request
	r.Needs = slices.DeleteFunc(slices.Clone(r.Needs), func(n string) bool { return !hardware(n) })
	if len(r.Needs) == len(q.Needs) {
		return q, nil, no
	}
	again := ask(r, q.policy, q.now)
	if classes, still := b.candidates(again); still == nil {
		return again, classes, nil
	}
	return q, nil, no
}

// overLimit says that the caller has as many sessions as it may; empty: it has not.
func (b *Round) overLimit(q *question) string {
	n := b.s.Callers[q.Caller] + b.callers[q.Caller]
	if q.CallerLimit == 0 || n < q.CallerLimit {
		return ""
	}
	return fmt.Sprintf("%s has %d of at most %d sessions on workers", q.Caller, n, q.CallerLimit)
}

// ready takes what can start the session at once: the slot of a warm worker, or a
// Job on standby, of the best class that has one.
func (b *Round) ready(classes []candidate, q *question) (Decision, bool) {
	for _, c := range classes {
		if q.policy.warm() {
			if w := b.pick(c.Name, false, c.q); w != nil {
				return c.on(Warm, w, fmt.Sprintf("%d of %d slots free on %s", w.free(), w.Slots, w.Pod)), true
			}
		}
		if q.policy.job() {
			if w := b.pick(c.Name, true, c.q); w != nil {
				return c.on(Standby, w, fmt.Sprintf("Job %s was on standby", w.Pod)), true
			}
		}
	}
	return Decision{}, false
}

// makeRoom pauses a session that nobody waits for, for one that somebody does.
func (b *Round) makeRoom(classes []candidate, q *question) (Decision, bool) {
	if !q.policy.warm() || !q.traits.urgent {
		return Decision{}, false
	}
	for _, c := range classes {
		if w, x := b.victim(c.Name, c.q); w != nil {
			d := c.on(Warm, w, fmt.Sprintf("session %s (%s) on %s is paused for it", x.ID, x.Kind, w.Pod))
			d.Pause = []string{x.ID}
			return d, true
		}
	}
	return Decision{}, false
}

func (c candidate) on(v Verdict, w *Worker, reason string) Decision {
	d := c.decision(v, reason)
	d.Pod, d.Nonce, d.Node = w.Pod, w.Nonce, w.Node
	return d
}

func (c candidate) decision(v Verdict, reason string) Decision {
	return Decision{Verdict: v, Class: c.Name, Translated: c.q.rewritten, Encodes: c.q.encodes, Reason: c.title() + reason}
}

// job makes a Job of the best class that may have one, and rather of one whose
// devices are free than of one that would wait for them in Kubernetes.
func (b *Round) job(classes []candidate, q *question) (Decision, bool) {
	if !q.policy.job() {
		return Decision{}, false
	}
	able := slices.DeleteFunc(slices.Clone(classes), func(c candidate) bool { return b.noJob(c) != "" })
	if len(able) == 0 {
		return Decision{}, false
	}
	c := slices.MinFunc(able, func(x, y candidate) int { return b.scarce(x.Class) - b.scarce(y.Class) })
	why := "asked for a Job"
	if q.policy.warm() {
		why = b.warmWords(c)
	}
	return c.decision(Job, fmt.Sprintf("%s; Job %d of at most %d", why, c.ActiveJobs+1, c.Jobs)), true
}

// noJob says why no Job of the class is made for the session; empty: one may be.
func (b *Round) noJob(c candidate) string {
	q := c.q
	switch {
	case c.Jobs == 0:
		return "no Jobs allowed"
	case c.Unable != "":
		return "Kubernetes does not run its pods: " + c.Unable
	case c.lacks != "":
		return c.lacks
	case c.ActiveJobs >= c.Jobs:
		return fmt.Sprintf("%d of %d Jobs run", c.ActiveJobs, c.Jobs)
	case q.now.Before(q.Avoid[AvoidJobs(c.Name)]):
		return "its last Job did not start"
	}
	if held := b.held(c.Class); held != "" {
		return held
	}
	return q.tooSlow(c)
}

// held says that only warm workers of our own hold a device that a Job of the class
// would want: it would wait for them, as the session can.
func (b *Round) held(c *Class) string {
	for _, name := range c.Devices {
		if have, known := b.s.Supply[name]; known && have.Total > 0 && have.Warm >= have.Total {
			return fmt.Sprintf("its warm workers hold what a Job would need: %d of %d %s", have.Warm, have.Total, name)
		}
	}
	return ""
}

// scarce is 1 when a device that a Job of the class wants is known not to be free.
func (b *Round) scarce(c *Class) int {
	for _, name := range c.Devices {
		if have, known := b.s.Supply[name]; known && have.Free == 0 {
			return 1
		}
	}
	return 0
}

// tooSlow says that a Job would start too late for a kind with a liveness limit,
// when the session can run locally instead.
func (q *question) tooSlow(c candidate) string {
	switch {
	case !q.traits.limited || !q.LocalOK || !q.policy.warm():
		return ""
	case c.JobStart == 0:
		return "it is not known how soon a Job would start, and kind " + q.Kind + " must within " + StartWithin.String()
	case q.waited(q.now)+c.JobStart > StartWithin:
		return fmt.Sprintf("a Job would start after %s, and kind %s must within %s", c.JobStart.Round(time.Millisecond), q.Kind, StartWithin)
	}
	return ""
}

// later says why nothing is free, and what becomes of the session then.
func (b *Round) later(classes []candidate, q *question) Decision {
	possible, soon := false, false
	var words []string
	for _, c := range classes {
		var w []string
		possible = possible || c.possible()
		if q.policy.warm() {
			soon = soon || b.mayBecomeFree(c)
			w = append(w, b.warmWords(c))
		}
		if q.policy.job() {
			w = append(w, b.noJob(c))
		}
		words = append(words, c.title()+strings.Join(w, ", "))
	}
	reason := strings.Join(append(words, q.refused...), "; ")
	if !possible {
		return q.refuse(*reject(wire.Refusal_NO_CLASS, reason, "set the annotation ffpod.dev/jobs of a class, or ask for policy warm"))
	}
	if over := b.overLimit(q); over != "" {
		return q.fallback(over, true)
	}
	return q.fallback(reason, soon)
}

// mayBecomeFree tells whether a worker is up that could run the session.
func (b *Round) mayBecomeFree(c candidate) bool {
	for _, i := range b.classes[c.Name] {
		if b.can(&b.s.Workers[i], c.q) {
			return true
		}
	}
	return false
}

// fallback is Wait, or what follows a wait. A kind with a liveness limit does not
// wait for what cannot come in time.
func (q *question) fallback(reason string, soon bool) Decision {
	f := q.Fallback
	if f.Then == "" {
		f = FallbackOf(q.Kind)
	}
	waited := q.waited(q.now)
	over := waited >= f.After
	switch {
	case f.Then == Local && q.LocalOK && over:
		return Decision{Verdict: Local, Reason: fmt.Sprintf("%s; kind %s runs locally after %s", reason, q.Kind, f.After)}
	case f.Then == Local && q.LocalOK && q.traits.limited && !soon:
		return Decision{Verdict: Local, Reason: fmt.Sprintf("%s; kind %s must start within %s and runs locally", reason, q.Kind, StartWithin)}
	case f.Then == Reject && over:
		return *reject(wire.Refusal_QUEUE_TIMEOUT, fmt.Sprintf("no worker within %s: %s", f.After, reason),
			"add workers, allow Jobs, or wait longer (FFPOD_WAIT, queue.timeout)")
	}
	d := Decision{Verdict: Wait, Reason: reason}
	switch {
	case f.Then == Local && !q.LocalOK:
		d.Reason += "; it cannot run locally"
	case f.Then != Wait:
		d.Recheck = q.now.Add(f.After - waited)
	}
	return d
}

// refuse rejects, unless the session may run locally instead.
func (q *question) refuse(d Decision) Decision {
	f := q.Fallback
	if f.Then == "" {
		f = FallbackOf(q.Kind)
	}
	if f.Then == Local && q.LocalOK {
		return Decision{Verdict: Local, Reason: d.Reason + "; it runs locally"}
	}
	return d
}

func (b *Round) warmWords(c candidate) string {
	var workers, ready, slots, used, unproved, proving int
	lacks := ""
	for _, i := range b.classes[c.Name] {
		w := &b.s.Workers[i]
		if w.Standby {
			continue
		}
		workers++
		if !w.Ready || w.Draining {
			continue
		}
		ready++
		if l := b.lacks(w.Can, c.q); l != "" {
			unproved++
			lacks = l
			if w.Proving {
				proving++
			}
			continue
		}
		slots += w.Slots
		used += min(w.Used, w.Slots)
	}
	switch {
	case workers == 0 && c.Replicas == 0:
		return "no warm worker is wanted (replicas 0)"
	case ready == 0 && c.Unable != "":
		return fmt.Sprintf("none of %d warm workers is ready: %s", max(workers, c.Replicas), c.Unable)
	case ready == 0:
		return fmt.Sprintf("none of %d warm workers is ready", max(workers, c.Replicas))
	case proving > 0 && unproved == ready:
		return fmt.Sprintf("%d of %d warm workers are still proving what they can", proving, ready)
	case unproved == ready:
		return "no warm worker can: " + lacks
	case used < slots:
		return "no usable warm slot"
	}
	return fmt.Sprintf("%d of %d warm slots taken", used, slots)
}

func reject(why wire.Refusal, reason, remedy string) *Decision {
	return &Decision{Verdict: Reject, Refusal: why, Reason: reason, Remedy: remedy}
}
