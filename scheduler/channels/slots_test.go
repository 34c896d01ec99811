package channels

import (
	"errors"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

func says(slots uint32, running ...string) *wire.Description {
	d := &wire.Description{Slots: slots}
	for _, session := range running {
		d.Sessions = append(d.Sessions, &wire.SessionState{Session: session, Pid: 7})
	}
	return d
}

func exited(d *wire.Description, sessions ...string) *wire.Description {
	for _, session := range sessions {
		d.Sessions = append(d.Sessions, &wire.SessionState{Session: session, Exit: &wire.Exit{Session: session}})
	}
	return d
}

// A script is a course of events at seconds 0, 1, 2...; the count is compared
// after each.
func TestSlots(t *testing.T) {
	const grace = 3 * time.Second
	type event struct {
		do   func(s *slots, held map[string]*hold, now time.Time) string // what it returns is compared, too
		want int
		got  string
	}
	ask := func(d *wire.Description, age time.Duration) func(*slots, map[string]*hold, time.Time) string {
		return func(s *slots, _ map[string]*hold, now time.Time) (forgotten string) {
			for _, h := range s.tell(d, now.Add(-age), now, grace) {
				forgotten += h.session
			}
			return forgotten
		}
	}
	take := func(session string) func(*slots, map[string]*hold, time.Time) string {
		return func(s *slots, held map[string]*hold, _ time.Time) string {
			if h := s.hold(session); h != nil {
				held[session] = h
				return "held"
			}
			return "refused"
		}
	}
	release := func(session string) func(*slots, map[string]*hold, time.Time) string {
		return func(s *slots, held map[string]*hold, now time.Time) string { s.release(held[session], now); return "" }
	}
	leave := func(session string) func(*slots, map[string]*hold, time.Time) string {
		return func(s *slots, held map[string]*hold, now time.Time) string { s.leave(held[session], now); return "" }
	}
	// takeOver resumes a session; `was` keeps its older lease.
	takeOver := func(session, was string, over bool) func(*slots, map[string]*hold, time.Time) string {
		return func(s *slots, held map[string]*hold, _ time.Time) string {
			held[was], held[session] = held[session], s.takeOver(session, over)
			return ""
		}
	}
	tests := map[string][]event{
		"left: taken until the worker says otherwise": {
			{ask(says(1), 0), 0, ""}, {take("a"), 1, "held"}, {leave("a"), 1, ""}, {take("b"), 1, "refused"},
			{ask(says(1), 3*time.Second), 1, ""}, // asked before it was left
			{ask(says(1, "a"), 0), 1, ""}, {ask(exited(says(1), "a"), 0), 0, ""},
		},
		"left and resumed": {
			{ask(says(1), 0), 0, ""}, {take("a"), 1, "held"}, {leave("a"), 1, ""}, {ask(says(1, "a"), 0), 1, ""},
			{takeOver("a", "was", false), 1, ""}, {ask(says(1, "a"), 0), 1, ""}, {release("a"), 0, ""},
		},
		"taken over from a living lease: that one's end changes nothing": {
			{ask(says(1), 0), 0, ""}, {take("a"), 1, "held"}, {ask(says(1, "a"), 0), 1, ""}, {takeOver("a", "was", false), 1, ""},
			{release("was"), 1, ""}, {take("b"), 1, "refused"}, {release("a"), 0, ""}, {take("b"), 1, "held"},
		},
		"a shell that is left": {
			{ask(says(1), 0), 0, ""}, {take("a"), 1, "held"}, {takeOver("a", "was", false), 1, ""}, {leave("was"), 1, ""}, {release("a"), 0, ""},
		},
		"resumed by a scheduler that knows nothing": {
			{ask(says(2, "a"), 0), 1, ""}, {takeOver("a", "was", false), 1, ""}, {take("b"), 2, "held"}, {leave("a"), 2, ""}, {ask(says(2, "b"), 0), 1, ""},
		},
		"resumed after its end: it needs no slot": {
			{ask(exited(says(1), "a"), 0), 0, ""}, {takeOver("a", "was", true), 0, ""}, {take("b"), 1, "held"}, {leave("a"), 1, ""}, {release("b"), 0, ""},
		},
		"never more than the slots": {
			{ask(says(2), 0), 0, ""}, {take("a"), 1, "held"}, {take("b"), 2, "held"}, {take("c"), 2, "refused"},
			{release("a"), 1, ""}, {take("c"), 2, "held"},
		},
		"a session is leased once": {{ask(says(2), 0), 0, ""}, {take("a"), 1, "held"}, {take("a"), 1, "refused"}},
		"sessions of another scheduler count": {
			{ask(says(2, "x"), 0), 1, ""}, {take("a"), 2, "held"}, {take("b"), 2, "refused"},
			{ask(says(2, "a"), 0), 1, ""}, {take("b"), 2, "held"},
		},
		"a session of ours counts once":     {{ask(says(2), 0), 0, ""}, {take("a"), 1, "held"}, {ask(says(2, "a"), 0), 1, ""}},
		"an exit that was not taken yet":    {{ask(exited(says(2), "x"), 0), 0, ""}},
		"a lease counts until it has ended": {{ask(says(1), 0), 0, ""}, {take("a"), 1, "held"}, {ask(exited(says(1), "a"), 0), 1, ""}, {release("a"), 0, ""}},
		"an answer older than the release": {
			{ask(says(1), 0), 0, ""}, {take("a"), 1, "held"}, {release("a"), 0, ""}, {ask(says(1, "a"), 2*time.Second), 0, ""},
			{ask(says(1, "a"), 0), 1, ""}, // asked after it: the worker is the last word
		},
		"given up, and the worker still runs it": {
			{ask(says(1), 0), 0, ""}, {take("a"), 1, "held"}, {leave("a"), 1, ""}, {take("b"), 1, "refused"},
			{ask(says(1), 3*time.Second), 1, ""}, // asked before it was given up
			{ask(says(1, "a"), 0), 1, ""}, {ask(exited(says(1), "a"), 0), 0, ""},
		},
		"the worker never knew it": {
			{ask(says(1), 0), 0, ""}, {take("a"), 1, "held"}, {ask(says(1), 0), 1, ""}, {ask(says(1), 0), 1, ""}, {ask(says(1), 0), 1, ""},
			{ask(says(1), 0), 0, "a"}, {release("a"), 0, ""},
		},
		"known in between": {
			{ask(says(1), 0), 0, ""}, {take("a"), 1, "held"}, {ask(says(1), 0), 1, ""}, {ask(says(1), 0), 1, ""}, {ask(says(1, "a"), 0), 1, ""},
			{ask(says(1), 0), 1, ""}, {ask(says(1), 0), 1, ""}, {ask(says(1), 0), 1, ""}, {ask(says(1), 0), 0, "a"},
		},
		"fewer slots than sessions": {{ask(says(3), 0), 0, ""}, {take("a"), 1, "held"}, {take("b"), 2, "held"}, {ask(says(1, "a", "b"), 0), 2, ""}, {release("a"), 1, ""}, {take("c"), 1, "refused"}},
	}
	for name, events := range tests {
		t.Run(name, func(t *testing.T) {
			s, held, now := newSlots(), map[string]*hold{}, time.Unix(0, 0)
			for i, e := range events {
				if got := e.do(&s, held, now); got != e.got || s.used() != e.want {
					t.Fatalf("event %d: %q with %d used, want %q with %d", i, got, s.used(), e.got, e.want)
				}
				now = now.Add(time.Second)
			}
		})
	}
}

func TestTheEndOfABootIsToldToEveryLease(t *testing.T) {
	now := time.Unix(0, 0)
	s := newSlots()
	s.tell(says(2), now, now, time.Second)
	shell := s.hold("a")
	all := []*hold{shell, s.takeOver("a", false), s.hold("b")}
	s.end(errTest)
	for i, h := range all {
		select {
		case <-h.gone:
			if h.cause != errTest {
				t.Errorf("lease %d is told %v", i, h.cause)
			}
		default:
			t.Errorf("lease %d is not told", i)
		}
		s.leave(h, now)
	}
	if n := s.used(); n != 0 {
		t.Errorf("%d used, want 0", n)
	}
}

var errTest = errors.New("the pod was deleted")

func TestEndingALeaseOfAnotherBootChangesNothing(t *testing.T) {
	now := time.Unix(0, 0)
	before, after := newSlots(), newSlots()
	before.tell(says(1), now, now, time.Second)
	after.tell(says(1), now, now, time.Second)
	old := before.hold("a")
	if after.hold("a") == nil {
		t.Fatal("no hold on the new boot")
	}
	after.release(old, now)
	after.leave(old, now)
	if n := after.used(); n != 1 {
		t.Errorf("%d used, want 1", n)
	}
}
