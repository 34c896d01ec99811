package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of a local writer's patience with others than local ones.
const (
	killed     = 200 * time.Millisecond // for a shim that its caller has just killed to be gone
	clearBound = 5 * time.Second        // for the scheduler to kill and say so
	youngBound = time.Second            // for the scheduler to say that there is nothing
	clearAgain = 2 * time.Second        // between two questions while a bound passes
)

// Local is a writer about to run in this process.
type Local struct {
	Keys []string
	// Clear asks the scheduler to end the sessions that write these outputs, and
	// returns nil when there are none any more. It returns ErrSuperseded as it is.
	// Nil: there is no scheduler.
	Clear func(ctx context.Context, keys []string) error
	// Say is called once if it takes longer than the scheduler's answer, with what
	// is waited for, in words for a person.
	Say func(what string)
	// Log is called with what went wrong and changes nothing. It may be nil.
	Log func(problem string)
	// Wait is for how long to wait for a writer that lives. Defaults to 5 s.
	Wait time.Duration
}

// Local returns nil when this process may write the outputs: it holds them until
// it and the program that it becomes by execve have ended. A *BusyError,
// ErrSuperseded and the cause of ctx say that it must not. With any other error
// nothing is held, and the registry is of no use.
func (r *Registry) Local(ctx context.Context, l Local) error {
	if l.Wait == 0 {
		l.Wait = defaultWait
	}
	if l.Log == nil {
		l.Log = func(string) {}
	}
	var held []int
	err := r.local(ctx, &l, &held)
	if err != nil {
		for _, fd := range held {
			_ = unix.Close(fd)
		}
		return err
	}
	r.sweep()
	return nil
}

func (r *Registry) local(ctx context.Context, l *Local, held *[]int) error {
	deadline := time.Now().Add(l.Wait)
	list := names(l.Keys)
	asked := false
	for _, name := range list { // 1. nobody of this pod writes
		fd, err := r.alone(ctx, l, name, deadline, &asked)
		if err != nil {
			return err
		}
		*held = append(*held, fd)
	}
	if err := r.settle(ctx, l, *held); err != nil { // 2. nothing is left of who did
		return err
	}
	for i, fd := range *held { // 3. this process does
		if err := write(fd, runsHere(os.Getpid())); err != nil {
			l.Log(fmt.Sprintf("write %s/%s: %v", r.path, list[i], err))
		}
		inherited, err := bequeath(fd)
		if err != nil {
			return fmt.Errorf("keep the lock of %s/%s: %w", r.path, list[i], err)
		}
		(*held)[i] = inherited
	}
	return nil
}

// alone takes a key's exclusive lock, in time.
func (r *Registry) alone(ctx context.Context, l *Local, name string, deadline time.Time, asked *bool) (int, error) {
	start := time.Now()
	for {
		fd, err := r.lock(name, unix.LOCK_EX, unix.O_CREAT)
		if !errors.Is(err, errBusy) {
			return fd, err
		}
		now := time.Now()
		if late := now.After(deadline); late || !*asked && l.Clear != nil && now.Sub(start) >= killed {
			who, remote := r.holder(name)
			if late {
				return -1, &BusyError{Holder: who, Waited: l.Wait}
			}
			if *asked = true; remote {
				if err := l.clear(ctx, clearBound); errors.Is(err, ErrSuperseded) || ctx.Err() != nil {
					return -1, err
				} else if err != nil {
					l.Log("clear the outputs: " + err.Error())
				}
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return -1, err
		}
	}
}

func (l *Local) clear(ctx context.Context, bound time.Duration) error {
	asking, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	err := l.Clear(asking, l.Keys[:min(len(l.Keys), MaxKeys)])
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// settle sees to it that no session of a shim that is gone still writes: all locks
// are held, so whatever the files tell of is a remnant.
func (r *Registry) settle(ctx context.Context, l *Local, held []int) error {
	left := r.left(held)
	if len(left) == 0 {
		if l.Clear == nil || !r.young() {
			return nil
		}
		err := l.clear(ctx, youngBound)
		if errors.Is(err, ErrSuperseded) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			l.Log("ask the scheduler what a former pod has left: " + err.Error())
		}
		return nil
	}
	why := "there is no scheduler to ask"
	for said := false; len(left) > 0; left = r.left(held) {
		if l.Clear != nil {
			err := l.clear(ctx, clearBound)
			switch {
			case err == nil:
				for _, rem := range left {
					r.forget(rem.Session)
				}
				return nil
			case errors.Is(err, ErrSuperseded) || ctx.Err() != nil:
				return err
			}
			why = err.Error()
		}
		last := slices.MaxFunc(left, func(a, b remnant) int { return a.dead.Compare(b.dead) })
		if !said && l.Say != nil {
			said = true
			l.Say(fmt.Sprintf("%s may write the same outputs for another %s: %s", last.words(), time.Until(last.dead).Round(time.Second), why))
		}
		if err := sleep(ctx, min(clearAgain, max(pause, time.Until(last.dead)))); err != nil {
			return err
		}
	}
	return nil
}

// left returns what is left of sessions in the files held.
func (r *Registry) left(held []int) []remnant {
	var list []remnant
	for _, fd := range held {
		for _, rem := range r.remnants(read(fd)) {
			if !slices.ContainsFunc(list, func(o remnant) bool { return o.Session == rem.Session }) {
				list = append(list, rem)
			}
		}
	}
	return list
}

// write replaces a key's content. It cuts nothing off without need: some file
// systems of disks answer that with a flush.
func write(fd int, b []byte) error {
	if have := read(fd); len(have) > len(b) {
		if err := unix.Ftruncate(fd, 0); err != nil {
			return err
		}
	}
	_, err := unix.Pwrite(fd, b, 0)
	return err
}

// bequeath makes a descriptor survive execve, out of the way of those that the
// program uses by number.
func bequeath(fd int) (int, error) {
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, firstFD)
	if err != nil { // a low limit: it stays where it is
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
		return fd, err
	}
	_ = unix.Close(fd)
	return high, nil
}
