// Package manifests renders the kustomizations of this repository in process,
// and proves of what they render that it holds together. It asks
// kustomize itself; package kustomize, which the CLI uses, is compared with it.
package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Root is the repository's directory on this machine, found from this file.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Render builds the kustomization in the directory, given relative to the
// repository, and returns its objects in the order in which kubectl would apply
// them.
func Render(dir string) ([]*unstructured.Unstructured, error) {
	objects, _, err := render(filepath.Join(Root(), dir))
	return objects, err
}

// RenderText builds a kustomization given as text, in which ROOT stands for the
// repository.
func RenderText(kustomization string) ([]*unstructured.Unstructured, error) {
	// Resources must be named by relative paths.
	dir, err := os.MkdirTemp("", "kustomization-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	root, err := filepath.Rel(dir, Root())
	if err != nil {
		return nil, err
	}
	text := strings.ReplaceAll(kustomization, "ROOT", root)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	objects, _, err := render(dir)
	return objects, err
}

func render(dir string) ([]*unstructured.Unstructured, []byte, error) {
	return build(filesys.MakeFsOnDisk(), dir)
}

func build(files filesys.FileSystem, dir string) ([]*unstructured.Unstructured, []byte, error) {
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy
	resources, err := krusty.MakeKustomizer(options).Run(files, dir)
	if err != nil {
		return nil, nil, fmt.Errorf("render %s: %w", dir, err)
	}
	text, err := resources.AsYaml()
	if err != nil {
		return nil, nil, fmt.Errorf("render %s: %w", dir, err)
	}
	var objects []*unstructured.Unstructured
	for _, r := range resources.Resources() {
		object, err := r.Map()
		if err != nil {
			return nil, nil, fmt.Errorf("render %s: %s: %w", dir, r.CurId(), err)
		}
		objects = append(objects, &unstructured.Unstructured{Object: object})
	}
	return objects, text, nil
}
