package main

import (
	"maps"
	"slices"

	"github.com/ffpod/ffpod/scheduler/placement"
)

// Waits are the waits to the first byte of one sort of session, in seconds.
type Waits struct {
	Asked int     `json:"asked"`
	P50   float64 `json:"p50_seconds"`
	P99   float64 `json:"p99_seconds"`
	// Late is the part that waited for more than three seconds, or waits still.
	Late float64 `json:"late"`
	// Local is the part that ran at its caller.
	Local float64 `json:"local"`
}

// Result is how one contender did.
type Result struct {
	Name  string           `json:"name"`
	Waits map[string]Waits `json:"waits"` // by kind
	// Slots and Capacity are the mean parts in use.
	Slots    float64            `json:"slots_in_use"`
	Capacity map[string]float64 `json:"capacity_in_use"` // by class
	// Background is the part of the work that nobody watches (trickplay, subtitle,
	// loudness, keyframes) which was done by the end, of what was asked for.
	Background float64 `json:"background_done"`
	Pauses     int     `json:"pauses"`
	Left       int     `json:"still_waiting"`

	seconds     map[string][]float64
	minutes     [][]float64 // waits of playback by minute of asking
	came, local map[string]int
	late        map[string]int
	inUse       []float64 // part of the slots, at each report
	queue       []float64
	capacity    map[string][2]float64
	wanted      float64
	done        float64
}

const lateAfter = 3

func newResult(name string) *Result {
	return &Result{Name: name, Waits: map[string]Waits{}, Capacity: map[string]float64{}, seconds: map[string][]float64{},
		came: map[string]int{}, local: map[string]int{}, late: map[string]int{}, capacity: map[string][2]float64{}}
}

func background(kind string) bool {
	return kind != "image" && placement.Priority(kind) < placement.Priority("playback")
}

func (r *Result) asked(s *session) {
	r.came[s.model.kind]++
	if background(s.model.kind) {
		r.wanted += s.first + s.rest
	}
}

func (r *Result) firstByte(s *session, wait float64) {
	r.seconds[s.model.kind] = append(r.seconds[s.model.kind], wait)
	if wait > lateAfter {
		r.late[s.model.kind]++
	}
	if s.model.kind == "playback" {
		minute := int(s.asked / 60)
		for len(r.minutes) <= minute {
			r.minutes = append(r.minutes, nil)
		}
		r.minutes[minute] = append(r.minutes[minute], wait)
	}
}

func (r *Result) ranLocally(s *session, at float64) {
	s.over = true
	r.local[s.model.kind]++
	r.firstByte(s, at-s.asked+locally)
}

func (r *Result) ended(s *session, _ float64) {
	if background(s.model.kind) {
		r.done += s.first + s.rest
	}
}

func (r *Result) busy(class string, used, of float64) {
	c := r.capacity[class]
	r.capacity[class] = [2]float64{c[0] + used, c[1] + of}
}

func (r *Result) sample(_ float64, used, slots, waiting int) {
	r.inUse = append(r.inUse, float64(used)/float64(slots))
	r.queue = append(r.queue, float64(waiting))
}

// finish makes the figures. Who has no first byte yet has waited to the end.
func (r *Result) finish(w *world) {
	for kind, n := range r.came {
		all := r.seconds[kind]
		slices.Sort(all)
		missing := n - len(all)
		r.Waits[kind] = Waits{Asked: n, P50: quantile(all, missing, .5), P99: quantile(all, missing, .99),
			Late: float64(r.late[kind]+missing) / float64(n), Local: float64(r.local[kind]) / float64(n)}
	}
	for class, c := range r.capacity {
		r.Capacity[class] = c[0] / c[1]
	}
	r.Slots, r.Background, r.Left = mean(r.inUse), r.done/r.wanted, w.contender.waiting()
}

// quantile is that of sorted values beyond which there are more, unknown and not
// smaller: it is the greatest known one when it falls on them.
func quantile(sorted []float64, missing int, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted)+missing)))]
}

func mean(values []float64) float64 {
	sum := 0.
	for _, v := range values {
		sum += v
	}
	return sum / float64(max(1, len(values)))
}

// kindsOf are the kinds in a fixed order.
func kindsOf(r *Result) []string {
	order := slices.Collect(maps.Keys(r.Waits))
	slices.SortFunc(order, func(a, b string) int {
		if c := placement.Priority(b) - placement.Priority(a); c != 0 {
			return c
		}
		if a < b {
			return -1
		}
		return 1
	})
	return order
}
