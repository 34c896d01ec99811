package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ffpod/ffpod/cmd/ffmpeg/decision"
	"github.com/ffpod/ffpod/cmd/ffmpeg/visible"
	"github.com/ffpod/ffpod/podexec/buildid"
	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// request describes the process that a worker has to reproduce. It reads this
// process and changes nothing.
func (s *shim) request() (*wire.Start, error) {
	cwd, err := syscall.Getwd()
	if err != nil {
		return nil, fmt.Errorf("read the working directory: %w", err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	mask, err := umask(string(status))
	if err != nil {
		return nil, err
	}
	start := &wire.Start{
		Session: newSession(time.Now()),
		Program: wire.Program_FFMPEG,
		Env:     allowed(os.Environ()),
		Cwd:     []byte(cwd),
		Umask:   mask,
		Build:   s.build(),
		Version: version,
		Policy:  s.settings.Policy,
		Class:   s.settings.Class,
		WaitMs:  uint32(s.settings.Wait.Milliseconds()),
		Nice:    niceness(),
		Resumes: true,
		Local:   s.mayFallBack(),
		Retold:  true,

		ReachesCaller: decision.ReachesCaller(s.command),
		Outputs:       visible.Outputs(&s.command, s.settings.Shared),
	}
	if s.program == ffmpeg.FFprobe {
		start.Program = wire.Program_FFPROBE
	}
	for _, a := range s.argv {
		start.Argv = append(start.Argv, []byte(a))
	}
	return start, nil
}

// mayFallBack tells whether the command may run here if no worker can be had.
func (s *shim) mayFallBack() bool {
	may, _ := decision.MayFallBack(s.settings, s.command)
	return may
}

// newSession makes a UUIDv7: unique for ever, and sorted by time in lists.
func newSession(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// umask reads the mask from /proc/self/status: umask(2) can only be read by
// changing it.
func umask(status string) (uint32, error) {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32)
			return uint32(n), err
		}
	}
	return 0, fmt.Errorf("read the umask: /proc/self/status has no line for it")
}

// niceness is the caller's, as far as a worker can reproduce it: 0 to 19.
func niceness() uint32 {
	raw, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		return 0
	}
	return uint32(max(0, 20-raw)) // the kernel's call returns 20 - nice
}

// allowed keeps the variables that may reach a worker.
func allowed(environ []string) [][]byte {
	all := make([][]byte, len(environ))
	for i, v := range environ {
		all[i] = []byte(v)
	}
	return session.ForwardedEnv(all)
}

// build is the build id of the caller's ffmpeg, also for ffprobe: the two come
// from one build, and workers tell theirs by ffmpeg.
func (s *shim) build() string {
	real, err := s.settings.Real(ffmpeg.FFmpeg)
	if err != nil {
		return "" // a caller without its own ffmpeg has no build to differ from
	}
	id, _ := buildid.Of(real) // unreadable is unknown; policy decides about that
	return id
}
