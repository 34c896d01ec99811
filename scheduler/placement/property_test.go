package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// What holds for every snapshot, request and policy.
func TestDecideProperties(t *testing.T) {
	rnd := rand.New(rand.NewPCG(20260102, 7))
	seen, rewritten := map[Verdict]int{}, 0
	for range 30_000 {
		s, r, p := anySnapshot(rnd), anyRequest(rnd), anyPolicy(rnd)
		before := fmt.Sprintf("%+v", s)
		d := Decide(s, r, p, now)
		seen[d.Verdict]++
		if d.Translated {
			rewritten++
		}
		if again := Decide(s, r, p, now); !cmp.Equal(d, again) {
			t.Fatalf("not a function: %+v, then %+v", d, again)
		}
		if again := Decide(shuffled(rnd, s), r, p, now); again.Verdict != d.Verdict || again.Class != d.Class || again.Pod != d.Pod || !slices.Equal(again.Pause, d.Pause) {
			t.Fatalf("the order of the snapshot matters: %+v, then %+v\nsnapshot %+v\nrequest %+v", d, again, s, r)
		}
		if problem := violates(s, r, p, d); problem != "" {
			t.Fatalf("%s: %+v\nsnapshot %+v\nrequest %+v policy %s", problem, d, s, r, p)
		}
		if after := fmt.Sprintf("%+v", s); after != before {
			t.Fatalf("the snapshot was changed\nfrom %s\nto   %s", before, after)
		}
	}
	if rewritten < 50 {
		t.Errorf("rewritten only %d times: the test does not reach it", rewritten)
	}
	for _, v := range []Verdict{Local, Warm, Standby, Job, Wait, Reject} {
		if seen[v] < 50 {
			t.Errorf("verdict %s only %d times: the test does not reach it", v, seen[v])
		}
	}
}

func shuffled(rnd *rand.Rand, s Snapshot) Snapshot {
	s = s.clone()
	rnd.Shuffle(len(s.Workers), func(i, j int) { s.Workers[i], s.Workers[j] = s.Workers[j], s.Workers[i] })
	rnd.Shuffle(len(s.Classes), func(i, j int) { s.Classes[i], s.Classes[j] = s.Classes[j], s.Classes[i] })
	return s
}

// violates is what is wrong with a decision, in words. It repeats the rules in the
// plainest form, apart from the code that it judges.
func violates(s Snapshot, r Request, p Policy, d Decision) string {
	if d.Reason == "" {
		return "no reason"
	}
	if a, may := r.Alternatives[d.Class]; d.Translated && (!may || a.Refused != "" || !d.placed() || !needsHardware(r.Needs) && len(r.Hardware) == 0) {
		return "rewritten for nothing"
	}
	switch d.Verdict {
	case Warm, Standby:
		return violatesWorker(s, r, p, d)
	case Job:
		return violatesJob(s, r, p, d)
	case Wait:
		return violatesWait(s, r, p, d)
	case Local:
		if !r.LocalOK {
			return "local, though it cannot be"
		}
	case Reject:
		if d.Refusal == wire.Refusal_REFUSAL_UNSPECIFIED || d.Remedy == "" {
			return "rejected without a refusal"
		}
	default:
		return "an unknown verdict"
	}
	return ""
}

