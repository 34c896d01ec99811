package scheduler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/store"
)

func resumes(s *wire.Start) { s.Resumes = true }

func attached(s wire.Runner_RunServer, epoch uint64) error {
	return s.Send(&wire.Frame{Kind: &wire.Frame_Attached{Attached: &wire.Attached{Epoch: epoch}}})
}

// knows has the worker tell of a session, as Describe does.
func (w *fakeWorker) knows(start *wire.Start) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions = append(w.sessions, &wire.SessionState{Session: start.GetSession(), Record: start.GetRecord(), Epoch: 1, Attached: true})
}

func (w *fakeWorker) forgets() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions = nil
}

// A stream to the worker that breaks is none of the session's business: the shim
// dials again, and the same process goes on.
func TestABrokenStreamToTheWorkerIsResumed(t *testing.T) {
	r := newRig(t, nil)
	var w *fakeWorker
	var streams atomic.Int32
	ready := make(chan struct{})
	w = r.add("w", 1, func(s wire.Runner_RunServer) error {
		<-ready
		if streams.Add(1) == 1 {
			w.knows(startOf(s))
			_ = begin(s)
			_ = s.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDOUT, Bytes: []byte("one ")}}})
			return errors.New("the kubelet was restarted")
		}
		first, _ := s.Recv()
		if first.GetResume().GetStdout() != 4 {
			return errors.New("no resume from byte 4")
		}
		_ = attached(s, 2)
		_ = s.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDOUT, Offset: 4, Bytes: []byte("two")}}})
		return end(s, &wire.Exit{Session: "s1", Code: 3, Stdout: 7})
	})
	close(ready)
	var out bytes.Buffer
	s := r.start("s1", resumes, &out)
	exit, err := s.wait(t)
	if err != nil || exit.GetCode() != 3 || out.String() != "one two" {
		t.Fatalf("exit %v, %v, stdout %q", exit, err, &out)
	}
	eventually(t, "the slot is given back", func() bool { return r.pool.ends(w) == "1 released, 0 destroyed, 1 left" })
	if line := r.audit("s1"); line["exit"] != "3" || line["kind"] != "playback" || line["worker"] != "w" {
		t.Errorf("audit %v", line)
	}
	if orders := w.ordered(); strings.Contains(orders, "kill") { // an orphan order forgets the exit, when the shim hung up first
		t.Errorf("ordered %s", orders)
	}
	if got := r.state("s1"); got != store.Ended {
		t.Errorf("state %s", got)
	}
}

// Only words kill: the end of the shim's stream is one order, with the epoch of the
// stream that ended.
func TestAShimThatIsGoneIsOrphaned(t *testing.T) {
	r := newRig(t, nil)
	var w *fakeWorker
	ready := make(chan struct{})
	w = r.add("w", 1, func(s wire.Runner_RunServer) error {
		<-ready
		w.knows(startOf(s))
		_ = begin(s)
		<-s.Context().Done()
		return nil
	})
	close(ready)
	s := r.start("s1", resumes, nil)
	within(t, s.started, "Started")
	s.cancel()
	eventually(t, "the order", func() bool { return w.ordered() == "orphan s1 1" })
	if got := r.state("s1"); got != store.Running {
		t.Errorf("state %s before the process is dead", got)
	}
	w.forgets()
	if line := r.audit("s1"); line["exit"] != "lost" {
		t.Errorf("audit %v", line)
	}
}

// held is a stdout whose reader takes its time.
type held chan struct{}

func (h held) Write(b []byte) (int, error) { <-h; return len(b), nil }

// A worker whose stream breaks between the exit and its acknowledgement is told
// otherwise that nobody asks for the exit any more: a Job's would wait for its grace.
func TestAnExitWhoseAcknowledgementIsLost(t *testing.T) {
	r := newRig(t, nil)
	read := make(held)
	w := r.add("w", 1, func(s wire.Runner_RunServer) error {
		_ = startOf(s)
		_ = begin(s)
		_ = s.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDOUT, Bytes: []byte("x"), Eof: true}}})
		_ = s.Send(&wire.Frame{Kind: &wire.Frame_Exit{Exit: &wire.Exit{Session: "s1", Stdout: 1}}})
		time.AfterFunc(100*time.Millisecond, func() { close(read) })
		return errors.New("the channel broke")
	})
	s := r.start("s1", resumes, read)
	if exit, err := s.wait(t); err != nil || exit.GetCode() != 0 {
		t.Fatalf("exit %v, %v", exit, err)
	}
	eventually(t, "the order", func() bool { return w.ordered() == "orphan s1 1" })
	if line := r.audit("s1"); line["exit"] != "0" {
		t.Errorf("audit %v", line)
	}
}

