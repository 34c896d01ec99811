package supervisor

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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

	attaching sync.Mutex // one stream at a time takes the session over

	mu      sync.Mutex
	link    *session.Link // nil: nobody is attached
	epoch   uint64        // of the last stream
	signals uint64        // sequence of the last one delivered
	since   time.Time     // when the last stream left
	grace   *time.Timer   // runs while nobody is attached
	orphan  *time.Timer   // of the newest Orphan order
	ended   *wire.Frame   // Exit or Lost: all of both pipes was queued before it
	given   bool          // nobody will attach any more: over as soon as it has ended
	exit    *wire.Exit    // for Describe
}

// defaultGrace is how long a session is kept without a stream when its Start says
// nothing.
const defaultGrace = 5 * time.Minute

func newRun(s *wire.Start, p *process) *run {
	return &run{
		start: s, proc: p, begun: time.Now(), since: time.Now(),
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
	work.Go(func() { r.pump(r.stdout, r.proc.stdout, &r.cut[0]) })
	work.Go(func() { r.pump(r.stderr, r.proc.stderr, &r.cut[1]) })
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
	r.complete(exit, look.filesOf(r.start.Outputs), failed)
	<-r.over
	return failed
}

// attach makes link the session's stream, from the offsets of resume, or from the
// start. The stream before it ends first.
func (r *run) attach(link *session.Link, resume *wire.Resume) error {
	r.attaching.Lock()
	defer r.attaching.Unlock()
	r.mu.Lock()
	old := r.link
	r.link = nil
	r.mu.Unlock()
	if old != nil {
		old.Close()
		<-old.Stopped() // its handler returns now, and a Send with it
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.given {
		return errors.New("it was given up before")
	}
	r.hush()
	r.epoch++
	if resume == nil {
		link.Send(&wire.Frame{Kind: &wire.Frame_Started{Started: &wire.Started{Pid: int64(r.proc.pid), Epoch: r.epoch}}})
		r.stdin.Attach(link)
	} else {
		link.Send(&wire.Frame{Kind: &wire.Frame_Attached{Attached: &wire.Attached{Epoch: r.epoch, Stdin: r.stdin.Received(), Signals: r.signals}}})
		r.stdin.Attach(link)
	}
	err := errors.Join(r.stdout.Attach(link, resume.GetStdout()), r.stderr.Attach(link, resume.GetStderr()))
	if err != nil { // of a client that asks for what it has acknowledged
		r.left()
		return err
	}
	r.link = link
	r.tell()
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

// hush stops the timers that end a session to which nobody is attached. It must
// be called with the lock held.
func (r *run) hush() {
	for _, t := range []*time.Timer{r.grace, r.orphan} {
		if t != nil {
			t.Stop()
		}
	}
	r.grace, r.orphan = nil, nil
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
		grace = defaultGrace
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
	last := r.epoch
	r.orphan = time.AfterFunc(after, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.epoch != last || r.given {
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

// pump sends one output pipe to its end.
func (r *run) pump(out *session.Outbound, f *os.File, cut *atomic.Bool) {
	defer f.Close()
	_ = out.Pump(&outputPipe{f: f, exited: r.exited, cut: cut})
}

// feed writes stdin to the process. When the process does not read any more the
// far end is told, so that it keeps the rest of its caller's bytes.
func (r *run) feed() {
	if r.proc.stdin == nil {
		return
	}
	defer r.proc.stdin.Close()
	_ = r.stdin.Copy(r.proc.stdin)
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
	r.proc.signal(syscall.Signal(s.Number))
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
	done := &wire.Exit{
		Session: e.Session, Code: e.Code, Signal: e.Signal, Cause: e.Cause,
		UserUs: e.UserUs, SystemUs: e.SystemUs, MaxRssKib: e.MaxRssKib,
		StartedUnixMs: e.StartedUnixMs, EndedUnixMs: e.EndedUnixMs,
		Stdout: r.stdout.Offset(), Stderr: r.stderr.Offset(),
		StdoutCut: r.cut[0].Load(), StderrCut: r.cut[1].Load(), Files: files,
	}
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
		Epoch: r.epoch, Attached: r.link != nil && !r.given, Exit: r.exit,
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
}

func (p *outputPipe) Read(b []byte) (int, error) {
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
