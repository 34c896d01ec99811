package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/job"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/pool"
	"github.com/ffpod/ffpod/scheduler/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

var testCaller = store.Caller{Namespace: "media", ServiceAccount: "jellyfin", Pod: "jellyfin-0", PodUID: "uid-0"}

// rig is a scheduler between real gRPC connections: shims on one side, workers
// that do what the test says on the other.
type rig struct {
	t     testing.TB
	sched *Scheduler
	pool  *fakePool
	jobs  *fakeJobs
	store *store.Memory
	logs  *observer.ObservedLogs
	shims wire.RunnerClient
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	r := &rig{t: t, logs: logs, pool: newFakePool(), jobs: newFakeJobs(), store: store.NewMemory(store.MemoryConfig{Limit: 8})}
	cfg := Config{
		Namespace: "media", Classes: fakeClasses{{Name: "cpu", Jobs: 2, Replicas: 1}}, Pool: r.pool, Jobs: r.jobs, Store: r.store,
		Wait: patience, Grace: time.Minute, Log: zap.New(core),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.sched, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.sched.gap = time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.sched.Run(ctx) })
	t.Cleanup(func() {
		drain, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.sched.Drain(drain); err != nil {
			t.Error(err)
		}
		stop()
		wg.Wait()
	})
	r.shims = serveRunner(t, serverFunc(func(s wire.Runner_RunServer) error {
		r.sched.Serve(s.Context(), testCaller, s)
		return nil
	}))
	return r
}

type serverFunc func(wire.Runner_RunServer) error

// serveRunner serves f over an in-memory connection and returns a client of it.
func serveRunner(t testing.TB, f serverFunc) wire.RunnerClient {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(append(session.ServerOptions(), grpc.WaitForHandlers(true))...)
	wire.RegisterRunnerServer(srv, runnerServer{f: f})
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///test", append(session.DialOptions(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); srv.Stop(); wg.Wait() })
	return wire.NewRunnerClient(conn)
}

type runnerServer struct {
	wire.UnimplementedRunnerServer
	f serverFunc
}

func (s runnerServer) Run(stream wire.Runner_RunServer) error { return s.f(stream) }

// shim runs one session as the shim does.
type shim struct {
	client   *session.Client
	exit     *wire.Exit
	err      error
	done     chan struct{}
	cancel   context.CancelFunc
	progress chan *wire.Progress
	ticket   chan *wire.Ticket
	started  chan *wire.Started
	stderr   bytes.Buffer // whole once done
}

func (r *rig) start(id string, change func(*wire.Start), stdout io.Writer) *shim {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	s := &shim{done: make(chan struct{}), cancel: cancel, progress: make(chan *wire.Progress, 64), ticket: make(chan *wire.Ticket, 8), started: make(chan *wire.Started, 1)}
	st := &wire.Start{Session: id, Program: wire.Program_FFMPEG, Cwd: []byte("/media"), Argv: [][]byte{[]byte("-i"), []byte("secret-name.mkv"), []byte(id + "-out.m3u8")}}
	if change != nil {
		change(st)
	}
	s.client = &session.Client{Start: st, Stdout: stdout, Stderr: &s.stderr,
		Open:       func(ctx context.Context) (session.Stream, error) { return r.shims.Run(ctx) },
		OnProgress: func(p *wire.Progress) { s.progress <- p },
		OnTicket:   func(t *wire.Ticket) { s.ticket <- t },
		OnStarted:  func(t *wire.Started) { s.started <- t },
	}
	go func() {
		defer close(s.done)
		defer cancel()
		s.exit, s.err = s.client.Run(ctx)
	}()
	r.t.Cleanup(func() { cancel(); <-s.done })
	return s
}

func (s *shim) wait(t testing.TB) (*wire.Exit, error) {
	t.Helper()
	within(t, s.done, "the end of the session")
	return s.exit, s.err
}

func (s *shim) refused(t testing.TB) *session.RefusedError {
	t.Helper()
	_, err := s.wait(t)
	refused, ok := errors.AsType[*session.RefusedError](err)
	if !ok {
		t.Fatalf("err = %v, want a refusal", err)
	}
	return refused
}

func within[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
		panic("unreachable")
	}
}

// eventually waits for what happens beside the protocol: releases, audit lines.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		<-time.After(time.Millisecond)
	}
}

func (r *rig) audit(id string) map[string]any {
	r.t.Helper()
	var line map[string]any
	eventually(r.t, "the audit line of "+id, func() bool {
		for _, e := range r.logs.FilterMessage("session ended").All() {
			if m := e.ContextMap(); m["session"] == id {
				line = m
				return true
			}
		}
		return false
	})
	return line
}

func (r *rig) state(id string) store.State {
	s, _, _ := r.store.Get(r.t.Context(), id)
	return s.State
}

type fakeClasses []class.Class

func (c fakeClasses) List() []class.Class      { return c }
func (c fakeClasses) All() []class.Class       { return c }
func (c fakeClasses) Changed() <-chan struct{} { return nil }

