// Package session is the endpoint of the session protocol, written once and
// used by all three programs on the data's way: the shim (Client), the
// scheduler (Relay) and the supervisor (which composes Link, Outbound and
// Inbound itself). It knows gRPC streams and bytes; it knows nothing of
// Kubernetes, of ffmpeg or of placement.
//
//	 shim                          scheduler                        supervisor
//	┌────────────┐               ┌───────────┐                    ┌────────────┐
//	│ stdin      │               │           │                    │            │
//	│  Outbound ─┼─ Link ──────▶ Link     Link ──────────▶ Link ──┼▶ Inbound   ├─▶ ffmpeg fd 0
//	│            │               │   Relay   │                    │            │
//	│  Inbound ◀─┼─ Link ◀────── Link     Link ◀────────── Link ──┼─ Outbound ◀┼── fd 1, fd 2
//	└────────────┘               └───────────┘                    └────────────┘
//
// # Frames of one session
//
//	client                          server
//	  Start ───────────────────────▶
//	        ◀─────────────── Progress*        why nothing has started yet
//	        ◀───────────────── Ticket         (scheduler only) where it will run; none: told from a Transcript
//	  TicketAck ───────────────────▶          only now Start goes to the worker
//	        ◀──────────────── Started
//	  Data(stdin)* ────────────────▶ ◀─ Ack
//	  Ack ─────────▶ ◀─ Data(stdout|stderr)*
//	  Signal*, Close* ─────────────▶ ◀─ Close(stdin)
//	        ◀─────────────────── Exit         after the last byte of both pipes
//	  ExitAck ─────────────────────▶          after the last write(2)
//
// Instead of Started the server may send Refused: nothing was started. A
// stream that ends without Exit, Refused or Lost says nothing about the session,
// whatever the stream's own status says: it is resumed.
//
// # Resume
//
// A client that holds a ticket opens another stream when its own is of no use any
// more: broken, silent for 9 s, or Detached in words. The first try is made at
// once, later ones after random pauses.
//
//	client                          server
//	  Resume(ticket, offsets) ─────▶          which bytes it has
//	        ◀─────────────── Attached         epoch + 1; which bytes of stdin the server has,
//	                                          which signals were delivered
//	  Ack, Close ──────────────────▶ ◀─ Ack, Close      said again, in case they were lost
//	  Data(stdin from there)* ─────▶ ◀─ Data(from the offsets)*
//	  Signal(those not delivered)* ▶
//	        ◀─────────────────── Exit         also when it had been sent before
//
// Each end keeps what the other has not acknowledged, each drops by offset what it
// has: no byte is lost or repeated, and a signal is delivered once. The worker keeps
// a session without a stream for the ticket's grace. A client that could not resume
// until then, and for as long as a worker needs to end the process, reports a loss:
// then nothing of the session runs any more.
//
// # Flow control
//
// Every pipe has its own credit: an Outbound sends at most a ring's size of
// bytes beyond the last Ack, and an Ack is given only after the write(2) at the
// far end. HTTP/2 windows on all four ends hold both rings and more (options.go),
// so no stream ever stalls on HTTP/2: a consumer that stops reading stdout stops
// ffmpeg through its pipe, as it would locally, while stderr, stdin, signals
// and the exit travel on. Between Outbound and Inbound nothing blocks: a Link
// queues, bounded by the rings, and a Relay's reader never waits for its writer.
//
// # Life signs
//
// Each hop sends a Heartbeat when it has been quiet for 3 s, and takes a peer
// that was silent for 20 s for dead; a client, which can dial again, after 9 s.
// gRPC's own keepalive cannot do this: it is answered by the transport even when
// the program behind it hangs.
package session
