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
//	         Start          fork              wait4               ExitAck
//	(nothing) ───▶ admitted ───▶ running ────────────▶ exited ───────────▶ kept as record
//	                  │             │  Signal, Kill,      │
//	                  │             │  stream ended       │ stream ended
//	                  ▼             ▼                     ▼
//	               Refused      SIGKILL to the group   kept as record
//
// A slot is held from admitted to exited: it is free when the process group is
// gone, not when somebody was told. A session whose stream ends is killed at
// once; keeping it for a Resume is the protocol's next step.
//
// # Guarantees
//
//   - stdout and stderr are sent to their last byte before the Exit. When the
//     process is gone but something outside its group still holds a pipe, the pipe
//     is cut after it was idle for 2 s, and the Exit says so.
//   - Nothing of a session outlives it: its process group gets SIGKILL before its
//     leader is reaped, so the group's number cannot have been reused.
//   - What left its group is found by the variable FFPOD_SESSION that it inherited,
//     or by having been reparented to PID 1 while nothing else runs, and is killed
//     before the slot is free.
//   - As PID 1 it reaps what is reparented to it.
//   - Near the limit of its cgroup the largest session is ended, cause memory; the
//     kernel might end the container with all of them.
//   - In once mode (a Job) the first session is the last, and Serve returns its
//     exit status, so that the Job's status tells the truth.
package supervisor
