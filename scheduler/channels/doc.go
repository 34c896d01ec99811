// Package channels keeps a channel open to each of a set of worker pods and
// leases their slots. It is what the pool of warm workers and the launcher of
// Jobs have in common: who the workers are is told by them, how they are spoken
// to is decided here.
//
//	pod seen ──▶ container runs ──▶ opening ──▶ verified ──▶ serving
//	                  ▲                │ failed      (Ready)    │ channel broke,
//	                  └── at once..3 s ┴────────────────────────┘ silent, suspected
//
// A worker is named by its pod's UID; what answers in it, by the boot nonce of
// its supervisor. Slots, leases and sessions belong to the boot, not to the
// channel: a channel that breaks costs its streams and nothing else.
//
//	          channel    channel        channel
//	boot b1 ──●─────●────●──────●───────●─────✕ ended: why, told to its leases
//	          lease s1 ─────────┐(Leave)┌─ lease s1 (Resume)
//	                            └───────┘
//
// A boot has ended, and with it every session in it, when
//
//   - its pod is not there, by the watch or a read of this very name, or will run
//     nothing again,
//   - another boot answers in the same pod,
//   - no container has run in it for a while, by reads that were answered, or
//   - its node has not been ready for a while, by reads that were answered: then
//     what it runs may run on, and the error says so (lease.GoneError.Silent).
//
// Silence alone, of the worker or of the API server, ends nothing.
//
// Guarantees:
//
//   - The worker is the last word on its slots. It is asked at every opening,
//     every 10 s, before a session is resumed, and soon and often after a lease has
//     ended without the session's exit.
//     Leases count at once; between two answers the count can only be too high.
//   - pods/exec addresses names. A channel serves only after the far end has said
//     the pod's UID and class.
//   - Whoever waits for a worker has it tried again within half a second.
//   - A worker that does not answer counts as full. One that is about to go
//     (DeletionTimestamp, or it says so) is Draining: no new leases, the old ones
//     go on and can be resumed.
package channels
