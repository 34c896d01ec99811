package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"time"

	"github.com/ffpod/ffpod/test/e2e"
)

// watcher reads one pipe of a process, in the manner it is told.
type watcher struct {
	f    *os.File
	conf e2e.Output

	mu       sync.Mutex
	cond     *sync.Cond
	sum      hash.Hash
	bytes    int64
	head     []byte
	released bool
	ended    bool // end of file, or closed on purpose
	held     bool
	err      error
}

func newWatcher(f *os.File, conf e2e.Output) *watcher {
	w := &watcher{f: f, conf: conf, sum: sha256.New()}
	w.cond = sync.NewCond(&w.mu)
	if conf.CloseAfter < 0 {
		f.Close()
	}
	return w
}

func (w *watcher) read() {
	buf := make([]byte, 64<<10)
	for {
		w.pace()
		n, err := w.f.Read(buf[:w.most(len(buf))])
		w.mu.Lock()
		w.sum.Write(buf[:n])
		w.bytes += int64(n)
		w.head = append(w.head, buf[:min(n, e2e.HeadBytes-len(w.head))]...)
		if err == nil && w.conf.CloseAfter > 0 && w.bytes >= w.conf.CloseAfter {
			w.f.Close()
			err = io.EOF
		}
		if err != nil {
			w.held = errors.Is(err, os.ErrDeadlineExceeded)
			if !w.held && !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
				w.err = err
			}
			break
		}
		w.mu.Unlock()
		w.cond.Broadcast()
	}
	w.ended = true
	w.mu.Unlock()
	w.cond.Broadcast()
}

// pace waits while the pipe is not to be read.
func (w *watcher) pace() {
	w.mu.Lock()
	hold := w.conf.HoldAfter < 0 || w.conf.HoldAfter > 0 && w.bytes >= w.conf.HoldAfter
	for hold && !w.released {
		w.cond.Wait()
	}
	slow := w.conf.Rate > 0 && !w.released
	w.mu.Unlock()
	if slow {
		time.Sleep(time.Second / 8) // the rate is the behaviour under test
	}
}

func (w *watcher) most(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conf.Rate > 0 && !w.released {
		n = min(n, int(w.conf.Rate/8))
	}
	if w.conf.CloseAfter > w.bytes {
		n = min(n, int(w.conf.CloseAfter-w.bytes))
	}
	if w.conf.HoldAfter > w.bytes && !w.released {
		n = min(n, int(w.conf.HoldAfter-w.bytes))
	}
	return n
}

func (w *watcher) release() {
	w.mu.Lock()
	w.released = true
	w.mu.Unlock()
	w.cond.Broadcast()
}

// processGone bounds the wait for the end of the pipe. What is in it is still
// read, and a hold is over.
func (w *watcher) processGone() {
	w.release()
	_ = w.f.SetReadDeadline(time.Now().Add(heldBound))
}

// wait returns once the stream has shown what is waited for.
func (w *watcher) wait(s e2e.Seen) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	late := false
	timer := time.AfterFunc(stepBound, func() { w.mu.Lock(); late = true; w.mu.Unlock(); w.cond.Broadcast() })
	defer timer.Stop()
	for {
		switch {
		case s.Text != "" && bytes.Contains(w.head, []byte(s.Text)), s.Bytes > 0 && w.bytes >= s.Bytes:
			return nil
		case w.ended:
			return fmt.Errorf("descriptor %d ended after %d bytes without %q; it said %.300q", s.FD, w.bytes, s.Text, w.head)
		case late:
			return fmt.Errorf("descriptor %d did not show %q within %s; %d bytes came: %.300q", s.FD, s.Text, stepBound, w.bytes, w.head)
		}
		w.cond.Wait()
	}
}

// result waits for the end of the pipe.
func (w *watcher) result() (e2e.Stream, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.ended {
		w.cond.Wait()
	}
	w.f.Close()
	return e2e.Stream{Bytes: w.bytes, SHA: hex.EncodeToString(w.sum.Sum(nil)), Head: w.head, Held: w.held}, w.err
}
