package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is one that some invocation of this command started. A pid alone
// may have been handed to a stranger since; with the start time, and the boot
// that it counts from, it cannot be mistaken.
type process struct {
	Pid   int    `json:"pid"`
	Ticks uint64 `json:"ticks"` // start time since boot, in clock ticks
	Boot  string `json:"boot"`
}

func recordPath(part string) string {
	return filepath.Join(runDir, strings.ReplaceAll(part, "/", "-")+".json")
}

func logPath(part string) string {
	return filepath.Join(logDir, strings.ReplaceAll(part, "/", "-")+".log")
}

// joinAndExec puts itself into cgroups, then becomes the command: whatever the
// part forks is then in the cgroups too, and no longer in the caller's.
const joinAndExec = `n=$1; shift
while [ "$n" -gt 0 ]; do echo $$ >"$1/cgroup.procs" || exit 126; shift; n=$((n-1)); done
exec "$@"`

// daemonise starts a part in a session of its own, with its output appended
// to its log, and records it. It returns before the part is ready.
func daemonise(p part) error {
	for _, dir := range []string{logDir, runDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(logPath(p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	// What this command has inherited, such as a lock that its caller took with
	// flock(1), must not live on in a daemon. Go's own are marked already.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark inherited descriptors: %w", err)
	}
	groups := cgroupDirs("system")
	argv := append([]string{"-c", joinAndExec, "sh", strconv.Itoa(len(groups))}, groups...)
	command := exec.Command("/bin/sh", append(argv, p.argv...)...)
	command.Dir = stateDir
	command.Env = p.env
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ticks, _, err := startTicks(command.Process.Pid)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	record, err := json.Marshal(process{command.Process.Pid, ticks, bootID()})
	if err != nil {
		return err
	}
	if err := os.WriteFile(recordPath(p.name), record, 0o644); err != nil {
		return err
	}
	// Nobody waits for a daemon: once this command is gone, init does.
	return command.Process.Release()
}

// recorded is the process last started as part.
func recorded(part string) (process, error) {
	var p process
	data, err := os.ReadFile(recordPath(part))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(data, &p)
}

// alive reports whether the very process still runs; a zombie does not.
func (p process) alive() bool {
	if p.Pid <= 0 || p.Boot != bootID() {
		return false
	}
	ticks, state, err := startTicks(p.Pid)
	return err == nil && ticks == p.Ticks && state != 'Z' && state != 'X'
}

// end sends the signal to the process and waits until it is gone, with SIGKILL
// when patience runs out. A process that is not alive is no error.
func (p process) end(signal syscall.Signal, patience time.Duration) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.Pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	for deadline := time.Now().Add(patience); p.alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().Before(deadline) {
			continue
		}
		if signal == syscall.SIGKILL {
			return fmt.Errorf("process %d outlives SIGKILL by %v", p.Pid, patience)
		}
		return p.end(syscall.SIGKILL, patience)
	}
	return nil
}

// startTicks reads when a process started and its state from /proc.
func startTicks(pid int) (ticks uint64, state byte, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The command's name, in parentheses, may contain anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	ticks, err = strconv.ParseUint(fields[19], 10, 64)
	return ticks, fields[0][0], err
}

func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(id))
}

// processes lists the pids for which keep holds, this process excepted.
func processes(keep func(pid int) bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err == nil && pid != os.Getpid() && keep(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// logTail is the last lines of a part's log, indented, or why there are none.
func logTail(part string, lines int) string {
	data, err := os.ReadFile(logPath(part))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return "    (the log is empty)"
	}
	if err != nil {
		return "    " + err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return "    " + strings.Join(all[max(0, len(all)-lines):], "\n    ")
}
