package standby

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/job"
)

var now = time.Unix(1_800_000_000, 0)

func cpu(least, most int) class.Class {
	c := class.Class{Name: "cpu", Deployment: "ffpod-cpu", Jobs: 4, Usable: true, Standby: class.Bounds{Min: least, Max: most}}
	c.Template.Spec.Containers = []corev1.Container{{Name: "worker", Image: "one"}}
	return c
}

// ready is a standby that can be taken.
func ready(name string, age time.Duration, changes ...func(*job.Standby)) job.Standby {
	s := job.Standby{Class: "cpu", Job: name, Template: job.Fingerprint(cpu(0, 1)), Made: now.Add(-age), Pod: name + "-0", Node: "n1", Nonce: "b", Ready: true}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func starting(s *job.Standby) { s.Ready, s.Nonce = false, "" }
func unplaced(s *job.Standby) {
	starting(s)
	s.Node, s.Waits = "", "Unschedulable: 0/1 nodes are available"
}

func TestPlan(t *testing.T) {
	tests := map[string]struct {
		class class.Class
		jobs  []job.Standby
		d     Demand
		want  []string
	}{
		"none are wanted":                    {cpu(0, 0), nil, Demand{Starts: 9}, nil},
		"the first":                          {cpu(1, 1), nil, Demand{}, []string{"make: the class wants this many at least"}},
		"no demand":                          {cpu(0, 2), nil, Demand{}, nil},
		"demand":                             {cpu(0, 3), nil, Demand{Starts: 2}, []string{"make: that many sessions took one lately"}},
		"demand above the bound":             {cpu(0, 1), []job.Standby{ready("a", time.Minute)}, Demand{Starts: 5, Jobs: 1}, nil},
		"one at a time":                      {cpu(2, 2), []job.Standby{ready("a", time.Second, unplaced)}, Demand{Jobs: 1}, nil},
		"the next when the first has a node": {cpu(2, 2), []job.Standby{ready("a", time.Second, starting)}, Demand{Jobs: 1}, []string{"make: the class wants this many at least"}},
		"a taken one is replaced":            {cpu(1, 1), []job.Standby{ready("a", time.Minute, func(s *job.Standby) { s.Taken = true })}, Demand{Jobs: 1}, []string{"make: the class wants this many at least"}},
		"as many Jobs as there may be":       {cpu(2, 2), []job.Standby{ready("a", time.Minute)}, Demand{Jobs: 4}, nil},
		"no node": {cpu(1, 1), []job.Standby{ready("a", 11*time.Second, unplaced)}, Demand{Jobs: 1},
			[]string{"refused a: Unschedulable: 0/1 nodes are available"}},
		"refused, and nothing has ended": {cpu(1, 1), nil, Demand{Refused: now.Add(-time.Minute), Freed: now.Add(-2 * time.Minute)}, nil},
		"refused, and something ended":   {cpu(1, 1), nil, Demand{Refused: now.Add(-2 * time.Minute), Freed: now.Add(-time.Minute)}, []string{"make: the class wants this many at least"}},
		"refused long ago":               {cpu(1, 1), nil, Demand{Refused: now.Add(-Retry)}, []string{"make: the class wants this many at least"}},
		"an image that does not come": {cpu(1, 1), []job.Standby{ready("a", 4*time.Minute, starting, func(s *job.Standby) { s.Waits = "ImagePullBackOff" })}, Demand{Jobs: 1},
			[]string{"refused a: ImagePullBackOff"}},
		"no answer":     {cpu(1, 1), []job.Standby{ready("a", 4*time.Minute, starting)}, Demand{Jobs: 1}, []string{"refused a: its worker does not answer"}},
		"still pulling": {cpu(1, 1), []job.Standby{ready("a", 2*time.Minute, starting)}, Demand{Jobs: 1}, nil},
		"stale":         {cpu(1, 1), []job.Standby{ready("a", 7*time.Hour)}, Demand{Jobs: 1}, []string{"retire a: it is stale"}},
		"the class has changed": {cpu(1, 1), []job.Standby{ready("a", time.Minute, func(s *job.Standby) { s.Template = "older" })}, Demand{Jobs: 1},
			[]string{"retire a: the class has changed"}},
		"the class has changed, but it is taken": {cpu(1, 1), []job.Standby{ready("a", time.Minute, func(s *job.Standby) { s.Template, s.Taken = "older", true })}, Demand{Jobs: 4}, nil},
		"less demand: who does not answer goes, then the oldest": {cpu(1, 3), []job.Standby{ready("old", 3*time.Minute), ready("new", time.Minute), ready("b", time.Second, starting)}, Demand{Jobs: 3},
			[]string{"retire old: the class wants this many at least", "retire b: the class wants this many at least"}},
		"somebody waits for its place": {cpu(2, 2), []job.Standby{ready("a", time.Minute)}, Demand{Jobs: 2, Blocked: "a worker of class gpu"},
			[]string{"retire a: a worker of class gpu waits for what it holds"}},
		"what is over is nobody's": {cpu(0, 1), []job.Standby{ready("a", 7*time.Hour, func(s *job.Standby) { s.Over = true })}, Demand{}, nil},
		"the class is gone":        {class.Class{Name: "cpu"}, []job.Standby{ready("a", time.Minute)}, Demand{Jobs: 1}, []string{"retire a: the class cannot be used"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			given := slices.Clone(tt.jobs)
			var got []string
			for _, a := range Plan(tt.class, tt.jobs, tt.d, now) {
				got = append(got, words(a))
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
			if d := cmp.Diff(given, tt.jobs); d != "" {
				t.Errorf("its argument was changed:\n%s", d)
			}
		})
	}
}

func words(a Action) string {
	switch {
	case a.Make:
		return "make: " + a.Why
	case a.Refused:
		return "refused " + a.Standby.Job + ": " + a.Why
	}
	return "retire " + a.Standby.Job + ": " + a.Why
}

// world is a cluster with room for so many Jobs, in which sessions come and go.
type world struct {
	class   class.Class
	room    int
	jobs    []job.Standby // taken ones are sessions
	refused time.Time
	freed   time.Time
	starts  []time.Time
	made    int
}

func (w *world) placed() (n int) {
	for _, s := range w.jobs {
		if s.Node != "" {
			n++
		}
	}
	return n
}

func (w *world) drop(name string, at time.Time) {
	w.jobs = slices.DeleteFunc(w.jobs, func(s job.Standby) bool {
		if s.Job == name && s.Node != "" {
			w.freed = at
		}
		return s.Job == name
	})
}

func (w *world) step(t *testing.T, at time.Time) {
	starts := 0
	for _, s := range w.starts {
		if at.Sub(s) < Window {
			starts++
		}
	}
	jobs := slices.Clone(w.jobs)
	rand.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })
	d := Demand{Starts: starts, Jobs: len(w.jobs), Refused: w.refused, Freed: w.freed}
	plan := Plan(w.class, w.jobs, d, at)
	if diff := cmp.Diff(plan, Plan(w.class, jobs, d, at)); diff != "" {
		t.Fatalf("the order of its arguments matters:\n%s", diff)
	}
	for _, a := range plan {
		if a.Make {
			w.made++
			w.jobs = append(w.jobs, ready(fmt.Sprintf("j%d", w.made), 0, unplaced, func(s *job.Standby) { s.Made, s.Template = at, job.Fingerprint(w.class) }))
			continue
		}
		if a.Standby.Taken {
			t.Fatal("a session's Job is retired")
		}
		if a.Refused {
			w.refused = at
		}
		w.drop(a.Standby.Job, at)
	}
}

