package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ffpod/ffpod/test/chaos/act"
	"github.com/ffpod/ffpod/test/e2e"
)

// A session is one run of the shim by us, and what came of it.
type session struct {
	cast
	mark, class, policy string
	act                 *act.Act // nil: real ffmpeg
	argv                []string
	dir                 string // of its files, as the pods see it
	want                int    // exit code
	mode                mode

	proc     *os.Process
	stdin    *os.File
	out, err *tap
	stop     context.CancelFunc // of the feeding
	work     sync.WaitGroup
	ended    chan struct{}
	world    *world

	began, over time.Time
	status      syscall.WaitStatus
	programs    []int          // its processes in pods, as last seen
	killed      time.Time      // when its shim was, by a fault
	deaths      sync.WaitGroup // measured
	deathTook   atomic.Int64   // nanoseconds from killed to the end of its last program
	frozen      bool           // its shim stands still
	missed      error          // it was not at its moment when the fault struck
	successor   *session       // took its outputs over
	overtakes   bool           // it is a successor
}

// needle is found in the command line of the session's program and no other's.
func (s *session) needle() string {
	if s.act == nil {
		return s.dir + "/"
	}
	return `"Mark":"` + s.mark + `"`
}

const (
	kib = 1 << 10
	mib = 1 << 20

	streamBytes = 3 * mib
	tailBytes   = 160 * kib // more than a pipe holds, less than the session's ring
	film        = "/media/chaos.mkv"
)

// script writes a session's part.
func (w *world) script(c cast, mark string) *session {
	s := &session{cast: c, mark: mark, class: "fake", policy: "warm", mode: remote, world: w, ended: make(chan struct{}), dir: act.Home + "/s/" + mark}
	rate := int64(float64(streamBytes) / sessionSpan.Seconds())
	stream := act.Stream{Flood: e2e.Flood{Seed: c.Seed, Bytes: streamBytes}, Rate: rate}
	chatter := act.Stream{Flood: e2e.Flood{Seed: c.Seed + 1, Bytes: streamBytes / 64}, Rate: rate / 64}
	if c.Kind == job {
		s.policy = "job"
	}
	a := &act.Act{Mark: mark, Code: int(c.Seed % 90)}
	if c.Moment == first || c.Moment == mid || c.Moment == beside {
		a.Cue, a.Tail = s.dir+"/cue", streamBytes/3 // so that it is not over before the fault
	}
	switch c.Kind {
	case stdout, job:
		a.Stdout, a.Stderr = stream, chatter
	case pipe:
		a.Echo = true
	case quiet:
		a.Quiet = sessionSpan
	case file:
		a.Output, a.Stderr, a.Path = stream, chatter, s.dir+"/out.dat"
	case early:
		a.Quiet, a.Stdout = sessionSpan, act.Stream{Flood: e2e.Flood{Seed: c.Seed, Bytes: 2 * tailBytes}}
	case blocked:
		a.Quit, a.Stdout = true, act.Stream{Flood: e2e.Flood{Seed: c.Seed, Bytes: 1 << 40}}
	case hls, image:
		s.class = "cpu"
		s.argv = realArgv(c.Kind, s.dir)
		return s
	}
	if c.Moment == queued {
		s.class = "narrow"
	}
	if c.Moment == last || c.Moment == exited {
		a.Cue, a.Tail, a.Quiet = s.dir+"/cue", tailBytes, 0
		a.Stderr.Bytes = 0 // the tail of one stream is enough to wait for
	}
	s.act, s.argv, s.want = a, a.Argv(), a.Code
	return s
}

// realArgv is a command of real ffmpeg whose files are the same each time.
func realArgv(k kind, dir string) []string {
	if k == image {
		return []string{"-hide_banner", "-nostdin", "-y", "-ss", "3", "-i", film, "-frames:v", "1", dir + "/picture.png"}
	}
	return []string{"-hide_banner", "-y", "-readrate", "4", "-i", film, "-c", "copy", "-f", "hls", "-hls_time", "2",
		"-hls_playlist_type", "vod", "-hls_segment_filename", dir + "/seg%d.ts", dir + "/index.m3u8"}
}

