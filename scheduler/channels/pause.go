package channels

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Pause has a worker stop a session for most, which frees its slot, or renews that
// it does. The error says why it does not; then nothing has changed, unless ctx
// ended: then the next answer of the worker tells.
func (k *Keeper) Pause(ctx context.Context, pod, nonce, session string, most time.Duration) error {
	return k.orderPause(pod, nonce, session, true, func(s wire.SupervisorClient) (bool, string, error) {
		a, err := s.Pause(ctx, &wire.PauseRequest{Session: session, MostMs: uint32(most.Milliseconds())})
		return a.GetDone(), a.GetReason(), err
	})
}

// Continue lets a paused session go on, which takes a slot. The error says why it
// does not.
func (k *Keeper) Continue(ctx context.Context, pod, nonce, session string) error {
	return k.orderPause(pod, nonce, session, false, func(s wire.SupervisorClient) (bool, string, error) {
		a, err := s.Continue(ctx, &wire.ContinueRequest{Session: session})
		return a.GetDone(), a.GetReason(), err
	})
}

func (k *Keeper) orderPause(pod, nonce, session string, paused bool, order func(wire.SupervisorClient) (done bool, reason string, err error)) error {
	c := k.channelTo(pod, nonce)
	if c == nil {
		return fmt.Errorf("worker %s: %w", pod, ErrGone)
	}
	done, reason, err := order(c.channel.Supervisor())
	if err == nil && !done {
		err = errors.New(reason)
	}
	if err != nil {
		return fmt.Errorf("session %s on worker %s: %w", session, pod, err)
	}
	k.mu.Lock()
	c.boot.slots.pause(session, paused, time.Now())
	k.mu.Unlock()
	k.config.Wake()
	return nil
}

func (k *Keeper) channelTo(pod, nonce string) *conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		if c := w.conn; w.pod.Name == pod && c != nil && c.boot.worker.Nonce == nonce {
			return c
		}
	}
	return nil
}
