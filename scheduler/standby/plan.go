package standby

import (
	"cmp"
	"slices"
	"time"

	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/job"
)

// The bounds of a standby's life.
const (
	// Window is how far back demand counts: a session that took a Job keeps one
	// standby in being for that long.
	Window = 10 * time.Minute
	// Age is how long a standby may wait: its image and its volumes are of then.
	Age = 6 * time.Hour
	// Unplaced is how long it may be without a node, Unready how long without an
	// answer, which includes the pull of an image.
	Unplaced, Unready = 10 * time.Second, 3 * time.Minute
	// Retry is when one is made again though nothing of ours has ended: others end,
	// too.
	Retry = 10 * time.Minute
)

// Demand is what a plan goes by, beside the class.
type Demand struct {
	Starts int // sessions that took a Job of the class, or a standby, within Window
	Jobs   int // Jobs of the class that hold its resources, standbys among them
	// Blocked says who waits for what a standby holds. "": nobody.
	Blocked string
	// Refused is when a standby of the class was last given up because it could not
	// run, Freed when anything of ours last ended. Zero: never.
	Refused, Freed time.Time
}

// Action is a step of a plan.
type Action struct {
	Make    bool        // one more; else Retire
	Standby job.Standby // to be retired
	// Refused: Kubernetes does not let it run.
	Refused bool
	Why     string // in words
}

// Plan says what is to be done for a class now. It reads its arguments only. jobs
// are the standbys of the class that are known, in any order; those that are taken
// or over are not touched.
func Plan(c class.Class, jobs []job.Standby, d Demand, now time.Time) []Action {
	var plan []Action
	retire := func(s job.Standby, refused bool, why string) {
		plan = append(plan, Action{Standby: s, Refused: refused, Why: why})
	}
	idle := slices.DeleteFunc(slices.Clone(jobs), func(s job.Standby) bool { return s.Taken || s.Over })
	// Whoever is to go first comes last: the one that answers stays, then the younger.
	slices.SortFunc(idle, func(a, b job.Standby) int {
		return cmp.Or(compare(b.Ready, a.Ready), b.Made.Compare(a.Made), cmp.Compare(a.Job, b.Job))
	})
	wanted, why := want(c, d)
	template := job.Fingerprint(c)
	kept, placing := 0, false
	for _, s := range idle {
		waited := now.Sub(s.Made)
		switch {
		case kept >= wanted:
			retire(s, false, why)
		case s.Template != template:
			retire(s, false, "the class has changed")
		case waited > Age:
			retire(s, false, "it is stale")
		case s.Node == "" && waited > Unplaced, !s.Ready && waited > Unready:
			retire(s, true, cmp.Or(s.Waits, "its worker does not answer"))
		default:
			kept++
			placing = placing || s.Node == ""
		}
	}
	// One at a time: whether there is room for a second is known when the first has a
	// node. What goes leaves its room later.
	room := d.Jobs < c.Jobs
	refused := d.Refused.After(d.Freed) && now.Sub(d.Refused) < Retry
	if kept < wanted && room && !placing && !refused && len(plan) == 0 {
		plan = append(plan, Action{Make: true, Why: why})
	}
	return plan
}

// want is how many there should be, and why.
func want(c class.Class, d Demand) (int, string) {
	switch n := c.Standby.Clamp(d.Starts); {
	case !c.Usable:
		return 0, "the class cannot be used"
	case c.Standby.Max == 0:
		return 0, "the class wants none"
	case d.Blocked != "":
		return 0, d.Blocked + " waits for what it holds"
	case n == c.Standby.Min:
		return n, "the class wants this many at least"
	case n == c.Standby.Max:
		return n, "the class wants this many at most"
	default:
		return n, "that many sessions took one lately"
	}
}

func compare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
