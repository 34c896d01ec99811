package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"github.com/ffpod/ffpod/cmd/ffmpeg/decision"
	"github.com/ffpod/ffpod/podexec/session"
)

const (
	// serverName is in the scheduler's certificate, whatever its address is.
	serverName = "ffpod-scheduler"
	// dialBound is the most that a connection may take, TLS included: with no
	// scheduler there a software command runs here that much later.
	dialBound = 5 * time.Second
	// maxSmallFile bounds what is read of a mounted file.
	maxSmallFile = 1 << 20
)

const (
	remedyMount = "mount the ConfigMap ffpod-client and a token for the audience ffpod at /var/run/ffpod"
	remedyPod   = "check that the scheduler's pod is ready and that its network policy lets this pod in"
)

// link is the way to the scheduler.
type link struct {
	address string
	conn    *grpc.ClientConn
	broken  *breakage
}

// dial prepares the connection; the first RPC makes it. Its error is a failure
// for a person.
func dial(s decision.Settings) (*link, *failure) {
	address, bad := addressOf(s)
	if bad != nil {
		return nil, bad
	}
	roots, bad := rootsOf(s)
	if bad != nil {
		return nil, bad
	}
	if _, err := readToken(s.TokenFile); err != nil {
		return nil, &failure{what: "no ServiceAccount token", why: err.Error(), remedy: remedyMount}
	}
	broken := &breakage{}
	conn, err := grpc.NewClient("passthrough:///"+address, append(session.DialOptions(),
		grpc.WithTransportCredentials(&watchedTLS{
			TransportCredentials: credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: serverName, MinVersion: tls.VersionTLS13}),
			broken:               broken,
		}),
		grpc.WithPerRPCCredentials(tokenFile(s.TokenFile)),
		grpc.WithContextDialer(broken.dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: dialBound}),
	)...)
	if err != nil {
		return nil, &failure{what: "scheduler " + address + " cannot be dialled", why: err.Error(), remedy: "correct FFPOD_ADDRESS"}
	}
	return &link{address: address, conn: conn, broken: broken}, nil
}

func addressOf(s decision.Settings) (string, *failure) {
	if s.Address != "" {
		return s.Address, nil
	}
	b, err := readSmall(s.AddressFile)
	if err != nil {
		return "", &failure{
			what: "no scheduler address", why: "FFPOD_ADDRESS is not set and " + err.Error(),
			remedy: "set it or " + remedyMount,
		}
	}
	address := strings.TrimSpace(string(b))
	if !decision.ValidAddress(address) {
		return "", &failure{
			what: "no scheduler address", why: fmt.Sprintf("%s holds %q, which is not HOST:PORT", s.AddressFile, address),
			remedy: "set FFPOD_ADDRESS",
		}
	}
	return address, nil
}

func rootsOf(s decision.Settings) (*x509.CertPool, *failure) {
	pem, err := readSmall(s.CAFile)
	if err != nil {
		return nil, &failure{what: "no CA to trust the scheduler by", why: err.Error(), remedy: remedyMount + " or set FFPOD_CA_FILE"}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, &failure{
			what: "no CA to trust the scheduler by", why: s.CAFile + " holds no PEM certificate",
			remedy: "wait for the scheduler to publish it or correct FFPOD_CA_FILE",
		}
	}
	return roots, nil
}

// tokenFile adds the caller's token to each RPC. It reads the file each time:
// the kubelet replaces it well before it expires.
type tokenFile string

func (t tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := readToken(string(t))
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

func (tokenFile) RequireTransportSecurity() bool { return true }

func readToken(name string) (string, error) {
	b, err := readSmall(name)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", errors.New(name + " is empty")
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New(name + " holds no token")
	}
	return token, nil
}

// readSmall reads a mounted file. Its error names the file and the reason, not
// the system call.
func readSmall(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New(name + " does not exist")
	case err != nil:
		return nil, fmt.Errorf("%s cannot be read: %w", name, errors.Unwrap(err))
	case !info.Mode().IsRegular() || info.Size() > maxSmallFile:
		return nil, errors.New(name + " is no small regular file")
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", name, errors.Unwrap(err))
	}
	return b, nil
}

// breakage keeps why no connection came about: gRPC only tells it as a text
// within a text.
type breakage struct {
	mu       sync.Mutex
	dialling error
	trusting error
}

// connectBound is for one try: a Service may still name a pod that is gone, which
// answers nothing, while another try finds its successor.
const connectBound = time.Second

func (b *breakage) dial(ctx context.Context, address string) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: connectBound}
	for until := time.Now().Add(dialBound); ; {
		conn, err = d.DialContext(ctx, "tcp", address)
		var late net.Error
		if err == nil || !errors.As(err, &late) || !late.Timeout() || ctx.Err() != nil || time.Until(until) < connectBound/2 {
			break
		}
	}
	b.mu.Lock()
	b.dialling = err
	b.mu.Unlock()
	return conn, err
}

// handshake keeps how one ended. A connection that broke off in it says nothing of
// trust: whoever was at its other end restarts, or is gone.
func (b *breakage) handshake(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trusting = err
	if brokeOff(err) {
		b.dialling, b.trusting = errors.New("the TLS handshake broke off: "+dialReason(err)), nil
	}
}

func brokeOff(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op != "remote error" && op.Op != "local error" // those are TLS's own words
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}

func (b *breakage) failure(address string) *failure {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.dialling != nil:
		return &failure{what: "scheduler " + address + " cannot be reached", why: dialReason(b.dialling), remedy: remedyPod}
	case b.trusting != nil:
		return &failure{
			what: "scheduler " + address + " cannot be trusted", why: b.trusting.Error(),
			remedy: "check that FFPOD_CA_FILE holds the scheduler's present CA and that FFPOD_ADDRESS is the scheduler's",
		}
	}
	return nil
}

// unreachable tells whether nobody answered at all.
func (b *breakage) unreachable() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dialling != nil
}

// dialReason drops what the line says already.
func dialReason(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return "name " + dns.Name + ": " + dns.Err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		if call, ok := errors.AsType[*os.SyscallError](op.Err); ok {
			return call.Err.Error()
		}
		return op.Err.Error()
	}
	return err.Error()
}

// watchedTLS keeps the error of a handshake.
type watchedTLS struct {
	credentials.TransportCredentials
	broken *breakage
}

func (w *watchedTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	w.broken.handshake(err)
	return conn, info, err
}

func (w *watchedTLS) Clone() credentials.TransportCredentials {
	return &watchedTLS{TransportCredentials: w.TransportCredentials.Clone(), broken: w.broken}
}
