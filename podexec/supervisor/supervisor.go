package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// Config is what a worker is told at its start.
type Config struct {
	// Class is the name of the worker's class, for Describe.
	Class string
	// Slots is how many sessions may run at once. Defaults to 1.
	Slots int
	// Once makes the first session the last: the worker of a Job.
	Once bool
	// Idle bounds the wait for the first session in once mode, so that a Job
	// whose scheduler died frees its GPU. Defaults to 60 s.
	Idle time.Duration
	// Unproved runs no trials and tells no capabilities: whoever asks has to believe
	// that the worker can do it.
	Unproved bool
	// Standby says that a once worker was made ahead of need: Idle counts from the
	// last Describe, for a scheduler that asks still wants it, and when it is over
	// the worker is retired, which is no error.
	Standby bool
	// Grace is what running sessions get to end by themselves after TERM, when
	// the worker's pod is deleted. Defaults to 20 s.
	Grace time.Duration
	// FFmpeg and FFprobe are the paths of the real programs.
	FFmpeg, FFprobe string
	// Pod, PodUID and Node are told by Describe.
	Pod, PodUID, Node string
	// Version is ffpod's own.
	Version string
	// Log gets a line per session's start and end, without its argv.
	Log *zap.Logger
	// Session are the bounds of the hop to the scheduler.
	Session session.LinkOptions
}

// Supervisor runs sessions. It owns its children and the goroutines of Serve.
type Supervisor struct {
	wire.UnimplementedRunnerServer
	wire.UnimplementedSupervisorServer

	conf     Config
	nonce    string
	about    about
	children *forking
	looks    looker
	memory   *memoryWatch // nil: there is no limit to watch
	slots    slots
	prover   *prover
	load     *loadMeter

	sessions sync.WaitGroup // run.live of each

	mu       sync.Mutex
	running  map[string]*run        // admitted and not yet over, by session; nil while it is started
	starting map[string]*wire.Start // those that are nil
	records  []*wire.SessionState
	kept     int    // bytes of records
	known    recent // sessions that were admitted, those that ended last the newest
	barred   recent // sessions that were asked about before they came: they may not start
	draining bool
	first    chan struct{} // closed at the first admission
	asked    chan struct{} // a standby was described
	last     chan ending   // once mode: the one session's end, after its stream
}

// ending is the outcome of a once worker.
type ending struct {
	exit *wire.Exit
	err  error
}

// keptRecords and keptBytes bound the exits that Describe still tells: a worker
// whose answer is too long for a message looks dead.
const (
	keptRecords = 256
	keptBytes   = 1 << 20
)

// New makes a supervisor; Serve starts it.
func New(conf Config) (*Supervisor, error) {
	if conf.Slots < 1 || conf.Once {
		conf.Slots = 1
	}
	if conf.Idle == 0 {
		conf.Idle = time.Minute
	}
	if conf.Grace == 0 {
		conf.Grace = 20 * time.Second
	}
	if conf.Log == nil {
		conf.Log = zap.NewNop()
	}
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, fmt.Errorf("boot nonce: %w", err)
	}
	memory, err := newMemoryWatch()
	if err != nil {
		conf.Log.Info("memory is not watched", zap.Error(err))
	}
	s := &Supervisor{
		conf: conf, nonce: hex.EncodeToString(nonce[:]),
		children: newForking(),
		memory:   memory,
		slots:    slots{most: conf.Slots},
		running:  map[string]*run{},
		starting: map[string]*wire.Start{},
		known:    newRecent(keptNames),
		barred:   newRecent(keptNames),
		first:    make(chan struct{}),
		asked:    make(chan struct{}, 1),
		last:     make(chan ending, 1),
	}
	s.prover = newProver(s)
	s.load = newLoadMeter(s.prover.utilisation)
	return s, nil
}

// ErrIdle is returned by Serve in once mode when no session came within Idle.
var ErrIdle = errors.New("no session came")

