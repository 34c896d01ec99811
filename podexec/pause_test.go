package podexec

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/supervisor"
	"github.com/ffpod/ffpod/podexec/wire"
)

// shell is a session of /bin/sh that somebody looks after.
func shell(id, script string) *wire.Start {
	s := kept(id, "-c", script)
	s.Stdin, s.GraceMs = true, 100
	return s
}

// background starts a session that works, and returns its stream and process. The
// test's end is its end.
func background(t *testing.T, c *Channel, id, script string) (*raw, int) {
	t.Helper()
	r := open(t, c)
	r.start(shell(id, script))
	t.Cleanup(func() {
		_, _ = c.Supervisor().Orphan(context.WithoutCancel(t.Context()), &wire.OrphanRequest{Session: id})
	})
	return r, int(r.until(isStarted).GetStarted().Pid)
}

func stopped(t *testing.T, pid int) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.HasPrefix(string(b[bytes.LastIndexByte(b, ')')+1:]), " T ")
}

func pauseOf(t *testing.T, c *Channel, q *wire.PauseRequest) *wire.PauseResponse {
	t.Helper()
	a, err := c.Supervisor().Pause(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustPause(t *testing.T, c *Channel, id string, pid int) {
	t.Helper()
	if a := pauseOf(t, c, &wire.PauseRequest{Session: id, Epoch: 1}); !a.Known || !a.Done {
		t.Fatalf("%v", a)
	}
	wait(t, "it is stopped", func() bool { return stopped(t, pid) })
	if s := stateOf(t, c, id); !s.Paused || s.Exit != nil {
		t.Fatalf("%v", s)
	}
}

func stateOf(t *testing.T, c *Channel, id string) *wire.SessionState {
	t.Helper()
	d, err := c.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range d.Sessions {
		if s.Session == id {
			return s
		}
	}
	return nil
}

func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(bound); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%s: not within %s", what, bound)
		}
	}
}

// busy is a session that waits without a child: who stops a shell in its vfork finds
// it in another state.
const busy = "exec sleep 600"

// The slot of a paused session is another's, and it goes on only when one is free.
func TestAPausedSessionHoldsNoSlot(t *testing.T) {
	c := worker(t, supervisor.Config{FFmpeg: "/bin/sh"})
	_, first := background(t, c, "first", busy)
	mustPause(t, c, "first", first)
	_, second := background(t, c, "second", busy)
	full(t, c)
	a, err := c.Supervisor().Continue(t.Context(), &wire.ContinueRequest{Session: "first", Epoch: 1})
	if err != nil || !a.Known || a.Done || !strings.Contains(a.Reason, "slots in use") || !stopped(t, first) {
		t.Errorf("while no slot is free: %v, %v", a, err)
	}
	mustPause(t, c, "second", second)
	if a, err = c.Supervisor().Continue(t.Context(), &wire.ContinueRequest{Session: "first"}); err != nil || !a.Done {
		t.Fatalf("%v, %v", a, err)
	}
	wait(t, "it goes on", func() bool { return !stopped(t, first) })
	if s := stateOf(t, c, "first"); s.Paused {
		t.Errorf("%v", s)
	}
	if a, err = c.Supervisor().Continue(t.Context(), &wire.ContinueRequest{Session: "first"}); err != nil || !a.Done {
		t.Errorf("again: %v, %v", a, err)
	}
	for _, id := range []string{"first", "second"} { // one runs, one is paused
		if k, err := c.Supervisor().Kill(t.Context(), &wire.KillRequest{Session: id}); err != nil || !k.Dead {
			t.Fatalf("%v, %v", k, err)
		}
	}
	_, fourth := background(t, c, "fourth", busy)
	mustPause(t, c, "fourth", fourth)
	background(t, c, "fifth", busy)
	full(t, c)
}

