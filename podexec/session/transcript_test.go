package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/wire"
)

// remembering is a scheduler that has a worker answer the first session, and
// answers the others itself.
type remembering struct {
	wire.UnimplementedRunnerServer
	worker    wire.RunnerClient
	undecoded bool
	recorder  Recorder
	runs      int
}

func (s *remembering) Run(stream wire.Runner_RunServer) error {
	o := LinkOptions{Undecoded: s.undecoded}
	shim := NewLink(stream, o)
	defer shim.Close()
	r := NewRelay(shim, RelayOptions{})
	start, err := r.Opening(stream.Context())
	if err != nil {
		return err
	}
	var up Stream
	if kept, ok := s.recorder.Transcript(); ok {
		replay := kept.Stream()
		defer replay.Close()
		up = replay
	} else if s.runs++; true {
		r.Record(&s.recorder)
		if up, err = s.worker.Run(stream.Context()); err != nil {
			return err
		}
	}
	worker := NewLink(up, o)
	defer worker.Close()
	_, err = r.Run(stream.Context(), worker, start)
	return err
}

func ask(t *testing.T, c wire.RunnerClient, id string, stdin io.Reader) (*wire.Exit, []byte) {
	t.Helper()
	var out bytes.Buffer
	exit, err := (&Client{Open: opener(c), Start: &wire.Start{Session: id, Stdin: stdin != nil}, Stdin: stdin, Stdout: &out, Direct: true}).Run(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	return exit, out.Bytes()
}

// What is kept of a session is told again, byte for byte, as its own.
func TestTranscript(t *testing.T) {
	for name, undecoded := range map[string]bool{"decoded": false, "undecoded": true} {
		for what, size := range map[string]int64{"": 0, "a line": 80, "as much as may be": MaxTranscript} {
			t.Run(name+", "+what, func(t *testing.T) {
				s := &remembering{undecoded: undecoded, worker: serve(t, &flood{n: size}, ServerOptions(), ChannelDialOptions())}
				scheduler := serve(t, s, ServerOptions(), DialOptions())
				first, want := ask(t, scheduler, "one", nil)
				for _, stdin := range []io.Reader{nil, strings.NewReader("q\n")} {
					again, got := ask(t, scheduler, "two", stdin)
					if !bytes.Equal(got, want) || int64(len(got)) != size {
						t.Errorf("%d bytes, want %d", len(got), size)
					}
					if again.GetSession() != "two" || again.GetCode() != first.GetCode() || again.GetStdout() != first.GetStdout() {
						t.Errorf("%v, the first was %v", again, first)
					}
				}
				if s.runs != 1 {
					t.Errorf("the worker ran %d", s.runs)
				}
			})
		}
	}
}

// A session that cannot be told again as a whole is not kept.
func TestNoTranscript(t *testing.T) {
	whole := exitFrame(0, 2, 0)
	cut := proto.CloneOf(whole)
	cut.GetExit().StdoutCut = true
	hi := data(wire.Pipe_STDOUT, 0, "hi", false)
	cases := map[string]struct {
		worker, shim []*wire.Frame
		want         bool
	}{
		"whole":        {[]*wire.Frame{hi, whole}, nil, true},
		"no exit":      {[]*wire.Frame{hi}, nil, false},
		"cut":          {[]*wire.Frame{hi, cut}, nil, false},
		"less":         {[]*wire.Frame{whole}, nil, false},
		"resumed":      {[]*wire.Frame{attachedFrame(2, 0, 0), hi, whole}, nil, false},
		"too long":     {[]*wire.Frame{data(wire.Pipe_STDERR, 0, strings.Repeat("x", MaxTranscript), false), hi, whole}, nil, false},
		"given stdin":  {[]*wire.Frame{hi, whole}, []*wire.Frame{data(wire.Pipe_STDIN, 0, "q", false)}, false},
		"end of stdin": {[]*wire.Frame{hi, whole}, []*wire.Frame{data(wire.Pipe_STDIN, 0, "", true)}, true},
		"signalled":    {[]*wire.Frame{hi, whole}, []*wire.Frame{{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: 2}}}}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var r Recorder
			for _, f := range c.shim {
				r.told(packet{frame: f})
			}
			for _, f := range c.worker {
				r.hear(packet{frame: f})
			}
			if _, ok := r.Transcript(); ok != c.want {
				t.Errorf("kept: %v", ok)
			}
		})
	}
}

// A replay that nobody starts, or whose reader has gone, leaves nothing behind.
func TestReplayIsClosed(t *testing.T) {
	for _, started := range []bool{false, true} {
		replay := Transcript{Exit: exitFrame(0, 0, 0).GetExit()}.Stream()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer cancel()
			for {
				if _, err := replay.Recv(); err != nil {
					return
				}
			}
		}()
		if started {
			_ = replay.Send(startFrame())
		}
		replay.Close()
		<-ctx.Done()
	}
}

// What is told without a ticket runs nowhere: it is all there, or it never began and
// the caller may ask anew, with every byte of its stdin and none of an answer's half.
func TestRetoldIsAllOrNothing(t *testing.T) {
	out, rest := data(wire.Pipe_STDOUT, 0, "half", false), data(wire.Pipe_STDOUT, 4, " and half", true)
	draining := refusedFrame(wire.Refusal_DRAINING)
	tests := map[string]struct {
		frames  []*wire.Frame
		whole   bool
		refused bool
	}{
		"whole":                      {frames: []*wire.Frame{startedFrame(), out, rest, exitFrame(1, 13, 0)}, whole: true},
		"ended after the start":      {frames: []*wire.Frame{startedFrame()}},
		"ended in the middle":        {frames: []*wire.Frame{startedFrame(), out}},
		"ended before the exit":      {frames: []*wire.Frame{startedFrame(), out, rest}},
		"an exit of more":            {frames: []*wire.Frame{startedFrame(), out, exitFrame(0, 13, 0)}},
		"the scheduler goes":         {frames: []*wire.Frame{startedFrame(), out, draining}, refused: true},
		"a ticket after the start":   {frames: []*wire.Frame{startedFrame(), out, ticketFrame(), exitFrame(0, 4, 0)}},
		"detached, and nothing runs": {frames: []*wire.Frame{startedFrame(), out, {Kind: &wire.Frame_Detached{Detached: &wire.Detached{Reason: "drain"}}}}},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			var got bytes.Buffer
			in, starts := &touchy{r: strings.NewReader("q")}, 0
			done := runClient(t, &Client{Stdin: in, Stdout: &got, OnStarted: func(*wire.Started) { starts++ }}, near)
			sendAll(far, c.frames...)
			if !c.whole {
				far.out.close(io.EOF)
			}
			r := <-done
			lost, isLost := errors.AsType[*LostError](r.err)
			_, isRefused := errors.AsType[*RefusedError](r.err)
			switch {
			case c.whole:
				if r.exit.GetCode() != 1 || got.String() != "half and half" || starts != 1 {
					t.Errorf("exit %v, %v after %d starts, stdout %q", r.exit, r.err, starts, &got)
				}
			case isRefused != c.refused, !isRefused && (!isLost || lost.MayHaveStarted), got.Len() > 0, starts > 0:
				t.Errorf("exit %v, %v after %d starts, stdout %q", r.exit, r.err, starts, &got)
			}
			if in.touched {
				t.Error("stdin was read")
			}
		})
	}
}
