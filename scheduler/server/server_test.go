package server

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/store"
)

type anyone struct{}

func (anyone) Authenticate(context.Context, string) (store.Caller, error) { return store.Caller{}, nil }

// Stop comes right after the last session was told that the scheduler goes: that
// word must still arrive, else its shim can only say that a connection broke.
func TestStopDeliversLastWords(t *testing.T) {
	certs := managed(t, cluster(), time.Now)
	if err := certs.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	const n = 40
	drain := make(chan struct{})
	var begun, serving sync.WaitGroup
	begun.Add(n)
	serving.Add(n)
	srv := New(Config{Authenticator: anyone{}, Certificate: certs.Certificate,
		Sessions: sessionsFunc(func(_ context.Context, _ store.Caller, s session.Stream) {
			defer serving.Done()
			begun.Done()
			<-drain
			_ = s.Send(&wire.Frame{Kind: &wire.Frame_Lost{Lost: &wire.Lost{Message: "going"}}})
		})})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served, shims sync.WaitGroup
	served.Go(func() {
		if err := srv.Serve(l); err != nil {
			t.Error(err)
		}
	})
	for range n {
		shims.Go(func() {
			conn, err := grpc.NewClient(l.Addr().String(), append(session.DialOptions(),
				grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))...)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			stream, err := wire.NewRunnerClient(conn).Run(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer x"))
			if err != nil {
				t.Error(err)
				return
			}
			if f, err := stream.Recv(); f.GetLost().GetMessage() != "going" {
				t.Errorf("got %v, %v", f, err)
			}
		})
	}
	begun.Wait()
	close(drain)
	serving.Wait()
	srv.Stop()
	served.Wait()
	shims.Wait()
}
