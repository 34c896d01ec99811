// Package standby keeps Jobs ahead of need: a pod per session, at the price of a
// warm start.
//
//	Plan: make ──▶ no node yet ──▶ node ──▶ answers (Ready) ──▶ taken ──▶ like any Job
//	                 │ 10 s            │ 3 min     │ surplus, stale,
//	                 ▼                 ▼           ▼ class changed
//	              refused           refused     retired (exit 0)
//
// How many: as many as sessions took a Job of the class, or a standby, within ten
// minutes, between the two bounds of the annotation ffpod.dev/standby.
//
// Guarantees:
//
//   - One is made at a time, and the next when it has a node: what is in excess of
//     what the cluster can hold is one pod, for ten seconds. After a refusal none is
//     made before something of ours has ended, or ten minutes have passed.
//   - A standby never keeps anybody from a resource: while a session's Job or a warm
//     worker that could use its place gets no node, standbys are retired.
//   - Standbys count among the class's Jobs: bounds hold for their sum.
//   - One that a session has is never retired. Taking and retiring exclude each other
//     in this process; right before the end the worker is asked once more, for another
//     scheduler may have used it.
//   - A standby that no scheduler asks for ends by itself, with exit code 0, after half
//     of a Job's deadline; its deadline ends it if it hangs.
package standby