func violatesWorker(s Snapshot, r Request, p Policy, d Decision) string {
	w := s.Workers[slices.IndexFunc(s.Workers, func(w Worker) bool { return w.Pod == d.Pod && w.Nonce == d.Nonce })]
	switch c := *NewRound(s).class(d.Class); {
	case d.Verdict == Warm && p == JobOnly, d.Verdict == Standby && p == WarmOnly:
		return "not of the policy"
	case w.Standby != (d.Verdict == Standby):
		return "the wrong word for the worker"
	case w.Used-len(d.Pause) >= w.Slots || !w.Ready || w.Draining || w.Class != d.Class:
		return "an unusable worker"
	case !mayRun(c, r):
		return "a class that must not run it"
	case r.SameBuild && r.Build != "" && w.Build != "" && r.Build != w.Build:
		return "another build"
	case w.Can.Lacks(needsOf(r, d)) != "":
		return "a worker that has not proved it"
	case d.Encodes != encodesInHardware(needsOf(r, d)):
		return "an encoder miscounted"
	case d.Encodes && w.ParallelEncodes > 0 && w.Encodes >= w.ParallelEncodes:
		return "more encoders than the driver has"
	}
	for _, id := range d.Pause {
		x := w.Running[slices.IndexFunc(w.Running, func(x Running) bool { return x.ID == id })]
		if !traitsOf(r.Kind).urgent || x.Paused || x.Hardware || !Pausable(x.Kind) {
			return "a session paused that must not be"
		}
	}
	b := NewRound(s)
	b.Take(d)
	if after, _ := b.Worker(d); after.Used != w.Used+1-len(d.Pause) || after.Used > after.Slots {
		return "Take did not take one slot"
	}
	b = NewRound(s)
	b.Without(d)
	if again := b.Decide(r, p, now); again.Pod == d.Pod && again.Nonce == d.Nonce && again.placed() && again.Verdict != Job {
		return "Without left the slot"
	}
	return ""
}

func violatesJob(s Snapshot, r Request, p Policy, d Decision) string {
	c := *NewRound(s).class(d.Class)
	if p == WarmOnly || c.ActiveJobs >= c.Jobs || d.Pod != "" || c.Unable != "" || !mayRun(c, r) || c.Can.Lacks(needsOf(r, d)) != "" {
		return "a Job that must not be"
	}
	for _, name := range c.Devices {
		if have, known := s.Supply[name]; known && have.Warm == have.Total && have.Total > 0 {
			return "a Job that would wait for our own workers"
		}
	}
	b := NewRound(s)
	b.Without(d)
	if again := b.Decide(r, p, now); again.Verdict == Job && again.Class == d.Class {
		return "Without left the Job"
	}
	return ""
}

// needsOf is what the session needs as it runs there.
func needsOf(r Request, d Decision) []string {
	if d.Translated {
		return r.Alternatives[d.Class].Needs
	}
	return r.Needs
}

func mayRun(c Class, r Request) bool {
	return (len(c.Kinds) == 0 || slices.Contains(c.Kinds, r.Kind)) && (r.Class == "" || c.Name == r.Class) && (r.Network == "" || c.Egress == "true" || c.Egress == r.Network)
}

func violatesWait(s Snapshot, r Request, p Policy, d Decision) string {
	overLimit := r.CallerLimit > 0 && s.Callers[r.Caller] >= r.CallerLimit
	if !d.Recheck.IsZero() && !d.Recheck.After(now) {
		return "a recheck in the past"
	}
	// Nothing that is free would do, in the classes that suit it.
	if p != JobOnly && !overLimit {
		b, q := NewRound(s), ask(r, p, now)
		classes, _ := b.candidates(q)
		for _, c := range classes {
			for _, w := range s.Workers {
				paused, _ := w.paused(now)
				if w.Class == c.Name && !w.Standby && w.Used+paused < w.Slots && w.Ready && !w.Draining && w.Can.Lacks(c.q.Needs) == "" &&
					(!r.SameBuild || w.Build == "" || r.Build == "" || w.Build == r.Build) && !now.Before(r.Avoid[w.Pod]) &&
					(w.ParallelEncodes == 0 || w.Encodes < w.ParallelEncodes) {
					return "waits though a slot of " + w.Pod + " is free"
				}
			}
		}
	}
	// The queue drains: what waits is placed once everything is free.
	free := s.clone()
	free.Supply, free.Callers = nil, nil
	for i := range free.Classes {
		c := &free.Classes[i]
		c.ActiveJobs, c.Unable, c.JobStart = 0, "", time.Second
	}
	for i := range free.Workers {
		w := &free.Workers[i]
		w.Used, w.Ready, w.Draining, w.Running, w.Encodes = 0, true, false, nil, 0
	}
	for _, c := range free.Classes { // and every class has a worker of the caller's build that can
		free.Workers = append(free.Workers, Worker{Class: c.Name, Pod: "new-" + c.Name, Slots: 1, Ready: true, Build: r.Build})
	}
	then := now.Add(time.Hour)
	if r.Fallback.Then == Reject || r.Fallback.Then == Local && r.LocalOK {
		then = now // it would not wait that long
		r.Avoid = nil
	}
	if d := Decide(free, r, p, then); !d.placed() {
		return "waits for what never comes: " + d.Reason
	}
	return ""
}

