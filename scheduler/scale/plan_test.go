package scale

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
)

var now = time.Unix(1_800_000_000, 0)

func cpu(replicas int, bounds ...int) class.Class {
	c := class.Class{Name: "cpu", Namespace: "n", Deployment: "ffpod-cpu", Slots: 2, Replicas: int32(replicas), Usable: true}
	if bounds != nil {
		c.Scale = &class.Bounds{Min: bounds[0], Max: bounds[1]}
	}
	return c
}

// worker has so many sessions; the one with the lower number is idle for longer.
func worker(n, used int, changes ...func(*channels.WorkerState)) channels.WorkerState {
	pod := fmt.Sprintf("w%d", n)
	w := channels.WorkerState{Worker: lease.Worker{Class: "cpu", Pod: pod, PodUID: "u-" + pod, Node: "n1", Nonce: "b"}, Slots: 2, Used: used, Ready: true,
		Ended: now.Add(-time.Hour + time.Duration(n)*time.Minute)}
	for _, change := range changes {
		change(&w)
	}
	return w
}

func silent(w *channels.WorkerState)   { w.Ready = false }
func draining(w *channels.WorkerState) { w.Draining = true }
func pending(w *channels.WorkerState)  { w.Ready, w.Node = false, "" }

func TestPlan(t *testing.T) {
	type all = []channels.WorkerState
	tests := map[string]struct {
		class   class.Class
		workers all
		d       Demand
		want    int
		gone    []string
	}{
		"no annotation":                         {cpu(3), all{worker(1, 0)}, Demand{Waiting: 9}, 3, nil},
		"one that cannot be used":               {func() class.Class { c := cpu(0, 0, 3); c.Usable = false; return c }(), nil, Demand{Waiting: 9}, 0, nil},
		"from zero":                             {cpu(0, 0, 3), nil, Demand{Waiting: 1}, 1, nil},
		"as many as wait":                       {cpu(1, 0, 5), all{worker(1, 2)}, Demand{Waiting: 3}, 3, nil},
		"not more than allowed":                 {cpu(1, 0, 2), all{worker(1, 2)}, Demand{Waiting: 30}, 2, nil},
		"not fewer than allowed":                {cpu(0, 1, 2), nil, Demand{}, 1, nil},
		"busy ones and room for those who wait": {cpu(2, 0, 5), all{worker(1, 1), worker(2, 1)}, Demand{Waiting: 2}, 2, nil},
		"Kubernetes places no more":             {cpu(2, 0, 5), all{worker(1, 2), worker(2, 0, pending)}, Demand{Waiting: 9, Unable: "Unschedulable"}, 2, nil},
		"idle for long":                         {cpu(1, 0, 5), all{worker(1, 0)}, Demand{}, 0, []string{"w1"}},
		"idle, but needed lately":               {cpu(2, 0, 5), all{worker(1, 0), worker(2, 0)}, Demand{Peak: 2}, 2, nil},
		"the longest idle goes":                 {cpu(3, 1, 5), all{worker(3, 0), worker(1, 0), worker(2, 0)}, Demand{Peak: 1}, 1, []string{"w1", "w2"}},
		"no session is ended":                   {cpu(3, 0, 5), all{worker(1, 1), worker(2, 1), worker(3, 0)}, Demand{Peak: 2}, 2, []string{"w3"}},
		"above the bound, but busy":             {cpu(3, 0, 1), all{worker(1, 1), worker(2, 1), worker(3, 1)}, Demand{Peak: 3}, 3, nil},
		"one does not answer":                   {cpu(2, 0, 5), all{worker(1, 0), worker(2, 0, silent)}, Demand{}, 2, nil},
		"one is not seen yet":                   {cpu(2, 0, 5), all{worker(1, 0)}, Demand{}, 2, nil},
		"one goes already":                      {cpu(1, 0, 5), all{worker(1, 1, draining), worker(2, 0)}, Demand{}, 0, []string{"w2"}},
		"one has no node":                       {cpu(2, 0, 5), all{worker(1, 1), worker(2, 0, pending)}, Demand{Peak: 1}, 1, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d := Plan(tt.class, tt.workers, tt.d)
			var gone []string
			for _, w := range d.Go {
				gone = append(gone, w.Pod)
			}
			if d.Replicas != tt.want || !cmp.Equal(gone, tt.gone) {
				t.Errorf("%d replicas, %v go (%s); want %d, %v", d.Replicas, gone, d.Why, tt.want, tt.gone)
			}
			if (d.Replicas != int(tt.class.Replicas)) != (d.Why != "") {
				t.Errorf("from %d to %d: why %q", tt.class.Replicas, d.Replicas, d.Why)
			}
		})
	}
}

// Whatever the workers do: who goes is idle and answers, the number is that of those
// who go, bounds are kept where no session forbids it, and nobody without the
// annotation is touched.
func TestPlanEndsNoSession(t *testing.T) {
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 6))
		least := r.IntN(3)
		c := cpu(r.IntN(6), least, least+r.IntN(4))
		var workers []channels.WorkerState
		busy := 0
		for i := range r.IntN(7) {
			w := worker(i, r.IntN(3))
			for _, change := range []func(*channels.WorkerState){silent, draining, pending} {
				if r.IntN(6) == 0 {
					change(&w)
				}
			}
			if w.Used > 0 && !w.Draining {
				busy++
			}
			workers = append(workers, w)
		}
		need := Need(c, workers, 0)
		if need < busy {
			t.Fatalf("seed %d: %d are busy, %d are needed", seed, busy, need)
		}
		d := Plan(c, workers, Demand{Waiting: r.IntN(4), Peak: r.IntN(4)})
		if len(d.Go) > 0 && d.Replicas != int(c.Replicas)-len(d.Go) || d.Replicas < min(int(c.Replicas), c.Scale.Min) || d.Replicas > max(int(c.Replicas), c.Scale.Max) {
			t.Fatalf("seed %d: from %d to %d, %d go", seed, c.Replicas, d.Replicas, len(d.Go))
		}
		for _, w := range d.Go {
			if w.Used > 0 || w.Draining || !w.Ready {
				t.Fatalf("seed %d: %+v goes", seed, w)
			}
		}
		c.Scale = nil
		if d := Plan(c, workers, Demand{Waiting: 9}); d.Replicas != int(c.Replicas) || d.Go != nil || d.Why != "" {
			t.Fatalf("seed %d: touched without the annotation: %+v", seed, d)
		}
	}
}

func TestPeaks(t *testing.T) {
	var p peaks
	at := func(m int) time.Time { return now.Add(time.Duration(m) * time.Minute) }
	for _, step := range []struct{ minute, need, replicas, want int }{
		{0, 0, 2, 2},                             // what is there when we begin
		{1, 3, 3, 3}, {2, 1, 3, 3}, {6, 0, 3, 3}, // within the window
		{7, 0, 3, 1}, {12, 0, 3, 0},
		{13, 0, 5, 5}, {14, 0, 5, 5}, {19, 0, 4, 0}, // somebody made some
	} {
		p.add(step.need, step.replicas, at(step.minute))
		if got := p.most(at(step.minute), Window); got != step.want {
			t.Errorf("minute %d: %d, want %d", step.minute, got, step.want)
		}
	}
}
