package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// row is one figure beside its baseline.
type row struct {
	key      string // in the JSON object
	what     string
	unit     string // of baseline and ours
	baseline float64
	ours     float64
	value    float64 // difference or ratio; NaN baseline: ours alone
	ratio    bool    // value is a ratio
	goal     goal
	n        int
	also     map[string]float64 // further numbers for the JSON object
}

// goal is a bound on a row's value; the zero goal is none.
type goal struct {
	bound, stretch float64
	atLeast        bool
}

func (g goal) String() string {
	if g.bound == 0 {
		return "-"
	}
	sign := "≤"
	if g.atLeast {
		sign = "≥"
	}
	text := fmt.Sprintf("%s %g", sign, g.bound)
	if g.stretch != 0 {
		text += fmt.Sprintf(", stretch %g", g.stretch)
	}
	return text
}

// verdict says which of the bounds was reached.
func (g goal) verdict(v float64) string {
	reached := func(bound float64) bool {
		if g.atLeast {
			return v >= bound
		}
		return v <= bound
	}
	switch {
	case g.bound == 0:
		return ""
	case g.stretch != 0 && reached(g.stretch):
		return "stretch"
	case reached(g.bound):
		return "yes"
	}
	return "NO"
}

func (r row) difference() string {
	switch {
	case r.ratio:
		return fmt.Sprintf("%.2f×", r.value)
	case math.IsNaN(r.baseline):
		return ""
	}
	return fmt.Sprintf("%+.2f %s", r.value, r.unit)
}

func quantity(v float64, unit string) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v >= 100:
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	return fmt.Sprintf("%.2f %s", v, unit)
}

func printTable(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nWHAT\tBASELINE\tOURS\tDIFFERENCE\tGOAL\tREACHED\tN")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", r.what, quantity(r.baseline, r.unit), quantity(r.ours, r.unit), r.difference(), r.goal, r.goal.verdict(r.value), r.n)
	}
	t.Flush()
}

// figures flattens the rows.
func figures(rows []row, m machine, took time.Duration) map[string]float64 {
	all := map[string]float64{
		"machine_cores": float64(m.cores), "machine_load_before": m.before, "machine_load_after": load(), "bench_seconds": took.Seconds(),
	}
	for _, r := range rows {
		all[r.key], all[r.key+"_ours"], all[r.key+"_n"] = r.value, r.ours, float64(r.n)
		if !math.IsNaN(r.baseline) {
			all[r.key+"_baseline"] = r.baseline
		}
		for k, v := range r.also {
			all[k] = v
		}
	}
	return all
}

func writeFigures(path string, all map[string]float64) error {
	for k, v := range all {
		all[k] = math.Round(v*1e4) / 1e4
	}
	b, err := json.MarshalIndent(all, "", "  ") // keys are sorted
	if err != nil {
		return fmt.Errorf("figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Printf("\n%d figures in %s\n", len(all), path)
	return nil
}

// machine is where the figures come from.
type machine struct {
	text   string
	cores  int
	before float64 // load average when it began
}

func (m machine) print(w io.Writer) {
	fmt.Fprintln(w, m.text)
	if m.before > float64(m.cores)/2 {
		fmt.Fprintf(w, "the machine is busy (load %.1f on %d cores): differences are still paired, absolute times are not worth much\n", m.before, m.cores)
	}
}

// load is the machine's load average of one minute, 0 where there is none.
func load() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	var v float64
	_, _ = fmt.Sscan(strings.Fields(string(b))[0], &v)
	return v
}

// percentile is the nearest rank.
func percentile(samples []float64, p float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(samples))
	return s[max(0, int(math.Ceil(p/100*float64(len(s))))-1)]
}

func median(samples []float64) float64 {
	if n := len(samples); n > 0 && n%2 == 0 {
		s := slices.Sorted(slices.Values(samples))
		return (s[n/2-1] + s[n/2]) / 2
	}
	return percentile(samples, 50)
}

// paired combines what was measured in the same round.
func paired(ours, baseline []float64, f func(ours, baseline float64) float64) []float64 {
	all := make([]float64, len(ours))
	for i := range ours {
		all[i] = f(ours[i], baseline[i])
	}
	return all
}

func minus(a, b float64) float64 { return a - b }
func over(a, b float64) float64  { return a / b }

// difference makes a row of milliseconds: the median over rounds of ours minus
// baseline.
func difference(key, what string, ours, baseline []float64, g goal) row {
	d := paired(ours, baseline, minus)
	return row{key: key + "_p50", what: what, unit: "ms", baseline: median(baseline), ours: median(ours), value: median(d), goal: g, n: len(ours),
		also: map[string]float64{key + "_p99": percentile(d, 99)}}
}

// quotient makes a row of the median over rounds of ours by baseline.
func quotient(key, what, unit string, ours, baseline []float64, g goal) row {
	return row{key: key, what: what, unit: unit, baseline: median(baseline), ours: median(ours), value: median(paired(ours, baseline, over)), ratio: true, goal: g, n: len(ours)}
}

// alone makes a row without a baseline.
func alone(key, what string, value float64, g goal, n int) row {
	return row{key: key, what: what, unit: "ms", baseline: math.NaN(), ours: value, value: value, goal: g, n: n}
}
