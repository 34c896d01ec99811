package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/pool"
	"github.com/ffpod/ffpod/scheduler/translate"
)

// onNVIDIA is a session that Jellyfin writes for NVIDIA's hardware.
const onNVIDIA = "-hwaccel cuda -hwaccel_output_format cuda -i /media/secret-name.mkv -c:v h264_nvenc -b:v 4000000 -maxrate 4000000 -bufsize 8000000 -c:a copy /cache/%s.mp4"

var (
	provesArc  = describes("encoder:h264_qsv", "encoder:h264_vaapi", "hwaccel:vaapi", "device:vaapi", "device:qsv", "filter:hwmap", "filter:format")
	provesGTX  = describes("encoder:h264_nvenc", "hwaccel:cuda", "device:cuda")
	provesSoft = describes("encoder:libx264", "filter:format")
)

func describes(capabilities ...string) *wire.Description {
	return &wire.Description{Proves: true, Capabilities: capabilities}
}

// vendors is a rig with a class of each sort.
func vendors(t *testing.T, translates ...string) *rig {
	all := map[string]class.Class{
		"cpu": {Name: "cpu", Replicas: 1}, "amd": {Name: "amd", Replicas: 1, Devices: []string{"amd.com/gpu"}},
		"intel": {Name: "intel", Replicas: 1, Devices: []string{"gpu.intel.com/xe"}}, "nvidia": {Name: "nvidia", Replicas: 1, Devices: []string{"nvidia.com/gpu"}},
	}
	var classes fakeClasses
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c := all[name]
		c.Translate = slices.Contains(translates, name)
		classes = append(classes, c)
	}
	return newRig(t, func(c *Config) { c.Classes = classes })
}

// of adds a worker of a class that proved something, and returns the Starts it gets.
func (r *rig) of(name string, slots int, d *wire.Description, release map[string]chan struct{}) (<-chan *wire.Start, *fakeWorker) {
	starts := make(chan *wire.Start, 8)
	w := r.add(name+"-0", slots, func(s wire.Runner_RunServer) error {
		st := startOf(s)
		if st == nil {
			return nil
		}
		starts <- st
		_ = begin(s)
		if wait := release[st.GetSession()]; wait != nil {
			<-wait
		}
		return end(s, &wire.Exit{Session: st.GetSession()})
	})
	r.pool.mu.Lock()
	w.state.Class, w.state.Description = name, d
	r.pool.mu.Unlock()
	r.pool.wake()
	return starts, w
}

func line(s *wire.Start) string { return strings.Join(argvOf(s), " ") }

