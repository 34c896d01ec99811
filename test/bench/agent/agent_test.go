package agent

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func client(t *testing.T) *Client {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Serve(inR, outW) }()
	c := NewClient(inW, outR)
	t.Cleanup(func() {
		c.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestRun(t *testing.T) {
	c := client(t)
	file := filepath.Join(t.TempDir(), "there")
	r, err := c.Do(t.Context(), Request{Op: Run, File: file, Env: []string{"WORD=abc"}, Argv: []string{"/bin/sh", "-c", `printf $WORD; : >` + file}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Bytes != 3 || r.FirstByte <= 0 || r.FirstByte > r.Total || r.File <= 0 {
		t.Errorf("got %+v", r)
	}
	if _, err := c.Do(t.Context(), Request{Op: Run, Argv: []string{"/bin/sh", "-c", "echo no >&2; exit 3"}}); err == nil || !strings.Contains(err.Error(), "exit 3: no") {
		t.Errorf("a failing command: %v", err)
	}
	if _, err := c.Do(t.Context(), Request{Op: Run, Timeout: 50 * time.Millisecond, Argv: []string{"/bin/sleep", "60"}}); err == nil {
		t.Error("a command that does not end did")
	}
}

func TestKill(t *testing.T) {
	c := client(t)
	if _, err := c.Do(t.Context(), Request{Op: Start, Argv: []string{"/bin/sleep", "60"}}); err != nil {
		t.Fatal(err)
	}
	before := time.Now().UnixNano()
	r, err := c.Do(t.Context(), Request{Op: Kill})
	if err != nil || r.Code != -1 || r.KilledAt < before || r.KilledAt > time.Now().UnixNano() {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := c.Do(t.Context(), Request{Op: Kill}); err == nil {
		t.Error("killed nothing twice")
	}
}

func TestTinyRuns(t *testing.T) {
	c := client(t)
	tiny := filepath.Join(t.TempDir(), "tiny")
	if _, err := c.Do(t.Context(), Request{Op: Tiny, File: tiny}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(tiny); err != nil || info.Size() > 200 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := c.Do(t.Context(), Request{Op: Run, Argv: []string{tiny}}); err != nil {
		t.Error(err)
	}
}
