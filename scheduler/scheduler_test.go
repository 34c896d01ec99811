package scheduler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/store"
)

func TestWarm(t *testing.T) {
	r := newRig(t, nil)
	starts := make(chan *wire.Start, 1)
	w := r.add("w1", 2, func(s wire.Runner_RunServer) error {
		st := startOf(s)
		starts <- st
		_ = begin(s)
		_ = s.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDOUT, Bytes: []byte("hello\r")}}})
		return end(s, &wire.Exit{Session: st.GetSession(), Code: 3, Stdout: 6})
	})
	var out bytes.Buffer
	s := r.start("s1", resumes, &out)
	exit, err := s.wait(t)
	if err != nil || exit.GetCode() != 3 || out.String() != "hello\r" {
		t.Fatalf("exit %v, %v, stdout %q", exit, err, out.String())
	}
	ticket := within(t, s.ticket, "the ticket")
	want := &wire.Ticket{Session: "s1", Namespace: "media", Pod: "w1", PodUid: "uid-w1", Nonce: "nonce-w1", Class: "cpu", Node: "node-w1", Placement: "warm", Reason: ticket.GetReason(), GraceMs: 60_000}
	if diff := cmp.Diff(want.String(), ticket.String()); diff != "" || ticket.GetReason() == "" {
		t.Errorf("ticket (-want +got):\n%s", diff)
	}
	st := within(t, starts, "Start at the worker")
	var rec Record
	if err := json.Unmarshal(st.GetRecord(), &rec); err != nil {
		t.Fatal(err)
	}
	if rec.Caller != testCaller || rec.Class != "cpu" || rec.Kind != "playback" || string(rec.Outputs[0]) != "/media/s1-out" {
		t.Errorf("record %+v, outputs %q", rec, rec.Outputs)
	}
	if string(st.GetArgv()[1]) != "secret-name.mkv" || st.GetGraceMs() != 60_000 {
		t.Errorf("Start was changed: %v", st)
	}
	line := r.audit("s1")
	for key, want := range map[string]any{"caller": "media/jellyfin", "callerPod": "jellyfin-0", "kind": "playback", "class": "cpu", "worker": "w1",
		"node": "node-w1", "placement": "warm", "exit": "3", "stdoutBytes": uint64(6)} {
		if line[key] != want {
			t.Errorf("audit %s = %v, want %v", key, line[key], want)
		}
	}
	for _, key := range []string{"queued", "launching", "starting", "running", "total"} {
		if _, ok := line[key]; !ok {
			t.Errorf("audit has no %s", key)
		}
	}
	if n := r.logs.FilterMessage("session ended").Len(); n != 1 {
		t.Errorf("%d audit lines", n)
	}
	if got := r.pool.ends(w); got != "1 released, 0 destroyed" {
		t.Error(got)
	}
	got, _, _ := r.store.Get(t.Context(), "s1")
	if got.State != store.Ended || got.Outcome.Code != 3 || got.Times.Running.IsZero() || got.Right.Pod != "w1" {
		t.Errorf("stored as %+v", got)
	}
	if n := testutil.ToFloat64(r.sched.cfg.Metrics.sessions.WithLabelValues("warm", "playback", "code")); n != 1 {
		t.Errorf("metric %v", n)
	}
	for _, e := range r.logs.All() {
		if strings.Contains(fmt.Sprint(e.Message, e.ContextMap()), "secret-name") {
			t.Errorf("argv in the log: %v", e)
		}
	}
}

func TestPlacedElsewhere(t *testing.T) {
	r := newRig(t, nil)
	full := r.add("a", 9, refuseWith(wire.Refusal_NO_SLOT, "all slots are taken"))
	free := r.add("b", 1, prints([]byte("x"), 0))
	s := r.start("s1", nil, nil)
	if exit, err := s.wait(t); err != nil || exit.GetCode() != 0 {
		t.Fatalf("exit %v, %v", exit, err)
	}
	if first, second := within(t, s.ticket, "ticket"), within(t, s.ticket, "second ticket"); first.GetPod() != "a" || second.GetPod() != "b" {
		t.Errorf("tickets for %s, %s", first.GetPod(), second.GetPod())
	}
	r.audit("s1")
	if got := r.pool.ends(full); got != "0 released, 1 destroyed" {
		t.Errorf("the full one: %s", got)
	}
	if got := r.pool.ends(free); got != "1 released, 0 destroyed" {
		t.Errorf("the free one: %s", got)
	}
}

