package placement

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

var (
	gpu  = NewProfile([]string{"encoder:libx264", "encoder:h264_nvenc", "hwaccel:cuda"}, map[string]string{"encoder:av1_nvenc": "no capable devices found"})
	soft = NewProfile([]string{"encoder:libx264"}, nil)
	h264 = []string{"encoder:h264_nvenc", "hwaccel:cuda"}
)

func proved(p *Profile) func(*Worker) { return func(w *Worker) { w.Can = p } }
func load(cpu, gpu int) func(*Worker) {
	return func(w *Worker) { w.Load = Load{Known: true, GPUKnown: true, CPU: cpu, GPU: gpu} }
}
func runs(kind string, mods ...func(*Running)) func(*Worker) {
	return func(w *Worker) {
		x := Running{ID: w.Pod + "-" + kind, Kind: kind}
		for _, m := range mods {
			m(&x)
		}
		w.Running = append(w.Running, x)
	}
}

// Every rule that goes beyond a free slot of a class.
func TestRules(t *testing.T) {
	noJobs := func(c *Class) { c.Jobs = 0 }
	tests := map[string]struct {
		classes  []Class
		workers  []Worker
		snapshot Snapshot // the rest of it
		request  Request
		policy   Policy // defaults to warm-then-job

		want        Verdict
		wantPod     string
		wantClass   string
		wantPause   []string
		wantRefusal wire.Refusal
		wantReason  string
		wantRecheck time.Time
	}{
		// Proof.
		"the worker that proved it, though it is fuller": {
			classes: []Class{nvidia(noJobs)}, workers: []Worker{worker("nvidia", "a", 0, proved(soft)), worker("nvidia", "b", 1, proved(gpu))},
			request: Request{Kind: "playback", Needs: h264, Hardware: []string{"nvidia"}}, want: Warm, wantPod: "b",
		},
		"an older release reports nothing: allowed": {
			classes: []Class{nvidia()}, workers: []Worker{worker("nvidia", "a", 0)},
			request: Request{Kind: "playback", Needs: h264}, want: Warm, wantPod: "a",
		},
		"still proving: wait": {
			classes: []Class{nvidia(noJobs)}, workers: []Worker{worker("nvidia", "a", 0, proved(soft), func(w *Worker) { w.Proving = true })},
			request: Request{Kind: "playback", Needs: h264}, want: Wait, wantReason: "1 of 1 warm workers are still proving what they can",
		},
		"still proving: software is known already": {
			classes: []Class{nvidia(noJobs)}, workers: []Worker{worker("nvidia", "a", 0, proved(soft), func(w *Worker) { w.Proving = true })},
			request: Request{Kind: "playback", Needs: []string{"encoder:libx264"}}, want: Warm, wantPod: "a",
		},
		"an encoder that lied gets no work, and no Job of its class": {
			classes: []Class{nvidia()}, workers: []Worker{worker("nvidia", "a", 0, proved(gpu))},
			request: Request{Kind: "playback", Needs: []string{"encoder:av1_nvenc"}}, want: Reject, wantRefusal: wire.Refusal_NO_CLASS,
			wantReason: "no class can do it: class nvidia: encoder:av1_nvenc failed its trial (no capable devices found)",
		},
		"software that no worker lists is for ffmpeg to refuse": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 0, proved(soft))},
			request: Request{Kind: "playback", Needs: []string{"encoder:nope"}}, want: Warm, wantPod: "a",
		},
		"software that no worker lists, and hardware that none proved": {
			classes: []Class{nvidia()}, workers: []Worker{worker("nvidia", "a", 0, proved(gpu))},
			request: Request{Kind: "playback", Needs: []string{"encoder:av1_nvenc", "filter:nope"}}, want: Reject, wantRefusal: wire.Refusal_NO_CLASS,
		},
		"software that the caller's own ffmpeg may have": {
			classes: []Class{cpu(func(c *Class) { c.Can = soft })}, request: Request{Kind: "playback", Needs: []string{"encoder:nope"}, LocalOK: true},
			want: Reject, wantRefusal: wire.Refusal_NO_CLASS, wantReason: "class cpu: encoder:nope is not offered",
		},
		"what the last workers of the template proved holds for Jobs": {
			classes: []Class{nvidia(func(c *Class) { c.Can = gpu; c.Replicas = 0 })}, request: Request{Kind: "playback", Needs: h264}, want: Job, wantClass: "nvidia",
		},
		"a class without devices that proved the hardware": {
			classes: []Class{cpu(), {Name: "bare", Cost: 5, Jobs: 1, Replicas: 1}},
			workers: []Worker{worker("cpu", "a", 0, proved(soft)), worker("bare", "b", 1, proved(gpu))},
			request: Request{Kind: "playback", Needs: h264, Hardware: []string{"nvidia"}}, want: Warm, wantPod: "b",
		},
		"the driver has no encoder left": {
			classes: []Class{nvidia(noJobs)}, request: Request{Kind: "playback", Needs: h264},
			workers: []Worker{worker("nvidia", "a", 1, proved(gpu), func(w *Worker) { w.Encodes, w.ParallelEncodes = 1, 1 })},
			want:    Wait, wantReason: "no usable warm slot",
		},
		"but it decodes": {
			classes: []Class{nvidia(noJobs)}, request: Request{Kind: "playback", Needs: []string{"hwaccel:cuda"}},
			workers: []Worker{worker("nvidia", "a", 1, proved(gpu), func(w *Worker) { w.Encodes, w.ParallelEncodes = 1, 1 })},
			want:    Warm, wantPod: "a",
		},

		// Load, affinity, spread.
		"as full: the one that measured less": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 1, load(900, 0)), worker("cpu", "b", 1, load(200, 0))},
			request: Request{Kind: "playback"}, want: Warm, wantPod: "b",
		},
		"as full: the GPU counts for hardware": {
			classes: []Class{nvidia()}, workers: []Worker{worker("nvidia", "a", 1, load(100, 900)), worker("nvidia", "b", 1, load(900, 100))},
			request: Request{Kind: "playback", Needs: h264}, want: Warm, wantPod: "b",
		},
		"the viewer's last worker": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0), worker("cpu", "b", 0)}, snapshot: Snapshot{Viewers: map[string]string{"v": "b"}},
			request: Request{Kind: "playback", Viewer: "v"}, want: Warm, wantPod: "b",
		},
		"not when it has more than its share": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0), worker("cpu", "b", 1)}, snapshot: Snapshot{Viewers: map[string]string{"v": "b"}},
			request: Request{Kind: "playback", Viewer: "v"}, want: Warm, wantPod: "a",
		},
		"near the end of its memory: last": {
			classes: []Class{cpu()}, request: Request{Kind: "playback"},
			workers: []Worker{worker("cpu", "a", 0, func(w *Worker) { w.Load = Load{Memory: 95, MemoryLimit: 100} }), worker("cpu", "b", 1)},
			want:    Warm, wantPod: "b",
		},
		"near the end of its memory: better than none": {
			classes: []Class{cpu()}, request: Request{Kind: "playback"},
			workers: []Worker{worker("cpu", "a", 0, func(w *Worker) { w.Load = Load{Memory: 95, MemoryLimit: 100} })},
			want:    Warm, wantPod: "a",
		},

		// Standby.
		"warm before standby": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0, func(w *Worker) { w.Standby = true }), worker("cpu", "b", 1)},
			want: Warm, wantPod: "b",
		},
		"standby before a Job": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0, func(w *Worker) { w.Standby, w.Slots = true, 1 }), worker("cpu", "b", 2)},
			want: Standby, wantPod: "a", wantReason: "class cpu: Job a was on standby",
		},
		"policy job takes the standby": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0, func(w *Worker) { w.Standby = true }), worker("cpu", "b", 0)},
			policy: JobOnly, want: Standby, wantPod: "a",
		},
		"policy warm does not": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0, func(w *Worker) { w.Standby = true })}, policy: WarmOnly,
			want: Wait, wantReason: "none of 1 warm workers is ready",
		},

		// Jobs.
		"another's pod holds a device: a Job may wait for it in Kubernetes": {
			classes: []Class{nvidia()}, workers: []Worker{worker("nvidia", "a", 2)}, snapshot: Snapshot{Supply: map[string]Supply{"nvidia.com/gpu": {Total: 2, Warm: 1}}},
			want: Job, wantClass: "nvidia",
		},
		"Kubernetes' own words": {
			classes: []Class{nvidia(func(c *Class) { c.Unable = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"; c.Replicas = 0 })},
			want:    Wait, wantReason: "Kubernetes does not run its pods: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu",
		},
		"an unable class's warm worker is as good as any": {
			classes: []Class{nvidia(func(c *Class) { c.Unable = "quota" })}, workers: []Worker{worker("nvidia", "a", 0)}, want: Warm, wantPod: "a",
		},

		// The network.
		"only a class with egress": {
			classes: []Class{cpu(), {Name: "out", Cost: 9, Jobs: 1, Egress: ffmpeg.AnyEgress}}, workers: []Worker{worker("cpu", "a", 0)},
			request: Request{Kind: "live", Network: ffmpeg.AnyEgress}, want: Job, wantClass: "out",
		},
		"no class with egress": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0)}, request: Request{Kind: "live", Network: ffmpeg.AnyEgress},
			want: Reject, wantRefusal: wire.Refusal_NO_CLASS, wantReason: "no class may reach what the command reads from the network (egress true); asked: cpu",
		},
		"a class that reaches its caller, for live television": {
			classes: []Class{cpu(), {Name: "near", Cost: 9, Jobs: 1, Egress: ffmpeg.CallerEgress}}, workers: []Worker{worker("cpu", "a", 0)},
			request: Request{Kind: "live", Network: ffmpeg.CallerEgress}, want: Job, wantClass: "near",
		},
		"a class that reaches its caller, and no farther": {
			classes: []Class{cpu(func(c *Class) { c.Egress = ffmpeg.CallerEgress })}, workers: []Worker{worker("cpu", "a", 0)}, request: Request{Kind: "live", Network: ffmpeg.AnyEgress},
			want: Reject, wantRefusal: wire.Refusal_NO_CLASS, wantReason: "(egress true)",
		},

		// Making room.
		"playback pauses loudness": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 2, runs("loudness"))}, request: Request{Kind: "playback"},
			want: Warm, wantPod: "a", wantPause: []string{"a-loudness"}, wantReason: "session a-loudness (loudness) on a is paused for it",
		},
		"an image does not": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 2, runs("loudness"))}, request: Request{Kind: "image"}, want: Job, wantClass: "cpu",
		},
		"trickplay is never paused": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 2, runs("trickplay"))}, request: Request{Kind: "playback"}, want: Wait,
		},
		"what holds a device is never paused": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 2, runs("keyframes", func(x *Running) { x.Hardware = true }))},
			request: Request{Kind: "playback"}, want: Wait,
		},
		"what was paused a moment ago is left to run": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 2, runs("keyframes", func(x *Running) { x.Since = now.Add(-time.Second) }))},
			request: Request{Kind: "playback"}, want: Wait,
		},
		"a free slot elsewhere is better than a pause": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 2, runs("loudness")), worker("cpu", "b", 1)}, request: Request{Kind: "probe"},
			want: Warm, wantPod: "b",
		},
		"loudness does not take the slot of a paused one": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 1, runs("loudness", func(x *Running) { x.Paused = true; x.Since = now }))},
			request: Request{Kind: "keyframes"}, want: Wait, wantReason: "no usable warm slot",
		},
		"playback does": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 1, runs("loudness", func(x *Running) { x.Paused = true; x.Since = now }))},
			request: Request{Kind: "playback"}, want: Warm, wantPod: "a",
		},
		"not when the pause has been long": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 1, runs("loudness", func(x *Running) { x.Paused = true; x.Since = now.Add(-LongestPause) }))},
			request: Request{Kind: "playback"}, want: Wait,
		},

		// Limits and fallbacks.
		"an image waits a little": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 2)}, request: Request{Kind: "image", LocalOK: true, Asked: now.Add(-2 * time.Second)},
			want: Wait, wantRecheck: now.Add(3 * time.Second),
		},
		"and goes local": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 2)}, request: Request{Kind: "image", LocalOK: true, Asked: now.Add(-5 * time.Second)},
			want: Local, wantReason: "2 of 2 warm slots taken, no Jobs allowed; kind image runs locally after 5s",
		},
		"it does not wait for what cannot come": {
			classes: []Class{cpu(noJobs)}, request: Request{Kind: "trickplay", LocalOK: true}, want: Local, wantReason: "none of 1 warm workers is ready",
		},
		"it waits on when it cannot run locally": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 2)}, request: Request{Kind: "image", Asked: now.Add(-9 * time.Second)},
			want: Wait, wantReason: "it cannot run locally",
		},
		"a Job that starts in time": {
			classes: []Class{cpu(func(c *Class) { c.JobStart = 2 * time.Second })}, workers: []Worker{worker("cpu", "a", 2)},
			request: Request{Kind: "image", LocalOK: true}, want: Job, wantClass: "cpu",
		},
		"a Job that does not": {
			classes: []Class{cpu(func(c *Class) { c.JobStart = 2 * time.Second })}, workers: []Worker{worker("cpu", "a", 2)},
			request: Request{Kind: "image", LocalOK: true, Asked: now.Add(-4 * time.Second)}, want: Wait, wantReason: "a Job would start after 2s, and kind image must within 5s", wantRecheck: now.Add(time.Second),
		},
		"our own warm pods hold the device: local, and why": {
			classes: []Class{nvidia()}, workers: []Worker{worker("nvidia", "a", 2)}, snapshot: Snapshot{Supply: map[string]Supply{"nvidia.com/gpu": {Total: 1, Warm: 1}}},
			request: Request{Kind: "image", LocalOK: true, Asked: now.Add(-5 * time.Second)},
			want:    Local, wantReason: "its warm workers hold what a Job would need: 1 of 1 nvidia.com/gpu",
		},
		"playback waits": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 2)}, request: Request{Kind: "playback", LocalOK: true, Asked: now.Add(-time.Hour)}, want: Wait,
		},
		"playback that is told to go local": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 2)},
			request: Request{Kind: "playback", LocalOK: true, Asked: now.Add(-10 * time.Second), Fallback: Fallback{Then: Local, After: 10 * time.Second}}, want: Local,
		},
		"playback that is told to fail": {
			classes: []Class{cpu(noJobs)}, workers: []Worker{worker("cpu", "a", 2)},
			request: Request{Kind: "playback", Asked: now.Add(-10 * time.Second), Fallback: Fallback{Then: Reject, After: 10 * time.Second}},
			want:    Reject, wantRefusal: wire.Refusal_QUEUE_TIMEOUT, wantReason: "no worker within 10s: class cpu: 2 of 2 warm slots taken",
		},
		"nothing could run it: local, if it may": {
			classes: []Class{cpu(func(c *Class) { c.Kinds = []string{"live"} })}, request: Request{Kind: "image", LocalOK: true},
			want: Local, wantReason: "no class takes sessions of kind image; asked: cpu; it runs locally",
		},
		"a caller with as many as it may have": {
			classes: []Class{cpu()}, workers: []Worker{worker("cpu", "a", 0)}, snapshot: Snapshot{Callers: map[string]int{"ns/jf": 3}},
			request: Request{Kind: "playback", Caller: "ns/jf", CallerLimit: 3}, want: Wait, wantReason: "ns/jf has 3 of at most 3 sessions on workers",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := tt.snapshot
			s.Classes, s.Workers = tt.classes, tt.workers
			if tt.policy == "" {
				tt.policy = WarmThenJob
			}
			got := Decide(s, tt.request, tt.policy, now)
			if got.Verdict != tt.want || got.Pod != tt.wantPod || tt.wantClass != "" && got.Class != tt.wantClass ||
				got.Refusal != tt.wantRefusal || !slices.Equal(got.Pause, tt.wantPause) || !got.Recheck.Equal(tt.wantRecheck) {
				t.Errorf("got %+v", got)
			}
			if !strings.Contains(got.Reason, tt.wantReason) {
				t.Errorf("reason %q, want %q in it", got.Reason, tt.wantReason)
			}
		})
	}
}

