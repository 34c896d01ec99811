package supervisor

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ffpod/ffpod/podexec/wire"
)

// process is one child in a process group of its own.
type process struct {
	pid                   int
	stdin, stdout, stderr *os.File // our ends; stdin is nil when it reads /dev/null

	mu     sync.Mutex
	reaped bool // the pid and the group number may belong to somebody else
}

// forking serialises umask, fork and the registration of a child: umask is the
// whole process's, and the reaper must not take a child nobody knows yet.
type forking struct {
	sync.Mutex

	reaper   int         // the process that orphans are reparented to, when it is us
	known    sync.Mutex  // never held over a system call
	children map[int]int // by pid; 2 for the moment in which a number is used again
}

func newForking() *forking { return &forking{reaper: 1, children: map[int]int{}} }

// adopt registers a child: whoever does waits for it, and the reaper does not. It
// must be called with the lock held in which the child was forked.
func (f *forking) adopt(pid int) {
	f.known.Lock()
	f.children[pid]++
	f.known.Unlock()
}

// forget ends adopt, after the child was reaped.
func (f *forking) forget(pid int) {
	f.known.Lock()
	defer f.known.Unlock()
	if f.children[pid]--; f.children[pid] == 0 {
		delete(f.children, pid)
	}
}

func (f *forking) adopted(pid int) bool {
	f.known.Lock()
	defer f.known.Unlock()
	return f.children[pid] > 0
}

// any tells whether a child is registered.
func (f *forking) any() bool {
	f.known.Lock()
	defer f.known.Unlock()
	return len(f.children) > 0
}

// start runs path with the session's argv, env, cwd and umask.
func (f *forking) start(path string, s *wire.Start, env []string) (*process, error) {
	argv := make([]string, 0, len(s.Argv)+1)
	argv = append(argv, path)
	for _, a := range s.Argv {
		argv = append(argv, string(a))
	}
	pipes, err := openPipes(s.Stdin)
	if err != nil {
		return nil, err
	}
	defer pipes.closeTheirs()

	f.Lock()
	defer f.Unlock()
	old := syscall.Umask(int(s.Umask & 0o777))
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir:   string(s.Cwd),
		Env:   env,
		Files: pipes.theirs[:],
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	syscall.Umask(old)
	if err != nil {
		pipes.closeOurs()
		return nil, err
	}
	f.adopt(pid)
	if s.Nice > 0 {
		_ = syscall.Setpriority(syscall.PRIO_PROCESS, pid, int(min(s.Nice, 19))) // a courtesy
	}
	return &process{pid: pid, stdin: pipes.ours[0], stdout: pipes.ours[1], stderr: pipes.ours[2]}, nil
}

// wait reaps the process after its whole group was killed. Its error means that
// somebody else reaped it: how it ended is unknown.
func (p *process) wait(f *forking) (status syscall.WaitStatus, usage syscall.Rusage, err error) {
	for {
		err = unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer f.forget(p.pid)
	p.reaped = true
	if err != nil {
		return status, usage, fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	// The leader is a zombie, so the group's number is still ours.
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	for {
		_, err = syscall.Wait4(p.pid, &status, 0, &usage)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return status, usage, fmt.Errorf("reap process %d: %w", p.pid, err)
	}
	return status, usage, nil
}

// signal delivers to the process alone, as a caller's kill(2) of a local ffmpeg
// would. A process that is gone is no error.
func (p *process) signal(sig syscall.Signal) { p.kill(p.pid, sig) }

// signalGroup delivers to everything the session started.
func (p *process) signalGroup(sig syscall.Signal) { p.kill(-p.pid, sig) }

func (p *process) kill(target int, sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = syscall.Kill(target, sig)
	}
}

// pipeEnds are both ends of the three pipes. Ours are non-blocking and known to
// the runtime's poller, so that Close ends a Read; theirs are plain.
type pipeEnds struct {
	ours   [3]*os.File
	theirs [3]uintptr
}

func openPipes(stdin bool) (*pipeEnds, error) {
	p := &pipeEnds{}
	for fd := range 3 {
		if err := p.open(fd, stdin); err != nil {
			p.closeOurs()
			p.closeTheirs()
			return nil, fmt.Errorf("pipe for descriptor %d: %w", fd, err)
		}
	}
	return p, nil
}

func (p *pipeEnds) open(fd int, stdin bool) error {
	if fd == 0 && !stdin {
		null, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		p.theirs[0] = uintptr(null)
		return err
	}
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC); err != nil {
		return err
	}
	ours, theirs := ends[0], ends[1]
	if fd == 0 {
		ours, theirs = ends[1], ends[0]
	}
	p.theirs[fd] = uintptr(theirs)
	if err := syscall.SetNonblock(ours, true); err != nil {
		syscall.Close(ours)
		return err
	}
	p.ours[fd] = os.NewFile(uintptr(ours), [3]string{"stdin", "stdout", "stderr"}[fd])
	return nil
}

func (p *pipeEnds) closeOurs() {
	for _, f := range p.ours {
		if f != nil {
			f.Close()
		}
	}
}

func (p *pipeEnds) closeTheirs() {
	for i, fd := range p.theirs {
		if fd != 0 {
			syscall.Close(int(fd))
			p.theirs[i] = 0
		}
	}
}
