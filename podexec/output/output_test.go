package output_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ffpod/ffpod/podexec/output"
	"github.com/ffpod/ffpod/podexec/wire"
)

var epoch = time.Unix(1_700_000_000, 123_456_789)

// write makes a file whose mtime is n seconds after the epoch.
func write(t *testing.T, name string, size, n int) {
	t.Helper()
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	at := epoch.Add(time.Duration(n) * time.Second)
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}

func of(dir, prefix string, exact bool) *wire.Output {
	return &wire.Output{Directory: []byte(dir), Prefix: []byte(prefix), Exact: exact}
}

func told(files []*wire.File) []string {
	var all []string
	for _, f := range files {
		at := time.Duration(f.MtimeNs - epoch.UnixNano())
		all = append(all, fmt.Sprintf("%s %d %s", filepath.Base(string(f.Path)), f.Size, at))
	}
	return all
}

func TestLook(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/8f0.ts", 10, 1)
	write(t, dir+"/8f1.ts", 11, 2)
	write(t, dir+"/8f.m3u8", 12, 3)
	write(t, dir+"/other.ts", 13, 4)
	write(t, dir+"/plain.mp4", 14, 5)
	for _, err := range []error{
		os.Mkdir(dir+"/8fdir", 0o755), unix.Mkfifo(dir+"/8ffifo", 0o600),
		os.Symlink("other.ts", dir+"/link.mp4"), os.Symlink("nothing", dir+"/8fdangling"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		outputs []*wire.Output
		want    []string
	}{
		"none":      {},
		"one":       {[]*wire.Output{of(dir, "plain.mp4", true)}, []string{"plain.mp4 14 5s"}},
		"missing":   {[]*wire.Output{of(dir, "plain", true)}, nil},
		"a FIFO":    {[]*wire.Output{of(dir, "8ffifo", true)}, nil},
		"a link":    {[]*wire.Output{of(dir, "link.mp4", true)}, []string{"link.mp4 13 4s"}},
		"a set":     {[]*wire.Output{of(dir, "8f", false)}, []string{"8f.m3u8 12 3s", "8f1.ts 11 2s", "8f0.ts 10 1s"}},
		"twice":     {[]*wire.Output{of(dir, "8f1", false), of(dir, "8f1.ts", true)}, []string{"8f1.ts 11 2s"}},
		"relative":  {[]*wire.Output{of(".", "output_test.go", true)}, nil},
		"no folder": {[]*wire.Output{of(dir+"/none", "", false)}, nil},
		"of all": {
			[]*wire.Output{of(dir, "8f0.ts", true), of(dir, "plain.mp4", true), of(dir, "o", false)},
			[]string{"plain.mp4 14 5s", "other.ts 13 4s", "8f0.ts 10 1s"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, told(output.Look(context.Background(), tt.outputs))); diff != "" {
				t.Errorf("Look (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLookTellsTheNewestOfMany(t *testing.T) {
	dir := t.TempDir()
	var each []*wire.Output
	for n := range 100 {
		write(t, fmt.Sprintf("%s/8f%d.ts", dir, n), n, n)
		each = append(each, of(dir, fmt.Sprintf("8f%d.ts", n), true))
	}
	got := told(output.Look(context.Background(), []*wire.Output{of(dir, "", false)}))
	if len(got) != 8 || got[0] != "8f99.ts 99 1m39s" || got[7] != "8f92.ts 92 1m32s" {
		t.Errorf("of a set of 100: %q, want the newest 8", got)
	}
	if got := output.Look(context.Background(), each); len(got) != 64 {
		t.Errorf("of 100 files: %d, want 64", len(got))
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if got := output.Look(ended, each); len(got) != 0 {
		t.Errorf("after its context ended it told of %d", len(got))
	}
}

// FuzzMatches: a worker names files, the shim opens them. None may lie elsewhere
// than where its own command line writes.
func FuzzMatches(f *testing.F) {
	f.Add("/c", "8f", false, "/c/8f0.ts")
	f.Add("/c", "a.mp4", true, "/c/a.mp4")
	f.Add("/c", "", false, "/c/link/../x")
	f.Add("/c", "", false, "/c/..")
	f.Add("/", "", false, "/")
	f.Fuzz(func(t *testing.T, dir, prefix string, exact bool, name string) {
		if !output.Matches(of(dir, prefix, exact), name) {
			return
		}
		base, below := strings.CutPrefix(name, strings.TrimSuffix(dir, "/")+"/")
		switch {
		case !below || strings.Contains(base, "/") || base == ".." || base == ".":
			t.Errorf("%q is no name in %q", name, dir)
		case exact && base != prefix, !strings.HasPrefix(base, prefix) && base != "":
			t.Errorf("%q is not of %q", base, prefix)
		}
	})
}

func TestOpenNeverWaits(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir + "/fifo", "/dev/null", "/dev/tty"} {
		if _, err := output.Open(name); err == nil {
			t.Errorf("opened %s, which is no file", name)
		}
	}
	if _, err := output.Open(dir); err != nil {
		t.Error(err)
	}
}

func TestRemote(t *testing.T) {
	for _, dir := range []string{"/proc", t.TempDir(), t.TempDir() + "/not/there", "relative"} {
		if output.Remote(dir) {
			t.Errorf("%s counts as shared with other machines", dir)
		}
	}
}
