// Package channels keeps a channel open to each of a set of worker pods, and
// leases their slots. It is what the pool and the launcher have in common.
package channels

import (
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// WorkerState is what is known of a worker.
type WorkerState struct {
	lease.Worker
	Slots, Used int
	// Ready: the channel is open and the worker answers. A worker that is not
	// Ready counts as full.
	Ready bool
	// Draining: no new sessions; those that run may go on.
	Draining                   bool
	FFmpegBuild, FFmpegVersion string
	// Description is the worker's last answer, nil before the first one. It is
	// not to be changed.
	Description *wire.Description
}
