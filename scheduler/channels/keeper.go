package channels

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// Errors of Lease. Both mean: look at Workers again.
var (
	// ErrFull occurs when the worker has no free slot.
	ErrFull = errors.New("no slot is free")
	// ErrGone occurs when the worker is not there any more, restarted, cannot be
	// reached now, or takes no new sessions.
	ErrGone = errors.New("the worker takes no sessions")
)

// errStopping is why nobody waits for a channel any more.
var errStopping = errors.New("the scheduler closes its channels")

// Config of a Keeper. The functions may be called from any goroutine.
type Config struct {
	// Get reads a pod from the API server, by name and from no cache.
	Get  func(ctx context.Context, pod string) (*corev1.Pod, error)
	Open lease.Open
	// ClassLabel is the label of a pod that names its class.
	ClassLabel string
	// Ours tells whether a pod that was read by its name is a worker of this set.
	Ours func(*corev1.Pod) bool
	// Verify says what is wrong with who answers on a channel to the pod.
	Verify func(*corev1.Pod, *wire.Description) error
	// Wake is called after anything has changed. It must not block, nor call the
	// Keeper.
	Wake func()
	Log  *zap.Logger
	// Settle is how long Ready waits for silent workers. Defaults to 5 s.
	Settle time.Duration
	// Describe is how often a worker is asked what it runs. Defaults to 10 s.
	Describe time.Duration
	// Unknown is how long a lease may stand for a session that the worker does
	// not know. Defaults to 30 s.
	Unknown time.Duration
	// Idle and Unready are how long a pod without a running container, and one
	// whose node is not ready, is given before it counts as gone. They default to
	// 12 s, which is longer than a kubelet takes to repeat a status that it could
	// not tell, and 20 s, which is longer than one takes to restart.
	Idle, Unready time.Duration
}

// Keeper keeps the channels. Its methods may be called from any goroutine. Stop
// is to be called.
type Keeper struct {
	config   Config
	tending  sync.WaitGroup // the goroutines of the workers
	stopping chan struct{}  // closed by Stop

	mu       sync.Mutex
	stopped  bool
	workers  map[types.UID]*worker
	departed map[types.UID]*lease.GoneError // why the last of them went, the newest mostDeparted
	order    []types.UID                    // of departed, the oldest first
	settled  bool                           // Settle has passed
	ready    bool                           // Ready was true once
}

// WorkerState is what is known of a worker.
type WorkerState struct {
	lease.Worker
	Slots, Used int
	// Ready: the channel is open and the worker answers. A worker that is not
	// Ready counts as full.
	Ready bool
	// Draining: no new sessions; those that run may go on.
	Draining bool
	// Paused are the sessions that are stopped and hold no slot, since when.
	Paused                     map[string]time.Time
	FFmpegBuild, FFmpegVersion string
	// Template is lease.Template of its pod.
	Template string
	// Description is the last answer of the present boot, nil before the first
	// one. It is not to be changed.
	Description *wire.Description
	// Began is when the running container began, by its node's clock; zero: none runs.
	Began time.Time
	// Asked is when it was asked for, Since when the boot first answered, Ended
	// since when it has been known that no session of it runs; zero: one does.
	Asked, Since, Ended time.Time
}

// Runs reports whether a session runs in the worker, by its last word.
func (s WorkerState) Runs() bool {
	return slices.ContainsFunc(s.Description.GetSessions(), func(x *wire.SessionState) bool { return x.GetExit() == nil })
}

// New makes a Keeper of no workers.
func New(c Config) *Keeper {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	c.Settle = cmp.Or(c.Settle, 5*time.Second)
	c.Describe = cmp.Or(c.Describe, 10*time.Second)
	c.Unknown = cmp.Or(c.Unknown, 30*time.Second)
	c.Idle = cmp.Or(c.Idle, 12*time.Second)
	c.Unready = cmp.Or(c.Unready, 20*time.Second)
	return &Keeper{config: c, stopping: make(chan struct{}), workers: map[types.UID]*worker{}, departed: map[types.UID]*lease.GoneError{}}
}

// Stop closes every channel and waits. Leases are not told: their workers are
// not gone. It may be called once.
func (k *Keeper) Stop() {
	k.mu.Lock()
	k.stopped = true
	close(k.stopping)
	for _, w := range k.workers {
		w.stop()
	}
	k.mu.Unlock()
	k.tending.Wait()
}

// Seen takes the newest state of a pod.
func (k *Keeper) Seen(pod *corev1.Pod) { _ = k.enter(pod, nil) }

