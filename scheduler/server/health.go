package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check is one condition of readiness.
type Check struct {
	Name string
	// Ready says why not, nil when it holds.
	Ready func() error
}

// Health serves /healthz, /readyz and /metrics.
type Health struct {
	// Checks must all hold for /readyz.
	Checks  []Check
	Metrics prometheus.Gatherer
}

// Serve serves on l, which it closes, until ctx is done.
func (h *Health) Serve(ctx context.Context, l net.Listener) error {
	return serveHTTP(ctx, l, "health", h.handler())
}

// serveHTTP serves on l, which it closes, until ctx is done.
func serveHTTP(ctx context.Context, l net.Listener, what string, handler http.Handler) error {
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		srv.Close()
	})
	err := srv.Serve(l)
	if !stop() {
		<-done
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s on %s: %w", what, l.Addr(), err)
	}
	return nil
}

func (h *Health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", h.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.Metrics, promhttp.HandlerOpts{}))
	return mux
}

// readyz says of every condition whether it holds, and why not.
func (h *Health) readyz(w http.ResponseWriter, _ *http.Request) {
	var text strings.Builder
	code := http.StatusOK
	for _, c := range h.Checks {
		if err := c.Ready(); err != nil {
			code = http.StatusServiceUnavailable
			fmt.Fprintf(&text, "[-] %s: %v\n", c.Name, err)
			continue
		}
		fmt.Fprintf(&text, "[+] %s\n", c.Name)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text.String())) // whoever asked and went away needs no answer
}
