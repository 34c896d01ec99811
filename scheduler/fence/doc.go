// Package fence keeps two sessions from writing the same outputs at one time.
//
// A player seeks by killing its ffmpeg and starting another at once, with the
// same names of segments. The old process may live a little longer, behind a
// broken connection much longer: the new one must not start before it is dead.
// The newest writer wins, so nobody waits for a session that would have ended
// by itself:
//
//	      Claim                    Wait              Free
//	(new) ─────▶ claimed ─────────────────▶ clear ─────────────▶ (forgotten)
//	               │  until every older      │  may be started     ▲
//	               │  holder is gone         │                     │ its time passed
//	               │                         ├────── Until ──▶ lost┘
//	               └──── a newer Claim ──────┤
//	                                         ▼
//	                                     superseded: cancel it, or kill it; Free when it is dead
//
// # Guarantees
//
//   - Of the sessions whose keys conflict at most one is clear and not yet gone.
//     A session is gone by Free (its process is dead for certain, or was never
//     started) or when the time of Until has passed.
//   - Newer means asked for later, by the caller's own order of asking; so a
//     session that is slow to be parsed does not end its successor.
//   - A session that was superseded is never clear again, also when its successor
//     goes away.
//   - What Describe tells after a restart of the scheduler (Adopt) takes its place
//     in the same order; newcomers that wait already wait for it too.
//
// The table knows one process's sessions and what it was told of others. It is
// pure memory: nothing here kills, asks or remembers.
//
// # What conflicts
//
// Keys are those of ffmpeg.Command.OutputKeys, of one owner: a ServiceAccount.
// Equal keys conflict, and so do a set of numbered files and one of its files
// (see Conflict). Killing a bystander is worse than what a person can see and
// avoid, so names that merely begin alike do not.
package fence
