package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// A verdict is what a session's caller got.
type verdict string

const (
	exact  verdict = "exact"
	failed verdict = "failed"
	killed verdict = "killed"
	lie    verdict = "lie"
	hang   verdict = "hang"
)

// judge tells what the caller got, and why it is called that.
func (s *session) judge(f fault) (verdict, string) {
	if s.over.IsZero() {
		return hang, ""
	}
	missing := s.missing()
	_, wrong, _ := s.out.state()
	switch {
	case s.act != nil && wrong:
		return lie, "wrong bytes on stdout: " + missing
	case s.status.Signaled() && !s.killed.IsZero() && s.status.Signal() == syscall.SIGKILL:
		return killed, ""
	case s.rightExit() && missing == "":
		return exact, s.line()
	case s.rightExit(), s.status.Exited() && s.status.ExitStatus() == 0:
		return lie, missing
	case f.expect == told && s.toldExit(f):
		return exact, "the exit that the fault gave the program"
	}
	return failed, missing
}

func (s *session) rightExit() bool { return s.status.Exited() && s.status.ExitStatus() == s.want }

// toldExit says whether the exit is the one that the fault itself causes.
func (s *session) toldExit(f fault) bool {
	switch f.name {
	case "ffmpeg-kill":
		return s.status.Signaled() && s.status.Signal() == syscall.SIGKILL
	case "shim-term", "worker-delete", "worker-evict":
		realFFmpeg := s.act == nil && s.status.ExitStatus() == 255 // it has a handler
		return realFFmpeg || s.status.Signaled() && s.status.Signal() == syscall.SIGTERM
	}
	return false
}

// missing says what lacks of the session's output; empty: nothing.
func (s *session) missing() string {
	if s.act == nil {
		return s.missingFiles()
	}
	due := s.act.Stdout.Bytes
	wantRest := ""
	good, _, outRest := s.out.state()
	errGood, _, errRest := s.err.state()
	switch s.Kind {
	case pipe:
		due = streamBytes
	case blocked:
		if _, err := fmt.Sscanf(string(errRest), "wrote %d\n", &due); err != nil {
			return fmt.Sprintf("no word of how much was written: %q", errRest)
		}
		wantRest = fmt.Sprintf("wrote %d\n", due)
	}
	if good != due || len(outRest) > 0 {
		return fmt.Sprintf("stdout has %d of %d bytes, then %d wrong ones", good, due, len(outRest))
	}
	if errDue := int64(len("ready\n")) + s.act.Stderr.Bytes; errGood != errDue || strings.TrimSuffix(string(errRest), s.line()) != wantRest {
		return fmt.Sprintf("stderr has %d of %d bytes, then %.200q", errGood, errDue, errRest)
	}
	if s.act.Path != "" && !s.overwritten() {
		b, err := os.ReadFile(s.world.hostPath(s.act.Path))
		if err != nil {
			return err.Error()
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(b)); sum != s.act.Output.SHA() {
			return fmt.Sprintf("%s has %d bytes of %d, or others", s.act.Path, len(b), s.act.Output.Bytes)
		}
	}
	return ""
}

// overwritten tells that the outputs are another session's by now: s had ended by
// itself in the moment in which it was to be killed, and its successor was begun.
func (s *session) overwritten() bool {
	if s.successor == nil || s.successor.err == nil || s.successor.act == nil || s.successor.act.Path != s.act.Path {
		return false
	}
	begun, _, _ := s.successor.err.state()
	return begun > 0
}

// line is what ffpod said on stderr in its one line, beside the program.
func (s *session) line() string {
	_, _, rest := s.err.state()
	text := string(rest)
	i := strings.Index(text, "ffmpeg: ffpod: ")
	if s.act == nil || i < 0 || strings.Count(text[i:], "\n") != 1 || !strings.HasSuffix(text, "\n") {
		return ""
	}
	return text[i:]
}

// missingFiles compares with what the same command made without ffpod.
func (s *session) missingFiles() string {
	got, err := filesIn(s.world.hostPath(s.dir))
	if err != nil {
		return err.Error()
	}
	want := s.world.reference[s.Kind]
	for name, content := range want {
		have := bytes.ReplaceAll([]byte(got[name]), []byte(s.dir), []byte(referenceDir))
		if string(have) != content {
			return fmt.Sprintf("%s has %d bytes, not the %d of a local run, or others", name, len(got[name]), len(content))
		}
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d files, not %d", len(got), len(want))
	}
	return ""
}

// broken says why a verdict must not be, of a fault that must be survived or told.
func (s *session) broken(f fault, v verdict) string {
	switch {
	case v == lie || v == hang:
		return string(v)
	case s.missed != nil:
		return ""
	case s.act != nil && s.act.Hog > 0:
		if v == failed && strings.Contains(s.words(), "memory") {
			return ""
		}
		return "must be told of the memory"
	case f.scope == ofSession && s.Moment == beside && v != exact:
		return "must not be disturbed"
	case f.expect == survive && v != exact && s.Moment.started():
		return "must survive"
	case (f.name == "ffmpeg-kill" || f.name == "shim-term") && v != exact && s.Moment.started():
		return "must be told"
	case s.overtakes && v != exact:
		return "must take over"
	}
	return ""
}

// report is a judged session for the file.
func (s *session) report(f fault, struck, healed time.Time) Session {
	v, why := s.judge(f)
	r := Session{
		Kind: s.Kind, Moment: s.Moment, Verdict: v, Broken: s.broken(f, v), Why: why, Mark: s.mark,
		KillMs: ms(time.Duration(s.deathTook.Load())),
	}
	if v != hang {
		r.Exit, r.Ms = s.exit(), ms(s.over.Sub(s.began))
		r.EndMs = ms(s.over.Sub(struck))
	}
	if s.missed != nil {
		r.Missed = s.missed.Error()
	}
	if v == failed || v == lie || v == hang {
		r.Said = s.words()
		if v == failed && s.status.ExitStatus() == 125 && !strings.Contains(r.Said, "ffmpeg: ffpod: ") {
			r.Why += "; ffpod failed without a word"
		}
	}
	if v == exact && (s.Moment == first || s.Moment == mid) && (s.Kind == stdout || s.Kind == pipe || s.Kind == job) {
		gap, after := s.out.cut(struck, healed)
		r.GapMs, r.ResumeMs = ms(gap), ms(after)
	}
	return r
}

func ms(d time.Duration) int64 { return d.Milliseconds() }
