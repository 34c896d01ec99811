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

// run is one session: the process, its pipes, and the stream it is attached to.
type run struct {
	start *wire.Start
	proc  *process
	begun time.Time

	stdin          *session.Inbound
	stdout, stderr *session.Outbound

	exited chan struct{} // the process was reaped, its slot is free
	told   chan struct{} // the exit was delivered, or nobody is there to take it
	cut    [2]atomic.Bool
	cause  atomic.Int32 // wire.Cause, the first order counts
	ending atomic.Bool  // the exit is on its way: it may be acknowledged

	mu       sync.Mutex
	attached bool
	exit     *wire.Exit
}

func newRun(s *wire.Start, p *process) *run {
	return &run{
		start: s, proc: p, begun: time.Now(), attached: true,
		stdin:  session.NewInbound(wire.Pipe_STDIN, 0),
		stdout: session.NewOutbound(wire.Pipe_STDOUT, 0),
		stderr: session.NewOutbound(wire.Pipe_STDERR, 0),
		exited: make(chan struct{}),
		told:   make(chan struct{}),
	}
}

// kill orders the end of the session; the first order gives the cause.
func (r *run) kill(sig syscall.Signal, cause wire.Cause) {
	r.cause.CompareAndSwap(int32(wire.Cause_CAUSE_UNSPECIFIED), int32(cause))
	r.proc.signalGroup(sig)
}

// terminate is TERM, then after grace KILL. It returns when the process is gone,
// or when the kernel does not let it go.
func (r *run) terminate(grace time.Duration, cause wire.Cause) {
	if grace > 0 {
		r.kill(syscall.SIGTERM, cause)
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-r.exited:
			return
		case <-timer.C:
		}
	}
	r.kill(syscall.SIGKILL, cause)
	select {
	case <-r.exited:
	case <-time.After(deliverBound):
	}
}

// serve speaks the protocol on link until the session ended on both sides.
// released is called once when the process group is gone: the slot is free. Its
// error means that nobody knows how the process ended: the session is lost.
func (r *run) serve(link *session.Link, children *forking, released func(*wire.Exit)) error {
	link.Send(&wire.Frame{Kind: &wire.Frame_Started{Started: &wire.Started{Pid: int64(r.proc.pid), Epoch: 1}}})
	_ = r.stdout.Attach(link, 0)
	_ = r.stderr.Attach(link, 0)
	r.stdin.Attach(link)

	var work sync.WaitGroup
	work.Go(func() { r.pump(r.stdout, r.proc.stdout, &r.cut[0]) })
	work.Go(func() { r.pump(r.stderr, r.proc.stderr, &r.cut[1]) })
	feeding := make(chan struct{})
	go func() { defer close(feeding); r.feed(link) }()

	acked, detached := make(chan struct{}), make(chan struct{})
	go r.receive(link, acked, detached)
	go func() {
		select {
		case <-detached:
		case <-link.Dead():
		case <-acked:
			return
		}
		// Nothing resumes yet: without its stream the session ends.
		r.kill(syscall.SIGKILL, wire.Cause_CAUSE_ORPHANED)
		r.stdout.Discard()
		r.stderr.Discard()
	}()

	status, usage, failed := r.proc.wait(children)
	exit := r.outcome(status, usage)
	released(exit)
	close(r.exited)
	r.proc.cutPipes()
	r.stdin.Discard()
	<-feeding
	work.Wait() // every byte is queued
	exit = r.complete(exit)
	if failed == nil {
		r.ending.Store(true)
		link.Send(&wire.Frame{Kind: &wire.Frame_Exit{Exit: exit}})
		select {
		case <-acked:
		case <-detached:
		case <-link.Dead():
		}
	}
	r.mu.Lock()
	r.attached = false
	r.mu.Unlock()
	return failed
}

// pump sends one output pipe to its end.
func (r *run) pump(out *session.Outbound, f *os.File, cut *atomic.Bool) {
	defer f.Close()
	_ = out.Pump(&outputPipe{f: f, exited: r.exited, cut: cut})
}

// feed writes stdin to the process. When the process does not read any more the
// far end is told, so that it keeps the rest of its caller's bytes.
func (r *run) feed(link *session.Link) {
	if r.proc.stdin == nil {
		return
	}
	defer r.proc.stdin.Close()
	if err := r.stdin.Copy(r.proc.stdin); err != nil && !errors.Is(err, session.ErrSinkGone) {
		link.Send(&wire.Frame{Kind: &wire.Frame_Close{Close: &wire.Close{Pipe: wire.Pipe_STDIN}}})
	}
}

// receive handles the client's frames until the stream ends.
func (r *run) receive(link *session.Link, acked, detached chan struct{}) {
	defer close(detached)
	for {
		f, err := link.Recv()
		if err == nil {
			err = r.handle(f)
		}
		if err != nil {
			return
		}
		if f.GetExitAck() != nil {
			if r.ending.Load() { // else it is a lie, and the stream counts as ended
				close(acked)
			}
			return
		}
	}
}

func (r *run) handle(f *wire.Frame) error {
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
		r.proc.signal(syscall.Signal(k.Signal.Number))
	}
	return nil
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

// complete adds what is known only after the last byte was read.
func (r *run) complete(e *wire.Exit) *wire.Exit {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := &wire.Exit{
		Session: e.Session, Code: e.Code, Signal: e.Signal, Cause: e.Cause,
		UserUs: e.UserUs, SystemUs: e.SystemUs, MaxRssKib: e.MaxRssKib,
		StartedUnixMs: e.StartedUnixMs, EndedUnixMs: e.EndedUnixMs,
		Stdout: r.stdout.Offset(), Stderr: r.stderr.Offset(),
		StdoutCut: r.cut[0].Load(), StderrCut: r.cut[1].Load(),
	}
	r.exit = done
	return done
}

func (r *run) state() *wire.SessionState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &wire.SessionState{Session: r.start.Session, Record: r.start.Record, Pid: int64(r.proc.pid), Epoch: 1, Attached: r.attached, Exit: r.exit}
	if r.exit != nil {
		s.Pid = 0
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
