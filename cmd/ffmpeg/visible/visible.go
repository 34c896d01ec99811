// Package visible makes what a worker wrote visible to this machine, through its
// own mounts. The shim's caller polls stat(2) for segments, lists directories and
// looks for the output right after the exit; network file systems answer such
// questions from caches, for seconds to a minute, and refresh them when somebody
// opens the directory or the file. The shim is that somebody:
//
//	Outputs   what the command line writes           → Start.outputs
//	Keep      opens what changes, during the session
//	Await     after the Exit: opens and compares until this mount shows at least
//	          what the worker saw (Exit.files)
//	Remember  names what a lost session left behind, where half a file is worse
//	          than none
//
// On local file systems all of it is a handful of system calls. No call here can
// hang its caller, as a mount may: each works in a goroutine that is left behind
// when the mount lets go of none of its calls; the process is about to end then.
package visible

import (
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// maxOutputs bounds what a Start carries; no program's caller waits for more.
const maxOutputs = 64

// Outputs lists what c writes below the shared directories: elsewhere a worker
// writes nothing that this machine could see. It lists the first 64.
func Outputs(c *ffmpeg.Command, shared []string) []*wire.Output {
	var all []*wire.Output
	for _, s := range c.FileSets() {
		if ffmpeg.IsShared(shared, s.Dir) && len(all) < maxOutputs {
			all = append(all, &wire.Output{Directory: []byte(s.Dir), Prefix: []byte(s.Prefix), Exact: s.Exact})
		}
	}
	return all
}

// directories are those of outputs, each once.
func directories(outputs []*wire.Output) []string {
	var all []string
	known := map[string]bool{}
	for _, o := range outputs {
		if dir := string(o.Directory); !known[dir] {
			known[dir] = true
			all = append(all, dir)
		}
	}
	return all
}
