package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/fence"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/store"
)

// classes, workers and jobs are what the scheduler needs of *class.Watcher,
// *pool.Pool and *job.Launcher.
type classes interface {
	List() []class.Class
	All() []class.Class
	Changed() <-chan struct{}
}

type workers interface {
	reachable
	Lease(pod, nonce, session string) (*lease.Lease, error)
	Pause(ctx context.Context, pod, nonce, session string, most time.Duration) error
	Continue(ctx context.Context, pod, nonce, session string) error
	Changed() <-chan struct{}
}

type jobs interface {
	reachable
	Launch(ctx context.Context, c class.Class, session string, progress func(reason string)) (*lease.Lease, error)
	Discard(session string)
	Active(class string) int
	Changed() <-chan struct{}
}

type standbys interface {
	Free() []channels.WorkerState
	Take(pod, nonce, session string) (*lease.Lease, error)
}

// reachable are workers that run sessions already, also those of an earlier
// scheduler.
type reachable interface {
	Workers() []channels.WorkerState
	Resume(ctx context.Context, pod, podUID, nonce, session string) (*lease.Lease, *wire.SessionState, error)
	Supervisor(ctx context.Context, pod, podUID, nonce string) (wire.SupervisorClient, error)
}

// Config of a Scheduler.
type Config struct {
	Namespace string // of the workers
	Version   string // of this program

	Classes classes
	Pool    workers
	Jobs    jobs
	Store   store.Store
	Metrics *Metrics

	// Standbys are the Jobs made ahead of need. Nil: there are none.
	Standbys standbys
	// Unable says in Kubernetes' words why pods of a class do not run now. Nil:
	// nobody knows.
	Unable func(class string) string

	// CallerLimit is the most sessions of one ServiceAccount on workers. 0: any
	// number.
	CallerLimit int
	// Fallback is what becomes of a kind that has waited, where it is not the
	// default of placement.FallbackOf.
	Fallback map[string]placement.Fallback
	// Policy is for sessions that name none. Defaults to warm-then-job.
	Policy placement.Policy
	// SameBuild refuses workers whose ffmpeg is another build than the caller's.
	SameBuild bool
	// Wait is the longest wait of a session that names no bound. Defaults to 2 m.
	Wait time.Duration
	// JobStart is the most time from the decision for a Job until its worker
	// answers. Defaults to 3 m.
	JobStart time.Duration
	// Grace is how long a worker keeps a session to which nobody is attached.
	// Defaults to 5 m.
	Grace time.Duration
	// Link are the bounds of both hops. Defaults to the protocol's.
	Link session.LinkOptions
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
	// Log defaults to none.
	Log *zap.Logger
}

// Bounds that nobody needs to set.
const (
	startTimeout = 10 * time.Second // for the shim's first frame
	ackTimeout   = 10 * time.Second // for the shim to hold its ticket
	causeTimeout = 4 * time.Second  // for Kubernetes to say why a worker is gone
	byeTimeout   = time.Second      // for a worker to end a stream whose exit is acknowledged
	maxAttempts  = 3                // places for one session
	avoidWorker  = 5 * time.Second  // after it refused
	avoidJobs    = 20 * time.Second // of a class, after one did not start
	pollInterval = time.Second      // of the dispatcher while sessions wait
	probeWait    = 10 * time.Minute // for Jellyfin's questions about the hardware: it asks once in its life
	idleWait     = 30 * time.Minute // for what is measured when there is time
	seekGap      = 10 * time.Second // a player that leaves a slot comes back to it at once, or not soon
	heldPatience = 2 * time.Second  // of a Job for a device that warm workers of its own class hold

	shimGone   = 120 * time.Millisecond // for a living shim to dial again
	shimSilent = 20 * time.Second       // for one whose worker could not be reached
)

