package jellyfin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// heldBound is from the end of a process to the end of its pipes.
const heldBound = 2 * time.Second

// Command is what a call site asks of System.Diagnostics.Process.
type Command struct {
	Program string // ffmpeg or ffprobe
	Args    []string
	Dir     string // empty: the server's own
	// Stdin, Stdout and Stderr are redirected to pipes; the others are the
	// server's own: /dev/null and the container's log.
	Stdin, Stdout, Stderr bool
	// BelowNormal is set after the start, on the one process that Jellyfin knows.
	BelowNormal bool
}

// Process is a started one. Who redirected a stream reads it: the type reads
// only what the process inherited.
type Process struct {
	PID            int
	Stdin          *os.File
	Stdout, Stderr *os.File

	proc   *os.Process
	name   string
	shim   string // the shim's own log
	log    inherited
	exited chan struct{}
	code   int
	stop   func() bool
}

// inherited collects what a process writes to the descriptors that it shares with
// the server.
type inherited struct {
	mu    sync.Mutex
	bytes []byte
	ended chan struct{}
}

// Start runs the program with argv exactly as given. ctx is the test's bound:
// when it ends, the process is killed.
func (s *Server) Start(ctx context.Context, c Command) (*Process, error) {
	path := s.ffmpeg
	if c.Program == "ffprobe" {
		path = s.ffprobe
	}
	p := &Process{exited: make(chan struct{}), name: c.Program + " " + strings.Join(c.Args, " ")}
	p.log.ended = make(chan struct{})
	var theirs [3]*os.File
	defer closeAll(theirs[:])
	logs, err := p.files(c, &theirs)
	if err != nil {
		return nil, err
	}
	env := s.env
	if s.shimLogs != "" {
		p.shim = filepath.Join(s.shimLogs, strconv.FormatInt(s.count.Add(1), 10))
		env = append(env[:len(env):len(env)], "FFPOD_LOG="+p.shim)
	}
	p.proc, err = os.StartProcess(path, append([]string{path}, c.Args...), &os.ProcAttr{Dir: c.Dir, Env: env, Files: theirs[:]})
	if err != nil {
		closeAll([]*os.File{logs, p.Stdin, p.Stdout, p.Stderr})
		return nil, err
	}
	p.PID = p.proc.Pid
	s.add(p)
	if c.BelowNormal { // too late for what the process does first, and nobody minds a failure
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, p.PID, 10)
	}
	go p.collect(logs)
	go p.reap()
	p.stop = context.AfterFunc(ctx, func() { p.Kill() })
	return p, nil
}

// files makes the descriptors of the process. The server's log is a pipe, as a
// container's is.
func (p *Process) files(c Command, theirs *[3]*os.File) (logs *os.File, err error) {
	if c.Stdin {
		theirs[0], p.Stdin, err = os.Pipe()
	} else {
		theirs[0], err = os.Open(os.DevNull)
	}
	if err != nil {
		return nil, err
	}
	for i, to := range []*struct {
		piped bool
		ours  **os.File
	}{{c.Stdout, &p.Stdout}, {c.Stderr, &p.Stderr}} {
		if to.piped {
			if *to.ours, theirs[i+1], err = os.Pipe(); err != nil {
				return nil, err
			}
		}
	}
	logs, shared, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	for i := 1; i < 3; i++ {
		if theirs[i] == nil {
			theirs[i] = shared
		}
	}
	if c.Stdout && c.Stderr {
		shared.Close()
	}
	return logs, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close() // a file that stands twice is closed once
		}
	}
}

func (p *Process) reap() {
	state, err := p.proc.Wait()
	p.code = -1
	if err == nil {
		if w := state.Sys().(syscall.WaitStatus); w.Signaled() {
			p.code = 128 + int(w.Signal())
		} else {
			p.code = w.ExitStatus()
		}
	}
	close(p.exited)
}

func (p *Process) collect(logs *os.File) {
	defer close(p.log.ended)
	defer logs.Close()
	buf := make([]byte, 4096)
	for {
		n, err := logs.Read(buf)
		p.log.mu.Lock()
		p.log.bytes = append(p.log.bytes, buf[:n]...)
		p.log.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Log returns what the process wrote to the server's own descriptors. Its error
// says that somebody holds them although the process is gone.
func (p *Process) Log() (string, error) {
	var err error
	select {
	case <-p.log.ended:
	case <-time.After(heldBound):
		err = errors.New("somebody still holds the descriptors of the process")
	}
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return string(p.log.bytes), err
}

// Where is what the shim says that it decided: local, remote, or nothing when
// the process was no shim.
func (p *Process) Where() string {
	b, _ := os.ReadFile(p.shim)
	_, after, _ := strings.Cut(string(b), " where=")
	where, _, _ := strings.Cut(after, " ")
	return where
}

// HasExited is Process.HasExited.
func (p *Process) HasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// WaitForExit waits for the process, not for its pipes.
func (p *Process) WaitForExit(limit time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(limit):
		return p.HasExited()
	}
}

// Wait waits without a limit of Jellyfin's.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the process to end: %w", ctx.Err())
	}
}

// ExitCode is Process.ExitCode: 128 + n for signal n.
func (p *Process) ExitCode() int {
	<-p.exited
	return p.code
}

// Close disposes of the pipes, as Process.Dispose does.
func (p *Process) Close() {
	p.stop()
	closeAll([]*os.File{p.Stdin, p.Stdout, p.Stderr})
}

// Kill is Process.Kill(): SIGKILL to this process alone, waited for by nobody.
func (p *Process) Kill() { _ = p.proc.Kill() }

// KillTree is Process.Kill(true): each process is stopped before its children
// are looked for, so that it cannot make new ones.
func (p *Process) KillTree() {
	if !p.HasExited() {
		killTree(p.PID)
	}
}

func killTree(pid int) {
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	children := childrenOf(pid)
	_ = syscall.Kill(pid, syscall.SIGKILL)
	for _, child := range children {
		killTree(child)
	}
}

func childrenOf(parent int) []int {
	var children []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it is gone
		}
		// The name in parentheses may hold anything.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			children = append(children, pid)
		}
	}
	return children
}

// readToEnd reads a pipe as a StreamReader does: 4 KiB at a time, until every
// holder of the other end is gone.
func readToEnd(f *os.File) ([]byte, error) {
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		all = append(all, buf[:n]...)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}
