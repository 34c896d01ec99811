package scheduler

import (
	"slices"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/store"
)

// snapshot is everything that could run a session: the warm workers as they are, and
// what is held of them. The mutex is held.
func (s *Scheduler) snapshot(workers []channels.WorkerState, held placement.Held) (placement.Snapshot, map[string]class.Class) {
	snap := placement.Snapshot{Callers: held.Callers, Viewers: s.viewers.last}
	known := map[string]class.Class{}
	for _, c := range s.cfg.Classes.List() {
		known[c.Name] = c
		snap.Classes = append(snap.Classes, placement.Class{
			Name: c.Name, Kinds: c.Kinds, Cost: c.Cost, Jobs: c.Jobs,
			ActiveJobs: s.activeJobs(c.Name), Replicas: replicas(c), Devices: c.Holds(), Egress: c.Egress,
			Unable: s.cfg.Unable(c.Name),
		})
	}
	on := map[string]*occupants{}
	for _, r := range s.sessions {
		if !r.placed.Load() {
			continue
		}
		at := r.at.Load()
		key := at.worker.Pod + "/" + at.worker.Nonce
		if on[key] == nil {
			on[key] = new(occupants)
		}
		on[key].add(r, at.encodes)
	}
	s.profiles.keep(workers)
	for _, w := range workers {
		snap.Workers = append(snap.Workers, s.seen(w, on[w.Pod+"/"+w.Nonce]))
	}
	if s.cfg.Standbys != nil {
		for _, w := range s.cfg.Standbys.Free() {
			standby := s.seen(w, nil)
			standby.Standby = true
			snap.Workers = append(snap.Workers, standby)
		}
	}
	s.remember(workers, snap, known)
	return snap, known
}

// provedLasts is for how long a class without a worker is taken for what its last
// ones proved. It is short, since a driver may be mended meanwhile, and a class at
// zero would never find out.
const provedLasts = 10 * time.Minute

// remember tells of classes that have no worker what the last one of their template
// proved: a Job that could not do the work is not made first. A worker whose own
// device failed tells nothing of them. The mutex is held.
func (s *Scheduler) remember(workers []channels.WorkerState, snap placement.Snapshot, known map[string]class.Class) {
	now, up := s.cfg.Now(), map[string]bool{}
	for i, w := range workers { // snap has them first, in this order
		if seen := snap.Workers[i]; seen.Ready && !seen.Draining {
			up[w.Class] = true
			if seen.Can != nil && !seen.Proving && w.Template != "" {
				of := known[w.Class]
				if last := s.profiles.last[w.Class]; last.profile == seen.Can || seen.Can.Keeps(of.Holds()) {
					s.profiles.last[w.Class] = proved{w.Template, seen.Can, now}
				}
			}
		}
	}
	for i := range snap.Classes {
		c := &snap.Classes[i]
		last, proved := s.profiles.last[c.Name]
		if !proved || up[c.Name] || now.Sub(last.at) > provedLasts {
			continue
		}
		of := known[c.Name]
		if lease.Template(&of.Template.Spec) == last.template {
			c.Can = last.profile
		}
	}
}

// occupants are sessions of this process on one worker, as far as they matter to
// those that come.
type occupants struct {
	encodes int
	running []placement.Running
}

func (o *occupants) add(r *run, encodes bool) {
	if encodes {
		o.encodes++
	}
	if placement.Pausable(r.kind) && r.runs.Load() != 0 {
		x := placement.Running{ID: r.id, Kind: r.kind, Hardware: len(r.needs.Hardware) > 0 || encodes}
		if at := r.switched.Load(); at != 0 {
			x.Since = time.Unix(0, at)
		}
		o.running = append(o.running, x)
	}
}

// seen is a warm worker as placement sees it.
func (s *Scheduler) seen(w channels.WorkerState, o *occupants) placement.Worker {
	out := placement.Worker{
		Class: w.Class, Pod: w.Pod, Nonce: w.Nonce, Node: w.Node, Slots: w.Slots, Used: w.Used,
		Ready: w.Ready, Draining: w.Draining, Build: w.FFmpegBuild,
		Can: s.profiles.of(w), Proving: w.Description.GetProving(), ParallelEncodes: int(w.Description.GetParallelEncodes()),
	}
	if l := w.Description.GetLoad(); l != nil {
		out.Load = placement.Load{Known: true, GPUKnown: l.GetGpuKnown(), CPU: int(l.GetCpuPermille()), GPU: int(l.GetGpuPermille()),
			Memory: l.GetMemoryBytes(), MemoryLimit: l.GetMemoryLimitBytes()}
	}
	if o != nil {
		out.Encodes = o.encodes
		if w.Description == nil || w.Description.GetProves() { // an older release pauses nothing
			out.Running = o.running
		}
	}
	s.paused(w, &out)
	return out
}