func TestPlacedElsewhereIsBounded(t *testing.T) {
	r := newRig(t, nil)
	for i := range 5 {
		r.add(fmt.Sprint("w", i), 1, refuseWith(wire.Refusal_DRAINING, "going away"))
	}
	s := r.start("s1", nil, nil)
	if got := s.refused(t); got.Refusal != wire.Refusal_WORKER || !strings.Contains(got.Message, "3 tries: going away") {
		t.Errorf("refused %+v", got)
	}
	if n := len(s.ticket); n != maxAttempts {
		t.Errorf("%d tickets", n)
	}
	if got := r.state("s1"); got != store.Refused {
		t.Errorf("state %s", got)
	}
}

func TestWorkerRefusesForGood(t *testing.T) {
	r := newRig(t, nil)
	w := r.add("w", 1, refuseWith(wire.Refusal_NO_PROGRAM, "/usr/bin/ffmpeg: not found"))
	r.add("x", 1, prints(nil, 0))
	s := r.start("s1", nil, nil)
	if got := s.refused(t); got.Refusal != wire.Refusal_NO_PROGRAM || got.Message != "/usr/bin/ffmpeg: not found" {
		t.Errorf("refused %+v", got)
	}
	r.audit("s1")
	if got := r.pool.ends(w); got != "1 released, 0 destroyed" {
		t.Error(got)
	}
}

// A worker that dies leaves a session that may have run: lost, with the cause
// that Kubernetes gives a little later, and never run again.
func TestWorkerDies(t *testing.T) {
	tests := map[string]func(wire.Runner_RunServer) error{
		"before Started": func(s wire.Runner_RunServer) error { startOf(s); return errors.New("connection reset") },
		"after Started":  func(s wire.Runner_RunServer) error { startOf(s); _ = begin(s); return errors.New("connection reset") },
		"without a word": func(s wire.Runner_RunServer) error { startOf(s); _ = begin(s); return nil },
	}
	for name, dies := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			var w *fakeWorker
			ready := make(chan struct{})
			w = r.add("w", 1, func(s wire.Runner_RunServer) error {
				<-ready
				defer close(w.gone)
				return dies(s)
			})
			w.cause = errors.New("worker w: OOMKilled")
			close(ready)
			s := r.start("s1", nil, nil)
			_, err := s.wait(t)
			lost, ok := errors.AsType[*session.LostError](err)
			if !ok || !lost.MayHaveStarted || !strings.Contains(lost.Error(), "OOMKilled") {
				t.Fatalf("err = %v", err)
			}
			if line := r.audit("s1"); line["exit"] != "lost" || !strings.Contains(fmt.Sprint(line["cause"]), "OOMKilled") {
				t.Errorf("audit %v", line)
			}
			if got := r.pool.ends(w); got != "0 released, 1 destroyed" {
				t.Error(got)
			}
			if got := len(r.pool.order()); got != 1 {
				t.Errorf("placed %d times", got)
			}
		})
	}
}

// The pod is deleted while its stream still seems alive.
func TestWorkerGoneStreamAlive(t *testing.T) {
	r := newRig(t, nil)
	ended := make(chan struct{})
	w := r.add("w", 1, func(s wire.Runner_RunServer) error {
		startOf(s)
		_ = begin(s)
		<-s.Context().Done()
		close(ended)
		return nil
	})
	s := r.start("s1", nil, nil)
	within(t, s.started, "Started")
	w.cause = errors.New("worker w: the pod was deleted")
	close(w.gone)
	if _, err := s.wait(t); err == nil || !strings.Contains(err.Error(), "the pod was deleted") {
		t.Errorf("err = %v", err)
	}
	within(t, ended, "the end of the worker's stream")
}

func TestShimGoneWhileRunning(t *testing.T) {
	r := newRig(t, nil)
	ended := make(chan struct{})
	w := r.add("w", 1, func(s wire.Runner_RunServer) error {
		startOf(s)
		_ = begin(s)
		<-s.Context().Done()
		close(ended)
		return nil
	})
	s := r.start("s1", nil, nil)
	within(t, s.started, "Started")
	s.cancel()
	within(t, ended, "the end of the worker's stream")
	if line := r.audit("s1"); line["exit"] != "lost" {
		t.Errorf("audit %v", line)
	}
	if got := r.pool.ends(w); got != "0 released, 1 destroyed" {
		t.Error(got)
	}
}

