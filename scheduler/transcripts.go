package scheduler

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/store"
)

// retold is the placement of a session that no worker runs: it is answered as one
// was before. Placement itself never decides it.
const retold placement.Verdict = "transcript"

// Bounds of what is kept of hardware probes. A node's own driver is in no key.
const (
	mostAnswers = 256
	answersLast = 7 * 24 * time.Hour
)

// asked is all that the answer of a hardware probe depends on.
type asked struct {
	build    string // of the caller's ffmpeg
	class    string
	template string // lease.Template
	words    string // of the command and its environment, digested
}

// answer is what a worker said.
type answer struct {
	session.Transcript
	build string // of the worker's ffmpeg, if known
	at    time.Time
}

// answers keeps what hardware probes were answered, in this process. Its methods
// may be called from any goroutine.
type answers struct {
	mu    sync.Mutex
	kept  map[asked]answer
	order []asked // the oldest answer first
}

func (a *answers) keep(q asked, said answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kept == nil {
		a.kept = map[asked]answer{}
	}
	a.order = append(slices.DeleteFunc(a.order, func(x asked) bool { return x == q }), q)
	a.kept[q] = said
	if len(a.order) > mostAnswers {
		delete(a.kept, a.order[0])
		a.order = slices.Delete(a.order, 0, 1)
	}
}

func (a *answers) find(q asked, now time.Time) (answer, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	said, known := a.kept[q]
	return said, known && now.Sub(said.at) < answersLast
}

// question digests what a hardware probe asks: its words, and every variable that
// reaches a worker, for those choose drivers and what they print. Empty: nothing of
// the session is kept or retold.
func (r *run) question() string {
	probe, is := r.command.HardwareProbe()
	if !is || r.start.GetBuild() == "" {
		return ""
	}
	env := make([]string, len(r.start.GetEnv()))
	for i, v := range r.start.GetEnv() {
		env[i] = string(v)
		if strings.HasPrefix(env[i], "FFREPORT=") {
			return "" // it writes a file
		}
	}
	name := func(v string) string { name, _, _ := strings.Cut(v, "="); return name }
	slices.SortStableFunc(env, func(x, y string) int { return strings.Compare(name(x), name(y)) })
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %q %q", r.start.GetProgram(), probe.Key, env))
	return string(sum[:])
}

// recording is a probe that runs.
type recording struct {
	session.Recorder
	asked asked
	build string
}

// listenIn has the relay record the session that begins, if its answer may be kept.
func (r *run) listenIn(first *wire.Frame) *recording {
	r.relay.Record(nil) // of an earlier worker
	if first.GetStart() == nil || r.asks == "" {
		return nil
	}
	w, known := r.sched.workerOf(r.worker)
	if !known || w.Template == "" {
		return nil
	}
	rec := &recording{asked: asked{r.start.GetBuild(), w.Class, w.Template, r.asks}, build: w.FFmpegBuild}
	r.relay.Record(&rec.Recorder)
	return rec
}

// keep keeps what a worker answered, unless it is not whole or the device did not
// open: that may be otherwise the next time.
func (r *run) keep(rec *recording) {
	if rec == nil || r.exit == nil {
		return
	}
	if w, known := r.sched.workerOf(r.worker); known { // a Job's learns its build beside its session
		rec.build = cmp.Or(w.FFmpegBuild, rec.build)
	}
	said, whole := rec.Transcript()
	probe, _ := r.command.HardwareProbe()
	if e := r.exit; !whole || r.otherBuild(rec.build) || e.GetSignal() != 0 || e.GetCause() != wire.Cause_CAUSE_UNSPECIFIED || !probe.Opened(e.GetCode(), said.Stderr) {
		return
	}
	said.Exit = proto.CloneOf(said.Exit)
	said.Exit.UserUs, said.Exit.SystemUs, said.Exit.MaxRssKib = 0, 0, 0 // the next one takes none
	r.sched.answers.keep(rec.asked, answer{Transcript: said, build: rec.build, at: r.now()})
}

// otherBuild tells whether a worker's ffmpeg is one that the session may not have.
func (r *run) otherBuild(worker string) bool {
	return r.sched.cfg.SameBuild && worker != "" && worker != r.start.GetBuild()
}