// start spawns the shim.
func (s *session) start() error {
	w := s.world
	if err := os.MkdirAll(w.hostPath(s.dir), 0o777); err != nil {
		return err
	}
	if err := os.Chown(w.hostPath(s.dir), uid, uid); err != nil {
		return err
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return err
	}
	s.stdin = inW
	s.out, s.err = newTap(outR, "", s.wantOut()), newTap(errR, "ready\n", s.wantErr())
	if s.Moment == exited {
		s.out.hold = s.act.Stdout.Bytes - s.act.Tail
	}
	if s.Kind == blocked {
		s.out.hold = mib
	}
	env := slices.DeleteFunc(slices.Clone(w.clientEnv), func(v string) bool { return strings.HasPrefix(v, "FFPOD_FFMPEG=") })
	env = append(env, "FFPOD_FFMPEG="+act.Fake, "FFPOD_MODE="+string(s.mode), "FFPOD_CLASS="+s.class, "FFPOD_POLICY="+s.policy, "FFPOD_WAIT=100s")
	s.began = time.Now()
	s.proc, err = spawn(w.clientPid, e2e.Shim, s.argv, env, act.Home, [3]*os.File{inR, outW, errW})
	for _, f := range []*os.File{inR, outW, errW} {
		f.Close()
	}
	if err != nil {
		return fmt.Errorf("spawn the shim: %w", err)
	}
	feeding, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.work.Go(s.out.run)
	s.work.Go(s.err.run)
	s.work.Go(func() { s.feed(feeding) })
	go s.wait()
	return nil
}

func (s *session) wantOut() *e2e.Flood {
	switch {
	case s.act == nil:
		return nil
	case s.Kind == pipe:
		return &e2e.Flood{Seed: s.Seed, Bytes: streamBytes}
	}
	return &s.act.Stdout.Flood
}

func (s *session) wantErr() *e2e.Flood {
	if s.act == nil {
		return nil
	}
	return &s.act.Stderr.Flood
}

// feed writes stdin: what a pipe echoes, what an early one never reads. A shim
// that has ended is nothing to report here.
func (s *session) feed(ctx context.Context) {
	var from act.Stream
	switch s.Kind {
	case pipe:
		from = act.Stream{Flood: e2e.Flood{Seed: s.Seed, Bytes: streamBytes}, Rate: int64(float64(streamBytes) / sessionSpan.Seconds())}
	case early:
		from = act.Stream{Flood: e2e.Flood{Seed: s.Seed, Bytes: 1 << 40}}
	default:
		<-ctx.Done()
		s.stdin.Close()
		return
	}
	defer s.stdin.Close()
	defer context.AfterFunc(ctx, func() { _ = s.stdin.SetWriteDeadline(time.Now()) })()
	r, buf, began := from.Reader(), make([]byte, 16*kib), time.Now()
	for sent := int64(0); sent < from.Bytes && ctx.Err() == nil; {
		n, _ := io.ReadFull(r, buf)
		if from.Rate > 0 {
			lasting(ctx, time.Until(began.Add(time.Duration(float64(sent)/float64(from.Rate)*1e9))))
		}
		m, err := s.stdin.Write(buf[:n])
		sent += int64(m)
		if err != nil {
			return
		}
	}
}

// wait reaps the shim.
func (s *session) wait() {
	state, err := s.proc.Wait()
	s.over = time.Now()
	if err == nil {
		s.status = state.Sys().(syscall.WaitStatus)
	}
	s.stop()
	s.out.letGo()
	s.work.Wait()
	close(s.ended)
}

var errEnded = errors.New("it ended too soon")

// arrive returns when the session is at its moment.
func (s *session) arrive(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- s.toMoment(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s did not come to %s: %w", s.mark, s.Moment, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s did not come to %s: %w", s.mark, s.Moment, context.Cause(ctx))
	}
}

