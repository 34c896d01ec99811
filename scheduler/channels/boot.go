package channels

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// boot is one run of a worker's supervisor, over any number of channels. It is
// guarded by the keeper's mutex.
type boot struct {
	worker      lease.Worker
	template    string // lease.Template of its pod
	restarts    int32  // of the container when it was first spoken to, as far as was known
	slots       slots
	description *wire.Description
	asked       time.Time // for the description
	since       time.Time // of the first answer
	idle        time.Time // since when no session of it runs; zero: one does

	over  bool             // it has ended
	why   *lease.GoneError // set before ended is closed
	ended chan struct{}    // closed when why is known, soon after over
}

// tell takes the worker's word, asked for at the given time.
func (b *boot) tell(d *wire.Description, asked time.Time, unknown time.Duration) {
	if b.over || asked.Before(b.asked) {
		return
	}
	b.description, b.asked = d, asked
	now := time.Now()
	for _, h := range b.slots.tell(d, asked, now, unknown) {
		h.end(fmt.Errorf("session %s on worker %s: %w", h.session, b.worker.Pod, lease.ErrUnknown))
	}
	switch runs := (WorkerState{Description: d}).Runs(); {
	case runs:
		b.idle = time.Time{}
	case b.idle.IsZero():
		b.idle = now
	}
}

func (b *boot) end(why *lease.GoneError) {
	b.over, b.why = true, why
	b.slots.end(why)
	close(b.ended)
}

// conn is one verified channel to a boot.
type conn struct {
	channel   lease.Channel
	boot      *boot
	giveUp    context.CancelCauseFunc
	given     <-chan struct{} // closed by giveUp
	questions chan struct{}   // asks for a Describe at once
	silent    int             // questions in a row without an answer; guarded by the keeper's mutex
	suspected atomic.Bool     // it is being asked because of a suspicion
}

func (c *conn) ask() {
	select {
	case c.questions <- struct{}{}:
	default:
	}
}

// broken reports whether the channel is of no use, and about to be replaced.
func (c *conn) broken() bool {
	select {
	case <-c.given:
		return true
	case <-c.channel.Done():
		return true
	default:
		return false
	}
}
