package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/wire"
)

// step is one frame of a hostile peer. to says on which stream, for who has two.
type step struct {
	to    byte
	frame *wire.Frame
}

// play is what fuzzing mutates: frames, each with a byte before its length.
func play(steps ...step) (b []byte) {
	for _, s := range steps {
		text, err := proto.Marshal(s.frame)
		if err != nil {
			panic(err)
		}
		b = binary.AppendUvarint(append(b, s.to), uint64(len(text)))
		b = append(b, text...)
	}
	return b
}

// steps reads a play; what is no frame is passed over.
func steps(b []byte) (all []step) {
	for len(b) > 1 && len(all) < 64 {
		to := b[0]
		size, n := binary.Uvarint(b[1:])
		if n <= 0 || size > uint64(len(b)-1-n) {
			return all
		}
		var f wire.Frame
		if proto.Unmarshal(b[1+n:1+n+int(size)], &f) == nil {
			all = append(all, step{to, &f})
		}
		b = b[1+n+int(size):]
	}
	return all
}

func with(frames ...*wire.Frame) []byte {
	var all []step
	for _, f := range frames {
		all = append(all, step{frame: f})
	}
	return play(all...)
}

func kept(ms uint32) *wire.Frame {
	return &wire.Frame{Kind: &wire.Frame_Ticket{Ticket: &wire.Ticket{Pod: "p", Nonce: "n", GraceMs: ms}}}
}