func (s *session) toMoment(ctx context.Context) error {
	switch s.Moment {
	case queued:
		if err := s.until(ctx, func() bool { return len(s.ports()) > 0 }); err != nil {
			return err
		}
		lasting(ctx, 400*time.Millisecond) // the scheduler has the request by then
		return nil
	case first:
		return enough(s.firstTap().reached(1))
	case mid, beside:
		return s.toMiddle(ctx)
	case last, exited:
		return s.toTail(ctx)
	}
	return nil
}

// toExit lets the program of a session end that is to be struck after that, and
// before its caller knows: the caller does not read, or its shim stands still.
func (s *session) toExit(ctx context.Context) error {
	if err := s.until(ctx, func() bool { return len(s.find()) > 0 }); err != nil {
		return err
	}
	if s.frozen = s.Seed%2 == 0; s.frozen {
		if err := s.proc.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
	}
	s.cue()
	return s.until(ctx, func() bool { return len(s.world.census.marked(s.needle())) == 0 })
}

// thaw ends a standstill.
func (s *session) thaw() {
	if s.frozen {
		_ = s.proc.Signal(syscall.SIGCONT) // it may have been killed
	}
}

func enough(ok bool) error {
	if !ok {
		return errEnded
	}
	return nil
}

// firstTap is the output whose first byte tells that the program runs.
func (s *session) firstTap() *tap {
	if s.act != nil && (s.act.Stdout.Bytes > 0 || s.act.Echo) && s.Kind != early {
		return s.out
	}
	return s.err
}

func (s *session) toMiddle(ctx context.Context) error {
	switch s.Kind {
	case stdout, job, pipe:
		return enough(s.out.reached(streamBytes * 2 / 5))
	case blocked:
		if !s.out.reached(mib) {
			return errEnded
		}
		lasting(ctx, time.Second) // every buffer on the way is full by then
		return nil
	}
	if !s.err.reached(1) {
		return errEnded
	}
	lasting(ctx, sessionSpan*2/5)
	return nil
}

// toTail waits until only the bytes are missing that wait for the cue.
func (s *session) toTail(ctx context.Context) error {
	if s.Kind == file {
		return s.until(ctx, func() bool {
			info, err := os.Stat(s.world.hostPath(s.act.Path))
			return err == nil && info.Size() >= s.act.Output.Bytes-tailBytes
		})
	}
	if !s.out.reached(s.act.Stdout.Bytes - tailBytes) {
		return errEnded
	}
	return nil
}

func (s *session) until(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-s.ended:
			return errEnded
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (s *session) cue() {
	if s.act == nil || s.act.Cue == "" {
		return
	}
	_ = os.WriteFile(s.world.hostPath(s.act.Cue), nil, 0o666)
}

// find notes the session's processes in pods.
func (s *session) find() []int {
	var pids []int
	for _, p := range s.world.census.marked(s.needle()) {
		pids = append(pids, p.pid)
	}
	if len(pids) > 0 {
		s.programs = pids
	}
	return pids
}

// afterStrike is what a caller does while, or after, something is broken.
func (s *session) afterStrike() {
	s.thaw()
	if s.Kind == blocked {
		_, _ = io.WriteString(s.stdin, "q\n")
	}
}

// afterHealing lets the session end.
func (s *session) afterHealing() {
	s.cue()
	s.out.letGo()
}

// exit is the shim's end for a person.
func (s *session) exit() string {
	if s.status.Signaled() {
		return "signal " + fmt.Sprint(int(s.status.Signal()))
	}
	return fmt.Sprintf("code %d", s.status.ExitStatus())
}

// words is what the shim said beside its program.
func (s *session) words() string {
	_, _, rest := s.err.state()
	text := string(rest)
	if i := strings.Index(text, "ffmpeg: ffpod: "); i >= 0 {
		text = text[i:]
	}
	return strings.TrimSpace(text[:min(len(text), 400)])
}

// files are the outputs of real ffmpeg, by name.
func filesIn(dir string) (map[string]string, error) {
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		all[e.Name()] = string(b)
	}
	return all, nil
}
