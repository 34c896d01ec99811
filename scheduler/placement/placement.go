// Package placement decides where a session runs. Decide is a pure function of
// a snapshot, a request, a policy and the time: no I/O, no clock, no chance. The
// same arguments give the same decision with the same reason, so a decision can
// be explained, tested and simulated.
//
//	       classes that may run it, best first
//	                     │ none ─────────────▶ Reject
//	policy warm,         ▼
//	warm-then-job   a free warm slot? ─ yes ──▶ Warm
//	                     │ no
//	policy job,          ▼
//	warm-then-job   room for a Job? ─── yes ──▶ Job
//	                     │ no
//	                     ▼
//	may it ever be otherwise? ── yes ─────────▶ Wait
//	                     │ no
//	                     └────────────────────▶ Reject
package placement

import (
	"fmt"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
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

// The verdicts. Local and Standby are words of the protocol that Decide does not
// choose yet: nothing it sees would make them right.
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
	// Jobs is the most Jobs at a time, ActiveJobs how many there are.
	Jobs, ActiveJobs int
	// Replicas is the number of warm workers wanted, running or not.
	Replicas int
	// Devices are the extended resources its workers hold: nvidia.com/gpu.
	Devices []string
	// HeldByWarm says that the class's own warm workers hold every device that a
	// Job would need, so a Job is no overflow.
	HeldByWarm bool
}

// Worker is what placement knows of a warm worker.
type Worker struct {
	Class, Pod, Nonce, Node string
	Slots, Used             int
	// Ready: it answered lately. Draining: it takes nothing new.
	Ready, Draining bool
	// Build is the ELF build id of its ffmpeg. Empty: unknown.
	Build string
}

func (w Worker) free() int { return max(0, w.Slots-w.Used) }

// Snapshot is everything that could run a session, at one moment.
type Snapshot struct {
	Classes []Class
	Workers []Worker
}

// Request is what a session asks for.
type Request struct {
	Kind  string
	Class string // empty: any
	// Hardware are the makers of the hardware that the command line names:
	// nvidia, intel, amd. Any one of them will do.
	Hardware []string
	// Build is the ELF build id of the caller's ffmpeg. Empty: unknown.
	Build string
	// SameBuild refuses workers with another build.
	SameBuild bool
	// Avoid names workers (by pod) and Jobs (by AvoidJobs) that just refused or
	// failed this session, and until when they are left alone.
	Avoid map[string]time.Time
}

// AvoidJobs is the key of Request.Avoid for the Jobs of a class.
func AvoidJobs(class string) string { return "jobs of " + class }

// Decision is the answer, with its reason in words for a person.
type Decision struct {
	Verdict Verdict
	Class   string // set for Warm and Job
	Pod     string // set for Warm
	Nonce   string // set for Warm
	Node    string // set for Warm
	// Reason is one line.
	Reason string
	// Refusal and Remedy are set for Reject.
	Refusal wire.Refusal
	Remedy  string
}

// Take returns the snapshot as it will be once d has been carried out, so that
// the next in the queue can be decided on it. s is not changed.
func (s Snapshot) Take(d Decision) Snapshot {
	switch d.Verdict {
	case Warm:
		workers := append([]Worker(nil), s.Workers...)
		for i := range workers {
			if workers[i].Pod == d.Pod && workers[i].Nonce == d.Nonce {
				workers[i].Used++
			}
		}
		s.Workers = workers
	case Job:
		classes := append([]Class(nil), s.Classes...)
		for i := range classes {
			if classes[i].Name == d.Class {
				classes[i].ActiveJobs++
			}
		}
		s.Classes = classes
	}
	return s
}

// Without returns the snapshot in which what d chose is taken to the last slot,
// because it turned out to be. s is not changed.
func (s Snapshot) Without(d Decision) Snapshot {
	next := s.Take(d)
	for i := range next.Workers {
		if w := &next.Workers[i]; d.Verdict == Warm && w.Pod == d.Pod && w.Nonce == d.Nonce {
			w.Used = max(w.Used, w.Slots)
		}
	}
	for i := range next.Classes {
		if c := &next.Classes[i]; d.Verdict == Job && c.Name == d.Class {
			c.ActiveJobs = max(c.ActiveJobs, c.Jobs)
		}
	}
	return next
}
