// Package agent runs commands inside a pod for the benchmark and times them
// there, so that neither a shell nor an exec stream is part of a figure. The
// benchmark copies test/bench/inside into a pod, execs it once, and speaks JSON
// on its stdin and stdout: one Result for each Request, in order.
package agent

import "time"

// Op is what a Request asks for.
type Op string

const (
	// Run runs a command to its end.
	Run Op = "run"
	// Start begins a command; Kill ends it. There is one at a time.
	Start Op = "start"
	// Kill sends SIGKILL to the started command and reaps it.
	Kill Op = "kill"
	// Tiny writes to File the smallest program that there is: it exits with 0.
	Tiny Op = "tiny"
)

// Request is one thing to do.
type Request struct {
	Op   Op
	Argv []string `json:",omitempty"`
	// Env are NAME=VALUE pairs added to the pod's environment.
	Env []string `json:",omitempty"`
	// File is waited for while the command runs, see Result.File.
	File string `json:",omitempty"`
	// Timeout kills the command; Run and Kill always end. Defaults to a minute.
	Timeout time.Duration `json:",omitempty"`
}

// Result tells what happened. Durations count from just before the fork.
type Result struct {
	Pid       int           `json:",omitempty"`
	Total     time.Duration `json:",omitempty"` // until the command was reaped
	FirstByte time.Duration `json:",omitempty"` // until the first byte of stdout; 0: none
	File      time.Duration `json:",omitempty"` // until File existed; 0: it never did
	Bytes     int64         `json:",omitempty"` // of stdout
	CPU       time.Duration `json:",omitempty"` // of the command: user and system
	Code      int           // -1: it died of a signal
	Stderr    string        `json:",omitempty"` // its end
	// KilledAt is the time just before kill(2), in nanoseconds since 1970.
	KilledAt int64 `json:",omitempty"`
	// Err says why the command did not run at all.
	Err string `json:",omitempty"`
}
