package ffmpeg

import (
	"bufio"
	"encoding/json"
	"io/fs"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// vector is one command line of a real Jellyfin server and what this package
// must make of it.
type vector struct {
	Name    string
	Program string
	Argv    []string
	Cwd     string
	Where   Where
	// Either says that the contract leaves the place open and Where is our choice.
	Either    bool
	Kind      Kind
	Reads     []string // paths and URLs; segments are named by their pattern
	Writes    []string
	Devices   []string // values of -init_hw_device
	Nodes     []string // device nodes
	OutputKey string
	Stdin     bool
	Egress    bool
	Requires  Requirements
}

func vectors(tb testing.TB) []vector {
	tb.Helper()
	file, err := os.Open("testdata/vectors.jsonl")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var all []vector
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			tb.Fatal(err)
		}
		all = append(all, v)
	}
	if len(all) < 39 {
		tb.Fatalf("%d vectors, want 39 or more", len(all))
	}
	return all
}

// jellyfinShares is a set-up in which everything Jellyfin writes is shared.
var jellyfinShares = []string{"/media", "/cache", "/tmp/jellyfin", "/config/data/subtitles", "/config/data/attachments"}

func vectorEnvironment(v vector) Environment {
	return Environment{
		Host:   Host{Dir: v.Cwd, Stat: func(string) (fs.FileMode, error) { return 0, nil }},
		Shared: jellyfinShares, Egress: egress(v),
		Own: func(host string) bool { return host == "10.42.3.17" },
	}
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			before := slices.Clone(v.Argv)
			env := vectorEnvironment(v)
			cmd := Parse("/usr/lib/jellyfin-ffmpeg/"+v.Program, v.Argv, env.Host)
			if diff := cmp.Diff(before, v.Argv); diff != "" {
				t.Errorf("argv changed (-before +after):\n%s", diff)
			}
			decision := Decide(cmd, env)
			if decision.Where != v.Where {
				t.Errorf("where = %s (%s: %s), want %s", decision.Where, decision.Clause, decision.Reason, v.Where)
			}
			if cmd.Kind != v.Kind {
				t.Errorf("kind = %s, want %s", cmd.Kind, v.Kind)
			}
			if diff := cmp.Diff(sorted(v.Reads), named(cmd, Input)); diff != "" {
				t.Errorf("reads (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(sorted(v.Writes), named(cmd, Output)); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(sorted(v.Nodes), named(cmd, Node)); diff != "" {
				t.Errorf("nodes (-want +got):\n%s", diff)
			}
			if len(cmd.Devices) != len(v.Devices) {
				t.Errorf("devices = %v, want %v", cmd.Devices, v.Devices)
			}
			if got := cmd.OutputKey(); got != v.OutputKey {
				t.Errorf("output key = %q, want %q", got, v.OutputKey)
			}
			if diff := cmp.Diff(v.Requires, cmd.Requirements()); diff != "" {
				t.Errorf("requires (-want +got):\n%s", diff)
			}
			if cmd.ReadsStdin != v.Stdin {
				t.Errorf("reads stdin = %t, want %t", cmd.ReadsStdin, v.Stdin)
			}
		})
	}
}

// TestVectorsUnshared moves nothing: with no shared directory only what needs
// no file may still leave.
func TestVectorsUnshared(t *testing.T) {
	for _, v := range vectors(t) {
		env := vectorEnvironment(v)
		env.Shared = nil
		cmd := Parse(v.Program, v.Argv, env.Host)
		d := Decide(cmd, env)
		want := Local
		if v.Name == "probe-vaapi-driver" {
			want = Remote
		}
		if d.Where != want {
			t.Errorf("%s: where = %s (%s: %s), want %s", v.Name, d.Where, d.Clause, d.Reason, want)
		}
	}
}

// named returns the paths, or for what is no file the URLs, of one role.
func named(c Command, role Role) []string {
	var names []string
	for _, o := range c.Operands {
		switch {
		case o.Role != role:
		case o.Path != "":
			names = appendNew(names, o.Path)
		case isNetwork(o.Protocol):
			names = appendNew(names, o.Raw)
		}
	}
	return sorted(names)
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	if len(s) == 0 {
		return nil
	}
	return s
}

// egress is what the class of the vector's workers may reach: Jellyfin's own pod.
func egress(v vector) Egress {
	if v.Egress {
		return CallerEgress
	}
	return NoEgress
}
