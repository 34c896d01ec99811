package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster/clustertest"
	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/scheduler/server"
)

func serve(t *testing.T, n *clustertest.Node) *Cluster {
	t.Helper()
	rc := n.Start(t)
	return &Cluster{Config: rc, Client: kubernetes.NewForConfigOrDie(rc), Namespace: "media"}
}

func schedulerPod() map[string]any {
	return map[string]any{"/api/v1/namespaces/media/pods": corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{*pod("s-0", nil, nil)}}}
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
	on := serve(t, &clustertest.Node{Ports: map[int32]string{api.Port: l.Addr().String()}, Objects: schedulerPod()})
	for range 3 {
		got, err := on.Status(t.Context())
		if err != nil || got.Version != "v9" || got.Pod != "s-0" || len(got.Sessions) != 5000 {
			t.Fatalf("%s, %d sessions, %v", got.Version, len(got.Sessions), err)
		}
	}
}

func TestStatusOfAnOldScheduler(t *testing.T) {
	on := serve(t, &clustertest.Node{Objects: schedulerPod()})
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
	on := serve(t, &clustertest.Node{Ports: map[int32]string{7443: l.Addr().String()}})
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
	on := serve(t, &clustertest.Node{})
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
