package session

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/wire"
)

// RefusedError says that the session never started. It may be placed again,
// elsewhere or locally.
type RefusedError struct {
	Refusal wire.Refusal
	Message string // one line: what, on what, why
	Remedy  string // one line: what to do; may be empty
}

func (e *RefusedError) Error() string { return e.Message }

// LostError says that the end of the session is unknown: its stream ended
// without an Exit. Unless MayHaveStarted is false it must not be run again.
type LostError struct {
	Message        string // one line, for a person
	Cause          error
	MayHaveStarted bool
}

func (e *LostError) Error() string {
	switch {
	case e.Cause == nil:
		return e.Message
	case e.Message == "":
		return e.Cause.Error()
	}
	return e.Message + ": " + e.Cause.Error()
}

func (e *LostError) Unwrap() error { return e.Cause }

// ErrSilent is a Link's error when its peer gave no sign of life within the
// bound.
var ErrSilent = errors.New("peer is silent")

// ErrClosed is a Link's error after Close.
var ErrClosed = errors.New("link closed")

// ProtocolError says that the peer broke the protocol: its frames cannot be
// trusted any further.
type ProtocolError struct{ What string }

func (e *ProtocolError) Error() string { return "session protocol: " + e.What }

func protocolErrorf(format string, a ...any) error {
	return &ProtocolError{What: fmt.Sprintf(format, a...)}
}

// streamEnd words the end of a stream for a person.
func streamEnd(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return errors.New("the stream ended without an exit")
	}
	if _, known := errors.AsType[*StreamError](err); known {
		return err
	}
	if s, ok := status.FromError(err); ok {
		return &StreamError{s}
	}
	return err
}

// StreamError is the status with which a stream ended.
type StreamError struct{ Status *status.Status }

func (e *StreamError) Error() string {
	return fmt.Sprintf("%s (%s)", e.Status.Message(), e.Status.Code())
}

// GRPCStatus lets status.FromError find the status again.
func (e *StreamError) GRPCStatus() *status.Status { return e.Status }
