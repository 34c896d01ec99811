package kustomize

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// virtual is where the embedded tree seems to be. Nothing on the disk has the
// name: what lies below it is never looked for there.
var virtual = filepath.Join(string(filepath.Separator), ".ffpod-embedded", "kustomize")

// filesystem is the disk with the embedded tree mounted at virtual, in whose
// kustomizations references to this release's repository lead to that.
type filesystem struct {
	filesys.FileSystem                    // the disk
	embedded           filesys.FileSystem // in memory
	references         references
}

func newFilesystem(r references) (filesystem, error) {
	memory := filesys.MakeFsInMemory()
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		return memory.WriteFile(filepath.Join(virtual, filepath.FromSlash(name)), text)
	})
	if err != nil {
		return filesystem{}, fmt.Errorf("unpack the embedded manifests: %w", err)
	}
	return filesystem{FileSystem: filesys.MakeFsOnDisk(), embedded: memory, references: r}, nil
}

func (f filesystem) of(name string) filesys.FileSystem {
	if name == virtual || strings.HasPrefix(name, virtual+string(filepath.Separator)) {
		return f.embedded
	}
	return f.FileSystem
}

func (f filesystem) Open(name string) (filesys.File, error)      { return f.of(name).Open(name) }
func (f filesystem) IsDir(name string) bool                      { return f.of(name).IsDir(name) }
func (f filesystem) ReadDir(name string) ([]string, error)       { return f.of(name).ReadDir(name) }
func (f filesystem) Exists(name string) bool                     { return f.of(name).Exists(name) }
func (f filesystem) Glob(pattern string) ([]string, error)       { return f.of(pattern).Glob(pattern) }
func (f filesystem) Walk(path string, w filepath.WalkFunc) error { return f.of(path).Walk(path, w) }

func (f filesystem) CleanedAbs(path string) (filesys.ConfirmedDir, string, error) {
	return f.of(path).CleanedAbs(path)
}

func (f filesystem) ReadFile(name string) ([]byte, error) {
	under := f.of(name)
	text, err := under.ReadFile(name)
	if err != nil || under == f.embedded || !isKustomization(name) {
		return text, err
	}
	return f.references.replace(name, text)
}

// Rendering writes nothing.

func (f filesystem) Create(name string) (filesys.File, error) { return nil, readOnly(name) }
func (f filesystem) Mkdir(name string) error                  { return readOnly(name) }
func (f filesystem) MkdirAll(name string) error               { return readOnly(name) }
func (f filesystem) RemoveAll(name string) error              { return readOnly(name) }
func (f filesystem) WriteFile(name string, _ []byte) error    { return readOnly(name) }

func readOnly(name string) error {
	return &os.PathError{Op: "write", Path: name, Err: os.ErrPermission}
}

func isKustomization(name string) bool {
	for _, known := range konfig.RecognizedKustomizationFileNames() {
		if filepath.Base(name) == known {
			return true
		}
	}
	return false
}
