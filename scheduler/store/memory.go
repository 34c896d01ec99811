package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// MemoryConfig bounds a Memory.
type MemoryConfig struct {
	// Limit is the most sessions that wait at a time. Defaults to 256.
	Limit int
	// History is the number of ended sessions that are remembered. Defaults to
	// 1000.
	History int
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

// Memory is the store of one replica: it knows what happened since it was made.
// It owns no goroutine.
type Memory struct {
	cfg MemoryConfig

	mu       sync.Mutex
	sessions map[string]*entry
	queue    []*entry // in order
	ended    []string // ids, the oldest first
	serial   uint64
}

type entry struct {
	Session
	serial uint64 // of Add: keeps a place in the queue and orders Recent
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory(cfg MemoryConfig) *Memory {
	if cfg.Limit == 0 {
		cfg.Limit = 256
	}
	if cfg.History == 0 {
		cfg.History = 1000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Memory{cfg: cfg, sessions: map[string]*entry{}}
}

// Add implements Store.
func (m *Memory) Add(_ context.Context, s Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.sessions[s.ID]; known {
		return fmt.Errorf("add session %s: %w", s.ID, ErrDuplicate)
	}
	if len(m.queue) >= m.cfg.Limit {
		return fmt.Errorf("add session %s: %w: %d wait", s.ID, ErrFull, len(m.queue))
	}
	m.serial++
	s.State, s.Attempt, s.Times, s.Outcome = Queued, 0, Times{Queued: m.cfg.Now()}, Outcome{}
	s.Hardware = slices.Clone(s.Hardware)
	e := &entry{Session: s, serial: m.serial}
	m.sessions[s.ID] = e
	m.enqueue(e)
	return nil
}

// Adopt implements Store.
func (m *Memory) Adopt(_ context.Context, s Session) (Session, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, known := m.sessions[s.ID]; known {
		return e.copy(), e.State.Holds(), nil
	}
	now := m.cfg.Now()
	m.serial++
	s.State, s.Attempt, s.Outcome, s.Times.Final = Running, max(s.Attempt, 1), Outcome{}, time.Time{}
	if s.Times.Running.IsZero() {
		s.Times.Running = now
	}
	if s.Times.Queued.IsZero() {
		s.Times.Queued = s.Times.Running
	}
	for _, at := range []*time.Time{&s.Times.Queued, &s.Times.Leased, &s.Times.Starting, &s.Times.Running} {
		if at.After(now) { // another clock is ahead
			*at = now
		}
	}
	s.Hardware = slices.Clone(s.Hardware)
	e := &entry{Session: s, serial: m.serial}
	m.sessions[s.ID] = e
	return e.copy(), true, nil
}

// Queue implements Store.
func (m *Memory) Queue(context.Context) ([]Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Session, len(m.queue))
	for i, e := range m.queue {
		out[i] = e.copy()
	}
	return out, nil
}

// Move implements Store.
func (m *Memory) Move(_ context.Context, step Move) (Session, bool, error) {
	if err := step.Check(); err != nil {
		return Session{}, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, known := m.sessions[step.ID]
	if !known || e.State != step.From || e.Attempt != step.Attempt {
		return Session{}, false, nil
	}
	if step.To == Leased && !m.grantable(*step.Right) {
		return Session{}, false, nil
	}
	m.apply(e, step)
	return e.copy(), true, nil
}

// Note implements Store.
func (m *Memory) Note(_ context.Context, id, reason string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, known := m.sessions[id]; known && e.State == Queued {
		e.Reason = reason
	}
	return nil
}

// Get implements Store.
func (m *Memory) Get(_ context.Context, id string) (Session, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, known := m.sessions[id]
	if !known {
		return Session{}, false, nil
	}
	return e.copy(), true, nil
}

// Recent implements Store.
func (m *Memory) Recent(_ context.Context, n int) ([]Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*entry, 0, len(m.sessions))
	for _, e := range m.sessions {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Compare(b.serial, a.serial) })
	out := make([]Session, 0, min(n, len(all)))
	for _, e := range all[:min(n, len(all))] {
		out = append(out, e.copy())
	}
	return out, nil
}

// grantable tells whether one more session may hold the right.
func (m *Memory) grantable(r Right) bool {
	if r.Limit == 0 {
		return true
	}
	held := 0
	for _, e := range m.sessions {
		if e.State.Holds() && e.Right.same(r) {
			held++
		}
	}
	return held < r.Limit
}

func (m *Memory) apply(e *entry, step Move) {
	now := m.cfg.Now()
	if e.State == Queued {
		m.queue = slices.DeleteFunc(m.queue, func(q *entry) bool { return q == e })
	}
	e.State = step.To
	if step.Right != nil {
		e.Right = *step.Right
	}
	e.Placement = cmp.Or(step.Placement, e.Placement)
	e.Reason = cmp.Or(step.Reason, e.Reason)
	switch step.To {
	case Queued:
		e.Right, e.Placement, e.Translated = Right{}, "", ""
		m.enqueue(e)
	case Leased:
		e.Attempt++
		e.Times.Leased = now
	case Starting:
		e.Translated, e.Times.Starting = step.Translated, now
	case Running:
		e.Times.Running = now
	default:
		e.Outcome, e.Times.Final = step.Outcome, now
		m.retire(e)
	}
}

func (m *Memory) enqueue(e *entry) {
	at, _ := slices.BinarySearchFunc(m.queue, e, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.serial, b.serial))
	})
	m.queue = slices.Insert(m.queue, at, e)
}

// retire forgets the oldest ended sessions beyond the history.
func (m *Memory) retire(e *entry) {
	m.ended = append(m.ended, e.ID)
	for len(m.ended) > m.cfg.History {
		delete(m.sessions, m.ended[0])
		m.ended = m.ended[1:]
	}
}

func (e *entry) copy() Session {
	s := e.Session
	s.Hardware = slices.Clone(s.Hardware)
	return s
}
