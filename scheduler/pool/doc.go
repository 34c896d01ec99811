// Package pool finds the warm workers and leases their slots.
//
// Warm workers are the pods of the class Deployments. The pool watches them and
// has package channels keep a channel to each, ahead of need, so that a session
// costs no exec.
//
// Guarantees, beside those of package channels:
//
//   - The informer's cache is a hint: whether a worker serves is decided by its
//     channel alone. A pod that a ticket names and the cache does not is read by
//     its name before it is called gone.
//   - A lease belongs to the worker's boot. Done closes, with the reason, when
//     that is gone for certain. A channel that broke, an API server that is down
//     and a scheduler that stops are no such reason: the session runs on, and can
//     be resumed.
package pool
