//go:build cluster

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// The whole program on the cluster of KUBECONFIG, as a developer runs it: it
// becomes ready, publishes its CA, and stops within its bound.
func TestClusterRun(t *testing.T) {
	rc, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		t.Fatalf("no cluster in KUBECONFIG: %v; run `make cluster`", err)
	}
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "ffpod-run-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{}) }()
	if _, err := client.CoreV1().Secrets(ns.Name).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "ffpod-tls"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ConfigMaps(ns.Name).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "ffpod-client"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	httpAddr := freeAddress(t)
	path := filepath.Join(t.TempDir(), "scheduler.yaml")
	conf := fmt.Sprintf("apiVersion: ffpod.dev/v1alpha1\nkind: SchedulerConfiguration\nlisten: {grpc: %q, http: %q, operators: \"\"}\ndrainTimeout: 3s\n", freeAddress(t), httpAddr)
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var out lockedBuffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"--config", path}, func(k string) string { return map[string]string{"POD_NAMESPACE": ns.Name}[k] }, io.Discard, &out)
	}()
	ready := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		r, err := http.Get("http://" + httpAddr + "/readyz")
		if err != nil {
			continue
		}
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if ready = string(b); r.StatusCode == http.StatusOK {
			break
		}
	}
	if strings.Contains(ready, "[-]") || ready == "" {
		t.Errorf("not ready: %q\n%s", ready, out.String())
	}
	m, err := client.CoreV1().ConfigMaps(ns.Name).Get(t.Context(), "ffpod-client", metav1.GetOptions{})
	if err != nil || !strings.Contains(m.Data["ca.crt"], "BEGIN CERTIFICATE") {
		t.Errorf("published %v, %v", m.Data, err)
	}
	begun := time.Now()
	stop()
	if got := <-code; got != 0 || time.Since(begun) > 3*time.Second {
		t.Errorf("code %d after %s\n%s", got, time.Since(begun), out.String())
	}
	if !strings.Contains(out.String(), `"msg":"stopped"`) {
		t.Errorf("it was not put down:\n%s", out.String())
	}
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
