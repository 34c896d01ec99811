package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/scheduler/api"
)

func TestPrintStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	s := api.Status{Version: "v1", Namespace: "media", Pod: "s-0", Time: now, Began: ago(90 * time.Hour),
		NotReady: []string{"classes: not read"}, Policies: []string{"exec: the attempt was allowed"},
		Classes: []api.Class{{Name: "cpu", Usable: true, Replicas: 2, Jobs: 4, ActiveJobs: 1}, {Name: "gpu", Problems: []string{"no container worker"}, Kinds: []string{"playback", "live"}}},
		Workers: []api.Worker{{Class: "cpu", Pod: "cpu-a", Node: "n1", Role: "warm", Slots: 4, Used: 1, Ready: true, FFmpeg: "7.1.3-Jellyfin"}, {Class: "cpu", Pod: "cpu-b", Role: "warm", Slots: 4}},
		Sessions: []api.Session{
			{ID: "w1", Kind: "image", CallerPod: "jellyfin-0", State: "queued", Reason: "every slot is taken", Asked: ago(1500 * time.Millisecond)},
			{ID: "r1", Kind: "playback", CallerPod: "jellyfin-0", State: "running", Pod: "cpu-a", Node: "n1", Class: "cpu", Asked: ago(time.Minute), Started: ago(59 * time.Second)},
			{ID: "r2", Kind: "live", CallerPod: "jellyfin-0", State: "leased", Class: "gpu", Asked: ago(time.Second)},
			{ID: "f1", Kind: "other", CallerPod: "x", State: "ended", Pod: "cpu-a", Failed: true, Exit: &api.Exit{Code: 187}, Ended: ago(time.Hour)},
			{ID: "f2", Kind: "other", CallerPod: "x", State: "lost", Pod: "cpu-c", Failed: true, Exit: &api.Exit{Cause: "pod cpu-c was deleted"}, Ended: ago(time.Hour)},
			{ID: "ok", Kind: "other", State: "ended", Exit: &api.Exit{}},
			{ID: "f3", Kind: "other", State: "refused", Failed: true, Ended: ago(2 * time.Hour)},
		}}
	var b bytes.Buffer
	if err := printStatus(&b, s, view{recent: 2}); err != nil {
		t.Fatal(err)
	}
	want := `scheduler media/s-0 v1, for 3d
  not ready: classes: not read
  admission policy not in force: exec: the attempt was allowed

CLASS  WARM  SLOTS USED  STANDBY  JOBS  SCALE  KINDS          PROBLEM
cpu    1/2   1/8         -        1/4   -      all            -
gpu    0/0   0/0         -        0/0   -      playback,live  UNUSABLE: no container worker

WORKER  CLASS  NODE  SLOTS USED  STATE         GPU  LOAD  FFMPEG
cpu-a   cpu    n1    1/4         warm, ready   -    -     7.1.3-Jellyfin
cpu-b   cpu    -     0/4         warm, silent  -    -     -

RUNS  KIND      CALLER      WORKER        NODE  STATE    FOR
r1    playback  jellyfin-0  cpu-a         n1    running  59s
r2    live      jellyfin-0  a Job of gpu  -     leased   1s

WAITS  PLACE  KIND   CALLER      FOR   REASON
w1     -      image  jellyfin-0  1.5s  every slot is taken

FAILED  KIND   CALLER  WORKER  AGO     HOW
f1      other  x       cpu-a   1h0m0s  exit 187
f2      other  x       cpu-c   1h0m0s  lost: pod cpu-c was deleted
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

// home is an install with one GPU, and one that works beside it.
func home() api.Status {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	gpu, broken := 420, "Cannot load libcuda.so.1; Device creation failed: -1."
	own := func(capability, reason string) api.Flaw {
		return api.Flaw{Capability: capability, Reason: reason, Own: true}
	}
	foreign := api.Flaw{Capability: "encoder:h264_qsv", Reason: "no /dev/dri/renderD* in this pod"}
	return api.Status{Version: "v2", Namespace: "media", Pod: "s-0", Time: now, Began: ago(time.Minute),
		Classes: []api.Class{
			{Name: "cpu", Usable: true, Replicas: 1, Jobs: 4, Scale: &api.Bounds{Max: 3}, Unable: "FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu."},
			{Name: "nvidia", Usable: true, Devices: []string{"nvidia.com/gpu"}, Replicas: 2, Jobs: 2, ActiveJobs: 1, Standby: &api.Bounds{Max: 2}}},
		Workers: []api.Worker{
			{Class: "cpu", Pod: "cpu-a", Node: "n1", Role: "warm", Slots: 4, Used: 2, Ready: true, Proves: true, Paused: []string{"loud"}, Flaws: []api.Flaw{foreign},
				Load: &api.Load{CPU: 915, Memory: 900 << 20, MemoryLimit: 2 << 30}},
			{Class: "nvidia", Pod: "gpu-a", Node: "n1", Role: "warm", Slots: 4, Ready: true, Proves: true, ParallelEncodes: 3,
				Hardware: &api.Hardware{Encoders: []string{"h264_nvenc", "hevc_nvenc"}, Decoders: []string{"h264_cuvid"}, Hwaccels: []string{"cuda"}, ToneMapping: []string{"tonemap_cuda"}, Devices: []string{"cuda"}},
				Flaws:    []api.Flaw{own("encoder:av1_nvenc", "No capable devices found"), foreign}, Load: &api.Load{CPU: 100, GPU: &gpu, Memory: 300 << 20}},
			{Class: "nvidia", Pod: "gpu-b", Node: "n2", Role: "warm", Slots: 4, Ready: true, Proves: true,
				Flaws: []api.Flaw{own("decoder:h264_cuvid", broken), own("device:cuda", broken), own("encoder:av1_nvenc", broken), own("encoder:h264_nvenc", broken), own("filter:tonemap_cuda", broken), foreign}},
			{Class: "nvidia", Pod: "gpu-c", Node: "n2", Role: "standby", Slots: 1, Ready: true, Proves: true, Proving: true},
			{Class: "nvidia", Pod: "gpu-d", Node: "n2", Role: "job", Slots: 1, Used: 1, Ready: true}},
		Sessions: []api.Session{
			{ID: "w1", Kind: "playback", CallerPod: "jellyfin-0", State: "queued", Position: 1, Priority: 40, Reason: "every slot is taken", Asked: ago(1500 * time.Millisecond)},
			{ID: "loud", Kind: "loudness", CallerPod: "jellyfin-0", State: "running", Paused: true, Pod: "cpu-a", Node: "n1", Class: "cpu", Asked: ago(time.Minute), Started: ago(59 * time.Second)},
			{ID: "pic", Kind: "image", CallerPod: "jellyfin-0", State: "refused", Local: true, Exit: &api.Exit{Cause: "LOCAL: no worker within 5s"}, Ended: ago(time.Minute)},
		}}
}

// A person with one GPU sees whether it works and, in ffmpeg's words, why not.
func TestPrintGPUs(t *testing.T) {
	for name, c := range map[string]struct {
		show view
		want string
	}{
		"wide": {view{recent: 5}, `scheduler media/s-0 v2, for 1m0s

