package supervisor

import (
	"context"
	"os"
	"os/signal"
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
	for _, pid := range processes("/proc") {
		if f.adopted(pid) {
			continue
		}
		if s, ok := readStat("/proc", pid); ok && s.state == "Z" && s.parent == 1 {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}
