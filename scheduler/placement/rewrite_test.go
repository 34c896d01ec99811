package placement

import (
	"strings"
	"testing"

	"github.com/ffpod/ffpod/podexec/wire"
)

var (
	arc   = NewProfile([]string{"encoder:libx264", "encoder:h264_qsv", "device:qsv"}, map[string]string{"encoder:av1_qsv": "no such entry point"})
	asQSV = Alternative{Needs: []string{"encoder:h264_qsv", "device:qsv"}, Hardware: []string{"intel"}}
	asCPU = Alternative{Needs: []string{"encoder:libx264"}}
)

func intel(mods ...func(*Class)) Class {
	c := Class{Name: "intel", Cost: 5, Jobs: 1, Replicas: 1, Devices: []string{"gpu.intel.com/xe"}}
	for _, m := range mods {
		m(&c)
	}
	return c
}

// forNVIDIA is a session whose line names NVIDIA's hardware, with what it would be
// elsewhere.
func forNVIDIA(alternatives map[string]Alternative) Request {
	return Request{Kind: "playback", Needs: h264, Hardware: []string{"nvidia"}, Alternatives: alternatives}
}

func TestRewritten(t *testing.T) {
	noJobs := func(c *Class) { c.Jobs = 0 }
	both := map[string]Alternative{"intel": asQSV, "cpu": asCPU}
	refused := map[string]Alternative{"intel": {Refused: "to qsv: -crf: it is not known"}}
	tests := map[string]struct {
		classes []Class
		workers []Worker
		request Request
		policy  Policy // defaults to warm-then-job

		want        Verdict
		wantPod     string
		wantClass   string
		wantReason  string
		rewritten   bool
		encodes     bool
		wantRefusal wire.Refusal
	}{
		"the hardware itself, though it costs more and is fuller": {
			classes: []Class{cpu(), nvidia(), intel()}, request: forNVIDIA(both),
			workers: []Worker{worker("cpu", "c", 0, proved(soft)), worker("nvidia", "n", 1, proved(gpu)), worker("intel", "i", 0, proved(arc))},
			want:    Warm, wantPod: "n", encodes: true,
		},
		"its slots are taken: another GPU rather than the cheaper CPU": {
			classes: []Class{cpu(), nvidia(), intel()}, request: forNVIDIA(both),
			workers: []Worker{worker("cpu", "c", 0, proved(soft)), worker("nvidia", "n", 2, proved(gpu)), worker("intel", "i", 1, proved(arc))},
			want:    Warm, wantPod: "i", rewritten: true, encodes: true, wantReason: "class intel, rewritten: 1 of 2 slots free on i",
		},
		"then the CPU, where it encodes on none": {
			classes: []Class{cpu(), nvidia(), intel()}, request: forNVIDIA(both),
			workers: []Worker{worker("cpu", "c", 0, proved(soft)), worker("nvidia", "n", 2, proved(gpu)), worker("intel", "i", 2, proved(arc))},
			want:    Warm, wantPod: "c", rewritten: true,
		},
		"then a Job of its own hardware": {
			classes: []Class{cpu(), nvidia(), intel()}, request: forNVIDIA(both),
			workers: []Worker{worker("cpu", "c", 2, proved(soft)), worker("nvidia", "n", 2, proved(gpu)), worker("intel", "i", 2, proved(arc))},
			want:    Job, wantClass: "nvidia", encodes: true,
		},
		"then a Job of the other": {
			classes: []Class{nvidia(noJobs), intel()}, request: forNVIDIA(both),
			workers: []Worker{worker("nvidia", "n", 2, proved(gpu)), worker("intel", "i", 2, proved(arc))},
			want:    Job, wantClass: "intel", rewritten: true, encodes: true,
		},
		"no class has its hardware": {
			classes: []Class{cpu(), intel()}, request: forNVIDIA(both), workers: []Worker{worker("cpu", "c", 0, proved(soft)), worker("intel", "i", 1, proved(arc))},
			want: Warm, wantPod: "i", rewritten: true, encodes: true,
		},
		"nothing is known of the workers: rewritten, by the devices": {
			classes: []Class{cpu(), intel()}, request: forNVIDIA(map[string]Alternative{"intel": asQSV}), workers: []Worker{worker("cpu", "c", 0), worker("intel", "i", 1)},
			want: Warm, wantPod: "i", rewritten: true, encodes: true,
		},
		"a class that does not ask for it gets none": {
			classes: []Class{nvidia(noJobs), intel()}, request: forNVIDIA(nil),
			workers: []Worker{worker("nvidia", "n", 2, proved(gpu)), worker("intel", "i", 0, proved(arc))},
			want:    Wait, wantReason: "class nvidia: 2 of 2 warm slots taken, no Jobs allowed",
		},
		"what it would need there is refuted, too": {
			classes: []Class{intel()}, workers: []Worker{worker("intel", "i", 0, proved(arc))},
			request: forNVIDIA(map[string]Alternative{"intel": {Needs: []string{"encoder:av1_qsv"}, Hardware: []string{"intel"}}}),
			want:    Reject, wantRefusal: wire.Refusal_NO_CLASS,
			wantReason: "class intel: encoder:h264_nvenc is not offered, rewritten: encoder:av1_qsv failed its trial (no such entry point)",
		},
		"what it would need is still being proved": {
			classes: []Class{intel(noJobs)}, workers: []Worker{worker("intel", "i", 0, proved(soft), func(w *Worker) { w.Proving = true })},
			request: forNVIDIA(both), want: Wait, wantReason: "class intel, rewritten: 1 of 1 warm workers are still proving what they can",
		},
		"it cannot be rewritten: refused in words": {
			classes: []Class{intel()}, workers: []Worker{worker("intel", "i", 0, proved(arc))}, request: forNVIDIA(refused),
			want: Reject, wantRefusal: wire.Refusal_NO_CLASS,
			wantReason: "class intel: encoder:h264_nvenc is not offered, cannot be rewritten: to qsv: -crf: it is not known",
		},
		"it cannot be rewritten: the wait says so": {
			classes: []Class{nvidia(noJobs), intel()}, request: forNVIDIA(refused),
			workers: []Worker{worker("nvidia", "n", 2, proved(gpu)), worker("intel", "i", 0, proved(arc))},
			want:    Wait, wantReason: "2 of 2 warm slots taken, no Jobs allowed; class intel: cannot be rewritten: to qsv: -crf: it is not known",
		},
		"a driver that lied is no hardware: rewritten": {
			classes: []Class{nvidia(), intel()}, workers: []Worker{worker("nvidia", "n", 0, proved(gpu)), worker("intel", "i", 0, proved(arc))},
			request: Request{Kind: "playback", Needs: []string{"encoder:av1_nvenc"}, Hardware: []string{"nvidia"}, Alternatives: both},
			want:    Warm, wantPod: "i", rewritten: true, encodes: true,
		},
		"a line for one maker's VAAPI is rewritten for another's, whatever it proved": {
			classes: []Class{{Name: "amd", Replicas: 1, Devices: []string{"amd.com/gpu"}}},
			workers: []Worker{worker("amd", "a", 0, proved(NewProfile([]string{"encoder:h264_vaapi"}, nil)))},
			request: Request{Kind: "playback", Needs: []string{"encoder:h264_vaapi"}, Hardware: []string{"intel"},
				Alternatives: map[string]Alternative{"amd": {Needs: []string{"encoder:h264_vaapi"}, Hardware: []string{"amd", "intel"}}}},
			want: Warm, wantPod: "a", rewritten: true, encodes: true,
		},
		"what needs no hardware is not rewritten": {
			classes: []Class{cpu()}, request: Request{Kind: "playback", Needs: []string{"encoder:libx264"}, Alternatives: both},
			workers: []Worker{worker("cpu", "c", 0, proved(soft))}, want: Warm, wantPod: "c",
		},
		"where only some workers of a class can, its Jobs run it rewritten": {
			classes: []Class{nvidia(func(c *Class) { c.Can = soft })}, workers: []Worker{worker("nvidia", "n", 2, proved(gpu))},
			request: forNVIDIA(map[string]Alternative{"nvidia": asCPU}), want: Job, wantClass: "nvidia", rewritten: true,
		},
		"a bound of the driver holds for what is rewritten": {
			classes: []Class{intel(noJobs)}, request: forNVIDIA(both),
			workers: []Worker{worker("intel", "i", 1, proved(arc), func(w *Worker) { w.Encodes, w.ParallelEncodes = 1, 1 })},
			want:    Wait, wantReason: "class intel, rewritten: no usable warm slot",
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.policy == "" {
				tc.policy = WarmThenJob
			}
			d := Decide(Snapshot{Classes: tc.classes, Workers: tc.workers}, tc.request, tc.policy, now)
			if d.Verdict != tc.want || d.Pod != tc.wantPod || tc.wantClass != "" && d.Class != tc.wantClass || d.Refusal != tc.wantRefusal ||
				d.Translated != tc.rewritten || d.Encodes != tc.encodes || !strings.Contains(d.Reason, tc.wantReason) {
				t.Errorf("got %+v", d)
			}
		})
	}
}

// A worker that still proves may have what no trial has refuted yet, but no software
// that it does not list.
func TestMay(t *testing.T) {
	for _, tc := range []struct {
		of            *Profile
		capability    string
		proved, while bool // still proving
	}{
		{arc, "encoder:h264_qsv", true, true},
		{arc, "encoder:hevc_qsv", false, true},
		{arc, "encoder:av1_qsv", false, false},
		{arc, "filter:zscale", false, false},
		{nil, "filter:zscale", true, true},
	} {
		if got, while := tc.of.May(tc.capability, false), tc.of.May(tc.capability, true); got != tc.proved || while != tc.while {
			t.Errorf("%s: %v, while proving %v", tc.capability, got, while)
		}
	}
}
