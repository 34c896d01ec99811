package scheduler

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/translate"
)

// A session whose command line names hardware may run on that of another class, if
// the class says so (ffpod.dev/translate) and the line can be rewritten for it:
//
//	offersOf: classes, their targets, what they proved ─▶ alternatives of a session
//	placement: Decision.Translated ─▶ rewrite, by what that worker proved ─▶ Start
//
// The session keeps its own line: what it is given anew starts from there.

// offer is a class for whose hardware command lines are rewritten.
type offer struct {
	class   string
	targets targets
	proofs  []proof // of its workers, each once
}

// targets are what lines are rewritten for in a class, best first, or why for nothing.
type targets struct {
	all     []translate.Target
	refused string
}

// proof is what a worker proved.
type proof struct {
	profile *placement.Profile // nil: nothing is known
	proving bool
}

// offersOf are the classes of a snapshot that take rewritten lines.
func offersOf(snap placement.Snapshot, known map[string]class.Class) []offer {
	var offers []offer
	for _, c := range snap.Classes {
		if k := known[c.Name]; k.Translate {
			offers = append(offers, offer{class: c.Name, targets: targetsOf(k), proofs: proofsOf(snap, c)})
		}
	}
	return offers
}

func proofsOf(snap placement.Snapshot, c placement.Class) []proof {
	var proofs []proof
	for _, w := range snap.Workers {
		p := proof{w.Can, w.Proving}
		if w.Class == c.Name && w.Ready && !w.Draining && !slices.Contains(proofs, p) {
			proofs = append(proofs, p)
		}
	}
	if len(proofs) == 0 {
		return []proof{{profile: c.Can}}
	}
	return proofs
}

// targetsOf are those of the makers of a class's devices.
func targetsOf(c class.Class) targets {
	devices := c.Holds()
	if len(devices) == 0 {
		return targets{all: []translate.Target{translate.Software}}
	}
	var all []translate.Target
	for _, d := range devices {
		var of []translate.Target
		switch placement.Maker(d) {
		case "nvidia":
			of = []translate.Target{translate.NVENC}
		case "intel": // QSV's encoders rather than VAAPI's, where they are proved
			of = []translate.Target{translate.QSV, translate.VAAPI}
		case "amd":
			of = []translate.Target{translate.VAAPI}
		}
		for _, t := range of {
			if !slices.Contains(all, t) {
				all = append(all, t)
			}
		}
	}
	if len(all) == 0 {
		return targets{refused: "its devices are of no known maker: " + strings.Join(devices, ", ")}
	}
	return targets{all: all}
}

// Translated says how the command line of a session was rewritten: for what, and
// which options changed. It holds no value of the line.
type Translated struct {
	Target  string   `json:"target"`
	Options []string `json:"options"`
}

// String is for people; that of nil is empty.
func (t *Translated) String() string {
	if t == nil {
		return ""
	}
	return t.Target + ": " + strings.Join(t.Options, " ")
}

// rewriting is what became of a session's line for some targets and some proof.
type rewriting struct {
	// refused says why there is none; empty with a nil line: the line is the
	// target's as it is.
	refused string
	made    Translated
	line    []string
	needs   ffmpeg.Requirements
	proof   proof
}

// rewritingKey is what a rewriting of a session's line depends on.
type rewritingKey struct {
	targets string
	proof   proof
}

// alternatives are what the session would need in the classes that take rewritten
// lines. The scheduler's mutex is held.
func (r *run) alternatives(offers []offer) map[string]placement.Alternative {
	if len(offers) == 0 || len(r.needs.Hardware) == 0 {
		return nil
	}
	r.rewritings = map[string]*rewriting{}
	all := map[string]placement.Alternative{}
	for _, o := range offers {
		x := r.rewritingFor(o)
		if x.line == nil && x.refused == "" {
			continue
		}
		r.rewritings[o.class] = x
		all[o.class] = placement.Alternative{Needs: x.needs.Capabilities, Hardware: x.needs.Hardware, Refused: x.refused}
	}
	return all
}

// rewritingFor is the first that a proof of the class's workers allows.
func (r *run) rewritingFor(o offer) *rewriting {
	var first *rewriting
	for _, p := range o.proofs {
		x := r.rewritten(o.targets, p)
		if x.line != nil {
			return x
		}
		if first == nil {
			first = x
		}
	}
	return first
}

// rewritten rewrites the line, once for each key. The scheduler's mutex is held.
func (r *run) rewritten(to targets, p proof) *rewriting {
	key := rewritingKey{fmt.Sprint(to.all), p}
	x := r.tried[key]
	if x != nil {
		return x
	}
	x = r.tryRewriting(to, p)
	if r.tried == nil || len(r.tried) >= mostTried {
		r.tried = map[rewritingKey]*rewriting{}
	}
	r.tried[key] = x
	return x
}

// mostTried bounds what a session that waits keeps: a worker that proves is another
// one with each trial.
const mostTried = 32

