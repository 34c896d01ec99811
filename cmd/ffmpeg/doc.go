// Command ffmpeg is the shim: the program that a caller starts in the belief
// that it is ffmpeg or ffprobe. It is installed under both names; argv[0] tells
// which one was meant.
//
//	              ┌ local ─────────────────────────▶ execve of the real binary, in place
//	argv ─ decide ┤                                   ▲            ▲
//	 (no network) └ remote ─ gRPC/TLS ─ scheduler ─┬──┘ LOCAL      │
//	                            │                  └─ not started ─┴─ may it run here? ─ no ─▶ one line, 125
//	                            ▼
//	                         Started ─▶ bytes, signals ─▶ Exit: the same code or the same signal
//	                                                   └▶ lost: one line, 125; never run again
//
// Decided local, nothing of ffpod stays: pid, descriptors, environment, umask,
// niceness, limits and signal dispositions are those the shim was started with.
// (Go's runtime cannot keep an inherited SIG_IGN except of SIGHUP and SIGINT;
// ffmpeg sets its own dispositions anyway.) One thing stays where it writes files
// that workers could write too: the lock of each, a descriptor from 200 on that
// ffmpeg holds without knowing it, so that no other writer of this pod or on a
// worker begins before it has ended (package registry). The shim is one binary, and small
// packages decide first: measured with 300 runs each, starting Go costs 0.4 ms
// and initialising gRPC, TLS and protobuf another 0.6 ms, which a second binary
// beside it would save at the price of two files that must match.
//
// # Settings
//
// docs/shim.md has the same table with examples. A value that cannot be used
// is one line and exit 125, whatever the command; empty means unset.
//
//	FFPOD_MODE        auto | local | remote. Defaults to auto.
//	FFPOD_SHARED      Directories that workers mount under the same names, colons between them.
//	FFPOD_ADDRESS     HOST:PORT of the scheduler. Defaults to the contents of /var/run/ffpod/address.
//	FFPOD_EGRESS      auto | true | caller | false: which network inputs workers may have. Defaults to what the scheduler says in /var/run/ffpod/egress.
//	FFPOD_POLICY      warm-then-job | warm | job. Defaults to the scheduler's.
//	FFPOD_CLASS       The only class of workers that may take it. Defaults to any.
//	FFPOD_WAIT        Longest wait for a worker, as 30s or 2m. Defaults to the scheduler's.
//	FFPOD_FALLBACK    auto | local | fail: what to do when nothing could be started remotely.
//	                  auto runs it here in mode auto unless it needs a GPU, and fails otherwise.
//	FFPOD_FFMPEG      The real ffmpeg. Defaults to /usr/lib/jellyfin-ffmpeg/ffmpeg, then PATH without the shim.
//	FFPOD_FFPROBE     The real ffprobe, likewise.
//	FFPOD_TOKEN_FILE  ServiceAccount token. Defaults to /var/run/ffpod/token. Read anew for each session.
//	FFPOD_CA_FILE     CA of the scheduler. Defaults to /var/run/ffpod/ca.crt.
//	FFPOD_LOG         A file that gets one line for each decision. Defaults to none.
//
// # Exit status
//
// The program's own code, or death by the program's signal, re-raised here.
// session.InfrastructureExit (125) means that ffpod itself could not do it; its
// one line on stderr, "NAME: ffpod: what: why; remedy", tells whether anything
// may have run.
package main