CLASS   WARM  SLOTS USED  STANDBY   JOBS  SCALE  KINDS  PROBLEM
cpu     1/1   2/4         -         0/4   0..3   all    Kubernetes does not run its pods: FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu.
nvidia  2/2   0/8         1 (0..2)  1/2   -      all    -

WORKER  CLASS   NODE  SLOTS USED     STATE           GPU     LOAD                       FFMPEG
cpu-a   cpu     n1    2/4 +1 paused  warm, ready     -       cpu 91% mem 900Mi/2.0Gi    -
gpu-a   nvidia  n1    0/4            warm, ready     works   cpu 10% gpu 42% mem 300Mi  -
gpu-b   nvidia  n2    0/4            warm, ready     FAILS   -                          -
gpu-c   nvidia  n2    0/1            standby, ready  trying  -                          -
gpu-d   nvidia  n2    1/1            job, ready      ?       -                          -

GPUS
class nvidia (gpu-a) works: encodes h264_nvenc, hevc_nvenc (3 at once); decodes h264_cuvid, -hwaccel cuda; tone-maps by tonemap_cuda
  not encoder:av1_nvenc: No capable devices found
class nvidia (gpu-b) DOES NOT WORK
  not encoder:av1_nvenc, encoder:h264_nvenc, filter:tonemap_cuda, decoder:h264_cuvid and 1 more: Cannot load libcuda.so.1; Device creation failed: -1.
