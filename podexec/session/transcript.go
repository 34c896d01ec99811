package session

import (
	"bytes"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/wire"
)

// Transcript is a whole session that was given no stdin: what it wrote, and its
// exit. It answers the same question again, see Stream. It must not be changed.
type Transcript struct {
	Stdout, Stderr []byte
	Exit           *wire.Exit
}

// MaxTranscript bounds both pipes of a Transcript together. It is less than a ring:
// a replay needs no acknowledgement.
const MaxTranscript = 64 << 10

// Recorder makes a Transcript of the session that a Relay runs. It may be read while
// it records.
type Recorder struct {
	mu     sync.Mutex
	kept   Transcript
	broken bool // it is not whole: too long, resumed, or given a stdin
}

// Transcript returns what was recorded; false unless it is a whole session.
func (r *Recorder) Transcript() (Transcript, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.kept.Exit
	whole := !r.broken && e != nil && !e.GetStdoutCut() && !e.GetStderrCut() &&
		uint64(len(r.kept.Stdout)) == e.GetStdout() && uint64(len(r.kept.Stderr)) == e.GetStderr()
	return r.kept, whole
}

// hear takes a frame of the worker's.
func (r *Recorder) hear(p packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch k := p.frame.Kind.(type) {
	case *wire.Frame_Attached:
		r.broken = true
	case *wire.Frame_Exit:
		r.kept.Exit = proto.CloneOf(k.Exit)
	case *wire.Frame_Data:
		if len(r.kept.Stdout)+len(r.kept.Stderr)+p.bytes() > MaxTranscript {
			r.broken, r.kept.Stdout, r.kept.Stderr = true, nil, nil
		}
		if r.broken {
			return
		}
		switch k.Data.GetPipe() {
		case wire.Pipe_STDOUT:
			r.kept.Stdout = append(r.kept.Stdout, p.copy()...)
		case wire.Pipe_STDERR:
			r.kept.Stderr = append(r.kept.Stderr, p.copy()...)
		}
	}
}

// told takes a frame of the shim's: bytes on stdin may have made a difference.
func (r *Recorder) told(p packet) {
	if d := p.frame.GetData(); d.GetPipe() == wire.Pipe_STDIN && p.bytes() > 0 || p.frame.GetSignal() != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.broken = true
	}
}

// Stream is a worker's end of Runner.Run on which the Transcript is the session: for
// a Link of a Relay's, which sends it a Start. Close ends it.
func (t Transcript) Stream() *Replay {
	return &Replay{transcript: t, begun: make(chan string, 1), over: make(chan struct{})}
}

// Replay is a Stream that runs nothing. Its methods are a gRPC stream's, so that a
// relay may pass on what it has not decoded.
type Replay struct {
	transcript Transcript
	begun      chan string // the session's id, of Start
	over       chan struct{}
	close      sync.Once

	rest []*wire.Frame // of Recv's goroutine
	run  bool
}

// Send looks for Start and drops the rest.
func (r *Replay) Send(f *wire.Frame) error {
	if s := f.GetStart(); s != nil {
		select {
		case r.begun <- s.GetSession():
		default:
		}
	}
	return nil
}

// SendMsg drops a frame of the shim's: stdin, of which nothing was read.
func (r *Replay) SendMsg(any) error { return nil }

// RecvMsg is Recv for a Link that is Undecoded.
func (r *Replay) RecvMsg(m any) error {
	f, err := r.Recv()
	m.(*packet).frame = f
	return err
}

// Recv returns the session's frames, then waits for Close: io.EOF.
func (r *Replay) Recv() (*wire.Frame, error) {
	if !r.run {
		select {
		case id := <-r.begun:
			r.run, r.rest = true, r.transcript.frames(id)
		case <-r.over:
			return nil, io.EOF
		}
	}
	if len(r.rest) == 0 {
		<-r.over
		return nil, io.EOF
	}
	f := r.rest[0]
	r.rest = r.rest[1:]
	return f, nil
}

// Close ends the stream.
func (r *Replay) Close() { r.close.Do(func() { close(r.over) }) }

func (t Transcript) frames(id string) []*wire.Frame {
	all := []*wire.Frame{{Kind: &wire.Frame_Started{Started: &wire.Started{Epoch: 1}}}}
	for _, pipe := range []struct {
		pipe  wire.Pipe
		bytes []byte
	}{{wire.Pipe_STDOUT, t.Stdout}, {wire.Pipe_STDERR, t.Stderr}} {
		at := uint64(0)
		for b := bytes.Clone(pipe.bytes); len(b) > 0; b = b[min(chunk, len(b)):] {
			n := min(chunk, len(b))
			all = append(all, &wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: pipe.pipe, Offset: at, Bytes: b[:n:n]}}})
			at += uint64(n)
		}
		all = append(all, &wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: pipe.pipe, Offset: at, Eof: true}}})
	}
	exit := proto.CloneOf(t.Exit)
	exit.Session = id
	return append(all, &wire.Frame{Kind: &wire.Frame_Exit{Exit: exit}})
}
