// Package storetest holds every implementation of store.Store to the same
// guarantees. It drives a store only through its interface.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/scheduler/store"
)

// New makes an empty store whose queue holds at most `limit` sessions and that
// remembers `history` ended ones. The suite closes nothing.
type New func(t *testing.T, limit, history int) store.Store

// Run runs the suite.
func Run(t *testing.T, open New) {
	for name, spec := range map[string]func(*testing.T, New){
		"a new session is queued":                     added,
		"an id is stored once":                        duplicate,
		"the queue is bounded":                        bounded,
		"the queue is first in, first out":            order,
		"a session that returns keeps its place":      returns,
		"priority goes before time":                   priority,
		"why a session waits can be read":             notes,
		"a whole life":                                life,
		"a step needs the state":                      guardState,
		"a step needs the attempt":                    guardAttempt,
		"a step that does not exist is an error":      impossible,
		"a right has a limit":                         limit,
		"a right is granted once to many at a time":   race,
		"a session takes one of many steps at a time": oneStep,
		"final states stay":                           final,
		"history is bounded, the living stay":         history,
		"what is returned is a copy":                  copies,
		"a running session is adopted":                adopted,
		"a known session is not adopted anew":         adoptKnown,
		"an adopted session holds its right":          adoptHolds,
		"a session is adopted once":                   adoptRace,
	} {
		t.Run(name, func(t *testing.T) { spec(t, open) })
	}
}

func session(id string) store.Session {
	return store.Session{
		ID: id, Kind: "playback", WantClass: "cpu", Policy: "warm", Hardware: []string{"nvidia"}, Build: "aa",
		Caller: store.Caller{Namespace: "media", ServiceAccount: "jellyfin", Pod: "jellyfin-0", PodUID: "u1"},
	}
}

func warm(n int) *store.Right {
	return &store.Right{Class: "cpu", Worker: "w1", Pod: "w1", Node: "n1", Limit: n}
}

func add(t *testing.T, s store.Store, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := s.Add(t.Context(), session(id)); err != nil {
			t.Fatal(err)
		}
	}
}

func must(t *testing.T, s store.Store, m store.Move) store.Session {
	t.Helper()
	got, ok, err := s.Move(t.Context(), m)
	if err != nil || !ok {
		t.Fatalf("%s from %s to %s: %v, %v", m.ID, m.From, m.To, ok, err)
	}
	return got
}

func mustNot(t *testing.T, s store.Store, m store.Move) {
	t.Helper()
	if got, ok, err := s.Move(t.Context(), m); err != nil || ok {
		t.Fatalf("%s from %s to %s went through: %+v, %v", m.ID, m.From, m.To, got, err)
	}
}

func queue(t *testing.T, s store.Store) []string {
	t.Helper()
	all, err := s.Queue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{}
	for _, q := range all {
		ids = append(ids, q.ID)
	}
	return ids
}

func wantQueue(t *testing.T, s store.Store, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), queue(t, s)); diff != "" {
		t.Fatalf("queue (-want +got):\n%s", diff)
	}
}

func get(t *testing.T, s store.Store, id string) store.Session {
	t.Helper()
	got, ok, err := s.Get(t.Context(), id)
	if err != nil || !ok {
		t.Fatalf("get %s: %v, %v", id, ok, err)
	}
	return got
}

func added(t *testing.T, open New) {
	s := open(t, 4, 4)
	dirty := session("a")
	dirty.State, dirty.Attempt, dirty.Outcome.Code = store.Ended, 9, 3
	if err := s.Add(t.Context(), dirty); err != nil {
		t.Fatal(err)
	}
	got := get(t, s, "a")
	if got.Times.Queued.IsZero() {
		t.Error("no time of asking")
	}
	want := session("a")
	want.State, want.Times = store.Queued, got.Times
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, ok, err := s.Get(t.Context(), "b"); ok || err != nil {
		t.Errorf("get of an unknown session: %v, %v", ok, err)
	}
}

func duplicate(t *testing.T, open New) {
	s := open(t, 4, 4)
	add(t, s, "a")
	if err := s.Add(t.Context(), session("a")); !errors.Is(err, store.ErrDuplicate) {
		t.Fatalf("second add: %v", err)
	}
	must(t, s, store.Move{ID: "a", From: store.Queued, To: store.Refused})
	if err := s.Add(t.Context(), session("a")); !errors.Is(err, store.ErrDuplicate) {
		t.Fatalf("add after the end: %v", err)
	}
}

