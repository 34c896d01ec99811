package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Report is the file that a run writes, anew after every scene: it is whole
// whenever the run ends.
type Report struct {
	Seed       uint64 `json:"seed"`
	Command    string `json:"command"`
	Version    string `json:"version"` // of the work tree
	Kubernetes string `json:"kubernetes"`
	Kernel     string `json:"kernel"`
	Began      string `json:"began"`
	Seconds    int64  `json:"seconds"`
	Planned    int    `json:"planned"`

	Faults         int `json:"faults"`
	Sessions       int `json:"sessions"`
	ByteExact      int `json:"byteExact"`
	HonestFailures int `json:"honestFailures"`
	Killed         int `json:"killed"` // the fault was to kill their shim
	Lies           int `json:"lies"`
	Hangs          int `json:"hangs"`
	Orphans        int `json:"orphans"`
	Overlaps       int `json:"overlaps"`
	Broken         int `json:"broken"` // sessions that had to survive, or to be told, and were not
	// FailedBeforeStart are honest failures of sessions without a process yet.
	FailedBeforeStart int `json:"failedBeforeStart"`
	Missed            int `json:"missed"` // sessions not at their moment when the fault struck
	Undone            int `json:"undone"` // faults that could not be injected

	// WorstKillMs: from SIGKILL to the shim to the end of its program, all parts up.
	WorstKillMs  int64 `json:"worstKillMs"`
	MedianKillMs int64 `json:"medianKillMs"`
	Kills        int   `json:"kills"`
	// WorstResumeMs: of surviving sessions, from the end of the fault to their next byte.
	WorstResumeMs int64 `json:"worstResumeMs"`
	// WorstGapMs: the longest silence of a surviving session.
	WorstGapMs     int64 `json:"worstGapMs"`
	WorstServiceMs int64 `json:"worstServiceMs"` // from the end of a fault until every class serves again

	Table  []Row   `json:"table"`
	Scenes []Scene `json:"scenes"`
}

// Row is one fault at one moment.
type Row struct {
	Fault    string `json:"fault"`
	Moment   moment `json:"moment"`
	Sessions int    `json:"sessions"`
	Exact    int    `json:"exact"`
	Failed   int    `json:"failed"`
	Killed   int    `json:"killed"`
	Bad      int    `json:"bad"` // lies, hangs, broken

	WorstKillMs   int64 `json:"worstKillMs,omitempty"`
	WorstResumeMs int64 `json:"worstResumeMs,omitempty"`
	WorstEndMs    int64 `json:"worstEndMs,omitempty"` // of failures, from the strike
}

// Scene is a scene of the plan that was played.
type Scene struct {
	Number    int       `json:"number"`
	Fault     string    `json:"fault"`
	At        string    `json:"at"`
	FaultMs   int64     `json:"faultMs"` // from the strike to the healing
	ServiceMs int64     `json:"serviceMs,omitempty"`
	Orphans   []string  `json:"orphans,omitempty"`
	Overlaps  []string  `json:"overlaps,omitempty"`
	Undone    string    `json:"undone,omitempty"`
	Sessions  []Session `json:"sessions"`
}

// Session is one session of a scene, judged.
type Session struct {
	Mark     string  `json:"mark"`
	Kind     kind    `json:"kind"`
	Moment   moment  `json:"moment"`
	Verdict  verdict `json:"verdict"`
	Broken   string  `json:"broken,omitempty"`
	Exit     string  `json:"exit"`
	Ms       int64   `json:"ms"`
	EndMs    int64   `json:"endMs"` // after the strike
	GapMs    int64   `json:"gapMs,omitempty"`
	ResumeMs int64   `json:"resumeMs,omitempty"`
	KillMs   int64   `json:"killMs,omitempty"`
	Missed   string  `json:"missed,omitempty"`
	Why      string  `json:"why,omitempty"`
	Said     string  `json:"said,omitempty"`
}

func (s Scene) bad() bool {
	return len(s.Orphans)+len(s.Overlaps) > 0 || slices.ContainsFunc(s.Sessions, func(x Session) bool { return x.Broken != "" })
}

// book keeps the report and its file.
type book struct {
	mu    sync.Mutex
	path  string
	began time.Time
	kills []int64
	Report
}

// add counts a scene and writes the file.
func (b *book) add(s Scene) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Scenes = append(b.Scenes, s)
	if s.Undone != "" {
		b.Undone++
	} else {
		b.Faults++
	}
	b.Orphans += len(s.Orphans)
	b.Overlaps += len(s.Overlaps)
	b.WorstServiceMs = max(b.WorstServiceMs, s.ServiceMs)
	f := find(s.Fault)
	for _, x := range s.Sessions {
		b.count(f, x)
	}
	b.Seconds = int64(time.Since(b.began).Seconds())
	return b.write()
}