// Whichever stream's end the relay notices first, it is the shim that went: the
// session is over at once, without a search for what happened to the worker.
func TestShimGoneIsNeverTakenForALostWorker(t *testing.T) {
	r := newRig(t, nil)
	r.add("w", 1, func(s wire.Runner_RunServer) error {
		startOf(s)
		_ = begin(s)
		<-s.Context().Done()
		return nil
	})
	for i := range 30 {
		id := fmt.Sprintf("s%d", i)
		s := r.start(id, nil, nil)
		within(t, s.started, "Started")
		s.cancel()
		if line := r.audit(id); !strings.Contains(fmt.Sprint(line["cause"]), "shim") {
			t.Fatalf("audit %v", line)
		}
	}
}

func TestShimGoneWhileQueued(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "warm" })
	s := r.start("s1", nil, nil)
	within(t, s.progress, "Progress")
	s.cancel()
	if line := r.audit("s1"); line["exit"] != "cancelled" {
		t.Errorf("audit %v", line)
	}
	r.add("w", 1, prints(nil, 0))
	next := r.start("s2", nil, nil)
	if _, err := next.wait(t); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"s2"}, r.pool.order()); diff != "" {
		t.Error(diff)
	}
}

func TestShimGoneWhileLaunching(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "job" })
	cancelled := make(chan error, 1)
	r.jobs.launch = func(ctx context.Context, _ string, progress func(string)) (*lease.Lease, error) {
		progress("Unschedulable: 0/1 nodes are available")
		<-ctx.Done()
		cancelled <- context.Cause(ctx)
		return nil, ctx.Err()
	}
	s := r.start("s1", nil, nil)
	for p := range s.progress {
		if strings.Contains(p.GetReason(), "Unschedulable") {
			break
		}
	}
	s.cancel()
	if err := within(t, cancelled, "the end of the launch"); !errors.Is(err, session.ErrShimGone) {
		t.Errorf("cause %v", err)
	}
	if line := r.audit("s1"); line["exit"] != "cancelled" || line["placement"] != "job" {
		t.Errorf("audit %v", line)
	}
	if n := r.jobs.Active("cpu"); n != 0 {
		t.Errorf("%d Jobs are left", n)
	}
}

func TestJob(t *testing.T) {
	r := newRig(t, nil) // warm-then-job, and no warm worker
	runner := serveRunner(t, prints([]byte("from a Job"), 0))
	ended := make(chan string, 1)
	r.jobs.launch = func(_ context.Context, id string, progress func(string)) (*lease.Lease, error) {
		progress("Pulling image")
		return lease.New(lease.Terms{Worker: lease.Worker{Class: "cpu", Pod: "job-" + id, Job: "job-" + id, Node: "n"}, Runner: runner, Gone: make(chan struct{}),
			Release: func() { ended <- "released" }, Leave: func() { ended <- "left" }, Destroy: func() { ended <- "destroyed" }}), nil
	}
	var out bytes.Buffer
	s := r.start("s1", resumes, &out)
	if _, err := s.wait(t); err != nil || out.String() != "from a Job" {
		t.Fatalf("%v, %q", err, out.String())
	}
	if got := within(t, ended, "the end of the lease"); got != "released" {
		t.Error(got)
	}
	if line := r.audit("s1"); line["placement"] != "job" || line["job"] != "job-s1" {
		t.Errorf("audit %v", line)
	}
}

func TestJobThatCannotStart(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "job" })
	r.jobs.launch = func(context.Context, string, func(string)) (*lease.Lease, error) {
		return nil, errors.New("exceeded quota: pods=4")
	}
	s := r.start("s1", func(st *wire.Start) { st.WaitMs = 300 }, nil)
	got := s.refused(t)
	if got.Refusal != wire.Refusal_QUEUE_TIMEOUT || !strings.Contains(got.Message, "exceeded quota") {
		t.Errorf("refused %+v", got)
	}
}

