// Package lease holds the right to one session on one worker.
//
// A lease is made by whoever owns the worker: the pool for a slot of a warm
// worker, the launcher for a Job made for one session. Its holder does not
// need to know which of the two it was:
//
//	         New
//	          |
//	        held ----------- Done() closes: the worker is gone, Cause() says why
//	        /   \                 (the lease still has to be ended)
//	 Release     Destroy
//	the session   its end is
//	has ended     not known
//
// Every lease ends exactly once, by Release or by Destroy. Ending one twice is
// a slot counted free twice, so it panics instead of being ignored.
package lease

import (
	"sync/atomic"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Worker names one worker pod. Pod names may be used again and containers
// restart, so a session belongs to the three of Pod, PodUID and Nonce.
type Worker struct {
	Class  string // the label ffpod.dev/class
	Pod    string // the pod's name
	PodUID string
	Node   string
	Nonce  string // new at every start of the supervisor
	Job    string // the Job's name, "" for a warm worker
}

// Lease is a held slot. Its methods may be called from any goroutine.
type Lease struct {
	worker  Worker
	runner  wire.RunnerClient
	gone    <-chan struct{}
	cause   func() error
	release func()
	destroy func()
	ended   atomic.Pointer[string]
}

// New makes a lease. The maker closes gone when the worker can no longer serve
// it, after which cause returns a non-nil error in words. Of release and
// destroy one is called, once, and may block shortly.
func New(w Worker, runner wire.RunnerClient, gone <-chan struct{}, cause func() error, release, destroy func()) *Lease {
	return &Lease{worker: w, runner: runner, gone: gone, cause: cause, release: release, destroy: destroy}
}

// Worker says where the session runs.
func (l *Lease) Worker() Worker { return l.worker }

// Runner runs the session. It is not to be used after the lease has ended.
func (l *Lease) Runner() wire.RunnerClient { return l.runner }

// Done is closed when the worker is gone for this session: its pod, its
// container or its channel. The session's own stream breaks at once in these
// cases; Done may follow a few seconds later, when the reason is known.
func (l *Lease) Done() <-chan struct{} { return l.gone }

// Cause says why Done is closed, in words for a person. It is nil before that.
func (l *Lease) Cause() error {
	select {
	case <-l.gone:
		return l.cause()
	default:
		return nil
	}
}

// Release ends the lease of a session whose exit is known, or that is left to
// run on by itself. A warm worker's slot is free again; a Job ends by itself.
func (l *Lease) Release() {
	l.end("released")
	l.release()
}

// Destroy ends the lease of a session that is given up: it never started, or
// its end is not known. A warm worker's slot stays taken until the worker says
// that it is free; a Job is deleted.
func (l *Lease) Destroy() {
	l.end("destroyed")
	l.destroy()
}

func (l *Lease) end(how string) {
	if !l.ended.CompareAndSwap(nil, &how) {
		panic("lease of worker " + l.worker.Pod + " is " + how + ", but was already " + *l.ended.Load())
	}
}