// paused tells of a worker's sessions which are paused: by its own word, also those
// that were begun elsewhere or resumed here, for whoever paused them may be gone.
func (s *Scheduler) paused(w channels.WorkerState, out *placement.Worker) {
	for i := range out.Running {
		out.Running[i].Paused = s.moving[out.Running[i].ID] // its slot is whose it makes room for
	}
	for id, since := range w.Paused {
		i := slices.IndexFunc(out.Running, func(x placement.Running) bool { return x.ID == id })
		switch {
		case s.moving[id]: // about to go on: a slot is promised to it
			out.Used++
			if i >= 0 {
				out.Running = slices.Delete(out.Running, i, i+1)
			}
		case i >= 0:
			out.Running[i].Paused = true
		default:
			out.Running = append(out.Running, placement.Running{ID: id, Paused: true, Since: since})
		}
	}
}

// profiles are what workers proved: workers that proved the same share one, so that
// placement asks it once. The scheduler's mutex guards it.
type profiles struct {
	workers map[string]profiled           // by pod and nonce
	shared  map[string]*placement.Profile // by the name that workers give it
	last    map[string]proved             // by class
}

// proved is what the last worker of a class and template proved, and when it was up.
type proved struct {
	template string // lease.Template
	profile  *placement.Profile
	at       time.Time
}

type profiled struct {
	of      *wire.Description
	profile *placement.Profile
}

func newProfiles() profiles {
	return profiles{workers: map[string]profiled{}, shared: map[string]*placement.Profile{}, last: map[string]proved{}}
}

// of is a worker's profile: nil for one that does not tell what it can.
func (p *profiles) of(w channels.WorkerState) *placement.Profile {
	d := w.Description
	if d == nil || !d.GetProves() {
		return nil
	}
	at := w.Pod + "/" + w.Nonce
	if known, ok := p.workers[at]; ok && known.of == d {
		return known.profile
	}
	name := d.GetProfile() // empty while the lists of its ffmpeg are not read
	profile := p.shared[name]
	if profile == nil {
		profile = profileOf(d)
	}
	if name != "" {
		p.shared[name] = profile
	}
	p.workers[at] = profiled{d, profile}
	return profile
}

// keep forgets workers that are gone, and what only they proved.
func (p *profiles) keep(workers []channels.WorkerState) {
	if most := 2*len(workers) + 16; len(p.workers) <= most && len(p.shared) <= most {
		return
	}
	there := map[string]bool{}
	for _, w := range workers {
		there[w.Pod+"/"+w.Nonce] = true
	}
	used := map[string]bool{}
	for at, x := range p.workers {
		if !there[at] {
			delete(p.workers, at)
			continue
		}
		used[x.of.GetProfile()] = true
	}
	for name := range p.shared {
		if !used[name] {
			delete(p.shared, name)
		}
	}
}

func profileOf(d *wire.Description) *placement.Profile {
	flaws := make(map[string]string, len(d.GetFlaws()))
	if d.GetProving() && len(d.GetCapabilities()) == 0 { // its ffmpeg's lists are not read yet
		for _, kind := range []string{"encoder", "decoder", "filter", "hwaccel", "device"} {
			flaws[kind+":*"] = "the worker has just started and proves what it can"
		}
	}
	for _, f := range d.GetFlaws() {
		flaws[f.GetCapability()] = f.GetReason()
	}
	return placement.NewProfile(d.GetCapabilities(), flaws)
}

// activeJobs counts the Jobs of a class, made or granted.
func (s *Scheduler) activeJobs(class string) int {
	return s.cfg.Jobs.Active(class) + s.granted[class]
}

// rightOf is the right to what a decision chose. A paused session keeps its right,
// and holds no slot.
func rightOf(d placement.Decision, worker placement.Worker) store.Right {
	right := store.Right{Class: d.Class, Pod: d.Pod, Node: d.Node}
	if d.Verdict == placement.Warm {
		right.Worker, right.Limit = d.Pod+"/"+d.Nonce, worker.Slots+len(d.Pause)
		for _, x := range worker.Running {
			if x.Paused {
				right.Limit++
			}
		}
	}
	return right
}

// requestOf is the request of a session that another replica holds.
func requestOf(q store.Session) placement.Request {
	return placement.Request{Kind: q.Kind, Class: q.WantClass, Hardware: q.Hardware, Build: q.Build, Asked: q.Times.Queued, Caller: owner(q.Caller)}
}

// viewers remembers which pod ran the last session of the same outputs: a seek, or
// the next try, finds its files and its driver warm there. The scheduler's mutex
// guards it.
type viewers struct {
	last  map[string]string
	order []string // the oldest first
}

// mostViewers bounds what is remembered.
const mostViewers = 4096

func (v *viewers) note(viewer, pod string) {
	if viewer == "" || pod == "" {
		return
	}
	if v.last == nil {
		v.last = map[string]string{}
	}
	if _, known := v.last[viewer]; !known {
		v.order = append(v.order, viewer)
	}
	v.last[viewer] = pod
	if len(v.order) > mostViewers {
		delete(v.last, v.order[0])
		v.order = slices.Delete(v.order, 0, 1)
	}
}
