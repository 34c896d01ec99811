package channels

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
)

const (
	getTimeout     = 3 * time.Second        // one read of a pod
	suspectTimeout = 2 * time.Second        // for a suspected worker to answer
	wantedPause    = 250 * time.Millisecond // between tries while somebody waits, or so
)

// reach waits for a channel to this very pod and boot. The error is lease.ErrGone,
// or says what was waited for.
func (k *Keeper) reach(ctx context.Context, pod, podUID, nonce string) (*conn, error) {
	w, err := k.find(ctx, pod, types.UID(podUID))
	if err != nil {
		return nil, err
	}
	defer w.want()()
	for {
		c, past, updated, err := w.toward(nonce)
		switch {
		case err != nil:
			return nil, err
		case c != nil && ctx.Err() == nil:
			return c, nil
		}
		var told <-chan struct{} // why the boot has ended
		if past != nil {
			told = past.ended
		}
		select {
		case <-told:
			return nil, past.why
		case <-updated:
		case <-ctx.Done():
			return nil, w.waited(context.Cause(ctx))
		case <-k.stopping:
			return nil, errStopping
		}
	}
}

// toward looks how far a channel to the boot is: there, or not yet, or it has
// ended and why is told soon, or it is gone.
func (w *worker) toward(nonce string) (*conn, *boot, <-chan struct{}, error) {
	w.keeper.mu.Lock()
	defer w.keeper.mu.Unlock()
	past, c := w.ended(nonce), w.conn
	switch {
	case c != nil && c.boot.worker.Nonce == nonce && c.broken():
		return nil, nil, w.updated, nil
	case c != nil && c.boot.worker.Nonce == nonce:
		return c, nil, w.updated, nil
	case past != nil:
		return nil, past, w.updated, nil
	case c != nil: // it was never spoken to from here
		why := ""
		if n := lease.Restarts(w.pod); n > 0 {
			why = lease.Gone(w.pod, n-1)
		}
		return nil, nil, nil, &lease.GoneError{Pod: w.pod.Name, Why: cmp.Or(why, "it has restarted")}
	case w.gone != nil:
		return nil, nil, nil, w.gone
	case w.mute != nil:
		return nil, nil, nil, w.mute
	}
	return nil, nil, w.updated, nil
}

// waited says what a caller has waited for in vain, so far.
func (w *worker) waited(cause error) error {
	w.keeper.mu.Lock()
	defer w.keeper.mu.Unlock()
	if w.fault != nil {
		return fmt.Errorf("wait for a channel to worker %s: %w (%w)", w.pod.Name, cause, w.fault)
	}
	return fmt.Errorf("wait for a channel to worker %s: %w", w.pod.Name, cause)
}

// want says that somebody waits for the worker, until what it returns is called.
func (w *worker) want() func() {
	add := func(n int) {
		w.keeper.mu.Lock()
		defer w.keeper.mu.Unlock()
		if w.wanted += n; w.wanted == 1 && n > 0 {
			w.announce()
		}
	}
	add(1)
	return func() { add(-1) }
}

// find returns the worker of a pod. One that was never seen is read: the watch
// may lag, and is no proof of absence.
func (k *Keeper) find(ctx context.Context, name string, uid types.UID) (*worker, error) {
	var fault error
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		k.mu.Lock()
		w, departed, stopped := k.workers[uid], k.departed[uid], k.stopped
		k.mu.Unlock()
		switch {
		case w != nil:
			return w, nil
		case departed != nil:
			return nil, departed
		case stopped:
			return nil, errStopping
		}
		pod, err := k.get(ctx, name)
		switch {
		case apierrors.IsNotFound(err) || err == nil && pod.UID != uid:
			return nil, &lease.GoneError{Pod: name, Why: "the pod is gone"}
		case err == nil && !k.config.Ours(pod):
			return nil, &lease.GoneError{Pod: name, Why: "the pod is no worker of this kind", Silent: true} // it may be of the other
		case err == nil:
			k.Seen(pod)
			continue
		}
		if ctx.Err() == nil {
			fault = err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-k.stopping:
		case <-ctx.Done():
			timer.Stop()
			return nil, errors.Join(fmt.Errorf("read pod %s: %w", name, context.Cause(ctx)), fault)
		}
	}
}

func (k *Keeper) get(ctx context.Context, name string) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	return k.config.Get(ctx, name)
}

// suspect asks the worker, beside the caller, and gives its channel up when it
// does not answer soon.
func (k *Keeper) suspect(c *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped || c.suspected.Swap(true) {
		return
	}
	k.tending.Go(func() {
		defer c.suspected.Store(false)
		_, _ = k.ask(context.Background(), c, suspectTimeout)
	})
}

// ask asks once, and gives the channel up when no answer comes in time, or that
// of another boot. The end of ctx is no fault of the channel, but a reason to
// suspect it.
func (k *Keeper) ask(ctx context.Context, c *conn, within time.Duration) (*wire.Description, error) {
	ask, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	asked := time.Now()
	d, err := c.channel.Describe(ask)
	switch {
	case err != nil && ctx.Err() != nil:
		k.suspect(c)
		return nil, err
	case err != nil:
		err = fmt.Errorf("worker %s does not answer: %w", c.boot.worker.Pod, err)
	case d.GetNonce() != c.boot.worker.Nonce:
		err = fmt.Errorf("worker %s has restarted", c.boot.worker.Pod)
	}
	if err != nil {
		c.giveUp(err)
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c.silent = 0
	c.boot.tell(d, asked, k.config.Unknown)
	k.config.Wake()
	return d, nil
}

// orders is a way to order a worker that suspects one that does not answer.
type orders struct {
	wire.SupervisorClient
	channel lease.Channel
	suspect func()
}

func (o orders) Orphan(ctx context.Context, q *wire.OrphanRequest, opts ...grpc.CallOption) (*wire.OrphanResponse, error) {
	r, err := o.SupervisorClient.Orphan(ctx, q, opts...)
	o.watch(err)
	return r, err
}

// Describe asks as the channel does, which knows what it was told before.
func (o orders) Describe(ctx context.Context, _ *wire.DescribeRequest, _ ...grpc.CallOption) (*wire.Description, error) {
	r, err := o.channel.Describe(ctx)
	o.watch(err)
	return r, err
}

// watch leaves Kill alone: that answers when the process is gone, which takes
// what it takes.
func (o orders) watch(err error) {
	switch status.Code(err) {
	case codes.DeadlineExceeded, codes.Unavailable:
		o.suspect()
	}
}
