package supervisor

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

func TestFilesOf(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/8f0.ts", make([]byte, 42), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &looker{}
	got := l.filesOf([]*wire.Output{{Directory: []byte(dir), Prefix: []byte("8f")}})
	if len(got) != 1 || string(got[0].Path) != dir+"/8f0.ts" || got[0].Size != 42 {
		t.Errorf("told of %v, want the one file", got)
	}
	if got := l.filesOf(nil); got != nil {
		t.Errorf("told of %v, want nothing", got)
	}
}

// TestLookThatHangs keeps a mount that does not answer from holding back exits,
// and from collecting threads.
func TestLookThatHangs(t *testing.T) {
	l := &looker{}
	release := make(chan struct{})
	hang := func(context.Context) []*wire.File {
		<-release
		return nil
	}
	const bound = 10 * time.Millisecond
	for range looksMost {
		began := time.Now()
		if l.bounded(bound, hang) != nil || time.Since(began) < bound {
			t.Fatal("a look that hangs was not waited for")
		}
	}
	if n := l.looks.Load(); n != looksMost {
		t.Errorf("%d looks count as under way, want %d", n, looksMost)
	}
	answer := func(context.Context) []*wire.File { return []*wire.File{{}} }
	if l.bounded(time.Minute, answer) != nil {
		t.Error("one more look began")
	}
	close(release)
	for deadline := time.Now().Add(10 * time.Second); l.looks.Load() != 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d looks never ended", l.looks.Load())
		}
	}
	if len(l.bounded(time.Minute, answer)) != 1 {
		t.Error("no look begins after the mount answered")
	}
}
