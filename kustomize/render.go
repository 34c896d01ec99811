package kustomize

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Render builds the kustomization in a directory, or, if there is no such
// directory, an overlay of the embedded tree by its name. References to the
// repository at this version's release lead to the embedded tree. Every file of
// kind Settings below it is checked first. The objects come in the order in which
// they may be applied.
func Render(dirOrName, version string) (resmap.ResMap, error) {
	f, err := newFilesystem(references{release: Release(version)})
	if err != nil {
		return nil, err
	}
	dir, err := f.find(dirOrName)
	if err != nil {
		return nil, err
	}
	if err := f.checkSettings(dir); err != nil {
		return nil, err
	}
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy
	all, err := krusty.MakeKustomizer(options).Run(f, dir)
	if err != nil {
		return nil, fmt.Errorf("render %s: %s", dirOrName, plain(err))
	}
	return all, nil
}

// find is the directory that an argument means.
func (f filesystem) find(dirOrName string) (string, error) {
	info, err := os.Stat(dirOrName)
	switch {
	case err == nil && !info.IsDir():
		return "", fmt.Errorf("render %s: it is a file; give the directory of a kustomization.yaml", dirOrName)
	case err == nil:
		// Without symbolic links, for relative paths are made from it.
		real, err := filepath.EvalSymlinks(dirOrName)
		if err != nil {
			return "", fmt.Errorf("render: %w", err)
		}
		if real, err = filepath.Abs(real); err != nil {
			return "", fmt.Errorf("render: %w", err)
		}
		if _, ok := f.kustomization(real); !ok {
			return "", fmt.Errorf("render %s: it holds no kustomization.yaml; ffpod init %s writes one", dirOrName, dirOrName)
		}
		return real, nil
	case !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("render: %w", err)
	}
	for _, dir := range []string{"overlays/" + dirOrName, dirOrName} {
		if dir := filepath.Join(virtual, filepath.FromSlash(dir)); filepath.IsLocal(dirOrName) && f.IsDir(dir) {
			if _, ok := f.kustomization(dir); ok {
				return dir, nil
			}
		}
	}
	return "", fmt.Errorf("render %s: neither a directory nor an embedded overlay; there are %s", dirOrName, strings.Join(Overlays(), ", "))
}

// Overlays are the embedded ones.
func Overlays() []string {
	entries, err := tree.ReadDir("overlays")
	if err != nil {
		panic(err) // it is embedded
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// plain takes out of an error of kustomize what helps nobody: its own repetitions
// and where the embedded tree seems to be.
func plain(err error) string {
	text := strings.ReplaceAll(err.Error(), virtual, "kustomize")
	for _, noise := range []string{"accumulating components: ", "accumulating resources: ", "accumulateDirectory: ", "recursed accumulation of path "} {
		text = strings.ReplaceAll(text, noise, "")
	}
	return strings.Join(strings.Fields(text), " ")
}

var _ filesys.FileSystem = filesystem{}
