package visible

import (
	"os"
	"path/filepath"
	"time"

	"github.com/ffpod/ffpod/podexec/output"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// Leftovers are the files that a session may create and nobody else had created
// before it began.
type Leftovers struct{ names []string }

// lookBound is how long Remember and Remove wait for the file system.
const lookBound = time.Second

// Remember notes which outputs of c do not exist yet; it must be called before the
// session starts. It notes nothing but files named one by one by a command that
// extracts or converts subtitles: half of one, whose writer was lost, would be
// taken for the whole and kept for good. Everything else of a lost session is left
// where it is.
func Remember(c *ffmpeg.Command, shared []string) Leftovers {
	if c.Kind != ffmpeg.Subtitle {
		return Leftovers{}
	}
	return within1s(func() Leftovers {
		var l Leftovers
		listings := map[string]map[string]bool{}
		for _, s := range c.FileSets() {
			if !s.Exact || !ffmpeg.IsShared(shared, s.Dir) {
				continue
			}
			there, known := listings[s.Dir]
			if !known {
				there = listing(s.Dir)
				listings[s.Dir] = there
			}
			name := filepath.Join(s.Dir, s.Prefix)
			if _, err := os.Lstat(name); there != nil && !there[s.Prefix] && os.IsNotExist(err) {
				l.names = append(l.names, name)
			}
		}
		return l
	})
}

// Remove removes what is there now and was not when it was remembered, and returns
// the names. It is for a session that was lost, and for that only.
func (l Leftovers) Remove() []string {
	if len(l.names) == 0 {
		return nil
	}
	return within1s(func() []string {
		var removed []string
		for _, name := range l.names {
			refresh(filepath.Dir(name))
			if st, err := os.Lstat(name); err == nil && st.Mode().IsRegular() && os.Remove(name) == nil {
				removed = append(removed, name)
			}
		}
		return removed
	})
}

// listing asks the file system itself: a cached "no such file" would make another
// program's file look like ours. It is nil if the directory cannot be read, unless
// there is none.
func listing(dir string) map[string]bool {
	refresh(dir)
	names := map[string]bool{}
	err := output.List(dir, func(name string) bool { names[name] = true; return true })
	if err != nil && !os.IsNotExist(err) {
		return nil
	}
	return names
}

// within1s gives up what a hung mount holds.
func within1s[T any](look func() T) (result T) {
	done := make(chan T, 1)
	go func() { done <- look() }()
	timer := time.NewTimer(lookBound)
	defer timer.Stop()
	select {
	case result = <-done:
	case <-timer.C:
	}
	return result
}
