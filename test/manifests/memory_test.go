package manifests

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// memory is a copy of the manifests in which a test may write: kustomize and
// test/manifests/testdata, at the root.
type memory struct{ filesys.FileSystem }

func copied(t *testing.T) memory {
	t.Helper()
	m := memory{filesys.MakeFsInMemory()}
	for _, below := range []string{"kustomize", "test/manifests/testdata"} {
		err := filepath.WalkDir(filepath.Join(Root(), below), func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(Root(), file)
			if err != nil {
				return err
			}
			return m.WriteFile("/"+filepath.ToSlash(name), text)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// put writes a kustomization into a directory of its own, in which ROOT is the
// repository, beside a settings.yaml, and renders it.
func (m memory) put(t *testing.T, kustomization, settings string) ([]*unstructured.Unstructured, error) {
	t.Helper()
	const dir = "/tried/overlay"
	for name, text := range map[string]string{"kustomization.yaml": kustomization, "settings.yaml": settings} {
		if err := m.WriteFile(path.Join(dir, name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	objects, _, err := build(m, dir)
	return objects, err
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(Root(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
