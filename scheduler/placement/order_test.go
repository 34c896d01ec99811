package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestPriority(t *testing.T) {
	want := [][]string{{"probe"}, {"playback", "live"}, {"image", "trickplay"}, {"subtitle", "other", "never heard of"}, {"loudness", "keyframes"}}
	for i, same := range want {
		for _, k := range same {
			if Priority(k) != Priority(same[0]) || i > 0 && Priority(k) >= Priority(want[i-1][0]) {
				t.Errorf("priority of %s is %d", k, Priority(k))
			}
		}
	}
	for _, k := range sorts {
		if Pausable(k) != (k == "loudness" || k == "keyframes") {
			t.Errorf("kind %s pausable: %v", k, Pausable(k))
		}
	}
}

func waits(kind, caller string, ago time.Duration) Waiting {
	return Waiting{Kind: kind, Caller: caller, Asked: now.Add(-ago)}
}

func TestOrder(t *testing.T) {
	tests := map[string]struct {
		waiting []Waiting
		held    Held
		want    []int
	}{
		"by kind": {
			waiting: []Waiting{waits("loudness", "a", 5), waits("subtitle", "a", 4), waits("image", "a", 3), waits("live", "a", 2), waits("probe", "a", 1)},
			want:    []int{4, 3, 2, 1, 0},
		},
		"by time": {
			waiting: []Waiting{waits("image", "a", 1), waits("trickplay", "a", 3), waits("image", "a", 2)}, want: []int{1, 2, 0},
		},
		"the caller with fewer": {
			waiting: []Waiting{waits("playback", "a", 2), waits("playback", "b", 1)}, held: Held{Callers: map[string]int{"a": 1}, Total: 1}, want: []int{1, 0},
		},
		"callers take turns": {
			waiting: []Waiting{waits("image", "a", 9), waits("image", "a", 8), waits("image", "a", 7), waits("image", "b", 2), waits("image", "b", 1)},
			want:    []int{0, 3, 1, 4, 2},
		},
		"a starved one of the same priority": {
			waiting: []Waiting{waits("image", "b", 1), waits("image", "a", Patience)}, held: Held{Callers: map[string]int{"a": 9}, Low: 9, Total: 9}, want: []int{1, 0},
		},
		"a starved one of a lower priority, up to its part": {
			waiting: []Waiting{waits("playback", "a", 1), waits("loudness", "b", Patience), waits("loudness", "b", 2*Patience)},
			held:    Held{Total: 6}, want: []int{2, 0, 1},
		},
		"and not beyond": {
			waiting: []Waiting{waits("playback", "a", 1), waits("loudness", "b", Patience)}, held: Held{Low: 2, Total: 8}, want: []int{0, 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := slices.Collect(Order(tt.waiting, tt.held, now)); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestOrderProperties(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for range 3000 {
		var waiting []Waiting
		for range rnd.IntN(30) {
			waiting = append(waiting, waits(sorts[rnd.IntN(len(sorts))], fmt.Sprint(rnd.IntN(4)), time.Duration(rnd.IntN(90))*time.Second))
		}
		held := Held{Callers: map[string]int{"0": rnd.IntN(5), "1": rnd.IntN(5)}, Total: rnd.IntN(40)}
		held.Low = rnd.IntN(held.Total + 1)
		order := slices.Collect(Order(waiting, held, now))
		if sorted := slices.Sorted(slices.Values(order)); len(sorted) != len(waiting) || len(slices.Compact(sorted)) != len(waiting) {
			t.Fatalf("%v is not an order of %d", order, len(waiting))
		}
		running := map[string]int{"0": held.Callers["0"], "1": held.Callers["1"]}
		for at, i := range order {
			for _, j := range order[at+1:] {
				if problem := overtakes(waiting[i], waiting[j], running); problem != "" {
					t.Fatalf("%s: %+v before %+v\nin %+v, %+v", problem, waiting[i], waiting[j], waiting, held)
				}
			}
			running[waiting[i].Caller]++
		}
	}
}

// overtakes is what is wrong with x being served before y.
func overtakes(x, y Waiting, running map[string]int) string {
	patient := func(w Waiting) bool { return now.Sub(w.Asked) >= traitsOf(w.Kind).patience() }
	switch p, q := Priority(x.Kind), Priority(y.Kind); {
	case p < q && !patient(x):
		return "a lower kind"
	case p < q && p >= Priority("playback"):
		return "a lower kind, of those that need no help"
	case p != q:
	case patient(y) && !patient(x):
		return "one that is not starved before one that is"
	case patient(y) && y.Asked.Before(x.Asked):
		return "a starved one before an older one"
	case !patient(x) && running[x.Caller] > running[y.Caller]:
		return "the caller that has more"
	case !patient(x) && running[x.Caller] == running[y.Caller] && y.Asked.Before(x.Asked):
		return "the younger one"
	}
	return ""
}

// However much of a higher priority comes: who has waited for Patience is served
// soon.
func TestNobodyStarves(t *testing.T) {
	const slots = 16
	rnd := rand.New(rand.NewPCG(8, 8))
	waiting := []Waiting{{Kind: "loudness", Caller: "meek", Asked: now}, {Kind: "subtitle", Caller: "meek", Asked: now}}
	held := Held{Callers: map[string]int{"loud": slots}, Total: slots}
	running := make([]Waiting, slots)
	for i := range running {
		running[i] = Waiting{Kind: "playback", Caller: "loud"}
	}
	for second := 1; ; second++ {
		at := now.Add(time.Duration(second) * time.Second)
		if at.Sub(now) > Patience+4*time.Second {
			t.Fatalf("still waiting: %+v", waiting[:2])
		}
		waiting = append(waiting, Waiting{Kind: "playback", Caller: "loud", Asked: at}, Waiting{Kind: "playback", Caller: "loud", Asked: at})
		out := rnd.IntN(slots) // one slot a second becomes free
		held.Callers[running[out].Caller]--
		if Priority(running[out].Kind) < Priority("playback") {
			held.Low--
		}
		held.Total--
		i := slices.Collect(Order(waiting, held, at))[0]
		running[out] = waiting[i]
		held.Callers[running[out].Caller]++
		held.Total++
		if Priority(running[out].Kind) < Priority("playback") {
			held.Low++
		}
		waiting = slices.Delete(waiting, i, i+1)
		if !slices.ContainsFunc(waiting, func(w Waiting) bool { return w.Caller == "meek" }) {
			return
		}
	}
}
