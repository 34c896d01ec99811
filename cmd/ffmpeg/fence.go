package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/cmd/ffmpeg/decision"
	"github.com/ffpod/ffpod/cmd/ffmpeg/registry"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// outputs are the keys of what the command writes where workers can write too.
// Commands without any never touch the registry.
func (s *shim) outputs() []string {
	if s.command.Program != ffmpeg.FFmpeg || s.command.Information != "" {
		return nil
	}
	var keys []string
	for _, k := range s.command.OutputKeys() {
		if ffmpeg.IsShared(s.settings.Shared, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// understand parses the command in mode local, which needs nothing of it but its
// outputs. That mode is the way around a broken shim: a parser that breaks must
// not close it.
func (s *shim) understand() {
	defer func() {
		if p := recover(); p != nil {
			s.command = ffmpeg.Command{}
			s.log("local", fmt.Sprintf("the command was not understood: %v", p))
		}
	}()
	if len(s.settings.Shared) > 0 && s.program == ffmpeg.FFmpeg {
		s.command = ffmpeg.Parse(string(s.program), s.argv, decision.Environment(s.settings, s.getenv).Host)
	}
}

// unfit says that the registry cannot be used: the command goes on without it.
func (s *shim) unfit(err error) { s.log("registry", err.Error()) }

// alone waits until nobody else writes the command's outputs, and holds them for
// the program that this process becomes. The error is one of fenced.
func (s *shim) alone() error {
	keys := s.outputs()
	if len(keys) == 0 {
		return nil
	}
	reg, err := registry.Open()
	if err != nil {
		s.unfit(err)
		return nil
	}
	defer reg.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	caught := watchSignals(cancel)
	err = reg.Local(ctx, registry.Local{
		Keys: keys, Clear: s.clear, Log: func(problem string) { s.log("registry", problem) },
		Say: func(what string) {
			say(string(s.program), failure{what: "waiting", why: what, remedy: "run it later, or check the scheduler"})
		},
	})
	if sig := caught.stop(); sig != 0 {
		die(sig)
		return fmt.Errorf("%s came: %w", sig, errSignalled) // PID 1 does not die
	}
	if err != nil && !fenced(err) {
		s.unfit(err)
		return nil
	}
	return err
}

// hold registers the outputs of a session that is about to be asked for; wait is
// called with what it has to wait for. It is nil if there is nothing to hold, which
// is fine; a failure says that the command must run nowhere, now.
func (s *shim) hold(ctx context.Context, session string, wait func(what string)) (*registry.Hold, *failure) {
	keys := s.outputs()
	if len(keys) == 0 {
		return nil, nil
	}
	reg, err := registry.Open() // left open: the hold uses it
	if err != nil {
		s.unfit(err)
		return nil, nil
	}
	h, err := reg.Remote(ctx, registry.Remote{
		Keys: keys, Session: session, Say: wait, Log: func(problem string) { s.log("registry", problem) },
	})
	switch {
	case err == nil:
		return h, nil
	case fenced(err) || ctx.Err() != nil:
		reg.Close()
		why := occupied(err)
		return nil, &why
	}
	reg.Close()
	s.unfit(err)
	return nil, nil
}

// placed tells the registry what a ticket says. It is called before the ticket is
// acknowledged.
func (s *shim) placed(h *registry.Hold, t *wire.Ticket) {
	if err := h.Placed(t.GetPod(), time.Duration(t.GetGraceMs())*time.Millisecond); err != nil {
		s.unfit(err)
	}
}

// fenced tells whether an error forbids to write the outputs.
func fenced(err error) bool {
	_, busy := errors.AsType[*registry.BusyError](err)
	return busy || errors.Is(err, registry.ErrSuperseded) || errors.Is(err, errSignalled) || errors.Is(err, errQuit)
}

// occupied words such an error.
func occupied(err error) failure {
	remedy := "end that process, or wait for its end, then run it again"
	if errors.Is(err, registry.ErrSuperseded) {
		remedy = "leave them to it"
	}
	return failure{what: "its outputs are not free", why: err.Error(), remedy: remedy}
}

// clear asks the scheduler to end whoever writes the outputs.
func (s *shim) clear(ctx context.Context, keys []string) error {
	way, bad := dial(s.settings)
	if bad != nil {
		return fmt.Errorf("%s: %s", bad.what, bad.why)
	}
	defer way.conn.Close()
	request := &wire.ClearRequest{Outputs: make([][]byte, len(keys))}
	for i, k := range keys {
		request.Outputs[i] = []byte(k)
	}
	_, err := wire.NewFenceClient(way.conn).Clear(ctx, request)
	if err == nil {
		return nil
	}
	if bad := way.broken.failure(way.address); bad != nil {
		return fmt.Errorf("%s: %s", bad.what, bad.why)
	}
	st, _ := status.FromError(err)
	if st.Code() == codes.Aborted {
		return registry.ErrSuperseded
	}
	return fmt.Errorf("scheduler %s: %s", way.address, st.Message())
}
