package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/fence"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/store"
)

// discards counts the Jobs that are given up.
type discards struct {
	*fakeJobs
	n atomic.Int32
}

func (d *discards) Discard(string) { d.n.Add(1) }

// oddPool is a pool whose workers stall and fail on demand.
type oddPool struct {
	*fakePool
	failDescribe atomic.Int32
	stall        chan struct{} // Resume of pod "squat"
	stalled      chan struct{}
}

func (p *oddPool) Resume(ctx context.Context, pod, uid, nonce, id string) (*lease.Lease, *wire.SessionState, error) {
	if pod == "squat" {
		close(p.stalled)
		select {
		case <-p.stall:
		case <-ctx.Done():
		}
	}
	return p.fakePool.Resume(ctx, pod, uid, nonce, id)
}

// flaky does not answer some questions.
type flaky struct {
	*fakeWorker
	p *oddPool
}

func (f flaky) Describe(ctx context.Context, q *wire.DescribeRequest, o ...grpc.CallOption) (*wire.Description, error) {
	if f.p.failDescribe.Add(-1) >= 0 {
		return nil, context.DeadlineExceeded
	}
	return f.fakeWorker.Describe(ctx, q, o...)
}

func (p *oddPool) Supervisor(_ context.Context, pod, uid, nonce string) (wire.SupervisorClient, error) {
	w, err := p.find(pod, uid, nonce)
	if err != nil {
		return nil, err
	}
	return flaky{w, p}, nil
}

func odd(t *testing.T) (*rig, *oddPool) {
	var p *oddPool
	r := newRig(t, func(c *Config) {
		p = &oddPool{fakePool: c.Pool.(*fakePool), stall: make(chan struct{}), stalled: make(chan struct{})}
		c.Pool = p
	})
	return r, p
}

// A forged ticket deletes nobody's Job.
func TestAStrangersTicketDeletesNoJob(t *testing.T) {
	d := &discards{fakeJobs: newFakeJobs()}
	r := newRig(t, func(c *Config) { c.Jobs = d })
	stranger := testCaller
	stranger.PodUID = "another"
	got := r.resume(stranger, &wire.Ticket{Session: "victim", Pod: "nowhere", PodUid: "x", Nonce: "x", Placement: "job"})
	time.Sleep(100 * time.Millisecond)
	if d.n.Load() > 0 {
		t.Fatalf("a stranger's forged ticket deleted the Job of session victim; told %v", got)
	}
}

// A stranger that waits under the session's id is in nobody's way.
func TestAStrangerDoesNotKeepTheOwnerOut(t *testing.T) {
	r, p := odd(t)
	w := r.add("w", 4, func(s wire.Runner_RunServer) error {
		_, _ = s.Recv()
		_ = attached(s, 2)
		return end(s, &wire.Exit{Session: "s1"})
	})
	rec, _ := json.Marshal(Record{V: 1, Caller: testCaller, Kind: "playback"})
	w.knows(&wire.Start{Session: "s1", Record: rec})
	stranger := testCaller
	stranger.PodUID = "another"
	shims := serveRunner(t, func(s wire.Runner_RunServer) error { r.sched.Serve(s.Context(), stranger, s); return nil })
	stream, err := shims.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&wire.Frame{Kind: &wire.Frame_Resume{Resume: &wire.Resume{Ticket: &wire.Ticket{Session: "s1", Pod: "squat", Placement: "warm"}}}})
	within(t, p.stalled, "squatting")
	got := r.resume(testCaller, &wire.Ticket{Session: "s1", Pod: "w", PodUid: "uid-w", Nonce: "nonce-w", Placement: "warm", Class: "cpu"})
	close(p.stall)
	if got.GetRefused() != nil {
		t.Fatalf("the owner is told %v", got)
	}
}

// A shim that dies while it takes its session over leaves no slot taken.
func TestAShimThatDiesInATakeOver(t *testing.T) {
	r := newRig(t, nil)
	r.sched.silent = 50 * time.Millisecond
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
	ticket := within(t, s.ticket, "ticket")
	eventually(t, "running", func() bool { return r.state("s1") == store.Running })
	r.pool.mu.Lock() // the older run takes a moment to end
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := r.shims.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&wire.Frame{Kind: &wire.Frame_Resume{Resume: &wire.Resume{Ticket: ticket}}})
	time.Sleep(200 * time.Millisecond)
	cancel() // the shim is killed
	s.cancel()
	time.Sleep(200 * time.Millisecond)
	r.pool.mu.Unlock()
	w.mu.Lock()
	w.sessions[0].Attached = false
	w.mu.Unlock()
	eventually(t, "the order", func() bool { return strings.Contains(w.ordered(), "orphan") })
	w.forgets()
	eventually(t, "the end in the store", func() bool { return r.state("s1") == store.Lost })
}

