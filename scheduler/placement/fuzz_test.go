package placement

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// FuzzDecide looks for a snapshot, a request and a policy whose decision breaks a
// rule.
func FuzzDecide(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		rnd := rand.New(rand.NewPCG(a, b))
		s, r, p := anySnapshot(rnd), anyRequest(rnd), anyPolicy(rnd)
		round := NewRound(s)
		for range 8 { // one after the other, on what is left
			d, left := round.Decide(r, p, now), left(round)
			if problem := violates(left, r, p, d); problem != "" {
				t.Fatalf("%s: %+v\nsnapshot %+v\nrequest %+v policy %s", problem, d, left, r, p)
			}
			round.Take(d)
			r = anyRequest(rnd)
		}
	})
}

// left is what a round has left, as a snapshot.
func left(b *Round) Snapshot {
	s := b.s
	s.Callers = maps.Clone(s.Callers)
	for c, n := range b.callers {
		s.Callers[c] += n
	}
	return s
}
