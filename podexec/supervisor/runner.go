package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// Run serves one stream of a session. It implements wire.RunnerServer.
func (s *Supervisor) Run(stream wire.Runner_RunServer) error {
	link := session.NewLink(stream, s.conf.Session)
	defer link.Close()
	first, err := opening(link)
	if err != nil {
		return err
	}
	if resume := first.GetResume(); resume != nil {
		return s.resume(stream.Context(), link, resume)
	}
	start := first.GetStart()
	if start == nil {
		return s.refuse(link, wire.Refusal_BAD_START, "the first frame is neither start nor resume", "use matching releases of scheduler and worker")
	}
	if refusal, why := s.admit(start); refusal != wire.Refusal_REFUSAL_UNSPECIFIED {
		return s.refuse(link, refusal, why, "")
	}
	r, refusal, err := s.begin(start)
	if err != nil {
		s.release(start)
		sent := s.refuse(link, refusal, err.Error(), "check the worker's image and volumes")
		if s.conf.Once {
			awaitPeer(stream.Context())
			s.last <- ending{err: err}
		}
		return sent
	}
	s.sessions.Go(func() { s.settle(r, r.live(s.children, &s.looks, s.watch(r), func(e *wire.Exit) { s.released(r, e) })) })
	return s.follow(r, link, nil)
}

// follow attaches a stream, serves it to its end, and delivers what was said last.
func (s *Supervisor) follow(r *run, link *session.Link, resume *wire.Resume) error {
	switch err := r.attach(link, resume); {
	case errors.Is(err, errOvertaken): // nothing is said of the session: it goes on
		return status.Error(codes.Aborted, err.Error())
	case err != nil:
		return s.lost(link, r.start.Session, err)
	}
	r.follow(link)
	_ = link.Flush()
	return nil
}

// resume attaches a new stream to a session. One that never came is barred from
// coming later: whoever is told so may start the command elsewhere.
func (s *Supervisor) resume(stream context.Context, link *session.Link, resume *wire.Resume) error {
	id := resume.GetTicket().GetSession()
	if nonce := resume.GetTicket().GetNonce(); nonce != s.nonce {
		return s.lost(link, id, errors.New("the worker has restarted since"))
	}
	r, known, err := s.lookUp(stream, id)
	switch {
	case err != nil:
		return err
	case r != nil:
		return s.follow(r, link, resume)
	case known:
		return s.lost(link, id, errors.New("it has ended, and its exit was not kept"))
	}
	return s.refuse(link, wire.Refusal_UNKNOWN_SESSION, fmt.Sprintf("session %s never came to worker %s", id, s.conf.Pod), "start the command again")
}