// What must keep up with a clock minds a busy worker more than a full one.
func TestRealtime(t *testing.T) {
	slots := func(n int) func(*Worker) { return func(w *Worker) { w.Slots = n } }
	s := Snapshot{Classes: []Class{cpu()}, Workers: []Worker{
		worker("cpu", "calm", 1, slots(4), load(300, 0)), worker("cpu", "empty", 0, slots(4), load(500, 0)), worker("cpu", "full", 3, slots(4), load(900, 0))}}
	for want, r := range map[string]Request{"empty": {Kind: "playback"}, "calm": {Kind: "live", Realtime: true}} {
		if d := Decide(s, r, WarmOnly, now); d.Pod != want {
			t.Errorf("%s: got %s, want %s", r.Kind, d.Pod, want)
		}
	}
}

// A round gives each thing away once: encoders, devices, a caller's share.
func TestRoundTakes(t *testing.T) {
	s := Snapshot{
		Classes: []Class{
			{Name: "amd", Cost: 1, Jobs: 9, Devices: []string{"amd.com/gpu"}},
			{Name: "intel", Cost: 5, Jobs: 9, Devices: []string{"gpu.intel.com/xe"}},
		},
		Supply:  map[string]Supply{"amd.com/gpu": {Total: 2, Free: 1, Warm: 1}, "gpu.intel.com/xe": {Total: 1, Free: 1}},
		Workers: []Worker{worker("amd", "a", 0, func(w *Worker) { w.Slots, w.ParallelEncodes = 9, 2 })},
	}
	r := Request{Kind: "playback", Needs: []string{"encoder:h264_vaapi"}, Hardware: []string{"intel", "amd"}, Caller: "jf", CallerLimit: 5, Viewer: "v"}
	b := NewRound(s)
	var got []string
	for range 6 {
		d := b.Decide(r, WarmThenJob, now)
		b.Take(d)
		got = append(got, strings.TrimSpace(string(d.Verdict)+" "+d.Class))
	}
	// The second Job finds the first's device taken, and the third all of them.
	if want := []string{"warm amd", "warm amd", "job amd", "job intel", "job amd", "wait"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if b.last("v") != "a" || s.Workers[0].Used != 0 || s.Supply["amd.com/gpu"].Free != 1 {
		t.Errorf("viewer's worker %q, the snapshot %+v", b.last("v"), s)
	}
}

// A Job that could be late is none for a kind with a liveness limit: also when it is
// not known how late.
func TestUnknownJobStart(t *testing.T) {
	r := Request{Kind: "image", LocalOK: true}
	s := Snapshot{Classes: []Class{cpu()}}
	if d := Decide(s, r, WarmThenJob, now); d.Verdict != Local || !strings.Contains(d.Reason, "it is not known how soon a Job would start") {
		t.Errorf("got %+v", d)
	}
	r.LocalOK = false
	if d := Decide(s, r, WarmThenJob, now); d.Verdict != Job {
		t.Errorf("it cannot run locally: got %+v", d)
	}
}

// A paused session comes back: when its slot is free, and before anything new once
// it has been paused for long.
func TestContinue(t *testing.T) {
	paused := func(ago time.Duration) func(*Running) {
		return func(x *Running) { x.Paused, x.Since, x.ID = true, now.Add(-ago), x.ID+ago.String() }
	}
	b := NewRound(Snapshot{Classes: []Class{cpu()}, Workers: []Worker{
		worker("cpu", "a", 1, runs("loudness", paused(time.Second)), runs("keyframes", paused(time.Minute))), worker("cpu", "b", 2, runs("loudness", paused(time.Hour)))}})
	want := []Continuation{{Pod: "a", Nonce: "n-a", Session: "a-keyframes1m0s"}}
	if got := b.Continue(now); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := b.Continue(now); len(got) > 0 {
		t.Errorf("a second time: %+v", got)
	}
	if d := b.Decide(Request{Kind: "subtitle"}, WarmOnly, now); d.Verdict != Wait {
		t.Errorf("the slot was given away twice: %+v", d)
	}
}