// A shim that dies before Started came has the first stream all the same: a process
// that takes a moment to die is not one that somebody has resumed.
func TestAShimThatIsGoneBeforeStarted(t *testing.T) {
	r := newRig(t, nil)
	var w *fakeWorker
	ready, came := make(chan struct{}), make(chan struct{})
	w = r.add("w", 1, func(s wire.Runner_RunServer) error {
		<-ready
		w.knows(startOf(s)) // with epoch 1: it runs
		close(came)
		<-s.Context().Done()
		return nil
	})
	close(ready)
	s := r.start("s1", resumes, nil)
	within(t, came, "Start")
	s.cancel()
	eventually(t, "the order", func() bool { return w.ordered() == "orphan s1 1" })
	time.Sleep(200 * time.Millisecond) // it is asked about, and still dying
	w.forgets()
	if line := r.audit("s1"); line["exit"] != "lost" {
		t.Errorf("audit %v", line)
	}
	if got := r.state("s1"); got != store.Lost {
		t.Errorf("state %s", got)
	}
	eventually(t, "its outputs are free", func() bool { return r.sched.fences.Superseded("s1") == nil })
}

// A scheduler that goes leaves its sessions to the next, which knows them by the
// worker's word alone.
func TestAnotherSchedulerResumes(t *testing.T) {
	r := newRig(t, nil)
	var w *fakeWorker
	var streams atomic.Int32
	ready := make(chan struct{})
	w = r.add("w", 1, func(s wire.Runner_RunServer) error {
		<-ready
		if streams.Add(1) == 1 {
			w.knows(startOf(s))
			_ = begin(s)
			<-s.Context().Done()
			return nil
		}
		_, _ = s.Recv()
		_ = attached(s, 2)
		return end(s, &wire.Exit{Session: "s1", Code: 5})
	})
	close(ready)
	next, err := New(Config{Namespace: "media", Classes: r.sched.cfg.Classes, Pool: r.pool, Jobs: r.jobs, Store: store.NewMemory(store.MemoryConfig{}), Log: r.sched.log})
	if err != nil {
		t.Fatal(err)
	}
	var second atomic.Bool
	r.shims = serveRunner(t, func(s wire.Runner_RunServer) error {
		if second.Load() {
			next.Serve(s.Context(), testCaller, s)
		} else {
			r.sched.Serve(s.Context(), testCaller, s)
		}
		return nil
	})
	s := r.start("s1", resumes, nil)
	within(t, s.started, "Started")
	second.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.sched.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	if exit, err := s.wait(t); err != nil || exit.GetCode() != 5 {
		t.Fatalf("exit %v, %v", exit, err)
	}
	if orders := w.ordered(); orders != "" {
		t.Errorf("ordered %s", orders)
	}
	known, _, _ := next.cfg.Store.Get(t.Context(), "s1")
	eventually(t, "the end in the new store", func() bool { known, _, _ = next.cfg.Store.Get(t.Context(), "s1"); return known.State == store.Ended })
	if known.Kind != "playback" || known.Caller != testCaller {
		t.Errorf("remembered as %+v", known)
	}
}

