package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// forwarded are the signals that reach the program on the worker. What the
// caller had ignored for it (nohup) stays ignored. TSTP, TTIN and TTOU keep
// stopping the shim, and the rings then stop the program; a shim that is stopped
// for longer than the bound on silence (20 s) counts as dead. ABRT is what watchdogs
// send, and Go would answer it with a traceback; XCPU stops ffmpeg as TERM does.
var forwarded = [...]syscall.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH, syscall.SIGCONT,
	syscall.SIGABRT, syscall.SIGXCPU,
}

var errSignalled = errors.New("the caller sent a signal")

// signals takes the caller's signals: before the program started one that
// would end it ends the session, later all are forwarded, and once it has ended,
// while a slow reader still takes its last bytes, they end the shim. It owns one
// goroutine; stop ends it and waits.
type signals struct {
	raw     chan os.Signal
	forward chan syscall.Signal // for session.Client
	cancel  context.CancelCauseFunc
	quit    chan struct{}
	done    sync.WaitGroup

	mu      sync.Mutex
	started bool
	ended   bool
	given   error          // the caller wanted to stop when the program was about to start
	fatal   syscall.Signal // the first that ended the session before its start
}

func watchSignals(cancel context.CancelCauseFunc) *signals {
	s := &signals{
		raw:     make(chan os.Signal, 16),
		forward: make(chan syscall.Signal, 64),
		cancel:  cancel,
		quit:    make(chan struct{}),
	}
	// With SIGPIPE notified a write to a closed stdout is EPIPE instead of
	// death: the far end of the pipe is then closed, and the program there
	// decides, as it would have here.
	signal.Notify(s.raw, syscall.SIGPIPE)
	for _, sig := range forwarded {
		if !signal.Ignored(sig) {
			signal.Notify(s.raw, sig)
		}
	}
	s.done.Go(s.run)
	return s
}

func (s *signals) run() {
	for {
		select {
		case <-s.quit:
			return
		case sig := <-s.raw:
			s.take(sig.(syscall.Signal))
		}
	}
}

func (s *signals) take(sig syscall.Signal) {
	if sig == syscall.SIGPIPE {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		if ends(sig) && s.fatal == 0 {
			s.fatal = sig
			s.cancel(errSignalled)
		}
		return
	}
	if s.ended {
		if ends(sig) {
			os.Exit(die(sig))
		}
		return
	}
	select {
	case s.forward <- sig:
	default: // 64 unsent signals: the session is stuck and one more tells nothing
	}
}

// ends tells whether a process that does not handle the signal dies of it.
func ends(sig syscall.Signal) bool { return sig != syscall.SIGWINCH && sig != syscall.SIGCONT }

// abandon ends the session if its program does not run yet; afterwards the
// program itself hears what the caller wants.
func (s *signals) abandon(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		s.given = cause
		return
	}
	s.cancel(cause)
}

// begin says that the program may run from now on: whoever ends the session now
// would leave it behind.
func (s *signals) begin() {
	s.mu.Lock()
	s.started = true
	s.mu.Unlock()
}

// rewind says that it has not started after all. What came meanwhile ends the
// session now.
func (s *signals) rewind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		return
	}
	s.started, s.ended = false, false
	for {
		select {
		case sig := <-s.forward:
			if ends(sig) && s.fatal == 0 {
				s.fatal = sig
				s.cancel(errSignalled)
			}
			continue
		default:
		}
		break
	}
	if s.given != nil {
		s.cancel(s.given)
	}
}

// end says that the program has ended, or is lost.
func (s *signals) end() {
	s.mu.Lock()
	s.ended = s.started
	s.mu.Unlock()
}

// stop gives the signals their former meaning back and returns the one that
// ended the session before it started, 0 if none did.
func (s *signals) stop() syscall.Signal {
	signal.Reset(syscall.SIGPIPE)
	for _, sig := range forwarded {
		if !signal.Ignored(sig) {
			signal.Reset(sig)
		}
	}
	close(s.quit)
	s.done.Wait()
	for { // one may have come in between
		select {
		case sig := <-s.raw:
			s.take(sig.(syscall.Signal))
		default:
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.fatal
		}
	}
}
