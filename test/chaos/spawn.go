package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawn starts a program in the namespaces of a running process, as the identity
// that the demo's pods have, and is its parent: descriptors, exit and signals are
// as direct as those of any child. What breaks the cluster does not break it.
func spawn(inside int, path string, argv, env []string, dir string, files [3]*os.File) (*os.Process, error) {
	type result struct {
		proc *os.Process
		err  error
	}
	done := make(chan result)
	go func() {
		// A thread that has entered other namespaces is of no use to anyone else:
		// it stays locked and ends with the goroutine.
		runtime.LockOSThread()
		if err := enter(inside); err != nil {
			done <- result{err: err}
			return
		}
		proc, err := os.StartProcess(path, append([]string{path}, argv...), &os.ProcAttr{
			Dir: dir, Env: env, Files: files[:],
			Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{uid}}},
		})
		done <- result{proc, err}
	}()
	r := <-done
	return r.proc, r.err
}

const uid = 1000 // of client and workers

// enter moves the calling thread into the namespaces of a process.
func enter(pid int) error {
	if err := syscall.Unshare(syscall.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	// The mount namespace last: after it, /proc is another.
	var fds []int
	for _, kind := range []string{"ipc", "net", "pid", "mnt"} {
		fd, err := syscall.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s namespace of process %d: %w", kind, pid, err)
		}
		defer syscall.Close(fd)
		fds = append(fds, fd)
	}
	for _, fd := range fds {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("enter namespaces of process %d: %w", pid, err)
		}
	}
	return nil
}
