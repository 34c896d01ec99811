package main

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/ffpod/ffpod/scheduler/placement"
)

// Config is one evening on one cluster. Everything that happens follows from it.
type Config struct {
	Seed    uint64  `json:"seed"`
	Workers int     `json:"workers"`
	Rate    float64 `json:"sessions_per_minute"` // the evening's mean
	Minutes float64 `json:"minutes"`
}

// A class of the simulated cluster: its part of the workers, and what one of them
// has. Capacity is in cores, or in GPUs where there is one.
type classModel struct {
	class    placement.Class
	part     float64
	slots    int
	capacity float64
	encodes  int // in parallel, 0: no bound
	can      *placement.Profile
}

// shape is what a command needs of a worker: everything of one shape may run on the
// same workers.
type shape struct {
	name     string
	needs    []string
	hardware []string
}

// The shapes.
var (
	software = &shape{name: "software", needs: []string{"encoder:libx264"}}
	nvenc    = &shape{name: "nvenc", needs: []string{"encoder:h264_nvenc"}, hardware: []string{"nvidia"}}
	nvencAV1 = &shape{name: "nvenc-av1", needs: []string{"encoder:av1_nvenc"}, hardware: []string{"nvidia"}}
	qsv      = &shape{name: "qsv", needs: []string{"encoder:h264_qsv"}, hardware: []string{"intel"}}
	vaapi    = &shape{name: "vaapi", needs: []string{"encoder:h264_vaapi"}, hardware: []string{"amd"}}
)

// cluster is the model of the workers. The second nvidia generation knows AV1; an
// eighth of the older one lists it, and its trial fails.
func cluster() []classModel {
	class := func(name string, cost int, devices ...string) placement.Class {
		return placement.Class{Name: name, Cost: cost, Devices: devices, Replicas: 1}
	}
	can := func(names ...string) *placement.Profile {
		return placement.NewProfile(append(names, "encoder:libx264"), nil)
	}
	nvidia := class("nvidia", 10, "nvidia.com/gpu")
	return []classModel{
		{class: class("cpu", 1), part: .46, slots: 4, capacity: 4, can: can()},
		{class: class("cpu", 1), part: .22, slots: 6, capacity: 8, can: can()},
		{class: nvidia, part: .13, slots: 8, capacity: 1, encodes: 8, can: can("encoder:h264_nvenc")},
		{class: nvidia, part: .015, slots: 8, capacity: 1, encodes: 8,
			can: placement.NewProfile([]string{"encoder:libx264", "encoder:h264_nvenc"}, map[string]string{"encoder:av1_nvenc": "no capable devices found"})},
		{class: nvidia, part: .05, slots: 8, capacity: 1.5, encodes: 8, can: can("encoder:h264_nvenc", "encoder:av1_nvenc")},
		{class: class("intel", 5, "gpu.intel.com/i915"), part: .08, slots: 4, capacity: .8, can: can("encoder:h264_qsv")},
		{class: class("amd", 5, "amd.com/gpu"), part: .045, slots: 3, capacity: .8, encodes: 3, can: can("encoder:h264_vaapi")},
	}
}

// kindModel is what sessions of a kind ask for. Work is in core seconds, or GPU
// seconds for hardware.
type kindModel struct {
	kind     string
	part     float64 // of all sessions
	evening  bool    // follows the viewers; else it comes evenly
	hardware bool    // of the caller's hardware; else software
	first    float64 // mean work until the first byte
	rest     float64 // mean work after it, 0: none, or until the viewer leaves
	spread   float64 // of the work: sigma of its logarithm
	appetite float64 // cores or GPUs that it can use until the first byte
	steady   float64 // and after it
	lasts    float64 // mean seconds until the viewer leaves or seeks, 0: until done
	weight   float64 // its share when a worker is busy: Jellyfin runs all but playback nicely
	local    bool    // the caller could run it itself
}

func kindModels() []kindModel {
	return []kindModel{
		{kind: "probe", part: .030, evening: true, first: .08, spread: .5, appetite: 1, weight: 1},
		// Playback: in hardware, in software, and as a copy of the video.
		{kind: "playback", part: .060, evening: true, hardware: true, first: .3, spread: .5, appetite: .6, steady: .08, lasts: 70, weight: 1},
		{kind: "playback", part: .025, evening: true, hardware: true, first: .8, spread: .5, appetite: .6, steady: .22, lasts: 70, weight: 1},
		{kind: "playback", part: .055, evening: true, first: 3.5, spread: .4, appetite: 4, steady: 1.2, lasts: 70, weight: 1},
		{kind: "playback", part: .045, evening: true, first: .1, spread: .3, appetite: 1, steady: .05, lasts: 70, weight: 1},
		{kind: "live", part: .008, evening: true, first: 2, spread: .3, appetite: 2, steady: .8, lasts: 300, weight: 1},
		{kind: "image", part: .477, first: .8, spread: .6, appetite: 2, weight: .11, local: true},
		{kind: "trickplay", part: .050, first: 1, rest: 60, spread: .7, appetite: 2, steady: 2, weight: .11},
		{kind: "subtitle", part: .100, first: .1, rest: 2.4, spread: .7, appetite: .3, steady: .3, weight: 1},
		{kind: "loudness", part: .100, first: .5, rest: 24, spread: .7, appetite: 1, steady: 1, weight: .11},
		{kind: "keyframes", part: .050, first: .2, rest: 5, spread: .7, appetite: .3, steady: .3, weight: .11},
	}
}

