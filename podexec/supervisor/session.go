package supervisor

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/prove"
	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// idleCut is how long a pipe may be idle after its process is gone, while
// something outside the process group still holds it.
const idleCut = 2 * time.Second

// run is one session: the process, its pipes, and the stream that is attached to
// it. One goroutine, live, sees it from the fork to its end; streams come and go.
type run struct {
	start *wire.Start
	proc  *process
	begun time.Time

	stdin          *session.Inbound
	stdout, stderr *session.Outbound

	exited chan struct{} // the process was reaped, its slot is free
	over   chan struct{} // the exit was acknowledged, or nobody will ask for it any more
	cut    [2]atomic.Bool
	cause  atomic.Int32 // wire.Cause, the first order counts
	killed atomic.Int64 // when SIGKILL was sent first, Unix nanoseconds

	pause    pause
	tail     tail         // of stderr
	troubled func(string) // is told of a device error in it

	attaching sync.Mutex // one stream at a time takes the session over

	mu        sync.Mutex
	link      *session.Link // nil: nobody is attached
	epoch     uint64        // of the last stream
	signals   uint64        // sequence of the last one delivered
	since     time.Time     // when the last stream left
	grace     *time.Timer   // runs while nobody is attached
	orphan    *time.Timer   // of the newest Orphan order, about stream
	orphaning uint64
	ended     *wire.Frame // Exit or Lost: all of both pipes was queued before it
	given     bool        // nobody will attach any more: over as soon as it has ended
	exit      *wire.Exit  // for Describe
}

// newRun is a session that holds one of the slots.
func newRun(s *wire.Start, p *process, free *slots) *run {
	return &run{
		start: s, proc: p, pause: pause{slots: free}, troubled: func(string) {}, begun: time.Now(), since: time.Now(),
		stdin:  session.NewInbound(wire.Pipe_STDIN, 0),
		stdout: session.NewOutbound(wire.Pipe_STDOUT, 0),
		stderr: session.NewOutbound(wire.Pipe_STDERR, 0),
		exited: make(chan struct{}),
		over:   make(chan struct{}),
	}
}

// kill orders the end of the session; the first order gives the cause.
func (r *run) kill(sig syscall.Signal, cause wire.Cause) {
	r.cause.CompareAndSwap(int32(wire.Cause_CAUSE_UNSPECIFIED), int32(cause))
	if sig == syscall.SIGKILL {
		r.killed.CompareAndSwap(0, time.Now().UnixNano())
	}
	r.wake()
	r.proc.signalGroup(sig)
}

// terminate is TERM, then after grace KILL. It returns true when the process is
// gone, false when the kernel does not let it go.
func (r *run) terminate(grace time.Duration, cause wire.Cause) bool {
	if grace > 0 {
		r.kill(syscall.SIGTERM, cause)
		if r.gone(grace) {
			return true
		}
	}
	r.kill(syscall.SIGKILL, cause)
	return r.gone(deliverBound)
}

func (r *run) gone(within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-r.exited:
		return true
	case <-timer.C:
		return false
	}
}

// live sees the session from its start to its end. released is called once when
// the process group is gone, and what left it: the slot is free. Its error means
// that nobody knows how the process ended: the session is lost.
func (r *run) live(children *forking, look *looker, starved func() bool, released func(*wire.Exit)) error {
	var work sync.WaitGroup
	work.Go(func() { r.pump(r.stdout, r.proc.stdout, &r.cut[0], nil) })
	work.Go(func() { r.pump(r.stderr, r.proc.stderr, &r.cut[1], &r.tail) })
	work.Go(r.feed)

	status, usage, failed := r.proc.wait(children)
	children.killStrays(r.start.Session)
	if starved() && status.Signaled() && status.Signal() == syscall.SIGKILL && r.killed.Load() == 0 {
		r.cause.CompareAndSwap(int32(wire.Cause_CAUSE_UNSPECIFIED), int32(wire.Cause_CAUSE_MEMORY))
	}
	exit := r.outcome(status, usage)
	released(exit)
	close(r.exited)
	r.proc.cutPipes()
	r.stdin.Discard()
	work.Wait() // every byte is queued
	if exit.Code != 0 || exit.Signal != 0 {
		if words := prove.DeviceError(r.tail.String()); words != "" {
			r.troubled(words)
		}
	}
	r.complete(exit, look.filesOf(r.start.Outputs), failed)
	<-r.over
	return failed
}

// pump sends one output pipe to its end.
func (r *run) pump(out *session.Outbound, f *os.File, cut *atomic.Bool, seen *tail) {
	defer f.Close()
	_ = out.Pump(&outputPipe{f: f, exited: r.exited, cut: cut, seen: seen})
}

