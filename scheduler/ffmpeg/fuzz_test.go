package ffmpeg

import (
	"errors"
	"path"
	"slices"
	"strings"
	"testing"
)

// FuzzParse feeds command lines, one argument per line, with a file that every
// list and script turns out to be.
func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.Program, strings.Join(v.Argv, "\n"), "ffconcat version 1.0\nfile 'a'\\''b'\n")
	}
	f.Add("ffmpeg", "-f\nconcat\n-i\nx.ffconcat\n-/vf\nscript\n-f\ntee\n[f=null]a|[b", "file x.ffconcat\nfile concat:a|b.concat\n")
	f.Add("ffmpeg", "-i\nsubfile,,start,1,,:concatf:x\n-filter_script\ng\n-x264-params\nstats='\\", "movie='a\\,b[c];drawtext=:::/text=x")
	f.Add("ffprobe", "--\n-i\n-", "")
	f.Fuzz(func(t *testing.T, program, joined, text string) {
		argv := strings.Split(joined, "\n")
		before := slices.Clone(argv)
		reads := 0
		env := Environment{
			Host: Host{Dir: "/work", Report: text, ReadFile: func(string) ([]byte, error) {
				if reads++; reads > 2*maxOperands {
					return nil, errors.New("read too often")
				}
				return []byte(text), nil
			}},
			Shared: []string{"/media", "/work"},
		}
		e := Explain(program, argv, env)
		if !slices.Equal(before, argv) {
			t.Fatalf("argv changed: %q, was %q", argv, before)
		}
		if len(e.Operands) > maxOperands || reads > 2*maxOperands {
			t.Fatalf("%d operands, %d reads", len(e.Operands), reads)
		}
		for _, o := range e.Operands {
			if o.Arg < -1 || o.Arg >= len(argv) {
				t.Fatalf("operand %+v is at %d of %d", o, o.Arg, len(argv))
			}
			if o.Path != "" && o.Path[0] != '/' {
				t.Fatalf("operand %+v has a path that is not absolute", o)
			}
		}
		if e.Reason == "" || e.Clause == "" || e.Kind == "" {
			t.Fatalf("no reason, clause or kind: %+v", e)
		}
		cmd := Parse(program, argv, env.Host)
		needs := cmd.Requirements().Capabilities
		if !slices.IsSorted(needs) || slices.ContainsFunc(needs, func(c string) bool { return strings.Count(c, ":") != 1 }) {
			t.Fatalf("capabilities %q", needs)
		}
		if probe, is := cmd.HardwareProbe(); is && (probe.Key == "" || Decide(cmd, env).Where != Remote) {
			t.Fatalf("probe %+v", probe)
		}
		filters, rest := Filters(text)
		for i := range filters {
			rest = filters[len(filters)-1-i].Before + filters[len(filters)-1-i].Text + rest
		}
		if rest != text {
			t.Fatalf("graph %q came back as %q", text, rest)
		}
		for _, set := range cmd.FileSets() {
			if !strings.HasPrefix(set.Dir, "/") || path.Clean(set.Dir) != set.Dir || strings.Contains(set.Prefix, "/") {
				t.Fatalf("%+v is no set of files in a directory", set)
			}
		}
		for _, mode := range []Mode{ForceLocal, ForceRemote} {
			env.Mode = mode
			if got := Explain(program, argv, env); string(got.Where) != string(mode) {
				t.Fatalf("mode %s went %s", mode, got.Where)
			}
		}
	})
}

func BenchmarkParseDecide(b *testing.B) {
	for _, v := range vectors(b) {
		if v.Name != "hls-ts-x264" && v.Name != "probe-version" {
			continue
		}
		b.Run(v.Name, func(b *testing.B) {
			env := vectorEnvironment(v)
			b.ReportAllocs()
			for b.Loop() {
				if Decide(Parse(v.Program, v.Argv, env.Host), env).Where != v.Where {
					b.Fatal("went elsewhere")
				}
			}
		})
	}
}

// TestAllocations keeps start-up cheap without a clock.
func TestAllocations(t *testing.T) {
	for _, v := range vectors(t) {
		env := vectorEnvironment(v)
		n := testing.AllocsPerRun(20, func() { Decide(Parse(v.Program, v.Argv, env.Host), env) })
		if n > 60 {
			t.Errorf("%s: %.0f allocations, want 60 or fewer", v.Name, n)
		}
	}
}