// A worker that does not answer once gets its order later, for the right stream.
func TestAnOrderWaitsForTheEpoch(t *testing.T) {
	r, p := odd(t)
	r.sched.silent = 50 * time.Millisecond
	w, s := r.resuming()
	p.failDescribe.Store(1)
	w.mu.Lock()
	w.sessions[0].Attached, w.sessions[0].Epoch = false, 2 // the Attached was never seen
	w.mu.Unlock()
	s.cancel()
	eventually(t, "the order", func() bool { return strings.Contains(w.ordered(), "orphan s1 2") })
}

// Outputs are freed by the last run of their session, whichever claimed them.
func TestATakeOverInheritsTheFence(t *testing.T) {
	r := newRig(t, nil)
	var w *fakeWorker
	ready := make(chan struct{})
	w = r.add("w", 1, func(s wire.Runner_RunServer) error {
		<-ready
		w.knows(startOf(s))
		_ = begin(s)
		r.pool.mu.Lock()
		r.pool.workers = nil // the pod goes
		r.pool.mu.Unlock()
		return errors.New("the channel broke")
	})
	close(ready)
	s := r.start("s1", resumes, nil)
	_, _ = s.wait(t)
	eventually(t, "its outputs are free", func() bool { return r.sched.fences.Superseded("s1") == nil })
}

// A newer writer may come while the older session is being resumed.
func TestAWriterComesDuringAResume(t *testing.T) {
	r, p := odd(t)
	w := r.add("squat", 4, func(s wire.Runner_RunServer) error {
		_, _ = s.Recv()
		_ = attached(s, 2)
		return end(s, &wire.Exit{Session: "s1"})
	})
	rec, _ := json.Marshal(Record{V: 1, Caller: testCaller, Kind: "playback"})
	w.knows(&wire.Start{Session: "s1", Record: rec})
	go func() {
		<-p.stalled
		go func() {
			for range 300 {
				r.sched.fenceOff("s1", w.state.Worker)
			}
		}()
		p.stall <- struct{}{}
	}()
	r.resume(testCaller, &wire.Ticket{Session: "s1", Pod: "squat", PodUid: "uid-squat", Nonce: "nonce-squat", Placement: "warm", Class: "cpu"})
	time.Sleep(100 * time.Millisecond)
}

// stuckPool has workers whose processes the kernel does not let go.
type stuckPool struct{ *fakePool }

type stuck struct{ *fakeWorker }

func (stuck) Kill(context.Context, *wire.KillRequest, ...grpc.CallOption) (*wire.KillResponse, error) {
	return &wire.KillResponse{Known: true}, nil
}

func (p stuckPool) Supervisor(_ context.Context, pod, uid, nonce string) (wire.SupervisorClient, error) {
	w, err := p.find(pod, uid, nonce)
	return stuck{w}, err
}

// A process that was killed and does not die keeps its outputs fenced, however long
// ago its worker's timers should have ended it.
func TestAStuckWriterStaysFenced(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Pool = stuckPool{c.Pool.(*fakePool)}
		c.Grace = 50*time.Millisecond - session.AfterGrace
	})
	w := r.add("w", 1, func(wire.Runner_RunServer) error { return nil })
	keys := []string{"/cache/x"}
	old := fence.Session{ID: "old", Owner: owner(testCaller), Keys: keys, Asked: time.Now()}
	r.sched.fences.Adopt(old, w.state.Worker)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r.sched.killed(ctx, "old", w.state.Worker, "warm", wire.Cause_CAUSE_FENCED)
	if _, err := r.sched.fences.Claim(fence.Session{ID: "seek", Owner: old.Owner, Keys: keys, Asked: time.Now()}); err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := r.sched.fences.Wait(waiting, "seek", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the newer writer: %v", err)
	}
}
