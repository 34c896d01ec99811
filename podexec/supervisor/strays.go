package supervisor

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sessionMark is the variable that every process of a session inherits. Who calls
// setsid or forks twice leaves the session's process group, not its environment.
const sessionMark = "FFPOD_SESSION"

// unsureBound is how long somebody may be within execve.
const unsureBound = 2 * time.Second

// strayDies is how long one stray is waited for before the next is looked at, in
// milliseconds.
const strayDies = 20

// marked is env for a process of the session.
func marked(env []string, session string) []string {
	all := make([]string, 0, len(env)+1)
	for _, v := range env {
		if !strings.HasPrefix(v, sessionMark+"=") {
			all = append(all, v)
		}
	}
	return append(all, sessionMark+"="+session)
}

// killStrays kills what is left of a session whose process group is gone, and
// returns when nothing is. One that the kernel does not let go holds it up, as it
// does a group.
func (f *forking) killStrays(session string) {
	begun, wait := time.Now(), time.Millisecond
	for {
		left, unsure := f.killMarked(session)
		left += f.killOrphans()
		if left == 0 && (!unsure || time.Since(begun) > unsureBound) {
			return
		}
		time.Sleep(wait)
		wait = min(2*wait, 50*time.Millisecond)
	}
}

// killMarked kills who carries the mark of the session. It is unsure when somebody
// has no environment for the moment in which execve sets it up.
func (f *forking) killMarked(session string) (found int, unsure bool) {
	for _, pid := range processes("/proc") {
		if pid == os.Getpid() {
			continue
		}
		is := func() bool { is, _ := carries("/proc", pid, session); return is }
		carrier, hidden := carries("/proc", pid, session)
		unsure = unsure || hidden
		if carrier {
			found++
			killPinned(pid, is)
		}
	}
	return found, unsure
}

// killOrphans kills what was reparented to PID 1 while no session runs: it belongs
// to a session that is gone, and dropped its mark. The lock keeps a child that is
// being forked out of it.
func (f *forking) killOrphans() (found int) {
	f.Lock()
	defer f.Unlock()
	if os.Getpid() != f.reaper || f.any() {
		return 0
	}
	for _, pid := range processes("/proc") {
		is := func() bool { return childOf("/proc", pid, f.reaper) }
		if is() {
			found++
			killPinned(pid, is)
		}
	}
	return found
}

// carries reads the environment a process was started with, which only its own
// user may. hidden means that it has none now and will soon.
func carries(proc string, pid int, session string) (is, hidden bool) {
	b, err := os.ReadFile(proc + "/" + strconv.Itoa(pid) + "/environ")
	switch {
	case err != nil:
		return false, false
	case len(b) > 0:
		return hasMark(b, session), false
	}
	const kernelThread = 0x00200000
	s, ok := readStat(proc, pid)
	return false, ok && s.bare && !s.dead() && s.flags&kernelThread == 0
}

func hasMark(environ []byte, session string) bool {
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		if name, value, _ := bytes.Cut(v, []byte{'='}); string(name) == sessionMark && string(value) == session {
			return true
		}
	}
	return false
}

// childOf tells whether a process that is not dead has the parent.
func childOf(proc string, pid, parent int) bool {
	s, ok := readStat(proc, pid)
	return ok && s.parent == parent && !s.dead()
}

// killPinned kills the process that is the one meant, not one that was given its
// number since: the number is pinned before that is asked.
func killPinned(pid int, is func() bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ENOSYS && is() { // a sandbox without it
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if is() && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
		// A dying process loses its environment before its files.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, strayDies)
	}
}
