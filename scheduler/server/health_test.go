package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestHealth(t *testing.T) {
	var why error = errors.New("2 of 3 answered")
	registry := prometheus.NewRegistry()
	registry.MustRegister(NewPolicyMetric())
	h := &Health{Metrics: registry, Checks: []Check{{"certificate", func() error { return nil }}, {"workers", func() error { return why }}}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer stop()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	get := func(path string) (int, string) {
		r, err := client.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(b)
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz %d", code)
	}
	if code, text := get("/readyz"); code != http.StatusServiceUnavailable || text != "[+] certificate\n[-] workers: 2 of 3 answered\n" {
		t.Errorf("readyz %d %q", code, text)
	}
	why = nil
	if code, text := get("/readyz"); code != http.StatusOK || strings.Contains(text, "[-]") {
		t.Errorf("readyz %d %q", code, text)
	}
	if code, _ := get("/metrics"); code != http.StatusOK {
		t.Errorf("metrics %d", code)
	}
}

func TestVerdictOfPolicies(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"allowed":            {nil, false},
		"by RBAC":            {errors.New(`jobs.batch is forbidden: User "x" cannot create`), false},
		"by a policy":        {errors.New("ValidatingAdmissionPolicy 'ffpod-exec' with binding 'ffpod-exec' denied request: no"), true},
		"no upgrade, so far": {errors.New("unable to upgrade: missing upgrade headers in request"), false},
	} {
		if got := verdict(tt.err) == ""; got != tt.want {
			t.Errorf("%s: in force %v", name, got)
		}
	}
}
