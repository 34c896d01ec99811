package store

import "slices"

// State is where a session is in its life.
//
//	         Add                 Move with a Right            Start sent
//	(asked) ─────▶ queued ──────────────────────▶ leased ───────────────▶ starting
//	               │   ▲                          │   │                   │  │  │
//	               │   └── worker refused, gone ──┘   │                   │  │  │
//	               │   └── worker refused ────────────│───────────────────┘  │  │
//	               │                                  │                      │  │ Started
//	               ▼                                  ▼                      │  ▼
//	            refused ◀──── gave up, cancelled ─────┘                      │ running
//	               ▲                                                         │  │   │
//	               └────────────── refused, not placed again ────────────────┤  │   │ Exit
//	                                                                         ▼  ▼   ▼
//	                                                                        lost   ended
//
// Asked is the moment before Add, so no session is ever stored in it. Adopt enters
// a session that runs already as running. The three final states are never left. `leased` is the right to ask a worker; from
// `starting` on, ffmpeg may run.
type State string

// The states.
const (
	Asked    State = "asked"
	Queued   State = "queued"
	Leased   State = "leased"
	Starting State = "starting"
	Running  State = "running"
	Ended    State = "ended"
	Lost     State = "lost"
	Refused  State = "refused"
)

// Final tells whether the session is over.
func (s State) Final() bool { return s == Ended || s == Lost || s == Refused }

// Holds tells whether the session holds the right to a worker.
func (s State) Holds() bool { return s == Leased || s == Starting || s == Running }

// May tells whether the step from s to next is one of the diagram's.
func (s State) May(next State) bool { return slices.Contains(steps[s], next) }

// steps is the diagram.
var steps = map[State][]State{
	Asked:    {Queued},
	Queued:   {Leased, Refused},
	Leased:   {Starting, Queued, Refused},
	Starting: {Running, Queued, Refused, Ended, Lost},
	Running:  {Ended, Lost},
}