func (b *book) count(f fault, x Session) {
	b.Sessions++
	row := b.row(f.name, x.Moment)
	row.Sessions++
	switch x.Verdict {
	case exact:
		b.ByteExact++
		row.Exact++
	case failed:
		b.HonestFailures++
		row.Failed++
		if !x.Moment.started() {
			b.FailedBeforeStart++
		}
	case killed:
		b.Killed++
		row.Killed++
	case lie:
		b.Lies++
	case hang:
		b.Hangs++
	}
	if x.Broken != "" {
		row.Bad++
		if x.Verdict != lie && x.Verdict != hang {
			b.Broken++
		}
	}
	if x.Missed != "" {
		b.Missed++
	}
	row.WorstKillMs, row.WorstResumeMs = max(row.WorstKillMs, x.KillMs), max(row.WorstResumeMs, x.ResumeMs)
	if x.Verdict == failed {
		row.WorstEndMs = max(row.WorstEndMs, x.EndMs)
	}
	if f.orphan == 0 && f.scope == ofSession && x.KillMs > 0 {
		b.kills = append(b.kills, x.KillMs)
		slices.Sort(b.kills)
		b.Kills, b.MedianKillMs, b.WorstKillMs = len(b.kills), b.kills[len(b.kills)/2], b.kills[len(b.kills)-1]
	}
	b.WorstResumeMs, b.WorstGapMs = max(b.WorstResumeMs, x.ResumeMs), max(b.WorstGapMs, x.GapMs)
}

func (b *book) row(fault string, m moment) *Row {
	for i := range b.Table {
		if b.Table[i].Fault == fault && b.Table[i].Moment == m {
			return &b.Table[i]
		}
	}
	b.Table = append(b.Table, Row{Fault: fault, Moment: m})
	return &b.Table[len(b.Table)-1]
}

// write replaces the file at once.
func (b *book) write() error {
	sorted := b.Report
	sorted.Table = slices.Clone(b.Table)
	slices.SortFunc(sorted.Table, func(x, y Row) int {
		return cmp.Or(cmp.Compare(x.Fault, y.Fault), cmp.Compare(x.Moment, y.Moment))
	})
	data, err := json.MarshalIndent(sorted, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(b.path+".new", append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(b.path+".new", b.path)
}

// good says whether nothing happened that must not.
func (r Report) good() bool {
	return r.Lies+r.Hangs+r.Orphans+r.Overlaps+r.Broken+r.Undone == 0 && r.Faults == r.Planned
}

// print shows the sums and what was bad.
func (r Report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d of %d faults in %d s, %d sessions: %d byte-exact, %d honest failures (%d before the start), %d killed\n",
		r.Faults, r.Planned, r.Seconds, r.Sessions, r.ByteExact, r.HonestFailures, r.FailedBeforeStart, r.Killed)
	fmt.Fprintf(w, "lies %d, hangs %d, orphans %d, overlapping writers %d, broken promises %d; not injected %d, not at their moment %d\n",
		r.Lies, r.Hangs, r.Orphans, r.Overlaps, r.Broken, r.Undone, r.Missed)
	fmt.Fprintf(w, "kill %d ms median, %d ms worst of %d; worst resume %d ms, silence %d ms, service again %d ms\n",
		r.MedianKillMs, r.WorstKillMs, r.Kills, r.WorstResumeMs, r.WorstGapMs, r.WorstServiceMs)
	fmt.Fprintf(w, "\n%-28s %8s %6s %6s %6s %4s %8s %8s %8s\n", "fault", "sessions", "exact", "failed", "killed", "bad", "kill", "resume", "failure")
	for _, s := range r.byFault() {
		fmt.Fprintf(w, "%-28s %8d %6d %6d %6d %4d %5d ms %5d ms %5d ms\n", s.Fault, s.Sessions, s.Exact, s.Failed, s.Killed, s.Bad,
			s.WorstKillMs, s.WorstResumeMs, s.WorstEndMs)
	}
}

// byFault sums the table's moments up.
func (r Report) byFault() []*Row {
	sums := map[string]*Row{}
	var all []*Row
	for _, row := range r.Table {
		if sums[row.Fault] == nil {
			sums[row.Fault] = &Row{Fault: row.Fault}
			all = append(all, sums[row.Fault])
		}
		sums[row.Fault].add(row)
	}
	slices.SortFunc(all, func(a, b *Row) int { return cmp.Compare(a.Fault, b.Fault) })
	return all
}

// add sums counts up and keeps the worst of times.
func (r *Row) add(o Row) {
	r.Sessions, r.Exact, r.Failed, r.Killed, r.Bad = r.Sessions+o.Sessions, r.Exact+o.Exact, r.Failed+o.Failed, r.Killed+o.Killed, r.Bad+o.Bad
	r.WorstKillMs, r.WorstResumeMs = max(r.WorstKillMs, o.WorstKillMs), max(r.WorstResumeMs, o.WorstResumeMs)
	r.WorstEndMs = max(r.WorstEndMs, o.WorstEndMs)
}
