// Package placement decides where a session runs, in which order those that wait
// are served, and who makes room for whom. Everything in it is a pure function of
// its arguments: no I/O, no clock, no chance. The same arguments give the same
// decision with the same reason, so a decision can be explained, tested and
// simulated (test/simulate).
//
//	     classes that may and can run it, best first
//	                     │ none ─────────────▶ Reject, or Local
//	policy warm,         ▼
//	warm-then-job   a free warm slot? ─ yes ──▶ Warm
//	                     │ no
//	policy job,          ▼
//	warm-then-job   an idle standby Job? ─ yes ─▶ Standby
//	                     │ no
//	policy warm,         ▼
//	warm-then-job   a session that makes room? ─ yes ─▶ Warm, and Pause
//	                     │ no
//	policy job,          ▼
//	warm-then-job   room for a Job? ─── yes ──▶ Job
//	                     │ no
//	                     ▼
//	may it ever be otherwise? ── no ──────────▶ Reject, or Local
//	                     │ yes
//	                     ▼
//	has it waited as long as it may? ─ no ────▶ Wait
//	                     │ yes
//	                     └────────────────────▶ Local or Reject, by its fallback
//
// # Which worker
//
// One that can: ready, not draining, of the build asked for, with a free slot, and
// with every capability of the request proved. What an older release does not
// report is unknown and allowed. Of those, the workers whose slots are filled no
// more than the mean are all fair: whoever takes among them, none ever gets more
// than its share of the sessions and one. Among them the viewer's last worker is
// taken, else the least loaded by slots and by measured load, else the one whose
// node has the fewest sessions.
//
// # As it is, or rewritten
//
// A class that proved what the command line needs, or holds the hardware that it
// names, runs it as it is. Another one may run it rewritten, by the request's
// Alternative. At every step of the diagram the first come before the second: a
// rewritten line takes the free slot of other hardware rather than a Job or a wait,
// and of those the slot of a GPU rather than a CPU's.
package placement