// fakeWorker is a warm worker that runs sessions as the test says.
type fakeWorker struct {
	wire.SupervisorClient // nil: what no test asks for

	state  pool.WorkerState
	runner wire.RunnerClient
	gone   chan struct{}
	cause  error

	released, left, destroys int
	stubborn                 bool // it pauses nothing

	mu       sync.Mutex
	orders   []string // Orphan and Kill, in words
	sessions []*wire.SessionState
}

// Describe, Orphan and Kill make it a wire.SupervisorClient.
func (w *fakeWorker) Describe(context.Context, *wire.DescribeRequest, ...grpc.CallOption) (*wire.Description, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &wire.Description{Nonce: w.state.Nonce, Resumes: true, Sessions: slices.Clone(w.sessions)}, nil
}

func (w *fakeWorker) Orphan(_ context.Context, q *wire.OrphanRequest, _ ...grpc.CallOption) (*wire.OrphanResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.orders = append(w.orders, fmt.Sprintf("orphan %s %d", q.Session, q.Epoch))
	return &wire.OrphanResponse{Known: true}, nil
}

func (w *fakeWorker) Kill(_ context.Context, q *wire.KillRequest, _ ...grpc.CallOption) (*wire.KillResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.orders = append(w.orders, fmt.Sprintf("kill %s %s", q.Session, q.Cause))
	return &wire.KillResponse{Known: true, Dead: true}, nil
}

func (w *fakeWorker) Prove(context.Context, *wire.ProveRequest, ...grpc.CallOption) (*wire.ProveResponse, error) {
	return &wire.ProveResponse{Started: true}, nil
}

// Pause and Continue are the pool's to order.
func (w *fakeWorker) Pause(context.Context, *wire.PauseRequest, ...grpc.CallOption) (*wire.PauseResponse, error) {
	return nil, errors.New("not through the pool")
}

func (w *fakeWorker) Continue(context.Context, *wire.ContinueRequest, ...grpc.CallOption) (*wire.ContinueResponse, error) {
	return nil, errors.New("not through the pool")
}

func (w *fakeWorker) ordered() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.orders, ", ")
}

type fakePool struct {
	mu      sync.Mutex
	workers []*fakeWorker
	changed chan struct{}
	leases  []string // sessions in the order of their leases
}

func newFakePool() *fakePool { return &fakePool{changed: make(chan struct{}, 1)} }

// add adds a warm worker whose sessions are run by f.
func (r *rig) add(pod string, slots int, f serverFunc) *fakeWorker {
	w := &fakeWorker{runner: serveRunner(r.t, f), gone: make(chan struct{}),
		state: pool.WorkerState{Worker: lease.Worker{Class: "cpu", Pod: pod, PodUID: "uid-" + pod, Node: "node-" + pod, Nonce: "nonce-" + pod, Resumes: true}, Slots: slots, Ready: true}}
	r.pool.mu.Lock()
	r.pool.workers = append(r.pool.workers, w)
	r.pool.mu.Unlock()
	r.pool.wake()
	return w
}

func (p *fakePool) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *fakePool) Changed() <-chan struct{} { return p.changed }

func (p *fakePool) Workers() []pool.WorkerState {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []pool.WorkerState
	for _, w := range p.workers {
		all = append(all, w.state)
	}
	return all
}

func (p *fakePool) find(pod, uid, nonce string) (*fakeWorker, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if w.state.Pod == pod && w.state.PodUID == uid && w.state.Nonce == nonce {
			return w, nil
		}
	}
	return nil, &lease.GoneError{Pod: pod, Why: "the pod was deleted"}
}

func (p *fakePool) Supervisor(_ context.Context, pod, uid, nonce string) (wire.SupervisorClient, error) {
	return p.find(pod, uid, nonce)
}

func (p *fakePool) Resume(ctx context.Context, pod, uid, nonce, id string) (*lease.Lease, *wire.SessionState, error) {
	w, err := p.find(pod, uid, nonce)
	if err != nil {
		return nil, nil, err
	}
	d, _ := w.Describe(ctx, nil)
	state := stateOf(d, id)
	if state == nil {
		return nil, nil, lease.ErrUnknown
	}
	end := func(n *int) func() {
		return func() { p.mu.Lock(); *n++; p.mu.Unlock() }
	}
	return lease.New(lease.Terms{Worker: w.state.Worker, Runner: w.runner, Supervisor: w, Gone: w.gone, Cause: func() error { return w.cause },
		Release: end(&w.released), Leave: end(&w.left), Destroy: end(&w.destroys), Suspect: func() {}}), state, nil
}

func (p *fakePool) Lease(pod, nonce, id string) (*lease.Lease, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		if w.state.Pod != pod || w.state.Nonce != nonce {
			continue
		}
		if w.state.Used >= w.state.Slots {
			return nil, pool.ErrFull
		}
		w.state.Used++
		p.leases = append(p.leases, id)
		end := func(n *int) func() {
			return func() {
				p.mu.Lock()
				*n++
				w.state.Used--
				p.mu.Unlock()
				p.wake()
			}
		}
		return lease.New(lease.Terms{Worker: w.state.Worker, Runner: w.runner, Gone: w.gone, Cause: func() error { return w.cause },
			Release: end(&w.released), Leave: end(&w.left), Destroy: end(&w.destroys), Suspect: func() {}}), nil
	}
	return nil, pool.ErrGone
}

