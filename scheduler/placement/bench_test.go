package placement

import (
	"fmt"
	"testing"
	"time"
)

// many is a cluster of n workers in four classes, half full.
func many(n int) Snapshot {
	s := Snapshot{Viewers: map[string]string{}, Classes: []Class{{Name: "cpu", Cost: 1}, {Name: "nvidia", Cost: 9, Devices: devices[1]},
		{Name: "intel", Cost: 5, Devices: devices[2]}, {Name: "amd", Cost: 5, Devices: devices[3]}}}
	for i := range n {
		c := s.Classes[0].Name
		if i%4 == 3 {
			c = s.Classes[1+i/4%3].Name
		}
		s.Workers = append(s.Workers, Worker{Class: c, Pod: fmt.Sprintf("%s-%04d", c, i), Nonce: "n", Node: fmt.Sprintf("node-%d", i/2), Slots: 4, Used: i % 4,
			Ready: true, Can: gpu, Load: Load{Known: true, CPU: i * 7919 % 1000}})
	}
	return s
}

var playback = Request{Kind: "playback", Needs: []string{"encoder:libx264"}, Caller: "jf", Viewer: "v"}

// BenchmarkDecide is one decision on a fresh snapshot: cost by the number of
// workers.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		s := many(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if d := Decide(s, playback, WarmThenJob, now); d.Verdict != Warm {
					b.Fatal(d)
				}
			}
		})
	}
}

// BenchmarkDecideRewritten is one of a session that three of four classes would run
// rewritten.
func BenchmarkDecideRewritten(b *testing.B) {
	s := many(1000)
	r := Request{Kind: "playback", Needs: h264, Hardware: []string{"nvidia"},
		Alternatives: map[string]Alternative{"cpu": asCPU, "intel": asQSV, "amd": {Refused: "no"}}}
	for b.Loop() {
		if d := Decide(s, r, WarmThenJob, now); d.Verdict != Warm {
			b.Fatal(d)
		}
	}
}

// BenchmarkRound is a walk of the queue that grants 1,000 sessions on 1,000
// workers.
func BenchmarkRound(b *testing.B) {
	s := many(1000)
	for i := range s.Workers {
		s.Workers[i].Used, s.Workers[i].Slots = 0, 8
	}
	for b.Loop() {
		r := NewRound(s)
		for range 1000 {
			d := r.Decide(playback, WarmThenJob, now)
			if d.Verdict != Warm {
				b.Fatal(d)
			}
			r.Take(d)
		}
	}
}

// The cost of a decision grows no worse than linearly. Only times of the same
// moment are compared, and the fastest of several.
func TestCostGrowsLinearly(t *testing.T) {
	fastest := func(n int) time.Duration {
		s, best := many(n), time.Hour
		for range 20 {
			begun := time.Now()
			Decide(s, playback, WarmThenJob, now)
			best = min(best, time.Since(begun))
		}
		return best
	}
	for try := 1; ; try++ {
		small, large := fastest(1000), fastest(8000)
		if large <= 3*8*small {
			return
		}
		if try == 3 {
			t.Fatalf("1,000 workers %s, 8,000 workers %s", small, large)
		}
	}
}
