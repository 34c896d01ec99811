package scheduler

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/lease"
	"github.com/ffpod/ffpod/scheduler/pool"
	"github.com/ffpod/ffpod/scheduler/store"
)

const (
	vaapiProbe = "-v verbose -hide_banner -init_hw_device vaapi=va:/dev/dri/renderD128"
	opened     = "libva: iHD driver\nIntel iHD driver for Intel(R) Gen Graphics\nusage: ffmpeg\n\nUse -h to get full help or, even better, run 'man ffmpeg'\n"
)

// probing is a rig of one class, with a warm worker that answers probes.
type probing struct {
	*rig
	classes *someClasses
	worker  *fakeWorker
	runs    atomic.Int32 // on workers
	late    atomic.Bool  // the clock is past the life of every answer
	asks    int

	mu   sync.Mutex
	said string
	code int32
}

// someClasses change.
type someClasses struct {
	mu  sync.Mutex
	all []class.Class
}

func (c *someClasses) List() []class.Class {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]class.Class(nil), c.all...)
}
func (c *someClasses) All() []class.Class       { return c.List() }
func (c *someClasses) Changed() <-chan struct{} { return nil }

func (c *someClasses) change(f func(*class.Class)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.all[0])
}

func gpuClass(image string) class.Class {
	c := class.Class{Name: "intel", Replicas: 1}
	c.Template.Spec.Containers = []corev1.Container{{Name: podexec.Container, Image: image}}
	return c
}

func newProbing(t *testing.T, change func(*Config)) *probing {
	p := &probing{classes: &someClasses{all: []class.Class{gpuClass("worker:1")}}, said: opened, code: 1}
	p.rig = newRig(t, func(c *Config) {
		c.Classes, c.SameBuild = p.classes, true
		c.Now = func() time.Time {
			if p.late.Load() {
				return time.Now().Add(answersLast)
			}
			return time.Now()
		}
		if change != nil {
			change(c)
		}
	})
	p.up()
	return p
}

// up adds a worker of the class as it is.
func (p *probing) up() {
	p.worker = p.add("w", 1, p.serve)
	p.tell(func(s *pool.WorkerState) {
		s.Class, s.FFmpegBuild, s.Template = "intel", "b1", lease.Template(&p.classes.List()[0].Template.Spec)
	})
}

func (p *probing) tell(change func(*pool.WorkerState)) {
	p.pool.mu.Lock()
	change(&p.worker.state)
	p.pool.mu.Unlock()
	p.pool.wake()
}

func (p *probing) down() {
	p.pool.mu.Lock()
	p.pool.workers = nil
	p.pool.mu.Unlock()
}

func (p *probing) serve(s wire.Runner_RunServer) error {
	st := startOf(s)
	if st == nil {
		return nil
	}
	p.runs.Add(1)
	p.mu.Lock()
	said, code := p.said, p.code
	p.mu.Unlock()
	if err := begin(s); err != nil {
		return err
	}
	if err := s.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDERR, Bytes: []byte(said)}}}); err != nil {
		return err
	}
	return end(s, &wire.Exit{Session: st.GetSession(), Code: code, Stderr: uint64(len(said)), UserUs: 5000})
}

func (p *probing) answers(said string, code int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said, p.code = said, code
}

// ask asks as Jellyfin does at its start.
func (p *probing) ask(change func(*wire.Start)) (*shim, string) {
	p.asks++
	id := fmt.Sprintf("probe-%d", p.asks)
	return p.start(id, func(s *wire.Start) {
		argv(vaapiProbe)(s)
		s.Build, s.WaitMs, s.Retold = "b1", 300, true
		s.Env = [][]byte{[]byte("LIBVA_DRIVER_NAME=iHD"), []byte("LANG=C")}
		if change != nil {
			change(s)
		}
	}, nil), id
}

