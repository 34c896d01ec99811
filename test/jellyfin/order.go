package jellyfin

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Flavour is a release of Jellyfin.
type Flavour string

// The releases whose behaviour towards ffmpeg differs.
const (
	V10_11 Flavour = "10.11"
	V12_0  Flavour = "12.0"
)

// Flavours are all of them.
var Flavours = [...]Flavour{V10_11, V12_0}

// Order is what a suite asks of the simulator.
type Order struct {
	// Scenario names one; empty runs the Vectors.
	Scenario string
	Vectors  []string // by name; none is all
	Flavour  Flavour
	// FFmpeg is the path that Jellyfin is configured with. Its ffprobe is beside it.
	FFmpeg string
	// Bare is the real ffmpeg, for facts about files and the features of the
	// build, which decide what Jellyfin asks for.
	Bare string
	// Root goes before /media and /cache. Empty in a pod.
	Root string
	// Config stands for /cache/config, where the vectors keep what a real server
	// keeps in /config. Empty: /cache/config it is.
	Config string
	Env    []string // beside the simulator's own and Jellyfin's
	// Parallel is how many vectors run at a time. Defaults to 1.
	Parallel int
	// Within bounds all of it. Jellyfin has no such bound: whatever meets it hangs.
	Within time.Duration
}

// Report is what a server saw.
type Report struct {
	// Problems are beliefs of Jellyfin's that did not hold.
	Problems []string
	// Notes are for a person.
	Notes []string
	// Seen is what there is to compare, by vector or part of a scenario.
	Seen map[string]Seen

	mu sync.Mutex
}

func (r *Report) problem(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (r *Report) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

func (r *Report) see(name string, s Seen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Seen[name] = s
}

// seeValue keeps something that every way must answer alike.
func (r *Report) seeValue(name string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		r.problem("%s: %v", name, err)
		return
	}
	r.see(name, Seen{Stdout: sum(b), Text: string(b)})
}

// check reports an error of a step and tells whether there was none.
func (r *Report) check(what string, err error) bool {
	if err != nil {
		r.problem("%s: %v", what, err)
	}
	return err == nil
}

// Perform does what the order says. Its error is that the order makes no sense.
func Perform(ctx context.Context, o Order) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Within)
	defer cancel()
	r := &Report{Seen: map[string]Seen{}}
	server, err := NewServer(o)
	if err != nil {
		return nil, err
	}
	defer server.Close()
	if o.Scenario == "" {
		return r, server.vectors(ctx, o, r)
	}
	i := slices.IndexFunc(Scenarios, func(s Scenario) bool { return s.Name == o.Scenario })
	if i < 0 {
		return nil, fmt.Errorf("no scenario %q", o.Scenario)
	}
	Scenarios[i].play(ctx, server, r)
	for _, left := range server.left() {
		r.problem("%s was left running", left)
	}
	if ctx.Err() != nil {
		r.problem("not over within %s: Jellyfin would hang", o.Within)
	}
	return r, nil
}
