package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ffpod/ffpod/cmd/ffmpeg/decision"
	"github.com/ffpod/ffpod/cmd/ffmpeg/registry"
	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// errWaited ends a session that got no worker within FFPOD_WAIT although the
// scheduler did not say so.
var errWaited = errors.New("no worker within FFPOD_WAIT")

// quitExit is the code after a q that came before the start: ffmpeg's own when
// it is told to stop before it wrote anything.
const quitExit = 255

// remote runs the command on a worker and returns its exit code; it does not
// return if the program died of a signal or if the command then runs here.
func (s *shim) remote() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	caught := watchSignals(cancel)
	end := s.session(ctx, cancel, caught)
	sig := caught.stop()
	switch {
	case end.exit != nil:
		return s.finish(end.exit, end.why)
	case sig != 0:
		s.log("nowhere", "the caller's "+sig.String()+" came before the start")
		return die(sig)
	case errors.Is(context.Cause(ctx), errQuit):
		s.log("nowhere", errQuit.Error())
		return quitExit
	case end.here:
		s.log("local", "the scheduler's placement is local")
		return s.local()
	case end.begun:
		s.log("lost", end.why.why)
		return fail(string(s.program), *end.why)
	case end.fenced: // another writes its outputs: it would not be alone here either
		s.log("nowhere", end.why.why)
		return fail(string(s.program), *end.why)
	}
	return s.instead(*end.why)
}

// ending is how a session ended: with an exit, or with a reason why not.
type ending struct {
	exit   *wire.Exit // with why: a success that cannot be seen here
	here   bool       // the scheduler wants it to run here
	begun  bool       // the program may have run
	fenced bool       // a newer writer of its outputs has come
	why    *failure
}

// session runs the command as one session, and asks anew with another for as long
// as nothing has started and the scheduler may be about to come back.
func (s *shim) session(ctx context.Context, cancel context.CancelCauseFunc, caught *signals) ending {
	start, err := s.request()
	if err != nil {
		return ending{why: &failure{what: "this process cannot be described to a worker", why: err.Error(), remedy: "run it in an existing directory with /proc mounted"}}
	}
	written := s.watchFiles(ctx, start.Outputs)
	defer written.stop()
	line := newNotice(s.program, s.command.Kind)
	defer line.end()
	keys := s.keys(caught)
	defer keys.stop()
	if s.settings.Wait > 0 {
		belt := time.AfterFunc(s.settings.Wait+dialBound, func() { caught.abandon(errWaited) })
		defer belt.Stop()
	}
	t := &trial{shim: s, start: start, line: line, keys: keys, caught: caught, files: written}
	for patience := newPatience(); ; {
		end, again := t.run(ctx)
		if !again || !patience.wait(ctx, t.heard) {
			return end
		}
		line.progress(&wire.Progress{Reason: "trying again: " + end.why.what + ": " + end.why.why})
		start.Session = newSession(time.Now())
		start.WaitMs = patience.left(s.settings.Wait)
	}
}

// trial is one session after another of one command, of which at most one starts.
type trial struct {
	*shim
	start  *wire.Start
	line   *notice
	keys   *keys
	caught *signals
	files  *files
	heard  time.Time // when a scheduler that had answered was last there
}

// run runs one session to its end. again: nothing has started, and another try
// may find what was missing.
func (t *trial) run(ctx context.Context) (end ending, again bool) {
	hold, occupied := t.hold(ctx, t.start.Session, func(what string) { t.line.progress(&wire.Progress{Reason: what}) })
	if occupied != nil {
		return ending{fenced: true, why: occupied}, false
	}
	defer func() {
		if !end.begun { // whoever comes next need not ask what is left of it
			hold.Ended()
		}
	}()
	t.files.remember() // now nobody else writes them
	way := &route{settings: t.settings}
	defer way.close()
	var placed *wire.Ticket
	heard, in := false, &media{}
	client := &session.Client{
		Open: way.open, Start: t.start, Stdin: t.stdin(in), Stdout: os.Stdout, Stderr: words{os.Stderr},
		Signals: t.caught.forward,
		OnProgress: func(p *wire.Progress) {
			heard = true
			t.caught.rewind() // a worker that refused is no start
			t.line.progress(p)
		},
		OnTicket: func(ticket *wire.Ticket) {
			placed = ticket
			t.placed(hold, ticket)
			t.caught.begin() // from here on they are the program's
		},
		OnStarted: func(*wire.Started) {
			t.line.end()
			t.keys.stop()
		},
		OnBroken:  func(why error) { t.log("resume", "session "+t.start.Session+": "+why.Error()) },
		OnResumed: func() { way.carried(); t.log("resumed", "session "+t.start.Session) },
		OnExit:    func(*wire.Exit) { t.caught.end() },
	}
	t.log("remote", "session "+t.start.Session)
	exit, err := client.Run(ctx)
	if err == nil {
		return ending{exit: exit, why: cmp.Or(t.files.await(ctx, exit), in.failure(exit))}, false
	}
	if heard {
		t.heard = time.Now()
	}
	return t.judge(ctx, way, err, placed, hold)
}

// stdin is nil for a program that does not read it: the caller's next command
// finds every byte still there.
func (s *shim) stdin(in *media) io.Reader {
	switch {
	case s.command.StdinInput:
		return in
	case s.command.ReadsStdin:
		return os.Stdin // keys: ffmpeg goes on without them
	}
	return nil
}