// told expects an answer, and the placement that gave it.
func (p *probing) told(said string, code int32, placement string, change func(*wire.Start)) {
	p.t.Helper()
	s, id := p.ask(change)
	exit, err := s.wait(p.t)
	if err != nil || exit.GetCode() != code || exit.GetSession() != id || s.stderr.String() != said {
		p.t.Fatalf("%s: %v, %v, stderr %q; want %q", id, exit, err, s.stderr.String(), said)
	}
	if line := p.audit(id); line["placement"] != placement || line["class"] != "intel" || line["exit"] != fmt.Sprint(code) {
		p.t.Errorf("audit %v, want placement %s", line, placement)
	}
	if state := p.state(id); state != store.Ended {
		p.t.Errorf("%s is %s in the store", id, state)
	}
}

// What a worker answered is told again, byte for byte, when no worker is up; a worker
// that is answers itself, and what it says then is told from then on.
func TestProbeIsRetold(t *testing.T) {
	p := newProbing(t, nil)
	p.told(opened, 1, "warm", nil)
	p.answers("a newer driver\n"+opened, 1)
	p.told("a newer driver\n"+opened, 1, "warm", nil)
	p.down()
	p.told("a newer driver\n"+opened, 1, "transcript", func(s *wire.Start) {
		argv("-hide_banner -nostdin -init_hw_device vaapi=va:/dev/dri/renderD128 -loglevel verbose")(s) // the same in other words
		s.Env = [][]byte{[]byte("LANG=C"), []byte("LIBVA_DRIVER_NAME=iHD")}
	})
	line := p.audit("probe-3")
	if reason := line["reason"].(string); !strings.Contains(reason, "answered by class intel on "+time.Now().UTC().Format("2006-01-02")) || !strings.Contains(reason, "same build") {
		t.Errorf("reason %q", reason)
	}
	if line["worker"] != "" || line["cpuMs"] != int64(0) || line["stderrBytes"] != uint64(len("a newer driver\n"+opened)) {
		t.Errorf("audit %v", line)
	}
	if n := testutil.ToFloat64(p.sched.cfg.Metrics.sessions.WithLabelValues("transcript", "probe", "code")); n != 1 {
		t.Errorf("%v sessions are counted", n)
	}
	if n := p.runs.Load(); n != 2 {
		t.Errorf("%d ran on workers", n)
	}
	p.up()
	p.answers("the newest\n"+opened, 1)
	p.told("the newest\n"+opened, 1, "warm", nil)
}