// Enter takes a pod and an open channel to the worker in it, which was verified.
// The Keeper owns the channel unless there is an error. A worker that was seen
// before has, or gets, a channel of its own: then this one is closed.
func (k *Keeper) Enter(pod *corev1.Pod, channel lease.Channel) error { return k.enter(pod, channel) }

func (k *Keeper) enter(pod *corev1.Pod, channel lease.Channel) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.config.Wake()
	if k.stopped {
		return errStopping
	}
	w := k.workers[pod.UID]
	switch {
	case lease.Over(pod):
		k.remove(w, pod)
		return k.departed[pod.UID]
	case w == nil:
		ctx, stop := context.WithCancelCause(context.Background())
		w = &worker{keeper: k, pod: pod, updated: make(chan struct{}), stop: func() { stop(errStopping) }}
		k.workers[pod.UID] = w
		var c *conn
		serving := ctx
		if channel != nil {
			c, serving = w.connect(ctx, channel, time.Now())
		}
		k.tending.Go(func() { w.tend(ctx, c, serving) })
	case channel != nil:
		k.tending.Go(func() { k.close(channel, pod.Name) })
	default:
		w.update(pod)
	}
	return nil
}

func (k *Keeper) close(channel lease.Channel, pod string) {
	if err := channel.Close(); err != nil {
		k.config.Log.Debug("close a channel", zap.String("worker", pod), zap.Error(err))
	}
}

// Deleted takes the last known state of a pod that is gone; nil: never seen.
func (k *Keeper) Deleted(pod *corev1.Pod) {
	if pod == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.remove(k.workers[pod.UID], pod)
	k.config.Wake()
}

// mostDeparted bounds the memory of why workers went. Resumes for them come
// within minutes.
const mostDeparted = 1024

// remove is called with the mutex held. Of a worker that was never seen only the
// reason is kept.
func (k *Keeper) remove(w *worker, pod *corev1.Pod) {
	restarts := int32(0)
	if w != nil {
		if newer(pod, w.pod) {
			w.pod = pod
		}
		pod = w.pod
		if w.boot != nil {
			restarts = w.boot.restarts
		}
	}
	if _, known := k.departed[pod.UID]; !known {
		k.departed[pod.UID] = &lease.GoneError{Pod: pod.Name, Why: cmp.Or(lease.Gone(pod, restarts), "the pod is gone")}
		if k.order = append(k.order, pod.UID); len(k.order) > mostDeparted {
			delete(k.departed, k.order[0])
			k.order = k.order[1:]
		}
	}
	if w == nil {
		return
	}
	delete(k.workers, pod.UID)
	w.gone = k.departed[pod.UID]
	w.end(w.gone)
	w.announce()
	w.stop()
}

// newer reports whether a is not known to be older than b: a read and a watch
// may overtake each other.
func newer(a, b *corev1.Pod) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || order >= 0
}

// Settle ends the wait for silent workers after its time. It is to be called
// when every pod that there is has been seen, and returns early when the Keeper
// stops.
func (k *Keeper) Settle() {
	k.config.Wake() // Ready may be true at once
	timer := time.NewTimer(k.config.Settle)
	defer timer.Stop()
	select {
	case <-k.stopping:
	case <-timer.C:
		k.mu.Lock()
		k.settled = true
		k.mu.Unlock()
		k.config.Wake()
	}
}

// Ready reports whether every running worker among the pods has answered once, or
// the time for it has passed. Once true it stays true. pods is called when all of
// them are known.
func (k *Keeper) Ready(synced func() bool, pods func() []*corev1.Pod) bool {
	k.mu.Lock()
	ready := k.ready
	k.mu.Unlock()
	if ready || !synced() {
		return ready
	}
	all := pods()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ready = k.ready || k.settled || !slices.ContainsFunc(all, func(pod *corev1.Pod) bool {
		w := k.workers[pod.UID] // a pod is in the cache shortly before it is seen
		return !lease.Over(pod) && (w == nil || running(w.pod) != "" && !w.answered)
	})
	return k.ready
}

// Workers returns every worker, by name.
func (k *Keeper) Workers() []WorkerState {
	k.mu.Lock()
	defer k.mu.Unlock()
	states := make([]WorkerState, 0, len(k.workers))
	for _, w := range k.workers {
		states = append(states, w.state())
	}
	slices.SortFunc(states, func(a, b WorkerState) int { return strings.Compare(a.Pod, b.Pod) })
	return states
}

// Lease takes a slot of the worker for a session that is to be started. The error
// is ErrFull or ErrGone.
func (k *Keeper) Lease(pod, nonce, session string) (lease.Terms, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		c := w.conn
		if w.pod.Name != pod || c == nil || c.boot.worker.Nonce != nonce || c.silent > 0 || w.draining() {
			continue
		}
		h := c.boot.slots.hold(session)
		if h == nil {
			return lease.Terms{}, fmt.Errorf("lease worker %s: %w", pod, ErrFull)
		}
		return k.terms(c, h), nil
	}
	return lease.Terms{}, fmt.Errorf("lease worker %s: %w", pod, ErrGone)
}

