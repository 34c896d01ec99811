package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
)

const (
	openTimeout     = 15 * time.Second       // one try
	describeTimeout = 5 * time.Second        // one question
	mostSilent      = 3                      // questions without an answer before the channel is given up
	leastBackoff    = 100 * time.Millisecond // between tries
	mostBackoff     = 10 * time.Second
	explainTimeout  = 3 * time.Second // for the pod's status to say why a channel broke
)

// worker is one warm pod. Its fields are guarded by the pool's mutex. One
// goroutine, tend, opens and serves its channel.
type worker struct {
	pool     *Pool
	pod      *corev1.Pod        // the newest state
	gone     bool               // the pod is gone, or will run nothing again
	updated  chan struct{}      // closed and replaced when pod, gone or conn changes
	stop     context.CancelFunc // ends tend
	conn     *conn              // nil while there is no channel
	answered bool
}

// conn is one verified channel and what hangs on it.
type conn struct {
	channel     lease.Channel
	worker      lease.Worker
	restarts    int32         // of the container, when the channel was opened
	questions   chan struct{} // asks for a Describe at once
	description *wire.Description
	silent      int // questions in a row without an answer
	slots       slots
}

func (c *conn) ask() {
	select {
	case c.questions <- struct{}{}:
	default:
	}
}

func (w *worker) update(pod *corev1.Pod) {
	w.pod = pod
	w.announce()
}

func (w *worker) announce() {
	close(w.updated)
	w.updated = make(chan struct{})
}

func (w *worker) draining() bool {
	return w.pod.DeletionTimestamp != nil || w.conn != nil && w.conn.description.GetDraining()
}

func (w *worker) state() WorkerState {
	s := WorkerState{
		Worker:   lease.Worker{Class: w.pod.Labels[class.Label], Pod: w.pod.Name, PodUID: string(w.pod.UID), Node: w.pod.Spec.NodeName},
		Draining: w.draining(),
	}
	if c := w.conn; c != nil {
		s.Worker, s.Slots, s.Used, s.Ready = c.worker, c.slots.total, c.slots.used(), c.silent == 0
		s.Description = c.description
		s.FFmpegBuild, s.FFmpegVersion = c.description.GetFfmpegBuild(), c.description.GetFfmpegVersion()
	}
	return s
}

// look returns what tend acts on, and a channel that closes when it changes.
func (w *worker) look() (pod *corev1.Pod, gone bool, updated <-chan struct{}) {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	return w.pod, w.gone, w.updated
}

// tend keeps a channel open for as long as the container runs.
func (w *worker) tend(ctx context.Context) {
	pause := time.Duration(0)
	for {
		pod, ok := w.await(ctx)
		if !ok {
			return
		}
		begun := time.Now()
		c, err := w.open(ctx, pod)
		if err == nil {
			err = w.serve(ctx, c)
			w.lost(ctx, c, err)
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > mostBackoff && c != nil {
			pause = 0
		}
		pause = min(max(2*pause, leastBackoff), mostBackoff)
		w.pool.config.Log.Debug("channel is down; trying again", zap.String("worker", pod.Name), zap.Duration("after", pause), zap.Error(err))
		w.rest(ctx, running(pod), pause/2+rand.N(pause))
	}
}

// await waits until the container runs.
func (w *worker) await(ctx context.Context) (*corev1.Pod, bool) {
	for {
		pod, _, updated := w.look()
		if running(pod) != "" && ctx.Err() == nil {
			return pod, true
		}
		select {
		case <-ctx.Done():
			return nil, false
		case <-updated:
		}
	}
}

// rest waits between two tries, less when the container has been replaced.
func (w *worker) rest(ctx context.Context, container string, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		pod, _, updated := w.look()
		if running(pod) != container {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-updated:
		}
	}
}

// open makes one try at a channel and verifies who answers on it.
func (w *worker) open(ctx context.Context, pod *corev1.Pod) (*conn, error) {
	asked := time.Now()
	try, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	channel, err := w.pool.config.Open(try, podexec.Target{Namespace: pod.Namespace, Pod: pod.Name})
	if err != nil {
		return nil, fmt.Errorf("open a channel to worker %s: %w", pod.Name, err)
	}
	d := channel.Description()
	if err := lease.Verify(pod, pod.Labels[class.Label], d); err != nil {
		return nil, errors.Join(err, channel.Close())
	}
	c := &conn{
		channel: channel, restarts: lease.Restarts(pod), questions: make(chan struct{}, 1), description: d, slots: newSlots(),
		worker: lease.Worker{Class: d.GetClass(), Pod: pod.Name, PodUID: string(pod.UID), Node: pod.Spec.NodeName, Nonce: d.GetNonce()},
	}
	w.pool.mu.Lock()
	c.slots.tell(d, asked, time.Now(), w.pool.config.Unknown)
	w.conn, w.answered = c, true
	w.announce()
	w.pool.mu.Unlock()
	w.pool.wake()
	w.pool.config.Log.Info("worker answers", zap.String("worker", pod.Name), zap.String("class", c.worker.Class), zap.String("node", c.worker.Node),
		zap.Uint32("slots", d.GetSlots()), zap.Int("sessions", len(d.GetSessions())))
	return c, nil
}

