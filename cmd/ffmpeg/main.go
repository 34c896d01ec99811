package main

import (
	"fmt"
	"os"

	"github.com/ffpod/ffpod/cmd/ffmpeg/decision"
	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// version is the release, set by the linker (-X main.version=...).
var version = "devel"

func main() {
	os.Exit(run(os.Args, os.Getenv))
}

// run returns the exit code of whatever did not replace the process.
func run(args []string, getenv func(string) string) (code int) {
	name := "ffpod"
	defer func() {
		// A bug of ours must neither look like an exit of ffmpeg nor print a
		// stack where a caller parses.
		if p := recover(); p != nil {
			code = fail(name, failure{what: "the shim broke", why: fmt.Sprint(p), remedy: "please report it; FFPOD_MODE=local goes without it"})
		}
	}()
	if len(args) == 0 {
		args = []string{""}
	}
	program, ok := decision.Program(args[0])
	if !ok {
		return fail(name, failure{
			what: fmt.Sprintf("called as %q", args[0]), why: "the shim must be called as ffmpeg or ffprobe",
			remedy: "link or copy it under these names, as `ffpod install shim DIR` does",
		})
	}
	name = string(program)
	settings, err := decision.Load(getenv)
	if err != nil {
		return fail(name, failure{what: "settings", why: err.Error(), remedy: "correct or unset it"})
	}
	s := &shim{program: program, argv: args[1:], settings: settings, getenv: getenv}
	return s.run()
}

// shim is one run.
type shim struct {
	program  ffmpeg.Program
	argv     []string
	settings decision.Settings
	getenv   func(string) string
	command  ffmpeg.Command // in mode local only as far as its outputs matter
}

// run decides and does it.
func (s *shim) run() int {
	if s.settings.Mode == ffmpeg.ForceLocal {
		s.understand()
		s.log("local", "the mode is local")
		return s.local()
	}
	env := decision.Environment(s.settings, s.getenv)
	s.command = ffmpeg.Parse(string(s.program), s.argv, env.Host)
	d := ffmpeg.Decide(s.command, env)
	s.log(string(d.Where), d.Reason)
	if d.Where == ffmpeg.Local {
		return s.local()
	}
	if len(d.Problems) > 0 {
		return fail(string(s.program), failure{
			what: "this cannot run on a worker", why: join(d.Problems),
			remedy: "share the files (FFPOD_SHARED) or set FFPOD_MODE=auto",
		})
	}
	return s.remote()
}

// fail says what went wrong and returns the code for it.
func fail(program string, f failure) int {
	say(program, f)
	return session.InfrastructureExit
}
