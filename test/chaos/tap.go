package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"sync"
	"time"

	"github.com/ffpod/ffpod/test/e2e"
)

// A tap reads one output of a shim and compares it with what must come.
type tap struct {
	f    *os.File
	want io.Reader // nil: anything may come, and is kept

	mu      sync.Mutex
	cond    *sync.Cond
	head    []byte // expected before the bytes of want
	bytes   int64  // good ones
	rest    []byte // from the first wrong byte on, as far as it is kept
	wrong   bool
	ended   bool
	hold    int64 // stop reading after so many bytes; 0: never
	came    time.Time
	gaps    []gap
	release bool
}

// A gap is a time without a byte.
type gap struct{ from, to time.Time }

const restKept = 8 << 10

func newTap(f *os.File, head string, want *e2e.Flood) *tap {
	t := &tap{f: f, head: []byte(head)}
	if want != nil {
		t.want = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(t.head), want.Reader()), 64<<10)
	}
	t.cond = sync.NewCond(&t.mu)
	return t
}

// run reads to the end of the pipe.
func (t *tap) run() {
	buf, due := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		t.mu.Lock()
		for t.hold > 0 && t.bytes >= t.hold && !t.release {
			t.cond.Wait()
		}
		most := int64(len(buf))
		if t.hold > 0 && !t.release {
			most = min(most, t.hold-t.bytes)
		}
		t.mu.Unlock()
		n, err := t.f.Read(buf[:most])
		t.mu.Lock()
		t.take(buf[:n], due)
		t.ended = err != nil
		ended := t.ended
		t.cond.Broadcast()
		t.mu.Unlock()
		if ended {
			return
		}
	}
}

// take compares. Locked.
func (t *tap) take(b, due []byte) {
	if len(b) == 0 {
		return
	}
	now := time.Now()
	if !t.came.IsZero() && now.Sub(t.came) > silence {
		t.gaps = append(t.gaps, gap{t.came, now})
	}
	t.came = now
	good := 0
	switch {
	case t.want == nil:
		good = len(b)
		t.rest = append(t.rest, b[:min(len(b), restKept-len(t.rest))]...)
	case !t.wrong:
		n, _ := io.ReadFull(t.want, due[:len(b)])
		for good < n && b[good] == due[good] {
			good++
		}
	}
	t.bytes += int64(good)
	if good < len(b) {
		t.wrong = true
		t.rest = append(t.rest, b[good:][:min(len(b)-good, restKept-len(t.rest))]...)
	}
}

// reached waits for a number of bytes; false when they will not come.
func (t *tap) reached(n int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.bytes < n && !t.ended {
		t.cond.Wait()
	}
	return t.bytes >= n
}

// letGo ends a hold.
func (t *tap) letGo() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release = true
	t.cond.Broadcast()
}

// state is what has come.
func (t *tap) state() (good int64, wrong bool, rest []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes, t.wrong, bytes.Clone(t.rest)
}

// cut is the longest silence since the strike, and how much of it came after the
// healing.
func (t *tap) cut(struck, healed time.Time) (longest, after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range t.gaps {
		if g.to.Before(struck) || g.from.After(healed.Add(time.Second)) {
			continue
		}
		// Before the strike, a session may have waited for its cue.
		longest, after = max(longest, g.to.Sub(later(g.from, struck))), max(after, g.to.Sub(later(g.from, healed)))
	}
	return longest, after
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
