package lease

import (
	"context"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Container is the name of the container that serves sessions, in the pods of
// every class.
const Container = "worker"

// DialCommand is what a channel executes in it. The admission policies allow
// this command and no other.
func DialCommand() []string { return []string{"/ffpod/worker", "dial"} }

// ServeCommand is what the container itself runs.
func ServeCommand() []string { return []string{"/ffpod/worker", "serve"} }

// Target says which container of which pod a channel goes to, and what is
// executed there.
type Target struct {
	Namespace string
	Pod       string
	Container string
	Command   []string
}

// Channel is an open channel to a worker. Whoever opened it closes it.
type Channel interface {
	// Description is the worker's answer at the opening.
	Description() *wire.Description
	// Describe asks again.
	Describe(ctx context.Context) (*wire.Description, error)
	// Runner runs sessions over the channel.
	Runner() wire.RunnerClient
	// Done is closed when the channel has ended, Err then says why.
	Done() <-chan struct{}
	Err() error
	// Close ends the channel and every session stream on it, and waits.
	Close() error
}

// Open opens a channel; ctx bounds the opening only.
type Open func(ctx context.Context, t Target) (Channel, error)