// workerOf is what is known of a worker.
func (s *Scheduler) workerOf(w lease.Worker) (channels.WorkerState, bool) {
	for _, all := range [][]channels.WorkerState{s.cfg.Pool.Workers(), s.cfg.Jobs.Workers()} {
		for _, x := range all {
			if x.Pod == w.Pod && x.PodUID == w.PodUID && x.Nonce == w.Nonce {
				return x, true
			}
		}
	}
	return channels.WorkerState{}, false
}

// recall grants a hardware probe the answer that it would get, when no worker can
// give it now. The mutex is held.
func (s *Scheduler) recall(r *run, d placement.Decision, known map[string]class.Class) (grant, bool) {
	switch {
	case !r.start.GetRetold(): // an older shim would take half an answer for all
		return grant{}, false
	case r.failure != nil: // it has had a ticket, perhaps: a broken stream would go on elsewhere
		return grant{}, false
	}
	if r.asks == "" || d.Verdict == placement.Warm || d.Verdict == placement.Local {
		return grant{}, false
	}
	for _, c := range r.answerable(d, known) {
		q := asked{r.start.GetBuild(), c.Name, lease.Template(&c.Template.Spec), r.asks}
		said, kept := s.answers.find(q, s.cfg.Now())
		if !kept || s.doubted(r, c, q, said) {
			continue
		}
		return grant{class: c, retold: &said.Transcript, decision: placement.Decision{Verdict: retold, Class: c.Name,
			Reason: fmt.Sprintf("answered by class %s on %s, same build; now: %s", c.Name, said.at.UTC().Format("2006-01-02 15:04 MST"), d.Reason)}}, true
	}
	return grant{}, false
}

// answerable are the classes whose answer a probe may get: the one that was decided
// for it, else those that it may have, in placement's order.
func (r *run) answerable(d placement.Decision, known map[string]class.Class) (all []class.Class) {
	wish := cmp.Or(d.Class, r.start.GetClass())
	for _, c := range known {
		if (wish == "" || c.Name == wish) && (len(c.Kinds) == 0 || slices.Contains(c.Kinds, r.kind)) {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b class.Class) int { return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(a.Name, b.Name)) })
	return all
}

// doubted tells whether a worker of the class that is up would say otherwise: its
// trial of the device failed, or its ffmpeg is another. The mutex is held.
func (s *Scheduler) doubted(r *run, c class.Class, q asked, said answer) bool {
	return slices.ContainsFunc(s.cfg.Pool.Workers(), func(w channels.WorkerState) bool {
		if w.Class != c.Name || !w.Ready || w.Draining || w.Template != q.template {
			return false
		}
		other := w.FFmpegBuild != "" && said.build != "" && w.FFmpegBuild != said.build
		return other || r.otherBuild(w.FFmpegBuild) || !w.Description.GetProving() && s.profiles.of(w).Lacks(r.needs.Capabilities) != ""
	})
}

// retell answers the shim from a transcript. No worker has a part in it and the shim
// gets no ticket: what is cut off has not started, and is asked anew.
func (r *run) retell(ctx context.Context, won grant) error {
	r.decision = won.decision
	r.times.leased = r.now()
	r.times.ready = r.times.leased
	if !r.move(ctx, store.Starting, store.Move{}) {
		return fmt.Errorf("start session %s: the store knows it in another state", r.id)
	}
	r.times.starting = r.now()
	r.started = make(chan struct{})
	replay := won.retold.Stream()
	defer replay.Close()
	link := session.NewLink(replay, r.sched.cfg.Link.ForClient())
	defer link.Close()
	r.relay.Record(nil)
	exit, err := r.relay.Run(ctx, link, &wire.Frame{Kind: &wire.Frame_Start{Start: r.start}})
	if exit == nil {
		return err
	}
	if err != nil {
		r.sched.log.Debug("nobody acknowledged an answer from a transcript", zap.String("session", r.id), zap.Error(err))
	}
	r.exit = exit
	r.runsNow(ctx)
	return nil
}
