package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

// short is an evening that fits into a test: its middle asks for more than there is.
var short = Config{Seed: 7, Workers: 100, Rate: 1000, Minutes: 25}

func byName(r Report) map[string]*Result {
	all := map[string]*Result{}
	for _, x := range r.Results {
		all[x.Name] = x
	}
	return all
}

// Ours lets those wait least whom somebody waits for, by ratio, and does as much
// work as the others.
func TestOursWins(t *testing.T) {
	all := byName(simulate(short, func(*Result, time.Duration) {}))
	ours := all["ffpod"]
	for _, name := range []string{"round-robin", "random", "least-connections"} {
		other := all[name]
		for kind, ratio := range map[string]float64{"playback": .5, "live": .5, "probe": .2, "image": .6} {
			if o, x := ours.Waits[kind], other.Waits[kind]; o.P99 > ratio*x.P99 || o.P50 > 1.02*x.P50 {
				t.Errorf("%s: p50 %.2f s and p99 %.2f s, those of %s are %.2f s and %.2f s", kind, o.P50, o.P99, name, x.P50, x.P99)
			}
		}
		if ours.Waits["playback"].Late > .5*other.Waits["playback"].Late {
			t.Errorf("playback late: %.3f, with %s %.3f", ours.Waits["playback"].Late, name, other.Waits["playback"].Late)
		}
		if ours.Background < .98*other.Background || ours.Slots < .95*other.Slots {
			t.Errorf("background done %.3f, slots in use %.3f; with %s %.3f and %.3f", ours.Background, ours.Slots, name, other.Background, other.Slots)
		}
	}
	if ours.Pauses == 0 {
		t.Error("the evening asks for too little: nothing was paused")
	}
	if ours.Left > 200 {
		t.Errorf("%d sessions wait at the end", ours.Left)
	}
	// What Decide adds to the order of the queue.
	if o, x := ours.Waits["playback"], all["least-connections, our order"].Waits["playback"]; o.P50 > x.P50 || o.Late > x.Late {
		t.Errorf("playback: p50 %.3f s, late %.3f; least connections in our order: %.3f s, %.3f", o.P50, o.Late, x.P50, x.Late)
	}
}

// The same seed gives the same evening, another one another.
func TestSeed(t *testing.T) {
	cfg := Config{Seed: 3, Workers: 40, Rate: 400, Minutes: 4}
	tell := func(*Result, time.Duration) {}
	one, two := simulate(cfg, tell), simulate(cfg, tell)
	if one.table() != two.table() {
		t.Errorf("one seed, two evenings:\n%s\n%s", one.table(), two.table())
	}
	cfg.Seed++
	if other := simulate(cfg, tell); other.markdown() == one.markdown() {
		t.Error("another seed, the same evening")
	}
}

// Sessions share a host by their weight, take no more than they want, and leave
// nothing idle that another could use.
func TestShare(t *testing.T) {
	with := func(appetite, weight float64) *session {
		return &session{model: &kindModel{appetite: appetite, weight: weight}}
	}
	tests := map[string]struct {
		capacity float64
		sessions []*session
		want     []float64
	}{
		"enough for all":       {capacity: 8, sessions: []*session{with(2, 1), with(3, .1)}, want: []float64{2, 3}},
		"by weight":            {capacity: 4, sessions: []*session{with(4, 1), with(4, .25)}, want: []float64{3.2, .8}},
		"the small one's rest": {capacity: 4, sessions: []*session{with(.5, 1), with(9, 1)}, want: []float64{.5, 3.5}},
		"a paused one":         {capacity: 4, sessions: []*session{{model: &kindModel{appetite: 9, weight: 1}, paused: true}, with(9, 1)}, want: []float64{0, 4}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			share(tt.sessions, tt.capacity)
			for i, s := range tt.sessions {
				if math.Abs(s.rate-tt.want[i]) > 1e-9 {
					t.Errorf("session %d has %.2f, want %.2f", i, s.rate, tt.want[i])
				}
			}
		})
	}
}

// Arrivals come at the rate and in the parts that the model says.
func TestArrivals(t *testing.T) {
	came := newArrivals(Config{Seed: 1, Workers: 1, Rate: 10_000, Minutes: 60})
	kinds, n, last := map[string]int{}, 0, 0.
	for s, more := came.next(); more; s, more = came.next() {
		if s.asked < last {
			t.Fatal("not in order")
		}
		last = s.asked
		kinds[s.model.kind]++
		n++
	}
	if rate := float64(n) / 60; math.Abs(rate-10_000) > 200 {
		t.Errorf("%.0f sessions a minute", rate)
	}
	sum := 0.
	for _, m := range kindModels() {
		sum += m.part
	}
	if math.Abs(sum-1) > 1e-9 {
		t.Errorf("the parts of the kinds make %.3f", sum)
	}
	if part := float64(kinds["image"]) / float64(n); math.Abs(part-.477) > .01 {
		t.Errorf("%.3f of the sessions are images", part)
	}
}

// A quantile beyond what is known is no smaller than the greatest that is.
func TestQuantile(t *testing.T) {
	sorted := []float64{1, 2, 3, 4}
	for _, tt := range []struct {
		missing int
		q, want float64
	}{{0, .5, 3}, {0, .99, 4}, {4, .5, 4}, {400, .5, 4}} {
		if got := quantile(slices.Clone(sorted), tt.missing, tt.q); got != tt.want {
			t.Errorf("quantile %.2f with %d missing: %.0f, want %.0f", tt.q, tt.missing, got, tt.want)
		}
	}
}
