package main

import (
	"bytes"
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
	if err := printStatus(&b, s, 2); err != nil {
		t.Fatal(err)
	}
	want := `scheduler media/s-0 v1, for 3d
  not ready: classes: not read
  admission policy not in force: exec: the attempt was allowed

CLASS  WARM  SLOTS USED  JOBS  KINDS          PROBLEM
cpu    1/2   1/8         1/4   all            -
gpu    0/0   0/0         0/0   playback,live  UNUSABLE: no container worker

WORKER  CLASS  NODE  SLOTS USED  STATE         FFMPEG
cpu-a   cpu    n1    1/4         warm, ready   7.1.3-Jellyfin
cpu-b   cpu    -     0/4         warm, silent  -

RUNS  KIND      CALLER      WORKER        NODE  STATE    FOR
r1    playback  jellyfin-0  cpu-a         n1    running  59s
r2    live      jellyfin-0  a Job of gpu  -     leased   1s

WAITS  KIND   CALLER      FOR   REASON
w1     image  jellyfin-0  1.5s  every slot is taken

FAILED  KIND   CALLER  WORKER  AGO     HOW
f1      other  x       cpu-a   1h0m0s  exit 187
f2      other  x       cpu-c   1h0m0s  lost: pod cpu-c was deleted
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