class nvidia (gpu-c) is being tried
class nvidia (gpu-d) is unknown: its worker is of a release that does not try it, or has FFPOD_TRIALS=0

RUNS  KIND      CALLER      WORKER  NODE  STATE   FOR
loud  loudness  jellyfin-0  cpu-a   n1    paused  59s

WAITS  PLACE  KIND      CALLER      FOR   REASON
w1     1      playback  jellyfin-0  1.5s  every slot is taken

SENT BACK  KIND   CALLER      AGO   WHY
pic        image  jellyfin-0  1m0s  LOCAL: no worker within 5s
`},
		"narrow, all flaws": {view{recent: 5, narrow: true, flaws: true}, `scheduler media/s-0 v2, for 1m0s

CLASS   WARM  SLOTS USED  STANDBY   JOBS  PROBLEM
cpu     1/1   2/4         -         0/4   Kubernetes does not run its pods: FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu.
nvidia  2/2   0/8         1 (0..2)  1/2   -

WORKER  CLASS   SLOTS USED     STATE           GPU
cpu-a   cpu     2/4 +1 paused  warm, ready     -
gpu-a   nvidia  0/4            warm, ready     works
gpu-b   nvidia  0/4            warm, ready     FAILS
gpu-c   nvidia  0/1            standby, ready  trying
gpu-d   nvidia  1/1            job, ready      ?

GPUS
class cpu (cpu-a) has none
  not encoder:h264_qsv: no /dev/dri/renderD* in this pod
class nvidia (gpu-a) works: encodes h264_nvenc, hevc_nvenc (3 at once); decodes h264_cuvid, -hwaccel cuda; tone-maps by tonemap_cuda
  not encoder:av1_nvenc: No capable devices found
  not encoder:h264_qsv: no /dev/dri/renderD* in this pod
class nvidia (gpu-b) DOES NOT WORK
  not encoder:av1_nvenc, encoder:h264_nvenc, filter:tonemap_cuda, decoder:h264_cuvid, device:cuda: Cannot load libcuda.so.1; Device creation failed: -1.
  not encoder:h264_qsv: no /dev/dri/renderD* in this pod
class nvidia (gpu-c) is being tried
class nvidia (gpu-d) is unknown: its worker is of a release that does not try it, or has FFPOD_TRIALS=0

RUNS  KIND      WORKER  STATE   FOR
loud  loudness  cpu-a   paused  59s

WAITS  PLACE  KIND      FOR   REASON
w1     1      playback  1.5s  every slot is taken

SENT BACK  KIND   AGO   WHY
pic        image  1m0s  LOCAL: no worker within 5s
`},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := printStatus(&b, home(), c.show); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A status of another release is read for what it has.
func TestStatusSkew(t *testing.T) {
	older := `{"version":"v0","namespace":"media","time":"2026-01-02T03:04:05Z","began":"2026-01-02T03:04:00Z","policies":[],
		"classes":[{"name":"nvidia","deployment":"d","usable":true,"devices":["nvidia.com/gpu"],"cost":0,"replicas":1,"jobs":4,"activeJobs":0}],
		"workers":[{"class":"nvidia","pod":"gpu-a","node":"n1","role":"warm","slots":2,"used":0,"ready":true}],"sessions":[]}`
	newer := strings.NewReplacer(`"role":"warm"`, `"role":"spare","hardware":{"dreams":["x"]},"proves":true`, `"v0"`, `"v9","tomorrow":{"a":[1]}`).Replace(older)
	for text, want := range map[string][]string{
		older: {"gpu-a", "warm, ready", "?", "is unknown"},
		newer: {"gpu-a", "spare, ready", "no encode"},
	} {
		var s api.Status
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := printStatus(&b, s, view{}); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%q is missing in\n%s", w, b.String())
			}
		}
	}
}