// Whoever asks, and however often: no worker gets more than its share and one.
func TestShare(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1000, 1))
	for round := range 40 {
		var s Snapshot
		s.Classes = []Class{{Name: "c"}}
		slots := 0
		for i := range 2 + rnd.IntN(150) {
			w := Worker{Class: "c", Pod: fmt.Sprintf("p%d", i), Node: fmt.Sprint(i % 7), Slots: 1 + rnd.IntN(40), Ready: true}
			if round%2 == 1 {
				w.Load = Load{Known: true, CPU: rnd.IntN(1001)}
			}
			slots += w.Slots
			s.Workers = append(s.Workers, w)
		}
		const requests = 1000
		got := map[string]int{}
		b := NewRound(s)
		for range requests {
			r := Request{Kind: "playback", Viewer: fmt.Sprint(rnd.IntN(1 + round)), Realtime: rnd.IntN(2) == 0}
			if d := b.Decide(r, WarmOnly, now); d.Verdict == Warm {
				b.Take(d)
				got[d.Pod]++
			}
		}
		for _, w := range s.Workers {
			share := float64(requests) * float64(w.Slots) / float64(slots)
			if n := got[w.Pod]; n > w.Slots || float64(n) > share+1 {
				t.Fatalf("round %d: worker %s of %d slots got %d of %d, its share is %.2f", round, w.Pod, w.Slots, n, requests, share)
			}
		}
	}
}

// A worker that could not take the session anyway does not change what becomes of it.
func TestIrrelevantWorker(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 9))
	lame := NewProfile(nil, nil)
	for range 10_000 {
		s, r, p := anySnapshot(rnd), anyRequest(rnd), anyPolicy(rnd)
		before := Decide(s, r, p, now)
		more := s.clone()
		irrelevant := Worker{Class: "elsewhere", Pod: "x", Nonce: "x", Slots: 9, Ready: true}
		if len(s.Workers) > 0 && len(r.Needs) > 0 && rnd.IntN(2) == 0 { // beside one that can, one that cannot
			w := s.Workers[rnd.IntN(len(s.Workers))]
			if w.Can.Lacks(r.Needs) == "" && w.Ready && !w.Draining {
				irrelevant = Worker{Class: w.Class, Pod: "x", Nonce: "x", Slots: 9, Ready: true, Can: lame}
			}
		}
		more.Workers = append(more.Workers, irrelevant)
		if after := Decide(more, r, p, now); after.Verdict != before.Verdict || after.Class != before.Class || after.Pod != before.Pod {
			t.Fatalf("%+v\nbecame %+v\nby %+v\nsnapshot %+v\nrequest %+v", before, after, irrelevant, s, r)
		}
	}
}

var (
	devices = [][]string{nil, {"nvidia.com/gpu"}, {"gpu.intel.com/i915"}, {"amd.com/gpu"}}
	classes = [][]string{nil, {"probe"}, {"playback", "image", "loudness"}}
	sorts   = []string{"probe", "playback", "live", "image", "trickplay", "subtitle", "loudness", "keyframes", "other"}
	needs   = [][]string{nil, {"encoder:libx264"}, {"encoder:h264_nvenc", "hwaccel:cuda"}, {"encoder:av1_nvenc"}}
	others  = []Alternative{{Refused: "it is not known"}, {Needs: needs[1]}, {Needs: needs[2], Hardware: []string{"nvidia"}}}
	can     = []*Profile{nil, nil,
		NewProfile([]string{"encoder:libx264"}, nil),
		NewProfile([]string{"encoder:libx264", "encoder:h264_nvenc", "hwaccel:cuda"}, map[string]string{"encoder:av1_nvenc": "no capable devices found"}),
		NewProfile([]string{"encoder:libx264", "encoder:h264_nvenc", "hwaccel:cuda", "encoder:av1_nvenc"}, nil)}
)

