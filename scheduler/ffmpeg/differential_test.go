package ffmpeg

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The tests here ask a real ffmpeg what it makes of the same text. They are
// skipped with -short, and where there is no ffmpeg.
func realFFmpeg(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts ffmpeg some hundred times")
	}
	name, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("no ffmpeg on PATH")
	}
	return name
}

// stderrOf runs a command that is meant to fail.
func stderrOf(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = t.TempDir()
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// inParallel runs do for every item, a few at a time, and waits.
func inParallel[T any](items []T, do func(T)) {
	var wait sync.WaitGroup
	limit := make(chan struct{}, 4)
	for _, item := range items {
		limit <- struct{}{}
		wait.Go(func() {
			defer func() { <-limit }()
			do(item)
		})
	}
	wait.Wait()
}

// TestFlagsAgainstFFmpeg gives options as the last word: those that want a
// value complain that it is missing. It tries all that the help shows without
// a value and all that are taken for flags here.
func TestFlagsAgainstFFmpeg(t *testing.T) {
	ffmpeg := realFFmpeg(t)
	programs := map[Program]string{FFmpeg: ffmpeg, FFprobe: filepath.Join(filepath.Dir(ffmpeg), "ffprobe")}
	for program, binary := range programs {
		help := stderrOf(t, binary, "-hide_banner", "-h", "long")
		if program == FFprobe {
			help, _, _ = strings.Cut(help, "AVOptions")
		}
		var options []string
		for line := range strings.Lines(help) {
			if !strings.HasPrefix(line, "-") || len(line) < 3 || line[1] == ' ' {
				continue
			}
			option, rest, _ := strings.Cut(line[1:], " ")
			if strings.HasPrefix(rest, " ") || !takesValue(program, option) {
				options = appendNew(options, option)
			}
		}
		if len(options) < 40 {
			t.Fatalf("%s documents %d such options, want 40 or more", program, len(options))
		}
		inParallel(options, func(option string) {
			if versionedFlag(option) || isInformation(program, option) {
				return // either may go without; the program exits or looks at the value
			}
			out := stderrOf(t, binary, "-hide_banner", "-"+option)
			want := strings.Contains(out, "Missing argument for option")
			got := takesValue(program, option)
			if got != want {
				t.Errorf("%s -%s: takes a value = %t, ffmpeg says %t", program, option, got, want)
			}
		})
	}
}

// TestGraphAgainstFFmpeg compares the file names found in graphs, well-formed
// and not, with the name that ffmpeg then fails to open.
func TestGraphAgainstFFmpeg(t *testing.T) {
	ffmpeg := realFFmpeg(t)
	graphs := []string{
		`movie=/none/a.mkv`, `movie=filename=/none/it\\\'s\\: 1.mkv`, `movie=f\=x/a`, `movie='/none/a:b'`,
		`movie='/none/a\:b'`, `movie=filename='/none/it'\\\''s'`, `movie= /none/a  `, `movie=/none/a\ `,
		`movie=/none/a\[1\]\,b\;c`, `movie=/none/a\\\\b`, `movie=filename='/none/a`, `nullsrc[a];movie=/none/b[b];[a][b]overlay`,
		`[x]movie@id=/none/q`, `movie=/none/a@b=c`, "movie=\n/none/a\n", `movie=/none/ü"x"`,
	}
	const alphabet = `ab/'\: ,;[]=@"`
	random := rand.New(rand.NewPCG(7, 11))
	for range 60 {
		var b strings.Builder
		for range 3 + random.IntN(9) {
			b.WriteByte(alphabet[random.IntN(len(alphabet))])
		}
		graphs = append(graphs, "movie=filename=/none/"+b.String())
	}
	const mark = "Failed to avformat_open_input '"
	var mu sync.Mutex
	compared := 0
	inParallel(graphs, func(graph string) {
		out := stderrOf(t, ffmpeg, "-hide_banner", "-f", "lavfi", "-i", graph)
		_, after, opened := strings.Cut(out, mark)
		if !opened {
			return // ffmpeg rejected the graph before it opened anything
		}
		want := after[:strings.LastIndex(after[:strings.Index(after+"\n", "\n")], "'")]
		cmd := Parse("ffmpeg", []string{"-f", "lavfi", "-i", graph}, Host{})
		if len(cmd.Operands) < 2 {
			t.Errorf("graph %q: found no file, ffmpeg opens %q", graph, want)
			return
		}
		mu.Lock()
		compared++
		mu.Unlock()
		for _, o := range cmd.Operands[1:] {
			if o.Raw == want {
				return
			}
		}
		t.Errorf("graph %q: found %q, ffmpeg opens %q", graph, cmd.Operands[1].Raw, want)
	})
	if compared < 20 {
		t.Errorf("compared %d graphs, want 20 or more", compared)
	}
}

// TestListAgainstFFmpeg does the same with concat scripts.
func TestListAgainstFFmpeg(t *testing.T) {
	ffmpeg := realFFmpeg(t)
	dir := t.TempDir()
	for i, line := range []string{
		`file /none/a.mkv`, `file 'it'\''s.mkv'`, `file a\ b`, `  file  "x y"`, `file sub/../a`, `file 'a b' rest`,
		"file\ta\r", `file file:/none/x`, `file 'un finished`, `file a#b`, `file a:b`, `file /none/ü`,
	} {
		list := filepath.Join(dir, "list"+string(rune('a'+i)))
		if err := os.WriteFile(list, []byte("ffconcat version 1.0\n"+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out := stderrOf(t, ffmpeg, "-hide_banner", "-f", "concat", "-safe", "0", "-i", list)
		_, after, opened := strings.Cut(out, "Impossible to open '")
		if !opened {
			t.Errorf("line %q: ffmpeg did not try to open anything: %s", line, out)
			continue
		}
		want := filepath.Clean(strings.TrimPrefix(after[:strings.Index(after, "'\n")], "file:"))
		cmd := Parse("ffmpeg", []string{"-f", "concat", "-i", list}, Host{ReadFile: os.ReadFile, Stat: nil})
		if len(cmd.Operands) != 2 || cmd.Operands[1].Path != want && cmd.Operands[1].Raw != want {
			t.Errorf("line %q: found %v, ffmpeg opens %q", line, brief(cmd), want)
		}
	}
}
