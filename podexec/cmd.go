package podexec

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"syscall"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// Cmd is a command to run on a worker. Its fields are set before Start and mean
// what they mean in os/exec; a Cmd is used once.
type Cmd struct {
	// Program is ffmpeg or ffprobe.
	Program wire.Program
	// Args are the arguments, without the program's name.
	Args []string
	// Env are NAME=VALUE pairs added to the worker's own environment.
	Env []string
	// Dir is the working directory. Defaults to /.
	Dir string
	// Umask is the process's. Defaults to 022.
	Umask uint32
	// Stdin is what the process reads. If nil, the process reads /dev/null. Unlike
	// os/exec, Wait does not wait for a Read in progress.
	Stdin io.Reader
	// Stdout and Stderr get what the process writes, each from one goroutine. If
	// nil, it is dropped.
	Stdout, Stderr io.Writer
	// Record is returned verbatim by Describe.
	Record []byte
	// Session is the id; it must never have been used. Defaults to a random one.
	Session string

	channel *Channel
	cancel  context.CancelFunc
	signals chan syscall.Signal
	started chan struct{} // closed at Started
	done    chan struct{} // closed when exit and err are set
	exit    *wire.Exit
	err     error
}

// Command makes a Cmd that runs through c.
func (c *Channel) Command(program wire.Program, args ...string) *Cmd {
	return &Cmd{Program: program, Args: args, channel: c}
}

var (
	errStarted    = errors.New("podexec: already started")
	errNotStarted = errors.New("podexec: not started")
	errFinished   = errors.New("podexec: process already finished")
)

// Start starts the command and returns when it runs. Cancelling ctx later ends the
// session: its process group is killed. When Start returned nil, Wait must be
// called.
func (c *Cmd) Start(ctx context.Context) error {
	if c.done != nil {
		return errStarted
	}
	ctx, c.cancel = context.WithCancel(ctx)
	c.signals, c.started, c.done = make(chan syscall.Signal, 16), make(chan struct{}), make(chan struct{})
	client := &session.Client{
		Open:  func(ctx context.Context) (session.Stream, error) { return c.channel.Runner().Run(ctx) },
		Start: c.start(), Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
		Signals: c.signals, Direct: true,
		OnStarted: func(*wire.Started) { close(c.started) },
	}
	go func() {
		defer close(c.done)
		defer c.cancel()
		exit, err := client.Run(ctx)
		c.exit, c.err = exit, outcome(exit, err)
	}()
	select {
	case <-c.started:
		return nil
	case <-c.done:
		select {
		case <-c.started: // it was quick
			return nil
		default:
			return c.err
		}
	}
}

func (c *Cmd) start() *wire.Start {
	s := &wire.Start{Session: c.Session, Program: c.Program, Cwd: []byte(c.Dir), Umask: c.Umask, Record: c.Record}
	if s.Session == "" {
		s.Session = rand.Text()
	}
	if c.Dir == "" {
		s.Cwd = []byte("/")
	}
	if c.Umask == 0 {
		s.Umask = 0o022
	}
	for _, a := range c.Args {
		s.Argv = append(s.Argv, []byte(a))
	}
	for _, v := range c.Env {
		s.Env = append(s.Env, []byte(v))
	}
	return s
}

// Wait waits until the command ended and all its output was written. It returns
// nil, *ExitError or *LostError.
func (c *Cmd) Wait() error {
	if c.done == nil {
		return errNotStarted
	}
	<-c.done
	return c.err
}

// Run is Start and Wait. Besides their errors it returns *StartError.
func (c *Cmd) Run(ctx context.Context) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	return c.Wait()
}

// Signal delivers sig to the process, not to its group. It does not wait.
func (c *Cmd) Signal(sig syscall.Signal) error {
	if c.done == nil {
		return errNotStarted
	}
	select {
	case <-c.done: // there is room in signals, and nobody who takes them
		return errFinished
	default:
	}
	select {
	case c.signals <- sig:
		return nil
	case <-c.done:
		return errFinished
	}
}

// Exit is the whole record of a command that ended, nil before Wait returned and
// after a loss.
func (c *Cmd) Exit() *wire.Exit {
	select {
	case <-c.done:
		return c.exit
	default:
		return nil
	}
}
