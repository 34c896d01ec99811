package placement

import (
	"strings"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func cpu(mods ...func(*Class)) Class {
	c := Class{Name: "cpu", Cost: 1, Jobs: 2, Replicas: 1}
	for _, m := range mods {
		m(&c)
	}
	return c
}

func nvidia(mods ...func(*Class)) Class {
	c := Class{Name: "nvidia", Cost: 10, Jobs: 1, Replicas: 1, Devices: []string{"nvidia.com/gpu"}}
	for _, m := range mods {
		m(&c)
	}
	return c
}

func worker(class, pod string, used int, mods ...func(*Worker)) Worker {
	w := Worker{Class: class, Pod: pod, Nonce: "n-" + pod, Node: "node-" + pod, Slots: 2, Used: used, Ready: true}
	for _, m := range mods {
		m(&w)
	}
	return w
}

func TestDecide(t *testing.T) {
	tests := map[string]struct {
		classes []Class
		workers []Worker
		supply  map[string]Supply
		request Request
		policy  Policy

		want        Verdict
		wantClass   string
		wantPod     string
		wantRefusal wire.Refusal
		wantReason  string // a part of it
	}{
		"a free warm slot": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 1)}, policy: WarmThenJob,
			want: Warm, wantClass: "cpu", wantPod: "a", wantReason: "class cpu: 1 of 2 slots free on a",
		},
		"the least loaded warm worker": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 1), worker("cpu", "b", 0)}, policy: WarmOnly,
			want: Warm, wantClass: "cpu", wantPod: "b",
		},
		"as many free slots: the node with fewer sessions": {
			classes: []Class{cpu(), nvidia()}, policy: WarmOnly,
			workers: []Worker{
				worker("cpu", "a", 0, func(w *Worker) { w.Node = "x" }),
				worker("cpu", "b", 0, func(w *Worker) { w.Node = "y" }),
				worker("nvidia", "c", 1, func(w *Worker) { w.Node = "x" }),
			},
			want: Warm, wantClass: "cpu", wantPod: "b",
		},
		"warm is full: a Job": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 2)}, policy: WarmThenJob,
			want: Job, wantClass: "cpu", wantReason: "class cpu: 2 of 2 warm slots taken; Job 1 of at most 2",
		},
		"warm is full and Jobs too: wait": {
			classes: []Class{cpu(func(c *Class) { c.ActiveJobs = 2 })}, workers: []Worker{worker("cpu", "a", 2)}, policy: WarmThenJob,
			want: Wait, wantReason: "class cpu: 2 of 2 warm slots taken, 2 of 2 Jobs run",
		},
		"warm is full and a Job would starve: wait": {
			classes: []Class{nvidia()}, workers: []Worker{worker("nvidia", "a", 2)}, policy: WarmThenJob,
			supply: map[string]Supply{"nvidia.com/gpu": {Total: 1, Warm: 1}},
			want:   Wait, wantReason: "its warm workers hold what a Job would need: 1 of 1 nvidia.com/gpu",
		},
		"policy warm never makes a Job": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 2)}, policy: WarmOnly,
			want: Wait, wantReason: "2 of 2 warm slots taken",
		},
		"policy warm waits for the first replica": {
			classes: []Class{cpu(func(c *Class) { c.Replicas = 0 })}, policy: WarmOnly,
			want: Wait, wantReason: "no warm worker is wanted (replicas 0)",
		},
		"policy job leaves warm slots alone": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0)}, policy: JobOnly,
			want: Job, wantClass: "cpu", wantReason: "class cpu: asked for a Job; Job 1 of at most 2",
		},
		"policy job where none is allowed": {
			classes: []Class{cpu(func(c *Class) { c.Jobs = 0 })}, workers: []Worker{worker("cpu", "a", 0)}, policy: JobOnly,
			want: Reject, wantRefusal: wire.Refusal_NO_CLASS, wantReason: "class cpu: no Jobs allowed",
		},
		"no class": {
			policy: WarmThenJob, want: Reject, wantRefusal: wire.Refusal_NO_CLASS, wantReason: "ffpod.dev/class",
		},
		"a class that is not there": {
			classes: []Class{nvidia(), cpu()}, request: Request{Class: "amd"}, policy: WarmThenJob,
			want: Reject, wantRefusal: wire.Refusal_NO_CLASS, wantReason: "no class amd; there are: cpu, nvidia",
		},
		"a kind that no class takes": {
			classes: []Class{cpu(func(c *Class) { c.Kinds = []string{"probe"} })}, request: Request{Kind: "live"}, policy: WarmThenJob,
			want: Reject, wantRefusal: wire.Refusal_NO_CLASS, wantReason: "no class takes sessions of kind live; asked: cpu",
		},
		"the cheapest class that takes the kind": {
			classes: []Class{
				{Name: "gold", Cost: 9, Jobs: 1}, {Name: "silver", Cost: 5, Jobs: 1},
				{Name: "tin", Cost: 1, Jobs: 1, Kinds: []string{"image"}},
			},
			request: Request{Kind: "playback"}, policy: JobOnly, want: Job, wantClass: "silver",
		},
		"a warm slot of a dearer class before a Job of a cheap one": {
			classes: []Class{{Name: "gold", Cost: 9, Jobs: 1, Replicas: 1}, {Name: "tin", Cost: 1, Jobs: 1}},
			workers: []Worker{worker("gold", "g", 1)}, policy: WarmThenJob, want: Warm, wantClass: "gold", wantPod: "g",
		},
		"what names no hardware takes no GPU, not even a free one": {
			classes: []Class{cpu(), nvidia()}, workers: []Worker{worker("nvidia", "n", 0), worker("cpu", "a", 2)}, policy: WarmOnly,
			want: Wait, wantReason: "class cpu: 2 of 2 warm slots taken",
		},
		"what names hardware goes where it is": {
			classes: []Class{cpu(), nvidia()}, workers: []Worker{worker("cpu", "a", 0), worker("nvidia", "n", 0)},
			request: Request{Hardware: []string{"nvidia"}}, policy: WarmThenJob, want: Warm, wantClass: "nvidia", wantPod: "n",
		},
		"vaapi finds an intel class by its resource": {
			classes: []Class{nvidia(), {Name: "igpu", Cost: 20, Jobs: 1, Devices: []string{"gpu.intel.com/i915"}}},
			request: Request{Hardware: []string{"intel", "amd"}}, policy: JobOnly, want: Job, wantClass: "igpu",
		},
		"vaapi finds an intel class by its DeviceClass": {
			classes: []Class{cpu(), nvidia(), {Name: "dra", Cost: 20, Jobs: 1, Devices: []string{"gpu.intel.com"}}},
			request: Request{Hardware: []string{"intel", "amd"}}, policy: JobOnly, want: Job, wantClass: "dra",
		},
		"hardware that no resource shows may still be there": {
			classes: []Class{cpu(), nvidia()}, request: Request{Hardware: []string{"intel"}}, policy: JobOnly, want: Job, wantClass: "cpu",
		},
		"only GPU classes: they take what needs none": {
			classes: []Class{nvidia()}, policy: JobOnly, want: Job, wantClass: "nvidia",
		},
		"the class asked for wins over fitness": {
			classes: []Class{cpu(), nvidia()}, request: Request{Class: "nvidia"}, policy: JobOnly, want: Job, wantClass: "nvidia",
		},
		"not ready, draining and other nonces are no slots": {
			classes: []Class{cpu(func(c *Class) { c.Jobs = 0 })}, policy: WarmThenJob,
			workers: []Worker{
				worker("cpu", "a", 0, func(w *Worker) { w.Ready = false }),
				worker("cpu", "b", 0, func(w *Worker) { w.Draining = true }),
			},
			want: Wait, wantReason: "none of 2 warm workers is ready, no Jobs allowed",
		},
		"a worker that just refused is left alone": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0), worker("cpu", "b", 1)},
			request: Request{Avoid: map[string]time.Time{"a": now.Add(time.Second)}}, policy: WarmOnly,
			want: Warm, wantClass: "cpu", wantPod: "b",
		},
		"but not for ever": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0)},
			request: Request{Avoid: map[string]time.Time{"a": now}}, policy: WarmOnly, want: Warm, wantClass: "cpu", wantPod: "a",
		},
		"Jobs of a class that just failed are left alone": {
			classes: []Class{cpu()}, request: Request{Avoid: map[string]time.Time{AvoidJobs("cpu"): now.Add(time.Second)}}, policy: JobOnly,
			want: Wait, wantReason: "its last Job did not start",
		},
		"another build is fine unless told otherwise": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0, func(w *Worker) { w.Build = "bb" })},
			request: Request{Build: "aa"}, policy: WarmOnly, want: Warm, wantClass: "cpu", wantPod: "a",
		},
		"same build: the worker that has it": {
			classes: []Class{cpu()}, policy: WarmOnly, request: Request{Build: "aa", SameBuild: true},
			workers: []Worker{
				worker("cpu", "a", 0, func(w *Worker) { w.Build = "bb" }),
				worker("cpu", "b", 1, func(w *Worker) { w.Build = "aa" }),
			},
			want: Warm, wantClass: "cpu", wantPod: "b",
		},
		"same build: nobody has it": {
			classes: []Class{cpu()}, policy: WarmThenJob, request: Request{Build: "aa", SameBuild: true},
			workers: []Worker{worker("cpu", "a", 0, func(w *Worker) { w.Build = "bb" })},
			want:    Reject, wantRefusal: wire.Refusal_WRONG_BUILD, wantReason: "bb, not aa",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := Decide(Snapshot{Classes: tt.classes, Workers: tt.workers, Supply: tt.supply}, tt.request, tt.policy, now)
			if got.Verdict != tt.want || got.Class != tt.wantClass || got.Pod != tt.wantPod || got.Refusal != tt.wantRefusal {
				t.Errorf("got %+v", got)
			}
			if got.Reason == "" || strings.Contains(got.Reason, "\n") || !strings.Contains(got.Reason, tt.wantReason) {
				t.Errorf("reason %q, want one line with %q", got.Reason, tt.wantReason)
			}
			if (got.Verdict == Reject) != (got.Remedy != "") {
				t.Errorf("verdict %s with remedy %q", got.Verdict, got.Remedy)
			}
		})
	}
}

func TestParsePolicy(t *testing.T) {
	for _, p := range []Policy{WarmThenJob, WarmOnly, JobOnly} {
		if got, err := ParsePolicy(string(p)); err != nil || got != p {
			t.Errorf("ParsePolicy(%q) = %q, %v", p, got, err)
		}
	}
	if _, err := ParsePolicy("hot"); err == nil {
		t.Error("policy hot was accepted")
	}
}
