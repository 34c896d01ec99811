package supervisor

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ffpod/ffpod/podexec/prove"
	"github.com/ffpod/ffpod/podexec/wire"
)

const (
	// trialNice is below every session's: a trial takes what they leave.
	trialNice = 19
	// trialDies is how long a killed trial is waited for. A driver may hold it.
	trialDies = 2 * time.Second
	trialMost = 4 << 20 // bytes of its stdout
)

// errHeld is a trial that a driver does not let go.
var errHeld = errors.New("stalled: the kernel does not let it go")

// trial runs a program beside the sessions, in a process group of its own, and
// returns when that is gone; or when it was killed and the kernel holds it, which
// then ends unattended.
func (f *forking) trial(ctx context.Context, path string, env []string, c prove.Command) prove.Outcome {
	if err := ctx.Err(); err != nil {
		return prove.Outcome{Err: err}
	}
	start := &wire.Start{Cwd: []byte("/"), Umask: 0o077, Nice: trialNice, Stdin: c.Input != nil}
	for _, a := range c.Args {
		start.Argv = append(start.Argv, []byte(a))
	}
	p, err := f.start(path, start, env)
	if err != nil {
		return prove.Outcome{Err: err}
	}
	var out prove.Outcome
	var last tail
	var pipes sync.WaitGroup
	pipes.Go(func() { out.Stdout = readAll(p.stdout) })
	pipes.Go(func() { _, _ = io.Copy(&last, p.stderr) })
	if p.stdin != nil {
		pipes.Go(func() { _, _ = p.stdin.Write(c.Input); p.stdin.Close() })
	}
	ended := make(chan syscall.WaitStatus, 1)
	go func() { // ends when the kernel lets the process go
		status, _, err := p.wait(f)
		if err != nil {
			status = 1 << 8
		}
		ended <- status
	}()
	status, stalled, err := awaitTrial(ctx, p, ended, c.Within)
	p.cutAfter(idleCut)
	pipes.Wait()
	p.stdout.Close()
	p.stderr.Close()
	out.Stderr, out.Stalled, out.Err = last.String(), stalled, err
	if out.Code = status.ExitStatus(); status.Signaled() {
		out.Code = 128 + int(status.Signal())
	}
	return out
}

// awaitTrial waits for a trial's end, and brings it about when its time is over.
func awaitTrial(ctx context.Context, p *process, ended <-chan syscall.WaitStatus, within time.Duration) (status syscall.WaitStatus, stalled bool, err error) {
	bound := time.NewTimer(within)
	defer bound.Stop()
	select {
	case status = <-ended:
		return status, false, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-bound.C:
		stalled = true
	}
	p.signalGroup(syscall.SIGKILL)
	dies := time.NewTimer(trialDies)
	defer dies.Stop()
	select {
	case status = <-ended:
		return status, stalled, err
	case <-dies.C:
		return status, true, errors.Join(errHeld, err)
	}
}

// cutAfter ends the reads and writes that still wait after d: what holds a pipe then
// is not the process.
func (p *process) cutAfter(d time.Duration) {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			_ = f.SetDeadline(time.Now().Add(d))
		}
	}
}

// readAll reads a pipe to its end, and keeps its beginning.
func readAll(f *os.File) []byte {
	b, _ := io.ReadAll(io.LimitReader(f, trialMost))
	_, _ = io.Copy(io.Discard, f)
	return b
}
