package main

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/ffpod/ffpod/cmd/ffmpeg/visible"
	"github.com/ffpod/ffpod/podexec/wire"
)

// failedBound is how long a program that failed waits for its outputs: its caller
// may use them all the same, but counts on none.
const failedBound = 2 * time.Second

// files are what the session writes, as this machine's mounts show it. It owns a
// goroutine; stop ends it.
type files struct {
	*shim
	outputs []*wire.Output
	left    visible.Leftovers
	cancel  context.CancelFunc
	keeping sync.WaitGroup
}

// watchFiles keeps the view of outputs fresh from before the start on.
func (s *shim) watchFiles(ctx context.Context, outputs []*wire.Output) *files {
	f := &files{shim: s, outputs: outputs}
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.keeping.Go(func() { visible.Keep(ctx, outputs) })
	return f
}

func (f *files) stop() {
	f.cancel()
	f.keeping.Wait()
}

// remember notes what a session that begins now would create.
func (f *files) remember() { f.left = visible.Remember(&f.command, f.settings.Shared) }

// await returns when what the worker saw is visible here: the caller looks as soon
// as the shim is gone. Its failure takes the place of a success.
func (f *files) await(ctx context.Context, e *wire.Exit) *failure {
	good := e.Code == 0 && e.Signal == 0
	bound := visible.Bound
	if !good {
		bound = failedBound
	}
	err := visible.Await(context.WithoutCancel(ctx), f.outputs, e.Files, bound)
	if err == nil {
		return nil
	}
	f.log("unseen", err.Error())
	if !good {
		return nil // the exit says enough
	}
	return &failure{what: "the program ended well but its output is not visible here", why: err.Error(), remedy: visible.Remedy}
}

// forget removes what a lost session must not leave, and words it.
func (f *files) forget() string {
	names := f.left.Remove()
	if len(names) == 0 {
		return ""
	}
	return " (removed what it had begun: " + strings.Join(names, ", ") + ")"
}