func (k *Keeper) terms(c *conn, h *hold) lease.Terms {
	end := func(how func(*slots, *hold, time.Time)) {
		k.mu.Lock()
		how(&c.boot.slots, h, time.Now())
		if w := k.workers[types.UID(c.boot.worker.PodUID)]; w != nil && w.conn != nil && len(c.boot.slots.ending) > 0 {
			w.conn.ask() // the channel of the lease may have been replaced
		}
		k.mu.Unlock()
		k.config.Wake()
	}
	leave := func() { end((*slots).leave) }
	return lease.Terms{
		Worker: c.boot.worker, Runner: c.channel.Runner(), Supervisor: c.channel.Supervisor(),
		Gone: h.gone, Cause: func() error { return h.cause },
		Release: func() { end((*slots).release) },
		Leave:   leave,
		Destroy: leave, // of a Job, the launcher does more
		Suspect: func() { k.suspect(c) },
	}
}

// Resume takes over the slot of a session that the worker runs: from an older
// lease, which then is a mere shell, or from nobody. It waits, bounded by ctx
// alone, for a channel to this very pod and boot, and returns what the worker now
// says of the session. The error is lease.ErrGone or lease.ErrUnknown, both final,
// or says what was waited for when ctx ended.
func (k *Keeper) Resume(ctx context.Context, pod, podUID, nonce, session string) (lease.Terms, *wire.SessionState, error) {
	for {
		c, err := k.reach(ctx, pod, podUID, nonce)
		if err != nil {
			return lease.Terms{}, nil, fmt.Errorf("resume session %s: %w", session, err)
		}
		d, err := k.ask(ctx, c, describeTimeout)
		if err != nil {
			continue // it was given up; or ctx has ended, which reach says
		}
		i := slices.IndexFunc(d.GetSessions(), func(s *wire.SessionState) bool { return s.GetSession() == session })
		if i < 0 {
			return lease.Terms{}, nil, fmt.Errorf("resume session %s on worker %s: %w", session, pod, lease.ErrUnknown)
		}
		state := d.GetSessions()[i]
		k.mu.Lock()
		if c.boot.over {
			k.mu.Unlock()
			continue // reach says why
		}
		h := c.boot.slots.takeOver(session, state.GetExit() != nil)
		k.mu.Unlock()
		k.config.Wake()
		return k.terms(c, h), state, nil
	}
}

// Supervisor returns a way to order the worker about its sessions. It waits as
// Resume does. The error is lease.ErrGone, or says what was waited for. A worker
// that leaves an order without an answer is suspected.
func (k *Keeper) Supervisor(ctx context.Context, pod, podUID, nonce string) (wire.SupervisorClient, error) {
	c, err := k.reach(ctx, pod, podUID, nonce)
	if err != nil {
		return nil, fmt.Errorf("order worker %s: %w", pod, err)
	}
	return orders{SupervisorClient: c.channel.Supervisor(), channel: c.channel, suspect: func() { k.suspect(c) }}, nil
}

// Ask asks a worker now. The answer is nil when there is no channel or no answer.
func (k *Keeper) Ask(ctx context.Context, podUID string) *wire.Description {
	k.mu.Lock()
	w := k.workers[types.UID(podUID)]
	if w == nil || w.conn == nil {
		k.mu.Unlock()
		return nil
	}
	c := w.conn
	k.mu.Unlock()
	d, _ := k.ask(ctx, c, describeTimeout)
	return d
}

// Part says that the worker has served its time: it is about to end by itself,
// and a channel that breaks is no reason to hurry.
func (k *Keeper) Part(podUID string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[types.UID(podUID)]; w != nil {
		w.parting = true
	}
}

// Cordon keeps a worker that has no session from getting one, which makes it
// Draining, until Uncordon. False: it has one.
func (k *Keeper) Cordon(podUID string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.workers[types.UID(podUID)]
	switch {
	case w == nil: // nobody can lease it
		return true
	case w.boot != nil && !w.boot.over && (w.boot.slots.used() > 0 || len(w.boot.slots.paused) > 0):
		return false
	}
	w.cordoned = true
	return true
}

// Uncordon lets a worker have sessions again.
func (k *Keeper) Uncordon(podUID string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[types.UID(podUID)]; w != nil && w.cordoned {
		w.cordoned = false
		k.config.Wake()
	}
}
