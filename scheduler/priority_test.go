package scheduler

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/pool"
	"github.com/ffpod/ffpod/scheduler/store"
)

// argv makes a Start of a command line.
func argv(line string) func(*wire.Start) {
	return func(s *wire.Start) {
		s.Argv = nil
		for _, a := range strings.Fields(line) {
			s.Argv = append(s.Argv, []byte(a))
		}
		s.Resumes = true
	}
}

const (
	loudness = "-i /media/a.flac -af ebur128=framelog=verbose -f null -"
	playback = "-i /media/a.mkv -c:v libx264 /cache/%s.m3u8"
)

func play(id string) func(*wire.Start) { return argv(fmt.Sprintf(playback, id)) }

// untilReleased is a worker's part of sessions that end when they are told to.
func untilReleased(release map[string]chan struct{}) serverFunc {
	return func(s wire.Runner_RunServer) error {
		st := startOf(s)
		_ = begin(s)
		select {
		case <-release[st.GetSession()]:
		case <-s.Context().Done():
			return s.Context().Err()
		}
		return end(s, &wire.Exit{Session: st.GetSession()})
	}
}

func releases(ids ...string) map[string]chan struct{} {
	all := map[string]chan struct{}{}
	for _, id := range ids {
		all[id] = make(chan struct{})
	}
	return all
}

// What nobody watches makes room for what somebody waits for, and goes on after it.
func TestPause(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "warm" })
	release := releases("loud", "film")
	r.add("w", 1, untilReleased(release))
	loud := r.start("loud", argv(loudness), nil)
	within(t, loud.started, "the start of the loudness scan")
	eventually(t, "the scan runs", func() bool { return r.state("loud") == store.Running })
	film := r.start("film", play("film"), nil)
	within(t, film.started, "the start of the film")
	if got := r.pool.Workers()[0]; got.Used != 1 || got.Paused["loud"].IsZero() {
		t.Errorf("used %d, paused %v", got.Used, got.Paused)
	}
	if n := testutil.ToFloat64(r.sched.cfg.Metrics.pauses); n != 1 {
		t.Errorf("%v pauses are counted", n)
	}
	close(release["film"])
	if _, err := film.wait(t); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the scan goes on", func() bool { w := r.pool.Workers()[0]; return len(w.Paused) == 0 && w.Used == 1 })
	close(release["loud"])
	if _, err := loud.wait(t); err != nil {
		t.Fatal(err)
	}
	if line := r.audit("film"); !strings.Contains(fmt.Sprint(line["reason"]), "session loud (loudness) on w is paused for it") {
		t.Errorf("reason %q", line["reason"])
	}
	r.sched.mu.Lock()
	defer r.sched.mu.Unlock()
	if len(r.sched.moving) != 0 {
		t.Errorf("moving %v", r.sched.moving)
	}
}

// A worker that does not pause keeps its session; the newcomer waits, and is served.
func TestPauseRefused(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "warm" })
	release := releases("loud", "film")
	w := r.add("w", 1, untilReleased(release))
	w.stubborn = true
	loud := r.start("loud", argv(loudness), nil)
	within(t, loud.started, "the start of the loudness scan")
	film := r.start("film", play("film"), nil)
	eventually(t, "the refusal", func() bool { return r.logs.FilterMessage("session is placed again").Len() > 0 })
	if r.state("loud") != store.Running || len(r.pool.Workers()[0].Paused) != 0 {
		t.Error("the scan does not run")
	}
	close(release["loud"])
	close(release["film"])
	for _, s := range []*shim{loud, film} {
		if _, err := s.wait(t); err != nil {
			t.Error(err)
		}
	}
}

// A caller's limit counts the Jobs that are starting for it.
func TestACallersLimitCountsStartingJobs(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Classes, c.CallerLimit = fakeClasses{{Name: "cpu", Jobs: 4}}, 1
	})
	starting := make(chan string, 4)
	give := make(chan error)
	r.jobs.launch = func(ctx context.Context, id string, _ func(string)) (*lease.Lease, error) {
		starting <- id
		select {
		case err := <-give:
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	first := r.start("first", nil, nil)
	within(t, starting, "the first Job")
	second := r.start("second", nil, nil)
	for {
		if p := within(t, second.progress, "word of the second"); strings.Contains(p.GetReason(), "has 1 of at most 1 sessions on workers") {
			break
		}
	}
	r.sched.nudge()
	select {
	case id := <-starting:
		t.Errorf("a Job for %s, too", id)
	case <-time.After(50 * time.Millisecond):
	}
	first.cancel() // its place is the second's
	if id := within(t, starting, "the second Job"); id != "second" {
		t.Errorf("a Job for %s", id)
	}
	second.cancel()
}

// The queue is served by kind, not by time.
func TestPriorities(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "warm" })
	release := releases("first", "sub", "film", "other")
	r.add("w", 1, untilReleased(release))
	within(t, r.start("first", play("first"), nil).started, "the first start")
	var all []*shim
	for _, s := range []struct{ id, line string }{
		{"sub", "-i /media/a.mkv -map 0:2 -an -vn -c:s srt /config/data/subtitles/a.srt"},
		{"film", fmt.Sprintf(playback, "film")},
	} {
		w := r.start(s.id, argv(s.line), nil)
		within(t, w.progress, "a place in the queue for "+s.id)
		all = append(all, w)
	}
	for _, id := range []string{"first", "sub", "film"} {
		close(release[id])
	}
	for _, s := range all {
		if _, err := s.wait(t); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"first", "film", "sub"}, r.pool.order()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

