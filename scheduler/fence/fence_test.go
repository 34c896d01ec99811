package fence

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/scheduler/lease"
)

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// writer makes a session that asked at second n and writes keys.
func writer(id string, n int, keys ...string) Session {
	return Session{ID: id, Owner: "media/jellyfin", Keys: keys, Asked: start.Add(time.Duration(n) * time.Second)}
}

func claim(t *testing.T, table *Table, s Session) []string {
	t.Helper()
	older, err := table.Claim(s)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, h := range older {
		ids = append(ids, h.Session)
	}
	slices.Sort(ids)
	return ids
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestClaim(t *testing.T) {
	table := New()
	if got := claim(t, table, writer("a", 1, "/c/x")); got != nil {
		t.Errorf("nobody is older than the first: %v", got)
	}
	if err := table.Wait(t.Context(), "a", nil); err != nil {
		t.Error(err)
	}
	if got := claim(t, table, writer("b", 2, "/c/y", "/c/z.mkv")); got != nil {
		t.Errorf("other keys: %v", got)
	}
	other := writer("c", 3, "/c/x")
	other.Owner = "media/backup"
	if got := claim(t, table, other); got != nil {
		t.Errorf("another owner: %v", got)
	}
	table.Placed("a", lease.Worker{Pod: "w-1"})
	if diff := cmp.Diff([]string{"a", "b"}, claim(t, table, writer("d", 4, "/c/x0.ts", "/c/z.mkv"))); diff != "" {
		t.Errorf("older (-want +got):\n%s", diff)
	}
	if !isClosed(table.Superseded("a")) || !isClosed(table.Superseded("b")) || isClosed(table.Superseded("c")) || isClosed(table.Superseded("d")) {
		t.Error("the wrong ones are superseded")
	}
	if _, err := table.Claim(writer("d", 5, "/c/q")); !errors.Is(err, ErrKnown) {
		t.Errorf("claimed twice: %v", err)
	}
	if claim(t, table, writer("none", 6)) != nil || table.Wait(t.Context(), "none", nil) != nil {
		t.Error("a session without outputs waits")
	}
	if err := table.Wait(t.Context(), "nobody", nil); !errors.Is(err, ErrFreed) || table.Superseded("nobody") != nil {
		t.Errorf("an unknown session: %v", err)
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New()
		claim(t, table, writer("a", 1, "/c/x"))
		table.Placed("a", lease.Worker{Pod: "w-1"})
		claim(t, table, writer("b", 2, "/c/x"))
		var said []string
		done := make(chan error, 1)
		go func() { done <- table.Wait(t.Context(), "b", func(r string) { said = append(said, r) }) }()
		synctest.Wait()
		table.Until("a", time.Now().Add(time.Minute))
		synctest.Wait()
		table.Placed("b", lease.Worker{}) // changes nothing
		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("it started before the bound")
		}
		time.Sleep(time.Nanosecond)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(said) != 2 || !strings.Contains(said[0], "session a on worker w-1, which writes the same outputs, is being ended") || !strings.Contains(said[1], "until") {
			t.Errorf("said %q", said)
		}
		if table.Superseded("a") != nil {
			t.Error("whose time has passed is still known")
		}
	})
}

func TestWaitEnds(t *testing.T) {
	stop := errors.New("the caller is gone")
	tests := map[string]struct {
		then func(table *Table, cancel context.CancelCauseFunc)
		want error
	}{
		"the older is freed":  {func(table *Table, _ context.CancelCauseFunc) { table.Free("old") }, nil},
		"a newer one comes":   {func(table *Table, _ context.CancelCauseFunc) { _, _ = table.Claim(writer("new", 9, "/c/x")) }, ErrSuperseded},
		"it is given up":      {func(_ *Table, cancel context.CancelCauseFunc) { cancel(stop) }, stop},
		"it is freed itself":  {func(table *Table, _ context.CancelCauseFunc) { table.Free("me") }, ErrFreed},
		"a newer one is told": {func(table *Table, _ context.CancelCauseFunc) { table.Adopt(writer("new", 9, "/c/x"), lease.Worker{}) }, ErrSuperseded},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := New()
				claim(t, table, writer("old", 1, "/c/x"))
				claim(t, table, writer("me", 2, "/c/x"))
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				done := make(chan error, 1)
				go func() { done <- table.Wait(ctx, "me", nil) }()
				synctest.Wait()
				test.then(table, cancel)
				synctest.Wait()
				select {
				case err := <-done:
					if !errors.Is(err, test.want) {
						t.Errorf("%v, want %v", err, test.want)
					}
				default:
					t.Error("it still waits")
				}
			})
		})
	}
}

// A session that is slow to be parsed asked before its successor did.
func TestLateClaim(t *testing.T) {
	table := New()
	claim(t, table, writer("seek", 2, "/c/x"))
	if err := table.Wait(t.Context(), "seek", nil); err != nil {
		t.Error(err)
	}
	claim(t, table, writer("slow", 1, "/c/x"))
	if err := table.Wait(t.Context(), "slow", nil); !errors.Is(err, ErrSuperseded) || isClosed(table.Superseded("seek")) {
		t.Errorf("the older one: %v", err)
	}
	table.Free("seek")
	if err := table.Wait(t.Context(), "slow", nil); !errors.Is(err, ErrSuperseded) {
		t.Errorf("the older one came back: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New()
		claim(t, table, writer("b", 2, "/c/x"))
		if err := table.Wait(t.Context(), "b", nil); err != nil {
			t.Fatal(err)
		}
		// A worker is late to tell of what it has run since before the restart.
		if !table.Adopt(writer("a", 1, "/c/x"), lease.Worker{Pod: "w-1"}) {
			t.Error("an older session is to be killed")
		}
		if isClosed(table.Superseded("b")) {
			t.Error("the newer one is superseded")
		}
		// One of a later time, as another scheduler started it, wins.
		if table.Adopt(writer("c", 3, "/c/x"), lease.Worker{Pod: "w-2"}) || !isClosed(table.Superseded("b")) {
			t.Error("the newest does not win")
		}
	})
}

func TestAdoptWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New()
		claim(t, table, writer("a", 1, "/c/x"))
		claim(t, table, writer("c", 3, "/c/x"))
		done := make(chan error, 1)
		go func() { done <- table.Wait(t.Context(), "c", nil) }()
		synctest.Wait()
		if !table.Adopt(writer("b", 2, "/c/x.m3u8"), lease.Worker{Pod: "w-1"}) {
			t.Error("an older session is to be killed")
		}
		table.Free("a")
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("it does not wait for who came late")
		}
		// Lost, then told of again: it lives.
		table.Until("b", time.Now().Add(time.Second))
		table.Adopt(writer("b", 2, "/c/x.m3u8"), lease.Worker{Pod: "w-1"})
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("it does not wait for who lives after all")
		}
		table.Free("b")
		if err := <-done; err != nil {
			t.Error(err)
		}
		// A Describe from before the end.
		if table.Adopt(writer("b", 2, "/c/x.m3u8"), lease.Worker{Pod: "w-1"}) || table.Superseded("b") != nil {
			t.Error("a freed session is back")
		}
	})
}

// TestForgets: nothing stays of sessions that nobody waits for.
func TestForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New()
		for i := range 3000 {
			id := fmt.Sprint("s", i)
			claim(t, table, writer(id, i, fmt.Sprintf("/c/%s.mkv", id), "/d/x"+id))
			if i%2 == 0 {
				table.Free(id)
			} else {
				table.Until(id, time.Now().Add(time.Minute))
			}
			time.Sleep(time.Second)
		}
		if len(table.holders) > 200 || len(table.places) > 2 || len(table.freed) > 400 || len(table.oldest) > 400 {
			t.Errorf("%d holders, %d places, %d freed, %d in order", len(table.holders), len(table.places), len(table.freed), len(table.oldest))
		}
	})
}

// TestNeverTwo runs players that seek, die, get lost and come back at random and
// checks, from outside, that no two that conflict are clear at once.
func TestNeverTwo(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) { neverTwo(t, seed) })
	}
}

// model is what really runs: the keys of each live process.
type model struct {
	sync.Mutex
	live map[string][]string
	runs int
}

func (m *model) begin(t *testing.T, s Session) {
	m.Lock()
	defer m.Unlock()
	for id, keys := range m.live {
		for _, a := range keys {
			for _, b := range s.Keys {
				if Conflict(a, b) {
					t.Errorf("%s runs beside %s: %s, %s", s.ID, id, b, a)
				}
			}
		}
	}
	m.live[s.ID] = s.Keys
	m.runs++
}

func (m *model) end(id string) {
	m.Lock()
	defer m.Unlock()
	delete(m.live, id)
}

func neverTwo(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	keys := []string{"/c/x", "/c/x.m3u8", "/c/x1", "/c/x1.ts", "/c/y", "/c/z%d.jpg", "/c/z7.jpg", "/d/x"}
	table, m := New(), &model{live: map[string][]string{}}
	var all sync.WaitGroup
	for i := range 120 {
		s := Session{ID: fmt.Sprintf("s%03d", i), Owner: "n/a", Asked: time.Now()}
		for range 1 + rnd.IntN(3) {
			s.Keys = append(s.Keys, keys[rnd.IntN(len(keys))])
		}
		p := player{late: span(rnd, 3), patient: 5*time.Second + span(rnd, 30), plays: span(rnd, 60), dies: span(rnd, 5), lost: rnd.IntN(4) == 0}
		all.Go(func() { p.play(t, table, m, s) })
		time.Sleep(span(rnd, 4))
	}
	all.Wait()
	if m.runs < 20 {
		t.Errorf("seed %d: only %d of 120 ran", seed, m.runs)
	}
	if len(table.places) > len(keys) {
		t.Errorf("%d places are kept", len(table.places))
	}
}

func span(rnd *rand.Rand, most int) time.Duration {
	return time.Duration(rnd.IntN(most*1000)) * time.Millisecond
}

// player is one session as the scheduler would drive it.
type player struct {
	late, patient, plays, dies time.Duration
	lost                       bool
}

func (p player) play(t *testing.T, table *Table, m *model, s Session) {
	time.Sleep(p.late) // parsing
	if _, err := table.Claim(s); err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), p.patient)
	defer cancel()
	if err := table.Wait(ctx, s.ID, nil); err != nil {
		table.Free(s.ID) // never started
		return
	}
	m.begin(t, s)
	select {
	case <-table.Superseded(s.ID):
	case <-time.After(p.plays):
	}
	if p.lost {
		table.Until(s.ID, time.Now().Add(p.dies+time.Nanosecond))
		time.Sleep(p.dies)
		m.end(s.ID)
		return
	}
	time.Sleep(p.dies) // until the kill is confirmed
	m.end(s.ID)
	table.Free(s.ID)
}

func BenchmarkClaim(b *testing.B) {
	table := New()
	for i := range 1000 {
		if _, err := table.Claim(Session{ID: fmt.Sprint(i), Owner: "n/a", Keys: []string{fmt.Sprintf("/cache/transcodes/%032x", i)}}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := table.Claim(Session{ID: "x", Owner: "n/a", Keys: []string{"/cache/transcodes/abcdef"}}); err != nil {
			b.Fatal(err)
		}
		table.Free("x")
	}
}
