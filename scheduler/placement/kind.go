package placement

import "time"

// Bounds of the kinds.
const (
	// StartWithin is how soon a session of a kind with a liveness limit must have
	// started: its caller kills an image after 10 s, and trickplay when no picture
	// comes for 20 s, counted from before it asked.
	StartWithin = 5 * time.Second
	// LongestPause is how long a session stays paused before the next free slot of
	// its worker is its own.
	LongestPause = 5 * time.Minute
	// BetweenPauses is how long a session that was continued runs before it may be
	// paused again.
	BetweenPauses = time.Minute
	// Patience is how long a session that nobody watches waits behind others before
	// it is starved: half of the queue's default bound.
	Patience = time.Minute
)

// traits are what placement knows of a kind. The kinds are those of
// scheduler/ffmpeg; any other is taken as "other".
type traits struct {
	priority int
	urgent   bool // somebody waits for it: others make room
	limited  bool // its caller kills it when it does not start soon
	pausable bool // nobody watches it run
}

var kinds = map[string]traits{
	"probe":     {priority: 50, urgent: true},
	"playback":  {priority: 40, urgent: true},
	"live":      {priority: 40, urgent: true},
	"image":     {priority: 30, limited: true},
	"trickplay": {priority: 30, limited: true},
	"subtitle":  {priority: 20},
	"other":     {priority: 20},
	"loudness":  {priority: 10, pausable: true},
	"keyframes": {priority: 10, pausable: true},
}

func traitsOf(kind string) traits {
	if t, known := kinds[kind]; known {
		return t
	}
	return kinds["other"]
}

// patience is how long a session waits behind others before it is starved. Of a
// person, and of a caller that counts the seconds, little is asked.
func (t traits) patience() time.Duration {
	if t.urgent || t.limited {
		return StartWithin
	}
	return Patience
}

// Priority orders kinds, higher first: probe, then playback and live, image and
// trickplay, subtitle and other, loudness and keyframes.
func Priority(kind string) int { return traitsOf(kind).priority }

// Pausable tells whether a session of the kind may be stopped for a while without
// its caller taking it for dead.
func Pausable(kind string) bool { return traitsOf(kind).pausable }

// Fallback is what becomes of a session that has waited in the queue.
type Fallback struct {
	// Then is Wait (as long as the queue lets it), Local (if the session can), or
	// Reject.
	Then Verdict
	// After is for how long it waits first. Not read for Wait.
	After time.Duration
}

// FallbackOf is the fallback of a kind: local after StartWithin for kinds with a
// liveness limit, the queue's bound for the others.
func FallbackOf(kind string) Fallback {
	if traitsOf(kind).limited {
		return Fallback{Then: Local, After: StartWithin}
	}
	return Fallback{Then: Wait}
}
