package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// table prints a report as the section of docs/reliability.md that shows a run.
func table(w io.Writer, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("report %s: %w", path, err)
	}
	fmt.Fprintf(w, "`%s`\n%s, Kubernetes %s, Linux %s, %s, %d min.\n\n", r.Command, r.Version, r.Kubernetes, r.Kernel, r.Began, r.Seconds/60)
	fmt.Fprint(w, "| what | count |\n|---|---|\n")
	for _, line := range []struct {
		what  string
		count int
	}{
		{"faults injected", r.Faults}, {"sessions", r.Sessions}, {"byte-exact, with the right exit", r.ByteExact},
		{"honest failures", r.HonestFailures}, {"of these before the program began", r.FailedBeforeStart},
		{"shims killed, as the fault was", r.Killed}, {"lies", r.Lies}, {"hangs", r.Hangs}, {"orphans", r.Orphans},
		{"overlapping writers", r.Overlaps}, {"promises broken", r.Broken},
		{"not at their moment when the fault struck", r.Missed}, {"faults that could not be injected", r.Undone},
	} {
		fmt.Fprintf(w, "| %s | %d |\n", line.what, line.count)
	}
	fmt.Fprintf(w, "\nShim killed, all parts up, to the end of ffmpeg: median %d ms, worst %d ms of %d. Worst resume after the end of a fault: %d ms.\n\n",
		r.MedianKillMs, r.WorstKillMs, r.Kills, r.WorstResumeMs)
	fmt.Fprint(w, "| fault | expected | faults | sessions | exact | failed | killed | bad | kill | resume | failure |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	played := map[string]int{}
	for _, s := range r.Scenes {
		if s.Undone == "" {
			played[s.Fault]++
		}
	}
	for _, s := range r.byFault() {
		fmt.Fprintf(w, "| %s | %s | %d | %d | %d | %d | %d | %d | %s | %s | %s |\n", s.Fault, find(s.Fault).expect, played[s.Fault],
			s.Sessions, s.Exact, s.Failed, s.Killed, s.Bad, orDash(s.WorstKillMs), orDash(s.WorstResumeMs), orDash(s.WorstEndMs))
	}
	fmt.Fprint(w, "\nBy the moment at which the fault struck:\n\n| moment | sessions | exact | failed | killed | bad |\n|---|---|---|---|---|---|\n")
	for _, m := range []moment{queued, starting, first, mid, last, exited, beside, idle} {
		var sum Row
		for _, row := range r.Table {
			if row.Moment == m {
				sum.add(row)
			}
		}
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d |\n", m, sum.Sessions, sum.Exact, sum.Failed, sum.Killed, sum.Bad)
	}
	return nil
}

func orDash(n int64) string {
	if n == 0 {
		return "–"
	}
	return strings.TrimSpace(fmt.Sprintf("%d ms", n))
}
