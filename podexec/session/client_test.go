package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/ffpod/ffpod/podexec/wire"
)

type ran struct {
	exit *wire.Exit
	err  error
}

func runClient(t *testing.T, c *Client, s interface {
	open(context.Context) (Stream, error)
}) <-chan ran {
	c.Start, c.Open = &wire.Start{Session: "s"}, s.open
	done := make(chan ran, 1)
	go func() { exit, err := c.Run(bounded(t)); done <- ran{exit, err} }()
	return done
}

func TestClientOutcomes(t *testing.T) {
	tests := map[string]struct {
		frames    []*wire.Frame
		wantExit  int32
		refused   bool
		lost      bool
		begun     bool
		wantOut   string
		wantInErr string
	}{
		"exit":                        {frames: []*wire.Frame{ticketFrame(), startedFrame(), data(wire.Pipe_STDOUT, 0, "hi", true), data(wire.Pipe_STDERR, 0, "", true), exitFrame(3, 2, 0)}, wantExit: 3, wantOut: "hi"},
		"exit with missing bytes":     {frames: []*wire.Frame{ticketFrame(), startedFrame(), data(wire.Pipe_STDOUT, 0, "hi", false), exitFrame(0, 3, 0)}, lost: true, begun: true, wantOut: "hi"},
		"end before the ticket":       {lost: true},
		"end after the ticket":        {frames: []*wire.Frame{ticketFrame()}, lost: true, begun: true},
		"end while running":           {frames: []*wire.Frame{ticketFrame(), startedFrame(), data(wire.Pipe_STDOUT, 0, "hi", false)}, lost: true, begun: true, wantOut: "hi"},
		"lost in words":               {frames: []*wire.Frame{ticketFrame(), startedFrame(), {Kind: &wire.Frame_Lost{Lost: &wire.Lost{Message: "the pod was deleted"}}}}, lost: true, begun: true, wantInErr: "the pod was deleted"},
		"refused":                     {frames: []*wire.Frame{refusedFrame(wire.Refusal_NO_SLOT)}, refused: true},
		"refused after the start":     {frames: []*wire.Frame{ticketFrame(), startedFrame(), refusedFrame(wire.Refusal_WORKER)}, lost: true, begun: true},
		"refused after the ticket":    {frames: []*wire.Frame{ticketFrame(), refusedFrame(wire.Refusal_WORKER)}, refused: true},
		"a gap":                       {frames: []*wire.Frame{ticketFrame(), startedFrame(), data(wire.Pipe_STDOUT, 5, "hi", false)}, lost: true, begun: true},
		"frames nobody knows":         {frames: []*wire.Frame{{}, ticketFrame(), {}, startedFrame(), exitFrame(1, 0, 0)}, wantExit: 1},
		"an ack of what was not sent": {frames: []*wire.Frame{ticketFrame(), startedFrame(), {Kind: &wire.Frame_Ack{Ack: &wire.Ack{Pipe: wire.Pipe_STDIN, Offset: 9}}}}, lost: true, begun: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			var out bytes.Buffer
			done := runClient(t, &Client{Stdout: &out}, near)
			for _, f := range tc.frames {
				_ = far.Send(f)
			}
			if tc.wantExit == 0 {
				far.out.close(io.EOF)
			}
			got := <-done
			var refused *RefusedError
			var lost *LostError
			switch {
			case tc.refused != errors.As(got.err, &refused), tc.lost != errors.As(got.err, &lost):
				t.Fatalf("got %v", got.err)
			case tc.lost && lost.MayHaveStarted != tc.begun:
				t.Errorf("may have started: %v", lost.MayHaveStarted)
			case tc.lost && !strings.Contains(lost.Error(), tc.wantInErr):
				t.Errorf("got %q", lost)
			case tc.wantExit != 0 && got.exit.GetCode() != tc.wantExit:
				t.Errorf("exit %v, %v", got.exit, got.err)
			}
			if out.String() != tc.wantOut {
				t.Errorf("stdout %q", out.String())
			}
		})
	}
}

// stdin stays untouched until the process runs: a local fallback and the caller's
// next command still find every byte.
func TestStdinIsNotReadBeforeStarted(t *testing.T) {
	near, far := pair(t)
	in := &touchy{r: strings.NewReader("q")}
	done := runClient(t, &Client{Stdin: in}, near)
	_ = far.Send(ticketFrame())
	if far.next(t).GetStart() == nil || far.next(t).GetTicketAck() == nil {
		t.Fatal("unexpected order")
	}
	_ = far.Send(refusedFrame(wire.Refusal_NO_SLOT))
	<-done
	if in.touched {
		t.Error("stdin was read")
	}
}

type touchy struct {
	r       io.Reader
	touched bool
}

func (r *touchy) Read(p []byte) (int, error) { r.touched = true; return r.r.Read(p) }

func TestBrokenStdoutClosesTheFarPipe(t *testing.T) {
	near, far := pair(t)
	done := runClient(t, &Client{Stdout: failing{}}, near)
	for _, f := range []*wire.Frame{ticketFrame(), startedFrame(), data(wire.Pipe_STDOUT, 0, "x", false)} {
		_ = far.Send(f)
	}
	for far.next(t).GetClose().GetPipe() != wire.Pipe_STDOUT {
	}
	_ = far.Send(data(wire.Pipe_STDOUT, 1, "more", true))
	_ = far.Send(exitFrame(1, 5, 0))
	if got := <-done; got.exit.GetCode() != 1 {
		t.Errorf("got %v, %v", got.exit, got.err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, syscall.EPIPE }
