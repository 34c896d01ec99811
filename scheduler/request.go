package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/store"
)

// Session ids become labels and parts of names.
var sessionID = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,46}[a-z0-9])?$`)

// opening reads the first frame.
func (r *run) opening(ctx context.Context) (*wire.Frame, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("%w: no Start came within %s", session.ErrShimGone, startTimeout))
	defer cancel()
	first, err := r.relay.Opening(ctx)
	if _, broken := errors.AsType[*session.ProtocolError](err); broken {
		return nil, refuse(wire.Refusal_BAD_START, "use the shim of this release", "%s", err)
	}
	return first, err
}

// parse understands the command line of a Start, without changing it.
func (r *run) parse(start *wire.Start) error {
	r.start, r.resumes = start, start.GetResumes()
	if err := r.name(start.GetSession()); err != nil {
		return err
	}
	if p := r.start.GetProgram(); p != wire.Program_FFMPEG && p != wire.Program_FFPROBE {
		return refuse(wire.Refusal_BAD_START, "use the shim of this release", "program %d is neither ffmpeg nor ffprobe", p)
	}
	r.start.Env = session.ForwardedEnv(r.start.GetEnv())
	r.line = argvOf(r.start)
	r.command = parseArgv(r.start)
	r.kind, r.outputs = string(r.command.Kind), outputs(r.command)
	return r.wants()
}

// name takes the session's id.
func (r *run) name(id string) error {
	if !sessionID.MatchString(id) {
		return refuse(wire.Refusal_BAD_START, "use lower-case letters, digits and dashes, at most 48", "session id %.60q cannot be used in names", id)
	}
	r.id = id
	return nil
}

func parseArgv(s *wire.Start) ffmpeg.Command {
	program := ffmpeg.FFmpeg
	if s.GetProgram() == wire.Program_FFPROBE {
		program = ffmpeg.FFprobe
	}
	return ffmpeg.Parse(string(program), argvOf(s), ffmpeg.Host{Dir: string(s.GetCwd())})
}

// wants reads what is asked of placement.
func (r *run) wants() error {
	r.policy = r.sched.cfg.Policy
	if asked := r.start.GetPolicy(); asked != "" {
		p, err := placement.ParsePolicy(asked)
		if err != nil {
			return refuse(wire.Refusal_BAD_START, "set FFPOD_POLICY to one of them, or to nothing", "%s", err)
		}
		r.policy = p
	}
	wait := r.sched.cfg.Wait
	if ms := r.start.GetWaitMs(); ms > 0 {
		wait, r.bounded = time.Duration(ms)*time.Millisecond, true
	}
	r.deadline = r.asked.Add(wait)
	r.needs = r.command.Requirements()
	r.asks = r.question()
	if len(r.outputs) > 0 {
		r.viewer = owner(r.caller) + "\x00" + r.outputs[0]
	}
	if !r.bounded {
		r.deadline = r.asked.Add(max(wait, r.leastWait()))
	}
	return nil
}

// leastWait is how long kinds wait that nobody watches, or that are asked once in
// their caller's life, whatever the queue's bound is.
func (r *run) leastWait() time.Duration {
	if _, asks := r.command.HardwareProbe(); asks {
		return probeWait
	}
	if placement.Pausable(r.kind) {
		return idleWait
	}
	return 0
}

// admit puts the session at the end of the queue.
func (r *run) admit(ctx context.Context) error {
	duplicate := refuse(wire.Refusal_DUPLICATE, "use a new id for every session", "session %s is known already", r.id)
	if !r.enter() {
		return duplicate
	}
	err := r.sched.cfg.Store.Add(ctx, store.Session{
		ID: r.id, Caller: r.caller, Kind: r.kind, WantClass: r.start.GetClass(), Policy: string(r.policy),
		Hardware: r.needs.Hardware, Build: r.start.GetBuild(), Priority: placement.Priority(r.kind),
	})
	switch {
	case errors.Is(err, store.ErrDuplicate):
		return duplicate
	case errors.Is(err, store.ErrFull):
		return refuse(wire.Refusal_QUEUE_FULL, "try again later, add workers, or raise queue.limit", "%s", err)
	case err != nil:
		return fmt.Errorf("admit session %s: %w", r.id, err)
	}
	r.state = store.Queued
	return nil
}

// enter makes the session this run's, unless its id is known: here, or to a worker.
func (r *run) enter() bool {
	s := r.sched
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, adopted := s.adopted[r.id]; adopted || s.sessions[r.id] != nil {
		return false
	}
	s.sessions[r.id] = r
	r.owned.Store(true)
	return true
}

// request is what placement needs to know. The scheduler's mutex is held.
func (r *run) request(offers []offer) placement.Request {
	return placement.Request{
		Kind: r.kind, Class: r.start.GetClass(), Needs: r.needs.Capabilities, Hardware: r.needs.Hardware,
		Alternatives: r.alternatives(offers),
		Build:        r.start.GetBuild(), SameBuild: r.sched.cfg.SameBuild,
		Realtime: r.needs.Realtime, Network: r.network(), LocalOK: r.start.GetLocal(),
		Viewer: r.viewer, Caller: owner(r.caller), CallerLimit: r.sched.cfg.CallerLimit,
		Asked: r.asked, Fallback: r.sched.cfg.Fallback[r.kind], Avoid: r.avoid,
	}
}

// network is what the command reaches for on the network. Whether an address is the
// caller's own only the shim knows.
func (r *run) network() ffmpeg.Egress {
	switch {
	case !r.needs.Network:
		return ffmpeg.NoEgress
	case r.start.GetReachesCaller():
		return ffmpeg.CallerEgress
	}
	return ffmpeg.AnyEgress
}

// Record is what a worker keeps of a session for the scheduler, opaque to it:
// with it, a scheduler that knows nothing can rebuild its knowledge.
type Record struct {
	V       int          `json:"v"` // 1
	Caller  store.Caller `json:"caller"`
	Kind    string       `json:"kind"`
	Class   string       `json:"class"`
	Policy  string       `json:"policy"`
	Outputs [][]byte     `json:"outputs,omitempty"` // output keys; bytes, as paths are
	Asked   time.Time    `json:"asked"`
	// Translated is nil for a session that runs the line of its caller.
	Translated *Translated `json:"translated,omitempty"`
}

// maxOutputs and maxRecord bound the record, which every Describe of the worker
// returns: more outputs, or bytes of their names, are not fenced one by one.
const (
	maxOutputs = 64
	maxRecord  = 16 << 10
)

func (r *run) record() ([]byte, error) {
	rec := Record{V: 1, Caller: r.caller, Kind: r.kind, Class: r.worker.Class, Policy: string(r.policy), Asked: r.asked.UTC(), Translated: r.translated}
	for _, key := range r.outputs {
		rec.Outputs = append(rec.Outputs, []byte(key))
	}
	return json.Marshal(rec)
}

// outputs are the keys of what a command writes, as far as they are fenced.
func outputs(c ffmpeg.Command) (keys []string) {
	size := 0
	for _, key := range c.OutputKeys() {
		if size += len(key); len(keys) < maxOutputs && size <= maxRecord {
			keys = append(keys, key)
		}
	}
	return keys
}

// readRecord reads what a worker has kept. Its error is that of a worker whose
// sessions are not this scheduler's.
func readRecord(b []byte) (Record, error) {
	var rec Record
	if err := json.Unmarshal(b, &rec); err != nil {
		return Record{}, fmt.Errorf("read the record of a session: %w", err)
	}
	if rec.V != 1 {
		return Record{}, fmt.Errorf("read the record of a session: version %d is not known here", rec.V)
	}
	return rec, nil
}

// keys are the record's outputs as the fences know them.
func (r Record) keys() []string {
	keys := make([]string, len(r.Outputs))
	for i, o := range r.Outputs {
		keys[i] = string(o)
	}
	return keys
}
