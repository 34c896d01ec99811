package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// question is one request to a round, with what follows from it.
type question struct {
	Request
	policy   Policy
	now      time.Time
	traits   traits
	hardware bool // it needs a device
	encodes  bool // it needs an encoder of a device

	rewritten bool     // it is asked of a class by its Alternative
	refused   []string // by class, why it cannot be rewritten
}

func ask(r Request, p Policy, now time.Time) *question {
	return &question{Request: r, policy: p, now: now, traits: traitsOf(r.Kind),
		hardware: needsHardware(r.Needs), encodes: encodesInHardware(r.Needs)}
}

// rewrittenFor is what a class is asked when the command line is rewritten for it.
func (q *question) rewrittenFor(a Alternative) *question {
	r := q.Request
	r.Needs, r.Hardware = a.Needs, a.Hardware
	w := ask(r, q.policy, q.now)
	w.rewritten = true
	return w
}

// candidate is a class that may run the session.
type candidate struct {
	*Class
	q *question // as it is asked there
	// lacks is what its Jobs cannot do; empty: nothing known.
	lacks string
	// proved: by what is known it can, not only for want of knowledge.
	proved bool
}

// candidates are the classes that may run the session, best first, or the verdict
// that there is none.
func (b *Round) candidates(q *question) ([]candidate, *Decision) {
	s := b.s
	if len(s.Classes) == 0 {
		return nil, reject(wire.Refusal_NO_CLASS, "there is no class: no Deployment here is labelled ffpod.dev/class",
			"apply one, as kustomize/base does")
	}
	named := keep(s.Classes, func(c Class) bool { return q.Class == "" || c.Name == q.Class })
	if len(named) == 0 {
		return nil, reject(wire.Refusal_NO_CLASS, fmt.Sprintf("there is no class %s; there are: %s", q.Class, names(s.Classes)),
			"name one of them, or none")
	}
	able := keep(named, func(c Class) bool { return len(c.Kinds) == 0 || slices.Contains(c.Kinds, q.Kind) })
	if len(able) == 0 {
		return nil, reject(wire.Refusal_NO_CLASS, fmt.Sprintf("no class takes sessions of kind %s; asked: %s", q.Kind, names(named)),
			"add the kind to a class's annotation ffpod.dev/kinds")
	}
	asked := able
	if able = keep(able, func(c Class) bool { return reaches(c.Egress, q.Network) }); len(able) == 0 {
		return nil, reject(wire.Refusal_NO_CLASS, fmt.Sprintf("no class may reach what the command reads from the network (egress %s); asked: %s", q.Network, names(asked)),
			fmt.Sprintf("set the annotation ffpod.dev/egress: %q of a class, and allow it in its NetworkPolicy", q.Network))
	}
	proved, no := b.capable(able, q)
	if no != nil {
		return nil, no
	}
	proved = fitting(possible(proved))
	if known := b.differing(proved, q); known != "" {
		return nil, reject(wire.Refusal_WRONG_BUILD,
			fmt.Sprintf("every worker has another ffmpeg than the caller: %s, not %s", known, q.Build),
			"use the same ffmpeg in both images, or set placement.builds: any")
	}
	slices.SortFunc(proved, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rewriting(), b.rewriting()), cmp.Compare(a.Cost, b.Cost), cmp.Compare(a.Name, b.Name))
	})
	return proved, nil
}

// reaches tells whether an egress covers what is wanted of it.
func reaches(has, want ffmpeg.Egress) bool {
	return want == ffmpeg.NoEgress || has == want || has == ffmpeg.AnyEgress
}

func keep(classes []Class, is func(Class) bool) []Class {
	var kept []Class
	for _, c := range classes {
		if is(c) {
			kept = append(kept, c)
		}
	}
	return kept
}

// capable drops the classes of which it is known that neither their workers nor
// their Jobs can do what the request needs.
func (b *Round) capable(classes []Class, q *question) ([]candidate, *Decision) {
	var able []candidate
	var words []string
	for i := range classes {
		forms, lacks := b.forms(&classes[i], q)
		if able = append(able, forms...); len(forms) == 0 {
			words = append(words, "class "+classes[i].Name+": "+lacks)
		}
	}
	if len(able) == 0 {
		return nil, reject(wire.Refusal_NO_CLASS, "no class can do it: "+strings.Join(words, "; "),
			"use hardware that a class has, or see why the trial failed: ffpod status")
	}
	return able, nil
}

// forms are how a class would run the session: as it is, or rewritten, where the class
// neither proved what it needs nor holds the hardware that it names; both, where only
// some of its workers can. Without any, the words say what is lacking.
func (b *Round) forms(class *Class, q *question) ([]candidate, string) {
	c, lacks := b.examine(class, q)
	a, may := q.Alternatives[class.Name]
	fits := lacks == "" && c.fits()
	switch {
	case !may, fits && c.lacks == "":
		return only(c, lacks)
	case a.Refused != "":
		q.refused = append(q.refused, "class "+class.Name+": cannot be rewritten: "+a.Refused)
		return only(c, also(lacks, "cannot be rewritten: "+a.Refused))
	}
	w, worse := b.examine(class, q.rewrittenFor(a))
	switch {
	case worse != "":
		return only(c, also(lacks, "rewritten: "+worse))
	case fits:
		return []candidate{c, w}, ""
	case w.lacks != "" && lacks == "": // rewritten not by its Jobs, which proved it as it is
		return only(c, "")
	}
	return only(w, "")
}

