package fence

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/ffpod/ffpod/scheduler/lease"
)

var (
	// ErrSuperseded is Wait's answer to a session when a newer one has claimed one
	// of its outputs.
	ErrSuperseded = errors.New("a newer session writes the same outputs")
	// ErrKnown is Claim's answer to an id that holds outputs already.
	ErrKnown = errors.New("session holds outputs already")
	// ErrFreed is Wait's answer to a session that holds nothing (any more).
	ErrFreed = errors.New("session holds no outputs")
)

// remembered is for how long a freed session cannot be adopted: a Describe that
// was answered before the session ended may be read after it.
const remembered = 5 * time.Minute

// Session is a writer.
type Session struct {
	ID    string
	Owner string   // "namespace/serviceaccount": keys of different owners never conflict
	Keys  []string // of ffmpeg.Command.OutputKeys; none: it conflicts with nobody
	Asked time.Time
}

// Holder is a session that stands in the way of another.
type Holder struct {
	Session string
	Worker  lease.Worker // zero: nothing of it was sent to a worker
}

// Table knows who writes what. Its methods may be called from any goroutine; it
// owns none.
type Table struct {
	mu      sync.Mutex
	holders map[string]*holder
	places  map[place]map[*holder]struct{}
	changed chan struct{} // closed, and replaced, when somebody goes away or comes in late
	freed   map[string]time.Time
	oldest  []string // of freed, in order
	swept   time.Time
}

// place narrows the search: keys that conflict are of one owner and directory.
type place struct{ owner, dir string }

// holder is a session in the table. Guarded by Table.mu but for superseded's
// being waited for.
type holder struct {
	Session
	plain      []string // of Keys
	worker     lease.Worker
	until      time.Time // zero: no bound is known
	superseded chan struct{}
	lost       bool // superseded is closed
}

// New makes an empty table.
func New() *Table {
	return &Table{
		holders: map[string]*holder{}, places: map[place]map[*holder]struct{}{},
		changed: make(chan struct{}), freed: map[string]time.Time{},
	}
}

// Claim registers a session as writer of its outputs and supersedes older ones.
// It returns those that are not gone: the caller ends them, also those that it
// was told of before. The session may start when Wait returns nil. Whoever
// claims calls Free or Until at last.
func (t *Table) Claim(s Session) ([]Holder, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holders[s.ID] != nil {
		return nil, fmt.Errorf("claim outputs for session %s: %w", s.ID, ErrKnown)
	}
	delete(t.freed, s.ID)
	h := t.add(s)
	older, _ := t.rivals(h)
	list := make([]Holder, len(older))
	for i, o := range older {
		list[i] = Holder{Session: o.ID, Worker: o.worker}
	}
	return list, nil
}

// Adopt registers a session that a worker says it runs. One that is known is only
// placed, and its bound forgotten: it lives. It returns true when a newer session
// has claimed one of its outputs: the caller kills it. A session that was freed a
// moment ago is not adopted.
func (t *Table) Adopt(s Session, w lease.Worker) (superseded bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, gone := t.freed[s.ID]; gone && time.Since(at) < remembered {
		return false
	}
	h := t.holders[s.ID]
	if h == nil {
		h = t.add(s)
		t.rivals(h)
		t.broadcast() // whoever is newer and waits has one more to wait for
	}
	h.worker, h.until = w, time.Time{}
	return h.lost
}

// Placed notes where a session is about to be started, so that whoever supersedes
// it knows whom to tell.
func (t *Table) Placed(id string, w lease.Worker) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.holders[id]; h != nil {
		h.worker = w
	}
}

// Superseded returns a channel that is closed when a newer session claims one of
// the session's outputs. It is nil for a session that holds nothing.
func (t *Table) Superseded(id string) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.holders[id]; h != nil {
		return h.superseded
	}
	return nil
}

// Free forgets a session: its process is dead for certain, or will never be
// started. Unknown ones are fine.
func (t *Table) Free(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for len(t.oldest) > 0 && now.Sub(t.freed[t.oldest[0]]) >= remembered {
		delete(t.freed, t.oldest[0])
		t.oldest = t.oldest[1:]
	}
	if _, again := t.freed[id]; !again {
		t.freed[id] = now
		t.oldest = append(t.oldest, id)
	}
	if h := t.holders[id]; h != nil {
		t.remove(h)
		t.broadcast()
	}
}

