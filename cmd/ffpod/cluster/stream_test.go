package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/scheduler/server"
)

// node is an API server and a node in one: containerd's own streaming code behind
// the API's paths. WebSocket it refuses, as an old one, or a proxy, does.
type node struct {
	t     *testing.T
	ports map[int32]string // address by port
	pods  corev1.PodList
}

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const pods = "/api/v1/namespaces/media/pods"
	name, verb, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, pods), "/"), "/")
	switch {
	case strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		http.Error(w, "no WebSocket here", http.StatusBadRequest)
	case r.URL.Path == pods:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(n.pods)
	case verb == "portforward":
		portforward.ServePortForward(w, r, n, name, "", nil, time.Minute, time.Minute, portforward.SupportedProtocols)
	case verb == "exec":
		q := r.URL.Query()
		remotecommand.ServeExec(w, r, n, name, "", q.Get("container"), q["command"],
			&remotecommand.Options{Stdin: q.Get("stdin") == "true", Stdout: q.Get("stdout") == "true", Stderr: q.Get("stderr") == "true"}, time.Minute, time.Minute, remotecommand.SupportedStreamingProtocols)
	default:
		http.NotFound(w, r)
	}
}

// PortForward implements portforward.PortForwarder.
func (n *node) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	address, open := n.ports[port]
	if !open {
		return fmt.Errorf("dial tcp4 127.0.0.1:%d: connect: connection refused", port)
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, stream)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, conn)
	return err
}

// ExecInContainer implements remotecommand.Executor: on this machine.
func (n *node) ExecInContainer(ctx context.Context, _, _, container string, args []string, in io.Reader, out, stderr io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
	if container != "app" {
		n.t.Errorf("container %q", container)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = in
	if out != nil {
		cmd.Stdout = out
	}
	if stderr != nil {
		cmd.Stderr = stderr
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return utilexec.CodeExitError{Code: exit.ExitCode(), Err: err}
	}
	return err
}

func serve(t *testing.T, n *node) *Cluster {
	t.Helper()
	n.t = t
	srv := httptest.NewServer(n)
	t.Cleanup(srv.Close)
	rc := &rest.Config{Host: srv.URL}
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	return &Cluster{Config: rc, Client: client, Namespace: "media"}
}

func schedulerPod() corev1.PodList {
	return corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*pod("s-0", nil, nil)}}
}

// TestStatus goes from the CLI's question through a port-forward to the scheduler's
// own loopback handler.
func TestStatus(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	many := api.Status{Version: "v9"} // more than a window of SPDY
	for i := range 5000 {
		many.Sessions = append(many.Sessions, api.Session{ID: fmt.Sprintf("session-%06d", i), Reason: strings.Repeat("r", 100)})
	}
	operators := &server.Operators{Pod: "s-0", Log: zap.NewNop(), Status: func(context.Context) (api.Status, error) { return many, nil }}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- operators.Serve(ctx, l) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	on := serve(t, &node{ports: map[int32]string{api.Port: l.Addr().String()}, pods: schedulerPod()})
	for range 3 {
		got, err := on.Status(t.Context())
		if err != nil || got.Version != "v9" || got.Pod != "s-0" || len(got.Sessions) != 5000 {
			t.Fatalf("%s, %d sessions, %v", got.Version, len(got.Sessions), err)
		}
	}
}

func TestStatusOfAnOldScheduler(t *testing.T) {
	on := serve(t, &node{pods: schedulerPod()})
	begun := time.Now()
	_, err := on.Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), "listen.operators") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	if time.Since(begun) > 5*time.Second {
		t.Errorf("it took %s", time.Since(begun))
	}
}

// TestDialBothWays sends more than any buffer holds, both ways at once.
func TestDialBothWays(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c) // an echo
	}()
	on := serve(t, &node{ports: map[int32]string{7443: l.Addr().String()}})
	conn, err := on.Dial(t.Context(), "s-0", 7443)
	if err != nil {
		t.Fatal(err)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	go func() { _, _ = conn.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Error("written after Close")
	}
}

func TestDialHonoursItsContext(t *testing.T) {
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hang.Close()
	rc := &rest.Config{Host: hang.URL}
	on := &Cluster{Config: rc, Client: kubernetes.NewForConfigOrDie(rc), Namespace: "media"}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := on.Dial(ctx, "s-0", 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	hang.CloseClientConnections()
}

func TestExec(t *testing.T) {
	on := serve(t, &node{})
	var stdout, stderr bytes.Buffer
	code, err := on.Exec(t.Context(), Command{Pod: "p", Container: "app", Args: []string{"sh", "-c", "cat; echo words >&2; exit 7"},
		Stdin: strings.NewReader("in"), Stdout: &stdout, Stderr: &stderr})
	if err != nil || code != 7 || stdout.String() != "in" || stderr.String() != "words\n" {
		t.Errorf("%d, %v, %q, %q", code, err, &stdout, &stderr)
	}
	if code, err := on.Exec(t.Context(), Command{Pod: "p", Container: "app", Args: []string{"true"}, Stdout: &stdout}); code != 0 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	if code, err := on.Exec(t.Context(), Command{Pod: "p", Container: "app", Args: []string{"no-such-program"}, Stdout: &stdout}); code != 127 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
}
