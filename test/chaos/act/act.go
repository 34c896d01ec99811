// Package act is the language in which test/chaos tells its fake ffmpeg what to do.
// It travels as one argument of a command line that ffmpeg would understand too.
package act

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/ffpod/ffpod/test/e2e"
)

// Act is what one fake ffmpeg does, in this order: it takes the writer's lock of
// its Output, says "ready" on stderr, sends the streams side by side, reads stdin
// as told, is quiet, and exits. It dies of TERM, as any program does by default.
type Act struct {
	Mark           string        // names the session; also how its process is found
	Stdout, Stderr Stream        // sent side by side
	Output         Stream        // written to Path
	Path           string        // a file; two writers at a time are reported in Overlaps
	Cue            string        // a file to wait for before the last Tail bytes of each stream
	Tail           int64         // bytes
	Echo           bool          // stdin to stdout
	Quit           bool          // a line "q" on stdin ends the streams; then "wrote N" tells stdout's length
	Quiet          time.Duration // how long to do nothing
	Hog            int64         // bytes of memory to fill, a little at a time
	Deaf           bool          // ignores every signal that can be ignored
	Code           int           // of exit(2)
}

// Stream is so many bytes of a flood, at a rate.
type Stream struct {
	e2e.Flood
	Rate int64 // bytes per second; 0: as fast as they are taken
}

// Places on the volume that client and workers share.
const (
	Home     = "/cache/chaos"
	Fake     = Home + "/fake"
	Overlaps = Home + "/overlaps" // one line for each writer that met another
	// Writing is the suffix of the file whose lock a writer of an output holds.
	Writing = ".writing"
)

const option = "act="

// Argv is a command line that carries the act.
func (a Act) Argv() []string {
	order, _ := json.Marshal(a) // it holds nothing that JSON cannot
	argv := []string{"-f", "lavfi", "-i", "nullsrc"}
	if a.Echo {
		argv = []string{"-f", "data", "-i", "-"}
	}
	argv = append(argv, "-metadata", option+string(order))
	if a.Path != "" {
		return append(argv, "-y", "-f", "data", a.Path)
	}
	return append(argv, "-f", "null", "-")
}

// Parse finds the act in a command line.
func Parse(argv []string) (a Act, ok bool) {
	for _, arg := range argv {
		if order, found := strings.CutPrefix(arg, option); found {
			return a, json.Unmarshal([]byte(order), &a) == nil
		}
	}
	return a, false
}
