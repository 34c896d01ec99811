package scale

import "time"

// peaks remembers the largest of what was seen within Window.
type peaks struct {
	seen []sample // falling values, rising times
	last int      // replicas when last looked at
}

type sample struct {
	at time.Time
	n  int
}

// add takes what is needed now. Workers that somebody has just made count as needed.
func (p *peaks) add(need, replicas int, now time.Time) {
	if replicas > p.last {
		need = max(need, replicas)
	}
	p.last = replicas
	for len(p.seen) > 0 && p.seen[len(p.seen)-1].n <= need {
		p.seen = p.seen[:len(p.seen)-1]
	}
	p.seen = append(p.seen, sample{now, need})
}

// most forgets what is too old.
func (p *peaks) most(now time.Time, window time.Duration) int {
	for len(p.seen) > 1 && now.Sub(p.seen[0].at) > window {
		p.seen = p.seen[1:]
	}
	if len(p.seen) == 0 {
		return 0
	}
	return p.seen[0].n
}
