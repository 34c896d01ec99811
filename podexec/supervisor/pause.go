package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ffpod/ffpod/podexec/wire"
)

const (
	// pauseBound is how long a pause lasts whose order is not repeated: whoever gave
	// it may be dead.
	pauseBound = time.Minute
	// pauseRetry is the time between looks for a free slot, once it is over.
	pauseRetry = 100 * time.Millisecond
)

// pause is a session's stop by Pause, and its slot: a paused session holds none.
//
//	         SIGSTOP, slot given          slot taken, SIGCONT
//	running ────────────────────▶ paused ─────────────────────▶ running
//	                                │  Continue: when a slot is free
//	                                │  the lease is over: claims the next free slot
//	                                └─ stdin, Signal, Kill, end: at once, free or not
//
// Its lock may be taken with the run's held, not the other way round.
type pause struct {
	slots *slots

	mu      sync.Mutex
	stopped bool
	claimed bool        // it waits for a slot, see slots.claim
	lease   *time.Timer // of the order
	writing int         // writes to its stdin in progress
	told    bool        // it was sent a signal, which it has to answer
	halted  bool        // its caller has stopped it
	left    bool        // its process group is gone, and its slot given
}

// refusesPause says why a session must not be stopped now. It must be called with
// the pause's lock held.
func (r *run) refusesPause() error {
	switch {
	case r.pause.left:
		return errors.New("it has ended")
	case r.cause.Load() != int32(wire.Cause_CAUSE_UNSPECIFIED), r.pause.told:
		return errors.New("it has been told to end")
	case r.pause.halted:
		return errors.New("its caller has stopped it")
	case r.pause.writing > 0, r.stdin.Pending():
		return errors.New("its caller writes to its stdin")
	}
	return nil
}

// stop pauses the session for most, or for longer if it is paused already.
func (r *run) stop(most time.Duration) error {
	p := &r.pause
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		p.renew(r, most)
		return nil
	}
	if err := r.refusesPause(); err != nil {
		return err
	}
	r.proc.signalGroup(syscall.SIGSTOP)
	if unread(r.proc.stdin) { // the byte came before the pause
		r.proc.signalGroup(syscall.SIGCONT)
		return errors.New("it has not read its stdin yet")
	}
	p.stopped = true
	p.slots.give()
	p.renew(r, most)
	return nil
}

// renew must be called with the lock held.
func (p *pause) renew(r *run, most time.Duration) {
	if p.lease != nil {
		p.lease.Stop()
	}
	if p.claimed {
		p.claimed = false
		p.slots.unclaim()
	}
	p.lease = time.AfterFunc(most, r.expirePause)
}

// goOn continues the session if a slot is free.
func (r *run) goOn() bool {
	p := &r.pause
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		return true
	}
	take := p.slots.take
	if p.claimed {
		take = p.slots.takeClaimed
	}
	if !take() {
		return false
	}
	p.claimed = false
	p.end(r)
	return true
}

// expirePause continues a session whose lease is over, before any that comes new.
func (r *run) expirePause() {
	p := &r.pause
	p.mu.Lock()
	if p.stopped && !p.claimed {
		p.claimed = true
		p.slots.claim()
	}
	p.mu.Unlock()
	if r.goOn() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped && p.claimed {
		p.lease = time.AfterFunc(pauseRetry, r.expirePause)
	}
}

// wake continues a paused session at once, since it has to answer somebody. It holds
// a slot again, also if none is free: none is given before two are.
func (r *run) wake() {
	r.pause.mu.Lock()
	defer r.pause.mu.Unlock()
	r.pause.awake(r)
}

// awake must be called with the lock held.
func (p *pause) awake(r *run) {
	if p.stopped {
		p.slots.force()
		p.end(r)
	}
}

// end must be called with the lock held, after a slot was taken.
func (p *pause) end(r *run) {
	p.stopped = false
	p.quiet()
	r.proc.signalGroup(syscall.SIGCONT)
}

