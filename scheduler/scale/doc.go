// Package scale sets how many warm workers a class has, where its annotation
// ffpod.dev/scale allows it: MIN..MAX, zero included.
//
//	                      sessions wait, no slot is free
//	replicas n ─────────────────────────────────────────────▶ more, at once
//	           ◀───────────────────────────────────────────── Kubernetes places none: no more
//	           five minutes in which fewer would have done,
//	           and idle workers that can be named ──────────▶ fewer
//
// Guarantees:
//
//   - Without the annotation replicas are never touched: they are the tree's, an
//     autoscaler's or a person's. With it they are the scheduler's.
//   - No session is ended. A worker that is to go is idle, gets no session any more
//     (Cordon), and is marked so that Kubernetes removes it and not its neighbour
//     (controller.kubernetes.io/pod-deletion-cost). Where the scheduler may not mark
//     pods, workers go only when all of the class are idle.
//   - Nothing goes while a worker of the class does not answer: Kubernetes would
//     remove that one first, whatever runs in it.
//   - Whoever makes workers by hand keeps them for five minutes at least.
package scale
