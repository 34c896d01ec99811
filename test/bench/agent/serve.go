package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

const (
	defaultTimeout = time.Minute
	// pollFile bounds how late a file is seen.
	pollFile = 2 * time.Millisecond
)

// Serve answers requests until in ends, and leaves no command behind.
func Serve(in io.Reader, out io.Writer) error {
	var s server
	defer s.kill()
	requests, results := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var r Request
		if err := requests.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := results.Encode(s.do(r)); err != nil {
			return err
		}
	}
}

type server struct {
	started *command
}

func (s *server) do(r Request) Result {
	switch r.Op {
	case Run:
		c, err := start(r)
		if err != nil {
			return Result{Err: err.Error()}
		}
		return c.wait()
	case Start:
		s.kill()
		c, err := start(r)
		if err != nil {
			return Result{Err: err.Error()}
		}
		s.started = c
		return Result{Pid: c.cmd.Process.Pid}
	case Kill:
		return s.kill()
	case Tiny:
		if err := writeTiny(r.File); err != nil {
			return Result{Err: err.Error()}
		}
		return Result{}
	}
	return Result{Err: "unknown operation " + string(r.Op)}
}

func (s *server) kill() Result {
	c := s.started
	if c == nil {
		return Result{Err: "no command was started"}
	}
	s.started = nil
	at := time.Now()
	_ = c.cmd.Process.Kill() // already dead: its code tells
	r := c.wait()
	r.KilledAt = at.UnixNano()
	return r
}

// command is one that runs.
type command struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	begun  time.Time
	stdout *sink
	stderr bytes.Buffer
	watch  sync.WaitGroup
	over   chan struct{}
	file   time.Duration // set before watch is done
}

func start(r Request) (*command, error) {
	if len(r.Argv) == 0 {
		return nil, errors.New("no command")
	}
	if r.Timeout == 0 {
		r.Timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.Timeout)
	c := &command{cmd: exec.CommandContext(ctx, r.Argv[0], r.Argv[1:]...), cancel: cancel, over: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), r.Env...)
	c.stdout = &sink{}
	c.cmd.Stdout, c.cmd.Stderr = c.stdout, &c.stderr
	c.begun = time.Now()
	c.stdout.begun = c.begun
	if err := c.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	if r.File != "" {
		c.watch.Go(func() { c.file = c.waitFor(r.File) })
	}
	return c, nil
}

func (c *command) wait() Result {
	defer c.cancel()
	err := c.cmd.Wait()
	total := time.Since(c.begun)
	close(c.over)
	c.watch.Wait()
	r := Result{Pid: c.cmd.Process.Pid, Total: total, FirstByte: c.stdout.first, File: c.file, Bytes: c.stdout.n}
	if state := c.cmd.ProcessState; state != nil {
		r.Code, r.CPU = state.ExitCode(), state.UserTime()+state.SystemTime()
	} else {
		r.Err = err.Error()
	}
	const most = 1000
	text := bytes.TrimSpace(c.stderr.Bytes())
	r.Stderr = string(text[max(0, len(text)-most):])
	return r
}

// waitFor returns when the file existed, 0 if the command ended without it.
func (c *command) waitFor(file string) time.Duration {
	tick := time.NewTicker(pollFile)
	defer tick.Stop()
	for ended := false; ; {
		if _, err := os.Stat(file); err == nil {
			return time.Since(c.begun)
		}
		if ended {
			return 0
		}
		select {
		case <-tick.C:
		case <-c.over:
			ended = true
		}
	}
}

// sink counts what a command writes.
type sink struct {
	begun time.Time
	first time.Duration
	n     int64
}

func (s *sink) Write(p []byte) (int, error) {
	if s.n == 0 && len(p) > 0 {
		s.first = time.Since(s.begun)
	}
	s.n += int64(len(p))
	return len(p), nil
}

// ReadFrom reads as much at a time as a pipe holds at most.
func (s *sink) ReadFrom(r io.Reader) (int64, error) {
	buf := make([]byte, 256<<10)
	before := s.n
	for {
		n, err := r.Read(buf)
		_, _ = s.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return s.n - before, nil
		}
		if err != nil {
			return s.n - before, err
		}
	}
}