// resume asks for a session as a shim would, and returns what it is told.
func (r *rig) resume(caller store.Caller, t *wire.Ticket) *wire.Frame {
	r.t.Helper()
	shims := serveRunner(r.t, func(s wire.Runner_RunServer) error { r.sched.Serve(s.Context(), caller, s); return nil })
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	stream, err := shims.Run(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = stream.Send(&wire.Frame{Kind: &wire.Frame_Resume{Resume: &wire.Resume{Ticket: t}}})
	for {
		f, err := stream.Recv()
		if err != nil {
			r.t.Fatal(err)
		}
		if f.GetHeartbeat() == nil {
			return f
		}
	}
}

// Whoever knows a ticket is not yet its owner, and cannot harm the session.
func TestWhoMayResume(t *testing.T) {
	ticket := func(session, pod string) *wire.Ticket {
		return &wire.Ticket{Session: session, Pod: pod, PodUid: "uid-" + pod, Nonce: "nonce-" + pod, Placement: "warm", Class: "cpu"}
	}
	stranger := testCaller
	stranger.PodUID = "another"
	tests := map[string]struct {
		caller  store.Caller
		ticket  *wire.Ticket
		refused wire.Refusal
		lost    string
	}{
		"another pod":               {stranger, ticket("s1", "w"), wire.Refusal_POLICY, ""},
		"a worker that is gone":     {testCaller, ticket("s1", "v"), 0, "the pod was deleted"},
		"a session that has ended":  {testCaller, ticket("s2", "w"), 0, "its exit was not kept"},
		"an id that is no name":     {testCaller, ticket("../s1", "w"), wire.Refusal_BAD_START, ""},
		"a record nobody can read":  {testCaller, ticket("s3", "w"), 0, "record"},
		"a record of a later year":  {testCaller, ticket("s4", "w"), 0, "record"},
		"a ticket without anything": {testCaller, &wire.Ticket{}, wire.Refusal_BAD_START, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			w := r.add("w", 4, func(s wire.Runner_RunServer) error { t.Error("it came to the worker"); return nil })
			rec, _ := json.Marshal(Record{V: 1, Caller: testCaller, Kind: "playback"})
			w.knows(&wire.Start{Session: "s1", Record: rec})
			w.knows(&wire.Start{Session: "s3", Record: []byte("{")})
			w.knows(&wire.Start{Session: "s4", Record: []byte(`{"v":7}`)})
			got := r.resume(tc.caller, tc.ticket)
			if got.GetRefused().GetRefusal() != tc.refused || !strings.Contains(got.GetLost().GetMessage(), tc.lost) || tc.lost != "" && got.GetLost() == nil {
				t.Errorf("told %v", got)
			}
			if strings.Contains(w.ordered(), "kill") || strings.Contains(w.ordered(), "s1") {
				t.Errorf("ordered %s", w.ordered())
			}
			if ends := r.pool.ends(w); strings.Contains(ends, "1 released") || strings.Contains(ends, "1 destroyed") {
				t.Error(ends)
			}
		})
	}
}

// A player seeks: the same outputs, asked for while the old process still runs.
func TestANewerWriterEndsTheOlder(t *testing.T) {
	r := newRig(t, nil)
	var w *fakeWorker
	ready := make(chan struct{})
	killed := make(chan struct{})
	w = r.add("w", 2, func(s wire.Runner_RunServer) error {
		<-ready
		st := startOf(s)
		_ = begin(s)
		if st.GetSession() == "old" {
			<-killed
			return end(s, &wire.Exit{Session: "old", Signal: 9, Cause: wire.Cause_CAUSE_FENCED})
		}
		return end(s, &wire.Exit{Session: st.GetSession()})
	})
	close(ready)
	same := func(s *wire.Start) { s.Resumes = true; s.Argv[2] = []byte("/cache/same.m3u8") }
	old := r.start("old", same, nil)
	within(t, old.started, "Started")
	seek := r.start("seek", same, nil)
	eventually(t, "the kill", func() bool { return strings.Contains(w.ordered(), "kill old CAUSE_FENCED") })
	close(killed)
	if exit, err := seek.wait(t); err != nil || exit.GetCode() != 0 {
		t.Errorf("the newer: %v, %v", exit, err)
	}
	if exit, err := old.wait(t); err != nil || exit.GetCause() != wire.Cause_CAUSE_FENCED {
		t.Errorf("the older: %v, %v", exit, err)
	}
	// Another account's file of the same name is another file.
}

// One that still waits is refused, and its shim knows that it may not run here
// either.
func TestANewerWriterEndsOneThatWaits(t *testing.T) {
	r := newRig(t, nil)
	same := func(s *wire.Start) { s.Policy = "warm"; s.Argv[2] = []byte("/cache/same.m3u8") }
	old := r.start("old", same, nil)
	within(t, old.progress, "it waits")
	r.start("seek", same, nil)
	if refused := old.refused(t); refused.Refusal != wire.Refusal_FENCED {
		t.Errorf("refused: %v", refused)
	}
}

// One that its worker refuses after the newer was let in is not placed again.
func TestANewerWriterEndsOneThatIsRefused(t *testing.T) {
	r := newRig(t, nil)
	asked, refuse, done := make(chan struct{}, 8), make(chan struct{}), make(chan struct{})
	run := func(s wire.Runner_RunServer) error {
		st := startOf(s)
		if st.GetSession() == "old" {
			asked <- struct{}{}
			<-refuse
			return s.Send(&wire.Frame{Kind: &wire.Frame_Refused{Refused: &wire.Refused{Refusal: wire.Refusal_NO_SLOT}}})
		}
		_ = begin(s)
		<-done
		return end(s, &wire.Exit{Session: st.GetSession()})
	}
	r.add("w", 2, run)
	r.add("x", 2, run)
	same := func(s *wire.Start) { s.Resumes = true; s.Argv[2] = []byte("/cache/same.m3u8") }
	old := r.start("old", same, nil)
	within(t, asked, "Start")
	seek := r.start("seek", same, nil)
	within(t, seek.started, "Started") // a worker that has not started the older says that it is dead
	close(refuse)
	if refused := old.refused(t); refused.Refusal != wire.Refusal_FENCED {
		t.Errorf("refused: %v", refused)
	}
	if len(asked) > 0 {
		t.Error("the older was started beside the newer")
	}
	close(done)
	if exit, err := seek.wait(t); err != nil || exit.GetCode() != 0 {
		t.Errorf("the newer: %v, %v", exit, err)
	}
}

