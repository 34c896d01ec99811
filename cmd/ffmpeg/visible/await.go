package visible

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ffpod/ffpod/podexec/output"
	"github.com/ffpod/ffpod/podexec/wire"
)

const (
	// Bound is how long a successful exit waits for its outputs.
	Bound = 10 * time.Second
	// otherTime is for how long a file of the right size may have another mtime:
	// some file systems round it, or give it anew.
	otherTime    = 2 * time.Second
	shortestLook = 5 * time.Millisecond
	longestLook  = 100 * time.Millisecond
	// hung is how much later than its bound Await gives up calls that do not return.
	hung = 500 * time.Millisecond
)

// Remedy says what to do about a MissingError.
const Remedy = "mount the volume in the caller's pod with short caches (NFS: lookupcache=none,actimeo=1)"

// MissingError is the end of a wait: this mount does not show what the worker
// wrote.
type MissingError struct {
	Path  string
	Want  int64         // bytes, as the worker saw them
	Have  int64         // bytes, as seen here; -1: no file
	After time.Duration // how long was waited
}

func (e *MissingError) Error() string {
	have := fmt.Sprintf("%d bytes", e.Have)
	if e.Have < 0 {
		have = "missing"
	}
	return fmt.Sprintf("output %s is %s here and %d bytes on the worker, after %s", e.Path, have, e.Want, e.After.Round(time.Millisecond))
}

// HungError says that the file system of the outputs does not answer.
type HungError struct {
	Directory string
	After     time.Duration
}

func (e *HungError) Error() string {
	return fmt.Sprintf("directory %s does not answer, after %s", e.Directory, e.After.Round(time.Millisecond))
}

// Await returns when this machine sees the files at least as large as the worker
// did, and with the same mtime if the size is the same. Whatever is no file of
// outputs is not looked at: the far end does not choose what is opened here. After
// bound it gives up with a *MissingError or a *HungError, when ctx ends with its
// cause.
func Await(ctx context.Context, outputs []*wire.Output, files []*wire.File, bound time.Duration) error {
	w := &wait{begun: time.Now(), bound: bound}
	for _, f := range files {
		if slices.ContainsFunc(outputs, func(o *wire.Output) bool { return output.Matches(o, string(f.Path)) }) {
			w.pending = append(w.pending, &expected{path: string(f.Path), size: f.Size, mtime: f.MtimeNs})
		}
	}
	if len(w.pending) == 0 {
		return nil
	}
	first := filepath.Dir(w.pending[0].path)
	result := make(chan error, 1)
	go func() { result <- w.run(ctx) }()
	timer := time.NewTimer(bound + hung)
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return &HungError{Directory: first, After: time.Since(w.begun)}
	}
}

// wait is one Await.
type wait struct {
	begun   time.Time
	bound   time.Duration
	pending []*expected
}

// expected is a file that the worker told of.
type expected struct {
	path  string
	size  int64
	mtime int64 // Unix ns
	have  int64 // bytes seen here last, -1: no file
	equal time.Time
}

func (w *wait) run(ctx context.Context) error {
	for pause := shortestLook; ; pause = min(2*pause, longestLook) {
		w.look()
		if len(w.pending) == 0 {
			return nil
		}
		left := w.bound - time.Since(w.begun)
		if left <= 0 {
			f := w.pending[0]
			return &MissingError{Path: f.path, Want: f.size, Have: f.have, After: time.Since(w.begun)}
		}
		timer := time.NewTimer(min(pause, left))
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// look opens the directories, so that their names are fresh, and compares.
func (w *wait) look() {
	opened := map[string]bool{}
	for _, f := range w.pending {
		if dir := filepath.Dir(f.path); !opened[dir] {
			opened[dir] = true
			refresh(dir)
		}
	}
	w.pending = slices.DeleteFunc(w.pending, func(f *expected) bool { return f.visible(time.Now()) })
}

// refresh opens a directory. One that is not found may be unknown to its parent's
// caches only.
func refresh(dir string) {
	for {
		_, err := output.Open(dir)
		parent := filepath.Dir(dir)
		if err != unix.ENOENT || parent == dir {
			return
		}
		dir = parent
	}
}

func (f *expected) visible(now time.Time) bool {
	var st unix.Stat_t
	f.have = -1
	if unix.Stat(f.path, &st) == nil {
		f.have = st.Size
	}
	if f.have < f.size || f.have == f.size && !sameTime(st.Mtim.Nano(), f.mtime) {
		if st, err := output.Open(f.path); err == nil {
			f.have = st.Size
			return f.judge(st.Mtim.Nano(), now)
		}
	}
	if f.have < 0 {
		return false
	}
	return f.judge(st.Mtim.Nano(), now)
}

// judge compares what was seen. More than was waited for is fine: somebody
// appends, and the caller asked for it.
func (f *expected) judge(mtime int64, now time.Time) bool {
	switch {
	case f.have < f.size:
		f.equal = time.Time{}
		return false
	case f.have > f.size || sameTime(mtime, f.mtime):
		return true
	case f.equal.IsZero():
		f.equal = now
	}
	return now.Sub(f.equal) >= otherTime
}

// sameTime allows for file systems that keep less than nanoseconds: one of the two
// may be the other, rounded down.
func sameTime(a, b int64) bool {
	if a == b {
		return true
	}
	if a > b {
		a, b = b, a
	}
	for _, step := range [...]time.Duration{100, time.Microsecond, time.Millisecond, time.Second, 2 * time.Second} {
		if a%int64(step) == 0 && b-b%int64(step) == a {
			return true
		}
	}
	return false
}
