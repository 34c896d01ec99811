// Package kustomize is the manifests of this directory, carried inside a binary,
// and renders them and what is built on them in process: without git, without the
// network, without a kustomize installed.
package kustomize

import (
	"embed"
	"io/fs"
)

// tree is all that a kustomization of this directory reads. What has a name in
// the root is listed here; a test compares with the disk.
//
//go:embed base classes cluster components jellyfin overlays
var tree embed.FS

// Tree is the embedded manifests, as below kustomize/ in the repository.
func Tree() fs.FS { return tree }
