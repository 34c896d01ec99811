package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// A file is either refused or means what it says: written out again, it parses to
// the same.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no files: %v", err)
	}
	for _, name := range append(files, "testdata/full.yaml") {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("apiVersion: ffpod.dev/v1alpha1\nkind: SchedulerConfiguration\nqueue: {timeout: 9999999h}\n"))
	f.Add([]byte("apiVersion: ffpod.dev/v1alpha1\nkind: SchedulerConfiguration\nauth: &a\n  allowedServiceAccounts: [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		if problems := c.Validate(); len(problems) > 0 {
			t.Fatalf("accepted with %v", problems)
		}
		text, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("its own text is refused: %v\n%s", err, text)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Errorf("written and read again (-was +is):\n%s", diff)
		}
	})
}