// full checks that the worker takes no session more.
func full(t *testing.T, c *Channel) {
	t.Helper()
	r := open(t, c)
	r.start(shell("one more", busy))
	if why := r.answer().GetRefused().GetRefusal(); why != wire.Refusal_NO_SLOT {
		t.Errorf("one session too many: %v", why)
	}
}

// Whoever is spoken to is awake, at once, also when its slot is another's.
func TestAPausedSessionAnswers(t *testing.T) {
	const answers = `trap 'echo signal; exit 7' TERM USR1; echo ready; read line; echo "$line"; exit 5`
	kill := func(grace uint32) func(*testing.T, *Channel, *raw) {
		return func(t *testing.T, c *Channel, _ *raw) {
			if a, err := c.Supervisor().Kill(t.Context(), &wire.KillRequest{Session: "it", GraceMs: grace}); err != nil || !a.Dead {
				t.Errorf("%v, %v", a, err)
			}
		}
	}
	tests := map[string]struct {
		do     func(*testing.T, *Channel, *raw)
		code   int32
		signal syscall.Signal
	}{
		"a byte": {func(_ *testing.T, _ *Channel, r *raw) {
			_ = r.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDIN, Bytes: []byte("q\n")}}})
		}, 5, 0},
		"a signal": {func(_ *testing.T, _ *Channel, r *raw) {
			_ = r.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: int32(syscall.SIGUSR1), Sequence: 1}}})
		}, 7, 0},
		"nobody is there":   {func(_ *testing.T, _ *Channel, r *raw) { r.cancel() }, 7, 0}, // q, then TERM
		"kill with a grace": {kill(20_000), 7, 0},
		"kill":              {kill(0), 0, syscall.SIGKILL},
		"orphan": {func(t *testing.T, c *Channel, _ *raw) {
			if _, err := c.Supervisor().Orphan(t.Context(), &wire.OrphanRequest{Session: "it", Epoch: 1}); err != nil {
				t.Error(err)
			}
		}, 0, syscall.SIGKILL},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := worker(t, supervisor.Config{FFmpeg: "/bin/sh"})
			r, pid := background(t, c, "it", answers)
			r.until(func(f *wire.Frame) bool { return strings.Contains(string(f.GetData().GetBytes()), "ready") })
			mustPause(t, c, "it", pid)
			background(t, c, "other", busy)
			tc.do(t, c, r)
			wait(t, "its exit", func() bool { return stateOf(t, c, "it").GetExit() != nil })
			if e := stateOf(t, c, "it").Exit; e.Code != tc.code || e.Signal != int32(tc.signal) {
				t.Errorf("%v", e)
			}
			mustEnd(t, c, "other")
			background(t, c, "next", busy) // every slot is counted once
			full(t, c)
		})
	}
}

func mustEnd(t *testing.T, c *Channel, id string) {
	t.Helper()
	if a, err := c.Supervisor().Kill(t.Context(), &wire.KillRequest{Session: id}); err != nil || !a.Dead {
		t.Fatalf("%v, %v", a, err)
	}
}

// A pause that nobody renews ends by itself: before a session that comes new, never
// beside more than there are slots.
func TestAPauseThatIsForgotten(t *testing.T) {
	c := worker(t, supervisor.Config{FFmpeg: "/bin/sh"})
	_, pid := background(t, c, "it", busy)
	if a := pauseOf(t, c, &wire.PauseRequest{Session: "it", MostMs: 1}); !a.Done {
		t.Fatalf("%v", a)
	}
	wait(t, "it goes on", func() bool { return !stateOf(t, c, "it").Paused && !stopped(t, pid) })

	mustPause(t, c, "it", pid)
	background(t, c, "other", busy)
	if a := pauseOf(t, c, &wire.PauseRequest{Session: "it", MostMs: 1}); !a.Done {
		t.Fatalf("a shorter lease: %v", a)
	}
	time.Sleep(50 * time.Millisecond) // the lease is over, and no slot is free
	if s := stateOf(t, c, "it"); !s.Paused {
		t.Errorf("two sessions in one slot: %v", s)
	}
	mustEnd(t, c, "other")
	full(t, c)
	wait(t, "it goes on", func() bool { return !stateOf(t, c, "it").Paused })

	mustPause(t, c, "it", pid) // renewed before its end, it stays
	for range 20 {
		if a := pauseOf(t, c, &wire.PauseRequest{Session: "it", MostMs: 10_000}); !a.Done || !stopped(t, pid) {
			t.Fatalf("%v", a)
		}
	}
}

