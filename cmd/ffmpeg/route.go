package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/cmd/ffmpeg/decision"
	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// route opens the streams of a session, each over a connection of its own: the one
// before may be dead without a sign, and address, CA and token are read from their
// files anew, since a scheduler that restarted may have others.
type route struct {
	settings decision.Settings
	link     *link // the present connection; nil before the first
	former   *link // kept until the present one carries the session: its end may be taken for this process's
}

func (r *route) open(ctx context.Context) (session.Stream, error) {
	next, bad := dial(r.settings)
	if bad != nil {
		return nil, &unroutable{bad}
	}
	if r.former == nil {
		r.former = r.link
	} else {
		r.link.conn.Close() // it never carried the session
	}
	r.link = next
	return wire.NewRunnerClient(next.conn).Run(ctx)
}

// carried says that the present connection carries the session.
func (r *route) carried() {
	if r.former != nil {
		r.former.conn.Close()
		r.former = nil
	}
}

func (r *route) close() {
	r.carried()
	if r.link != nil {
		r.link.conn.Close()
	}
}

func (r *route) address() string {
	if r.link == nil {
		return ""
	}
	return r.link.address
}

// unroutable is why no connection can be tried: a setting or a file.
type unroutable struct{ failure *failure }

func (e *unroutable) Error() string { return e.failure.what + ": " + e.failure.why }

// whyNot words the end of a stream on which nothing was started. passing tells
// whether a restart of the scheduler may be all that is behind it.
func (r *route) whyNot(ctx context.Context, err error) (why *failure, passing bool) {
	if bad, ok := errors.AsType[*unroutable](err); ok {
		return bad.failure, false
	}
	address := r.address()
	if cause := context.Cause(ctx); cause != nil {
		return &failure{what: "scheduler " + address, why: cause.Error(), remedy: "scale the class up or raise FFPOD_WAIT"}, false
	}
	if f := r.link.broken.failure(address); f != nil {
		return f, r.link.broken.unreachable()
	}
	st, _ := status.FromError(err)
	switch st.Code() {
	case codes.Unauthenticated:
		return &failure{
			what: "scheduler " + address + " refused the token", why: st.Message(),
			remedy: "check the token's audience (ffpod), its ServiceAccount and FFPOD_TOKEN_FILE",
		}, false
	case codes.PermissionDenied:
		return &failure{
			what: "scheduler " + address + " refused the caller", why: st.Message(),
			remedy: "allow its ServiceAccount in the scheduler's configuration",
		}, false
	case codes.Unimplemented:
		return &failure{what: address + " is no ffpod scheduler", why: st.Message(), remedy: "correct FFPOD_ADDRESS"}, false
	case codes.OK, codes.Unknown: // it hung up, or a peer was silent
		return &failure{what: "scheduler " + address + " ended the session before it began", why: err.Error(), remedy: remedyPod}, true
	}
	return &failure{what: "scheduler " + address + " ended the session before it began", why: st.Message(), remedy: remedyPod}, st.Code() == codes.Unavailable
}

// How long a command asks again for a scheduler that does not answer. One that was
// never heard of may not exist: whoever can run the command here waits for as much
// as a new pod's Service takes. One that has answered comes back.
const (
	patienceUnheard = 3 * time.Second
	patienceHeard   = 45 * time.Second
	leastRetry      = 100 * time.Millisecond
	mostRetry       = time.Second
)

// patience paces the tries of a command that has not started.
type patience struct {
	begun time.Time
	pause time.Duration
}

func newPatience() *patience { return &patience{begun: time.Now(), pause: leastRetry} }

// wait pauses before the next try; false: there is none. heard is when a scheduler
// was last there, zero: it never was.
func (p *patience) wait(ctx context.Context, heard time.Time) bool {
	since, most := p.begun, patienceUnheard
	if !heard.IsZero() {
		since, most = heard, patienceHeard
	}
	if time.Since(since)+p.pause > most {
		return false
	}
	timer := time.NewTimer(p.pause/2 + rand.N(p.pause))
	defer timer.Stop()
	p.pause = min(2*p.pause, mostRetry)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// left is what remains of the caller's bound, in milliseconds; 0: there is none.
func (p *patience) left(bound time.Duration) uint32 {
	if bound == 0 {
		return 0
	}
	return uint32(max(bound-time.Since(p.begun), time.Millisecond).Milliseconds())
}
