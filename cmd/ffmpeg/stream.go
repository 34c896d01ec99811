package main

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// watched is a stream whose end is told by its status everywhere: gRPC's Send
// only says EOF when the server refused the stream, and whichever of Send and
// Recv the endpoint hears first becomes its cause.
type watched struct {
	session.Stream
	ctx   context.Context // the stream's own, so that Send never waits beyond it
	once  sync.Once
	ended chan struct{}
	err   error // set before ended is closed
}

// streamError keeps the status of a stream through the endpoint's errors.
type streamError struct{ err error }

func (e *streamError) Error() string {
	s, _ := status.FromError(e.err)
	return s.Message() + " (" + s.Code().String() + ")"
}

func (w *watched) Recv() (*wire.Frame, error) {
	f, err := w.Stream.Recv()
	if err == nil {
		return f, nil
	}
	if !errors.Is(err, io.EOF) {
		err = &streamError{err: err}
	}
	w.once.Do(func() {
		w.err = err
		close(w.ended)
	})
	return nil, err
}

func (w *watched) Send(f *wire.Frame) error {
	err := w.Stream.Send(f)
	if !errors.Is(err, io.EOF) {
		return err
	}
	select { // the endpoint is in Recv, which returns now
	case <-w.ended:
		return w.err
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}