// feed writes stdin to the process. When the process does not read any more the
// far end is told, so that it keeps the rest of its caller's bytes.
func (r *run) feed() {
	if r.proc.stdin == nil {
		return
	}
	defer r.proc.stdin.Close()
	_ = r.stdin.Copy(stdinPipe{r})
}

func (r *run) outcome(status syscall.WaitStatus, usage syscall.Rusage) *wire.Exit {
	e := &wire.Exit{
		Session:       r.start.Session,
		Cause:         wire.Cause(r.cause.Load()),
		UserUs:        usage.Utime.Nano() / 1e3,
		SystemUs:      usage.Stime.Nano() / 1e3,
		MaxRssKib:     usage.Maxrss,
		StartedUnixMs: r.begun.UnixMilli(),
		EndedUnixMs:   time.Now().UnixMilli(),
	}
	if status.Signaled() {
		e.Signal = int32(status.Signal())
	} else {
		e.Code = int32(status.ExitStatus())
	}
	r.mu.Lock()
	r.exit = e
	r.mu.Unlock()
	return e
}

// complete adds what is known only after the last byte was read, and tells it.
func (r *run) complete(e *wire.Exit, files []*wire.File, failed error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := proto.CloneOf(e) // e may be on its way in an answer to Describe
	done.Stdout, done.Stderr = r.stdout.Offset(), r.stderr.Offset()
	done.StdoutCut, done.StderrCut, done.Files = r.cut[0].Load(), r.cut[1].Load(), files
	r.exit, r.ended = done, &wire.Frame{Kind: &wire.Frame_Exit{Exit: done}}
	if failed != nil {
		r.ended = &wire.Frame{Kind: &wire.Frame_Lost{Lost: &wire.Lost{Message: failed.Error()}}}
	}
	if r.given {
		close(r.over)
		return
	}
	r.tell()
}

// stuckAfter is how long a killed process may take to die before it counts as
// stuck in the kernel: its slot and its outputs stay taken.
const stuckAfter = 10 * time.Second

func (r *run) state() *wire.SessionState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &wire.SessionState{
		Session: r.start.Session, Record: r.start.Record, Pid: int64(r.proc.pid),
		Epoch: r.epoch, Attached: r.link != nil && !r.given, Exit: r.exit, Paused: r.paused(),
	}
	if r.exit != nil {
		s.Pid = 0
	} else if at := r.killed.Load(); at != 0 {
		s.Stuck = time.Since(time.Unix(0, at)) > stuckAfter
	}
	if r.link == nil {
		s.UnattachedMs = time.Since(r.since).Milliseconds()
	}
	return s
}

// outputPipe reads our end of an output pipe. Once the process is gone, a pipe
// that stays idle is cut: its holder is none of ours.
type outputPipe struct {
	f      *os.File
	exited <-chan struct{}
	cut    *atomic.Bool
	seen   *tail // nil: nobody looks at it
}

func (p *outputPipe) Read(b []byte) (int, error) {
	n, err := p.read(b)
	p.seen.add(b[:n])
	return n, err
}

func (p *outputPipe) read(b []byte) (int, error) {
	for last := false; ; last = true {
		select {
		case <-p.exited:
			_ = p.f.SetReadDeadline(time.Now().Add(idleCut))
		default:
		}
		n, err := p.f.Read(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && !last:
			continue // it was set for a read that began before the process was gone
		case errors.Is(err, os.ErrDeadlineExceeded):
			return p.rest(b)
		case errors.Is(err, os.ErrClosed):
			return n, io.EOF
		}
		return n, err
	}
}

// rest looks whether the pipe is idle or only this program was held up.
func (p *outputPipe) rest(b []byte) (n int, err error) {
	raw, err := p.f.SyscallConn()
	if err != nil {
		return 0, io.EOF // closed
	}
	failed := raw.Control(func(fd uintptr) { n, err = syscall.Read(int(fd), b) })
	switch {
	case failed != nil || err == nil && n == 0:
		return 0, io.EOF
	case err != nil:
		p.cut.Store(true)
		return 0, io.EOF
	}
	return n, nil
}

// cutPipes wakes the reads and writes that began before the process was gone.
func (p *process) cutPipes() {
	_ = p.stdout.SetReadDeadline(time.Now())
	_ = p.stderr.SetReadDeadline(time.Now())
	if p.stdin != nil {
		_ = p.stdin.SetWriteDeadline(time.Now())
	}
}
