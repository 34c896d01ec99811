// Package supervisor is PID 1 of every worker pod. It runs ffmpeg and ffprobe
// as its children, on pipes, for schedulers that reach it through a channel: an
// exec of `worker dial`, which copies bytes to the abstract unix socket that the
// supervisor serves. Media never touches the container's log.
//
//	channel ─▶ unix socket ─▶ Run ─▶ slot ─▶ child process group
//	                            ▲               │ stdin, stdout, stderr: pipes
//	                            └── Link ◀── rings
//
// # One session
//
//	         Start          fork              wait4                ExitAck
//	(nothing) ───▶ admitted ───▶ running ─────────────▶ exited ─────────────▶ kept as record
//	                  │          ▲  │  │ Signal, Kill     ▲  │ Orphan, grace
//	                  ▼          │  │  └──────────────────┤  └───────────────▶ kept as record
//	               Refused       │  │ the stream ended    │
//	                       Resume│  ▼                     │
//	                         unattached ──────────────────┘
//	                               Orphan: KILL after its time;  grace: q, TERM, KILL
//
// A slot is held from admitted to exited: it is free when the process group is
// gone, not when somebody was told. A session that Pause has stopped holds none, see
// pause. A session belongs to the supervisor, streams come and go: the end of one
// kills nothing, only Kill and Orphan do, and the supervisor's own timers. An order
// outlives whoever gave it, and is void once a newer stream has been attached. One
// for a session that has not come bars it from coming later. The session of a
// scheduler that gives no orders (Start.orders, the previous release) ends with its
// stream.
//
// # Guarantees
//
//   - stdout and stderr are sent to their last byte before the Exit. When the
//     process is gone but something outside its group still holds a pipe, the pipe
//     is cut after it was idle for 2 s, and the Exit says so.
//   - An exit is kept until it is acknowledged, or nobody can ask for it any more.
//   - Nothing of a session outlives it: its process group gets SIGKILL before its
//     leader is reaped, so the group's number cannot have been reused.
//   - What left its group is found by the variable FFPOD_SESSION that it inherited,
//     or by having been reparented to PID 1 while nothing else runs, and is killed
//     before the slot is free.
//   - As PID 1 it reaps what is reparented to it.
//   - Near the limit of its cgroup the largest session is ended, cause memory; the
//     kernel might end the container with all of them.
//   - What the worker's ffmpeg can do is tried beside the sessions, by nice 19, one
//     trial after the other; each has a bound and is killed with its group. A once
//     worker runs none before its session unless that is late, and ends the one
//     that runs when it comes.
//   - In once mode (a Job) the first session is the last, and Serve returns its
//     exit status, so that the Job's status tells the truth.
package supervisor
