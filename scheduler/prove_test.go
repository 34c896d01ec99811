package scheduler

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/api"
)

// weary answers as a worker does whose trials have just ended, or not at all.
type weary struct {
	wire.SupervisorClient
	err error
}

func (w weary) Prove(context.Context, *wire.ProveRequest, ...grpc.CallOption) (*wire.ProveResponse, error) {
	return &wire.ProveResponse{Reason: "worker c runs no trials: they have just ended"}, w.err
}

// perPod gives each pod its own supervisor, if it has one.
type perPod struct {
	*fakePool
	of map[string]wire.SupervisorClient
}

func (p perPod) Supervisor(ctx context.Context, pod, uid, nonce string) (wire.SupervisorClient, error) {
	if s := p.of[pod]; s != nil {
		return s, nil
	}
	return p.fakePool.Supervisor(ctx, pod, uid, nonce)
}

func TestProve(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Pool = perPod{c.Pool.(*fakePool), map[string]wire.SupervisorClient{"c": weary{}, "d": weary{err: errors.New("it is gone")}}}
	})
	for pod, class := range map[string]string{"a": "nvidia", "b": "cpu", "c": "cpu", "d": "nvidia"} {
		w := r.add(pod, 1, nil)
		r.pool.mu.Lock()
		w.state.Class = class
		r.pool.mu.Unlock()
	}
	want := []api.Proof{{Class: "cpu", Worker: "b", Started: true}, {Class: "cpu", Worker: "c", Reason: "worker c runs no trials: they have just ended"},
		{Class: "nvidia", Worker: "a", Started: true}, {Class: "nvidia", Worker: "d", Reason: "worker d: it is gone"}}
	if diff := cmp.Diff(want, r.sched.Prove(t.Context(), "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:2], r.sched.Prove(t.Context(), "cpu")); diff != "" {
		t.Errorf("of a class (-want +got):\n%s", diff)
	}
	if all := r.sched.Prove(t.Context(), "none"); all != nil {
		t.Errorf("%v", all)
	}
}
