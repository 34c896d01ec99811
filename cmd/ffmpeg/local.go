package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// local becomes the real binary. It returns only if that is impossible. Go's
// exec restores RLIMIT_NOFILE, which the runtime raised; the kernel resets
// handlers; every descriptor that the shim was given is still open. None of its own
// is inherited, but the lock of each output in a shared directory (see registry).
func (s *shim) local() int {
	real, err := s.settings.Real(s.program)
	if err == nil {
		err = s.become(real)
	}
	return fail(string(s.program), s.noReal(err))
}

// become waits until nobody else writes the outputs, then executes the real
// binary. It returns only if one of the two is impossible.
func (s *shim) become(real string) error {
	if err := s.alone(); err != nil {
		return err
	}
	argv := make([]string, 0, len(s.argv)+1)
	argv = append(append(argv, real), s.argv...)
	return fmt.Errorf("execute %s: %w", real, syscall.Exec(real, argv, os.Environ()))
}

// noReal words what become returned.
func (s *shim) noReal(err error) failure {
	if fenced(err) {
		return occupied(err)
	}
	setting := "FFPOD_FFMPEG"
	if s.program != "ffmpeg" {
		setting = "FFPOD_FFPROBE"
	}
	return failure{
		what: "the real " + string(s.program) + " cannot be run here", why: err.Error(),
		remedy: "set " + setting + " to its path or install it",
	}
}

// log appends one line to FFPOD_LOG. It is a help for debugging: a file that
// cannot be written must not stop anything.
func (s *shim) log(where, reason string) {
	if s.settings.Log == "" {
		return
	}
	f, err := os.OpenFile(s.settings.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	line := fmt.Sprintf("%s pid=%d program=%s kind=%s where=%s reason=%q",
		time.Now().UTC().Format(time.RFC3339Nano), os.Getpid(), s.program, s.command.Kind, where, reason)
	_, _ = f.WriteString(printable(line, 8*maxLine) + "\n")
}