// The real hardware first; when it is full, the other maker's GPU runs the line
// rewritten, and everything that tells of the session says so, without a path.
func TestRewritten(t *testing.T) {
	r := vendors(t, "intel", "cpu", "nvidia")
	release := releases("first")
	nvidia, _ := r.of("nvidia", 1, provesGTX, release)
	intel, _ := r.of("intel", 1, provesArc, release)
	soft, _ := r.of("cpu", 4, provesSoft, release)

	own := fmt.Sprintf(onNVIDIA, "first")
	first := r.start("first", argv(own), nil)
	if got := within(t, nvidia, "the first Start"); line(got) != own {
		t.Errorf("changed: %s", line(got))
	}
	within(t, first.started, "the first start")

	own = fmt.Sprintf(onNVIDIA, "second")
	second := r.start("second", argv(own), nil)
	got := within(t, intel, "the second Start")
	want, changes, err := translate.Translate(strings.Fields(own), translate.QSV, func(c string) bool { return slices.Contains(provesArc.Capabilities, c) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, argvOf(got)); diff != "" || !strings.Contains(line(got), "h264_qsv") {
		t.Errorf("the line (-want +got):\n%s", diff)
	}
	var rec Record
	if err := json.Unmarshal(got.GetRecord(), &rec); err != nil {
		t.Fatal(err)
	}
	told := "qsv: " + strings.Join(translate.Options(strings.Fields(own), changes), " ")
	if rec.Translated.String() != told || !strings.Contains(told, "-c") || string(rec.Outputs[0]) != "/cache/second.mp4" {
		t.Errorf("record %+v, want %s", rec, told)
	}
	if ticket := within(t, second.ticket, "the ticket"); !strings.Contains(ticket.GetReason(), "class intel, rewritten: ") || !strings.HasSuffix(ticket.GetReason(), "; rewritten for "+told) {
		t.Errorf("ticket %s", ticket.GetReason())
	}
	if _, err := second.wait(t); err != nil {
		t.Fatal(err)
	}
	audit := r.audit("second")
	if audit["translated"] != told || strings.Contains(fmt.Sprint(audit), "secret-name") {
		t.Errorf("audit %v", audit)
	}
	status, err := r.sched.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range status.Sessions {
		if want := map[string]string{"second": told}[s.ID]; s.Translated != want {
			t.Errorf("%s is told to be %q, want %q", s.ID, s.Translated, want)
		}
	}
	close(release["first"])
	if _, err := first.wait(t); err != nil {
		t.Error(err)
	}
	if audit := r.audit("first"); audit["translated"] != nil {
		t.Errorf("audit %v", audit)
	}
	if len(soft) > 0 {
		t.Error("the CPU ran one of them")
	}
}

// What a class's workers proved chooses between its targets, and a class without
// devices encodes in software.
func TestRewrittenFor(t *testing.T) {
	for name, tc := range map[string]struct {
		class  string
		proves *wire.Description
		want   string
	}{
		"QSV":                    {"intel", provesArc, "h264_qsv"},
		"VAAPI, if QSV failed":   {"intel", describes("encoder:h264_vaapi", "hwaccel:vaapi", "device:vaapi"), "h264_vaapi"},
		"AMD":                    {"amd", provesArc, "h264_vaapi"},
		"software":               {"cpu", provesSoft, "libx264"},
		"an older worker":        {"intel", nil, "h264_qsv"},
		"a worker still proving": {"cpu", &wire.Description{Proves: true, Proving: true, Capabilities: provesSoft.Capabilities}, "libx264"},
	} {
		t.Run(name, func(t *testing.T) {
			r := vendors(t, tc.class)
			starts, _ := r.of(tc.class, 1, tc.proves, nil)
			s := r.start("s", argv(fmt.Sprintf(onNVIDIA, "s")), nil)
			if got := line(within(t, starts, "the Start")); !strings.Contains(got, "-c:v "+tc.want+" ") {
				t.Errorf("got %s", got)
			}
			if _, err := s.wait(t); err != nil {
				t.Error(err)
			}
		})
	}
}

// Nothing is rewritten that was not asked for, or that is not understood; the words
// quote no value of the line.
func TestNotRewritten(t *testing.T) {
	only := func(t *testing.T, translates ...string) *rig {
		r := vendors(t, translates...)
		r.of("intel", 1, provesArc, nil)
		r.of("amd", 1, provesArc, nil)
		r.of("nvidia", 1, provesSoft, nil)
		r.of("cpu", 1, provesSoft, nil)
		return r
	}
	for name, tc := range map[string]struct {
		translates []string
		line       string
		env        string
		want       string
	}{
		"no annotation":       {nil, onNVIDIA, "", "class intel: encoder:h264_nvenc is not offered;"},
		"an unknown option":   {[]string{"intel"}, "-i /media/a.mkv -c:v h264_nvenc -frobnicate /media/secret-name /cache/%s.mp4", "", "class intel: encoder:h264_nvenc is not offered, cannot be rewritten: to qsv or vaapi: -frobnicate: it is not known what it means to h264_nvenc;"},
		"a filter":            {[]string{"intel"}, "-i /media/a.mkv -vf frei0r=/media/secret-name -c:v h264_nvenc /cache/%s.mp4", "", "cannot be rewritten: to qsv or vaapi: -vf: something in its value has no counterpart"},
		"what was refuted":    {[]string{"intel"}, "-i /media/a.mkv -c:v hevc_nvenc /cache/%s.mp4", "", "cannot be rewritten: to qsv: it would need encoder:hevc_qsv, which the target does not have; to vaapi: it would need encoder:hevc_vaapi"},
		"a driver of VAAPI's": {[]string{"amd"}, onNVIDIA, "LIBVA_DRIVER_NAME=secret-name", "class amd: encoder:h264_nvenc is not offered, cannot be rewritten: to vaapi: the caller's environment names a driver for its own hardware: LIBVA_DRIVER_NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			r := only(t, tc.translates...)
			s := r.start("s", func(st *wire.Start) {
				argv(fmt.Sprintf(tc.line, "s"))(st)
				if tc.env != "" {
					st.Env = [][]byte{[]byte(tc.env)}
				}
			}, nil)
			got := s.refused(t)
			if got.Refusal != wire.Refusal_NO_CLASS || !strings.Contains(got.Message, tc.want) || strings.Contains(got.Message, "secret-name") {
				t.Errorf("refused %+v", got)
			}
		})
	}
	t.Run("devices of nobody known", func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			c.Classes = fakeClasses{{Name: "odd", Replicas: 1, Devices: []string{"squat.ai/dri"}, Translate: true}}
		})
		r.of("odd", 1, provesArc, nil)
		if got := r.start("s", argv(fmt.Sprintf(onNVIDIA, "s")), nil).refused(t); !strings.Contains(got.Message, "cannot be rewritten: its devices are of no known maker: squat.ai/dri") {
			t.Errorf("refused %+v", got)
		}
	})
}