// A capability that no worker has proved is refused in words, or run by the caller.
func TestUnproved(t *testing.T) {
	const line = "-i /media/a.mkv -c:v h264_nvenc /cache/x.m3u8"
	for name, local := range map[string]bool{"refused": false, "local": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Classes = fakeClasses{{Name: "cpu", Replicas: 1}} })
			w := r.add("w", 1, prints(nil, 0))
			r.pool.mu.Lock()
			w.state.Description = &wire.Description{Proves: true, Capabilities: []string{"encoder:libx264"},
				Flaws: []*wire.Flaw{{Capability: "encoder:h264_nvenc", Reason: "Cannot load libcuda.so.1"}}}
			r.pool.mu.Unlock()
			s := r.start("s", func(st *wire.Start) { argv(line)(st); st.Local = local }, nil)
			got := s.refused(t)
			if got.Refusal != wire.Refusal_NO_CLASS || !strings.Contains(got.Message, "encoder:h264_nvenc failed its trial (Cannot load libcuda.so.1)") {
				t.Errorf("refused %+v", got)
			}
		})
	}
}

// A kind that its caller kills when it is late is handed back in time.
func TestLateImageRunsLocally(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Classes = fakeClasses{{Name: "cpu", Replicas: 0, Jobs: 0}} })
	s := r.start("s", func(st *wire.Start) {
		argv("-i /media/a.mkv -vf thumbnail -frames:v 1 -f image2 /cache/a.jpg")(st)
		st.Local = true
	}, nil)
	if got := s.refused(t); got.Refusal != wire.Refusal_LOCAL || !strings.Contains(got.Message, "runs locally") {
		t.Errorf("refused %+v", got)
	}
	if line := r.audit("s"); line["placement"] != "local" {
		t.Errorf("audit %v", line)
	}
}

