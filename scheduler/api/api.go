// Package api is what the scheduler tells operators: the answer of GET /status on
// its loopback port, as JSON; and what it takes from them, POST /prove. It holds no
// argv, no environment and no path of any session, and it only grows.
//
// The port is bound to 127.0.0.1 of the scheduler's pod, so whoever may
// port-forward to that pod may read it, and nobody else: the API server
// authenticates and audits, and RBAC's pods/portforward is the right.
package api

import "time"

// Port is the loopback port, unless configured.
const Port = 8081

// Path is what to GET.
const Path = "/status"

// ProvePath is where to POST that workers are to try their hardware again: all, or
// those of the class in the query, ?class=NAME. The answer is a list of Proof.
const ProvePath = "/prove"

// Proof is what became of the wish that a worker try its hardware again.
type Proof struct {
	Class   string `json:"class"`
	Worker  string `json:"worker"`
	Started bool   `json:"started"` // its trials run now, or will in a moment
	// Reason says why not, in one line.
	Reason string `json:"reason,omitempty"`
}

// Status is everything at one moment.
type Status struct {
	Version   string    `json:"version"`
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod,omitempty"`
	Time      time.Time `json:"time"`
	Began     time.Time `json:"began"`
	// NotReady says why the scheduler is not ready, one line each.
	NotReady []string `json:"notReady,omitempty"`
	// Policies says what is wrong with the admission policies: nil, not tried yet;
	// empty, they are in force.
	Policies []string `json:"policies"`
	Classes  []Class  `json:"classes"`
	Workers  []Worker `json:"workers"`
	// Sessions that wait come first in the order in which they are served, then those that run
	// and those that ended, the newest first.
	Sessions []Session `json:"sessions"`
}

// Class is a Deployment of workers.
type Class struct {
	Name       string   `json:"name"`
	Deployment string   `json:"deployment"`
	Usable     bool     `json:"usable"`
	Problems   []string `json:"problems,omitempty"`
	Kinds      []string `json:"kinds,omitempty"` // none: all
	Devices    []string `json:"devices,omitempty"`
	Cost       int      `json:"cost"`
	Replicas   int      `json:"replicas"`   // warm workers wanted
	Jobs       int      `json:"jobs"`       // at a time, at most
	ActiveJobs int      `json:"activeJobs"` // those on standby included
	// Unable is why Kubernetes does not run its pods now, in Kubernetes' words. Empty:
	// nothing is known to keep them from it.
	Unable string `json:"unable,omitempty"`
	// Standby bounds the Jobs made ahead of need, Scale the warm workers, where the
	// scheduler chooses their number. Nil: it makes none, it does not choose.
	Standby *Bounds `json:"standby,omitempty"`
	Scale   *Bounds `json:"scale,omitempty"`
	Egress  string  `json:"egress,omitempty"` // caller | true; none: its pods reach no network
}

// Bounds are the least and the most of something.
type Bounds struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// Worker is a pod that runs sessions.
type Worker struct {
	Class       string `json:"class"`
	Pod         string `json:"pod"`
	Node        string `json:"node"`
	Role        string `json:"role"` // warm | standby | job
	Slots       int    `json:"slots"`
	Used        int    `json:"used"`
	Ready       bool   `json:"ready"`
	Draining    bool   `json:"draining,omitempty"`
	FFmpeg      string `json:"ffmpeg,omitempty"` // version
	FFmpegBuild string `json:"ffmpegBuild,omitempty"`
	// Proves: it tells what its hardware can do. Without it Hardware and Flaws are
	// unknown, not empty. Proving: its trials still run, they are incomplete.
	Proves  bool `json:"proves,omitempty"`
	Proving bool `json:"proving,omitempty"`
	// Hardware is what a trial proved, Flaws what its ffmpeg lists and cannot do.
	Hardware *Hardware `json:"hardware,omitempty"`
	Flaws    []Flaw    `json:"flaws,omitempty"`
	// ParallelEncodes is how many hardware encodes passed at once. 0: unknown.
	ParallelEncodes int      `json:"parallelEncodes,omitempty"`
	Load            *Load    `json:"load,omitempty"`   // nil: unknown
	Paused          []string `json:"paused,omitempty"` // sessions that are stopped and hold no slot
}

// Hardware is what devices can do, by the names in ffmpeg's lists.
type Hardware struct {
	Encoders    []string `json:"encoders,omitempty"`
	Decoders    []string `json:"decoders,omitempty"`
	Hwaccels    []string `json:"hwaccels,omitempty"`
	ToneMapping []string `json:"toneMapping,omitempty"` // filters
	Devices     []string `json:"devices,omitempty"`     // types of -init_hw_device
}

// Flaw is a capability, KIND:NAME, that ffmpeg lists and a trial refuted.
type Flaw struct {
	Capability string `json:"capability"`
	Reason     string `json:"reason"` // in ffmpeg's words
	// Own: it is of the hardware that the worker's class asks Kubernetes for. The
	// others are of hardware that nobody promised.
	Own bool `json:"own,omitempty"`
}

// Load is what a worker measured lately.
type Load struct {
	CPU         int    `json:"cpuPermille"`           // of what it may use
	GPU         *int   `json:"gpuPermille,omitempty"` // nil: it cannot be read there
	Memory      uint64 `json:"memoryBytes"`
	MemoryLimit uint64 `json:"memoryLimitBytes,omitempty"` // 0: none
}

// Session is one run of ffmpeg.
type Session struct {
	ID        string `json:"id"`
	Caller    string `json:"caller"` // the ServiceAccount
	CallerPod string `json:"callerPod"`
	Kind      string `json:"kind"`
	State     string `json:"state"`
	Placement string `json:"placement,omitempty"`
	Class     string `json:"class,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Node      string `json:"node,omitempty"`
	Reason    string `json:"reason,omitempty"` // of the placement, or of the wait
	// Translated says for which hardware its command line was rewritten, and which
	// options changed. Empty: it was not.
	Translated string `json:"translated,omitempty"`
	// Position is its place in the queue, 1 the next one to be served. 0: it does not
	// wait. Priority orders kinds, higher first.
	Position int  `json:"position,omitempty"`
	Priority int  `json:"priority,omitempty"`
	Paused   bool `json:"paused,omitempty"` // it runs, and is stopped for one that somebody waits for
	// CallerBuild is the ELF build id of the caller's own ffmpeg, if it has one.
	CallerBuild string `json:"callerBuild,omitempty"`
	Exit        *Exit  `json:"exit,omitempty"` // nil: it is not over, or had none
	// Failed: it was refused or lost, or its program failed, and not by the
	// caller's own will.
	Failed bool `json:"failed,omitempty"`
	// Local: it was answered that its caller runs it itself. Exit.Cause says why.
	Local   bool      `json:"local,omitempty"`
	Asked   time.Time `json:"asked"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
}

// Exit is how a session ended.
type Exit struct {
	Code   int32  `json:"code"`
	Signal int32  `json:"signal,omitempty"`
	Cause  string `json:"cause,omitempty"`
}

// Waits tells whether the session is in the queue.
func (s Session) Waits() bool { return s.State == "queued" }

// Runs tells whether the session holds a worker.
func (s Session) Runs() bool {
	return s.State == "leased" || s.State == "starting" || s.State == "running"
}
