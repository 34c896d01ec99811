package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// full.yaml documents the defaults, so it must be the defaults.
func TestFullIsDefault(t *testing.T) {
	got, err := Load("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got); diff != "" {
		t.Errorf("testdata/full.yaml differs from the defaults (-want +got):\n%s", diff)
	}
}

func TestShippedFile(t *testing.T) {
	const path = "../../kustomize/base/scheduler.yaml"
	if _, err := Load(path); err != nil {
		t.Errorf("the file that is shipped: %v", err)
	}
}

func TestValid(t *testing.T) {
	for _, path := range glob(t, "testdata/valid/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			if _, err := Load(path); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOverDefaults(t *testing.T) {
	got, err := Load("testdata/valid/secret.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listen = Listen{GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:8080", Operators: "127.0.0.1:8081"}
	want.Auth.AllowedServiceAccounts = []string{"media-player"}
	want.Placement.Policy, want.Placement.Builds = "job", "same"
	want.TLS.Mode, want.TLS.Directory = TLSSecret, "/tls"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Each invalid file says in its first lines what must be said about it, and
// nothing more may be said than there are lines.
func TestInvalid(t *testing.T) {
	for _, path := range glob(t, "testdata/invalid/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(b)
			if err == nil {
				t.Fatal("accepted")
			}
			wants := 0
			for line := range strings.Lines(string(b)) {
				want, ok := strings.CutPrefix(strings.TrimSpace(line), "# want: ")
				if !ok {
					continue
				}
				wants++
				if !strings.Contains(err.Error(), want) {
					t.Errorf("says nothing of %q:\n%v", want, err)
				}
			}
			if wants == 0 {
				t.Fatal("the file has no # want: line")
			}
			if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) != wants {
				t.Errorf("%d problems, want %d:\n%v", len(joined.Unwrap()), wants, err)
			}
		})
	}
}

func TestLoadMissing(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "--config") {
		t.Errorf("err = %v, want fs.ErrNotExist with a remedy", err)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files match %s (%v)", pattern, err)
	}
	return paths
}
