package session

import (
	"math/rand/v2"
	"time"
)

const (
	leastRedial = 50 * time.Millisecond
	mostRedial  = time.Second
)

const (
	// DefaultGrace is how long a worker keeps a session without a stream when
	// nothing else was said.
	DefaultGrace = 5 * time.Minute
	// AfterGrace is how much longer than its grace a session's worker may be busy
	// with it: it may have noticed the end of the stream 20 s later than the other
	// end, and asks the process to stop before it kills.
	AfterGrace = 40 * time.Second
)

// outage is the time in which a session has no stream. The first try to get one
// is made at once, later ones after pauses of random length, since all sessions
// of a scheduler lose it in the same moment.
type outage struct {
	timer *time.Timer   // nil: there is none
	over  chan struct{} // closed when it has lasted too long
	tries int
}

// begin returns false when the outage has begun before.
func (o *outage) begin(bound time.Duration) bool {
	if o.timer != nil {
		return false
	}
	over := make(chan struct{})
	o.timer, o.over, o.tries = time.AfterFunc(bound, func() { close(over) }), over, 0
	return true
}

// end returns false when there was none.
func (o *outage) end() bool {
	if o.timer == nil {
		return false
	}
	o.timer.Stop()
	o.timer, o.over = nil, nil
	return true
}

// late is closed when the outage has lasted too long, and nil outside one.
func (o *outage) late() <-chan struct{} { return o.over }

// next is the pause before the next try.
func (o *outage) next() time.Duration {
	o.tries++
	if o.tries == 1 {
		return 0
	}
	return rand.N(min(leastRedial<<min(o.tries, 10), mostRedial)) + time.Millisecond
}
