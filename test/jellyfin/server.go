package jellyfin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of Jellyfin's.
const (
	pollEvery       = 100 * time.Millisecond // for a file that is to appear
	tailEvery       = 50 * time.Millisecond  // for more of a growing file
	stopLimit       = 5 * time.Second        // from q to SIGKILL
	recorderLimit   = 10 * time.Second       // likewise, of a recording
	imageLimit      = 10 * time.Second       // of one picture, from the start of the process
	trickplayWindow = 20 * time.Second       // in which one more picture must appear
	trickplayGrace  = time.Second            // from the end of that window to SIGKILL
	deleteDelay     = 1500 * time.Millisecond
	badJSONLimit    = 100 * time.Millisecond
	subtitleLimit   = 30 * time.Minute
	windowSeconds   = 24 // a segment farther ahead than this is a seek
	minSegments     = 3  // of a live playlist, before it is served
)

// Server is one Jellyfin server, with what its call sites share. Its methods may
// be called at the same time.
type Server struct {
	Flavour         Flavour
	Features        Features // of the build, when known
	ffmpeg, ffprobe string
	bare            string
	root, config    string
	tuner           *tuner
	env             []string
	shimLogs        string
	count           atomic.Int64

	mu        sync.Mutex
	processes []*Process
}

var lastComponent = regexp.MustCompile(`[^/\\]+?(\.[^/\\\n.]+)?$`)

// NewServer configures a server and makes its directories.
func NewServer(o Order) (*Server, error) {
	s := &Server{
		Flavour: o.Flavour, ffmpeg: o.FFmpeg, bare: o.Bare, root: o.Root, config: o.Config,
		ffprobe: lastComponent.ReplaceAllString(o.FFmpeg, "ffprobe$1"),
	}
	temp := s.path("/cache/tmp")
	// What the official image and the server itself set, and what is nobody
	// else's business.
	s.env = environment(os.Environ(), []string{
		"NEOReadDebugKeys=1", "EnableExtendedVaFormats=1", "MALLOC_TRIM_THRESHOLD_=131072", "LANG=C.UTF-8", "LC_ALL=C.UTF-8",
		"TMPDIR=" + temp, "JELLYFIN_FFMPEG=" + o.FFmpeg, "POSTGRES_PASSWORD=hush",
	}, o.Env)
	for _, dir := range []string{"/cache/transcodes", "/cache/tmp/jellyfin", "/cache/config/data/subtitles", "/cache/config/data/attachments", "/cache/recordings", "/cache/locks"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return nil, err
		}
	}
	var err error
	if s.tuner, err = newTuner(s.path(broadcast)); err != nil {
		return nil, err
	}
	s.shimLogs, err = os.MkdirTemp("", "shim-logs-")
	return s, err
}

// Close removes what is the simulator's own. No process may run any more.
func (s *Server) Close() {
	s.tuner.close()
	_ = os.RemoveAll(s.shimLogs)
}

func (s *Server) path(name string) string {
	if below, ok := strings.CutPrefix(name, "/cache/config/"); ok && s.config != "" {
		return s.config + "/" + below
	}
	return s.root + name
}

func environment(lists ...[]string) (env []string) {
	at := map[string]int{}
	for _, list := range lists {
		for _, v := range list {
			name, _, _ := strings.Cut(v, "=")
			if i, ok := at[name]; ok {
				env[i] = v
				continue
			}
			at[name] = len(env)
			env = append(env, v)
		}
	}
	return env
}

func (s *Server) add(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = append(s.processes, p)
}

// left ends what a scenario forgot, and names it.
func (s *Server) left() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []string
	for _, p := range s.processes {
		if !p.WaitForExit(heldBound) {
			left = append(left, fmt.Sprintf("process %d (%.80s)", p.PID, p.name))
			p.Kill()
			<-p.exited
		}
	}
	return left
}

// empty makes a directory without anything in it. It may be a mount.
func empty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// size is that of a file now, -1 if there is none.
func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return -1
	}
	return info.Size()
}

// stem splits a playlist's path into its directory and the name that its files
// begin with.
func stem(playlist string) (dir, name string) {
	dir, name = filepath.Split(playlist)
	return dir, strings.TrimSuffix(name, filepath.Ext(name))
}
