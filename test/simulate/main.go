// Command simulate plays an evening on a large cluster that is not there: sessions
// come as Jellyfin's viewers and scans would bring them, and the real code of
// scheduler/placement places them. Round-robin, random and least-connections place
// the same sessions on the same workers. It prints and writes how long each let
// them wait for the first byte. The same seed gives the same figures.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errs io.Writer) int {
	cfg := Config{}
	flags := flag.NewFlagSet("simulate", flag.ContinueOnError)
	flags.SetOutput(errs)
	flags.Uint64Var(&cfg.Seed, "seed", 1, "`number` from which all chance follows")
	flags.IntVar(&cfg.Workers, "workers", 1000, "how many workers")
	flags.Float64Var(&cfg.Rate, "rate", 10_000, "sessions per minute, the evening's mean")
	flags.Float64Var(&cfg.Minutes, "minutes", 180, "how long the evening is")
	file := flags.String("o", "", "write the figures to this `file` as JSON")
	docs := flags.String("docs", "", "write the section and the plots of docs/scaling.md in this `directory`")
	if flags.Parse(args) != nil {
		return 2
	}
	report := simulate(cfg, func(r *Result, took time.Duration) {
		fmt.Fprintf(errs, "%s: %s\n", r.Name, took.Round(time.Second))
	})
	fmt.Fprint(out, report.table())
	if err := report.write(*file, *docs); err != nil {
		fmt.Fprintln(errs, "simulate:", err)
		return 1
	}
	return 0
}

// Report is all contenders' evening.
type Report struct {
	Config  Config    `json:"config"`
	Results []*Result `json:"results"`
}

// simulate lets every contender have the same evening.
func simulate(cfg Config, told func(*Result, time.Duration)) Report {
	report := Report{Config: cfg}
	for _, c := range contenders(cfg.Seed) {
		begun := time.Now()
		r := newWorld(cfg, c).run()
		told(r, time.Since(begun))
		report.Results = append(report.Results, r)
	}
	return report
}

func (r Report) write(file, docs string) error {
	if file != "" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	if docs == "" {
		return nil
	}
	return r.document(docs)
}
