package supervisor

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// sleeping is a session whose process waits to be killed, and which nobody has
// attached to.
func sleeping(t *testing.T) *run {
	t.Helper()
	f := newForking()
	r := newRun(&wire.Start{Session: t.Name(), Orders: true, GraceMs: 60_000}, fork(t, f, "sleep 60"), &slots{most: 1, held: 1})
	var look looker
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.live(f, &look, func() bool { return false }, func(*wire.Exit) {})
	}()
	t.Cleanup(func() {
		r.kill(syscall.SIGKILL, wire.Cause_CAUSE_SIGNAL)
		r.mu.Lock()
		r.giveUp()
		r.mu.Unlock()
		<-done
	})
	return r
}

func stream(t *testing.T) *session.Link {
	t.Helper()
	link := session.NewLink(&peer{ctx: t.Context(), sent: make(chan struct{})}, session.LinkOptions{})
	t.Cleanup(link.Close)
	return link
}

// The shim is gone while its process is being forked: the order comes before the
// stream that it is about is attached, and holds.
func TestAnOrderBeforeTheFirstStream(t *testing.T) {
	r := sleeping(t)
	r.orphaned(1, 50*time.Millisecond)
	if err := r.attach(stream(t), nil); err != nil {
		t.Fatal(err)
	}
	if !r.gone(5 * time.Second) {
		t.Fatal("the order was forgotten")
	}
}

// A shim that is quicker than its own Start keeps its stream, and an order about
// the first one is void.
func TestAResumeBeforeTheFirstStream(t *testing.T) {
	r := sleeping(t)
	r.orphaned(1, 50*time.Millisecond)
	link := stream(t)
	if err := r.attach(link, &wire.Resume{}); err != nil {
		t.Fatal(err)
	}
	if err := r.attach(stream(t), nil); !errors.Is(err, errOvertaken) {
		t.Errorf("the stream of Start: %v", err)
	}
	if r.gone(200 * time.Millisecond) {
		t.Error("the order about the older stream killed")
	}
	if s := r.state(); !s.Attached || s.Epoch != 2 || link.Err() != nil {
		t.Errorf("state %v, link %v", s, link.Err())
	}
}
