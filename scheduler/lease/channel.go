package lease

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/wire"
)

// ServeCommand is what the container of a worker runs.
func ServeCommand() []string { return []string{"/ffpod/worker", "serve"} }

// Channel is an open channel to a worker. Whoever opened it closes it.
type Channel interface {
	// Description is the worker's answer at the opening.
	Description() *wire.Description
	// Describe asks again.
	Describe(ctx context.Context) (*wire.Description, error)
	// Runner runs sessions over the channel.
	Runner() wire.RunnerClient
	// Supervisor asks and orders the worker.
	Supervisor() wire.SupervisorClient
	// Done is closed when the channel has ended, Err then says why.
	Done() <-chan struct{}
	Err() error
	// Close ends the channel and every session stream on it, and waits.
	Close() error
}

// Open opens a channel; ctx bounds the opening only.
type Open func(ctx context.Context, t podexec.Target) (Channel, error)

// Dial opens real channels.
func Dial(d *podexec.Dialer) Open {
	return func(ctx context.Context, t podexec.Target) (Channel, error) {
		c, err := d.Open(ctx, t)
		if err != nil {
			return nil, err // not a nil *podexec.Channel in an interface
		}
		return c, nil
	}
}

// Verify checks that the far end of a channel is the worker in this very pod:
// exec goes to whichever pod has the name now.
func Verify(pod *corev1.Pod, class string, d *wire.Description) error {
	switch {
	case d.GetNonce() == "":
		return fmt.Errorf("verify worker %s: it gives no boot nonce: is it a worker of ffpod?", pod.Name)
	case d.GetPodUid() != string(pod.UID):
		return fmt.Errorf("verify worker %s: pod %q answers instead of %q: its env POD_UID is wrong, or the name was taken by another pod", pod.Name, d.GetPodUid(), pod.UID)
	case d.GetClass() != class:
		return fmt.Errorf("verify worker %s: it says its class is %q, its label says %q: set env FFPOD_CLASS from the label ffpod.dev/class", pod.Name, d.GetClass(), class)
	}
	return nil
}
