package visible

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ffpod/ffpod/podexec/output"
	"github.com/ffpod/ffpod/podexec/wire"
)

const (
	// keepEvery is how old what the caller sees may be.
	keepEvery = 250 * time.Millisecond
	// keepListing is for how long after a change a directory is listed again: its
	// mtime may be too coarse to tell of a second change.
	keepListing = 1250 * time.Millisecond
	// keepOpen is how many of the newest files of a set may still grow.
	keepOpen = 2
	// keepFirst is how many files may be there at the beginning for the first list
	// to look at them. More are an older session's: ours has only begun.
	keepFirst = 64
	// keepEnd is how long Keep waits for a call in progress when it has to end.
	keepEnd = 100 * time.Millisecond
)

// Keep keeps this machine's caches of outputs fresh until ctx ends: four times a
// second it opens and closes their directories and whatever file of theirs may
// still grow. Where no other machine can write it returns at once.
func Keep(ctx context.Context, outputs []*wire.Output) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		keep(ctx, outputs)
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	timer := time.NewTimer(keepEnd)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C: // a call on a hung mount; it ends with the process
	}
}

func keep(ctx context.Context, outputs []*wire.Output) {
	var kept []*folder
	for _, dir := range directories(outputs) {
		if output.Remote(dir) {
			kept = append(kept, newFolder(dir, outputs))
		}
	}
	if len(kept) == 0 {
		return
	}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		for _, f := range kept {
			if f.look(time.Now()); ctx.Err() != nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// folder is one directory with outputs.
//
// A file of a numbered set is open while it may grow, and settled once it was
// looked at while newer ones existed: then its size is final, and known here. The
// caller takes the next file's existence for that, so what is open is looked at
// before the directory, which makes the next name known, and once more after it:
// a file that ended in between is short for as long as these calls take.
type folder struct {
	path   string
	exact  []string // files that a program writes once
	sets   []*wire.Output
	listed bool
	stamp  [2]unix.Timespec // mtime and ctime at the last change
	change time.Time        // when that was seen

	settled map[string]bool
	open    []string // of the sets, the newest
}

func newFolder(dir string, outputs []*wire.Output) *folder {
	f := &folder{path: dir, settled: map[string]bool{}}
	for _, o := range outputs {
		switch {
		case string(o.Directory) != dir:
		case o.Exact:
			f.exact = append(f.exact, filepath.Join(dir, string(o.Prefix)))
		default:
			f.sets = append(f.sets, o)
		}
	}
	return f
}

func (f *folder) look(now time.Time) {
	for _, name := range f.exact {
		_, _ = output.Open(name) // not there yet, most likely
	}
	f.grow()
	st, err := output.Open(f.path)
	if err != nil {
		refresh(f.path)
		return
	}
	if stamp := [2]unix.Timespec{st.Mtim, st.Ctim}; stamp != f.stamp {
		f.stamp, f.change = stamp, now
	}
	if len(f.sets) > 0 && now.Sub(f.change) < keepListing && f.list() {
		f.grow()
	}
}

// list finds the files that are new, and says whether there are any.
func (f *folder) list() bool {
	there := make(map[string]bool, len(f.settled))
	var found []string
	err := output.List(f.path, func(name string) bool {
		name = filepath.Join(f.path, name)
		if slices.ContainsFunc(f.sets, func(o *wire.Output) bool { return output.Matches(o, name) }) {
			there[name] = true
			if !f.settled[name] && !slices.Contains(f.open, name) {
				found = append(found, name)
			}
		}
		return true
	})
	if err != nil {
		return false
	}
	if !f.listed && len(found) > keepFirst {
		f.settled, found = there, nil
	}
	f.listed = true
	for name := range f.settled {
		if !there[name] { // deleted: when it comes again, it is new
			delete(f.settled, name)
		}
	}
	f.open = slices.DeleteFunc(f.open, func(name string) bool { return !there[name] })
	f.open = append(f.open, found...)
	return len(found) > 0
}

// grow opens what may have grown and settles all but the newest.
func (f *folder) grow() {
	type file struct {
		name  string
		mtime int64
	}
	files := make([]file, 0, len(f.open))
	for _, name := range f.open {
		if st, err := output.Open(name); err == nil {
			files = append(files, file{name, st.Mtim.Nano()})
		}
	}
	slices.SortFunc(files, func(a, b file) int {
		switch {
		case a.mtime > b.mtime:
			return -1
		case a.mtime < b.mtime:
			return 1
		}
		return 0
	})
	f.open = f.open[:0]
	for i, file := range files {
		if i < keepOpen {
			f.open = append(f.open, file.name)
		} else {
			f.settled[file.name] = true
		}
	}
}
