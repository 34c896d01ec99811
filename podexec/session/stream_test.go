package session

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ffpod/ffpod/podexec/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// end is one end of an in-memory Run: frames pass by reference and in order, as
// many as one likes; a closed end gives the other what gRPC would give.
type end struct {
	in, out *queue
}

type queue struct {
	mu     sync.Mutex
	more   sync.Cond
	frames []*wire.Frame
	err    error
	hold   bool // Send blocks, as a connection that stalls
}

func newQueue() *queue { q := &queue{}; q.more.L = &q.mu; return q }

// pair makes both ends of a stream; they end with the test.
func pair(t *testing.T) (a, b *end) {
	x, y := newQueue(), newQueue()
	t.Cleanup(func() { x.close(io.EOF); y.close(io.EOF) })
	return &end{in: x, out: y}, &end{in: y, out: x}
}

func (q *queue) close(err error) {
	q.mu.Lock()
	if q.err == nil {
		q.err = err
	}
	q.hold = false
	q.more.Broadcast()
	q.mu.Unlock()
}

func (e *end) Send(f *wire.Frame) error {
	q := e.out
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.hold && q.err == nil {
		q.more.Wait()
	}
	if q.err != nil {
		return q.err
	}
	q.frames = append(q.frames, f)
	q.more.Broadcast()
	return nil
}

func (e *end) Recv() (*wire.Frame, error) {
	q := e.in
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.frames) == 0 && q.err == nil {
		q.more.Wait()
	}
	if len(q.frames) == 0 {
		return nil, q.err
	}
	f := q.frames[0]
	q.frames = q.frames[1:]
	return f, nil
}

// cut ends the stream in both directions.
func (e *end) cut(err error) { e.in.close(err); e.out.close(err) }

// open is a Client's Open for one stream, which ends with its context.
func (e *end) open(ctx context.Context) (Stream, error) {
	context.AfterFunc(ctx, func() { e.cut(context.Cause(ctx)) })
	return e, nil
}

// next returns the next frame that is not a heartbeat.
func (e *end) next(t *testing.T) *wire.Frame {
	t.Helper()
	for {
		f, err := e.Recv()
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		if f.GetHeartbeat() == nil {
			return f
		}
	}
}

const bound = 20 * time.Second

func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(bound):
		t.Fatalf("not within %s: %s", bound, what)
	}
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	return ctx
}

func data(pipe wire.Pipe, at uint64, b string, eof bool) *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: pipe, Offset: at, Bytes: []byte(b), Eof: eof}}}
}

func exitFrame(code int32, stdout, stderr uint64) *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Exit{Exit: &wire.Exit{Code: code, Stdout: stdout, Stderr: stderr}}}
}

func ticketFrame() *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Ticket{Ticket: &wire.Ticket{Pod: "p"}}}
}

func startFrame() *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Start{Start: &wire.Start{Session: "s"}}}
}

func startedFrame() *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Started{Started: &wire.Started{Pid: 1, Epoch: 1}}}
}

func refusedFrame(why wire.Refusal) *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Refused{Refused: &wire.Refused{Refusal: why, Message: "full"}}}
}