// Nobody is stopped who has something to do that somebody waits for.
func TestWhoIsNotPaused(t *testing.T) {
	tests := map[string]struct {
		before func(*raw)
		script string
		epoch  uint64
		why    string
	}{
		"it has not read its stdin": {func(r *raw) {
			_ = r.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDIN, Bytes: []byte("q")}}})
		}, "echo ready; " + busy, 1, "stdin"},
		"it was told to end": {func(r *raw) {
			_ = r.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: int32(syscall.SIGTERM), Sequence: 1}}})
		}, "trap '' TERM; echo ready; " + busy, 1, "told to end"},
		"its caller has stopped it": {func(r *raw) {
			_ = r.Send(&wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: int32(syscall.SIGSTOP), Sequence: 1}}})
		}, "echo ready; " + busy, 1, "caller has stopped it"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := worker(t, supervisor.Config{FFmpeg: "/bin/sh"})
			r, pid := background(t, c, "it", tc.script)
			r.until(func(f *wire.Frame) bool { return strings.Contains(string(f.GetData().GetBytes()), "ready") })
			tc.before(r)
			var a *wire.PauseResponse
			wait(t, "a refusal", func() bool { // what came before may still be on its way
				a = pauseOf(t, c, &wire.PauseRequest{Session: "it", Epoch: tc.epoch, MostMs: 1})
				return !a.Done
			})
			if !a.Known || !strings.Contains(a.Reason, tc.why) {
				t.Errorf("%v", a)
			}
			if name != "its caller has stopped it" {
				wait(t, "it runs", func() bool { return !stopped(t, pid) })
			}
		})
	}
	t.Run("nobody, or of an older stream", func(t *testing.T) {
		c := worker(t, supervisor.Config{FFmpeg: "/bin/sh"})
		if a := pauseOf(t, c, &wire.PauseRequest{Session: "never"}); a.Known || a.Done {
			t.Errorf("%v", a)
		}
		_, pid := background(t, c, "never", busy) // it is not barred
		again := open(t, c)
		again.resume("never", nonceOf(t, c), 0)
		again.answer()
		if a := pauseOf(t, c, &wire.PauseRequest{Session: "never", Epoch: 1}); !a.Known || a.Done || stopped(t, pid) {
			t.Errorf("%v", a)
		}
	})
}

// What a worker proved comes over the channel once, and is told every time.
func TestProofIsSentOnce(t *testing.T) {
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("no ffmpeg")
	}
	c := worker(t, supervisor.Config{FFmpeg: path})
	describe := func() *wire.Description {
		d, err := c.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	wait(t, "the proof", func() bool { d := describe(); return d.Proves && !d.Proving })
	first, again := describe(), describe()
	if first.Profile == "" || !slices.Contains(again.Capabilities, "encoder:libx264") || !slices.Equal(first.Capabilities, again.Capabilities) || len(first.Flaws) != len(again.Flaws) {
		t.Errorf("first %q with %d capabilities, then %d", first.Profile, len(first.Capabilities), len(again.Capabilities))
	}
	if sent, err := c.Supervisor().Describe(t.Context(), &wire.DescribeRequest{Profile: first.Profile}); err != nil || len(sent.Capabilities) != 0 {
		t.Errorf("sent again: %d capabilities, %v", len(sent.GetCapabilities()), err)
	}
}
