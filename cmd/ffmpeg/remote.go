package main

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/cmd/ffmpeg/decision"
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
		return s.finish(end.exit)
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
	}
	return s.instead(*end.why)
}

// ending is how a session ended: with an exit, or with a reason why not.
type ending struct {
	exit  *wire.Exit
	here  bool // the scheduler wants it to run here
	begun bool // the program may have run
	why   *failure
}

// session runs one session to its end.
func (s *shim) session(ctx context.Context, cancel context.CancelCauseFunc, caught *signals) ending {
	start, err := s.request()
	if err != nil {
		return ending{why: &failure{what: "this process cannot be described to a worker", why: err.Error(), remedy: "run it in an existing directory with /proc mounted"}}
	}
	way, bad := dial(s.settings)
	if bad != nil {
		return ending{why: bad}
	}
	defer way.conn.Close()
	s.log("remote", "session "+start.Session+" on "+way.address)

	line := newNotice(s.program, s.command.Kind)
	defer line.end()
	var placed atomic.Pointer[wire.Ticket]
	if s.settings.Wait > 0 {
		belt := time.AfterFunc(s.settings.Wait+dialBound, func() {
			if placed.Load() == nil {
				cancel(errWaited)
			}
		})
		defer belt.Stop()
	}
	raw, err := wire.NewRunnerClient(way.conn).Run(ctx)
	if err != nil {
		return ending{why: way.whyNot(ctx, err)}
	}
	keys := s.keys(caught)
	defer keys.stop()
	stream := &watched{Stream: raw, ctx: ctx, ended: make(chan struct{})}
	client := &session.Client{
		Start: start, Stdin: s.stdin(), Stdout: os.Stdout, Stderr: os.Stderr,
		Signals:    caught.forward,
		OnProgress: line.progress,
		OnTicket:   func(t *wire.Ticket) { placed.Store(t) },
		OnStarted: func(*wire.Started) {
			line.end()
			caught.begin()
			keys.stop() // from here on they are the program's
		},
		OnExit: func(*wire.Exit) { caught.end() },
	}
	exit, err := client.Run(ctx, stream)
	if err == nil {
		return ending{exit: exit}
	}
	return s.judge(ctx, way, err, start.Session, placed.Load())
}

// stdin is nil for a program that does not read it: the caller's next command
// finds every byte still there.
func (s *shim) stdin() io.Reader {
	if s.command.ReadsStdin {
		return os.Stdin
	}
	return nil
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
// started may still run here, a lost one never again.
func (s *shim) judge(ctx context.Context, way *link, err error, id string, t *wire.Ticket) ending {
	if refused, ok := errors.AsType[*session.RefusedError](err); ok {
		if refused.Refusal == wire.Refusal_LOCAL && s.settings.Mode != ffmpeg.ForceRemote {
			return ending{here: true}
		}
		return ending{why: &failure{what: "scheduler " + way.address + " refused the session", why: refused.Message, remedy: refused.Remedy}}
	}
	lost, ok := errors.AsType[*session.LostError](err)
	if ok && !lost.MayHaveStarted {
		cause := lost.Cause
		if end, ok := errors.AsType[*streamError](err); ok {
			cause = end.err
		}
		return ending{why: way.whyNot(ctx, cause)}
	}
	where := "session " + id
	if t != nil {
		where += " on worker " + t.Pod
	}
	return ending{begun: true, why: &failure{
		what: where + " was lost", why: err.Error(),
		remedy: "its outputs may be incomplete and it was not run again: check the scheduler and the worker, then repeat the command",
	}}
}

// whyNot words the end of a stream on which nothing was started.
func (l *link) whyNot(ctx context.Context, err error) *failure {
	if cause := context.Cause(ctx); cause != nil {
		return &failure{what: "scheduler " + l.address, why: cause.Error(), remedy: "scale the class up or raise FFPOD_WAIT"}
	}
	if f := l.broken.failure(l.address); f != nil {
		return f
	}
	st, _ := status.FromError(err)
	switch st.Code() {
	case codes.Unauthenticated:
		return &failure{
			what: "scheduler " + l.address + " refused the token", why: st.Message(),
			remedy: "check the token's audience (ffpod), its ServiceAccount and FFPOD_TOKEN_FILE",
		}
	case codes.PermissionDenied:
		return &failure{
			what: "scheduler " + l.address + " refused the caller", why: st.Message(),
			remedy: "allow its ServiceAccount in the scheduler's configuration",
		}
	case codes.Unimplemented:
		return &failure{what: l.address + " is no ffpod scheduler", why: st.Message(), remedy: "correct FFPOD_ADDRESS"}
	case codes.OK, codes.Unknown:
		return &failure{what: "scheduler " + l.address + " ended the session before it began", why: err.Error(), remedy: remedyPod}
	}
	return &failure{what: "scheduler " + l.address + " ended the session before it began", why: st.Message(), remedy: remedyPod}
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
func (s *shim) finish(e *wire.Exit) int {
	if why := worded(e.Cause); why.what != "" {
		say(string(s.program), why)
	}
	if e.Signal != 0 {
		return die(syscall.Signal(e.Signal))
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
	case wire.Cause_CAUSE_ORPHANED:
		return failure{what: "the worker ended it", why: "the connection to this process was lost for too long", remedy: "check the scheduler, then run it again"}
	}
	return failure{}
}
