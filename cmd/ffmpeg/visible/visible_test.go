package visible

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/podexec/output"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

func parse(dir string, argv ...string) *ffmpeg.Command {
	c := ffmpeg.Parse("ffmpeg", argv, ffmpeg.Host{Dir: dir})
	return &c
}

func write(t *testing.T, name string, size int) {
	t.Helper()
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOutputsAreSharedOnes(t *testing.T) {
	c := parse("/work", "-i", "/media/a.mkv", "/cache/a.mp4", "/cache2/b.mp4", "/media/sub/c.mp4", "/tmp/d.mp4", "e.mp4")
	var got []string
	for _, o := range Outputs(c, []string{"/media/", "/cache"}) {
		got = append(got, string(o.Directory)+"/"+string(o.Prefix))
	}
	if diff := cmp.Diff([]string{"/cache/a.mp4", "/media/sub/c.mp4"}, got); diff != "" {
		t.Errorf("Outputs (-want +got):\n%s", diff)
	}
	if got := Outputs(c, []string{"/"}); len(got) != 5 {
		t.Errorf("with everything shared: %v", got)
	}
}

func TestAwaitLooksAtItsOwnOutputsOnly(t *testing.T) {
	dir := t.TempDir()
	outputs := Outputs(parse(dir, "-i", "/a", "a.mp4"), []string{dir})
	foreign := []*wire.File{{Path: []byte("/etc/no-such-file"), Size: 1}, {Path: []byte(dir + "/a.mp4/../b"), Size: 1}}
	if err := Await(context.Background(), outputs, foreign, time.Millisecond); err != nil {
		t.Errorf("waited for a file that is no output: %v", err)
	}
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	dir, cause := t.TempDir(), errors.New("the caller's signal")
	outputs := Outputs(parse(dir, "-i", "/a", "a.mp4"), []string{dir})
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if err := Await(ctx, outputs, []*wire.File{{Path: []byte(dir + "/a.mp4"), Size: 1}}, Bound); !errors.Is(err, cause) {
		t.Errorf("Await: %v, want %v", err, cause)
	}
}

func TestJudge(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	tests := map[string]struct {
		have, mtime int64
		since       time.Duration // for how long the size has been equal
		want        bool
	}{
		"missing":                           {have: -1, mtime: 5, want: false},
		"shorter":                           {have: 9, mtime: 5, want: false},
		"the same":                          {have: 10, mtime: 5, want: true},
		"longer":                            {have: 11, mtime: 7, want: true},
		"the same size at another time":     {have: 10, mtime: 6, want: false},
		"for a second":                      {have: 10, mtime: 6, since: time.Second, want: false},
		"for two seconds":                   {have: 10, mtime: 6, since: 2 * time.Second, want: true},
		"shorter again after being as long": {have: 9, mtime: 6, since: 2 * time.Second, want: false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := &expected{size: 10, mtime: 5, have: tt.have}
			if tt.since > 0 {
				f.equal = now.Add(-tt.since)
			}
			if got := f.judge(tt.mtime, now); got != tt.want {
				t.Errorf("judge = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestSameTime(t *testing.T) {
	at := time.Unix(1_700_000_001, 123_456_789).UnixNano()
	for other, want := range map[int64]bool{
		at: true, at - 89: true, at - 789: true, at - 456_789: true, at - 123_456_789: true, at - 1_123_456_789: true,
		at + 1: false, at - 1: false, at - 1_000_000: false, at + int64(time.Second): false, 0: false,
	} {
		if sameTime(at, other) != want || sameTime(other, at) != want {
			t.Errorf("sameTime(%d, %d) is not %v", at, other, want)
		}
	}
}

func TestKeepReturnsWhereNobodyElseWrites(t *testing.T) {
	dir := t.TempDir()
	Keep(context.Background(), Outputs(parse(dir, "-i", "/a", "a.mp4"), []string{dir})) // else the test times out
	Keep(context.Background(), nil)
}

func TestLeftovers(t *testing.T) {
	tests := map[string]struct {
		argv []string
		want string // what is removed
	}{
		"subtitles": {
			argv: []string{"-i", "/a", "-c:s", "srt", "theirs.srt", "-c:s", "ass", "new.ass", "-c:s", "copy", "sub/../new.sup"},
			want: "new.ass new.sup",
		},
		"a subtitle that was there":     {argv: []string{"-i", "/a", "-c:s", "srt", "theirs.srt"}},
		"a subtitle that never came":    {argv: []string{"-i", "/a", "-c:s", "srt", "never.srt"}},
		"a film":                        {argv: []string{"-i", "/a", "new.mp4"}},
		"segments":                      {argv: []string{"-i", "/a", "-f", "hls", "new.m3u8"}},
		"attachments, by their tags":    {argv: []string{"-dump_attachment:t", "", "-i", "/a"}},
		"an attachment, by its name":    {argv: []string{"-dump_attachment:3", "new.ttf", "-i", "/a"}, want: "new.ttf"},
		"elsewhere":                     {argv: []string{"-i", "/a", "-c:s", "srt", "/elsewhere/x.srt"}},
		"a subtitle that is a link now": {argv: []string{"-i", "/a", "-c:s", "srt", "link.srt"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/theirs.srt", 3)
			left := Remember(parse(dir, tt.argv...), []string{dir})
			all := []string{"theirs.srt", "new.ass", "new.sup", "new.mp4", "new.m3u8", "new0.ts", "new.ttf", "bystander.srt"}
			for _, name := range all {
				write(t, dir+"/"+name, 7)
			}
			if err := os.Symlink("theirs.srt", dir+"/link.srt"); err != nil {
				t.Fatal(err)
			}
			all = append(all, "link.srt")
			var got []string
			for _, name := range left.Remove() {
				got = append(got, strings.TrimPrefix(name, dir+"/"))
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("removed (-want +got):\n%s", diff)
			}
			for _, name := range all {
				_, err := os.Lstat(dir + "/" + name)
				if gone := err != nil; gone != strings.Contains(" "+tt.want+" ", " "+name+" ") {
					t.Errorf("%s is gone: %v", name, gone)
				}
			}
		})
	}
}

// BenchmarkAwait is the cost of an exit on a local file system.
func BenchmarkAwait(b *testing.B) {
	dir := b.TempDir()
	outputs := Outputs(parse(dir, "-i", "/a", "-f", "hls", "8f.m3u8"), []string{dir})
	for n := range 2000 {
		if err := os.WriteFile(fmt.Sprintf("%s/8f%d.ts", dir, n), []byte("x"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	files := output.Look(context.Background(), outputs)
	for b.Loop() {
		if err := Await(context.Background(), outputs, files, Bound); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLook is what the exit of a session with many segments costs the worker.
func BenchmarkLook(b *testing.B) {
	dir := b.TempDir()
	outputs := Outputs(parse(dir, "-i", "/a", "-f", "hls", "8f.m3u8"), []string{dir})
	for n := range 2000 {
		if err := os.WriteFile(fmt.Sprintf("%s/8f%d.ts", dir, n), []byte("x"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		output.Look(context.Background(), outputs)
	}
}