func TestQueue(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "warm" })
	release := make(chan struct{})
	r.add("w", 1, func(s wire.Runner_RunServer) error {
		st := startOf(s)
		_ = begin(s)
		<-release
		return end(s, &wire.Exit{Session: st.GetSession()})
	})
	first := r.start("s0", nil, nil)
	within(t, first.started, "Started")
	var waiting []*shim
	for i := 1; i <= 4; i++ {
		s := r.start(fmt.Sprint("s", i), nil, nil)
		waiting = append(waiting, s)
		if p := within(t, s.progress, "Progress"); p.GetPosition() != uint32(i) || p.GetPhase() != "queued" || !strings.Contains(p.GetReason(), "1 of 1 warm slots taken") {
			t.Errorf("progress of s%d: %v", i, p)
		}
	}
	if got, other := r.sched.Waiting("cpu"), r.sched.Waiting("none"); got != 4 || other != 0 {
		t.Errorf("%d wait for class cpu and %d for none, want 4 and 0", got, other)
	}
	if got, _, _ := r.store.Get(t.Context(), "s3"); !strings.Contains(got.Reason, "warm slots taken") {
		t.Errorf("stored reason %q", got.Reason)
	}
	waiting[1].cancel() // s2 gives up: those behind it move up
	for p := range waiting[3].progress {
		if p.GetPosition() == 3 {
			break
		}
	}
	close(release)
	for _, i := range []int{0, 2, 3} {
		if _, err := waiting[i].wait(t); err != nil {
			t.Errorf("s%d: %v", i+1, err)
		}
	}
	if diff := cmp.Diff([]string{"s0", "s1", "s3", "s4"}, r.pool.order()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestQueueTimeout(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "warm" })
	s := r.start("s1", func(st *wire.Start) { st.WaitMs = 50 }, nil)
	if got := s.refused(t); got.Refusal != wire.Refusal_QUEUE_TIMEOUT || !strings.Contains(got.Message, "no worker within 50ms: class cpu: none of 1 warm workers is ready") || got.Remedy == "" {
		t.Errorf("refused %+v", got)
	}
	r.fellBack(t, "timeout")
}

// fellBack says which fallback has been counted, once: of all, it is the only one.
func (r *rig) fellBack(t *testing.T, verdict string) {
	t.Helper()
	counted := func() string {
		var all []string
		for _, v := range []string{"local", "timeout", "full", "reject"} {
			for _, kind := range []string{"other", "unknown", "playback", "information"} {
				for range int(testutil.ToFloat64(r.sched.cfg.Metrics.fallbacks.WithLabelValues(kind, v))) {
					all = append(all, v)
				}
			}
		}
		return strings.Join(all, " ")
	}
	eventually(t, "the fallback "+verdict+" is counted once", func() bool { return counted() == verdict })
}

func TestRefusedAtTheDoor(t *testing.T) {
	tests := map[string]struct {
		change      func(*wire.Start)
		before      int // sessions that wait already
		want        wire.Refusal
		wantMessage string
		counted     string // as a fallback; empty: it is none
	}{
		"a class that is not there": {func(s *wire.Start) { s.Class = "gpu" }, 0, wire.Refusal_NO_CLASS, "no class gpu", "reject"},
		"an id that is no name":     {func(s *wire.Start) { s.Session = "../x" }, 0, wire.Refusal_BAD_START, "session id", ""},
		"an unknown policy":         {func(s *wire.Start) { s.Policy = "hot" }, 0, wire.Refusal_BAD_START, `policy "hot"`, ""},
		"an unknown program":        {func(s *wire.Start) { s.Program = 9 }, 0, wire.Refusal_BAD_START, "neither ffmpeg nor ffprobe", ""},
		"an id that is known":       {func(s *wire.Start) { s.Session = "waiting-0" }, 1, wire.Refusal_DUPLICATE, "known already", ""},
		"a queue that is full":      {nil, 8, wire.Refusal_QUEUE_FULL, "8 wait", "full"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Policy = "warm" })
			for i := range tt.before {
				within(t, r.start(fmt.Sprint("waiting-", i), nil, nil).progress, "Progress")
			}
			s := r.start("s1", tt.change, nil)
			if got := s.refused(t); got.Refusal != tt.want || !strings.Contains(got.Message, tt.wantMessage) || got.Remedy == "" {
				t.Errorf("refused %+v", got)
			}
			eventually(t, "an audit line", func() bool { return r.logs.FilterMessage("session ended").Len() == 1 })
			r.fellBack(t, tt.counted)
		})
	}
}

