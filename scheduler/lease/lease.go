// Package lease holds the right to one session on one worker.
//
// A lease is made by whoever owns the worker: the pool for a slot of a warm
// worker, the launcher for a Job made for one session. Its holder does not
// need to know which of the two it was:
//
//	                   New
//	                    |
//	                  held ------------ Done() closes: the worker is gone, Cause()
//	         /          |          \        says why (the lease still has to be ended)
//	   Release        Leave       Destroy
//	the session    it goes on    its end is
//	has ended       without       not known
//	              this stream
//	                    |
//	         a later lease of the same session (Resume), or the worker's grace
//
// Every lease ends exactly once, by Release, Leave or Destroy. Ending one twice
// is a slot counted free twice, so it panics instead of being ignored.
//
// A channel that breaks ends no lease: the worker runs its sessions on. The
// stream on it breaks, its holder leaves, and whoever resumes the session gets a
// lease of its own, which takes the slot over.
package lease

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Errors of whoever resumes a session or gives orders about it.
var (
	// ErrGone occurs when the worker is gone for good, with its sessions: its pod,
	// or this boot of its container. The error in the chain is a *GoneError.
	ErrGone = errors.New("the worker is gone")
	// ErrUnknown occurs when the worker answers and does not know the session.
	ErrUnknown = errors.New("the worker does not know the session")
)

// GoneError says why a worker is gone, in words. errors.Is(err, ErrGone) holds.
type GoneError struct {
	Pod string
	Why string
	// Silent: nothing is known of its processes, as its node does not answer or the
	// pod is not what it was taken for. What it runs may run on, until its own bounds
	// end it.
	Silent bool
}

func (e *GoneError) Error() string { return fmt.Sprintf("worker %s is gone: %s", e.Pod, e.Why) }

// Is makes every GoneError an ErrGone.
func (e *GoneError) Is(target error) bool { return target == ErrGone }

// Worker names one worker pod. Pod names may be used again and containers
// restart, so a session belongs to the three of Pod, PodUID and Nonce.
type Worker struct {
	Class  string // the label ffpod.dev/class
	Pod    string // the pod's name
	PodUID string
	Node   string
	Nonce  string // new at every start of the supervisor
	Job    string // the Job's name, "" for a warm worker
	// Resumes: it keeps a session without a stream.
	Resumes bool
}

// Lease is a held slot. Its methods may be called from any goroutine.
type Lease struct {
	terms Terms
	ended atomic.Pointer[string]
}

// Terms are what a lease is made of. Of Release, Leave and Destroy one is called,
// once, and may block shortly.
type Terms struct {
	Worker     Worker
	Runner     wire.RunnerClient
	Supervisor wire.SupervisorClient
	// Gone is closed by the maker when the worker is gone, after which Cause
	// returns a non-nil error in words.
	Gone    <-chan struct{}
	Cause   func() error
	Release func()
	Leave   func()
	Destroy func()
	Suspect func() // must not block
}

// New makes a lease.
func New(t Terms) *Lease { return &Lease{terms: t} }

// Worker says where the session runs.
func (l *Lease) Worker() Worker { return l.terms.Worker }

// Runner runs the session. It is not to be used after the lease has ended.
func (l *Lease) Runner() wire.RunnerClient { return l.terms.Runner }

// Supervisor asks and orders the worker over the same channel, with the same
// bound on its use.
func (l *Lease) Supervisor() wire.SupervisorClient { return l.terms.Supervisor }

// Suspect says that the stream on this channel has gone silent. The worker is
// asked at once; when it does not answer within 2 s the channel is given up,
// which breaks its streams, and a new one is opened. It does not wait.
func (l *Lease) Suspect() { l.terms.Suspect() }

// Done is closed when the worker is gone for this session: its pod, its
// container, or the worker does not know the session. It is not closed when the
// channel breaks: the session's stream does, and it can be resumed. When the
// worker is gone the stream breaks at once; Done follows up to a few seconds
// later, when that is certain and the reason is known.
func (l *Lease) Done() <-chan struct{} { return l.terms.Gone }

// Cause says why Done is closed, in words for a person: ErrGone or ErrUnknown. It
// is nil before that.
func (l *Lease) Cause() error {
	select {
	case <-l.terms.Gone:
		return l.terms.Cause()
	default:
		return nil
	}
}

// Release ends the lease of a session whose exit is known. A warm worker's slot
// is free again; a Job ends by itself.
func (l *Lease) Release() {
	l.end("released")
	l.terms.Release()
}

// Leave ends the lease of a session that goes on without this stream: a later
// lease takes it, or the worker's grace ends it. A warm worker's slot stays taken
// until the worker says otherwise; a Job stays, and its deadline is moved for as
// long as its worker says that the session runs.
func (l *Lease) Leave() {
	l.end("left")
	l.terms.Leave()
}

// Destroy ends the lease of a session that is given up: it never started, or
// its end is not known. A warm worker's slot stays taken until the worker says
// that it is free; a Job is deleted.
func (l *Lease) Destroy() {
	l.end("destroyed")
	l.terms.Destroy()
}

func (l *Lease) end(how string) {
	if !l.ended.CompareAndSwap(nil, &how) {
		panic("lease of worker " + l.terms.Worker.Pod + " is " + how + ", but was already " + *l.ended.Load())
	}
}
