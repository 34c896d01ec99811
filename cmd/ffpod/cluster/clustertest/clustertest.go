// Package clustertest is a cluster for tests of what streams: exec and port-forward,
// by containerd's own code, on this machine. Namespace media.
package clustertest

import (
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
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

// Node is an API server and a node in one: containerd's own streaming code behind
// the API's paths. WebSocket it refuses, as an old one, or a proxy, does.
type Node struct {
	Ports   map[int32]string // of every pod: an address of this machine by port
	Objects map[string]any   // what a GET of a path, and a POST to it, answers
}

func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const pods = "/api/v1/namespaces/media/pods/"
	name, verb, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, pods), "/")
	switch {
	case strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		http.Error(w, "no WebSocket here", http.StatusBadRequest)
	case n.Objects[r.URL.Path] != nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(n.Objects[r.URL.Path])
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
func (n *Node) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	address, open := n.Ports[port]
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
func (n *Node) ExecInContainer(ctx context.Context, _, _, _ string, args []string, in io.Reader, out, stderr io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration) error {
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

// Start serves until the test ends.
func (n *Node) Start(t interface {
	Helper()
	Cleanup(func())
}) *rest.Config {
	t.Helper()
	srv := httptest.NewServer(n)
	t.Cleanup(srv.Close)
	return &rest.Config{Host: srv.URL, QPS: -1}
}