func TestFirstFrame(t *testing.T) {
	r := newRig(t, nil)
	stream, err := r.shims.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: 9}}}); err != nil {
		t.Fatal(err)
	}
	f, err := stream.Recv()
	if err != nil || f.GetRefused().GetRefusal() != wire.Refusal_BAD_START {
		t.Errorf("answer %v, %v", f, err)
	}
}

// Nothing starts before the shim holds its ticket.
func TestTicketBeforeStart(t *testing.T) {
	r := newRig(t, nil)
	asked := make(chan struct{}, 1)
	w := r.add("w", 1, func(wire.Runner_RunServer) error { asked <- struct{}{}; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := r.shims.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&wire.Frame{Kind: &wire.Frame_Start{Start: &wire.Start{Session: "s1", Program: wire.Program_FFMPEG}}})
	for {
		f, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if f.GetTicket() != nil {
			break
		}
	}
	cancel()
	if line := r.audit("s1"); line["exit"] != "cancelled" {
		t.Errorf("audit %v", line)
	}
	select {
	case <-asked:
		t.Error("the worker was asked")
	default:
	}
	if got := r.pool.ends(w); got != "1 released, 0 destroyed" {
		t.Error(got)
	}
}

func TestDrain(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "warm" })
	r.add("w", 1, func(s wire.Runner_RunServer) error {
		startOf(s)
		_ = begin(s)
		<-s.Context().Done() // ffmpeg would run for hours
		return nil
	})
	running := r.start("s1", nil, nil)
	within(t, running.started, "Started")
	waiting := r.start("s2", nil, nil)
	within(t, waiting.progress, "Progress")

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	begun := time.Now()
	if err := r.sched.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("drain took %s", took)
	}
	_, err := running.wait(t)
	if lost, ok := errors.AsType[*session.LostError](err); !ok || !strings.Contains(lost.Error(), "shutting down") {
		t.Errorf("running: %v", err)
	}
	if got := waiting.refused(t); got.Refusal != wire.Refusal_DRAINING {
		t.Errorf("waiting: %+v", got)
	}
	late := r.start("s3", nil, nil)
	_, err = late.wait(t)
	refused, _ := errors.AsType[*session.RefusedError](err) // when its Start was read first
	if lost, ok := errors.AsType[*session.LostError](err); (!ok || lost.MayHaveStarted || !strings.Contains(lost.Error(), "shutting down")) &&
		(refused == nil || refused.Refusal != wire.Refusal_DRAINING) {
		t.Errorf("late: %T %+v", err, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Store = store.NewMemory(store.MemoryConfig{Limit: 64}) })
	rnd := rand.New(rand.NewPCG(1, 2))
	outs := map[string][]byte{}
	var ids []string
	for i := range 50 {
		b := make([]byte, 700<<10)
		for j := range b {
			b[j] = byte(rnd.Uint32())
		}
		ids = append(ids, fmt.Sprint("s", i))
		outs[ids[i]] = b
	}
	for i := range 4 {
		r.add(fmt.Sprint("w", i), 3, func(s wire.Runner_RunServer) error {
			f, err := s.Recv()
			if err != nil {
				return err
			}
			return prints(outs[f.GetStart().GetSession()], 0)(&replay{s, f})
		})
	}
	results := map[string]*bytes.Buffer{}
	shims := map[string]*shim{}
	for _, id := range ids {
		results[id] = &bytes.Buffer{}
		shims[id] = r.start(id, func(st *wire.Start) { st.Policy = "warm" }, results[id])
	}
	for _, id := range ids {
		if _, err := shims[id].wait(t); err != nil {
			t.Errorf("%s: %v", id, err)
		} else if !bytes.Equal(results[id].Bytes(), outs[id]) {
			t.Errorf("%s: %d bytes differ from %d", id, results[id].Len(), len(outs[id]))
		}
	}
}

// replay gives back the first frame, then reads on.
type replay struct {
	wire.Runner_RunServer
	first *wire.Frame
}

func (r *replay) Recv() (*wire.Frame, error) {
	if f := r.first; f != nil {
		r.first = nil
		return f, nil
	}
	return r.Runner_RunServer.Recv()
}
