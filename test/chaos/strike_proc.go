package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// signalShim sends a signal to the first session's shim; signalShims to all.
func signalShim(n syscall.Signal) strike {
	return func(ctx context.Context, w *world, at []*session) (time.Time, error) {
		return time.Now(), at[0].signal(ctx, n)
	}
}

func signalShims(n syscall.Signal) strike {
	return func(ctx context.Context, w *world, at []*session) (time.Time, error) {
		var err error
		for _, s := range at {
			err = errors.Join(err, s.signal(ctx, n))
		}
		return time.Now(), err
	}
}

// signal sends it, and of a KILL measures how long the program lives on.
func (s *session) signal(ctx context.Context, n syscall.Signal) error {
	select {
	case <-s.ended:
		return nil // in a scene of many, one may have ended by itself
	default:
	}
	if n == syscall.SIGKILL {
		programs := s.find()
		s.killed = time.Now()
		for _, pid := range programs {
			s.deaths.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, afterGrace)
				defer cancel()
				if at, err := gone(ctx, pid); err == nil {
					s.deathTook.Store(max(s.deathTook.Load(), int64(at.Sub(s.killed))))
				}
			})
		}
	}
	if err := s.proc.Signal(n); err != nil && !errors.Is(err, os.ErrProcessDone) { // as above, just now
		return fmt.Errorf("signal %d to the shim of %s: %w", n, s.mark, err)
	}
	return nil
}

// pauseShim stops the shim for a time.
func pauseShim(d time.Duration) strike {
	return func(ctx context.Context, _ *world, at []*session) (time.Time, error) {
		return pause(ctx, d, at[0].proc.Pid)
	}
}

func pause(ctx context.Context, d time.Duration, pids ...int) (time.Time, error) {
	if len(pids) == 0 {
		return time.Now(), errors.New("nothing to stop")
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return time.Now(), fmt.Errorf("stop process %d: %w", pid, err)
		}
	}
	lasting(ctx, d)
	var err error
	for _, pid := range pids {
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGCONT))
	}
	return time.Now(), err
}

// killProgram kills the first session's ffmpeg, not its shim.
func killProgram(_ context.Context, _ *world, at []*session) (time.Time, error) {
	programs := at[0].find()
	if len(programs) == 0 {
		return time.Now(), fmt.Errorf("%s has no process to kill", at[0].mark)
	}
	for _, pid := range programs {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return time.Now(), err
		}
	}
	return time.Now(), nil
}

// takeOver is a player's seek: the writer's shim is killed, and another session
// with the same outputs begins at once, here or on a worker.
func takeOver(where mode) strike {
	return func(ctx context.Context, w *world, at []*session) (time.Time, error) {
		var err error
		for _, old := range at {
			if own(old) == 0 {
				next := w.successor(old, where, "n")
				old.successor = next
				err = errors.Join(err, old.signal(ctx, syscall.SIGKILL), next.start())
			}
		}
		return time.Now(), err
	}
}

// takeOverAfter kills the writers' shims while something else breaks, and starts
// their successors when that is whole again. A caller whose ffmpeg was refused
// before it began tries again.
func takeOverAfter(broken strike) strike {
	return func(ctx context.Context, w *world, at []*session) (time.Time, error) {
		healed, err := both(broken, signalShims(syscall.SIGKILL))(ctx, w, at)
		if err != nil {
			return healed, err
		}
		sideBySide(at, func(old *session) {
			for attempt := 0; attempt < 20 && ctx.Err() == nil; attempt++ {
				next := w.successor(old, remote, fmt.Sprintf("n%d", attempt))
				old.successor = next
				if next.start() != nil || next.err.reached(1) && !next.refused() {
					return
				}
			}
		})
		return healed, nil
	}
}

// successor is a session that writes what another wrote.
func (w *world) successor(old *session, where mode, suffix string) *session {
	next := w.script(cast{Kind: file, Moment: idle, Seed: old.Seed + 7}, old.mark+suffix)
	next.mode, next.dir, next.act.Path, next.overtakes = where, old.dir, old.act.Path, true
	next.argv = next.act.Argv()
	return next
}

// refused tells that a session has ended before its program began.
func (s *session) refused() bool {
	select {
	case <-s.ended:
		good, _, _ := s.err.state()
		return good == 0
	case <-time.After(time.Second): // what it says may be the end of it
		good, _, _ := s.err.state()
		return good == 0
	}
}

func killScheduler(ctx context.Context, w *world, _ []*session) (time.Time, error) {
	before, err := w.scheduler(ctx)
	if err != nil {
		return time.Now(), err
	}
	if err := syscall.Kill(before.pid, syscall.SIGKILL); err != nil {
		return time.Now(), err
	}
	return w.schedulerAfter(ctx, before)
}

func pauseScheduler(d time.Duration) strike {
	return func(ctx context.Context, w *world, _ []*session) (time.Time, error) {
		p, err := w.scheduler(ctx)
		if err != nil {
			return time.Now(), err
		}
		return pause(ctx, d, p.pid)
	}
}

// killDials kills the far ends of all channels.
func killDials(ctx context.Context, w *world, _ []*session) (time.Time, error) {
	return w.killAll(ctx, "/ffpod/worker", "dial")
}

// killSupervisor kills PID 1 of every warm worker and Job: their containers end.
func killSupervisor(ctx context.Context, w *world, _ []*session) (time.Time, error) {
	return w.killAll(ctx, "/ffpod/worker", "serve")
}

func (w *world) killAll(ctx context.Context, args ...string) (time.Time, error) {
	pods, err := w.pods(ctx, workers)
	if err != nil {
		return time.Now(), err
	}
	found := w.census.inPods(uids(pods), args...)
	if len(found) == 0 {
		return time.Now(), fmt.Errorf("no process %v in a worker", args)
	}
	for _, p := range found {
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return time.Now(), err
		}
	}
	return time.Now(), nil
}

// killPart kills a part of the cluster and starts it again after a time.
func killPart(name string, away time.Duration) strike {
	return func(ctx context.Context, w *world, _ []*session) (time.Time, error) {
		if err := w.clusterCommand("kill", name); err != nil {
			return time.Now(), err
		}
		lasting(ctx, away)
		err := w.clusterCommand("start", name)
		return time.Now(), err
	}
}

func restartPart(name string) strike {
	return func(_ context.Context, w *world, _ []*session) (time.Time, error) {
		err := w.clusterCommand("restart", name)
		return time.Now(), err
	}
}

func pausePart(name string, d time.Duration) strike {
	return func(ctx context.Context, w *world, _ []*session) (time.Time, error) {
		pid, err := w.part(name)
		if err != nil {
			return time.Now(), err
		}
		return pause(ctx, d, pid)
	}
}

// hogMemory starts a session that wants more memory than its worker may have,
// beside those that are there.
func hogMemory(ctx context.Context, w *world, at []*session) (time.Time, error) {
	hog := w.script(cast{Kind: stdout, Moment: starting, Seed: at[0].Seed + 9}, at[0].mark+"h")
	hog.class, hog.act.Hog = "hog", 512*mib
	hog.argv = hog.act.Argv()
	if err := hog.start(); err != nil {
		return time.Now(), err
	}
	at[0].successor = hog
	select {
	case <-hog.ended:
	case <-time.After(armBound):
	case <-ctx.Done():
	}
	return time.Now(), nil
}

// sideBySide does something for each session at once.
func sideBySide(all []*session, do func(*session)) {
	var group sync.WaitGroup
	for _, s := range all {
		group.Go(func() { do(s) })
	}
	group.Wait()
}
