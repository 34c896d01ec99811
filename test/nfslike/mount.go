// Package nfslike mounts a directory the way an NFS client shows it to one machine
// while another machine writes it: with caches. Whoever writes into the directory
// itself is the other machine.
//
// Names that do not exist are remembered for 30 s, names and attributes for as
// long as Caches says. As NFS does (close-to-open consistency), it asks the server
// again when somebody opens a directory, which makes changed and new names known,
// or a file, which makes its size known; and at no other time before the caches'
// own. It is FUSE, so it needs root and /dev/fuse.
//
// The file system is served by a child process: one that uses a mount which it
// serves itself hangs when it forks at the wrong moment. The child unmounts when
// its parent is gone, however that ended.
package nfslike

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Caches are for how long answers are kept. The zero value keeps none.
type Caches struct {
	Names      time.Duration // that exist
	Negative   time.Duration // that do not
	Attributes time.Duration
}

// Default is what Linux does with NFS unless it is told otherwise, at its slowest.
func Default() Caches {
	return Caches{Names: 30 * time.Second, Negative: 30 * time.Second, Attributes: 30 * time.Second}
}

// childArg is argv[1] of the child.
const childArg = "nfslike-serve"

// Mount is one mounted directory. It may be used by many goroutines.
type Mount struct {
	Path    string // where it is mounted
	Backing string // the directory itself: the server

	mu    sync.Mutex
	child *exec.Cmd
	to    io.WriteCloser
	from  *bufio.Reader
}

// New mounts the directory backing at path; both must exist. Unmount it. The
// program must call Child first of all.
func New(backing, path string, c Caches) (*Mount, error) {
	m := &Mount{Path: path, Backing: backing}
	m.child = exec.Command("/proc/self/exe", childArg, backing, path, c.Names.String(), c.Negative.String(), c.Attributes.String())
	m.child.Stderr = os.Stderr
	m.child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's signal is not for it
	var err error
	if m.to, err = m.child.StdinPipe(); err != nil {
		return nil, err
	}
	from, err := m.child.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.from = bufio.NewReader(from)
	if err := m.child.Start(); err != nil {
		return nil, fmt.Errorf("start the server of %s: %w", path, err)
	}
	if _, err := m.reply(); err != nil {
		m.to.Close()
		_ = m.child.Wait() // why is known
		return nil, err
	}
	return m, nil
}

// Unmount ends it, whoever uses it.
func (m *Mount) Unmount() error {
	_, err := m.ask("unmount")
	m.to.Close()
	return errors.Join(err, m.child.Wait())
}

// Hang lets no call return that has to ask the server, until Answer.
func (m *Mount) Hang() error {
	_, err := m.ask("hang")
	return err
}

// Answer ends Hang.
func (m *Mount) Answer() error {
	_, err := m.ask("answer")
	return err
}

// Syncs counts the calls of fsync(2).
func (m *Mount) Syncs() (int, error) { return m.ask("syncs") }

// Opens counts the calls of open(2) that reached the server.
func (m *Mount) Opens() (int, error) { return m.ask("opens") }

func (m *Mount) ask(what string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := fmt.Fprintln(m.to, what); err != nil {
		return 0, fmt.Errorf("ask the server of %s to %s: %w", m.Path, what, err)
	}
	return m.reply()
}

// reply is a number, or an error in words.
func (m *Mount) reply() (int, error) {
	line, err := m.from.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("hear from the server of %s: %w", m.Path, err)
	}
	line = strings.TrimSpace(line)
	n, err := strconv.Atoi(line)
	if err != nil {
		return 0, errors.New(line)
	}
	return n, nil
}

// Child is the server's process and does not return, if this is one. A program
// that calls New calls it before anything else.
func Child() {
	if len(os.Args) != 7 || os.Args[1] != childArg {
		return
	}
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP) // it ends with its parent
	if err := child(os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child serves and does as it is told, until nobody is there to tell it.
func child(backing, path string, caches []string) error {
	var times [3]time.Duration
	for i := range times {
		var err error
		if times[i], err = time.ParseDuration(caches[i]); err != nil {
			return err
		}
	}
	m, err := serve(backing, path, Caches{Names: times[0], Negative: times[1], Attributes: times[2]})
	if err != nil {
		return err
	}
	fmt.Println(0)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch n := 0; in.Text() {
		case "hang":
			m.hang()
			fmt.Println(n)
		case "answer":
			m.answer()
			fmt.Println(n)
		case "syncs":
			fmt.Println(m.syncs.Load())
		case "opens":
			fmt.Println(m.opens.Load())
		case "unmount":
			if err := unmount(m, path); err != nil {
				return err
			}
			fmt.Println(n)
			return nil
		}
	}
	return unmount(m, path)
}

// unmount takes it away at once. Who is in a call there gets an error.
func unmount(m *mounted, path string) error {
	m.answer()
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.MNT_FORCE); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil // the kernel ends the requests that are left when this process ends
}
