// Package store orders the queue, grants the right to ask a worker, and
// remembers recent sessions. It is not the last word on a worker's slots: that
// is the worker itself. A right only says which session may ask it.
//
// # Guarantees, for every implementation
//
//   - A session's id is stored once. A second Add of it is ErrDuplicate for as
//     long as the session is remembered.
//   - Every step is one guarded statement: it happens only if the session is in
//     the state and the attempt that its caller believes. A step that comes too
//     late is no error but the answer false, and changes nothing.
//   - A right is granted at most as often, at a time, as its Limit says.
//   - The queue is first in, first out within a priority; a session that returns
//     to the queue keeps its place.
//   - Time is the store's own: its clock orders the queue and stamps every step.
//     Only an adopted session brings times along; none is in the future.
//   - A session that runs is entered whatever its right's Limit says: the worker
//     is the last word. It counts from then on.
//
// storetest is the suite that holds an implementation to this.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrDuplicate is Add's answer to an id that is remembered already.
var ErrDuplicate = errors.New("session is known already")

// ErrFull is Add's answer when as many sessions wait as may.
var ErrFull = errors.New("queue is full")

// Store is implemented by Memory. All methods are safe for concurrent use, and
// the sessions they return are the caller's own copies.
type Store interface {
	// Add puts a new session into the queue. Its State, Attempt and times are
	// set by the store. Errors: ErrDuplicate, ErrFull, or that of the store.
	Add(ctx context.Context, s Session) error
	// Adopt enters a session that runs on a worker already, by the worker's word:
	// what this store did not know is entered as running, with its Right, asked
	// for at Times.Queued. One that is leased, starting or running here stays as it
	// is. Both are returned with true, and Move goes on from there. False: the
	// session waits here or is over, and is returned as it is.
	Adopt(ctx context.Context, s Session) (Session, bool, error)
	// Queue returns the sessions that wait, next first.
	Queue(ctx context.Context) ([]Session, error)
	// Move does one step and returns the session after it. False: the guard did
	// not hold, nothing changed.
	Move(ctx context.Context, m Move) (Session, bool, error)
	// Note says why a session waits. It does nothing once the session does not
	// wait any more.
	Note(ctx context.Context, id, reason string) error
	// Get returns one remembered session. False: it is not known.
	Get(ctx context.Context, id string) (Session, bool, error)
	// Recent returns at most n sessions, the newest first, whatever their state.
	Recent(ctx context.Context, n int) ([]Session, error)
}

// Session is what is remembered of one session: never its argv, env or bytes.
type Session struct {
	ID     string
	Caller Caller
	// Kind, Class, Policy and the wish for hardware are what was asked for.
	Kind      string
	WantClass string
	Policy    string
	Hardware  []string
	Build     string
	// Priority orders the queue before time does, higher first. It follows from the
	// kind: placement.Priority.
	Priority int

	State State
	// Attempt counts the rights the session has had. It guards the steps of one
	// attempt against those of another.
	Attempt int
	// Where it has its right. Set from leased on, kept to the end.
	Right     Right
	Placement string // warm | standby | job | transcript
	Reason    string // of the placement, or why it waits, in words
	// Translated says for what its command line was rewritten, and which options
	// changed: no values. Empty: it was not. Set from starting on.
	Translated string

	// Outcome is set in the final states.
	Outcome Outcome
	Times   Times
}

// Caller is the authenticated owner of a session.
type Caller struct {
	Namespace, ServiceAccount string
	Pod, PodUID               string // the pod that the token is bound to
}

func (c Caller) String() string {
	return fmt.Sprintf("%s/%s (pod %s)", c.Namespace, c.ServiceAccount, c.Pod)
}

// Right is the right to ask one worker, or to make one Job of a class.
type Right struct {
	Class string
	// Worker is pod and boot nonce of a warm worker, "" for a Job.
	Worker string
	Pod    string
	Node   string
	// Limit is the most sessions that may hold this right at a time. 0: no
	// bound by the store.
	Limit int
}

// same tells whether two rights are to the same thing.
func (r Right) same(o Right) bool { return r.Class == o.Class && r.Worker == o.Worker }

// Outcome is how a session ended.
type Outcome struct {
	Code, Signal int32
	Cause        string // words
}

// Times are when the session came into each state; zero: it did not. A state
// that was entered twice has its last time.
type Times struct {
	Queued, Leased, Starting, Running, Final time.Time
}

// Move is one step, with its guard.
type Move struct {
	ID      string
	Attempt int // must be the session's
	From    State
	To      State
	// Right is taken by the step from queued to leased; the guard includes its
	// Limit. On the step from leased to starting it replaces what was not known
	// before: the pod and node of a Job.
	Right     *Right
	Placement string // kept when empty
	Reason    string // kept when empty
	// Translated is taken by the step to starting.
	Translated string
	Outcome    Outcome // for the final states
}

// Check tells whether the step exists at all: a Move that fails it is a fault
// of the program, not of time.
func (m Move) Check() error {
	if !m.From.May(m.To) {
		return fmt.Errorf("move session %s: there is no step from %s to %s", m.ID, m.From, m.To)
	}
	if m.To == Leased && m.Right == nil {
		return fmt.Errorf("move session %s: a lease without a right", m.ID)
	}
	return nil
}