// Why a session's contexts end. The other cause is session.ErrShimGone.
var (
	errDraining   = errors.New("the scheduler is shutting down")
	errSuperseded = errors.New("another stream has the session")
	errFenced     = errors.New("a newer session writes the same outputs")
)

// Scheduler runs sessions. It owns the dispatcher (Run) and the goroutines of
// the sessions in Serve; Drain ends and awaits the latter.
type Scheduler struct {
	cfg    Config
	log    *zap.Logger
	wake   chan struct{}
	fences *fence.Table
	begun  time.Time
	silent time.Duration // shimSilent
	gap    time.Duration // seekGap; the mutex guards it

	serving  sync.WaitGroup // sessions, and orders about them
	stopping chan struct{}  // closed by Drain

	reconciling sync.Mutex // one comparison at a time: each ends what the last one began

	mu       sync.Mutex
	draining bool
	live     map[*run]struct{}
	sessions map[string]*run         // of live, by id
	adopted  map[string]lease.Worker // sessions of other schedulers, by the workers' word
	ordered  map[string]bool         // of those, the ones that are being orphaned
	waiters  map[string]*waiter
	granted  map[string]int       // Jobs granted but not yet given to Jobs, by class
	moving   map[string]bool      // sessions that are about to be paused or continued
	left     map[string]time.Time // when a session that somebody waited for last left a warm worker, by pod
	profiles profiles
	viewers  viewers
	answers  answers // has a mutex of its own
}

// New makes a scheduler. Run must run for sessions to be placed.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Classes == nil || cfg.Pool == nil || cfg.Jobs == nil || cfg.Store == nil {
		return nil, errors.New("scheduler: Classes, Pool, Jobs and Store are needed")
	}
	if cfg.Policy == "" {
		cfg.Policy = placement.WarmThenJob
	}
	if cfg.Wait == 0 {
		cfg.Wait = 2 * time.Minute
	}
	if cfg.JobStart == 0 {
		cfg.JobStart = 3 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	if cfg.Unable == nil {
		cfg.Unable = func(string) string { return "" }
	}
	if cfg.Grace == 0 {
		cfg.Grace = session.DefaultGrace
	}
	return &Scheduler{
		cfg: cfg, log: cfg.Log, wake: make(chan struct{}, 1), fences: fence.New(), begun: time.Now(), silent: shimSilent, gap: seekGap, stopping: make(chan struct{}),
		live: map[*run]struct{}{}, sessions: map[string]*run{}, adopted: map[string]lease.Worker{}, ordered: map[string]bool{},
		waiters: map[string]*waiter{}, granted: map[string]int{}, moving: map[string]bool{}, left: map[string]time.Time{}, profiles: newProfiles(),
	}, nil
}

// Serve runs one session of an authenticated caller over its stream, or goes on
// with one, and returns when this stream is over: the shim was told how, in frames.
// The stream's own end is the caller's of Serve: it must come right after, or a
// goroutine stays in Recv. ctx must end with the stream.
func (s *Scheduler) Serve(ctx context.Context, caller store.Caller, stream session.Stream) {
	// 1. Authenticate: whoever calls Serve has done it.
	r := &run{sched: s, caller: caller, asked: s.cfg.Now(), avoid: map[string]time.Time{}, over: make(chan struct{})}
	life, ctx := s.enter(ctx, r)
	r.listen(stream)
	err := r.serve(ctx)
	after := r.end(life, err) // 9. tell the shim, the store and the audit log
	r.hangUp(life)
	if after == nil {
		s.leave(r)
		return
	}
	go func() { // Drain waits for it
		defer s.leave(r)
		after()
	}()
}

