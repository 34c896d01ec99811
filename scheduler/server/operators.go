package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/scheduler/api"
)

// Operators serves api.Path and api.ProvePath on a loopback address: `ffpod status`
// and `ffpod prove` reach it by port-forward, which is the right to both.
type Operators struct {
	// Status is the scheduler's: *scheduler.Scheduler.
	Status func(context.Context) (api.Status, error)
	// Prove is the scheduler's, too.
	Prove func(ctx context.Context, class string) []api.Proof
	// Checks are those of Health.
	Checks []Check
	// Policies is what Policies.Check said last; nil: nothing yet.
	Policies func() []string
	// Pod is the scheduler's own.
	Pod string
	Log *zap.Logger
}

// Serve serves on l, which it closes, until ctx is done.
func (o *Operators) Serve(ctx context.Context, l net.Listener) error {
	if tcp, ok := l.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return errors.Join(fmt.Errorf("serve operators on %s: it is no loopback address", l.Addr()), l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.Path, o.status)
	mux.HandleFunc("POST "+api.ProvePath, o.prove)
	return serveHTTP(ctx, l, "operators", mux)
}

func (o *Operators) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	s, err := o.Status(ctx)
	if err != nil {
		o.Log.Warn("operators cannot be told the status", zap.Error(err))
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.Pod = o.Pod
	if o.Policies != nil {
		s.Policies = o.Policies()
	}
	for _, c := range o.Checks {
		if err := c.Ready(); err != nil {
			s.NotReady = append(s.NotReady, c.Name+": "+err.Error())
		}
	}
	answer(w, s)
}

func (o *Operators) prove(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	class := r.URL.Query().Get("class")
	proofs := o.Prove(ctx, class)
	o.Log.Info("workers are to try their hardware again", zap.String("class", class), zap.Int("workers", len(proofs)))
	answer(w, proofs)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // whoever asked and went away needs no answer
}
