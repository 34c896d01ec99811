package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A proc is a process of the machine, in a pod of the cluster or not.
type proc struct {
	pid  int
	args []string
	pod  string // UID; empty: in no pod
}

func (p proc) is(args ...string) bool {
	return len(p.args) >= len(args) && strings.Join(p.args[:len(args)], " ") == strings.Join(args, " ")
}

var podOf = regexp.MustCompile(`/pod([0-9a-f]{8}[-_][0-9a-f-_]{27})`)

// census lists the machine's processes. Askers within a short time share one.
type census struct {
	mu    sync.Mutex
	taken time.Time
	all   []proc
}

const censusAge = 15 * time.Millisecond

func (c *census) take() []proc {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.taken) < censusAge {
		return c.all
	}
	c.all = nil
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if len(line) == 0 {
			continue // of the kernel, or dead
		}
		p := proc{pid: pid, args: strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")}
		if groups, err := os.ReadFile("/proc/" + e.Name() + "/cgroup"); err == nil {
			if m := podOf.FindSubmatch(groups); m != nil {
				p.pod = strings.ReplaceAll(string(m[1]), "_", "-")
			}
		}
		c.all = append(c.all, p)
	}
	c.taken = time.Now()
	return c.all
}

// marked are the processes in pods whose command line has the mark: programs of
// sessions, for the shims are ours and in no pod.
func (c *census) marked(mark string) (found []proc) {
	for _, p := range c.take() {
		if p.pod != "" && strings.Contains(strings.Join(p.args, "\x00"), mark) {
			found = append(found, p)
		}
	}
	return found
}

// inPods are the processes with the arguments in the pods.
func (c *census) inPods(pods map[string]bool, args ...string) (found []proc) {
	for _, p := range c.take() {
		if pods[p.pod] && p.is(args...) {
			found = append(found, p)
		}
	}
	return found
}

// gone waits for the end of a process and tells when it was.
func gone(ctx context.Context, pid int) (time.Time, error) {
	fd, err := unix.PidfdOpen(pid, 0) // refers to this very process
	if errors.Is(err, syscall.ESRCH) {
		return time.Now(), nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
		if n > 0 {
			return time.Now(), nil
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return time.Time{}, fmt.Errorf("wait for process %d: %w", pid, err)
		}
		if ctx.Err() != nil {
			return time.Time{}, fmt.Errorf("process %d lives: %w", pid, context.Cause(ctx))
		}
	}
}