const callers = 24 // Jellyfin installs

// hardwareOf is the one sort of hardware that a caller's Jellyfin is set to.
func hardwareOf(caller int, chance float64) *shape {
	switch {
	case caller%10 < 7 && chance < .06:
		return nvencAV1
	case caller%10 < 7:
		return nvenc
	case caller%10 < 9:
		return qsv
	}
	return vaapi
}

// session is one run of ffmpeg, as it is asked for and as it fares.
type session struct {
	id             int
	model          *kindModel
	shape          *shape
	caller, viewer string
	asked          float64 // seconds since the evening began
	first, rest    float64 // work
	lasts          float64

	worker int
	delay  float64 // of its start, beside its work
	began  bool    // the first byte is out
	left   float64 // work until the first byte, or the end
	rate   float64
	paused bool
	since  float64 // last paused or continued; negative: never
	over   bool
}

// arrivals makes the sessions of an evening, one after the other: the same for
// every contender.
type arrivals struct {
	cfg    Config
	rnd    *rand.Rand
	models []kindModel
	at     float64
	n      int
	recent map[watching][]viewing
}

// watching is a way to watch: what seeks in it stays in it, so that the parts of the
// evening do not drift.
type watching struct {
	model *kindModel
	shape *shape
}

// viewing is somebody who watched a moment ago, and may seek.
type viewing struct {
	viewer string
	caller int
}

func newArrivals(cfg Config) *arrivals {
	return &arrivals{cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 1)), models: kindModels(), recent: map[watching][]viewing{}}
}

// evening is the viewers' curve: its mean is 1, its height in the middle 1.5.
func (a *arrivals) evening(at float64) float64 {
	x := at / (a.cfg.Minutes * 60)
	return .5 + math.Pow(math.Sin(math.Pi*x), 2)
}

// next is the next session. False: the evening is over.
func (a *arrivals) next() (*session, bool) {
	const height = 1.5 // no curve is higher: what comes above a kind's own is left out
	for {
		a.at += a.rnd.ExpFloat64() * 60 / (a.cfg.Rate * height)
		if a.at >= a.cfg.Minutes*60 {
			return nil, false
		}
		m := a.choose()
		curve := 1.0
		if m.evening {
			curve = a.evening(a.at)
		}
		if a.rnd.Float64()*height < curve {
			return a.make(m), true
		}
	}
}

func (a *arrivals) choose() *kindModel {
	x := a.rnd.Float64()
	for i := range a.models {
		if x -= a.models[i].part; x < 0 {
			return &a.models[i]
		}
	}
	return &a.models[len(a.models)-1]
}

func (a *arrivals) make(m *kindModel) *session {
	a.n++
	work := func(mean float64) float64 {
		return mean * math.Exp(a.rnd.NormFloat64()*m.spread-m.spread*m.spread/2)
	}
	s := &session{id: a.n, model: m, shape: software, asked: a.at, worker: -1, since: -1, first: work(m.first), rest: work(m.rest)}
	caller := int(float64(callers) * math.Pow(a.rnd.Float64(), 1.5)) // some installs are larger
	if m.hardware {
		s.shape = hardwareOf(caller, a.rnd.Float64())
	}
	if m.lasts > 0 {
		s.lasts = a.rnd.ExpFloat64() * m.lasts
	}
	if m.kind == "playback" {
		v := viewing{viewer: fmt.Sprintf("v%d", a.n), caller: caller}
		way := watching{m, s.shape}
		if known := a.recent[way]; len(known) > 0 && a.rnd.Float64() < .6 { // a seek
			v = known[a.rnd.IntN(len(known))]
			caller = v.caller
		}
		a.remember(way, v)
		s.viewer = v.viewer
	}
	s.caller = fmt.Sprintf("jellyfin-%02d", caller)
	return s
}

// remember keeps those who watched in the last minute or so.
func (a *arrivals) remember(way watching, v viewing) {
	if known := a.recent[way]; len(known) >= max(1, int(a.cfg.Rate*way.model.part)) {
		known[a.rnd.IntN(len(known))] = v
		return
	}
	a.recent[way] = append(a.recent[way], v)
}
