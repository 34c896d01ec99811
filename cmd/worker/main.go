// Command worker is what runs in every worker pod.
//
//	worker serve   the supervisor, PID 1: runs sessions
//	worker dial    what pods/exec runs: copies stdin and stdout to the supervisor
//	worker probe   exits 0 when the supervisor answers
//
// Settings of serve, all by environment, since a class's pod template is where
// they live:
//
//	FFPOD_CLASS    the class's name (downward API: the label ffpod.dev/class)
//	FFPOD_SLOTS    sessions at once; default 1
//	FFPOD_ONCE     1: serve one session, then exit with its status (Jobs)
//	FFPOD_IDLE     once: how long to wait for that session; default 60s
//	FFPOD_STANDBY  once, 1: that wait begins anew whenever a scheduler asks
//	FFPOD_TRIALS   0: prove nothing, so that placement believes the class; default 1
//	FFPOD_GRACE    what sessions get to end by themselves at shutdown; default 20s
//	FFPOD_FFMPEG   the real ffmpeg; default /usr/lib/jellyfin-ffmpeg/ffmpeg, else PATH
//	FFPOD_FFPROBE  the real ffprobe, likewise
//	POD_NAME, POD_UID, NODE_NAME   told to schedulers
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.LookupEnv)
	stop()
	os.Exit(code)
}