// A session of an earlier scheduler to which nobody comes back is orphaned as soon
// as a living shim would have come.
func TestAForeignSessionIsOrphaned(t *testing.T) {
	r := newRig(t, nil)
	w := r.add("w", 2, func(s wire.Runner_RunServer) error { return nil })
	rec, _ := json.Marshal(Record{V: 1, Caller: testCaller, Kind: "playback", Outputs: [][]byte{[]byte("/cache/x")}})
	w.knows(&wire.Start{Session: "attached", Record: rec})
	w.knows(&wire.Start{Session: "alone", Record: rec})
	w.sessions[1].Attached, w.sessions[1].UnattachedMs, w.sessions[1].Epoch = false, 25_000, 4
	d, _ := w.Describe(t.Context(), nil)
	r.pool.mu.Lock()
	w.state.Description = d
	r.pool.mu.Unlock()
	r.sched.reconcile()
	if got := w.ordered(); strings.Contains(got, "orphan") {
		t.Fatalf("ordered %s by a scheduler that has just started", got)
	}
	r.sched.begun = time.Now().Add(-time.Minute)
	r.sched.reconcile()
	eventually(t, "the order", func() bool { return strings.Contains(w.ordered(), "orphan alone 4") })
	if strings.Contains(w.ordered(), "orphan attached") {
		t.Error(w.ordered())
	}
}

// A worker that was there before this scheduler, and is silent, may run a writer of
// the same files.
func TestANewWriterWaitsForSilentWorkers(t *testing.T) {
	r := newRig(t, nil)
	silent := r.add("silent", 1, func(wire.Runner_RunServer) error { return nil })
	r.pool.mu.Lock()
	silent.state.Began, silent.state.Ready = time.Now().Add(-time.Hour), false
	r.pool.mu.Unlock()
	r.add("w", 1, prints([]byte("x"), 0))
	s := r.start("s1", nil, nil)
	if p := within(t, s.progress, "why it waits"); !strings.Contains(p.GetReason(), "worker silent has not told") {
		t.Errorf("it waits for %q", p.GetReason())
	}
	r.pool.mu.Lock()
	silent.state.Description = &wire.Description{}
	r.pool.mu.Unlock()
	if exit, err := s.wait(t); err != nil || exit.GetCode() != 0 {
		t.Errorf("exit %v, %v", exit, err)
	}
}

// resuming starts session s1 on a worker whose first stream breaks and whose second
// is never answered, and returns when the shim has asked to resume.
func (r *rig) resuming() (*fakeWorker, *shim) {
	r.t.Helper()
	var w *fakeWorker
	var streams atomic.Int32
	ready, resuming := make(chan struct{}), make(chan struct{}, 8)
	w = r.add("w", 1, func(s wire.Runner_RunServer) error {
		<-ready
		if streams.Add(1) == 1 {
			w.knows(startOf(s))
			_ = begin(s)
			return errors.New("the channel broke")
		}
		_, _ = s.Recv()
		resuming <- struct{}{}
		<-s.Context().Done() // it does not answer
		return nil
	})
	close(ready)
	s := r.start("s1", resumes, nil)
	within(r.t, resuming, "the resume")
	return w, s
}

// A shim that resumes and dies before it is attached leaves no slot taken.
func TestAShimThatDiesWhileItResumes(t *testing.T) {
	r := newRig(t, nil)
	r.sched.silent = 50 * time.Millisecond
	w, s := r.resuming()
	s.cancel()
	w.mu.Lock()
	w.sessions[0].Attached = false
	w.mu.Unlock()
	eventually(t, "the order", func() bool { return strings.Contains(w.ordered(), "orphan s1 1") })
	w.forgets()
	eventually(t, "the end in the store", func() bool { return r.state("s1") == store.Lost })
	if line := r.audit("s1"); line["exit"] != "lost" {
		t.Errorf("audit %v", line)
	}
}