// A session that a worker does not take is placed again from its own line.
func TestRewrittenAgain(t *testing.T) {
	r := vendors(t, "intel")
	own := fmt.Sprintf(onNVIDIA, "s")
	w := r.add("intel-0", 1, refuseWith(wire.Refusal_NO_SLOT, "full"))
	r.pool.mu.Lock()
	w.state.Class, w.state.Description = "intel", provesArc
	r.pool.mu.Unlock()
	s := r.start("s", argv(own), nil)
	eventually(t, "the refusal", func() bool { return r.logs.FilterMessage("session is placed again").Len() > 0 })
	nvidia, _ := r.of("nvidia", 1, provesGTX, nil)
	if got := within(t, nvidia, "the Start"); line(got) != own {
		t.Errorf("changed: %s", line(got))
	}
	if _, err := s.wait(t); err != nil {
		t.Error(err)
	}
	if audit := r.audit("s"); audit["translated"] != nil || strings.Contains(fmt.Sprint(audit["reason"]), "rewritten") {
		t.Errorf("audit %v", audit)
	}
	if q, _, _ := r.store.Get(t.Context(), "s"); q.Translated != "" {
		t.Errorf("stored as %q", q.Translated)
	}
}

// A Job's worker is given what it proved itself, not what the scheduler hoped for.
func TestRewrittenForAJob(t *testing.T) {
	for name, tc := range map[string]struct {
		proves *wire.Description
		want   string
	}{
		"as hoped":       {provesArc, "h264_qsv"},
		"VAAPI alone":    {describes("encoder:h264_vaapi", "hwaccel:vaapi", "device:vaapi"), "h264_vaapi"},
		"neither of two": {provesSoft, ""},
	} {
		t.Run(name, func(t *testing.T) {
			jobs := &describedJobs{fakeJobs: newFakeJobs(), proves: tc.proves}
			r := newRig(t, func(c *Config) {
				c.Classes, c.Jobs = fakeClasses{{Name: "intel", Jobs: 1, Devices: []string{"gpu.intel.com/xe"}, Translate: true}}, jobs
			})
			starts := make(chan *wire.Start, 1)
			runner := serveRunner(t, func(s wire.Runner_RunServer) error {
				st := startOf(s)
				starts <- st
				_ = begin(s)
				return end(s, &wire.Exit{Session: st.GetSession()})
			})
			destroyed := make(chan struct{}, 8)
			jobs.launch = func(context.Context, string, func(string)) (*lease.Lease, error) {
				return lease.New(lease.Terms{Worker: jobs.worker(), Runner: runner, Gone: make(chan struct{}),
					Release: func() {}, Leave: func() {}, Destroy: func() { destroyed <- struct{}{} }, Suspect: func() {}}), nil
			}
			s := r.start("s", argv(fmt.Sprintf(onNVIDIA, "s")), nil)
			if tc.want == "" {
				within(t, destroyed, "the end of a Job that cannot")
				eventually(t, "the words", func() bool { return r.logs.FilterMessage("session is placed again").Len() > 0 })
				if e := r.logs.FilterMessage("session is placed again").All()[0]; !strings.Contains(fmt.Sprint(e.ContextMap()["error"]), "the session cannot be rewritten for it: to qsv: it would need") {
					t.Errorf("%v", e.ContextMap())
				}
				if len(starts) > 0 {
					t.Error("it was given a Start")
				}
				return
			}
			if got := line(within(t, starts, "the Start")); !strings.Contains(got, "-c:v "+tc.want+" ") {
				t.Errorf("got %s", got)
			}
			if _, err := s.wait(t); err != nil {
				t.Error(err)
			}
		})
	}
}

// describedJobs are Jobs whose worker says what it proved.
type describedJobs struct {
	*fakeJobs
	proves *wire.Description
}

func (j *describedJobs) worker() lease.Worker {
	return lease.Worker{Class: "intel", Pod: "job-0", PodUID: "u", Node: "n", Nonce: "boot", Job: "job-0", Resumes: true}
}

func (j *describedJobs) Workers() []pool.WorkerState {
	return []pool.WorkerState{{Worker: j.worker(), Slots: 1, Used: 1, Ready: true, Description: j.proves}}
}

