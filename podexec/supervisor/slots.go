package supervisor

import "sync"

// slots counts the sessions that may run at once. Its lock is the innermost: it may
// be taken with any other held. A session that wants to go on after a pause claims
// the next slot that is free, before one that comes new.
type slots struct {
	mu     sync.Mutex
	most   int
	held   int // more than most only while a paused session was woken to end
	claims int
}

// take takes a free slot that nobody claims.
func (s *slots) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held+s.claims >= s.most {
		return false
	}
	s.held++
	return true
}

// claim asks for the next free slot; takeClaimed takes it, unclaim gives the claim up.
func (s *slots) claim() {
	s.mu.Lock()
	s.claims++
	s.mu.Unlock()
}

func (s *slots) takeClaimed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held >= s.most {
		return false
	}
	s.held++
	s.claims--
	return true
}

func (s *slots) unclaim() {
	s.mu.Lock()
	s.claims--
	s.mu.Unlock()
}

// force takes a slot even if none is free.
func (s *slots) force() {
	s.mu.Lock()
	s.held++
	s.mu.Unlock()
}

func (s *slots) give() {
	s.mu.Lock()
	s.held--
	s.mu.Unlock()
}

func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}