func (p *fakePool) Pause(_ context.Context, pod, nonce, id string, _ time.Duration) error {
	return p.switchTo(pod, nonce, id, true)
}

func (p *fakePool) Continue(_ context.Context, pod, nonce, id string) error {
	return p.switchTo(pod, nonce, id, false)
}

func (p *fakePool) switchTo(pod, nonce, id string, paused bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.wake()
	for _, w := range p.workers {
		if w.state.Pod != pod || w.state.Nonce != nonce {
			continue
		}
		if paused && w.stubborn {
			return errors.New("its caller writes to its stdin")
		}
		was := maps.Clone(w.state.Paused)
		if was == nil {
			was = map[string]time.Time{}
		}
		if paused {
			was[id] = time.Now()
			w.state.Used--
		} else {
			if w.state.Used >= w.state.Slots {
				return errors.New("no slot is free")
			}
			delete(was, id)
			w.state.Used++
		}
		w.state.Paused = was
		return nil
	}
	return pool.ErrGone
}

func (p *fakePool) ends(w *fakeWorker) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	words := fmt.Sprintf("%d released, %d destroyed", w.released, w.destroys)
	if w.left > 0 {
		words += fmt.Sprintf(", %d left", w.left)
	}
	return words
}

func (p *fakePool) order() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.leases...)
}

// fakeJobs launches what launch returns.
type fakeJobs struct {
	mu     sync.Mutex
	launch func(ctx context.Context, session string, progress func(string)) (*lease.Lease, error)
	active int
	known  []pool.WorkerState
}

func newFakeJobs() *fakeJobs {
	return &fakeJobs{launch: func(context.Context, string, func(string)) (*lease.Lease, error) {
		return nil, errors.New("no Jobs in this test")
	}}
}

func (j *fakeJobs) Launch(ctx context.Context, c class.Class, id string, progress func(string)) (*lease.Lease, error) {
	j.mu.Lock()
	if j.active >= c.Jobs {
		j.mu.Unlock()
		return nil, job.ErrLimit
	}
	j.active++
	launch := j.launch
	j.mu.Unlock()
	l, err := launch(ctx, id, progress)
	if err != nil {
		j.mu.Lock()
		j.active--
		j.mu.Unlock()
	}
	return l, err
}

func (j *fakeJobs) Active(string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.active
}

func (j *fakeJobs) Discard(string) {}

func (j *fakeJobs) Workers() []pool.WorkerState {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.known)
}

func (j *fakeJobs) Resume(context.Context, string, string, string, string) (*lease.Lease, *wire.SessionState, error) {
	return nil, nil, &lease.GoneError{Why: "no Jobs in this test"}
}

func (j *fakeJobs) Supervisor(context.Context, string, string, string) (wire.SupervisorClient, error) {
	return nil, &lease.GoneError{Why: "no Jobs in this test"}
}

func (j *fakeJobs) Changed() <-chan struct{} { return nil }

// Frames of a worker.
func startOf(s wire.Runner_RunServer) *wire.Start {
	f, err := s.Recv()
	if err != nil {
		return nil
	}
	return f.GetStart()
}

func begin(s wire.Runner_RunServer) error {
	return s.Send(&wire.Frame{Kind: &wire.Frame_Started{Started: &wire.Started{Pid: 7, Epoch: 1}}})
}

func refuseWith(why wire.Refusal, words string) serverFunc {
	return func(s wire.Runner_RunServer) error {
		if startOf(s) == nil {
			return nil
		}
		return s.Send(&wire.Frame{Kind: &wire.Frame_Refused{Refused: &wire.Refused{Refusal: why, Message: words}}})
	}
}

// end sends the exit and waits for its acknowledgement.
func end(s wire.Runner_RunServer, e *wire.Exit) error {
	if err := s.Send(&wire.Frame{Kind: &wire.Frame_Exit{Exit: e}}); err != nil {
		return err
	}
	for {
		f, err := s.Recv()
		if err != nil || f.GetExitAck() != nil {
			return nil
		}
	}
}

// prints runs a session that writes out to stdout and exits with code.
func prints(out []byte, code int32) serverFunc {
	return func(s wire.Runner_RunServer) error {
		st := startOf(s)
		if st == nil {
			return nil
		}
		if err := begin(s); err != nil {
			return err
		}
		const chunk = 32 << 10
		sent, acked := 0, 0
		for sent < len(out) {
			n := min(chunk, len(out)-sent)
			if err := s.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDOUT, Offset: uint64(sent), Bytes: out[sent : sent+n]}}}); err != nil {
				return err
			}
			sent += n
			for sent-acked > session.DefaultRing-chunk {
				f, err := s.Recv()
				if err != nil {
					return err
				}
				if a := f.GetAck(); a != nil {
					acked = int(a.GetOffset())
				}
			}
		}
		return end(s, &wire.Exit{Session: st.GetSession(), Code: code, Stdout: uint64(len(out)), UserUs: 2000})
	}
}
