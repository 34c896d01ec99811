package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// goodToken is what the fake scheduler accepts.
const goodToken = "header.payload.signature"

// scheduler is a fake one: real TLS and gRPC, and one function that says how a
// session goes.
type scheduler struct {
	wire.UnimplementedRunnerServer
	wire.UnimplementedFenceServer
	t       testing.TB
	session func(p *peer) error
	clear   func(ctx context.Context, keys []string) error // of Fence; nil: unimplemented, as before

	address, dir string
	settings     []string      // for the shim's environment
	ended        chan struct{} // gets one value for each session that ended
}

// peer is the scheduler's end of one session.
type peer struct {
	wire.Runner_RunServer
	t     testing.TB
	start *wire.Start
}

// serve starts a scheduler; the session function runs for each authenticated
// stream after its Start arrived.
func serve(t testing.TB, name string, run func(p *peer) error) *scheduler {
	t.Helper()
	s := &scheduler{t: t, session: run, dir: t.TempDir(), ended: make(chan struct{}, 64)}
	cert := s.certificate(name)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	server := grpc.NewServer(append(session.ServerOptions(), grpc.Creds(credentials.NewServerTLSFromCert(&cert)))...)
	wire.RegisterRunnerServer(server, s)
	wire.RegisterFenceServer(server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	s.write("token", goodToken+"\n")
	s.settings = []string{
		"FFPOD_ADDRESS=" + s.address, "FFPOD_CA_FILE=" + s.file("ca.crt"), "FFPOD_TOKEN_FILE=" + s.file("token"),
		"FFPOD_SHARED=" + s.dir + ":/proc", "FFPOD_FFMPEG=" + realFFmpeg, "FFPOD_FFPROBE=" + realFFprobe,
	}
	return s
}

func (s *scheduler) file(name string) string { return filepath.Join(s.dir, name) }

func (s *scheduler) write(name, text string) string {
	s.t.Helper()
	if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return s.file(name)
}

// certificate makes a CA, publishes it as ca.crt and returns a certificate of
// it for one DNS name.
func (s *scheduler) certificate(name string) tls.Certificate {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Run authenticates as a scheduler would and hands the session over.
func (s *scheduler) Run(stream wire.Runner_RunServer) error {
	defer func() { s.ended <- struct{}{} }()
	md, _ := metadata.FromIncomingContext(stream.Context())
	if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+goodToken {
		return status.Error(codes.Unauthenticated, "token is not for the audience ffpod")
	}
	f, err := stream.Recv()
	if err != nil {
		return err
	}
	return s.session(&peer{Runner_RunServer: stream, t: s.t, start: f.GetStart()})
}

// Clear answers as a scheduler would.
func (s *scheduler) Clear(ctx context.Context, r *wire.ClearRequest) (*wire.ClearResponse, error) {
	if s.clear == nil {
		return s.UnimplementedFenceServer.Clear(ctx, r)
	}
	return &wire.ClearResponse{}, s.clear(ctx, text(r.GetOutputs()))
}

func (p *peer) send(kinds ...any) {
	for _, kind := range kinds {
		f := &wire.Frame{}
		switch k := kind.(type) {
		case *wire.Progress:
			f.Kind = &wire.Frame_Progress{Progress: k}
		case *wire.Ticket:
			f.Kind = &wire.Frame_Ticket{Ticket: k}
		case *wire.Started:
			f.Kind = &wire.Frame_Started{Started: k}
		case *wire.Data:
			f.Kind = &wire.Frame_Data{Data: k}
		case *wire.Ack:
			f.Kind = &wire.Frame_Ack{Ack: k}
		case *wire.Refused:
			f.Kind = &wire.Frame_Refused{Refused: k}
		case *wire.Lost:
			f.Kind = &wire.Frame_Lost{Lost: k}
		case *wire.Exit:
			f.Kind = &wire.Frame_Exit{Exit: k}
		default:
			p.t.Errorf("no frame for %T", kind)
		}
		_ = p.Send(f) // a shim that is gone shows in next
	}
}

// begin goes the whole way to Started.
func (p *peer) begin() {
	p.send(&wire.Ticket{Session: p.start.Session, Pod: "worker-1"})
	for f := p.next(); f != nil && f.GetTicketAck() == nil; {
		f = p.next()
	}
	p.send(&wire.Started{Pid: 42, Epoch: 1})
}

// enough sends so many bytes of stdout that the shim acknowledges some when it
// has written them, and more than a pipe that nobody reads takes.
func (p *peer) enough() uint64 {
	const size = 32 << 10
	const frames = session.DefaultRing / size
	for i := range frames {
		p.send(&wire.Data{Pipe: wire.Pipe_STDOUT, Offset: uint64(i * size), Bytes: make([]byte, size)})
	}
	return frames * size
}

// exit ends both pipes and the session and waits for the shim's word.
func (p *peer) exit(e *wire.Exit) {
	p.send(
		&wire.Data{Pipe: wire.Pipe_STDOUT, Offset: e.Stdout, Eof: true},
		&wire.Data{Pipe: wire.Pipe_STDERR, Offset: e.Stderr, Eof: true}, e)
	for f := p.next(); f != nil && f.GetExitAck() == nil; {
		f = p.next()
	}
}

// next returns the next frame but heartbeats, nil when the stream ended.
func (p *peer) next() *wire.Frame {
	for {
		f, err := p.Recv()
		if err != nil {
			return nil
		}
		if f.GetHeartbeat() == nil {
			return f
		}
	}
}

// behind is an address before the scheduler's that resets the nth connection, from
// 0 on, if cut says so.
func (s *scheduler) behind(cut func(n int) bool) string {
	s.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; ; n++ {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			if cut(n) {
				_, _ = near.Read(make([]byte, 1))
				_ = near.(*net.TCPConn).SetLinger(0)
				near.Close()
				continue
			}
			far, err := net.Dial("tcp", s.address)
			if err != nil {
				near.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				all.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					near.Close()
					far.Close()
				})
			}
		}
	})
	s.t.Cleanup(func() {
		listener.Close()
		all.Wait()
	})
	return listener.Addr().String()
}
