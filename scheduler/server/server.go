package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/store"
)

// ServerName is what the certificate names, whatever the address is.
const ServerName = "ffpod-scheduler"

// sessions runs an authenticated session: *scheduler.Scheduler.
type sessions interface {
	Serve(ctx context.Context, caller store.Caller, stream session.Stream)
}

// fences clears the way for a writer in the caller's own pod: *scheduler.Scheduler.
type fences interface {
	// Clear returns once no session of the caller's account writes outputs with
	// these keys: those that do are killed.
	Clear(ctx context.Context, caller store.Caller, keys []string) error
}

// authenticator knows callers by their tokens: *Authenticator.
type authenticator interface {
	Authenticate(ctx context.Context, token string) (store.Caller, error)
}

// Config of a Server.
type Config struct {
	Sessions      sessions
	Authenticator authenticator
	// Fences answers Fence.Clear. Without it the call is unimplemented.
	Fences fences
	// Certificate returns the certificate to present now.
	Certificate func() (*tls.Certificate, error)
	// Log defaults to none.
	Log *zap.Logger
}

// Server serves shims.
type Server struct {
	wire.UnimplementedRunnerServer
	wire.UnimplementedFenceServer
	cfg  Config
	log  *zap.Logger
	grpc *grpc.Server
	up   atomic.Bool
}

// New makes a server; Serve starts it.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	s := &Server{cfg: cfg, log: cfg.Log}
	creds := credentials.NewTLS(&tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cfg.Certificate() },
	})
	s.grpc = grpc.NewServer(append(session.ServerOptions(), grpc.Creds(creds), grpc.WaitForHandlers(true))...)
	wire.RegisterRunnerServer(s.grpc, s)
	wire.RegisterFenceServer(s.grpc, s)
	return s
}

// Serve accepts connections of l, which it closes, until Stop.
func (s *Server) Serve(l net.Listener) error {
	s.up.Store(true)
	defer s.up.Store(false)
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve sessions on %s: %w", l.Addr(), err)
	}
	return nil
}

// Ready says why shims cannot be served, nil when they are.
func (s *Server) Ready() error {
	if !s.up.Load() {
		return errors.New("not listening")
	}
	return nil
}

// lastWords bounds the delivery of what drained sessions were told.
const lastWords = time.Second

// Stop closes the listener and every connection, and waits for their handlers.
// Drain the scheduler first, so that shims are told why: what was sent is
// delivered, but no session is waited for.
func (s *Server) Stop() {
	timeout := time.AfterFunc(lastWords, s.grpc.Stop)
	defer timeout.Stop()
	s.grpc.GracefulStop()
}

// Run implements wire.RunnerServer: one session.
func (s *Server) Run(stream wire.Runner_RunServer) error {
	caller, err := s.caller(stream.Context())
	if err != nil {
		return err
	}
	s.cfg.Sessions.Serve(stream.Context(), caller, stream)
	return nil
}

// caller authenticates a call.
func (s *Server) caller(ctx context.Context) (store.Caller, error) {
	token, err := bearer(ctx)
	if err != nil {
		return store.Caller{}, err
	}
	caller, err := s.cfg.Authenticator.Authenticate(ctx, token)
	if err != nil {
		s.log.Info("session refused", zap.String("code", status.Code(err).String()), zap.String("reason", status.Convert(err).Message()))
	}
	return caller, err
}

// bearer takes the token out of the metadata.
func bearer(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	const scheme = "Bearer "
	if len(values) == 0 || len(values[0]) <= len(scheme) || values[0][:len(scheme)] != scheme {
		return "", status.Error(codes.Unauthenticated, "no token was sent; mount a serviceAccountToken volume and let FFPOD_TOKEN_FILE name it")
	}
	return values[0][len(scheme):], nil
}