import (
	"fmt"
	"maps"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// Policy says which kinds of worker a session may have.
type Policy string

// The policies.
const (
	WarmThenJob Policy = "warm-then-job" // a Job when no warm slot is free
	WarmOnly    Policy = "warm"          // wait for a warm slot
	JobOnly     Policy = "job"           // always a Job of its own
)

// ParsePolicy knows the names of the policies.
func ParsePolicy(s string) (Policy, error) {
	switch p := Policy(s); p {
	case WarmThenJob, WarmOnly, JobOnly:
		return p, nil
	}
	return "", fmt.Errorf("policy %q is not one of %s, %s, %s", s, WarmThenJob, WarmOnly, JobOnly)
}

func (p Policy) warm() bool { return p != JobOnly }
func (p Policy) job() bool  { return p != WarmOnly }

// Verdict is what becomes of a session.
type Verdict string

// The verdicts.
const (
	Local   Verdict = "local"   // the caller runs it itself
	Warm    Verdict = "warm"    // a slot of a warm worker
	Standby Verdict = "standby" // a Job that was made ahead of need
	Job     Verdict = "job"     // a Job of its own
	Wait    Verdict = "wait"    // nothing is free, something may become free
	Reject  Verdict = "reject"  // nothing could ever run it
)

// Class is what placement knows of a class.
type Class struct {
	Name string
	// Kinds are the kinds of session it takes. Empty: every kind.
	Kinds []string
	// Cost orders classes, cheapest first.
	Cost int
	// Jobs is the most Jobs at a time, ActiveJobs how many there are, those on
	// standby included.
	Jobs, ActiveJobs int
	// JobStart is how long a Job of it takes to start. Zero: unknown.
	JobStart time.Duration
	// Replicas is the number of warm workers wanted, running or not.
	Replicas int
	// Devices are the extended resources its workers hold, one of each:
	// nvidia.com/gpu.
	Devices []string
	// Egress is what its pods may reach of the network.
	Egress ffmpeg.Egress
	// Can is what workers of the present template proved, for Jobs of it. Nil:
	// what its warm workers say, and unknown if they do not.
	Can *Profile
	// Unable is Kubernetes' own reason why pods of it do not run now:
	// unschedulable, a quota, an image. Empty: none is known.
	Unable string
}

// Worker is what placement knows of a worker that is up: a warm one, or a Job on
// standby.
type Worker struct {
	Class, Pod, Nonce, Node string
	// Used counts the sessions that hold a slot; a paused one holds none.
	Slots, Used int
	// Ready: it answered lately. Draining: it takes nothing new.
	Ready, Draining bool
	// Standby: a Job made ahead of need, which takes one session.
	Standby bool
	// Build is the ELF build id of its ffmpeg. Empty: unknown.
	Build string
	// Can is what it proved, shared by workers that proved the same. Nil: it does
	// not report it. Proving: trials still run, Can is not complete.
	Can     *Profile
	Proving bool
	// Encodes is how many sessions encode in hardware, ParallelEncodes how many
	// may. ParallelEncodes 0: unknown.
	Encodes, ParallelEncodes int
	Load                     Load
	// Running are its sessions that may be paused, and those that are.
	Running []Running
}

// Load is what a worker measured lately.
type Load struct {
	Known, GPUKnown     bool
	CPU, GPU            int // permille of what it has
	Memory, MemoryLimit uint64
}

// Running is a session on a worker that may be paused, or is.
type Running struct {
	ID, Kind string
	// Hardware: it holds a device, which a pause would not free.
	Hardware bool
	Paused   bool
	// Since is when it was last paused or continued. Zero: it never was.
	Since time.Time
}

// Supply is what the cluster has of an extended resource.
type Supply struct {
	Total int // allocatable on all nodes
	Free  int // not requested by any pod
	Warm  int // requested by the warm workers of our classes
}

// Snapshot is everything that could run a session, at one moment.
type Snapshot struct {
	Classes []Class
	Workers []Worker
	// Supply is by extended resource. One that is not in it is unknown.
	Supply map[string]Supply
	// Callers counts the sessions on workers by caller.
	Callers map[string]int
	// Viewers names the pod that ran the last session of a viewer.
	Viewers map[string]string
}

// Request is what a session asks for.
type Request struct {
	Kind  string
	Class string // empty: any
	// Needs are the capabilities without which it cannot run.
	Needs []string
	// Hardware are the makers of the hardware that the command line names:
	// nvidia, intel, amd. Any one of them will do.
	Hardware []string
	// Build is the ELF build id of the caller's ffmpeg. Empty: unknown.
	Build string
	// SameBuild refuses workers with another build.
	SameBuild bool
	// Realtime: it must keep up with a clock, so a busy worker suits it less.
	Realtime bool
	// Alternatives are what it would need where its command line were rewritten, by
	// class. A class that is not among them runs it as it is, or not at all.
	Alternatives map[string]Alternative
	// Network is what it reaches for on the network: nothing, its caller's own pod,
	// or any address.
	Network ffmpeg.Egress
	// LocalOK: the caller could run it itself.
	LocalOK bool
	// Viewer is an opaque key of whom it is for. Empty: unknown.
	Viewer string
	// Caller is who asks, CallerLimit how many sessions it may have on workers. 0:
	// any number.
	Caller      string
	CallerLimit int
	// Asked is when it was asked for. Zero: just now.
	Asked time.Time
	// Fallback is what becomes of it when it has waited. Zero: FallbackOf its kind.
	Fallback Fallback
	// Avoid names workers (by pod) and Jobs (by AvoidJobs) that just refused or
	// failed this session, and until when they are left alone.
	Avoid map[string]time.Time
}

// Alternative is what a session needs of a class for whose hardware its command line
// is rewritten.
type Alternative struct {
	// Needs and Hardware are as in Request.
	Needs, Hardware []string
	// Refused says why it cannot be rewritten for the class. Empty: it can.
	Refused string
}

func (r Request) waited(now time.Time) time.Duration {
	if r.Asked.IsZero() {
		return 0
	}
	return now.Sub(r.Asked)
}

// AvoidJobs is the key of Request.Avoid for the Jobs of a class.
func AvoidJobs(class string) string { return "jobs of " + class }

// Decision is the answer, with its reason in words for a person.
type Decision struct {
	Verdict Verdict
	Class   string // set for Warm, Standby and Job
	// The worker: set for Warm and Standby.
	Pod, Nonce, Node string
	// Pause names the sessions on the worker to be paused first: only then there
	// is a slot. Set for Warm only.
	Pause []string
	// Translated: the class runs it rewritten, by its Alternative.
	Translated bool
	// Reason is one line.
	Reason string
	// Recheck is when time alone changes the answer. Set for some Wait.
	Recheck time.Time
	// Refusal and Remedy are set for Reject.
	Refusal wire.Refusal
	Remedy  string

	// What the session takes beside a slot, for Round.Take.
	Encodes        bool
	Caller, Viewer string
}

// placed tells whether the session gets a worker.
func (d Decision) placed() bool {
	return d.Verdict == Warm || d.Verdict == Standby || d.Verdict == Job
}

// clone copies what a Round changes. Callers and Viewers may be many: it keeps what
// it changes of them beside them.
func (s Snapshot) clone() Snapshot {
	s.Classes, s.Workers = append([]Class(nil), s.Classes...), append([]Worker(nil), s.Workers...)
	s.Supply = maps.Clone(s.Supply)
	return s
}