func bounded(t *testing.T, open New) {
	s := open(t, 2, 4)
	add(t, s, "a", "b")
	if err := s.Add(t.Context(), session("c")); !errors.Is(err, store.ErrFull) {
		t.Fatalf("third of two: %v", err)
	}
	must(t, s, store.Move{ID: "a", From: store.Queued, To: store.Leased, Right: warm(0)})
	add(t, s, "c") // who has a right does not wait
	must(t, s, store.Move{ID: "b", From: store.Queued, To: store.Refused})
	wantQueue(t, s, "c")
}

func order(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "c", "a", "b")
	wantQueue(t, s, "c", "a", "b")
	must(t, s, store.Move{ID: "a", From: store.Queued, To: store.Refused})
	wantQueue(t, s, "c", "b")
}

func returns(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a", "b")
	must(t, s, store.Move{ID: "a", From: store.Queued, To: store.Leased, Right: warm(0), Placement: "warm"})
	wantQueue(t, s, "b")
	back := must(t, s, store.Move{ID: "a", Attempt: 1, From: store.Leased, To: store.Queued, Reason: "the worker was full"})
	wantQueue(t, s, "a", "b")
	if back.Right != (store.Right{}) || back.Placement != "" || back.Reason != "the worker was full" {
		t.Errorf("returned with %+v", back)
	}
	again := must(t, s, store.Move{ID: "a", Attempt: 1, From: store.Queued, To: store.Leased, Right: warm(0)})
	if again.Attempt != 2 {
		t.Errorf("attempt %d, want 2", again.Attempt)
	}
}

func priority(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a", "b")
	urgent := session("c")
	urgent.Priority = 1
	if err := s.Add(t.Context(), urgent); err != nil {
		t.Fatal(err)
	}
	wantQueue(t, s, "c", "a", "b")
}

func notes(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a")
	note := func(id, reason string) {
		if err := s.Note(t.Context(), id, reason); err != nil {
			t.Fatal(err)
		}
	}
	note("a", "warm is full")
	note("nobody", "warm is full")
	if got := get(t, s, "a").Reason; got != "warm is full" {
		t.Errorf("reason %q", got)
	}
	must(t, s, store.Move{ID: "a", From: store.Queued, To: store.Leased, Right: warm(0), Reason: "a free slot"})
	note("a", "too late")
	if got := get(t, s, "a").Reason; got != "a free slot" {
		t.Errorf("reason %q", got)
	}
}

func life(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a")
	must(t, s, store.Move{ID: "a", From: store.Queued, To: store.Leased, Right: &store.Right{Class: "cpu"}, Placement: "job", Reason: "asked"})
	must(t, s, store.Move{ID: "a", Attempt: 1, From: store.Leased, To: store.Starting, Right: warm(0), Translated: "qsv: -c"})
	must(t, s, store.Move{ID: "a", Attempt: 1, From: store.Starting, To: store.Running})
	out := store.Outcome{Code: 3, Cause: "words"}
	end := must(t, s, store.Move{ID: "a", Attempt: 1, From: store.Running, To: store.Ended, Outcome: out})
	if end.State != store.Ended || end.Outcome != out || end.Placement != "job" || end.Reason != "asked" || end.Right != *warm(0) || end.Translated != "qsv: -c" {
		t.Errorf("ended as %+v", end)
	}
	at := end.Times
	if at.Leased.Before(at.Queued) || at.Starting.Before(at.Leased) || at.Running.Before(at.Starting) || at.Final.Before(at.Running) || at.Queued.IsZero() {
		t.Errorf("times %+v", at)
	}
	if diff := cmp.Diff(end, get(t, s, "a")); diff != "" {
		t.Errorf("move and get differ:\n%s", diff)
	}
}

func guardState(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a")
	mustNot(t, s, store.Move{ID: "a", From: store.Leased, To: store.Starting})
	mustNot(t, s, store.Move{ID: "nobody", From: store.Queued, To: store.Refused})
	if got := get(t, s, "a"); got.State != store.Queued {
		t.Errorf("state %s", got.State)
	}
}

func guardAttempt(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a")
	must(t, s, store.Move{ID: "a", From: store.Queued, To: store.Leased, Right: warm(0)})
	must(t, s, store.Move{ID: "a", Attempt: 1, From: store.Leased, To: store.Queued})
	must(t, s, store.Move{ID: "a", Attempt: 1, From: store.Queued, To: store.Leased, Right: warm(0)})
	mustNot(t, s, store.Move{ID: "a", Attempt: 1, From: store.Leased, To: store.Starting}) // of the first attempt
	must(t, s, store.Move{ID: "a", Attempt: 2, From: store.Leased, To: store.Starting})
}