// Whatever a server says, in one stream or in several, the client returns, writes
// each byte of a pipe at most once and in order, and reports success only for an
// Exit whose totals are the bytes that it wrote.
func FuzzClient(f *testing.F) {
	f.Add(with(kept(1000), startedFrame(), data(wire.Pipe_STDOUT, 0, "out", true), data(wire.Pipe_STDERR, 0, "e", true), exitFrame(0, 3, 1)))
	f.Add(with(startedFrame(), exitFrame(0, 3, 0)))
	f.Add(with(exitFrame(3, 0, 0)))
	f.Add(with(ticketFrame(), refusedFrame(wire.Refusal_LOCAL)))
	f.Add(with(startedFrame(), startedFrame()))
	f.Add(with(startedFrame(), ackFrame(wire.Pipe_STDIN, 1<<40)))
	f.Add(with(&wire.Frame{Kind: &wire.Frame_Lost{Lost: &wire.Lost{Message: "gone"}}}))
	f.Add(play(step{0, kept(1000)}, step{0, startedFrame()}, step{0, data(wire.Pipe_STDOUT, 0, "ab", false)},
		step{1, attachedFrame(2, 0, 0)}, step{1, data(wire.Pipe_STDOUT, 0, "abc", true)}, step{1, exitFrame(7, 3, 0)}))
	f.Add(play(step{0, kept(1)}, step{0, startedFrame()}, step{1, attachedFrame(2, 99, 99)}))
	f.Add(play(step{0, kept(5)}, step{1, &wire.Frame{Kind: &wire.Frame_Detached{Detached: &wire.Detached{Reason: "drain"}}}}, step{2, attachedFrame(3, 0, 1)},
		step{2, attachedFrame(3, 0, 1)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		script := steps(b)
		opened := 0
		var stdout, stderr bytes.Buffer
		signals := make(chan syscall.Signal, 1)
		signals <- syscall.SIGTERM
		c := &Client{
			Start: &wire.Start{Session: "s"}, Stdin: strings.NewReader("0123456789"), Stdout: &stdout, Stderr: &stderr, Signals: signals,
			OnTicket: func(k *wire.Ticket) { k.GraceMs = min(k.GraceMs, 50) },
			Open: func(ctx context.Context) (Stream, error) {
				near, far := pair(t)
				to := byte(opened)
				if opened++; opened > 3 {
					cancel() // the bound on an outage is longer than a test
					return nil, errors.New("no more streams")
				}
				for _, s := range script {
					if s.to%3 == to {
						_ = far.Send(s.frame)
					}
				}
				far.out.close(io.EOF)
				return near.open(ctx)
			},
		}
		begun := time.Now()
		exit, err := c.Run(ctx)
		switch {
		case time.Since(begun) > 5*time.Second:
			t.Fatalf("it took %s to return %v, %v", time.Since(begun), exit, err)
		case (exit == nil) == (err == nil):
			t.Fatalf("exit %v, %v", exit, err)
		case exit == nil:
		case exit.Stdout != uint64(stdout.Len()) || exit.Stderr != uint64(stderr.Len()):
			t.Fatalf("exit %v after %d and %d bytes", exit, stdout.Len(), stderr.Len())
		}
		if want := stream(script, wire.Pipe_STDOUT, stdout.Len()); stdout.Len() > 0 && !want {
			t.Fatalf("bytes of stdout that nobody sent: %q", &stdout)
		}
	})
}

// stream tells whether the script holds so many bytes of a pipe.
func stream(script []step, pipe wire.Pipe, n int) bool {
	for _, s := range script {
		d := s.frame.GetData()
		// Bytes of a pipe that nobody knows go nowhere.
		if d != nil && d.Pipe == pipe && d.Offset+uint64(len(d.Bytes)) >= uint64(n) {
			return true
		}
	}
	return false
}

// Whatever a shim and a worker say to a relay, it returns; and it never makes an
// exit up.
func FuzzRelay(f *testing.F) {
	const shim, worker = 0, 1
	f.Add(play(step{shim, startFrame()}, step{worker, startedFrame()}, step{worker, data(wire.Pipe_STDOUT, 0, "x", true)},
		step{worker, exitFrame(0, 1, 0)}, step{shim, exitAckFrame()}))
	f.Add(play(step{shim, startFrame()}, step{worker, refusedFrame(wire.Refusal_NO_SLOT)}))
	f.Add(play(step{shim, startFrame()}, step{worker, startedFrame()}, step{worker, refusedFrame(wire.Refusal_NO_SLOT)}))
	f.Add(play(step{shim, startedFrame()}))
	f.Add(play(step{shim, startFrame()}, step{shim, exitAckFrame()}))
	f.Add(play(step{shim, &wire.Frame{Kind: &wire.Frame_Resume{Resume: &wire.Resume{Stdout: 1}}}}, step{worker, attachedFrame(2, 0, 0)}, step{worker, exitFrame(0, 0, 0)}))
	f.Add(play(step{shim, startFrame()}, step{worker, &wire.Frame{Kind: &wire.Frame_Lost{Lost: &wire.Lost{}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		shimNear, shimFar := pair(t)
		workerNear, workerFar := pair(t)
		var told *wire.Exit
		for _, s := range steps(b) {
			to := shimFar
			if s.to%2 == worker {
				to = workerFar
				if e := s.frame.GetExit(); e != nil && told == nil {
					told = e
				}
			}
			_ = to.Send(s.frame)
		}
		shimLink := NewLink(shimNear, LinkOptions{})
		relay := NewRelay(shimLink, RelayOptions{})
		workerLink := NewLink(workerNear, LinkOptions{})
		var ends sync.WaitGroup
		defer ends.Wait()
		defer workerLink.Close()
		defer shimLink.Close()
		// The streams end, after what was sent, once the relay has had its chance.
		ends.Go(func() { <-time.After(time.Millisecond); workerFar.out.close(io.EOF) })
		ends.Go(func() { <-time.After(2 * time.Millisecond); shimFar.out.close(io.EOF) })
		first, err := relay.Opening(ctx)
		if err != nil {
			return
		}
		exit, err := relay.Run(ctx, workerLink, first)
		if ctx.Err() != nil {
			t.Fatal("Run did not return")
		}
		if exit != nil && !proto.Equal(exit, told) || exit == nil && err == nil {
			t.Fatalf("exit %v, %v; the worker told %v", exit, err, told)
		}
	})
}