// What may get another answer is not answered from what is kept: it waits, and is
// refused in words.
func TestProbeIsNotRetold(t *testing.T) {
	other := func(f func(*class.Class)) func(*probing) { return func(p *probing) { p.classes.change(f) } }
	env := func(all ...string) func(*wire.Start) {
		return func(s *wire.Start) {
			s.Env = nil
			for _, v := range all {
				s.Env = append(s.Env, []byte(v))
			}
		}
	}
	line := func(words string) func(*wire.Start) {
		return func(s *wire.Start) { argv(words)(s) }
	}
	tests := map[string]struct {
		first   func(*wire.Start)
		said    string
		code    int32
		between func(*probing)
		again   func(*wire.Start)
	}{
		"another build": {again: func(s *wire.Start) { s.Build = "b2" }},
		"no build":      {again: func(s *wire.Start) { s.Build = "" }},
		"another image": {between: other(func(c *class.Class) { *c = gpuClass("worker:2") })},
		"a variable in the class": {between: other(func(c *class.Class) {
			*c = gpuClass("worker:1")
			c.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "LIBVA_DRIVERS_PATH", Value: "/x"}}
		})},
		"another class":             {between: other(func(c *class.Class) { c.Name = "amd" })},
		"an older shim":             {again: func(s *wire.Start) { s.Retold = false }},
		"the class takes no probes": {between: other(func(c *class.Class) { c.Kinds = []string{"playback"} })},
		"another class is asked": {between: func(p *probing) {
			p.classes.mu.Lock()
			p.classes.all = append(p.classes.all, class.Class{Name: "amd", Replicas: 1})
			p.classes.mu.Unlock()
		}, again: func(s *wire.Start) { s.Class = "amd" }},
		"another driver":          {again: env("LIBVA_DRIVER_NAME=radeonsi", "LANG=C")},
		"no driver named":         {again: env("LANG=C")},
		"another device":          {again: line("-v verbose -hide_banner -init_hw_device vaapi=va:/dev/dri/renderD129")},
		"another level":           {again: line("-v debug -hide_banner -init_hw_device vaapi=va:/dev/dri/renderD128")},
		"a report is written":     {first: env("FFREPORT=file=/x"), again: env("FFREPORT=file=/x")},
		"the device did not open": {said: "Failed to set value\nError parsing global options: Invalid argument\n", code: 1},
		"ffmpeg has crashed":      {said: opened, code: 139},
		"it is too old":           {between: func(p *probing) { p.late.Store(true) }},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			p := newProbing(t, nil)
			said, code := opened, int32(1)
			if c.said != "" {
				said, code = c.said, c.code
				p.answers(said, code)
			}
			p.told(said, code, "warm", c.first)
			p.down()
			if c.between != nil {
				c.between(p)
			}
			s, id := p.ask(c.again)
			if refused := s.refused(t); refused.Message == "" || s.stderr.Len() > 0 {
				t.Errorf("%v, stderr %q", refused, s.stderr.String())
			}
			if got := p.audit(id); got["placement"] == "transcript" {
				t.Errorf("audit %v", got)
			}
		})
	}
}

// A worker without a free slot is not waited for, unless it is known to say otherwise.
func TestProbeAtABusyWorker(t *testing.T) {
	tests := map[string]struct {
		now    func(*pool.WorkerState)
		retold bool
	}{
		"busy": {now: func(s *pool.WorkerState) { s.Used = 1 }, retold: true},
		"busy, and proves": {retold: true, now: func(s *pool.WorkerState) {
			s.Used, s.Description = 1, &wire.Description{Proves: true, Proving: true}
		}},
		"its device is broken": {now: func(s *pool.WorkerState) {
			s.Used = 1
			s.Description = &wire.Description{Proves: true, Flaws: []*wire.Flaw{{Capability: "device:vaapi", Reason: "Input/output error"}}}
		}},
		"of another ffmpeg": {now: func(s *pool.WorkerState) { s.Used, s.FFmpegBuild = 1, "b2" }},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			p := newProbing(t, nil)
			p.told(opened, 1, "warm", nil)
			p.tell(c.now)
			if c.retold {
				p.told(opened, 1, "transcript", nil)
				return
			}
			s, _ := p.ask(nil)
			if refused := s.refused(t); refused.Message == "" {
				t.Errorf("%v", refused)
			}
		})
	}
}

// A rollout leaves workers of the last template up for a while: what those say is
// not what the new ones would.
func TestProbeAnsweredByAnOlderWorker(t *testing.T) {
	p := newProbing(t, nil)
	p.classes.change(func(c *class.Class) { *c = gpuClass("worker:2") })
	p.told(opened, 1, "warm", nil)
	p.down()
	s, _ := p.ask(nil)
	s.refused(t)
}

