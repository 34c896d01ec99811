package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/ffpod/ffpod/"

type pkg struct {
	ImportPath, Doc, Name string
	Imports, Deps         []string
	GoFiles               []string
}

func list(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Doc,Name,Imports,Deps,GoFiles"}, patterns...)...)
	cmd.Dir = filepath.Join("..", "..")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, errs.String())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// layers are the packages that may import each other downwards only: a package may
// import what stands in a lower layer, nothing beside or above it.
var layers = map[string]int{
	"kustomize/settings":  0,
	"kustomize":           1,
	"kustomize/reference": 2,
	"podexec/wire":        0,
	"podexec/buildid":     0,
	"scheduler/api":       0,
	"scheduler/ffmpeg":    0,
	"podexec/output":      1,
	"podexec/session":     1,
	"podexec/supervisor":  2,
	"podexec":             2,
	"scheduler/lease":     3,
	"scheduler/channels":  4,
	"scheduler/class":     4,
	"scheduler/fence":     4,
	"scheduler/store":     4,
	"scheduler/placement": 4,
	"scheduler/pool":      5,
	"scheduler/job":       5,
	"scheduler/scale":     6,
	"scheduler/standby":   6,
	"scheduler":           6,
	"scheduler/config":    6,
	"scheduler/server":    7,
	"cmd/ffmpeg/decision": 7,
	"cmd/ffmpeg/visible":  7,
	"cmd/ffmpeg/registry": 7,
	"cmd/ffmpeg":          9,
	"cmd/ffpod/backup":    7,
	"cmd/ffpod/cluster":   7,
	"cmd/ffpod/jellyfin":  7,
	"cmd/ffpod/overlay":   7,
	"cmd/ffpod/doctor":    8,
	"cmd/ffpod":           9,
	"cmd/scheduler":       9,
	"cmd/worker":          9,
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range list(t, "./cmd/...", "./kustomize/...", "./scheduler/...", "./podexec/...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		if helper := strings.HasSuffix(name, "test"); helper {
			continue // conformance suites and fakes for tests only
		}
		layer, known := layers[name]
		if !known {
			t.Errorf("%s has no layer: give it one here, deliberately", name)
			continue
		}
		for _, i := range p.Imports {
			i, own := strings.CutPrefix(i, module)
			if below, known := layers[i]; own && (!known || below >= layer) {
				t.Errorf("%s (layer %d) imports %s (layer %d)", name, layer, i, below)
			}
		}
	}
}

// TestLinks keeps the programs small: what a binary links, it starts.
func TestLinks(t *testing.T) {
	forbidden := map[string][]string{
		"./cmd/ffmpeg":       {"k8s.io/", "sigs.k8s.io/", "github.com/jackc/", "modernc.org/", "go.uber.org/zap", "net/http/httptest", "testing"},
		"./cmd/worker":       {"k8s.io/", "sigs.k8s.io/", "github.com/jackc/", "modernc.org/", "testing"},
		"./cmd/scheduler":    {"sigs.k8s.io/kustomize", "modernc.org/", "testing"},
		"./podexec/session":  {"k8s.io/", "go.uber.org/zap"},
		"./scheduler/ffmpeg": {"google.golang.org/", "k8s.io/", "net/http", "os/exec"},
	}
	for target, bad := range forbidden {
		for _, p := range list(t, target) {
			for _, dep := range p.Deps {
				for _, b := range bad {
					if dep == b || strings.HasSuffix(b, "/") && strings.HasPrefix(dep, b) || strings.HasPrefix(dep, b+"/") {
						t.Errorf("%s links %s", target, dep)
					}
				}
			}
		}
	}
}

// Kustomize is asked in one place, and by the tests of manifests.
func TestOnlyOneImportsKustomize(t *testing.T) {
	for _, p := range list(t, "./...") {
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "sigs.k8s.io/kustomize/") && p.ImportPath != module+"kustomize" && p.ImportPath != module+"test/manifests" {
				t.Errorf("%s imports %s", p.ImportPath, i)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range list(t, "./...") {
		want := "Package " + p.Name
		if p.Name == "main" {
			want = "Command "
		}
		if len(p.GoFiles) > 0 && !strings.HasPrefix(p.Doc, want) {
			t.Errorf("%s: the package comment does not begin with %q", p.ImportPath, want)
		}
	}
}

// TestNoPathOfOneMachine keeps out what works only where it was written.
func TestNoPathOfOneMachine(t *testing.T) {
	cmd := exec.Command("git", "grep", "-nIE", "/work/(main|shared)|\\.\\./shared", "--", ".", ":!test/house")
	cmd.Dir = filepath.Join("..", "..")
	if out, _ := cmd.Output(); len(out) > 0 {
		t.Errorf("found:\n%s", out)
	}
}

func TestMakefileStaysReadable(t *testing.T) {
	b, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte("\n")); n > 150 {
		t.Errorf("%d lines, at most 150", n)
	}
}
