package channels

import (
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

// hold is one lease as its boot sees it.
type hold struct {
	session string
	over    bool          // the session had ended when it was resumed: it needs no slot
	gone    chan struct{} // closed after cause is set
	cause   error
	unknown time.Time // since when the worker does not know the session
}

func (h *hold) end(cause error) {
	h.cause = cause
	close(h.gone)
}

// slots counts the sessions of one boot of a worker: those we hold a lease for,
// and those that the worker speaks of. An answer is as old as its question, so
// what happened after the question was asked is not overruled by it.
type slots struct {
	total    int
	held     map[string]*hold
	shells   map[*hold]bool       // leases whose session another lease has taken over
	told     map[string]bool      // running, by the worker's word
	released map[string]time.Time // ended with an exit, not to be counted by older answers
	doubtful map[string]time.Time // left or given up, counted until a newer answer
	ending   map[string]bool      // left or given up and, by the worker's word, not over yet
	paused   map[string]time.Time // stopped since then: they hold no slot
	resumed  time.Time            // when the last of them was continued
}

func newSlots() slots {
	return slots{held: map[string]*hold{}, shells: map[*hold]bool{}, told: map[string]bool{},
		released: map[string]time.Time{}, doubtful: map[string]time.Time{}, ending: map[string]bool{}, paused: map[string]time.Time{}}
}

func (s *slots) used() int {
	n := 0
	for session, h := range s.held {
		if !h.over && s.paused[session].IsZero() {
			n++
		}
	}
	for session := range s.told {
		if s.held[session] == nil && s.paused[session].IsZero() {
			n++
		}
	}
	for session := range s.doubtful {
		if s.held[session] == nil && !s.told[session] {
			n++
		}
	}
	return n
}

// hold takes a slot. It is nil when the worker is full or the session has a
// lease already.
func (s *slots) hold(session string) *hold {
	if s.used() >= s.total || s.held[session] != nil {
		return nil
	}
	h := &hold{session: session, gone: make(chan struct{})}
	s.held[session] = h
	return h
}

// takeOver gives the slot of a session that the worker knows to a new lease. The
// older one ends without effect.
func (s *slots) takeOver(session string, over bool) *hold {
	if old := s.held[session]; old != nil {
		s.shells[old] = true
	}
	delete(s.ending, session)
	h := &hold{session: session, over: over, gone: make(chan struct{})}
	s.held[session] = h
	return h
}

// drop forgets a lease. False: it was a shell, or its boot has ended.
func (s *slots) drop(h *hold) bool {
	delete(s.shells, h)
	if s.held[h.session] != h {
		return false
	}
	delete(s.held, h.session)
	return true
}

// release ends a lease by the worker's word: its Exit has passed.
func (s *slots) release(h *hold, now time.Time) {
	if s.drop(h) {
		delete(s.told, h.session)
		s.released[h.session] = now
	}
}

// leave ends a lease without the worker's word: the session goes on, or dies soon.
func (s *slots) leave(h *hold, now time.Time) {
	if s.drop(h) && !h.over {
		s.doubtful[h.session] = now
		s.ending[h.session] = true
	}
}

// end tells every lease why its worker is gone.
func (s *slots) end(cause error) {
	for _, h := range s.held {
		h.end(cause)
	}
	for h := range s.shells {
		h.end(cause)
	}
	*s = newSlots()
}

// tell takes the worker's word, asked for at the given time. It returns the
// holds of sessions that the worker has not known for longer than the grace:
// they are not counted any more.
func (s *slots) tell(d *wire.Description, asked, now time.Time, grace time.Duration) (forgotten []*hold) {
	s.total = int(d.GetSlots())
	s.told = map[string]bool{}
	known := map[string]bool{}
	for _, session := range d.GetSessions() {
		known[session.GetSession()] = true
		s.tellPause(session, asked)
		if at, ok := s.released[session.GetSession()]; session.GetExit() == nil && !(ok && at.After(asked)) {
			s.told[session.GetSession()] = true
		}
	}
	for session := range s.ending {
		if !s.told[session] {
			delete(s.ending, session)
		}
	}
	for session := range s.paused {
		if !known[session] {
			delete(s.paused, session)
		}
	}
	forget(s.released, asked)
	forget(s.doubtful, asked)
	for session, h := range s.held {
		switch {
		case known[session]:
			h.unknown = time.Time{}
		case h.unknown.IsZero():
			h.unknown = now
		case now.Sub(h.unknown) >= grace:
			delete(s.held, session)
			forgotten = append(forgotten, h)
		}
	}
	return forgotten
}

// tellPause takes the worker's word on whether a session is paused, unless an order
// was carried out since it was asked.
func (s *slots) tellPause(session *wire.SessionState, asked time.Time) {
	at, paused := s.paused[session.GetSession()]
	switch {
	case session.GetPaused() && session.GetExit() == nil && !paused:
		if s.resumed.IsZero() || !s.resumed.After(asked) {
			s.paused[session.GetSession()] = asked
		}
	case paused && !at.After(asked) && (!session.GetPaused() || session.GetExit() != nil):
		delete(s.paused, session.GetSession())
	}
}

// pause notes that a session holds no slot, or does again.
func (s *slots) pause(session string, paused bool, now time.Time) {
	if paused {
		s.paused[session] = now
		return
	}
	delete(s.paused, session)
	s.resumed = now
}

// forget drops what an answer to a question asked then has settled.
func forget(m map[string]time.Time, asked time.Time) {
	for session, at := range m {
		if !at.After(asked) {
			delete(m, session)
		}
	}
}
