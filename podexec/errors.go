package podexec

import (
	"fmt"
	"syscall"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// ExitError is a command that ran and ended with a non-zero code or by a signal.
type ExitError struct{ *wire.Exit }

// ExitCode is the code, and -1 when a signal ended the process: as exec.ExitError.
func (e *ExitError) ExitCode() int {
	if e.Signal != 0 {
		return -1
	}
	return int(e.Code)
}

func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return "signal: " + syscall.Signal(e.Signal).String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// StartError is a command that never ran. It may be run elsewhere.
type StartError struct {
	Refusal wire.Refusal // why the worker refused; unspecified when it was not reached
	Err     error
}

func (e *StartError) Error() string { return "podexec: not started: " + e.Err.Error() }
func (e *StartError) Unwrap() error { return e.Err }

// LostError is a command that may have begun and whose end is unknown. It must not
// be run again silently.
type LostError struct{ Err error }

func (e *LostError) Error() string { return "podexec: lost: " + e.Err.Error() }
func (e *LostError) Unwrap() error { return e.Err }

// outcome gives the one error of a command.
func outcome(exit *wire.Exit, err error) error {
	switch e := err.(type) {
	case nil:
		if exit.Code == 0 && exit.Signal == 0 {
			return nil
		}
		return &ExitError{exit}
	case *session.RefusedError:
		return &StartError{Refusal: e.Refusal, Err: e}
	case *session.LostError:
		if !e.MayHaveStarted {
			return &StartError{Err: e}
		}
	}
	return &LostError{err}
}