func only(c candidate, lacks string) ([]candidate, string) {
	if lacks != "" {
		return nil, lacks
	}
	return []candidate{c}, ""
}

// also adds words, if there are any to add to.
func also(words, more string) string {
	if words == "" {
		return ""
	}
	return words + ", " + more
}

// examine asks the workers of a class that are up, and what is known of its
// template. It returns what is lacking: nothing, if a worker of the policy can, may,
// or is still finding out. What every worker lacks, a Job lacks too, unless the
// template's own profile knows better.
func (b *Round) examine(class *Class, q *question) (c candidate, lacks string) {
	c.Class, c.q = class, q
	able, hopeful := false, false
	for _, i := range b.classes[c.Name] {
		w := &b.s.Workers[i]
		if !w.Ready || w.Draining {
			continue
		}
		if lacks := b.lacks(w.Can, q); lacks != "" && !w.Proving {
			c.lacks = cmp.Or(c.lacks, lacks)
			continue
		}
		able = true
		if w.Standby && q.policy.job() || !w.Standby && q.policy.warm() {
			hopeful, c.proved = true, c.proved || w.Can != nil && !w.Proving
			if c.proved || len(q.Needs) == 0 {
				break
			}
		}
	}
	if able {
		c.lacks = ""
	}
	if c.Can != nil {
		c.lacks = b.lacks(c.Can, q)
		c.proved = c.proved || c.lacks == ""
	}
	if hopeful {
		return c, ""
	}
	return c, c.lacks
}

// possible keeps the classes that the policy does not shut out for ever, if there are
// any: what can never run a session must not stand before what can.
func possible(classes []candidate) []candidate {
	var kept []candidate
	for _, c := range classes {
		if c.possible() {
			kept = append(kept, c)
		}
	}
	if len(kept) == 0 {
		return classes
	}
	return kept
}

// possible: replicas may be scaled up, by hand or by an autoscaler; a Job may be made
// when another is over.
func (c candidate) possible() bool {
	return c.q.policy.warm() || c.Jobs > 0 && c.lacks == ""
}

// title begins what is said of it.
func (c candidate) title() string {
	if c.q.rewritten {
		return "class " + c.Name + ", rewritten: "
	}
	return "class " + c.Name + ": "
}

// rewriting orders what runs the session as it is before what needs it rewritten, and
// of those GPUs before CPUs.
func (c candidate) rewriting() int {
	switch {
	case !c.q.rewritten:
		return 0
	case c.q.hardware:
		return 1
	}
	return 2
}

// fitting keeps the classes that suit the request best: those that proved the
// hardware it needs or hold the hardware it names, else those without any device,
// so that what needs no GPU takes none. What cannot be told apart is kept whole.
// Those that it is rewritten for are kept beside the best, and instead of others.
func fitting(classes []candidate) []candidate {
	best := 0
	fit := make([]int, len(classes))
	for i, c := range classes {
		if fit[i] = bestFit - 1; !c.q.rewritten {
			fit[i] = fitness(c)
		}
		best = max(best, fit[i])
	}
	var kept []candidate
	for i, c := range classes {
		if c.q.rewritten || fit[i] == best {
			kept = append(kept, c)
		}
	}
	return kept
}

// bestFit is the fitness of a class with the hardware itself.
const bestFit = 4

func fitness(c candidate) int {
	if c.q.hardware && c.proved || c.holds() {
		return bestFit
	}
	if len(c.Devices) == 0 {
		return 2 // may reach hardware by other ways than a resource
	}
	return 1
}

// holds tells whether its devices are of a maker that the command line names.
func (c candidate) holds() bool {
	return slices.ContainsFunc(c.Devices, func(d string) bool { return slices.Contains(c.q.Hardware, maker(d)) })
}

// fits tells whether nothing is gained by rewriting the command line for the class:
// it needs no hardware, or the class has what it needs. What workers proved is not
// enough where their devices are known to be of another maker than the line names:
// it may name that maker's driver.
func (c candidate) fits() bool {
	switch {
	case !c.q.hardware && len(c.q.Hardware) == 0, c.holds():
		return true
	}
	other := len(c.q.Hardware) > 0 && len(c.Devices) > 0 && !slices.ContainsFunc(c.Devices, func(d string) bool { return Maker(d) == "" })
	return c.proved && !other
}

// makers are those whose hardware a command line can name.
var makers = []string{"nvidia", "intel", "amd"}

// Maker names who made the hardware behind an extended resource or a DeviceClass:
// nvidia, intel or amd. Empty: it is not known.
func Maker(device string) string {
	if m := maker(device); slices.Contains(makers, m) {
		return m
	}
	return ""
}

// maker is Maker, or the domain of the resource.
func maker(resource string) string {
	domain, _, _ := strings.Cut(resource, "/")
	for _, m := range makers {
		if slices.Contains(strings.Split(domain, "."), m) {
			return m
		}
	}
	return domain
}

// differing returns a worker's build when SameBuild is asked for and every
// class's workers are known to have another one.
func (b *Round) differing(classes []candidate, q *question) string {
	if !q.SameBuild || q.Build == "" {
		return ""
	}
	other := ""
	for _, c := range classes {
		known := false
		for _, i := range b.classes[c.Name] {
			w := &b.s.Workers[i]
			if w.Build == "" {
				continue
			}
			if w.Build == q.Build {
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

func names(classes []Class) string {
	var all []string
	for _, c := range classes {
		all = append(all, c.Name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
