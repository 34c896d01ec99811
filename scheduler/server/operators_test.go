package server

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/scheduler/api"
)

func TestOperators(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fault := error(nil)
	o := &Operators{Pod: "s-0", Log: zap.NewNop(), Policies: func() []string { return []string{"exec: allowed"} },
		Checks: []Check{{Name: "fine", Ready: func() error { return nil }}, {Name: "classes", Ready: func() error { return errors.New("not read") }}},
		Prove: func(_ context.Context, class string) []api.Proof {
			return []api.Proof{{Class: class, Worker: "w", Started: true}}
		},
		Status: func(context.Context) (api.Status, error) { return api.Status{Version: "v1"}, fault }}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Serve(ctx, l) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + l.Addr().String() + api.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got api.Status
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Version != "v1" || got.Pod != "s-0" || strings.Join(got.NotReady, ";") != "classes: not read" || strings.Join(got.Policies, ";") != "exec: allowed" {
		t.Errorf("%+v", got)
	}
	asked, err := client.Post("http://"+l.Addr().String()+api.ProvePath+"?class=nvidia", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Body.Close()
	var proofs []api.Proof
	if err := json.NewDecoder(asked.Body).Decode(&proofs); err != nil || len(proofs) != 1 || proofs[0] != (api.Proof{Class: "nvidia", Worker: "w", Started: true}) {
		t.Errorf("%v, %v", proofs, err)
	}
	fault = errors.New("no store")
	for path, want := range map[string]int{api.Path: 500, "/metrics": 404, api.ProvePath: 405} {
		res, err := client.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

// TestOperatorsOnlyOnLoopback is the whole of its protection.
func TestOperatorsOnlyOnLoopback(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Operators{}).Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("%v", err)
	}
}
