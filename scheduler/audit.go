package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/store"
)

// callersSignal is the cause of a session that its caller ended.
const callersSignal = "the caller's signal"

// outcome is how a session ended, and what is said of it.
type outcome struct {
	state store.State
	word  string // of the audit line and the metrics: code, signal, lost, refused, cancelled
	cause string
	frame *wire.Frame // for the shim; nil: it has its Exit, or is gone
}

// finish tells the shim, the store and the audit log how the session ended.
func (r *run) finish(ctx context.Context, err error) {
	out := r.outcome(err)
	if out.frame != nil {
		r.link.Send(out.frame)
	}
	if r.state != "" && !r.state.May(out.state) {
		out.state = store.Lost // it was refused what it once had
	}
	if r.state != "" {
		r.move(ctx, out.state, store.Move{Reason: r.decision.Reason, Outcome: store.Outcome{
			Code: r.exit.GetCode(), Signal: r.exit.GetSignal(), Cause: out.cause}})
	}
	r.audit(out)
	r.sched.cfg.Metrics.ended(r, out)
	r.sched.nudge()
}

func (r *run) outcome(err error) outcome {
	refused, isRefused := errors.AsType[*session.RefusedError](err)
	switch {
	case r.exit != nil:
		return exited(r.exit)
	case isRefused:
		return refusal(refused)
	case errors.Is(err, session.ErrShimGone) && !r.begun.Load():
		return outcome{state: store.Refused, word: "cancelled", cause: err.Error()}
	case errors.Is(err, session.ErrShimGone):
		return outcome{state: store.Lost, word: "lost", cause: err.Error() + "; ffmpeg was killed"}
	case errors.Is(err, errFenced) && !r.begun.Load():
		refused, _ := errors.AsType[*session.RefusedError](fencedOff())
		return refusal(refused)
	case errors.Is(err, errDraining) && !r.begun.Load():
		return refusal(refuse(wire.Refusal_DRAINING, "run the command again", "%s", err))
	case !r.begun.Load():
		return refusal(refuse(wire.Refusal_WORKER, "look at the scheduler's log", "%s", err))
	}
	return outcome{state: store.Lost, word: "lost", cause: err.Error(), frame: lostFrame(err)}
}

func lostFrame(err error) *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Lost{Lost: &wire.Lost{Message: err.Error()}}}
}

func refusal(e *session.RefusedError) outcome {
	cause := e.Refusal.String()
	if e.Refusal != wire.Refusal_BAD_START { // its words may quote the caller's directory, which is nobody else's to read
		cause += ": " + e.Message
	}
	return outcome{state: store.Refused, word: "refused", cause: cause,
		frame: &wire.Frame{Kind: &wire.Frame_Refused{Refused: &wire.Refused{Refusal: e.Refusal, Message: e.Message, Remedy: e.Remedy}}}}
}

func exited(e *wire.Exit) outcome {
	out := outcome{state: store.Ended, word: "code"}
	if e.GetSignal() != 0 {
		out.word = "signal"
	}
	switch e.GetCause() {
	case wire.Cause_CAUSE_SIGNAL:
		out.cause = callersSignal
	case wire.Cause_CAUSE_ORPHANED:
		out.cause = "nobody was attached"
	case wire.Cause_CAUSE_MEMORY:
		out.cause = "the worker ran out of memory"
	case wire.Cause_CAUSE_SHUTDOWN:
		out.cause = "the worker's pod was deleted"
	case wire.Cause_CAUSE_FENCED:
		out.cause = errFenced.Error()
	}
	return out
}

// audit writes the one line of a session. It never holds argv.
func (r *run) audit(out outcome) {
	fields := []zap.Field{
		zap.String("session", r.id),
		zap.String("caller", r.caller.Namespace+"/"+r.caller.ServiceAccount),
		zap.String("callerPod", r.caller.Pod),
		zap.String("kind", r.kind),
		zap.String("policy", string(r.policy)),
		zap.String("class", r.decision.Class),
		zap.String("worker", r.worker.Pod),
		zap.String("node", r.worker.Node),
		zap.String("placement", string(r.decision.Verdict)),
		zap.String("reason", r.decision.Reason),
		zap.String("exit", exitWords(r.exit, out)),
		zap.String("cause", out.cause),
	}
	if r.translated != nil {
		fields = append(fields, zap.Stringer("translated", r.translated))
	}
	if r.worker.Job != "" {
		fields = append(fields, zap.String("job", r.worker.Job))
	}
	if build := r.start.GetBuild(); build != "" && r.build != "" && build != r.build {
		fields = append(fields, zap.String("callerBuild", build), zap.String("workerBuild", r.build))
	}
	end := r.now()
	span := func(key string, from, to time.Time) {
		if from.IsZero() {
			return
		}
		if to.IsZero() {
			to = end
		}
		fields = append(fields, zap.Duration(key, to.Sub(from)))
	}
	t := r.times
	span("queued", t.queued, t.leased)      // until a place was granted
	span("launching", t.leased, t.ready)    // until the worker answered
	span("starting", t.starting, t.running) // from Start to Started
	span("running", t.running, end)
	span("total", r.asked, end)
	fields = append(fields,
		zap.Uint64("stdinBytes", r.bytes.stdin.Load()), zap.Uint64("stdoutBytes", r.bytes.stdout.Load()), zap.Uint64("stderrBytes", r.bytes.stderr.Load()))
	if e := r.exit; e != nil {
		fields = append(fields, zap.Int64("cpuMs", (e.GetUserUs()+e.GetSystemUs())/1000), zap.Int64("maxRssKiB", e.GetMaxRssKib()))
	}
	r.sched.log.Info("session ended", fields...)
}

// exitWords is the exit as a person says it: 0, 1, SIGTERM, lost, refused.
func exitWords(e *wire.Exit, out outcome) string {
	switch {
	case e == nil:
		return out.word
	case e.GetSignal() == 0:
		return fmt.Sprint(e.GetCode())
	}
	if name := unix.SignalName(unix.Signal(e.GetSignal())); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", e.GetSignal())
}