// A later scheduler, and the audit line of the session that it resumes, know of the
// rewriting by the worker's record.
func TestRewrittenIsResumed(t *testing.T) {
	r := &run{translated: &Translated{"qsv", []string{"-c"}}, line: []string{"-i", "a"}}
	rec, err := r.record()
	if err != nil {
		t.Fatal(err)
	}
	var later run
	if err := later.recall(&wire.SessionState{Record: rec}); err != nil || later.translated.String() != "qsv: -c" {
		t.Errorf("recalled %+v, %v", later.translated, err)
	}
}

// Whatever a rewriting does, what it may not touch is compared.
func TestUnharmed(t *testing.T) {
	own := "-hwaccel cuda -i /media/a.mkv -c:v h264_nvenc -f hls /cache/s.m3u8"
	for name, tc := range map[string]struct{ line, want string }{
		"other hardware":  {"-init_hw_device vaapi=va:/dev/dri/renderD128 -hwaccel vaapi -i /media/a.mkv -c:v h264_vaapi -f hls /cache/s.m3u8", ""},
		"another input":   {strings.Replace(own, "a.mkv", "b.mkv", 1), "it would read or write other files"},
		"another output":  {strings.Replace(own, "s.m3u8", "t.m3u8", 1), "it would read or write other files"},
		"a second output": {own + " /cache/t.m3u8", "it would read or write other files"},
		"another kind":    {"-i /media/a.mkv -af ebur128=framelog=verbose -f null -", "it would be of kind loudness, not"},
		"the network":     {"-i http://example.org/a.mkv -c:v h264_qsv -f hls /cache/s.m3u8", "it would"},
	} {
		t.Run(name, func(t *testing.T) {
			st := &wire.Start{Session: "s"}
			argv(own)(st)
			r := &run{start: st, line: argvOf(st), command: parseArgv(st)}
			r.needs = r.command.Requirements()
			_, err := r.unharmed(strings.Fields(tc.line), translate.VAAPI)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// A class whose last worker is gone is taken for what that one proved, for a while,
// unless its own device had failed or the class has changed.
func TestWhatTheLastWorkerProved(t *testing.T) {
	for _, tt := range []struct {
		name   string
		told   *wire.Description
		change func(*class.Class)
		later  time.Duration
		asked  string // encoder
		launch bool
	}{
		{name: "it cannot", told: provesGTX, asked: "hevc_nvenc"},
		{name: "it can", told: provesGTX, asked: "h264_nvenc", launch: true},
		{name: "long ago", told: provesGTX, asked: "hevc_nvenc", later: provedLasts + time.Second, launch: true},
		{name: "another template", told: provesGTX, asked: "hevc_nvenc", launch: true,
			change: func(c *class.Class) { c.Template.Spec.NodeSelector = map[string]string{"a": "b"} }},
		{name: "its device failed", asked: "hevc_nvenc", launch: true,
			told: &wire.Description{Proves: true, Capabilities: provesGTX.Capabilities, Flaws: []*wire.Flaw{{Capability: "encoder:hevc_nvenc", Reason: "no device"}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now := atomic.Pointer[time.Time]{}
			begun := time.Now()
			now.Store(&begun)
			classes := fakeClasses{{Name: "nvidia", Jobs: 1, Devices: []string{"nvidia.com/gpu"}}}
			r := newRig(t, func(c *Config) {
				c.Classes, c.Now = classes, func() time.Time { return *now.Load() }
			})
			launched := make(chan struct{}, 4)
			r.jobs.launch = func(context.Context, string, func(string)) (*lease.Lease, error) {
				launched <- struct{}{}
				return nil, errors.New("no Jobs here")
			}
			starts, w := r.of("nvidia", 1, tt.told, nil)
			r.pool.mu.Lock()
			w.state.Template = lease.Template(&classes[0].Template.Spec)
			r.pool.mu.Unlock()
			first := r.start("first", argv("-i /media/a.mkv -c:v h264_nvenc /cache/first.mp4"), nil)
			within(t, starts, "the first Start")
			if _, err := first.wait(t); err != nil {
				t.Fatal(err)
			}
			r.pool.mu.Lock()
			r.pool.workers = nil
			r.pool.mu.Unlock()
			if tt.change != nil {
				tt.change(&classes[0])
			}
			after := begun.Add(tt.later)
			now.Store(&after)

			second := r.start("second", argv("-i /media/a.mkv -c:v "+tt.asked+" /cache/second.mp4"), nil)
			if tt.launch {
				within(t, launched, "the Job")
				return
			}
			if _, err := second.wait(t); err == nil || !strings.Contains(err.Error(), "hevc_nvenc is not offered") {
				t.Errorf("told %v", err)
			}
			if len(launched) > 0 {
				t.Error("a Job was tried")
			}
		})
	}
}
