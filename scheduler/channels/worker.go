package channels

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/scheduler/lease"
)

const (
	openTimeout     = 15 * time.Second       // one try
	describeTimeout = 5 * time.Second        // one question
	mostSilent      = 3                      // questions without an answer before the channel is given up
	leastBackoff    = 100 * time.Millisecond // between tries, after the first
	mostBackoff     = 3 * time.Second
	longLived       = 10 * time.Second      // a channel whose successor is tried at once
	explainTimeout  = 3 * time.Second       // for the pod's status to say why a boot has ended
	inquirePause    = time.Second           // between reads of a pod without a running container
	partingPause    = 5 * time.Second       // before a worker that is about to end is tried again
	leastAgain      = 20 * time.Millisecond // before a worker is asked whether a session that was given up is over
	mostPast        = 8                     // ended boots that are remembered
)

// worker is one pod. Its fields are guarded by the keeper's mutex. One
// goroutine, tend, opens and serves its channel.
type worker struct {
	keeper   *Keeper
	pod      *corev1.Pod      // the newest state
	gone     *lease.GoneError // the pod is not there, or will run nothing again
	updated  chan struct{}    // closed and replaced when anything here changes
	stop     func()           // ends tend
	conn     *conn            // nil while there is no channel
	boot     *boot            // the last one that answered
	past     []*boot          // those before it, and it, once they have ended
	wanted   int              // callers that wait for a channel
	answered bool
	parting  bool
	cordoned bool
	fault    error // of the last try at a channel

	quiet string // what the last read told against it: see quietness
	since time.Time
	mute  *lease.GoneError // set when that has been so for too long
}

func (w *worker) update(pod *corev1.Pod) {
	if newer(pod, w.pod) {
		w.pod = pod
		w.announce()
	}
}

func (w *worker) announce() {
	close(w.updated)
	w.updated = make(chan struct{})
}

func (w *worker) draining() bool {
	return w.cordoned || w.pod.DeletionTimestamp != nil || w.boot != nil && w.boot.description.GetDraining()
}

func (w *worker) state() WorkerState {
	s := WorkerState{
		Worker:   lease.Worker{Class: w.pod.Labels[w.keeper.config.ClassLabel], Pod: w.pod.Name, PodUID: string(w.pod.UID), Node: w.pod.Spec.NodeName, Job: lease.JobOf(w.pod)},
		Draining: w.draining(),
	}
	if c := lease.Running(w.pod); c != nil {
		s.Began = c.State.Running.StartedAt.Time
	}
	if b := w.boot; b != nil && !b.over {
		s.Worker, s.Slots, s.Used, s.Ready = b.worker, b.slots.total, b.slots.used(), w.conn != nil && w.conn.silent == 0
		s.Template = b.template
		s.Paused = maps.Clone(b.slots.paused)
		s.Description, s.Asked, s.Since, s.Ended = b.description, b.asked, b.since, b.idle
		s.FFmpegBuild, s.FFmpegVersion = b.description.GetFfmpegBuild(), b.description.GetFfmpegVersion()
	}
	return s
}

// look returns what tend acts on, and a channel that closes when it changes.
func (w *worker) look() (pod *corev1.Pod, wanted, known bool, updated <-chan struct{}) {
	w.keeper.mu.Lock()
	defer w.keeper.mu.Unlock()
	return w.pod, w.wanted > 0, w.boot != nil && !w.boot.over, w.updated
}

