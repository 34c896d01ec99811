package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Decide places one session. It reads its arguments only.
func Decide(s Snapshot, r Request, p Policy, now time.Time) Decision {
	classes, rejected := candidates(s, r)
	if rejected != nil {
		return *rejected
	}
	if p.warm() {
		for _, c := range classes {
			if d, ok := warm(s, c, r, now); ok {
				return d
			}
		}
	}
	if p.job() {
		for _, c := range classes {
			if d, ok := job(s, c, r, p, now); ok {
				return d
			}
		}
	}
	return waitOrReject(s, classes, r, p, now)
}

// candidates are the classes that may run the session, best first.
func candidates(s Snapshot, r Request) ([]Class, *Decision) {
	if len(s.Classes) == 0 {
		return nil, reject(wire.Refusal_NO_CLASS, "there is no class: no Deployment here is labelled ffpod.dev/class",
			"apply one, as kustomize/base does")
	}
	var named, able []Class
	for _, c := range s.Classes {
		if r.Class != "" && c.Name != r.Class {
			continue
		}
		named = append(named, c)
		if len(c.Kinds) == 0 || slices.Contains(c.Kinds, r.Kind) {
			able = append(able, c)
		}
	}
	if len(named) == 0 {
		return nil, reject(wire.Refusal_NO_CLASS, fmt.Sprintf("there is no class %s; there are: %s", r.Class, names(s.Classes)),
			"name one of them, or none")
	}
	if len(able) == 0 {
		return nil, reject(wire.Refusal_NO_CLASS, fmt.Sprintf("no class takes sessions of kind %s; asked: %s", r.Kind, names(named)),
			"add the kind to a class's annotation ffpod.dev/kinds")
	}
	able = fitting(able, r)
	if known := differing(s, able, r); known != "" {
		return nil, reject(wire.Refusal_WRONG_BUILD,
			fmt.Sprintf("every worker has another ffmpeg than the caller: %s, not %s", known, r.Build),
			"use the same ffmpeg in both images, or set placement.builds: any")
	}
	slices.SortFunc(able, func(a, b Class) int {
		return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(a.Name, b.Name))
	})
	return able, nil
}

// fitting keeps the classes whose devices suit the request best: those of the
// hardware it names, else those without any device, so that what needs no GPU
// takes none. What cannot be told apart is kept whole.
func fitting(classes []Class, r Request) []Class {
	best, rank := classes, 0
	for want := 3; want >= 1 && rank == 0; want-- {
		var match []Class
		for _, c := range classes {
			if fitness(c, r) == want {
				match = append(match, c)
			}
		}
		if len(match) > 0 {
			best, rank = match, want
		}
	}
	return slices.Clone(best)
}

func fitness(c Class, r Request) int {
	for _, d := range c.Devices {
		if slices.Contains(r.Hardware, maker(d)) {
			return 3
		}
	}
	if len(c.Devices) == 0 {
		return 2 // may reach hardware by other ways than a resource
	}
	return 1
}

// maker names who made the hardware behind an extended resource.
func maker(resource string) string {
	domain, _, _ := strings.Cut(resource, "/")
	for _, m := range []string{"nvidia", "intel", "amd"} {
		if slices.Contains(strings.Split(domain, "."), m) {
			return m
		}
	}
	return domain
}

// differing returns a worker's build when SameBuild is asked for and every
// class's workers are known to have another one.
func differing(s Snapshot, classes []Class, r Request) string {
	if !r.SameBuild || r.Build == "" {
		return ""
	}
	other := ""
	for _, c := range classes {
		known := false
		for _, w := range s.Workers {
			if w.Class != c.Name || w.Build == "" {
				continue
			}
			if w.Build == r.Build {
				return ""
			}
			known, other = true, w.Build
		}
		if !known {
			return ""
		}
	}
	return other
}

