package scale

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
)

// Window is how long fewer workers must have been enough before any goes.
const Window = 5 * time.Minute

// Demand is what a plan goes by, beside the class and its workers.
type Demand struct {
	Waiting int // sessions in the queue that want a warm worker of the class
	Peak    int // the most workers that were needed, or made, within Window
	// Unable is why Kubernetes runs no more of them. "": it does.
	Unable string
}

// Decision is how many warm workers a class should have.
type Decision struct {
	Replicas int
	// Go are the workers that go, all of them idle. Those without a node go unnamed:
	// Kubernetes removes them before any other.
	Go  []channels.WorkerState
	Why string // in words; "" when nothing changes
}

// Need is how many workers a class needs: those that have sessions, which cannot be
// moved, and enough for the sessions that wait.
func Need(c class.Class, workers []channels.WorkerState, waiting int) int {
	busy, sessions := 0, waiting
	for _, w := range workers {
		if n := w.Used + len(w.Paused); !w.Draining && n > 0 {
			busy++
			sessions += n
		}
	}
	return max(busy, (sessions+c.Slots-1)/max(1, c.Slots))
}

// Plan decides for one class, from its own workers. It reads its arguments only.
func Plan(c class.Class, workers []channels.WorkerState, d Demand) Decision {
	have := int(c.Replicas)
	stay := Decision{Replicas: have}
	if c.Scale == nil || !c.Usable {
		return stay
	}
	need := Need(c, workers, d.Waiting)
	switch more, fewer := c.Scale.Clamp(need), c.Scale.Clamp(max(need, d.Peak)); {
	case more > have && d.Unable != "" && have > 0:
		return stay // the ones that are wanted already get no place
	case more > have:
		return Decision{Replicas: more, Why: fmt.Sprintf("%d sessions wait, %d workers are needed", d.Waiting, need)}
	case fewer < have:
		return down(c, workers, fewer)
	}
	return stay
}

// down chooses who goes.
func down(c class.Class, workers []channels.WorkerState, to int) Decision {
	have := int(c.Replicas)
	unplaced := 0
	var idle []channels.WorkerState
	answer := 0
	for _, w := range workers {
		switch {
		case w.Draining:
		case w.Node == "":
			unplaced++
		case w.Ready:
			answer++
			if w.Used == 0 && len(w.Paused) == 0 {
				idle = append(idle, w)
			}
		}
	}
	if n := min(unplaced, have-to); n > 0 {
		return Decision{Replicas: have - n, Why: fmt.Sprintf("%d workers have no node and are not needed", n)}
	}
	if answer != have || len(idle) == 0 {
		return Decision{Replicas: have}
	}
	slices.SortFunc(idle, func(a, b channels.WorkerState) int {
		if d := a.Ended.Compare(b.Ended); d != 0 {
			return d
		}
		return strings.Compare(a.Pod, b.Pod)
	})
	idle = idle[:min(len(idle), have-to)]
	return Decision{Replicas: have - len(idle), Go: idle, Why: fmt.Sprintf("%d workers were enough for long", to)}
}
