package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/kustomize/settings"
)

func TestReferenceIsCurrent(t *testing.T) {
	want, err := reference()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("docs/configuration.md is stale; make generate (-want +got):\n%s", diff)
	}
}

// Components read what the type knows, and nothing in the type is read by nobody.
func TestTypeAndComponentsAgree(t *testing.T) {
	readers, err := Readers()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, f := range settings.Fields() {
		known[f.Path] = true
		if f.Type != "" && len(readers[f.Path]) == 0 {
			t.Errorf("no component reads %s", f.Path)
		}
	}
	known["jellyfin.environment.TZ"] = true // an entry of a map
	for path, components := range readers {
		if !known[path] && !strings.HasPrefix(path, "component config-nfs is refused") {
			t.Errorf("%v read %s, which kustomize/settings does not know", components, path)
		}
	}
}
