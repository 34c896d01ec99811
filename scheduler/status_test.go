package scheduler

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/placement"
	"github.com/ffpod/ffpod/scheduler/store"
)

// TestStatus has a session of each sort, and looks for words of their commands.
func TestStatus(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Classes = fakeClasses{{Name: "cpu", Deployment: "ffpod-cpu", Usable: true, Replicas: 1}, {Name: "gpu", Deployment: "broken", Problems: []string{"it has no container worker"}}}
		c.Version = "v1"
	})
	hold := make(chan struct{})
	r.add("w1", 1, func(s wire.Runner_RunServer) error {
		st := startOf(s)
		_ = begin(s)
		if st.GetSession() == "s1" {
			return end(s, &wire.Exit{Session: "s1", Code: 3})
		}
		<-hold
		return end(s, &wire.Exit{Session: st.GetSession()})
	})
	if _, err := r.start("s1", resumes, io.Discard).wait(t); err != nil {
		t.Fatal(err)
	}
	two := r.start("s2", resumes, io.Discard)
	eventually(t, "s2 runs", func() bool { return r.state("s2") == store.Running })
	three := r.start("s3", resumes, io.Discard)
	eventually(t, "s3 waits", func() bool {
		s, _, _ := r.store.Get(t.Context(), "s3")
		return s.State == store.Queued && s.Reason != ""
	})
	got, err := r.sched.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, s := range got.Sessions {
		words = append(words, s.ID+" "+s.State)
	}
	if strings.Join(words, ", ") != "s3 queued, s2 running, s1 ended" {
		t.Errorf("sessions: %v", words)
	}
	if s := got.Sessions[0]; !s.Waits() || s.Reason == "" || s.Caller != "jellyfin" || s.CallerPod != "jellyfin-0" || s.Failed {
		t.Errorf("waits: %+v", s)
	}
	if s := got.Sessions[1]; !s.Runs() || s.Pod != "w1" || s.Node != "node-w1" || s.Class != "cpu" || s.Placement != "warm" || s.Started.IsZero() || s.Exit != nil {
		t.Errorf("runs: %+v", s)
	}
	if s := got.Sessions[2]; !s.Failed || s.Exit == nil || s.Exit.Code != 3 || s.Ended.IsZero() {
		t.Errorf("ended: %+v", s)
	}
	if len(got.Classes) != 2 || got.Classes[1].Usable || got.Classes[1].Problems[0] == "" || got.Version != "v1" || got.Namespace != "media" {
		t.Errorf("%+v", got)
	}
	if len(got.Workers) != 1 || got.Workers[0].Used != 1 || got.Workers[0].Role != "warm" || !got.Workers[0].Ready {
		t.Errorf("workers: %+v", got.Workers)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"secret-name", "out.m3u8", "/media"} {
		if strings.Contains(string(b), secret) {
			t.Errorf("%q is told: %s", secret, b)
		}
	}
	close(hold)
	for _, s := range []*shim{two, three} {
		if _, err := s.wait(t); err != nil {
			t.Error(err)
		}
	}
}

