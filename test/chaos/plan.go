package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// A moment is how far a session is when the fault strikes.
type moment string

const (
	idle     moment = "idle"     // it begins once the fault is over
	queued   moment = "queued"   // it waits for a slot
	starting moment = "starting" // its shim has just been started
	first    moment = "first"    // its first byte has come
	mid      moment = "mid"      // well under way
	last     moment = "last"     // its last bytes are being sent
	exited   moment = "exited"   // its program has ended, its caller has not read all
	beside   moment = "beside"   // under way, and not whom the fault is for
)

// started tells whether a session at the moment surely has a process.
func (m moment) started() bool {
	return m == first || m == mid || m == last || m == exited || m == beside
}

// A kind is what a session does.
type kind string

const (
	stdout  kind = "stdout"  // known bytes at a known rate on both outputs
	job     kind = "job"     // the same in a worker made for it
	pipe    kind = "pipe"    // stdin to stdout
	quiet   kind = "quiet"   // two lines, seconds apart
	file    kind = "file"    // known bytes into a file, progress on stderr
	early   kind = "early"   // a flooded stdin that nobody reads, output at the end
	blocked kind = "blocked" // a reader that stops, a q that must arrive nevertheless
	hls     kind = "hls"     // real ffmpeg, segments and a playlist
	image   kind = "image"   // real ffmpeg, one picture
)

var (
	moments = map[kind][]moment{
		stdout:  {idle, queued, starting, first, mid, last, exited},
		job:     {starting, first, mid, last, exited},
		pipe:    {idle, starting, first, mid},
		quiet:   {idle, queued, starting, mid},
		file:    {idle, queued, starting, mid, last},
		early:   {starting, mid, last},
		blocked: {starting, mid},
		hls:     {idle, starting, first, mid},
		image:   {idle, starting},
	}
	kinds = []kind{stdout, job, pipe, quiet, file, early, blocked, hls, image}
)

// A mode is where a shim runs its program.
type mode string

const (
	remote mode = "remote"
	local  mode = "local"
)

// cast is one session of a scene.
type cast struct {
	Kind   kind   `json:"kind"`
	Moment moment `json:"moment"`
	Seed   uint64 `json:"seed"`
	Jitter int    `json:"jitterMs"` // from the moment to the fault
}

// A scene is one fault and who is there when it strikes.
type scene struct {
	Number int    `json:"number"`
	Fault  string `json:"fault"`
	Cast   []cast `json:"cast"`
}

func (s scene) String() string {
	text := fmt.Sprintf("%4d %-22s", s.Number, s.Fault)
	for _, c := range s.Cast {
		text += fmt.Sprintf(" %s@%s", c.Kind, c.Moment)
	}
	return text
}

const (
	crowd      = 20 // sessions at once, in some scenes
	crowdEvery = 6  // one of so many scenes of the install has a crowd
	period     = 16 // after so many scenes the pattern begins again
	wideOf     = 4  // so many of them, the last, have a fault of the install or the cluster
)

// plan is the list of n scenes of a seed. Same arguments, same scenes.
func plan(seed uint64, n int, all []fault) []scene {
	rng := rand.New(rand.NewPCG(seed, 0xff90d))
	narrow, wide := narrowDeck(rng, all), wideDeck(rng, all)
	var scenes []scene
	for len(scenes) < n {
		s := scene{Number: len(scenes) + 1}
		if len(wide) > 0 && (len(narrow) == 0 || len(scenes)%period >= period-wideOf) {
			f := wide[0]
			wide = wide[1:]
			s.Fault, s.Cast = f.name, ensemble(rng, f, s.Number)
			if len(wide) == 0 {
				wide = wideDeck(rng, all)
			}
		} else if len(narrow) > 0 {
			s.Fault, s.Cast = narrow[0].Fault, narrow[0].Cast
			narrow = narrow[1:]
			if len(narrow) == 0 {
				narrow = narrowDeck(rng, all)
			}
		} else {
			return nil
		}
		for i := range s.Cast {
			s.Cast[i].Seed, s.Cast[i].Jitter = rng.Uint64N(1<<40), rng.IntN(120)
		}
		scenes = append(scenes, s)
	}
	return scenes
}

// narrowDeck has each fault of one session at each moment once, with a kind that
// has that moment; shuffled.
func narrowDeck(rng *rand.Rand, all []fault) []scene {
	var deck []scene
	for _, f := range all {
		if f.scope != ofSession {
			continue
		}
		for _, m := range f.moments {
			fit := slices.DeleteFunc(slices.Clone(f.kindsOr(kinds)), func(k kind) bool { return !slices.Contains(moments[k], m) })
			deck = append(deck, scene{Fault: f.name, Cast: []cast{{Kind: fit[rng.IntN(len(fit))], Moment: m}}})
		}
	}
	rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	return deck
}

// wideDeck has each fault of the install or the cluster once, the common ones
// first.
func wideDeck(rng *rand.Rand, all []fault) []fault {
	deck := slices.DeleteFunc(slices.Clone(all), func(f fault) bool { return f.scope == ofSession })
	rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	slices.SortStableFunc(deck, func(a, b fault) int {
		switch {
		case a.common == b.common:
			return 0
		case a.common:
			return -1
		}
		return 1
	})
	return deck
}

// ensemble is a mixed group for a fault that meets everyone: every moment, one
// Job, one queued, each of the others a kind of its own.
func ensemble(rng *rand.Rand, f fault, number int) []cast {
	var group []cast
	if f.crowd || number%crowdEvery == 0 && f.kinds == nil {
		group = slices.Repeat([]cast{{Kind: stdout, Moment: mid}}, crowd)
	}
	for _, m := range f.momentsOr([]moment{queued, starting, first, mid, mid, mid, last, exited, idle}) {
		fit := slices.DeleteFunc(slices.Clone(f.kindsOr(kinds)), func(k kind) bool {
			return !slices.Contains(moments[k], m) || k == job
		})
		if len(fit) > 0 {
			group = append(group, cast{Kind: fit[rng.IntN(len(fit))], Moment: m})
		}
	}
	if slices.Contains(f.kindsOr(kinds), job) {
		group = append(group, cast{Kind: job, Moment: mid})
	}
	return group
}
