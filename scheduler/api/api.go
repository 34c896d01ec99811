// Package api is what the scheduler tells operators: the answer of GET /status on
// its loopback port, as JSON. It holds no argv, no environment and no path of any
// session, and it only grows.
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
	// Sessions that wait come first in the order of the queue, then those that run
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
	Replicas   int      `json:"replicas"` // warm workers wanted
	Jobs       int      `json:"jobs"`     // at a time, at most
	ActiveJobs int      `json:"activeJobs"`
}

// Worker is a pod that runs sessions.
type Worker struct {
	Class       string `json:"class"`
	Pod         string `json:"pod"`
	Node        string `json:"node"`
	Role        string `json:"role"` // warm | job
	Slots       int    `json:"slots"`
	Used        int    `json:"used"`
	Ready       bool   `json:"ready"`
	Draining    bool   `json:"draining,omitempty"`
	FFmpeg      string `json:"ffmpeg,omitempty"` // version
	FFmpegBuild string `json:"ffmpegBuild,omitempty"`
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
	// CallerBuild is the ELF build id of the caller's own ffmpeg, if it has one.
	CallerBuild string `json:"callerBuild,omitempty"`
	Exit        *Exit  `json:"exit,omitempty"` // nil: it is not over, or had none
	// Failed: it was refused or lost, or its program failed, and not by the
	// caller's own will.
	Failed  bool      `json:"failed,omitempty"`
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