// serve asks the worker what it runs, until the channel or the pod has ended.
func (w *worker) serve(ctx context.Context, c *conn) error {
	tick := time.NewTicker(w.pool.config.Describe)
	defer tick.Stop()
	again := time.NewTimer(w.pool.config.Describe) // sooner, while a session that was given up takes its time to die
	defer again.Stop()
	pause := leastAgain
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.channel.Done():
			return c.channel.Err()
		case <-tick.C:
		case <-again.C:
		case <-c.questions:
			pause = leastAgain
		}
		if err := w.describe(ctx, c); err != nil {
			return err
		}
		if w.ending(c) {
			again.Reset(pause)
			pause = min(2*pause, w.pool.config.Describe)
		}
	}
}

// leastAgain is the first pause before a worker is asked whether a session that
// was given up is over. Its process is killed at once, and reaped soon after.
const leastAgain = 20 * time.Millisecond

func (w *worker) ending(c *conn) bool {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	return len(c.slots.ending) > 0
}

// describe asks once. One unanswered question makes the worker count as full,
// several in a row are an error.
func (w *worker) describe(ctx context.Context, c *conn) error {
	asked := time.Now()
	ask, cancel := context.WithTimeout(ctx, describeTimeout)
	d, err := c.channel.Describe(ask)
	cancel()
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	defer w.pool.wake()
	if err != nil {
		if c.silent++; c.silent < mostSilent {
			return nil
		}
		return fmt.Errorf("worker %s does not answer: %w", c.worker.Pod, err)
	}
	if d.GetNonce() != c.worker.Nonce {
		return fmt.Errorf("worker %s has restarted", c.worker.Pod)
	}
	c.silent, c.description = 0, d
	for _, h := range c.slots.tell(d, asked, time.Now(), w.pool.config.Unknown) {
		h.end(fmt.Errorf("worker %s does not know session %s", c.worker.Pod, h.session))
	}
	return nil
}

// lost takes the channel out of use, closes it, and has its leases told why.
func (w *worker) lost(ctx context.Context, c *conn, broke error) {
	p := w.pool
	p.mu.Lock()
	w.conn = nil
	w.announce()
	held := c.slots.held
	c.slots = newSlots()
	p.mu.Unlock()
	p.wake()
	if err := c.channel.Close(); err != nil {
		p.config.Log.Debug("close a channel", zap.String("worker", c.worker.Pod), zap.Error(err))
	}
	p.tending.Go(func() {
		cause := fmt.Errorf("worker %s: %s", c.worker.Pod, w.explain(ctx, c, broke))
		p.config.Log.Info("worker lost", zap.String("worker", c.worker.Pod), zap.Int("leases", len(held)), zap.Error(cause))
		for _, h := range held {
			h.end(cause)
		}
	})
}

// explain waits shortly for the pod's status to say why a channel broke, or for
// the worker to answer again.
func (w *worker) explain(ctx context.Context, c *conn, broke error) string {
	timeout := time.NewTimer(explainTimeout)
	defer timeout.Stop()
	channel := fmt.Sprintf("its channel ended: %v", broke)
	for {
		w.pool.mu.Lock()
		pod, gone, updated, now := w.pod, w.gone, w.updated, w.conn
		w.pool.mu.Unlock()
		if why := lease.Gone(pod, c.restarts); why != "" {
			return why
		}
		switch {
		case gone:
			return "its pod is gone"
		case now != nil && now.worker.Nonce == c.worker.Nonce:
			return channel
		case now != nil:
			channel = "it has restarted"
		}
		select {
		case <-ctx.Done(): // the pod is gone, which the next round sees, or the pool ends
			if _, gone, _ := w.look(); !gone {
				return "the scheduler closes its channels"
			}
		case <-updated:
		case <-timeout.C:
			return channel
		}
	}
}
