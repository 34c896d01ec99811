package main

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for name, c := range map[string]struct{ got, want float64 }{
		"p99 of 1..100":  {percentile(hundred, 99), 99},
		"median, even":   {median(hundred), 50.5},
		"median, odd":    {median([]float64{9, 1, 5}), 5},
		"one sample":     {percentile([]float64{7}, 99), 7},
		"paired by turn": {median(paired([]float64{11, 22, 33}, []float64{10, 20, 30}, minus)), 2},
	} {
		if c.got != c.want {
			t.Errorf("%s: %g, want %g", name, c.got, c.want)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

func TestVerdict(t *testing.T) {
	most, least := goal{bound: 6, stretch: 2.5}, goal{bound: 0.6, stretch: 0.8, atLeast: true}
	for name, c := range map[string]struct {
		g    goal
		v    float64
		want string
	}{
		"at most, missed":   {most, 6.1, "NO"},
		"at most, reached":  {most, 6, "yes"},
		"at most, stretch":  {most, 2, "stretch"},
		"at least, missed":  {least, 0.55, "NO"},
		"at least, reached": {least, 0.7, "yes"},
		"at least, stretch": {least, 0.9, "stretch"},
		"no goal":           {goal{}, 1, ""},
	} {
		if got := c.g.verdict(c.v); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestInterleaveTakesTurns(t *testing.T) {
	var order strings.Builder
	m := func(name byte, v float64) measurement {
		return func(context.Context) (float64, error) { order.WriteByte(name); return v, nil }
	}
	got, err := interleave(t.Context(), 2, m('a', 1), m('b', 2))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]float64{{1, 1}, {2, 2}}, got); diff != "" {
		t.Error(diff)
	}
	if order.String() != "abbaab" { // the first round is the warm-up
		t.Errorf("in the order %s", &order)
	}
}

func TestFiguresAreFlat(t *testing.T) {
	rows := []row{difference("x_ms", "x", []float64{3}, []float64{1}, goal{}), alone("y_ms_p99", "y", 4, goal{}, 9)}
	got := figures(rows, machine{cores: 2}, time.Second)
	for k, want := range map[string]float64{"x_ms_p50": 2, "x_ms_p50_baseline": 1, "x_ms_p50_ours": 3, "x_ms_p50_n": 1, "x_ms_p99": 2, "y_ms_p99": 4, "y_ms_p99_n": 9} {
		if got[k] != want {
			t.Errorf("%s is %g, want %g", k, got[k], want)
		}
	}
	if _, there := got["y_ms_p99_baseline"]; there {
		t.Error("a row without a baseline has one")
	}
}
