// Package channelstest has a channel whose far end is the test, for faults that a
// real cluster does not produce on demand: wrong answers, silence, broken
// channels.
package channelstest

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Channel is a lease.Channel.
type Channel struct {
	done chan struct{}

	mu          sync.Mutex
	description *wire.Description
	fault       error
	hangs       bool
	closed      bool
	err         error
}

// New makes a channel on which a worker answers Describe.
func New(d *wire.Description) *Channel {
	return &Channel{description: d, done: make(chan struct{})}
}

// Says is what Describe returns from now on.
func (c *Channel) Says(d *wire.Description, fault error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.description, c.fault = d, fault
}

// Hangs lets every question wait for the end of its context.
func (c *Channel) Hangs() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hangs = true
}

// Breaks ends the channel.
func (c *Channel) Breaks(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed, c.err = true, err
		close(c.done)
	}
}

// Description implements lease.Channel.
func (c *Channel) Description() *wire.Description {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.description
}

// Describe implements lease.Channel.
func (c *Channel) Describe(ctx context.Context) (*wire.Description, error) {
	c.mu.Lock()
	d, fault, hangs, closed := c.description, c.fault, c.hangs, c.closed
	c.mu.Unlock()
	switch {
	case hangs:
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	case closed:
		return nil, errors.New("the channel is closed")
	}
	return d, fault
}

// Runner implements lease.Channel: nothing can be run.
func (c *Channel) Runner() wire.RunnerClient { return nil }

// Supervisor implements lease.Channel.
func (c *Channel) Supervisor() wire.SupervisorClient { return orders{c: c} }

// Done implements lease.Channel.
func (c *Channel) Done() <-chan struct{} { return c.done }

// Err implements lease.Channel.
func (c *Channel) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close implements lease.Channel.
func (c *Channel) Close() error {
	c.Breaks(context.Canceled)
	return nil
}

// orders answers for as long as Describe does.
type orders struct {
	wire.SupervisorClient // nil: what no test asks for
	c                     *Channel
}

func (o orders) Describe(ctx context.Context, _ *wire.DescribeRequest, _ ...grpc.CallOption) (*wire.Description, error) {
	return o.c.Describe(ctx)
}

func (o orders) Orphan(ctx context.Context, _ *wire.OrphanRequest, _ ...grpc.CallOption) (*wire.OrphanResponse, error) {
	_, err := o.c.Describe(ctx)
	return &wire.OrphanResponse{Known: err == nil}, err
}

func (o orders) Kill(ctx context.Context, _ *wire.KillRequest, _ ...grpc.CallOption) (*wire.KillResponse, error) {
	_, err := o.c.Describe(ctx)
	return &wire.KillResponse{Known: err == nil, Dead: err == nil}, err
}
