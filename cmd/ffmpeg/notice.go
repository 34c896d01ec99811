package main

import (
	"os"
	"sync"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// noticeAfter is how long a player's command may be silent before the shim says
// what it waits for.
const noticeAfter = 500 * time.Millisecond

// notice is the one line that a waiting session writes: Jellyfin 10.11 blocks
// a thread, and cannot cancel, until the first byte of a transcode's stderr.
// Nobody else gets one: most callers parse stderr, or let it be their own log.
type notice struct {
	program string
	timer   *time.Timer

	mu     sync.Mutex
	over   bool // the program's own bytes may follow, or the session is over
	reason string
}

// newNotice starts the clock. It returns a notice that never speaks unless
// somebody waits for this kind of session on a pipe.
func newNotice(program ffmpeg.Program, kind ffmpeg.Kind) *notice {
	n := &notice{program: string(program), reason: "asking the scheduler"}
	if awaited(kind) && isPipe(os.Stderr) {
		n.timer = time.AfterFunc(noticeAfter, n.speak)
	}
	return n
}

// awaited tells whether somebody watches while a session of this kind waits.
func awaited(kind ffmpeg.Kind) bool { return kind == ffmpeg.Playback || kind == ffmpeg.Live }

func isPipe(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeNamedPipe != 0
}

// progress remembers what the session waits for.
func (n *notice) progress(p *wire.Progress) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.Reason != "" {
		n.reason = p.Reason
	}
}

func (n *notice) speak() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.over {
		n.over = true
		say(n.program, failure{what: "waiting for a worker", why: n.reason})
	}
}

// end keeps it silent from now on; no line of it follows the return.
func (n *notice) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over = true
	if n.timer != nil {
		n.timer.Stop()
	}
}