// Whatever comes: bounds hold, at most one pod is more than the cluster can hold, a
// session keeps its Job, and when everything is quiet so is the plan.
func TestPlanKeepsItsBounds(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 5))
		least := r.IntN(3)
		w := &world{class: cpu(least, least+r.IntN(3)), room: r.IntN(6)}
		w.class.Jobs = max(w.class.Standby.Max, r.IntN(6))
		at := now
		for range 300 {
			at = at.Add(time.Duration(r.IntN(4000)) * time.Millisecond)
			switch r.IntN(12) {
			case 0: // a session takes one
				if i := slices.IndexFunc(w.jobs, func(s job.Standby) bool { return s.Ready && !s.Taken }); i >= 0 {
					w.jobs[i].Taken, w.jobs[i].Ready = true, false
				}
				w.starts = append(w.starts, at)
			case 1: // a session ends
				if i := slices.IndexFunc(w.jobs, func(s job.Standby) bool { return s.Taken }); i >= 0 {
					w.drop(w.jobs[i].Job, at)
				}
			case 2:
				w.class.Template.Spec.Containers = []corev1.Container{{Name: "worker", Image: fmt.Sprint(r.IntN(2))}}
			case 3: // others come and go
				if w.room = r.IntN(6); w.room < w.placed() {
					w.room = w.placed()
				}
			default: // Kubernetes works
				for i := range w.jobs {
					if s := &w.jobs[i]; s.Node == "" && w.placed() < w.room {
						s.Node, s.Waits = "n1", ""
					} else if s.Node != "" && !s.Taken {
						s.Ready = true
					}
				}
			}
			w.step(t, at)
			idle, unplaced := 0, 0
			for _, s := range w.jobs {
				if !s.Taken {
					idle++
				}
				if s.Node == "" {
					unplaced++
				}
			}
			if idle > w.class.Standby.Max || len(w.jobs) > w.class.Jobs || unplaced > 1 {
				t.Fatalf("seed %d: %d standbys, %d Jobs, %d without a node; class %+v", seed, idle, len(w.jobs), unplaced, w.class.Standby)
			}
		}
		settled := w.made
		for i := range 200 { // nothing happens any more, but what Kubernetes does
			at = at.Add(time.Second)
			for j := range w.jobs {
				if s := &w.jobs[j]; s.Node == "" && w.placed() < w.room {
					s.Node, s.Waits = "n1", ""
				} else if s.Node != "" && !s.Taken {
					s.Ready = true
				}
			}
			w.step(t, at)
			if i == 100 {
				settled = w.made
			}
		}
		if w.made-settled > w.class.Standby.Max { // one try again may be due, and find room
			t.Fatalf("seed %d: %d were made though nothing happened", seed, w.made-settled)
		}
	}
}
