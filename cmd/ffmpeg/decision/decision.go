// Package decision is what the shim knows before it asks anybody: its settings
// (the FFPOD_* variables), where the real binaries are, and whether a command
// stays here. It is apart from the shim so that `ffpod explain` answers with the
// same code. It links nothing that starts slowly.
package decision

import (
	"strings"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// Program tells which program argv[0] stands for; false for any other name.
func Program(argv0 string) (ffmpeg.Program, bool) {
	for i := len(argv0) - 1; i >= 0; i-- {
		if argv0[i] == '/' {
			argv0 = argv0[i+1:]
			break
		}
	}
	p := ffmpeg.Program(argv0)
	return p, p == ffmpeg.FFmpeg || p == ffmpeg.FFprobe
}

// Environment is what scheduler/ffmpeg may know of this machine.
func Environment(s Settings, getenv func(string) string) ffmpeg.Environment {
	return ffmpeg.Environment{Host: newHost(getenv), Shared: s.Shared, Mode: s.Mode, Egress: s.egress(), Own: ownHost}
}

// egress is what workers may reach by the caller's word, else by the scheduler's,
// which it publishes where its address is. One that published nothing allows none.
func (s Settings) egress() ffmpeg.Egress {
	word := s.Egress
	if word == "auto" {
		b, _ := readList(s.EgressFile)
		word = strings.TrimSpace(string(b))
	}
	switch e := ffmpeg.Egress(word); e {
	case ffmpeg.AnyEgress, ffmpeg.CallerEgress:
		return e
	}
	return ffmpeg.NoEgress
}

// ReachesCaller tells whether all that a command reads from the network is at an
// address of this pod.
func ReachesCaller(cmd ffmpeg.Command) bool { return cmd.Reach(ownHost) == ffmpeg.CallerEgress }

// MayFallBack tells whether a command that could not be started remotely may
// run here instead, and if not, why.
func MayFallBack(s Settings, cmd ffmpeg.Command) (bool, string) {
	switch s.Fallback {
	case FallbackLocal:
		return true, ""
	case FallbackFail:
		return false, "FFPOD_FALLBACK is fail"
	}
	if s.Mode == ffmpeg.ForceRemote {
		return false, "FFPOD_MODE is remote"
	}
	if what := Hardware(cmd); what != "" {
		return false, "it needs a GPU for " + what
	}
	return true, ""
}
