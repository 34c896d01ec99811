// Package pool keeps channels to the warm workers and leases their slots.
//
// Warm workers are the pods of the class Deployments. The pool watches them and
// opens a channel to each ahead of need, so that a session costs no exec:
//
//	pod seen ──▶ container runs ──▶ opening ──▶ verified ──▶ serving
//	                  ▲                │ failed      (Ready)    │ channel broke,
//	                  └── 100 ms..10 s ┴────────────────────────┘ or silent
//	pod gone: the channel is closed, every lease on it is told why
//
// Guarantees:
//
//   - The worker is the last word on its slots. It is asked at every opening,
//     every 10 s, and when a lease ends without an exit. Leases count at once;
//     between two answers the count can only be too high.
//   - pods/exec addresses names. A channel serves only after the far end has
//     said the pod's UID and class; leases name the boot nonce, too.
//   - A lease belongs to one channel. When that ends, so does the lease: Done
//     closes with the reason, which the pod's status tells up to seconds later.
//     The session's stream broke at once.
//   - The informer's cache is a hint: whether a worker serves is decided by its
//     channel alone. A pod that is about to go (DeletionTimestamp, or the
//     worker says so) is Draining: no new leases, the old ones go on.
//   - A worker that does not answer counts as full.
package pool
