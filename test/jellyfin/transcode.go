package jellyfin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Transcode is a running ffmpeg that a viewer watches: TranscodingJob.
//
//	StartTranscode ─▶ stderr is read; the awaited file is polled every 100 ms
//	      │
//	      ├─ exit before the file, code not 0 ─▶ error: HTTP 500
//	      ▼
//	   serving ── throttler: one key per change of state
//	      │
//	     Stop ── resume key if paused, "q\n", 5 s, SIGKILL, and nobody waits
type Transcode struct {
	*Process
	playlist string
	features Features
	logged   chan struct{} // stderr has ended

	stopping sync.Mutex

	mu       sync.Mutex
	lines    []string
	position time.Duration
	stopped  time.Time
	paused   bool
	ran      bool // the process ended by itself
}

// StartTranscode starts ffmpeg and returns when the awaited file exists or the
// process has ended, whichever is first; there is no limit. The Transcode is nil
// only if no process was started.
func (s *Server) StartTranscode(ctx context.Context, args []string, awaited string) (*Transcode, error) {
	t, err := s.beginTranscode(ctx, args)
	if err != nil {
		return nil, err
	}
	return t, t.await(ctx, awaited)
}

func (s *Server) beginTranscode(ctx context.Context, args []string) (*Transcode, error) {
	output := args[len(args)-1]
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return nil, err
	}
	p, err := s.Start(ctx, Command{Program: "ffmpeg", Args: args, Stdin: true, Stderr: true})
	if err != nil {
		return nil, err
	}
	t := &Transcode{Process: p, playlist: output, features: s.Features, logged: make(chan struct{})}
	stderr := newLines(p.Stderr)
	if s.Flavour == V10_11 {
		stderr.first() // the request's thread, until a byte or the end
	}
	go t.log(stderr)
	return t, nil
}

// await polls for a file as the request does.
func (t *Transcode) await(ctx context.Context, awaited string) error {
	for size(awaited) < 0 && !t.HasExited() {
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; ffmpeg said %q", awaited, ctx.Err(), t.last(3))
		}
	}
	if t.HasExited() && t.ExitCode() != 0 {
		<-t.logged
		return fmt.Errorf("ffmpeg exited with code %d: %q", t.ExitCode(), t.last(3))
	}
	return nil
}

// log is the JobLogger.
func (t *Transcode) log(stderr lines) {
	defer close(t.logged)
	for {
		line, ok := stderr.next()
		if !ok {
			return
		}
		t.mu.Lock()
		t.lines = append(t.lines, line)
		for _, word := range strings.Fields(line) {
			if at, ok := strings.CutPrefix(word, "time="); ok {
				if d, err := parseTime(at); err == nil {
					t.position = d
				}
			}
		}
		t.mu.Unlock()
	}
}

// parseTime reads hh:mm:ss.ff.
func parseTime(s string) (time.Duration, error) {
	var h, m int
	var sec float64
	if _, err := fmt.Sscanf(s, "%d:%d:%f", &h, &m, &sec); err != nil {
		return 0, err
	}
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(sec*float64(time.Second)), nil
}

// Position is how far ffmpeg says that it is.
func (t *Transcode) Position() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.position
}

// Lines are those of stderr so far.
func (t *Transcode) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.lines...)
}

func (t *Transcode) last(n int) []string {
	all := t.Lines()
	return all[max(0, len(all)-n):]
}

// Throttle is one tick of the throttler: it pauses or resumes, and writes a key
// only when that changes.
func (t *Transcode) Throttle(pause bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if pause == t.paused {
		return nil
	}
	key := map[bool]string{true: "c", false: "\n"}[pause]
	if t.features.PauseKey {
		key = map[bool]string{true: "p", false: "u"}[pause]
	}
	if _, err := t.Stdin.WriteString(key); err != nil {
		return err
	}
	t.paused = pause
	return nil
}

// Stop ends ffmpeg as TranscodingJob.Stop does. Of an error of the pipe Jellyfin
// knows nothing: it would escape, and the files would stay.
func (t *Transcode) Stop() error {
	t.stopping.Lock()
	defer t.stopping.Unlock()
	if t.HasExited() {
		t.mu.Lock()
		t.ran = t.ran || t.stopped.IsZero()
		t.mu.Unlock()
		return nil
	}
	t.mu.Lock()
	t.stopped = time.Now()
	t.mu.Unlock()
	if err := t.Throttle(false); err != nil && !t.HasExited() {
		return fmt.Errorf("resume ffmpeg before its end: %w", err)
	}
	if _, err := t.Stdin.WriteString("q\n"); err != nil && !t.HasExited() {
		return fmt.Errorf("write q: %w", err)
	}
	if !t.WaitForExit(stopLimit) {
		t.Kill()
		return errKilled
	}
	return nil
}

// errKilled says that q had no effect within Jellyfin's limit.
var errKilled = errors.New("ffmpeg did not heed q and was killed")

// DeleteFiles removes what belongs to the playlist, after Jellyfin's delay.
func (t *Transcode) DeleteFiles() error {
	time.Sleep(deleteDelay) // Jellyfin's own
	dir, name := stem(t.playlist)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), name) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
