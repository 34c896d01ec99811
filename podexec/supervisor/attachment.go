package supervisor

import (
	"errors"
	"syscall"
	"time"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// errOvertaken is a stream that came late: its client is at a later one already, and
// the session goes on there.
var errOvertaken = errors.New("a later stream of the same client has the session")

// attach makes link the session's stream, from the offsets of resume, or from the
// start. The stream before it ends first, unless this one is the older.
func (r *run) attach(link *session.Link, resume *wire.Resume) error {
	r.attaching.Lock()
	defer r.attaching.Unlock()
	r.mu.Lock()
	if err := r.accepts(resume); err != nil {
		r.mu.Unlock()
		return err
	}
	old := r.link
	r.link = nil
	r.mu.Unlock()
	if old != nil {
		old.Close()
		<-old.Stopped() // its handler returns now, and a Send with it
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.accepts(resume); err != nil { // meanwhile it was given up, or the older one acknowledged more
		if old != nil && !r.given {
			r.left()
		}
		return err
	}
	if resume != nil {
		r.epoch = max(r.epoch, 1) // that of Start is the first, also when it comes later
	}
	r.epoch++
	r.hush()
	if resume == nil {
		link.Send(&wire.Frame{Kind: &wire.Frame_Started{Started: &wire.Started{Pid: int64(r.proc.pid), Epoch: r.epoch}}})
		r.stdin.Attach(link)
	} else {
		link.Send(&wire.Frame{Kind: &wire.Frame_Attached{Attached: &wire.Attached{Epoch: r.epoch, Stdin: r.stdin.Received(), Signals: r.signals}}})
		r.stdin.Attach(link)
	}
	err := errors.Join(r.stdout.Attach(link, resume.GetStdout()), r.stderr.Attach(link, resume.GetStderr()))
	if err != nil { // of a client that asks for what was never sent
		r.left()
		return err
	}
	r.link = link
	r.tell()
	return nil
}

// accepts tells why a stream cannot be the session's. Who asks for bytes that were
// acknowledged has been given a stream since. It must be called with the lock held.
func (r *run) accepts(resume *wire.Resume) error {
	switch {
	case r.given:
		return errors.New("it was given up before")
	case resume == nil && r.epoch > 0, resume != nil && (r.stdout.Freed(resume.Stdout) || r.stderr.Freed(resume.Stderr)):
		return errOvertaken
	}
	return nil
}

// tell sends the end to whoever is attached. Nobody acknowledges that a session is
// lost. It must be called with the lock held.
func (r *run) tell() {
	if r.ended == nil || r.link == nil {
		return
	}
	r.link.Send(r.ended)
	if r.ended.GetLost() != nil {
		r.giveUp()
	}
}

// hush stops the timers that end a session to which nobody is attached, but not an
// order about the very stream that is being attached: it came first. It must be
// called with the lock held.
func (r *run) hush() {
	if r.grace != nil {
		r.grace.Stop()
		r.grace = nil
	}
	if r.orphan != nil && (r.given || r.orphaning < r.epoch) {
		r.orphan.Stop()
		r.orphan = nil
	}
}

// detach is the end of a stream. A session that somebody looks after is kept for
// its grace; one of a scheduler that knows nothing of orders ends with its stream.
func (r *run) detach(link *session.Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link != link {
		return // another has taken over
	}
	r.link = nil
	if !r.given {
		r.left()
	}
}

// left must be called with the lock held.
func (r *run) left() {
	r.since = time.Now()
	if !r.start.Orders {
		r.kill(syscall.SIGKILL, wire.Cause_CAUSE_ORPHANED)
		r.giveUp()
		return
	}
	grace := time.Duration(r.start.GraceMs) * time.Millisecond
	if grace == 0 {
		grace = session.DefaultGrace
	}
	epoch := r.epoch
	r.grace = time.AfterFunc(grace, func() { r.expire(epoch) })
}

// giveUp forgets the outputs and the exit. It must be called with the lock held.
func (r *run) giveUp() {
	if r.given {
		return
	}
	r.given = true
	r.hush()
	r.stdout.Discard()
	r.stderr.Discard()
	if r.ended != nil {
		close(r.over)
	}
}

// Bounds of the end of a session whose grace is over.
const (
	quitBound = 2 * time.Second // for ffmpeg to take a q and write its trailer
	termBound = 5 * time.Second
)

// expire ends a session to which nobody came back: q, TERM, KILL. Whoever attaches
// while it ends gets its exit.
func (r *run) expire(epoch uint64) {
	if !r.unattached(epoch) {
		return
	}
	r.cause.CompareAndSwap(int32(wire.Cause_CAUSE_UNSPECIFIED), int32(wire.Cause_CAUSE_ORPHANED))
	if !r.quit() || !r.gone(quitBound) {
		r.terminate(termBound, wire.Cause_CAUSE_ORPHANED)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == nil && r.epoch == epoch {
		r.giveUp()
	}
}

// quit asks ffmpeg to stop as a person would. It returns false when it cannot: no
// stdin, or a process that does not read it.
func (r *run) quit() bool {
	f := r.proc.stdin
	if f == nil || r.stdin.Pending() {
		return false
	}
	r.wake()
	_ = f.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, err := f.WriteString("q")
	return err == nil
}

func (r *run) unattached(epoch uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link == nil && r.epoch == epoch && !r.given
}

// orphaned is an order: unless a newer stream attaches within after, the session
// is killed and forgotten. It does not wait.
func (r *run) orphaned(epoch uint64, after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch != 0 && epoch < r.epoch || r.given {
		return
	}
	if r.orphan != nil {
		r.orphan.Stop()
	}
	last := max(r.epoch, 1) // the first stream is attached a moment after the fork
	r.orphaning = last
	r.orphan = time.AfterFunc(after, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.epoch > last || r.given {
			return
		}
		r.kill(syscall.SIGKILL, wire.Cause_CAUSE_ORPHANED)
		if link := r.link; link != nil { // of the shim that is gone: the scheduler says so
			r.link = nil
			link.Close()
		}
		r.since = time.Now()
		r.giveUp()
	})
}

// follow handles the frames of an attached stream and returns when that has ended,
// another has taken its place, or the session is over.
func (r *run) follow(link *session.Link) {
	defer r.detach(link)
	ended := make(chan struct{})
	go func() { // ends at the latest with the stream, whose handler calls this
		defer close(ended)
		r.receive(link)
	}()
	select {
	case <-ended:
	case <-link.Dead():
	case <-r.over:
	}
}

// receive handles the client's frames until the stream ends.
func (r *run) receive(link *session.Link) {
	for {
		f, err := link.Recv()
		if err == nil && f.GetExitAck() != nil {
			r.acknowledged(link)
			return
		}
		if err == nil {
			err = r.handle(link, f)
		}
		if err != nil {
			return
		}
	}
}

// acknowledged ends the session. An acknowledgement of what was not sent is a lie,
// and the stream counts as ended.
func (r *run) acknowledged(link *session.Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == link && r.ended.GetExit() != nil {
		r.giveUp()
	}
}

func (r *run) handle(link *session.Link, f *wire.Frame) error {
	switch k := f.Kind.(type) {
	case *wire.Frame_Data:
		return r.stdin.Accept(k.Data)
	case *wire.Frame_Ack:
		switch k.Ack.Pipe {
		case wire.Pipe_STDOUT:
			return r.stdout.Ack(k.Ack.Offset)
		case wire.Pipe_STDERR:
			return r.stderr.Ack(k.Ack.Offset)
		}
	case *wire.Frame_Close:
		r.closeOutput(k.Close.Pipe)
	case *wire.Frame_Signal:
		r.signal(link, k.Signal)
	}
	return nil
}

// signal delivers each numbered signal once, whichever stream brings it.
func (r *run) signal(link *session.Link, s *wire.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link != link || s.Sequence != 0 && s.Sequence <= r.signals {
		return
	}
	r.signals = max(r.signals, s.Sequence)
	r.deliver(syscall.Signal(s.Number))
}

// closeOutput closes our end, so that the process gets EPIPE at its next write.
func (r *run) closeOutput(pipe wire.Pipe) {
	switch pipe {
	case wire.Pipe_STDOUT:
		r.stdout.Discard()
		r.proc.stdout.Close()
	case wire.Pipe_STDERR:
		r.stderr.Discard()
		r.proc.stderr.Close()
	}
}