func impossible(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a")
	for _, m := range []store.Move{
		{ID: "a", From: store.Queued, To: store.Running},
		{ID: "a", From: store.Running, To: store.Queued},
		{ID: "a", From: store.Ended, To: store.Queued},
		{ID: "a", From: store.Queued, To: store.Leased}, // without a right
	} {
		if _, ok, err := s.Move(t.Context(), m); err == nil || ok {
			t.Errorf("from %s to %s: %v, %v", m.From, m.To, ok, err)
		}
	}
}

func limit(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a", "b", "c")
	must(t, s, store.Move{ID: "a", From: store.Queued, To: store.Leased, Right: warm(1)})
	mustNot(t, s, store.Move{ID: "b", From: store.Queued, To: store.Leased, Right: warm(1)})
	other := warm(1)
	other.Worker = "w2"
	must(t, s, store.Move{ID: "b", From: store.Queued, To: store.Leased, Right: other})
	must(t, s, store.Move{ID: "a", Attempt: 1, From: store.Leased, To: store.Starting})
	mustNot(t, s, store.Move{ID: "c", From: store.Queued, To: store.Leased, Right: warm(1)})
	must(t, s, store.Move{ID: "a", Attempt: 1, From: store.Starting, To: store.Lost})
	must(t, s, store.Move{ID: "c", From: store.Queued, To: store.Leased, Right: warm(1)})
}

func race(t *testing.T, open New) {
	s := open(t, 64, 64)
	for i := range 40 {
		add(t, s, fmt.Sprint(i))
	}
	var granted atomic.Int32
	together(t, 40, func(ctx context.Context, i int) error {
		_, ok, err := s.Move(ctx, store.Move{ID: fmt.Sprint(i), From: store.Queued, To: store.Leased, Right: warm(3)})
		if ok {
			granted.Add(1)
		}
		return err
	})
	if granted.Load() != 3 {
		t.Errorf("%d rights granted, want 3", granted.Load())
	}
	if n := len(queue(t, s)); n != 37 {
		t.Errorf("%d wait, want 37", n)
	}
}

func oneStep(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a")
	var done atomic.Int32
	together(t, 16, func(ctx context.Context, i int) error {
		m := store.Move{ID: "a", From: store.Queued, To: store.Refused}
		if i%2 == 0 {
			m = store.Move{ID: "a", From: store.Queued, To: store.Leased, Right: warm(0)}
		}
		_, ok, err := s.Move(ctx, m)
		if ok {
			done.Add(1)
		}
		return err
	})
	if done.Load() != 1 {
		t.Errorf("%d steps went through, want 1", done.Load())
	}
}

func final(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a")
	must(t, s, store.Move{ID: "a", From: store.Queued, To: store.Refused, Outcome: store.Outcome{Cause: "cancelled"}})
	mustNot(t, s, store.Move{ID: "a", From: store.Queued, To: store.Leased, Right: warm(0)})
	wantQueue(t, s)
}

func history(t *testing.T, open New) {
	s := open(t, 9, 2)
	add(t, s, "alive", "a", "b", "c")
	for _, id := range []string{"a", "b", "c"} {
		must(t, s, store.Move{ID: id, From: store.Queued, To: store.Refused})
	}
	if _, ok, _ := s.Get(t.Context(), "a"); ok {
		t.Error("a is still remembered")
	}
	all, err := s.Recent(t.Context(), 9)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range all {
		ids = append(ids, r.ID)
	}
	if diff := cmp.Diff([]string{"c", "b", "alive"}, ids); diff != "" {
		t.Errorf("recent (-want +got):\n%s", diff)
	}
	if few, _ := s.Recent(t.Context(), 1); len(few) != 1 || few[0].ID != "c" {
		t.Errorf("the most recent one: %+v", few)
	}
}

