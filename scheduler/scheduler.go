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
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/pool"
	"github.com/ffpod/ffpod/scheduler/store"
)

// classes, workers and jobs are what the scheduler needs of *class.Watcher,
// *pool.Pool and *job.Launcher.
type classes interface {
	List() []class.Class
	Changed() <-chan struct{}
}

type workers interface {
	Workers() []pool.WorkerState
	Lease(pod, nonce, session string) (*lease.Lease, error)
	Changed() <-chan struct{}
}

type jobs interface {
	Launch(ctx context.Context, c class.Class, session string, progress func(reason string)) (*lease.Lease, error)
	Active(class string) int
	Changed() <-chan struct{}
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
	// Zero: the worker's own default.
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
)

// errDraining is why a session's context ends when this process must. The other
// cause is session.ErrShimGone.
var errDraining = errors.New("the scheduler is shutting down")

// Scheduler runs sessions. It owns the dispatcher (Run) and the goroutines of
// the sessions in Serve; Drain ends and awaits the latter.
type Scheduler struct {
	cfg  Config
	log  *zap.Logger
	wake chan struct{}

	serving sync.WaitGroup

	mu       sync.Mutex
	draining bool
	live     map[*run]context.CancelCauseFunc
	waiters  map[string]*waiter
	granted  map[string]int // Jobs granted but not yet given to Jobs, by class
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
	return &Scheduler{
		cfg: cfg, log: cfg.Log, wake: make(chan struct{}, 1),
		live: map[*run]context.CancelCauseFunc{}, waiters: map[string]*waiter{}, granted: map[string]int{},
	}, nil
}

// Serve runs one session of an authenticated caller over its stream, and returns
// when the session is over for this process: the shim was told how, in frames.
// The stream's own end is the caller's of Serve: it must come right after, or a
// goroutine stays in Recv. ctx must end with the stream.
func (s *Scheduler) Serve(ctx context.Context, caller store.Caller, stream session.Stream) {
	// 1. Authenticate: whoever calls Serve has done it.
	r := &run{sched: s, caller: caller, asked: s.cfg.Now(), avoid: map[string]time.Time{}}
	ctx, leave := s.enter(ctx, r)
	defer leave()
	r.listen(stream)
	defer r.hangUp()

	err := r.parse(ctx) // 2. Start, argv and what is asked for
	if err == nil {
		err = r.admit(ctx) // 3. into the store, at the end of the queue
	}
	for err == nil {
		var won grant
		if won, err = r.await(ctx); err != nil { // 4. queue and place
			break
		}
		if err = r.lease(ctx, won); err == nil { // 5. a warm slot is held already, a Job is launched
			if err = r.ticket(ctx); err == nil { // 6. the shim holds its ticket before anything starts
				err = r.execute(ctx) // 7. Start, then bytes both ways until the exit
			}
			r.giveBack(err) // 8. Release or Destroy
		}
		if r.exit != nil {
			break
		}
		err = r.again(ctx, err) // to 4, when nothing has started and there is hope
	}
	r.finish(ctx, err) // 9. tell the shim, the store and the audit log
}

// Run places sessions until ctx is done. It is called once.
func (s *Scheduler) Run(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
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

// Drain refuses new sessions, detaches the live ones, and waits for their
// goroutines until ctx is done. It waits for no ffmpeg.
func (s *Scheduler) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	n := len(s.live)
	for _, cancel := range s.live {
		cancel(errDraining)
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

// enter registers a session, so that Drain finds it.
func (s *Scheduler) enter(ctx context.Context, r *run) (context.Context, func()) {
	stream := ctx
	ctx, r.cancel = context.WithCancelCause(context.WithoutCancel(stream))
	stop := context.AfterFunc(stream, func() { r.cancel(session.ErrShimGone) }) // with a cause that says more
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[r] = r.cancel
	counted := !s.draining // Drain waits already: it may be told of no more
	if counted {
		s.serving.Add(1)
	} else {
		r.cancel(errDraining)
	}
	return ctx, func() {
		stop()
		s.mu.Lock()
		delete(s.live, r)
		s.mu.Unlock()
		r.cancel(nil)
		if counted {
			s.serving.Done()
		}
	}
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
