package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// table is what a person reads.
func (r Report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %d workers, %.0f sessions a minute for %.0f minutes\n", r.Config.Seed, r.Config.Workers, r.Config.Rate, r.Config.Minutes)
	b.WriteString(r.markdown())
	return b.String()
}

// markdown is the table of waits, and that of the rest.
func (r Report) markdown() string {
	var b strings.Builder
	b.WriteString("\n| wait to the first byte, p50 / p99 |")
	for _, x := range r.Results {
		fmt.Fprintf(&b, " %s |", x.Name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(r.Results)) + "\n")
	for _, kind := range kindsOf(r.Results[0]) {
		fmt.Fprintf(&b, "| %s |", kind)
		for _, x := range r.Results {
			fmt.Fprintf(&b, " %s / %s |", seconds(x.Waits[kind].P50), seconds(x.Waits[kind].P99))
		}
		b.WriteString("\n")
	}
	row := func(title string, value func(*Result) string) {
		fmt.Fprintf(&b, "| %s |", title)
		for _, x := range r.Results {
			fmt.Fprintf(&b, " %s |", value(x))
		}
		b.WriteString("\n")
	}
	percent := func(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }
	row("playback later than 3 s", func(x *Result) string { return percent(x.Waits["playback"].Late) })
	row("images that ran locally", func(x *Result) string { return percent(x.Waits["image"].Local) })
	row("slots in use, mean", func(x *Result) string { return percent(x.Slots) })
	row("cores / NVIDIA GPUs in use, mean", func(x *Result) string { return percent(x.Capacity["cpu"]) + " / " + percent(x.Capacity["nvidia"]) })
	row("background work done", func(x *Result) string { return percent(x.Background) })
	row("pauses", func(x *Result) string { return fmt.Sprint(x.Pauses) })
	return b.String()
}

func seconds(v float64) string {
	switch {
	case v >= 99.5:
		return fmt.Sprintf("%.0f s", v)
	case v >= 9.95:
		return fmt.Sprintf("%.1f s", v)
	}
	return fmt.Sprintf("%.2f s", v)
}

// Where the section of docs/scaling.md begins and ends.
const (
	sectionBegins = "<!-- make simulate: begin -->"
	sectionEnds   = "<!-- make simulate: end -->"
)

// document writes the plots, and the table between its marks.
func (r Report) document(docs string) error {
	if err := os.MkdirAll(filepath.Join(docs, "img"), 0o755); err != nil {
		return err
	}
	for name, svg := range r.plots() {
		if err := os.WriteFile(filepath.Join(docs, "img", name), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	page := filepath.Join(docs, "scaling.md")
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), sectionBegins)
	_, after, ends := strings.Cut(rest, sectionEnds)
	if !found || !ends {
		return fmt.Errorf("write the section of %s: it has no %s and %s", page, sectionBegins, sectionEnds)
	}
	section := fmt.Sprintf("%s\nSeed %d, %d workers, %.0f sessions a minute for %.0f minutes: `go run ./test/simulate -seed %d -workers %d -rate %.0f -minutes %.0f`.\n%s%s",
		sectionBegins, r.Config.Seed, r.Config.Workers, r.Config.Rate, r.Config.Minutes, r.Config.Seed, r.Config.Workers, r.Config.Rate, r.Config.Minutes, r.markdown(), sectionEnds)
	return os.WriteFile(page, []byte(before+section+after), 0o644)
}