// lookUp finds a session, and bars one that was never seen. A session that is being
// started is waited for until ctx ends: a file system that hangs may hold up the fork.
func (s *Supervisor) lookUp(ctx context.Context, id string) (r *run, known bool, err error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		r, starting := s.running[id]
		known = starting || s.known.has(id)
		if !known {
			s.barred.add(id)
		}
		s.mu.Unlock()
		if r != nil || !starting {
			return r, known, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, true, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// lost tells that a session's end is not known here.
func (s *Supervisor) lost(link *session.Link, id string, why error) error {
	link.Send(&wire.Frame{Kind: &wire.Frame_Lost{Lost: &wire.Lost{Message: fmt.Sprintf("session %s on worker %s: %s", id, s.conf.Pod, why)}}})
	return link.Flush()
}

// opening is the first frame of a stream. It comes before the link dies, or never.
func opening(link *session.Link) (*wire.Frame, error) {
	type came struct {
		frame *wire.Frame
		err   error
	}
	first := make(chan came, 1)
	go func() { // ends at the latest with the stream, whose handler this is
		f, err := link.Recv()
		first <- came{f, err}
	}()
	select {
	case c := <-first:
		return c.frame, c.err
	case <-link.Dead():
		return nil, link.Err()
	}
}

func (s *Supervisor) refuse(link *session.Link, refusal wire.Refusal, message, remedy string) error {
	link.Send(&wire.Frame{Kind: &wire.Frame_Refused{Refused: &wire.Refused{Refusal: refusal, Message: strings.ToValidUTF8(message, "?"), Remedy: remedy}}})
	return link.Flush()
}

// awaitPeer waits until the peer hung up, since it has all it needs. A refusal is
// not acknowledged, and a server that stops drops what is still on its way.
func awaitPeer(stream context.Context) {
	timeout := time.NewTimer(deliverBound)
	defer timeout.Stop()
	select {
	case <-stream.Done():
	case <-timeout.C:
	}
}

// admit takes a slot.
func (s *Supervisor) admit(start *wire.Start) (wire.Refusal, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.running[start.Session]
	known = known || s.known.has(start.Session)
	switch {
	case start.Session == "":
		return wire.Refusal_BAD_START, "the session has no id"
	case known:
		return wire.Refusal_DUPLICATE, fmt.Sprintf("session %s is known here already", start.Session)
	case s.barred.has(start.Session):
		return wire.Refusal_DUPLICATE, fmt.Sprintf("session %s was given up before it came to worker %s", start.Session, s.conf.Pod)
	case s.draining:
		return wire.Refusal_DRAINING, fmt.Sprintf("worker %s is shutting down", s.conf.Pod)
	case s.conf.Once && closed(s.first):
		return wire.Refusal_NO_SLOT, fmt.Sprintf("worker %s serves one session only", s.conf.Pod)
	case !s.slots.take():
		return wire.Refusal_NO_SLOT, fmt.Sprintf("worker %s has all %d slots in use", s.conf.Pod, s.conf.Slots)
	}
	s.prover.disturb()
	s.running[start.Session], s.starting[start.Session] = nil, start
	s.known.add(start.Session)
	if !closed(s.first) {
		close(s.first)
	}
	return wire.Refusal_REFUSAL_UNSPECIFIED, ""
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// begin starts the process of an admitted session.
func (s *Supervisor) begin(start *wire.Start) (*run, wire.Refusal, error) {
	var path, name string
	switch start.Program {
	case wire.Program_FFMPEG:
		path, name = s.conf.FFmpeg, "ffmpeg"
	case wire.Program_FFPROBE:
		path, name = s.conf.FFprobe, "ffprobe"
	default:
		return nil, wire.Refusal_BAD_START, fmt.Errorf("worker %s knows no program %d", s.conf.Pod, start.Program)
	}
	if path == "" {
		return nil, wire.Refusal_NO_PROGRAM, fmt.Errorf("worker %s has no %s", s.conf.Pod, name)
	}
	if err := directory(string(start.Cwd)); err != nil {
		return nil, wire.Refusal_BAD_START, fmt.Errorf("the working directory %q %w on worker %s", start.Cwd, err, s.conf.Pod)
	}
	p, err := s.children.start(path, start, marked(environment(os.Environ(), start.Env), start.Session))
	if err != nil {
		return nil, refusalOf(err), fmt.Errorf("execute %s on worker %s: %w", path, s.conf.Pod, err)
	}
	r := newRun(start, p, &s.slots)
	r.troubled = s.prover.troubled
	s.mu.Lock()
	s.running[start.Session] = r
	delete(s.starting, start.Session)
	draining := s.draining
	s.mu.Unlock()
	if draining { // it was admitted just before, drain did not see it
		r.kill(syscall.SIGTERM, wire.Cause_CAUSE_SHUTDOWN)
	}
	s.conf.Log.Info("session started", zap.String("session", start.Session), zap.Int("pid", p.pid))
	return r, 0, nil
}

// refusalOf tells what a failed start means: another worker may have what this one
// lacks at the moment.
func refusalOf(err error) wire.Refusal {
	switch {
	case errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.EINVAL):
		return wire.Refusal_BAD_START
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return wire.Refusal_NO_SLOT
	}
	return wire.Refusal_NO_PROGRAM
}

// release gives back the slot of a session that did not start.
func (s *Supervisor) release(start *wire.Start) {
	s.slots.give()
	s.mu.Lock()
	delete(s.running, start.Session)
	delete(s.starting, start.Session)
	s.known.remove(start.Session)
	s.mu.Unlock()
}

// settle keeps the record of a session that is over on both sides.
func (s *Supervisor) settle(r *run, failed error) {
	state := r.state()
	s.mu.Lock()
	delete(s.running, r.start.Session)
	s.known.add(r.start.Session) // however many have come since it did
	s.records = append(s.records, state)
	for s.kept += len(state.Record); len(s.records) > keptRecords || s.kept > keptBytes && len(s.records) > 1; {
		s.kept -= len(s.records[0].Record)
		s.records = slices.Delete(s.records, 0, 1)
	}
	s.mu.Unlock()
	if s.conf.Once {
		s.last <- ending{state.Exit, failed}
	}
}

// released frees the slot of a session whose process group is gone.
func (s *Supervisor) released(r *run, e *wire.Exit) {
	r.leave()
	s.conf.Log.Info("session ended", zap.String("session", e.Session), zap.Int32("code", e.Code), zap.Int32("signal", e.Signal),
		zap.Stringer("cause", e.Cause), zap.Int64("ms", e.EndedUnixMs-e.StartedUnixMs), zap.Int64("maxRssKiB", e.MaxRssKib))
}

// Kill ends a session. It implements wire.SupervisorServer.
func (s *Supervisor) Kill(ctx context.Context, q *wire.KillRequest) (*wire.KillResponse, error) {
	r, known, err := s.lookUp(ctx, q.Session)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return &wire.KillResponse{Known: known, Dead: true}, nil // it is over, or may not start any more
	}
	cause := q.Cause
	if cause == wire.Cause_CAUSE_UNSPECIFIED {
		cause = wire.Cause_CAUSE_SIGNAL
	}
	return &wire.KillResponse{Known: true, Dead: r.terminate(time.Duration(q.GraceMs)*time.Millisecond, cause)}, nil
}

// Orphan kills a session after a while unless it is attached anew. It does not
// wait, so the order outlives whoever gave it. It implements wire.SupervisorServer.
func (s *Supervisor) Orphan(ctx context.Context, q *wire.OrphanRequest) (*wire.OrphanResponse, error) {
	r, known, err := s.lookUp(ctx, q.Session)
	if err != nil {
		return nil, err
	}
	if r != nil {
		r.orphaned(q.Epoch, time.Duration(q.AfterMs)*time.Millisecond)
	}
	return &wire.OrphanResponse{Known: known}, nil
}

// directoryBound is how long a file system may take to find a working directory.
const directoryBound = 5 * time.Second

// directory checks a working directory before the lock of all forks is taken: a
// file system that hangs must not hold up the others.
func directory(path string) error {
	found := make(chan error, 1)
	go func() { // ends when the file system answers
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			found <- nil
			return
		}
		found <- errors.New("does not exist")
	}()
	select {
	case err := <-found:
		return err
	case <-time.After(directoryBound):
		return fmt.Errorf("did not answer within %s", directoryBound)
	}
}
