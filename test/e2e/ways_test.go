package e2e_test

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/onsi/gomega/gcustom"
	"github.com/onsi/gomega/types"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/test/e2e"
)

const film = "/media/film.mkv"

// A way is how the shim is told to run a command.
type way struct {
	name string
	env  []string
	// few is how many sessions a spec may spend: a Job is a pod, and 256 of them
	// would take five minutes to say what 12 say.
	few int
	// wide is how many of them may run at a time.
	wide int
}

var (
	local = way{name: labelLocal, few: 1 << 20, wide: 8, env: []string{"FFPOD_MODE=local"}}
	warm  = way{name: labelWarm, few: 1 << 20, wide: 8, env: []string{"FFPOD_MODE=remote", "FFPOD_POLICY=warm", waitForWorker}}
	jobs  = way{name: labelJob, few: 12, wide: 6, env: []string{"FFPOD_MODE=remote", "FFPOD_POLICY=job", waitForWorker}}
)

func (w way) remote() bool { return w.name != labelLocal }

// everyWay makes the one list of specs three times.
func everyWay(title string, specs func(w way)) bool {
	for _, w := range []way{local, warm, jobs} {
		Describe(title+", "+w.name, Label(w.name), func() { specs(w) })
	}
	return true
}

// remoteWays is for what has no local counterpart.
func remoteWays(title string, specs func(w way)) bool {
	for _, w := range []way{warm, jobs} {
		Describe(title+", "+w.name, Label(w.name), func() { specs(w) })
	}
	return true
}

// child is a run of the shim whose ffmpeg is the driver's child, in class fake.
func (w way) child(c e2e.Child, extra ...[]byte) e2e.Run { return w.childOf("fake", c, extra...) }

func (w way) childOf(class string, c e2e.Child, extra ...[]byte) e2e.Run {
	return e2e.Run{Args: c.Argv(c.Echo, extra...), Env: append([]string{"FFPOD_CLASS=" + class, "FFPOD_FFMPEG=" + e2e.Driver}, w.env...)}
}

// ffmpeg is a run of the shim with the real ffmpeg, in class cpu.
func (w way) ffmpeg(args ...string) e2e.Run {
	return e2e.Run{Args: e2e.Args(args...), Env: append([]string{"FFPOD_CLASS=cpu"}, w.env...)}
}

// ffprobe likewise.
func (w way) ffprobe(args ...string) e2e.Run {
	r := w.ffmpeg(args...)
	r.Path = "/opt/ffpod/ffprobe"
	return r
}

// bare is the same run without the shim: what its parent should see.
func bare(r e2e.Run) e2e.Run {
	switch {
	case strings.HasSuffix(r.Path, "ffprobe"):
		r.Path = "/usr/bin/ffprobe"
	case r.Path == "":
		r.Path = "/usr/bin/ffmpeg"
	}
	return r
}

// script is a run of a shell, in which ffmpeg and ffprobe are the shim.
func (w way) script(text string) e2e.Run {
	r := w.ffmpeg("-euc", text)
	r.Path = "/bin/sh"
	return r
}

// sample takes a few of many, the ends included, for ways that cannot spend more.
func sample[T any](w way, all []T) []T {
	if len(all) <= w.few {
		return all
	}
	few := make([]T, 0, w.few)
	for i := range w.few {
		few = append(few, all[i*(len(all)-1)/(w.few-1)])
	}
	return few
}

// exit matches a result that ended by exit(2) with the code.
func exit(code int) types.GomegaMatcher {
	return matcher(fmt.Sprintf("exit with code %d", code), func(r e2e.Result) bool { return r.Signal == 0 && r.Code == code })
}

// killed matches a result that a signal ended.
func killed(signal int) types.GomegaMatcher {
	return matcher(fmt.Sprintf("end by signal %d", signal), func(r e2e.Result) bool { return int(r.Signal) == signal })
}

// refuse matches a failure of ffpod's own: the reserved code, and one clear line
// that holds the words.
func refuse(containing ...string) types.GomegaMatcher {
	return matcher(fmt.Sprintf("exit with %d and one line with %q", session.InfrastructureExit, containing), func(r e2e.Result) bool {
		ok := r.Signal == 0 && r.Code == session.InfrastructureExit && r.Stdout.Bytes == 0 && isOneLine(string(r.Stderr.Head))
		for _, c := range containing {
			ok = ok && strings.Contains(string(r.Stderr.Head), c)
		}
		return ok
	})
}

// isOneLine: `NAME: ffpod: what: why; remedy`, and nothing else.
func isOneLine(s string) bool {
	return strings.HasPrefix(s, "ffmpeg: ffpod: ") && strings.Count(s, "\n") == 1 && strings.HasSuffix(s, "\n") &&
		strings.Contains(s, "; ") && len(s) > len("ffmpeg: ffpod: ; \n")
}

// carry matches a stream that holds exactly the flood, to its end.
func carry(f e2e.Flood) types.GomegaMatcher {
	sum := f.SHA()
	return gcustom.MakeMatcher(func(s e2e.Stream) (bool, error) {
		return s.Bytes == f.Bytes && s.SHA == sum && !s.Held, nil
	}).WithTemplate("Expected a stream of {{.Data}} bytes with its sum, got {{.Actual.Bytes}}; held open by somebody else: {{.Actual.Held}}", f.Bytes)
}

// silent matches a stream without a byte.
func silent() types.GomegaMatcher { return gomega.HaveField("Bytes", int64(0)) }

func matcher(what string, test func(e2e.Result) bool) types.GomegaMatcher {
	return gcustom.MakeMatcher(func(r e2e.Result) (bool, error) { return test(r), nil }).
		WithTemplate("Expected to {{.Data.What}}, saw {{call .Data.Words .Actual}}", struct {
			What  string
			Words func(e2e.Result) string
		}{what, words})
}

// unique is a mark that no other process has.
func unique(what string) string { return what + "-" + time.Now().Format("150405.000000000") }
