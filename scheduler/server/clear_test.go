package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/fence"
	"github.com/ffpod/ffpod/scheduler/store"
)

type fencesFunc func(ctx context.Context, caller store.Caller, keys []string) error

func (f fencesFunc) Clear(ctx context.Context, caller store.Caller, keys []string) error {
	return f(ctx, caller, keys)
}

// onlyToken knows one token, x.
type onlyToken struct{}

func (onlyToken) Authenticate(_ context.Context, token string) (store.Caller, error) {
	if token != "x" {
		return store.Caller{}, status.Error(codes.PermissionDenied, "not you")
	}
	return store.Caller{Namespace: "media", ServiceAccount: "jellyfin", Pod: "jellyfin-0", PodUID: "u"}, nil
}

func TestClear(t *testing.T) {
	many := make([]string, maxKeys+1)
	for i := range many {
		many[i] = fmt.Sprintf("/c/%d.srt", i)
	}
	tests := map[string]struct {
		token string
		keys  []string
		err   error // of the fences
		want  codes.Code
	}{
		"cleared":         {"x", []string{"/c/x", "/c/%d\xff.jpg"}, nil, codes.OK},
		"as many as may":  {"x", many[1:], nil, codes.OK},
		"no token":        {"", []string{"/c/x"}, nil, codes.Unauthenticated},
		"a foreign token": {"y", []string{"/c/x"}, nil, codes.PermissionDenied},
		"nothing":         {"x", nil, nil, codes.InvalidArgument},
		"too many":        {"x", many, nil, codes.InvalidArgument},
		"relative":        {"x", []string{"c/x"}, nil, codes.InvalidArgument},
		"unclean":         {"x", []string{"/c/../x"}, nil, codes.InvalidArgument},
		"empty":           {"x", []string{""}, nil, codes.InvalidArgument},
		"too long":        {"x", []string{"/" + strings.Repeat("a", maxKey)}, nil, codes.InvalidArgument},
		"superseded":      {"x", []string{"/c/x"}, fmt.Errorf("wait: %w", fence.ErrSuperseded), codes.Aborted},
		"in other words":  {"x", []string{"/c/x"}, status.Error(codes.FailedPrecondition, "no"), codes.FailedPrecondition},
		"impossible":      {"x", []string{"/c/x"}, errors.New("no worker answers"), codes.Unavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			s := New(Config{Authenticator: onlyToken{}, Fences: fencesFunc(func(_ context.Context, c store.Caller, keys []string) error {
				if c.ServiceAccount != "jellyfin" {
					t.Errorf("caller %+v", c)
				}
				got = keys
				return test.err
			})})
			ctx := t.Context()
			if test.token != "" {
				ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "Bearer "+test.token))
			}
			r := &wire.ClearRequest{}
			for _, k := range test.keys {
				r.Outputs = append(r.Outputs, []byte(k))
			}
			_, err := s.Clear(ctx, r)
			if status.Code(err) != test.want {
				t.Fatalf("%v, want %s", err, test.want)
			}
			if test.want == codes.OK {
				if diff := cmp.Diff(test.keys, got); diff != "" {
					t.Errorf("keys (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// The shim's bound ends the wait.
func TestClearTimeout(t *testing.T) {
	s := New(Config{Authenticator: onlyToken{}, Fences: fencesFunc(func(ctx context.Context, _ store.Caller, _ []string) error {
		<-ctx.Done()
		return fmt.Errorf("wait for the outputs: %w", context.Cause(ctx))
	})})
	ctx, cancel := context.WithTimeout(metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer x")), time.Millisecond)
	defer cancel()
	if _, err := s.Clear(ctx, &wire.ClearRequest{Outputs: [][]byte{[]byte("/c/x")}}); status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
	if _, err := New(Config{}).Clear(ctx, nil); status.Code(err) != codes.Unimplemented {
		t.Errorf("no fences: %v", err)
	}
}
