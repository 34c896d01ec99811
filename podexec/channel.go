package podexec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// Container is the name of the container that runs the supervisor.
const Container = "worker"

// DialCommand returns what a channel execs in a worker: constant, so that argv
// never appears in a URL, and pinned by the admission policy.
func DialCommand() []string { return []string{"/ffpod/worker", "dial"} }

// Target names a container of a pod. pods/exec addresses names, not UIDs: who
// dials checks the Description's nonce and pod UID.
type Target struct {
	Namespace, Pod string
	// Container defaults to Container.
	Container string
	// Command defaults to DialCommand.
	Command []string
}

func (t Target) String() string { return t.Namespace + "/" + t.Pod }

// Dialer opens channels. It is safe for concurrent use.
type Dialer struct {
	Config *rest.Config
	Client kubernetes.Interface
}

// Channel is one open exec stream to a worker and the gRPC connection in it. Any
// number of sessions use it at once. It is not reopened: after Done, open another.
type Channel struct {
	target      Target
	conn        *grpc.ClientConn
	description *wire.Description
	last        atomic.Pointer[wire.Description] // that had the capabilities

	cancel context.CancelFunc
	done   chan struct{}
	err    error // set before done is closed
}

// Open execs the dial command in the target, and returns when the supervisor
// answered a Describe. ctx bounds the opening only; Close ends the channel.
func (d *Dialer) Open(ctx context.Context, t Target) (*Channel, error) {
	if t.Container == "" {
		t.Container = Container
	}
	if t.Command == nil {
		t.Command = DialCommand()
	}
	executor, err := d.executor(t)
	if err != nil {
		return nil, fmt.Errorf("exec in pod %s: %w", t, err)
	}
	// The stream outlives the opening; a failed opening cancels it.
	streaming, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Channel{target: t, cancel: cancel, done: make(chan struct{})}
	ours, theirs := net.Pipe()
	if c.conn, err = dialOnce(ours); err != nil {
		cancel()
		return nil, fmt.Errorf("channel to pod %s: %w", t, err)
	}
	go c.stream(streaming, executor, theirs)

	if c.description, err = c.Describe(ctx); err != nil {
		c.Close()
		if cause := c.Err(); cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause
		}
		return nil, fmt.Errorf("channel to pod %s: %w", t, err)
	}
	return c, nil
}

// executor prefers WebSocket and falls back to SPDY as kubectl does, also behind
// an HTTPS proxy that refuses the upgrade.
//
// kube: pods/exec, get, create
func (d *Dialer) executor(t Target) (remotecommand.Executor, error) {
	url := d.Client.CoreV1().RESTClient().Post().Resource("pods").Namespace(t.Namespace).Name(t.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: t.Container, Command: t.Command, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	spdy, err := remotecommand.NewSPDYExecutor(d.Config, http.MethodPost, url)
	if err != nil {
		return nil, err
	}
	websocket, err := remotecommand.NewWebSocketExecutor(d.Config, http.MethodGet, url.String())
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

// stream runs the exec until it ends. Its exit status says nothing: a broken hop
// looks like success.
func (c *Channel) stream(ctx context.Context, executor remotecommand.Executor, far net.Conn) {
	defer close(c.done)
	defer c.cancel()
	var said tail
	err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: quietEnd{far}, Stdout: quietEnd{far}, Stderr: &said})
	far.Close()
	switch text := said.String(); {
	case ctx.Err() != nil:
		c.err = context.Canceled
	case err != nil && text != "":
		c.err = fmt.Errorf("%w: %s", err, text)
	case err != nil:
		c.err = err
	case text != "":
		c.err = fmt.Errorf("the exec stream ended: %s", text)
	default:
		c.err = errors.New("the exec stream ended")
	}
}

// dialOnce makes a client over one existing connection. When that is gone the
// client must not dial again: there is nothing else to dial.
func dialOnce(conn net.Conn) (*grpc.ClientConn, error) {
	var used atomic.Bool
	dial := func(context.Context, string) (net.Conn, error) {
		if used.Swap(true) {
			return nil, errors.New("the channel is gone")
		}
		return conn, nil
	}
	return grpc.NewClient("passthrough:///worker", append(session.ChannelDialOptions(),
		grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
}

// Describe asks the supervisor what it is and runs now. What it proved is sent once,
// for it is a thousand names, and told again as long as it is the same: the answer
// shares it with others and is not to be changed.
func (c *Channel) Describe(ctx context.Context) (*wire.Description, error) {
	last := c.last.Load()
	d, err := c.Supervisor().Describe(ctx, &wire.DescribeRequest{Profile: last.GetProfile()})
	if err != nil {
		return nil, err
	}
	if d.GetProfile() != "" && d.GetProfile() == last.GetProfile() {
		d.Capabilities, d.Flaws = last.GetCapabilities(), last.GetFlaws()
	}
	c.last.Store(d)
	return d, nil
}

// Description is the supervisor's answer at the opening.
func (c *Channel) Description() *wire.Description { return c.description }

// Runner runs sessions on the worker.
func (c *Channel) Runner() wire.RunnerClient { return wire.NewRunnerClient(c.conn) }

// Supervisor asks the worker everything else.
func (c *Channel) Supervisor() wire.SupervisorClient { return wire.NewSupervisorClient(c.conn) }

// Done is closed when the exec stream ended; its sessions' streams end with it.
func (c *Channel) Done() <-chan struct{} { return c.done }

// Err returns why the channel ended, nil before Done and context.Canceled after
// Close.
func (c *Channel) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Close ends the exec stream and waits for it. Sessions in it end as lost.
func (c *Channel) Close() error {
	err := c.conn.Close()
	c.cancel()
	<-c.done
	return err
}

// quietEnd ends without an error: client-go reports one to the process's global
// error handler, and a closed pipe is how every channel ends.
type quietEnd struct{ net.Conn }

func (q quietEnd) Read(p []byte) (int, error) {
	n, err := q.Conn.Read(p)
	if errors.Is(err, io.ErrClosedPipe) {
		err = io.EOF
	}
	return n, err
}

// Write drops what comes after the close: nobody reads it.
func (q quietEnd) Write(p []byte) (int, error) {
	n, err := q.Conn.Write(p)
	if errors.Is(err, io.ErrClosedPipe) {
		return len(p), nil
	}
	return n, err
}

// tail keeps the last line that `worker dial` said on its stderr.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if extra := len(t.b) - 4096; extra > 0 {
		t.b = t.b[extra:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.b)), "\n")
	return lines[len(lines)-1]
}
