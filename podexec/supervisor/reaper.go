package supervisor

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// reapStrays reaps what was reparented to PID 1, until ctx ends. Sessions reap
// their own leaders: those are left alone.
func (f *forking) reapStrays(ctx context.Context) {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	defer signal.Stop(died)
	for {
		select {
		case <-ctx.Done():
			return
		case <-died:
			f.reapOnce()
		}
	}
}

// reapOnce holds the lock so that no child is between its fork and its
// registration.
func (f *forking) reapOnce() {
	f.Lock()
	defer f.Unlock()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || f.adopted(pid) || !zombieOf(pid, 1) {
			continue
		}
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}

// zombieOf reads the state and the parent from /proc/PID/stat; the name in
// parentheses before them may hold anything.
func zombieOf(pid, parent int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	return len(fields) > 1 && string(fields[0]) == "Z" && string(fields[1]) == strconv.Itoa(parent)
}