// Where Jobs are all there is, the first probe makes one, and the next ones are told
// what it said.
func TestProbeByAJob(t *testing.T) {
	p := newProbing(t, nil)
	p.down()
	p.classes.change(func(c *class.Class) { c.Replicas, c.Jobs = 0, 1 })
	runner := serveRunner(t, p.serve)
	launches := 0
	p.jobs.launch = func(context.Context, string, func(string)) (*lease.Lease, error) {
		launches++
		w := lease.Worker{Class: "intel", Pod: "job-1", PodUID: "u", Nonce: "n", Node: "node-2", Job: "job-1", Resumes: true}
		p.jobs.mu.Lock()
		p.jobs.known = []pool.WorkerState{{Worker: w, Template: lease.Template(&p.classes.List()[0].Template.Spec)}}
		p.jobs.mu.Unlock()
		end := func() { p.jobs.mu.Lock(); p.jobs.active--; p.jobs.mu.Unlock() }
		return lease.New(lease.Terms{Worker: w, Runner: runner, Gone: make(chan struct{}), Release: end, Leave: end, Destroy: end, Suspect: func() {}}), nil
	}
	p.told(opened, 1, "job", nil)
	for range 4 {
		p.told(opened, 1, "transcript", nil)
	}
	if launches != 1 {
		t.Errorf("%d Jobs", launches)
	}
}

// A shim that goes, or a scheduler that stops, while it is told: nothing had started,
// and nobody is ordered about it.
func TestRetoldToNobody(t *testing.T) {
	p := newProbing(t, nil)
	p.told(opened, 1, "warm", nil)
	p.down()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := p.shims.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	start := &wire.Start{Session: "gone", Program: wire.Program_FFMPEG, Cwd: []byte("/"), Build: "b1", Retold: true, Env: [][]byte{[]byte("LIBVA_DRIVER_NAME=iHD"), []byte("LANG=C")}}
	argv(vaapiProbe)(start)
	if err := stream.Send(&wire.Frame{Kind: &wire.Frame_Start{Start: start}}); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if f.GetTicket() != nil {
			t.Error("a ticket, though nothing runs")
		}
		if f.GetExit() != nil {
			break
		}
	}
	cancel() // without a word for the exit
	if line := p.audit("gone"); line["placement"] != "transcript" || line["exit"] != "1" {
		t.Errorf("audit %v", line)
	}
	if state := p.state("gone"); state != store.Ended {
		t.Errorf("it is %s in the store", state)
	}
	if got := p.worker.ordered(); strings.Contains(got, "gone") {
		t.Errorf("orders %s", got)
	}
}

// Probes come and workers go: whoever is answered has the whole of one answer.
func TestProbesWhileWorkersComeAndGo(t *testing.T) {
	p := newProbing(t, nil)
	p.told(opened, 1, "warm", nil)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			p.answers(fmt.Sprintf("driver %d\n%s", i, opened), 1)
			p.tell(func(s *pool.WorkerState) { s.Ready = i%2 == 0 })
			time.Sleep(time.Millisecond)
		}
	}()
	for range 30 {
		var all []*shim
		for range 4 {
			s, _ := p.ask(func(s *wire.Start) { s.WaitMs = uint32(patience.Milliseconds()) })
			all = append(all, s)
		}
		for _, s := range all {
			exit, err := s.wait(t)
			if err != nil || exit.GetCode() != 1 || !strings.HasSuffix(s.stderr.String(), opened) || uint64(s.stderr.Len()) != exit.GetStderr() {
				t.Errorf("%v, %v, stderr %q", exit, err, s.stderr.String())
			}
		}
	}
	close(stop)
	<-done
}

// What is kept is bounded: the oldest answer goes.
func TestAnswersAreBounded(t *testing.T) {
	var a answers
	now := time.Now()
	q := func(i int) asked { return asked{words: fmt.Sprint(i)} }
	for i := range mostAnswers {
		a.keep(q(i), answer{at: now})
	}
	a.keep(q(0), answer{at: now}) // again: it is the newest now
	a.keep(q(mostAnswers), answer{at: now})
	for i, want := range map[int]bool{0: true, 1: false, 2: true, mostAnswers: true} {
		if _, known := a.find(q(i), now); known != want {
			t.Errorf("answer %d is known: %t", i, known)
		}
	}
	if len(a.kept) != mostAnswers || len(a.order) != mostAnswers {
		t.Errorf("%d and %d are kept", len(a.kept), len(a.order))
	}
}