func (r *run) tryRewriting(to targets, p proof) *rewriting {
	if to.refused != "" {
		return &rewriting{refused: to.refused}
	}
	same := false
	why := map[string][]string{} // targets by words
	var refusals []string
	for _, target := range to.all {
		line, changes, err := translate.Translate(r.line, target, func(capability string) bool { return p.profile.May(capability, p.proving) })
		var needs ffmpeg.Requirements
		if err == nil && len(changes) > 0 {
			needs, err = r.unharmed(line, target)
		}
		switch {
		case err != nil:
			said := words(err)
			if why[said] == nil {
				refusals = append(refusals, said)
			}
			why[said] = append(why[said], string(target))
		case len(changes) == 0:
			same = true
		default:
			return &rewriting{made: Translated{string(target), translate.Options(r.line, changes)}, line: line, needs: needs, proof: p}
		}
	}
	if same {
		return &rewriting{}
	}
	for i, said := range refusals {
		refusals[i] = "to " + strings.Join(why[said], " or ") + ": " + said
	}
	return &rewriting{refused: strings.Join(refusals, "; ")}
}

// words are those of a refusal that quote nothing of the line.
func words(err error) string {
	if refused, ok := errors.AsType[*translate.RefusedError](err); ok {
		return refused.Words
	}
	return err.Error()
}

// unharmed holds a rewritten line to what no rewriting may touch: what it is for, the
// files it reads and writes, and by which keys they are fenced.
func (r *run) unharmed(line []string, to translate.Target) (ffmpeg.Requirements, error) {
	if name := r.driver(); name != "" && (to == translate.QSV || to == translate.VAAPI) {
		return ffmpeg.Requirements{}, fmt.Errorf("the caller's environment names a driver for its own hardware: %s", name)
	}
	was := r.command
	is := ffmpeg.Parse(string(was.Program), line, ffmpeg.Host{Dir: string(r.start.GetCwd())})
	needs := is.Requirements()
	switch {
	case is.Kind != was.Kind:
		return needs, fmt.Errorf("it would be of kind %s, not %s", is.Kind, was.Kind)
	case !slices.EqualFunc(files(is), files(was), sameFile), !slices.Equal(is.OutputKeys(), was.OutputKeys()):
		return needs, errors.New("it would read or write other files")
	case is.ReadsStdin != was.ReadsStdin, is.StdinInput != was.StdinInput, needs.Network != r.needs.Network:
		return needs, errors.New("it would read or reach for something else")
	}
	return needs, nil
}

// driver is a variable by which the caller names VAAPI's driver; empty: none.
func (r *run) driver() string {
	for _, v := range r.start.GetEnv() {
		if name, _, _ := strings.Cut(string(v), "="); name == "LIBVA_DRIVER_NAME" || name == "LIBVA_DRIVERS_PATH" {
			return name
		}
	}
	return ""
}

// files are the operands that are no devices.
func files(c ffmpeg.Command) []ffmpeg.Operand {
	return slices.DeleteFunc(slices.Clone(c.Operands), func(o ffmpeg.Operand) bool { return o.Role == ffmpeg.Node })
}

func sameFile(a, b ffmpeg.Operand) bool {
	return a.Role == b.Role && a.Path == b.Path && a.Raw == b.Raw && a.Protocol == b.Protocol && a.FD == b.FD
}

// rewrite settles which line the worker is given: the session's own, or, if that was
// granted, one rewritten by what this worker proved.
func (r *run) rewrite(won grant) error {
	r.translated = nil
	x := won.rewriting
	if x == nil {
		return nil
	}
	s := r.sched
	s.mu.Lock()
	if own := s.proofOf(r.worker, r.decision.Verdict); own.profile != nil && own != x.proof {
		x = r.rewritten(targetsOf(won.class), own)
	}
	s.mu.Unlock()
	if x.line == nil {
		e := &elsewhere{cause: fmt.Errorf("worker %s: the session cannot be rewritten for it: %s", r.worker.Pod, cmp.Or(x.refused, "it is for this hardware")),
			avoid: r.worker.Pod, span: avoidWorker}
		if r.worker.Job != "" {
			e.avoid, e.span = placement.AvoidJobs(r.worker.Class), avoidJobs
		}
		return e
	}
	r.given = asBytes(x.line)
	r.translated = &x.made
	r.decision.Reason += "; rewritten for " + r.translated.String()
	return nil
}

// proofOf is what a worker proved, as far as it is known. The mutex is held.
func (s *Scheduler) proofOf(of lease.Worker, verdict placement.Verdict) proof {
	for _, w := range s.workersOf(string(verdict)).Workers() {
		if w.Pod == of.Pod && w.Nonce == of.Nonce {
			return proof{s.profiles.of(w), w.Description.GetProving()}
		}
	}
	return proof{}
}

// argvOf is a Start's as text; no byte is lost by that.
func argvOf(s *wire.Start) []string {
	argv := make([]string, len(s.GetArgv()))
	for i, a := range s.GetArgv() {
		argv[i] = string(a)
	}
	return argv
}

func asBytes(argv []string) [][]byte {
	out := make([][]byte, len(argv))
	for i, a := range argv {
		out[i] = []byte(a)
	}
	return out
}