// warm takes the least loaded warm worker of a class: most free slots, then
// the node with the fewest sessions, then the name.
func warm(s Snapshot, c Class, r Request, now time.Time) (Decision, bool) {
	load := map[string]int{}
	for _, w := range s.Workers {
		load[w.Node] += w.Used
	}
	var best *Worker
	for i := range s.Workers {
		w := &s.Workers[i]
		if w.Class == c.Name && usable(*w, r, now) && w.free() > 0 && (best == nil || cmp.Or(
			cmp.Compare(best.free(), w.free()),
			cmp.Compare(load[w.Node], load[best.Node]),
			cmp.Compare(w.Pod, best.Pod)) < 0) {
			best = w
		}
	}
	if best == nil {
		return Decision{}, false
	}
	return Decision{
		Verdict: Warm, Class: c.Name, Pod: best.Pod, Nonce: best.Nonce, Node: best.Node,
		Reason: fmt.Sprintf("class %s: %d of %d slots free on %s", c.Name, best.free(), best.Slots, best.Pod),
	}, true
}

func usable(w Worker, r Request, now time.Time) bool {
	return w.Ready && !w.Draining && !now.Before(r.Avoid[w.Pod]) &&
		(!r.SameBuild || r.Build == "" || w.Build == "" || w.Build == r.Build)
}

func job(s Snapshot, c Class, r Request, p Policy, now time.Time) (Decision, bool) {
	if c.ActiveJobs >= c.Jobs || c.HeldByWarm || now.Before(r.Avoid[AvoidJobs(c.Name)]) {
		return Decision{}, false
	}
	why := "asked for a Job"
	if p.warm() {
		why = warmWords(s, c)
	}
	return Decision{
		Verdict: Job, Class: c.Name,
		Reason: fmt.Sprintf("class %s: %s; Job %d of at most %d", c.Name, why, c.ActiveJobs+1, c.Jobs),
	}, true
}

// waitOrReject says why nothing is free, and whether that can change.
func waitOrReject(s Snapshot, classes []Class, r Request, p Policy, now time.Time) Decision {
	possible := false
	var words []string
	for _, c := range classes {
		var w []string
		if p.warm() {
			possible = true // replicas may be scaled up, by hand or by an autoscaler
			w = append(w, warmWords(s, c))
		}
		if p.job() {
			possible = possible || c.Jobs > 0
			w = append(w, jobWords(c, r, now))
		}
		words = append(words, "class "+c.Name+": "+strings.Join(w, ", "))
	}
	reason := strings.Join(words, "; ")
	if !possible {
		return *reject(wire.Refusal_NO_CLASS, reason, "set the annotation ffpod.dev/jobs of a class, or ask for policy warm")
	}
	return Decision{Verdict: Wait, Reason: reason}
}

func warmWords(s Snapshot, c Class) string {
	var workers, ready, slots, used int
	for _, w := range s.Workers {
		if w.Class != c.Name {
			continue
		}
		workers++
		if w.Ready && !w.Draining {
			ready++
			slots += w.Slots
			used += min(w.Used, w.Slots)
		}
	}
	switch {
	case workers == 0 && c.Replicas == 0:
		return "no warm worker is wanted (replicas 0)"
	case ready == 0:
		return fmt.Sprintf("none of %d warm workers is ready", max(workers, c.Replicas))
	case used < slots:
		return "no usable warm slot"
	}
	return fmt.Sprintf("%d of %d warm slots taken", used, slots)
}

func jobWords(c Class, r Request, now time.Time) string {
	switch {
	case c.Jobs == 0:
		return "no Jobs allowed"
	case c.HeldByWarm:
		return "its warm workers hold what a Job would need"
	case c.ActiveJobs < c.Jobs && now.Before(r.Avoid[AvoidJobs(c.Name)]):
		return "its last Job did not start"
	}
	return fmt.Sprintf("%d of %d Jobs run", c.ActiveJobs, c.Jobs)
}

func reject(why wire.Refusal, reason, remedy string) *Decision {
	return &Decision{Verdict: Reject, Refusal: why, Reason: reason, Remedy: remedy}
}

func names(classes []Class) string {
	var all []string
	for _, c := range classes {
		all = append(all, c.Name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