func anySnapshot(r *rand.Rand) Snapshot {
	s := Snapshot{Callers: map[string]int{"a": r.IntN(4)}, Viewers: map[string]string{"v": "p1"}}
	if r.IntN(2) == 0 {
		total := r.IntN(3)
		free := r.IntN(total + 1)
		s.Supply = map[string]Supply{"nvidia.com/gpu": {Total: total, Free: free, Warm: r.IntN(total - free + 1)}}
	}
	for i := range r.IntN(4) {
		s.Classes = append(s.Classes, Class{Name: fmt.Sprintf("c%d", i), Cost: r.IntN(3), Jobs: r.IntN(3), ActiveJobs: r.IntN(3), Replicas: r.IntN(2),
			Devices: devices[r.IntN(4)], Kinds: classes[r.IntN(3)], Egress: []ffmpeg.Egress{"", "caller", "true", "true"}[r.IntN(4)], Can: can[r.IntN(5)],
			JobStart: time.Duration(r.IntN(3)*3) * time.Second, Unable: []string{"", "", "", "0/3 nodes are available"}[r.IntN(4)]})
	}
	for i := range r.IntN(6) {
		w := Worker{Class: fmt.Sprintf("c%d", r.IntN(4)), Pod: fmt.Sprintf("p%d", i), Nonce: fmt.Sprint(r.IntN(3)), Node: fmt.Sprint(r.IntN(2)),
			Slots: r.IntN(3), Used: r.IntN(4), Ready: r.IntN(4) > 0, Draining: r.IntN(5) == 0, Build: []string{"", "aa", "bb"}[r.IntN(3)],
			Standby: r.IntN(3) == 0, Can: can[r.IntN(5)], Proving: r.IntN(6) == 0, Encodes: r.IntN(3), ParallelEncodes: r.IntN(3),
			Load: Load{Known: r.IntN(2) == 0, GPUKnown: r.IntN(2) == 0, CPU: r.IntN(1001), GPU: r.IntN(1001), Memory: uint64(r.IntN(10)), MemoryLimit: 10}}
		for j := range r.IntN(3) {
			w.Running = append(w.Running, Running{ID: fmt.Sprintf("%s-%d", w.Pod, j), Kind: sorts[r.IntN(len(sorts))], Hardware: r.IntN(4) == 0,
				Paused: r.IntN(3) == 0, Since: []time.Time{{}, now.Add(-30 * time.Second), now.Add(-time.Hour)}[r.IntN(3)]})
		}
		s.Workers = append(s.Workers, w)
	}
	return s
}

func anyRequest(r *rand.Rand) Request {
	q := Request{
		Kind:      sorts[r.IntN(len(sorts))],
		Class:     []string{"", "", "c0", "c1"}[r.IntN(4)],
		Needs:     needs[r.IntN(4)],
		Hardware:  [][]string{nil, {"nvidia"}, {"intel", "amd"}}[r.IntN(3)],
		Build:     []string{"", "aa"}[r.IntN(2)],
		SameBuild: r.IntN(2) == 0,
		Realtime:  r.IntN(4) == 0, Network: []ffmpeg.Egress{"", "", "", "caller", "true"}[r.IntN(5)], LocalOK: r.IntN(2) == 0,
		Viewer: []string{"", "v", "w"}[r.IntN(3)], Caller: "a", CallerLimit: r.IntN(4),
		Asked:    now.Add(-time.Duration(r.IntN(4)*3) * time.Second),
		Fallback: []Fallback{{}, {}, {Then: Wait}, {Then: Local, After: 3 * time.Second}, {Then: Reject, After: 5 * time.Second}}[r.IntN(5)],
		Avoid:    map[string]time.Time{"p0": now.Add(time.Duration(r.IntN(3)-1) * time.Second)},
	}
	if r.IntN(2) == 0 {
		q.Alternatives = map[string]Alternative{}
		for _, c := range []string{"c0", "c1", "c2"} {
			if n := r.IntN(5); n < len(others) {
				q.Alternatives[c] = others[n]
			}
		}
	}
	return q
}

func anyPolicy(r *rand.Rand) Policy { return []Policy{WarmThenJob, WarmOnly, JobOnly}[r.IntN(3)] }
