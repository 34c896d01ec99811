package supervisor

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/ffpod/ffpod/podexec/output"
	"github.com/ffpod/ffpod/podexec/wire"
)

const (
	// outputsBound is how long an exit waits for the file systems of its outputs.
	outputsBound = 2 * time.Second
	// looksMost is how many looks may be under way, left behind ones included: each
	// holds a thread until its mount answers.
	looksMost = 64
)

// looker looks at what sessions wrote. The zero value is ready for use; it may be
// used by many sessions at once.
type looker struct {
	looks atomic.Int32 // under way; those left behind on a hung mount stay here
}

// filesOf tells what outputs look like after the process group is gone, for the
// Exit. A file system that does not answer in time must not hold the exit back:
// then it tells nothing, and the look is left behind, counted, until it returns.
func (l *looker) filesOf(outputs []*wire.Output) []*wire.File {
	if len(outputs) == 0 {
		return nil
	}
	return l.bounded(outputsBound, func(ctx context.Context) []*wire.File { return output.Look(ctx, outputs) })
}

// bounded runs look for at most bound. Its context ends at half of that, for it to
// return between two calls with what it knows.
func (l *looker) bounded(bound time.Duration, look func(context.Context) []*wire.File) []*wire.File {
	if l.looks.Add(1) > looksMost {
		l.looks.Add(-1)
		return nil
	}
	inTime, cancel := context.WithTimeout(context.Background(), bound/2) // an exit is told whatever ends
	found := make(chan []*wire.File, 1)
	go func() {
		defer l.looks.Add(-1)
		defer cancel()
		found <- look(inTime)
	}()
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case files := <-found:
		return files
	case <-timer.C:
		return nil
	}
}