// A Job for a device that warm workers of its class hold gives way to their slots.
func TestJobForAHeldDevice(t *testing.T) {
	gpu := class.Class{Name: "cpu", Jobs: 2, Replicas: 1, Devices: []string{"nvidia.com/gpu"}}
	r := newRig(t, func(c *Config) { c.Classes = fakeClasses{gpu} })
	release := releases("first", "second")
	r.add("w", 1, untilReleased(release))
	r.jobs.launch = func(ctx context.Context, _ string, progress func(string)) (*lease.Lease, error) {
		progress("waiting: Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	first := r.start("first", play("first"), nil)
	within(t, first.started, "the first start")
	second := r.start("second", play("second"), nil)
	eventually(t, "the Job is given up", func() bool { return r.logs.FilterMessage("session is placed again").Len() == 1 })
	if e := r.logs.FilterMessage("session is placed again").All()[0]; !strings.Contains(fmt.Sprint(e.ContextMap()["error"]), "class cpu: the warm workers hold what a Job would need: nvidia.com/gpu") {
		t.Errorf("%v", e.ContextMap())
	}
	close(release["first"])
	close(release["second"])
	if exit, err := second.wait(t); err != nil || exit.GetCode() != 0 {
		t.Errorf("%v, %v", exit, err)
	}
	if line := r.audit("second"); line["placement"] != "warm" {
		t.Errorf("audit %v", line)
	}
}

// A rollout: the next warm worker takes the device that the Job waits for, after
// Kubernetes has said why it waits.
func TestJobForADeviceThatIsHeldLater(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Classes = fakeClasses{{Name: "cpu", Jobs: 2, Replicas: 1, Devices: []string{"nvidia.com/gpu"}}}
	})
	waiting := make(chan struct{})
	r.jobs.launch = func(ctx context.Context, _ string, progress func(string)) (*lease.Lease, error) {
		progress("waiting: Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
		close(waiting)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	s := r.start("s", play("s"), nil)
	within(t, waiting, "the Job")
	r.add("w", 1, prints([]byte("warm"), 0))
	if exit, err := s.wait(t); err != nil || exit.GetCode() != 0 {
		t.Errorf("%v, %v", exit, err)
	}
	if line := r.audit("s"); line["placement"] != "warm" {
		t.Errorf("audit %v", line)
	}
}

// fakeStandbys is one Job on standby.
type fakeStandbys struct {
	state channels.WorkerState
	lease func(session string) *lease.Lease
	taken chan string
}

func (f *fakeStandbys) Free() []channels.WorkerState {
	if len(f.taken) > 0 {
		return nil
	}
	return []channels.WorkerState{f.state}
}

func (f *fakeStandbys) Take(_, _, session string) (*lease.Lease, error) {
	select {
	case f.taken <- session:
		return f.lease(session), nil
	default:
		return nil, pool.ErrFull
	}
}

// A Job that was made ahead of need serves before a new one is made.
func TestStandby(t *testing.T) {
	standby := &fakeStandbys{taken: make(chan string, 1), state: channels.WorkerState{Slots: 1, Ready: true,
		Worker: lease.Worker{Class: "cpu", Pod: "standby-1", PodUID: "u", Nonce: "n", Node: "node-2", Job: "standby-1", Resumes: true}}}
	r := newRig(t, func(c *Config) { c.Standbys = standby })
	runner := serveRunner(t, prints([]byte("at once"), 0))
	standby.lease = func(string) *lease.Lease {
		return lease.New(lease.Terms{Worker: standby.state.Worker, Runner: runner, Gone: make(chan struct{}),
			Release: func() {}, Leave: func() {}, Destroy: func() {}, Suspect: func() {}})
	}
	s := r.start("s1", resumes, nil)
	if exit, err := s.wait(t); err != nil || exit.GetCode() != 0 {
		t.Fatalf("%v, %v", exit, err)
	}
	if ticket := within(t, s.ticket, "the ticket"); ticket.GetPlacement() != "standby" || ticket.GetPod() != "standby-1" {
		t.Errorf("ticket %v", ticket)
	}
	if line := r.audit("s1"); line["placement"] != "standby" || line["job"] != "standby-1" {
		t.Errorf("audit %v", line)
	}
}

// A worker that has just started takes software at once, and hardware when it is
// proved.
func TestWhileAWorkerProves(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "warm" })
	w := r.add("w", 2, prints(nil, 0))
	tell := func(d *wire.Description) {
		r.pool.mu.Lock()
		w.state.Description = d
		r.pool.mu.Unlock()
		r.pool.wake()
	}
	tell(&wire.Description{Proves: true, Proving: true})
	if _, err := r.start("film", play("film"), nil).wait(t); err != nil {
		t.Fatal(err)
	}
	gpu := r.start("gpu", argv("-i /media/a.mkv -c:v h264_nvenc /cache/gpu.m3u8"), nil)
	if p := within(t, gpu.progress, "a place in the queue"); !strings.Contains(p.GetReason(), "still proving") {
		t.Errorf("it waits for %q", p.GetReason())
	}
	tell(&wire.Description{Proves: true, Capabilities: []string{"encoder:h264_nvenc"}})
	if _, err := gpu.wait(t); err != nil {
		t.Fatal(err)
	}
}

// A seek takes the slot that it left: what is paused does not get it in between.
func TestSeekKeepsItsSlot(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "warm" })
	r.sched.mu.Lock()
	r.sched.gap = patience
	r.sched.mu.Unlock()
	release := releases("loud", "film", "seek")
	r.add("w", 1, untilReleased(release))
	loud := r.start("loud", argv(loudness), nil)
	eventually(t, "the scan runs", func() bool { return r.state("loud") == store.Running })
	film := r.start("film", play("film"), nil)
	within(t, film.started, "the start of the film")
	close(release["film"])
	if _, err := film.wait(t); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.pool.wake()
		<-time.After(10 * time.Millisecond)
	}
	within(t, r.start("seek", play("seek"), nil).started, "the start after the seek")
	if w := r.pool.Workers()[0]; w.Paused["loud"].IsZero() {
		t.Error("the scan had the slot in between")
	}
	close(release["seek"])
	close(release["loud"])
	loud.cancel()
}

// What is paused goes on by its worker's word, also when it was begun elsewhere.
func TestPausedElsewhere(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Policy = "warm" })
	w := r.add("w", 1, prints(nil, 0))
	r.pool.mu.Lock()
	w.state.Paused = map[string]time.Time{"foreign": time.Now()}
	r.pool.mu.Unlock()
	r.pool.wake()
	eventually(t, "the session goes on", func() bool { w := r.pool.Workers()[0]; return len(w.Paused) == 0 && w.Used == 1 })
}