// tend keeps a channel open for as long as the container runs. It may begin with
// one.
func (w *worker) tend(ctx context.Context, c *conn, serving context.Context) {
	var err error
	var inquired time.Time
	for pause := time.Duration(0); ; pause = min(max(2*pause, leastBackoff), mostBackoff) {
		container := ""
		if c == nil {
			pod, ok := w.await(ctx)
			if !ok {
				return
			}
			container = running(pod)
			c, serving, err = w.open(ctx, pod)
		}
		if c != nil {
			begun := time.Now()
			err = w.serve(serving, c)
			w.lost(c, err)
			if c = nil; time.Since(begun) > longLived {
				pause = 0
			}
		} else if ctx.Err() == nil && (time.Since(inquired) >= inquirePause || apierrors.IsNotFound(err)) {
			inquired = time.Now()
			w.inquire(ctx, err)
		}
		if ctx.Err() != nil {
			return
		}
		w.keeper.config.Log.Debug("channel is down; trying again", zap.String("worker", w.name()), zap.Duration("after", pause), zap.Error(err))
		w.rest(ctx, container, pause)
	}
}

func (w *worker) name() string {
	pod, _, _, _ := w.look()
	return pod.Name
}

// await waits until the container runs. The watch may lag: while that matters to
// anybody the pod is read.
func (w *worker) await(ctx context.Context) (*corev1.Pod, bool) {
	tick := time.NewTicker(inquirePause)
	defer tick.Stop()
	for {
		pod, wanted, known, updated := w.look()
		if ctx.Err() != nil {
			return nil, false
		}
		if running(pod) != "" {
			return pod, true
		}
		select {
		case <-ctx.Done():
		case <-updated:
		case <-tick.C:
			if wanted || known {
				w.inquire(ctx, errors.New("no container of it runs"))
			}
		}
	}
}