func TestFailed(t *testing.T) {
	for name, c := range map[string]struct {
		state store.State
		end   store.Outcome
		want  bool
	}{
		"zero":             {store.Ended, store.Outcome{}, false},
		"code":             {store.Ended, store.Outcome{Code: 1}, true},
		"killed by caller": {store.Ended, store.Outcome{Signal: 9, Cause: callersSignal}, false},
		"killed by memory": {store.Ended, store.Outcome{Signal: 9, Cause: "the worker ran out of memory"}, true},
		"no worker":        {store.Refused, store.Outcome{Cause: "QUEUE_TIMEOUT: no worker"}, true},
		"caller left":      {store.Refused, store.Outcome{Cause: "the shim's stream ended"}, false},
		"caller killed":    {store.Lost, store.Outcome{Cause: "the shim's stream ended; ffmpeg was killed"}, false},
		"worker gone":      {store.Lost, store.Outcome{Cause: "pod w1 was deleted"}, true},
		"runs":             {store.Running, store.Outcome{}, false},
	} {
		if got := told(store.Session{State: c.state, Outcome: c.end}); got.Failed != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// What workers proved, who waits in which place and who is paused is told.
func TestStatusOfHardware(t *testing.T) {
	standby := &fakeStandbys{taken: make(chan string, 1), state: channels.WorkerState{Slots: 1, Ready: true, Worker: lease.Worker{Class: "gpu", Pod: "standby-1", Nonce: "n"}}}
	jobs := newFakeJobs()
	r := newRig(t, func(c *Config) {
		c.Classes = fakeClasses{{Name: "cpu", Usable: true, Replicas: 1, Egress: ffmpeg.CallerEgress, Standby: class.Bounds{Max: 2}, Scale: &class.Bounds{Max: 3}},
			{Name: "gpu", Usable: true, Devices: []string{"nvidia.com/gpu"}}}
		c.Policy, c.Jobs, c.Standbys = "warm", listed{jobs, []channels.WorkerState{standby.state, {Worker: lease.Worker{Class: "gpu", Pod: "job-1", Nonce: "n"}}}}, standby
		c.Unable = func(name string) string { return map[string]string{"gpu": "FailedScheduling: no GPU"}[name] }
	})
	release := releases("loud", "film", "sub", "film2")
	w, gpu := r.add("w", 1, untilReleased(release)), r.add("g", 2, nil)
	r.pool.mu.Lock()
	w.state.Description = &wire.Description{Proves: true, ParallelEncodes: 3, Load: &wire.Load{CpuPermille: 500, GpuKnown: true, GpuPermille: 0, MemoryBytes: 7, MemoryLimitBytes: 900},
		Capabilities: []string{"encoder:libx264", "encoder:ffv1", "decoder:flac", "encoder:h264_nvenc", "decoder:h264_cuvid", "hwaccel:cuda", "device:cuda", "filter:ebur128", "filter:tonemap_cuda", "filter:vpp_qsv", "filter:vpp_qsv=tonemap"},
		Flaws:        []*wire.Flaw{{Capability: "encoder:av1_nvenc", Reason: "No capable devices found"}, {Capability: "encoder:h264_qsv", Reason: "no node"}}}
	gpu.state.Class, gpu.state.Description = "gpu", w.state.Description
	r.pool.mu.Unlock()
	loud := r.start("loud", argv(loudness), nil)
	eventually(t, "the scan runs", func() bool { return r.state("loud") == store.Running })
	film := r.start("film", func(s *wire.Start) { play("film")(s); s.Class = "cpu" }, nil)
	within(t, film.started, "the start of the film")
	sub := r.start("sub", func(s *wire.Start) { argv("-i /media/a.mkv -map 0:s:0 /cache/a.srt")(s); s.Class = "cpu" }, nil)
	eventually(t, "sub waits", func() bool { return r.state("sub") == store.Queued })
	film2 := r.start("film2", func(s *wire.Start) { play("film2")(s); s.Class = "cpu" }, nil)
	eventually(t, "film2 waits", func() bool {
		return r.state("film2") == store.Queued && r.sched.queued()[[2]string{"playback", "cpu"}] == 1
	})

	got, err := r.sched.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	zero := 0
	want := map[string]api.Worker{
		"w": {Role: "warm", Hardware: &api.Hardware{Encoders: []string{"h264_nvenc"}, Decoders: []string{"h264_cuvid"}, Hwaccels: []string{"cuda"}, ToneMapping: []string{"tonemap_cuda", "vpp_qsv"}, Devices: []string{"cuda"}},
			Proves: true, Flaws: []api.Flaw{{Capability: "encoder:av1_nvenc", Reason: "No capable devices found"}, {Capability: "encoder:h264_qsv", Reason: "no node"}},
			ParallelEncodes: 3, Load: &api.Load{CPU: 500, GPU: &zero, Memory: 7, MemoryLimit: 900}, Paused: []string{"loud"}},
		"standby-1": {Role: "standby"}, "job-1": {Role: "job"},
	}
	for _, x := range got.Workers {
		if x.Pod == "g" {
			if !x.Flaws[0].Own || x.Flaws[1].Own {
				t.Errorf("flaws of class gpu: %+v", x.Flaws)
			}
			continue
		}
		told := api.Worker{Role: x.Role, Proves: x.Proves, Hardware: x.Hardware, Flaws: x.Flaws, ParallelEncodes: x.ParallelEncodes, Load: x.Load, Paused: x.Paused}
		if diff := cmp.Diff(want[x.Pod], told); diff != "" {
			t.Errorf("%s: %s", x.Pod, diff)
		}
	}
	var words []string
	for _, s := range got.Sessions {
		words = append(words, fmt.Sprint(s.ID, " ", s.Position, " ", s.Priority, " ", s.Paused))
	}
	if said := strings.Join(words, ", "); !strings.HasPrefix(said, "film2 1 40 false, sub 2 20 false, ") || !strings.Contains(said, "loud 0 10 true") || !strings.Contains(said, "film 0 40 false") {
		t.Errorf("sessions: %s", said)
	}
	if c := got.Classes[0]; c.Egress != "caller" || c.Standby.Max != 2 || c.Scale.Max != 3 || c.Unable != "" || got.Classes[1].Unable == "" || got.Classes[1].Standby != nil {
		t.Errorf("%+v", got.Classes)
	}
	gauges := `# HELP ffpod_capability_flaws What a class's hardware should do and, by a trial on a worker, does not.
# TYPE ffpod_capability_flaws gauge
ffpod_capability_flaws{class="cpu"} 0
ffpod_capability_flaws{class="gpu"} 1
# HELP ffpod_queue_sessions Sessions that wait for a worker, by kind and by the class they ask for, any if none.
# TYPE ffpod_queue_sessions gauge
ffpod_queue_sessions{class="cpu",kind="playback"} 1
ffpod_queue_sessions{class="cpu",kind="subtitle"} 1
# HELP ffpod_slots Slots of workers, by class and state: free and used; and paused, the sessions that gave theirs away.
# TYPE ffpod_slots gauge
ffpod_slots{class="cpu",state="free"} 0
ffpod_slots{class="cpu",state="paused"} 1
ffpod_slots{class="cpu",state="used"} 1
ffpod_slots{class="gpu",state="free"} 3
ffpod_slots{class="gpu",state="paused"} 0
ffpod_slots{class="gpu",state="used"} 0
# HELP ffpod_workers Workers that are up, by class, role (warm, standby, job) and whether they answer.
# TYPE ffpod_workers gauge
ffpod_workers{class="cpu",ready="true",role="warm"} 1
ffpod_workers{class="gpu",ready="false",role="job"} 1
ffpod_workers{class="gpu",ready="true",role="standby"} 1
ffpod_workers{class="gpu",ready="true",role="warm"} 1
`
	if err := testutil.CollectAndCompare(r.sched.Gauges(), strings.NewReader(gauges)); err != nil {
		t.Error(err)
	}
	for _, c := range release {
		close(c)
	}
	for _, s := range []*shim{loud, film, sub, film2} {
		if _, err := s.wait(t); err != nil {
			t.Error(err)
		}
	}
}

// listed are Jobs whose workers are known.
type listed struct {
	*fakeJobs
	workers []channels.WorkerState
}

func (l listed) Workers() []channels.WorkerState { return l.workers }

// A session that its caller is told to run has not failed, and is counted.
func TestSentBack(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Policy = "warm"
		c.Fallback = map[string]placement.Fallback{"playback": {Then: placement.Local}}
	})
	hold := releases("first")
	r.add("w", 1, untilReleased(hold))
	first := r.start("first", play("first"), nil)
	eventually(t, "the first runs", func() bool { return r.state("first") == store.Running })
	back := r.start("back", func(s *wire.Start) { play("back")(s); s.Local = true }, nil)
	if e := back.refused(t); e.Refusal != wire.Refusal_LOCAL {
		t.Fatalf("%v", e)
	}
	got, err := r.sched.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range got.Sessions {
		if s.ID == "back" && (!s.Local || s.Failed || s.Exit == nil || s.Exit.Cause == "") {
			t.Errorf("%+v", s)
		}
	}
	if n := testutil.ToFloat64(r.sched.cfg.Metrics.fallbacks.WithLabelValues("playback", "local")); n != 1 {
		t.Errorf("%v are counted", n)
	}
	close(hold["first"])
	if _, err := first.wait(t); err != nil {
		t.Fatal(err)
	}
}
