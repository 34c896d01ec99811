package server

import (
	"context"
	"errors"
	"path"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/fence"
)

// Bounds of one ClearRequest: as many keys as a session is fenced by, none longer
// than a path can be.
const (
	maxKeys = 64
	maxKey  = 4096
)

// Clear implements wire.FenceServer: a shim asks before it runs a writer itself.
func (s *Server) Clear(ctx context.Context, r *wire.ClearRequest) (*wire.ClearResponse, error) {
	if s.cfg.Fences == nil {
		return s.UnimplementedFenceServer.Clear(ctx, r)
	}
	caller, err := s.caller(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := outputKeys(r)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Fences.Clear(ctx, caller, keys); err != nil {
		return nil, clearing(ctx, err)
	}
	return &wire.ClearResponse{}, nil
}

func outputKeys(r *wire.ClearRequest) ([]string, error) {
	if n := len(r.GetOutputs()); n == 0 || n > maxKeys {
		return nil, status.Errorf(codes.InvalidArgument, "%d output keys; send 1 to %d at a time", n, maxKeys)
	}
	keys := make([]string, len(r.GetOutputs()))
	for i, k := range r.GetOutputs() {
		keys[i] = string(k)
		if len(k) > maxKey || !path.IsAbs(keys[i]) || path.Clean(keys[i]) != keys[i] {
			return nil, status.Errorf(codes.InvalidArgument, "output key %d of %d is no clean absolute path of at most %d bytes", i+1, len(keys), maxKey)
		}
	}
	return keys, nil
}

// clearing makes a status of what stood in the way.
func clearing(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, fence.ErrSuperseded):
		return status.Error(codes.Aborted, "a newer session writes the same outputs; leave them to it")
	}
	if _, worded := status.FromError(err); worded {
		return err
	}
	return status.Errorf(codes.Unavailable, "the outputs could not be cleared: %v; try again", err)
}
