// Package job makes a Job for one session of a class, and leases its worker.
//
//	   admitted (the class's limit)
//	       │ create, the name follows from class and session
//	   created ──▶ pod ──▶ scheduled ──▶ exec tried ──▶ answers ──▶ leased ◀── Resume
//	       │        │          │             │               │      │      │
//	       └────────┴──────────┴─────────────┘          Release   Leave  Destroy
//	ctx done, pod gone: the Job is deleted,          it ends by  it goes  it is
//	the error says what Kubernetes last said         itself      on       deleted
//
// Jobs that were made before this process began, or by another one, are found by
// their pods: each gets a channel, is asked what it runs, and can be resumed.
//
// A standby is a Job that was made ahead of need (package standby decides when): its
// worker waits, with a channel open, until a session takes it. From then on it is a
// Job like any other.
//
// Guarantees:
//
//   - A Job runs at most one pod: no retries, no replacement while a pod lives,
//     and a disrupted pod fails the Job. The worker serves one session and exits
//     with ffmpeg's code.
//   - The Pod is watched, never the Job's status, which is seconds late. Nor is
//     the Pod's status waited for: exec is tried from the moment a node is
//     chosen, and the first answer of the worker is its readiness.
//   - What it waits for is reported in Kubernetes' own words, from the Pod's
//     status and from Events: a refusal by quota exists only as an Event.
//   - activeDeadlineSeconds is a lease: it is moved forward while the session
//     lives, so a Job whose scheduler died ends by itself. (Of a Job's spec this
//     field may be changed while it runs; the Job controller counts from the
//     start time and looks again after every change.)
//     So does that of a Job whose worker says that a session runs, whoever made
//     the Job.
//   - A Job that is evicted by its queue (Kueue suspends it) before its worker has
//     answered fails the launch and is deleted: its session is placed again. One whose
//     session ran is lost with its pod, and deleted, so that it is not admitted again
//     without its session.
//   - Why the Jobs of a class do not start now is told by Unable.
//   - Jobs are owned by the Deployment of their class and go with it.
//   - A Job that serves nobody is deleted: its worker has no session and had none
//     within a minute, or its session has ended and nobody takes the exit, or it
//     does not answer and no scheduler moves its deadline. Never one whose worker
//     has said that a session runs; right before the deletion it is asked again.
package job