// rest waits between two tries: less when the container has been replaced, its
// node is back, or somebody waits for it.
func (w *worker) rest(ctx context.Context, container string, pause time.Duration) {
	begun := time.Now()
	before, _, _, _ := w.look()
	pause = pause/2 + rand.N(pause+1)
	short := wantedPause/2 + rand.N(wantedPause)
	for {
		pod, wanted, _, updated := w.look()
		if container != "" && running(pod) != container || lease.NodeSilent(before) && !lease.NodeSilent(pod) {
			return
		}
		left := pause
		if w.parts() {
			left = max(left, partingPause)
		}
		if wanted {
			left = min(left, short)
		}
		if left -= time.Since(begun); left <= 0 {
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-updated:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

func (w *worker) parts() bool {
	w.keeper.mu.Lock()
	defer w.keeper.mu.Unlock()
	return w.parting
}

// open makes one try at a channel and verifies who answers on it.
func (w *worker) open(ctx context.Context, pod *corev1.Pod) (*conn, context.Context, error) {
	k := w.keeper
	asked := time.Now()
	try, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	channel, err := k.config.Open(try, podexec.Target{Namespace: pod.Namespace, Pod: pod.Name})
	if err != nil {
		return nil, nil, fmt.Errorf("open a channel to worker %s: %w", pod.Name, err)
	}
	if err := k.config.Verify(pod, channel.Description()); err != nil {
		return nil, nil, errors.Join(err, channel.Close())
	}
	k.mu.Lock()
	if w.gone != nil {
		k.mu.Unlock()
		return nil, nil, errors.Join(w.gone, channel.Close())
	}
	c, serving := w.connect(ctx, channel, asked)
	k.mu.Unlock()
	k.config.Wake()
	return c, serving, nil
}

// connect takes a verified channel into use: of the boot that is known, or of
// one that has followed it. The mutex is held.
func (w *worker) connect(ctx context.Context, channel lease.Channel, asked time.Time) (*conn, context.Context) {
	d, b := channel.Description(), w.boot
	if b == nil || b.over || b.worker.Nonce != d.GetNonce() {
		w.supersede(ctx)
		// A boot that was given up with its node may come back.
		w.past = slices.DeleteFunc(w.past, func(p *boot) bool { return p.worker.Nonce == d.GetNonce() })
		b = &boot{
			worker:   lease.Worker{Class: d.GetClass(), Pod: w.pod.Name, PodUID: string(w.pod.UID), Node: w.pod.Spec.NodeName, Nonce: d.GetNonce(), Job: lease.JobOf(w.pod), Resumes: d.GetResumes()},
			template: lease.Template(&w.pod.Spec),
			slots:    newSlots(), restarts: lease.Restarts(w.pod), since: time.Now(), ended: make(chan struct{}),
		}
		w.keeper.config.Log.Info("worker answers", zap.String("worker", w.pod.Name), zap.String("class", d.GetClass()), zap.String("node", w.pod.Spec.NodeName),
			zap.Uint32("slots", d.GetSlots()), zap.Int("sessions", len(d.GetSessions())))
	} else {
		w.keeper.config.Log.Info("worker answers again", zap.String("worker", w.pod.Name), zap.Int("sessions", len(d.GetSessions())))
	}
	b.tell(d, asked, w.keeper.config.Unknown)
	serving, giveUp := context.WithCancelCause(ctx)
	w.conn = &conn{channel: channel, boot: b, giveUp: giveUp, given: serving.Done(), questions: make(chan struct{}, 1)}
	w.boot, w.answered, w.fault, w.mute, w.quiet = b, true, nil, nil, ""
	w.announce()
	return w.conn, serving
}

// supersede ends the boot that was known: another one answers. Why is told when
// the pod's status says it, or a little later. The mutex is held.
func (w *worker) supersede(ctx context.Context) {
	old := w.boot
	if old == nil || old.over {
		return
	}
	old.over = true
	w.bury(old)
	w.keeper.tending.Go(func() { w.explain(ctx, old) })
}

func (w *worker) bury(b *boot) {
	if w.past = append(w.past, b); len(w.past) > mostPast {
		w.past = slices.Delete(w.past, 0, 1)
	}
}

// ended returns a boot that has ended. The mutex is held.
func (w *worker) ended(nonce string) *boot {
	for _, b := range w.past {
		if b.worker.Nonce == nonce {
			return b
		}
	}
	return nil
}

// level is that of the news that the worker, or its channel, has ended: none when
// it was to end. The mutex is held.
func (w *worker) level() zapcore.Level {
	if w.parting || w.keeper.stopped {
		return zapcore.DebugLevel
	}
	return zapcore.InfoLevel
}

// end ends the boot. The mutex is held.
func (w *worker) end(why *lease.GoneError) {
	if b := w.boot; b != nil && !b.over {
		w.keeper.config.Log.Log(w.level(), "worker lost", zap.String("worker", w.pod.Name), zap.Int("leases", len(b.slots.held)), zap.String("why", why.Why))
		b.end(why)
		w.bury(b)
	}
}

// explain waits shortly for the pod's status to say why a boot has ended.
func (w *worker) explain(ctx context.Context, b *boot) {
	k := w.keeper
	timeout := time.NewTimer(explainTimeout)
	defer timeout.Stop()
	for late := false; ; {
		k.mu.Lock()
		why, updated := lease.Gone(w.pod, b.restarts), w.updated
		if why != "" || late || w.gone != nil {
			defer k.mu.Unlock()
			why = cmp.Or(why, "it has restarted")
			k.config.Log.Info("worker has restarted", zap.String("worker", b.worker.Pod), zap.Int("leases", len(b.slots.held)), zap.String("why", why))
			b.end(&lease.GoneError{Pod: b.worker.Pod, Why: why})
			return
		}
		k.mu.Unlock()
		select {
		case <-ctx.Done():
			if k.halted() {
				return // nobody knows, and nobody is told
			}
			late = true
		case <-updated:
		case <-timeout.C:
			late = true
		}
	}
}

func (k *Keeper) halted() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stopped
}

// serve asks the worker what it runs, until the channel or the pod has ended.
func (w *worker) serve(ctx context.Context, c *conn) error {
	every := w.keeper.config.Describe
	tick := time.NewTicker(every)
	defer tick.Stop()
	again := time.NewTimer(every) // sooner, while its word is about to change
	defer again.Stop()
	pause := leastAgain
	if w.unsettled(c) { // since before this channel
		again.Reset(pause)
	}
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
		if w.unsettled(c) {
			again.Reset(pause)
			pause = min(2*pause, every)
		}
	}
}

// unsettled tells whether the worker's next word is wanted soon: a session is about
// to end, or its trials are.
func (w *worker) unsettled(c *conn) bool {
	w.keeper.mu.Lock()
	defer w.keeper.mu.Unlock()
	return len(c.boot.slots.ending) > 0 || c.boot.description.GetProving()
}

// describe asks once. One unanswered question makes the worker count as full,
// several in a row are an error.
func (w *worker) describe(ctx context.Context, c *conn) error {
	k := w.keeper
	asked := time.Now()
	ask, cancel := context.WithTimeout(ctx, describeTimeout)
	d, err := c.channel.Describe(ask)
	cancel()
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.config.Wake()
	if err != nil {
		if c.silent++; c.silent < mostSilent {
			return nil
		}
		return fmt.Errorf("worker %s does not answer: %w", c.boot.worker.Pod, err)
	}
	if d.GetNonce() != c.boot.worker.Nonce {
		return fmt.Errorf("worker %s has restarted", c.boot.worker.Pod)
	}
	c.silent = 0
	c.boot.tell(d, asked, k.config.Unknown)
	return nil
}

// lost takes the channel out of use and closes it, which may take a while: the
// next one does not wait for that. Its boot and its leases stay.
func (w *worker) lost(c *conn, broke error) {
	k := w.keeper
	c.giveUp(broke)
	k.mu.Lock()
	w.conn, w.fault = nil, broke
	w.announce()
	held := len(c.boot.slots.held)
	k.config.Log.Log(w.level(), "channel lost", zap.String("worker", c.boot.worker.Pod), zap.Int("leases", held), zap.Error(broke))
	k.mu.Unlock()
	k.config.Wake()
	k.tending.Go(func() { k.close(c.channel, c.boot.worker.Pod) })
}

// inquire reads the pod after a try at a channel has failed.
func (w *worker) inquire(ctx context.Context, fault error) {
	k := w.keeper
	now, _, _, _ := w.look()
	pod, err := k.get(ctx, now.Name)
	k.mu.Lock()
	defer k.mu.Unlock()
	w.fault = fault
	switch {
	case w.gone != nil || ctx.Err() != nil:
		return
	case apierrors.IsNotFound(err) || err == nil && pod.UID != w.pod.UID:
		k.remove(w, w.pod)
		k.config.Wake()
		return
	case err != nil: // what was seen before may be over
		w.quiet = ""
		return
	case lease.Over(pod):
		k.remove(w, pod)
		k.config.Wake()
		return
	}
	w.update(pod)
	w.judge(pod)
}

// judge gives the worker up when, by reads that were answered, it has been of no
// use for too long. The mutex is held.
func (w *worker) judge(pod *corev1.Pod) {
	quiet, bound, words := "", time.Duration(0), ""
	switch s := lease.Status(pod); {
	case lease.NodeSilent(pod):
		quiet, bound, words = "node", w.keeper.config.Unready, "node "+pod.Spec.NodeName+" is not ready"
	case s != nil && s.State.Running == nil:
		quiet, bound, words = "container", w.keeper.config.Idle, cmp.Or(lease.Gone(pod, lease.Restarts(pod)-1), "no container of it runs")
	}
	if quiet != w.quiet {
		w.quiet, w.since = quiet, time.Now()
	}
	if quiet == "" || time.Since(w.since) < bound {
		w.mute = nil
		return
	}
	if w.mute == nil {
		w.mute = &lease.GoneError{Pod: pod.Name, Why: words, Silent: quiet == "node"}
		w.end(w.mute)
		w.announce()
		w.keeper.config.Wake()
	}
}

// running is the id of the running worker container, "" when none runs.
func running(pod *corev1.Pod) string {
	if s := lease.Running(pod); s != nil {
		return s.ContainerID
	}
	return ""
}