// Until notes that a session is lost and that its process is dead at a time, by
// the supervisor's own timers, if not before. A later word replaces it.
func (t *Table) Until(id string, dead time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.swept) >= time.Minute { // whom nobody waited for
		t.swept = now
		for _, h := range t.holders {
			if h.gone(now) {
				t.remove(h)
			}
		}
	}
	if h := t.holders[id]; h != nil {
		h.until = dead
		t.broadcast()
	}
}

// Wait returns nil when the session may start: every older session with one of
// its outputs is gone. Meanwhile it calls say with what it waits for, in words
// for a person, when that changes; say must not block and may be nil.
func (t *Table) Wait(ctx context.Context, id string, say func(reason string)) error {
	if say == nil {
		say = func(string) {}
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for said := ""; ; {
		t.mu.Lock()
		h := t.holders[id]
		if h == nil {
			t.mu.Unlock()
			return fmt.Errorf("wait for the outputs of session %s: %w", id, ErrFreed)
		}
		older, next := t.rivals(h)
		lost, changed, reason := h.lost, t.changed, words(older)
		t.mu.Unlock()
		switch {
		case lost:
			return fmt.Errorf("wait for the outputs of session %s: %w", id, ErrSuperseded)
		case len(older) == 0:
			return nil
		case reason != said:
			said = reason
			say(reason)
		}
		expired := timer.C
		if timer.Reset(time.Until(next)); next.IsZero() {
			expired = nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the outputs of session %s: %w", id, context.Cause(ctx))
		case <-h.superseded:
		case <-changed:
		case <-expired:
		}
	}
}

// add puts a session in. The caller holds mu.
func (t *Table) add(s Session) *holder {
	h := &holder{Session: s, superseded: make(chan struct{})}
	for _, k := range s.Keys {
		h.plain = append(h.plain, plain(k))
	}
	t.holders[s.ID] = h
	for _, p := range h.places() {
		if t.places[p] == nil {
			t.places[p] = map[*holder]struct{}{}
		}
		t.places[p][h] = struct{}{}
	}
	return h
}

func (t *Table) remove(h *holder) {
	delete(t.holders, h.ID)
	for _, p := range h.places() {
		if delete(t.places[p], h); len(t.places[p]) == 0 {
			delete(t.places, p)
		}
	}
}

func (h *holder) places() []place {
	var list []place
	for _, k := range h.Keys {
		list = append(list, place{h.Owner, path.Dir(k)})
	}
	return list
}

// rivals returns the older sessions that hold one of h's outputs and the moment
// at which the first of them is gone by its bound, zero if none has one. It marks
// whoever is superseded, h or others, and forgets whose time has passed. The
// caller holds mu.
func (t *Table) rivals(h *holder) (older []*holder, next time.Time) {
	now := time.Now()
	seen := map[*holder]bool{h: true}
	for _, p := range h.places() {
		for o := range t.places[p] {
			if seen[o] || !h.conflicts(o) {
				continue
			}
			seen[o] = true
			switch {
			case o.gone(now):
				t.remove(o)
			case o.newer(h):
				h.supersede()
			default:
				o.supersede()
				older = append(older, o)
				if !o.until.IsZero() && (next.IsZero() || o.until.Before(next)) {
					next = o.until
				}
			}
		}
	}
	return older, next
}

func (h *holder) conflicts(o *holder) bool {
	for _, a := range h.plain {
		for _, b := range o.plain {
			if conflict(a, b) {
				return true
			}
		}
	}
	return false
}

// gone tells whether the bound of a lost session has passed.
func (h *holder) gone(now time.Time) bool { return !h.until.IsZero() && !now.Before(h.until) }

// newer orders sessions the same in every process that knows both.
func (h *holder) newer(o *holder) bool {
	if !h.Asked.Equal(o.Asked) {
		return h.Asked.After(o.Asked)
	}
	return h.ID > o.ID
}

func (h *holder) supersede() {
	if !h.lost {
		h.lost = true
		close(h.superseded)
	}
}

func (t *Table) broadcast() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// words says what somebody waits for: the first by name, the same each time.
func words(older []*holder) string {
	if len(older) == 0 {
		return ""
	}
	first := older[0]
	for _, o := range older[1:] {
		if o.newer(first) {
			first = o
		}
	}
	s := "session " + first.ID
	if first.worker.Pod != "" {
		s += " on worker " + first.worker.Pod
	}
	if first.until.IsZero() {
		s += ", which writes the same outputs, is being ended"
	} else {
		s += " is lost and may write the same outputs until " + first.until.UTC().Format(time.TimeOnly) + " UTC"
	}
	if n := len(older) - 1; n > 0 {
		s += fmt.Sprintf("; %d more after it", n)
	}
	return s
}