// media is a standard input that is one of the inputs. An error of it reaches the
// worker as its end: a success of half the input is none.
type media struct{ failed atomic.Pointer[error] }

func (m *media) Read(p []byte) (int, error) {
	n, err := os.Stdin.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		m.failed.Store(&err)
	}
	return n, err
}

// failure takes the place of a success.
func (m *media) failure(e *wire.Exit) *failure {
	err := m.failed.Load()
	if err == nil || e.Code != 0 || e.Signal != 0 {
		return nil
	}
	return &failure{what: "the program ended well but not all of its standard input could be read", why: (*err).Error(), remedy: "its outputs may be incomplete: repair the input, then run it again"}
}

// words is a stderr as ffmpeg writes it: what a full disk does not take is dropped, and
// no failure of the program. A reader that is gone is told to the worker.
type words struct{ *os.File }

func (w words) Write(p []byte) (int, error) {
	n, err := w.File.Write(p)
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return len(p), nil
	}
	return n, err
}

// keys watches for a q if a player waits and the program would take keys: bytes
// of an input are none. Others who write q early mean the running program.
func (s *shim) keys(caught *signals) *keys {
	if !awaited(s.command.Kind) || !s.command.ReadsStdin || s.command.StdinInput {
		return &keys{over: make(chan struct{})}
	}
	return watchKeys(0, func() { caught.abandon(errQuit) })
}

// judge tells the failures apart by what they allow: a session that never
// started may still run, a lost one never again.
func (t *trial) judge(ctx context.Context, way *route, err error, placed *wire.Ticket, hold *registry.Hold) (end ending, again bool) {
	if refused, ok := errors.AsType[*session.RefusedError](err); ok {
		t.caught.rewind()
		if refused.Refusal == wire.Refusal_LOCAL && t.settings.Mode != ffmpeg.ForceRemote {
			return ending{here: true}, false
		}
		// The scheduler goes, or its worker has never heard of the session.
		again = refused.Refusal == wire.Refusal_DRAINING || refused.Refusal == wire.Refusal_UNKNOWN_SESSION
		if again && t.heard.IsZero() {
			t.heard = time.Now()
		}
		return ending{
			fenced: refused.Refusal == wire.Refusal_FENCED,
			why:    &failure{what: "scheduler " + way.address() + " refused the session", why: refused.Message, remedy: refused.Remedy},
		}, again
	}
	lost, ok := errors.AsType[*session.LostError](err)
	if ok && !lost.MayHaveStarted {
		why, again := way.whyNot(ctx, lost.Cause)
		return ending{why: why}, again
	}
	where := "session " + t.start.Session
	if placed != nil {
		where += " on worker " + placed.Pod
	}
	removed := ""
	if hold.Alone() { // else what is there may be the other's
		removed = t.files.forget()
	}
	return ending{begun: true, why: &failure{
		what: where + " was lost", why: err.Error() + removed,
		remedy: "its outputs may be incomplete and it was not run again: check the scheduler and the worker, then repeat the command",
	}}, false
}

// instead runs what never started here, or says why that may not be.
func (s *shim) instead(why failure) int {
	if why.remedy == "" {
		why.remedy = "see `ffpod explain` and the scheduler's log"
	}
	may, because := decision.MayFallBack(s.settings, s.command)
	if !may {
		s.log("nowhere", why.what+": "+why.why)
		why.remedy += " (it was not run here: " + because + ")"
		return fail(string(s.program), why)
	}
	real, err := s.settings.Real(s.program)
	if err != nil {
		s.log("nowhere", why.what+": "+why.why)
		why.remedy += " (it was not run here: " + err.Error() + ")"
		return fail(string(s.program), why)
	}
	s.log("local", why.what+": "+why.why)
	say(string(s.program), failure{what: why.what, why: why.why, remedy: "running it here instead"})
	return fail(string(s.program), s.noReal(s.become(real)))
}

// finish ends the shim as the program ended.
func (s *shim) finish(e *wire.Exit, unseen *failure) int {
	if why := worded(e.Cause); why.what != "" {
		say(string(s.program), why)
	}
	if e.Signal != 0 {
		return die(syscall.Signal(e.Signal))
	}
	if unseen != nil {
		return fail(string(s.program), *unseen)
	}
	return int(e.Code & 0xff)
}

// worded tells about an end that the caller did not ask for and that looks, as
// a signal, like one it did.
func worded(c wire.Cause) failure {
	switch c {
	case wire.Cause_CAUSE_MEMORY:
		return failure{what: "the worker ended it", why: "it ran out of memory", remedy: "raise the memory limit of its class or lower its slots"}
	case wire.Cause_CAUSE_SHUTDOWN:
		return failure{what: "the worker ended it", why: "its pod was deleted", remedy: "run it again"}
	case wire.Cause_CAUSE_FENCED:
		return failure{what: "the worker ended it", why: "a newer session writes the same outputs", remedy: "give each its own"}
	case wire.Cause_CAUSE_ORPHANED:
		return failure{what: "the worker ended it", why: "the connection to this process was lost for too long", remedy: "check the scheduler, then run it again"}
	}
	return failure{}
}