func copies(t *testing.T, open New) {
	s := open(t, 9, 9)
	mine := session("a")
	if err := s.Add(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	mine.Hardware[0] = "changed"
	got := get(t, s, "a")
	got.Hardware[0] = "changed"
	if again := get(t, s, "a"); again.Hardware[0] != "nvidia" {
		t.Error("the store shares its memory")
	}
}

// running is what a worker tells of a session: enough to adopt it.
func running(id string, asked time.Time) store.Session {
	r := session(id)
	r.Right, r.Placement, r.Times = *warm(1), "warm", store.Times{Queued: asked}
	return r
}

func adopt(t *testing.T, s store.Store, r store.Session) (store.Session, bool) {
	t.Helper()
	got, ok, err := s.Adopt(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return got, ok
}

func adopted(t *testing.T, open New) {
	s := open(t, 1, 9)
	asked := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	dirty := running("a", asked)
	dirty.State, dirty.Outcome.Code, dirty.Times.Final = store.Ended, 3, asked
	got, ok := adopt(t, s, dirty)
	if !ok || got.State != store.Running || got.Attempt < 1 || got.Outcome != (store.Outcome{}) || !got.Times.Final.IsZero() {
		t.Fatalf("adopted as %+v, %v", got, ok)
	}
	if !got.Times.Queued.Equal(asked) || got.Times.Running.Before(asked) {
		t.Errorf("times %+v, want asked for at %s", got.Times, asked)
	}
	if got.Right != *warm(1) || got.Caller != session("a").Caller || got.Kind != "playback" || got.Placement != "warm" {
		t.Errorf("adopted without what is known of it: %+v", got)
	}
	if diff := cmp.Diff(got, get(t, s, "a")); diff != "" {
		t.Errorf("adopt and get differ:\n%s", diff)
	}
	wantQueue(t, s)
	if err := s.Add(t.Context(), session("a")); !errors.Is(err, store.ErrDuplicate) {
		t.Errorf("add of an adopted session: %v", err)
	}
	end := must(t, s, store.Move{ID: "a", Attempt: got.Attempt, From: got.State, To: store.Ended, Outcome: store.Outcome{Code: 3}})
	if end.Times.Final.IsZero() {
		t.Error("no time of its end")
	}
	if _, ok := adopt(t, s, running("a", asked)); ok {
		t.Error("adopted after its end")
	}
	future, _ := adopt(t, s, running("b", time.Now().Add(time.Hour)))
	if future.Times.Queued.After(future.Times.Running) {
		t.Errorf("asked for in the future: %+v", future.Times)
	}
}

func adoptKnown(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "a", "waits")
	asked := time.Now().Add(-time.Hour)
	if got, ok := adopt(t, s, running("waits", asked)); ok || got.State != store.Queued {
		t.Errorf("a session that waits: %+v, %v", got, ok)
	}
	moves := []store.Move{
		{ID: "a", From: store.Queued, To: store.Leased, Right: warm(0), Placement: "job", Reason: "asked"},
		{ID: "a", Attempt: 1, From: store.Leased, To: store.Starting},
		{ID: "a", Attempt: 1, From: store.Starting, To: store.Running},
	}
	for _, m := range moves {
		want := must(t, s, m)
		got, ok := adopt(t, s, running("a", asked))
		if diff := cmp.Diff(want, got); !ok || diff != "" {
			t.Errorf("%s: %v, changed (-before +after):\n%s", m.To, ok, diff)
		}
	}
}

func adoptHolds(t *testing.T, open New) {
	s := open(t, 9, 9)
	add(t, s, "c")
	a, _ := adopt(t, s, running("a", time.Now()))
	if _, ok := adopt(t, s, running("b", time.Now())); !ok { // the worker runs both, whatever the limit
		t.Error("a second running session is not adopted")
	}
	mustNot(t, s, store.Move{ID: "c", From: store.Queued, To: store.Leased, Right: warm(2)})
	must(t, s, store.Move{ID: "a", Attempt: a.Attempt, From: store.Running, To: store.Lost})
	must(t, s, store.Move{ID: "c", From: store.Queued, To: store.Leased, Right: warm(2)})
}

func adoptRace(t *testing.T, open New) {
	s := open(t, 9, 9)
	together(t, 16, func(ctx context.Context, _ int) error {
		got, ok, err := s.Adopt(ctx, running("a", time.Now()))
		if err == nil && (!ok || got.State != store.Running || got.Attempt != 1) {
			err = fmt.Errorf("adopted as %+v, %v", got, ok)
		}
		return err
	})
	if all, err := s.Recent(t.Context(), 9); err != nil || len(all) != 1 {
		t.Errorf("%d sessions, %v, want 1", len(all), err)
	}
}

func together(t *testing.T, n int, do func(context.Context, int) error) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for i := range n {
		wg.Go(func() { errs <- do(t.Context(), i) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
}
