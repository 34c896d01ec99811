// Package scheduler is ffpod's control plane: it takes a session that a shim
// asks for, finds a worker for it, and relays bytes until both sides know its
// end. Scheduler.Serve is the data's way, one step after the other.
//
// # Glossary
//
//   - session: one run of ffmpeg or ffprobe asked for by a shim. Its id is the
//     shim's choice and unique for ever. It ends in one exit: a code, a signal,
//     or lost.
//   - caller: the ServiceAccount and pod that opened the session.
//   - class: a Deployment labelled ffpod.dev/class, a named shape of worker.
//   - worker: a pod that runs sessions; warm (of the Deployment, several slots)
//     or a Job's (one session, then it exits). Its supervisor is PID 1.
//   - slot: the right to one session on one worker. The worker is the last word
//     on it.
//   - lease: a held slot. It ends once, by Release (the end of the session is
//     known), Leave (the session goes on without this stream) or Destroy.
//   - placement: the decision for one session and its reason (scheduler/placement).
//   - kind: what a session is for (scheduler/ffmpeg).
//
// # The data's way
//
//	shim ── gRPC/TLS ──▶ server ── Serve ─────────────────────────────────────────┐
//	                     1 authenticate                                           │
//	  2 parse  ─▶  3 admit  ─▶  4 queue and place  ─▶  5 lease  ─▶  6 ticket      │
//	                              ▲  │ wait            │ refused    │ not taken   │
//	                              │  └─ Progress ─▶ shim            ▼             │
//	                              └──────────────────────── 7 start and relay     │
//	                                  place again           8 release, destroy    │
//	                                                        9 tell and audit ─────┘
//
// The states of a session are in store/state.go, with their diagram.
//
// # Guarantees
//
//   - At most once: a session is placed again only when its worker said in words
//     that it started nothing (Refused), or when Start was never sent.
//   - Start goes to a worker only after the shim acknowledged its ticket. Without a
//     ticket nothing runs.
//   - Only the supervisor's Exit ends a session with success: its own, or for a
//     hardware probe the one that it gave to the same question (transcripts.go). If a worker goes,
//     the shim gets Lost, with the reason that Kubernetes gives.
//   - The end of the shim's stream cancels what has not started: its place in
//     the queue, its lease, its Job. What has started is orphaned: the worker kills
//     it after 120 ms unless a living shim has resumed it by then, here or at
//     another replica. Nothing but the words Orphan and Kill ends a session.
//   - Of two sessions of one account with the same outputs the newer one starts
//     when the older is dead, or past the bound of its worker's own timers (fence).
//   - A session is resumed by the pod that began it, by nobody else.
//   - Every session that was authenticated ends in exactly one audit line.
//   - No frame is changed on its way but Start, which gains the record and the
//     niceness of its kind, and whose argv is rewritten for the hardware of a class
//     that asks for it (ffpod.dev/translate): which options, the record says.
//   - argv, env and cwd are never logged, stored or put into an object.
//
// # Failure handling
//
//	what fails                        before Start          after Start
//	the shim or its connection        cancelled             orphaned after 120 ms, unless it resumes
//	the worker refuses                placed again, 3 times -
//	the channel, API server, kubelet  placed again, 3 times Detached: the shim resumes, orphaned after 20 s
//	the worker's pod or container     placed again, 3 times Lost, with the cause
//	the worker's node                 placed again, 3 times Lost; its outputs stay fenced until it must be dead
//	a Job cannot start                placed again, or Refused once its wait is over
//	nothing becomes free              Refused QUEUE_TIMEOUT -
//	this process is told to stop      Refused DRAINING      Detached: the shim resumes at the next one
//	this process dies                 the shim asks anew    the shim resumes at the next one
//
// What workers tell of sessions that were begun elsewhere is compared with what is
// known here (reconcile.go): their outputs are fenced, and one that nobody has
// resumed for 20 s is orphaned.
//
// # Concurrency
//
// One goroutine per stream runs Serve; when a stream has ended before its session,
// another sees to the rest. One dispatcher (Run) walks the queue in
// order whenever something may have changed, and is the only one that grants
// rights, so that a later session never overtakes an earlier one that could have
// had the same slot.
package scheduler