func (p *pause) quiet() {
	if p.lease != nil {
		p.lease.Stop()
		p.lease = nil
	}
	if p.claimed {
		p.claimed = false
		p.slots.unclaim()
	}
}

// deliver sends a caller's signal to the process, which is awake for it.
func (r *run) deliver(sig syscall.Signal) {
	p := &r.pause
	p.mu.Lock()
	defer p.mu.Unlock()
	p.awake(r)
	switch sig {
	case syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU:
		p.halted = true
	case syscall.SIGCONT:
		p.halted = false
	default:
		p.told = true
	}
	r.proc.signal(sig)
}

// leave gives the session's slot back, once.
func (r *run) leave() {
	p := &r.pause
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = true
	p.quiet()
	if !p.stopped {
		p.slots.give()
	}
	p.stopped = false
}

func (r *run) paused() bool {
	r.pause.mu.Lock()
	defer r.pause.mu.Unlock()
	return r.pause.stopped
}

// stdinPipe writes to a process that is awake.
type stdinPipe struct{ r *run }

func (s stdinPipe) Write(b []byte) (int, error) {
	p := &s.r.pause
	p.mu.Lock()
	p.awake(s.r)
	p.writing++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.writing--
		p.mu.Unlock()
	}()
	return s.r.proc.stdin.Write(b)
}

// unread tells whether a pipe holds bytes that its reader has not taken.
func unread(f *os.File) bool {
	if f == nil {
		return false
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var n int
	_ = raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return err == nil && n > 0
}

// ordered is the session that a Pause or Continue is about; nil: none runs. The
// error says in words why the order is void. One that never came is not barred: the
// order is about a stream that somebody has seen.
func (s *Supervisor) ordered(id string, epoch uint64) (*run, error) {
	s.mu.Lock()
	r := s.running[id]
	s.mu.Unlock()
	if r == nil {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch != 0 && epoch < r.epoch {
		return r, fmt.Errorf("the order is about stream %d, and stream %d has come since", epoch, r.epoch)
	}
	return r, nil
}

// Pause stops a session until Continue, the end of its lease, or whatever it has to
// answer. It implements wire.SupervisorServer.
func (s *Supervisor) Pause(_ context.Context, q *wire.PauseRequest) (*wire.PauseResponse, error) {
	r, err := s.ordered(q.Session, q.Epoch)
	switch {
	case r == nil:
		return &wire.PauseResponse{Reason: fmt.Sprintf("session %s does not run on worker %s", q.Session, s.conf.Pod)}, nil
	case err == nil && s.conf.Once:
		err = errors.New("this worker serves one session only")
	}
	most := pauseBound
	if q.MostMs > 0 {
		most = time.Duration(q.MostMs) * time.Millisecond
	}
	if err == nil {
		err = r.stop(most)
	}
	if err != nil {
		return &wire.PauseResponse{Known: true, Reason: fmt.Sprintf("session %s is not paused: %s", q.Session, err)}, nil
	}
	s.conf.Log.Info("session paused", zap.String("session", q.Session), zap.Duration("most", most))
	return &wire.PauseResponse{Known: true, Done: true}, nil
}

// Continue lets a paused session go on if a slot is free. It implements
// wire.SupervisorServer.
func (s *Supervisor) Continue(_ context.Context, q *wire.ContinueRequest) (*wire.ContinueResponse, error) {
	r, err := s.ordered(q.Session, q.Epoch)
	switch {
	case r == nil:
		return &wire.ContinueResponse{Reason: fmt.Sprintf("session %s does not run on worker %s", q.Session, s.conf.Pod)}, nil
	case err == nil && !r.goOn():
		err = fmt.Errorf("worker %s has all %d slots in use", s.conf.Pod, s.conf.Slots)
	}
	if err != nil {
		return &wire.ContinueResponse{Known: true, Reason: fmt.Sprintf("session %s stays as it is: %s", q.Session, err)}, nil
	}
	return &wire.ContinueResponse{Known: true, Done: true}, nil
}