// serve is a session from its first frame to its end, or to that of its stream.
func (r *run) serve(ctx context.Context) error {
	first, err := r.opening(ctx)
	switch {
	case err != nil:
		return err
	case first.GetResume() != nil:
		return r.resume(ctx, first.GetResume())
	}
	if err = r.parse(first.GetStart()); err == nil { // 2. Start, argv and what is asked for
		err = r.admit(ctx) // 3. into the store, at the end of the queue
	}
	if err == nil {
		err = r.claim(ctx) // whoever writes the same outputs ends first
	}
	for err == nil {
		var won grant
		if won, err = r.await(ctx); err != nil { // 4. queue and place
			break
		}
		if won.retold != nil {
			err = r.retell(ctx, won) // it needs no worker
			break
		}
		if err = r.lease(ctx, won); err == nil { // 5. a warm slot is held already, a Job is launched
			r.placed.Store(true)
			if err = r.rewrite(won); err == nil { // what this worker is given
				err = r.ticket(ctx) // 6. the shim holds its ticket before anything starts
			}
			if err == nil {
				err = r.execute(ctx, &wire.Frame{Kind: &wire.Frame_Start{Start: r.start}}) // 7. bytes both ways until the exit
			}
			r.giveBack(err) // 8. Release, Leave or Destroy
		}
		if r.exit != nil {
			break
		}
		err = r.again(ctx, err) // to 4, when nothing has started and there is hope
	}
	return err
}

// Run places sessions until ctx is done. It is called once.
func (s *Scheduler) Run(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	look := time.NewTicker(reconcileInterval)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			s.reconcile()
		case <-s.wake:
		case <-s.cfg.Pool.Changed():
		case <-s.cfg.Classes.Changed():
		case <-s.cfg.Jobs.Changed():
		case <-tick.C: // Jobs end and are avoided for a time without a word
		}
		if err := s.dispatch(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("sessions cannot be placed; trying again", zap.Error(err))
		}
	}
}

// Drain refuses new sessions, leaves the live ones to whichever scheduler their
// shims find next, and waits for their goroutines until ctx is done. It ends no
// ffmpeg.
func (s *Scheduler) Drain(ctx context.Context) error {
	s.mu.Lock()
	if !s.draining {
		close(s.stopping)
	}
	s.draining = true
	n := len(s.live)
	for r := range s.live {
		r.leave(errDraining)
	}
	s.mu.Unlock()
	s.log.Info("draining", zap.Int("sessions", n))
	done := make(chan struct{})
	go func() { s.serving.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain %d sessions: %w", n, context.Cause(ctx))
	}
}

// enter registers a session, so that Drain finds it. life ends when this process or
// this run of the session does; ctx also when the shim's stream does.
func (s *Scheduler) enter(stream context.Context, r *run) (life, ctx context.Context) {
	life, r.leave = context.WithCancelCause(context.WithoutCancel(stream))
	ctx, r.cancel = context.WithCancelCause(life)
	r.stop = context.AfterFunc(stream, func() { r.cancel(session.ErrShimGone) }) // with a cause that says more
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[r] = struct{}{}
	if r.counted = !s.draining; r.counted { // Drain waits already: it may be told of no more
		s.serving.Add(1)
	} else {
		r.leave(errDraining)
	}
	return life, ctx
}

// leave forgets a session: nothing of it runs here any more.
func (s *Scheduler) leave(r *run) {
	r.stop()
	s.mu.Lock()
	delete(s.live, r)
	if s.sessions[r.id] == r {
		delete(s.sessions, r.id)
	}
	s.mu.Unlock()
	r.leave(nil)
	close(r.over)
	if r.counted {
		s.serving.Done()
	}
}

// background runs f until it returns; its context ends after bound, or when the
// scheduler drains.
func (s *Scheduler) background(bound time.Duration, f func(ctx context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return
	}
	s.serving.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		go func() {
			select {
			case <-s.stopping:
				stop(errDraining)
			case <-ctx.Done():
			}
		}()
		f(ctx)
	})
}

func (s *Scheduler) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// refuse words a refusal.
func refuse(why wire.Refusal, remedy, format string, args ...any) *session.RefusedError {
	return &session.RefusedError{Refusal: why, Message: fmt.Sprintf(format, args...), Remedy: remedy}
}