// Serve serves l until ctx ends or, in once mode, its session did. When ctx ends,
// sessions get TERM, Grace, KILL, and their exits are delivered. It returns the
// exit of a once worker's session, else nil; all processes and goroutines are gone
// by then. Serve closes l.
func (s *Supervisor) Serve(ctx context.Context, l net.Listener) (*wire.Exit, error) {
	server := grpc.NewServer(append(session.ChannelServerOptions(), grpc.WaitForHandlers(true))...)
	wire.RegisterRunnerServer(server, s)
	wire.RegisterSupervisorServer(server, s)

	var background sync.WaitGroup
	defer background.Wait()
	stopped, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	background.Go(func() {
		s.about.learn(stopped, s.conf, s.children)
		s.prover.work(stopped)
	})
	if os.Getpid() == 1 {
		background.Go(func() { s.children.reapStrays(stopped) })
	}

	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	exit, err := s.await(ctx)
	server.Stop() // ends streams and waits for their handlers
	s.forget()
	s.awaitSessions()
	if exit == nil && err == nil {
		exit, err = s.outcome()
	}
	if failed := <-served; err == nil && failed != nil && !errors.Is(failed, grpc.ErrServerStopped) {
		err = fmt.Errorf("serve %s: %w", l.Addr(), failed)
	}
	return exit, err
}

// await returns when the supervisor has nothing left to do: with the end of a once
// worker, as far as that is why.
func (s *Supervisor) await(ctx context.Context) (*wire.Exit, error) {
	timer := time.NewTimer(s.conf.Idle)
	defer timer.Stop()
	idle := timer.C
	if !s.conf.Once {
		idle = nil
	}
	first := s.first
	for {
		select {
		case <-first:
			first, idle = nil, nil
		case <-s.asked:
			timer.Reset(s.conf.Idle)
		case <-idle:
			switch retired := s.retire(); {
			case retired && s.conf.Standby:
				s.conf.Log.Info("standby worker is retired: no scheduler has asked for it", zap.Duration("for", s.conf.Idle))
				return nil, nil
			case retired:
				return nil, fmt.Errorf("%w within %s", ErrIdle, s.conf.Idle)
			}
			idle = nil
		case end := <-s.last:
			return end.exit, end.err
		case <-ctx.Done():
			s.drain()
			return nil, nil // see outcome
		}
	}
}

// retire refuses all sessions from now on unless one was admitted.
func (s *Supervisor) retire() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.first:
		return false
	default:
		s.draining = true
		return true
	}
}

// ErrUnknownEnd is returned by Serve in once mode when it had to go before its
// session's process was gone.
var ErrUnknownEnd = errors.New("how the session ended is not known")

// outcome is how the session of a once worker ended, when that has to stop: its exit
// may not have been taken by anybody. No exit and no error: there was no session.
func (s *Supervisor) outcome() (*wire.Exit, error) {
	select {
	case end := <-s.last:
		return end.exit, end.err
	default:
	}
	if !s.conf.Once {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.running {
		if r == nil {
			continue
		}
		if exit := r.state().Exit; exit != nil {
			return exit, nil
		}
	}
	select {
	case <-s.first:
		return nil, ErrUnknownEnd
	default:
		return nil, nil
	}
}

// drain ends every session and waits until its exit was delivered or its stream
// is gone.
func (s *Supervisor) drain() {
	s.mu.Lock()
	s.draining = true
	var all []*run
	for _, r := range s.running {
		if r != nil {
			all = append(all, r)
		}
	}
	s.mu.Unlock()
	var ending sync.WaitGroup
	for _, r := range all {
		ending.Go(func() {
			r.terminate(s.conf.Grace, wire.Cause_CAUSE_SHUTDOWN)
			select {
			case <-r.over:
			case <-time.After(deliverBound):
			}
		})
	}
	ending.Wait()
}

// deliverBound is how long a draining worker waits for a consumer to take the
// last bytes and the exit of an ended session.
const deliverBound = 5 * time.Second

// awaitSessions waits for the goroutines of the sessions; not for one whose process
// the kernel does not let go.
func (s *Supervisor) awaitSessions() {
	done := make(chan struct{})
	go func() { s.sessions.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(deliverBound):
	}
}

// forget gives up the sessions whose exit nobody took.
func (s *Supervisor) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.running {
		if r != nil {
			r.mu.Lock()
			r.giveUp()
			r.mu.Unlock()
		}
	}
}

// watch ends the session when it is the largest and memory is short. leave is called
// when it is gone, and tells whether the kernel was quicker.
func (s *Supervisor) watch(r *run) (leave func() bool) {
	return s.memory.enter(r.proc.pid, func(used, limit int64) {
		s.conf.Log.Warn("memory is short: the largest session ends", zap.String("session", r.start.Session), zap.Int64("used", used), zap.Int64("limit", limit))
		r.kill(syscall.SIGKILL, wire.Cause_CAUSE_MEMORY)
	})
}
