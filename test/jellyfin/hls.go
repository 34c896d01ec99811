package jellyfin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// HLS is one viewer's film in segments: DynamicHlsController. The playlist that
// clients get is computed; ffmpeg's is never served.
type HLS struct {
	s       *Server
	argv    func(start int) []string
	dir     string
	name    string // of every file, before the segment's number
	ext     string
	seconds int

	lock   sync.Mutex // one request at a time decides
	job    *Transcode
	served map[int]served // by the present job
	Starts int            // of ffmpeg
}

// served is a segment as it was sent.
type served struct {
	length int64
	sum    string
}

// NewHLS reads the names from a command line; argv makes that of a start at a
// segment.
func (s *Server) NewHLS(seconds int, argv func(start int) []string) *HLS {
	args := argv(0)
	pattern := args[slices.Index(args, "-hls_segment_filename")+1]
	dir, file := filepath.Split(pattern)
	name, ext, _ := strings.Cut(file, "%d")
	return &HLS{s: s, argv: argv, dir: dir, name: name, ext: ext, seconds: seconds, served: map[int]served{}}
}

func (h *HLS) file(n int) string { return filepath.Join(h.dir, h.name+strconv.Itoa(n)+h.ext) }

// newest is the number of the segment with the latest mtime; the file that is
// no segment would throw.
func (h *HLS) newest() (int, error) {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return 0, err
	}
	var files []os.FileInfo
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), h.name) && strings.HasSuffix(e.Name(), h.ext) {
			if info, err := e.Info(); err == nil {
				files = append(files, info)
			}
		}
	}
	if len(files) == 0 {
		return 0, os.ErrNotExist
	}
	last := slices.MaxFunc(files, func(a, b os.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(len(a.Name()), len(b.Name())), cmp.Compare(a.Name(), b.Name()))
	})
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(last.Name(), h.name), h.ext))
	if err != nil {
		return 0, fmt.Errorf("%s is in the way of segments: %w", last.Name(), err)
	}
	return n, nil
}

// Segment answers a request for one.
func (h *HLS) Segment(ctx context.Context, n int) error {
	h.lock.Lock()
	defer h.lock.Unlock()
	if size(h.file(n)) < 0 {
		current, err := h.newest()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if h.job == nil || err != nil || n < current || n-current > windowSeconds/h.seconds {
			if err := h.restart(ctx, n); err != nil {
				return err
			}
		} else if err := h.job.Throttle(false); err != nil && !h.job.HasExited() {
			return err
		}
	}
	return h.serve(ctx, n)
}

// restart is a seek: the old ffmpeg ends, the newest file goes, the next ffmpeg
// writes the same names.
func (h *HLS) restart(ctx context.Context, n int) error {
	if h.job != nil {
		if err := h.End(); err != nil && !errors.Is(err, errKilled) {
			return err
		}
		if current, err := h.newest(); err == nil {
			if err := os.Remove(h.file(current)); err != nil {
				return err
			}
		}
	}
	h.Starts++
	h.served = map[int]served{}
	job, err := h.s.StartTranscode(ctx, h.argv(n), h.file(n))
	h.job = job
	return err
}

// serve waits until the segment is complete by Jellyfin's rule and sends it with
// the length that it has at that moment.
func (h *HLS) serve(ctx context.Context, n int) error {
	for {
		exited := h.job.HasExited() // before the look at the files
		current, err := h.newest()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		there := size(h.file(n)) >= 0
		if there && (exited || err == nil && n < current || size(h.file(n+1)) >= 0) {
			return h.send(n)
		}
		if exited {
			return fmt.Errorf("ffmpeg ended with %d before segment %d was there: %q", h.job.ExitCode(), n, h.job.last(3))
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return fmt.Errorf("wait for segment %d: %w", n, ctx.Err())
		}
	}
}

func (h *HLS) send(n int) error {
	f, err := os.Open(h.file(n))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return fmt.Errorf("segment %d is served with no bytes", n)
	}
	b, err := io.ReadAll(io.LimitReader(f, info.Size()))
	if err != nil {
		return err
	}
	h.served[n] = served{info.Size(), sum(b).SHA}
	return nil
}

// End stops the job, keeps its files and holds against them what was served.
func (h *HLS) End() error {
	stopped := h.job.Stop()
	if !h.job.WaitForExit(recorderLimit) {
		return errors.New("the process is there long after SIGKILL")
	}
	defer h.job.Close()
	select {
	case <-h.job.logged:
	case <-time.After(heldBound):
		return errors.New("stderr is held open after the end of ffmpeg")
	}
	for n, was := range h.served {
		b, err := os.ReadFile(h.file(n))
		if err != nil {
			return err
		}
		if now := sum(b); now.SHA != was.sum {
			return fmt.Errorf("segment %d was served with %d bytes, and has %d in the end", n, was.length, now.Bytes)
		}
	}
	return stopped
}

// playlistLines reads what a live playlist has by now.
func playlistLines(path string) int {
	b, _ := os.ReadFile(path)
	return strings.Count(string(b), "#EXTINF")
}
