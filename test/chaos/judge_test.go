package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ffpod/ffpod/test/chaos/act"
	"github.com/ffpod/ffpod/test/e2e"
)

// heard is a session of the kind that has ended with the wait status and has sent
// these bytes.
func heard(t *testing.T, status int, out, said []byte) *session {
	t.Helper()
	s := &session{cast: cast{Kind: stdout, Moment: mid}, want: 3, act: &act.Act{Stdout: act.Stream{Flood: wanted}}}
	s.out, s.err = drained(t, "", &wanted, out), drained(t, "ready\n", &e2e.Flood{}, said)
	s.over, s.status = time.Now(), syscall.WaitStatus(status)
	return s
}

var wanted = e2e.Flood{Seed: 4, Bytes: 100_000}

func drained(t *testing.T, head string, want *e2e.Flood, sent []byte) *tap {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = w.Write(sent)
		w.Close()
	}()
	tap := newTap(r, head, want)
	tap.run()
	r.Close()
	return tap
}

func TestJudge(t *testing.T) {
	whole, err := io.ReadAll(wanted.Reader())
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[70_000] ^= 1
	repeated := append(bytes.Clone(whole[:50_000]), whole[40_000:]...)
	fine := []byte("ready\n")
	lost := []byte("ready\nffmpeg: ffpod: session 1 was lost: gone; run it again\n")
	const code3, code0, code125, killed9, killed15 = 3 << 8, 0, 125 << 8, 9, 15
	for name, c := range map[string]struct {
		status    int
		out, said []byte
		fault     string
		want      verdict
		broken    string
	}{
		"all and the right exit":           {code3, whole, fine, "scheduler-kill", exact, ""},
		"the right exit, bytes missing":    {code3, whole[:99_999], fine, "scheduler-kill", lie, "lie"},
		"success, bytes missing":           {code0, whole[:10], fine, "worker-delete", lie, "lie"},
		"success that was not its exit":    {code0, whole, fine, "worker-delete", lie, "lie"},
		"all, and more on stderr":          {code3, whole, append(bytes.Clone(fine), '!'), "shim-rst", lie, "lie"},
		"all, and a line of ffpod's":       {code3, whole, lost, "worker-delete", exact, ""},
		"a wrong byte, and a failure":      {code125, flipped, lost, "supervisor-kill", lie, "lie"},
		"a repeated piece, and a failure":  {code125, repeated, lost, "supervisor-kill", lie, "lie"},
		"more than all":                    {code3, append(bytes.Clone(whole), 'x'), fine, "shim-rst", lie, "lie"},
		"lost, where it may be":            {code125, whole[:10], lost, "supervisor-kill", failed, ""},
		"lost, where it must not be":       {code125, whole[:10], lost, "scheduler-kill", failed, "must survive"},
		"a signal of the fault":            {killed15, whole[:10], fine, "worker-delete", exact, ""},
		"a signal from nowhere":            {killed9, whole[:10], fine, "scheduler-kill", failed, "must survive"},
		"ffmpeg was killed, and that told": {killed9, whole[:10], fine, "ffmpeg-kill", exact, ""},
		"ffmpeg was killed, and not told":  {code125, whole[:10], lost, "ffmpeg-kill", failed, "must be told"},
	} {
		t.Run(name, func(t *testing.T) {
			s := heard(t, c.status, c.out, c.said)
			f := find(c.fault)
			got, why := s.judge(f)
			if got != c.want {
				t.Errorf("verdict %s (%s), want %s", got, why, c.want)
			}
			if broken := s.broken(f, got); broken != c.broken {
				t.Errorf("broken %q, want %q", broken, c.broken)
			}
		})
	}
}

func TestJudgeOfOneThatNeverEnds(t *testing.T) {
	s := heard(t, 0, nil, nil)
	s.over = time.Time{}
	if v, _ := s.judge(find("node-cut-32s")); v != hang {
		t.Errorf("verdict %s, want %s", v, hang)
	}
}

// What a session wrote is its successor's from the moment in which that one began.
func TestJudgeOfOneThatWasOverwritten(t *testing.T) {
	whole, err := io.ReadAll(wanted.Reader())
	if err != nil {
		t.Fatal(err)
	}
	output := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(output, []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	for said, want := range map[string]verdict{"": lie, "ready\n": exact} {
		s := heard(t, 3<<8, whole, []byte("ready\n"))
		s.world, s.act.Path = &world{clientPid: os.Getpid()}, output
		s.successor = heard(t, 3<<8, nil, []byte(said))
		s.successor.act.Path = output
		if v, why := s.judge(find("takeover")); v != want {
			t.Errorf("its successor said %q: verdict %s (%s), want %s", said, v, why, want)
		}
	}
}

// A silence counts from the strike; of its length after the healing the resume is
// made.
func TestCut(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(1_000, 0).Add(time.Duration(seconds) * time.Second) }
	tap := newTap(nil, "", nil)
	tap.gaps = []gap{{at(0), at(3)}, {at(9), at(14)}, {at(17), at(18)}, {at(40), at(60)}}
	longest, after := tap.cut(at(10), at(12))
	if longest != 4*time.Second || after != 2*time.Second {
		t.Errorf("silent for %s, %s after the healing; want 4s and 2s", longest, after)
	}
}
