// Package image makes the image of the simulated server, under the names and the
// paths of Jellyfin's own, for clusters where none can be pulled.
package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Jellyfin and Postgres are the images of kustomize/jellyfin and of the component
// jellyfin-postgres.
const (
	Jellyfin = "docker.io/jellyfin/jellyfin:10.11.11"
	Postgres = "ghcr.io/jpvenson/jellyfin.pgsql:10.11.11-1"
)

// entrypoint does to the settings what the image Postgres does at each start: the
// connection, with its password, into database.xml. The server uses no database.
const entrypoint = `#!/bin/bash
set -eu
: "${POSTGRES_HOST:?}" "${POSTGRES_PASSWORD:?}"
mkdir -p /config/config
cat >/config/config/database.xml <<XML
<?xml version="1.0" encoding="utf-8"?>
<DatabaseConfigurationOptions>
  <DatabaseType>PLUGIN_PROVIDER</DatabaseType>
  <CustomProviderOptions>
    <PluginAssembly>Jellyfin.Plugin.Pgsql.dll</PluginAssembly>
    <PluginName>PostgreSQL</PluginName>
    <ConnectionString>Host=$POSTGRES_HOST;Port=$POSTGRES_PORT;Database=$POSTGRES_DB;Username=$POSTGRES_USER;Password=$POSTGRES_PASSWORD</ConnectionString>
  </CustomProviderOptions>
  <LockingBehavior>NoLock</LockingBehavior>
</DatabaseConfigurationOptions>
XML
exec /jellyfin/jellyfin "$@"
`

// Make puts the simulated server onto the worker's image, which `make images` has
// made, and returns the archive, in dir. Programs are further ones to build: from
// the name in /jellyfin to the package.
func Make(ctx context.Context, root, dir, ref string, programs map[string]string) (string, error) {
	layer, err := layerOf(ctx, root, dir, programs)
	if err != nil {
		return "", err
	}
	base, err := tarball.ImageFromPath(filepath.Join(root, "out", "images", "worker.tar"), nil)
	if err != nil {
		return "", fmt.Errorf("%w; run `make images`", err)
	}
	added, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	if err != nil {
		return "", err
	}
	img, err := mutate.AppendLayers(base, added)
	if err != nil {
		return "", err
	}
	if img, err = begins(img, "/jellyfin/jellyfin"); err != nil {
		return "", err
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return "", err
	}
	archive := filepath.Join(dir, filepath.Base(tag.RepositoryStr())+".tar")
	return archive, tarball.WriteToFile(archive, tag, img)
}

func begins(img v1.Image, program string) (v1.Image, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Config.Entrypoint, config.Config.Cmd = []string{program}, nil
	return mutate.ConfigFile(img, config)
}

// layerOf is the server under its two names, the other programs, and ffmpeg where
// Jellyfin's is.
func layerOf(ctx context.Context, root, dir string, programs map[string]string) ([]byte, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	var all []error
	put := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		all = append(all, w.WriteHeader(&h))
		_, err := w.Write(content)
		all = append(all, err)
	}
	for _, dir := range []string{"jellyfin/", "usr/lib/jellyfin-ffmpeg/"} {
		put(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	server, err := compile(ctx, root, dir, "./test/jellyfin/simulator")
	if err != nil {
		return nil, err
	}
	put(tar.Header{Typeflag: tar.TypeReg, Name: "jellyfin/jellyfin", Mode: 0o755}, server)
	put(tar.Header{Typeflag: tar.TypeLink, Name: "jellyfin/simulator", Linkname: "jellyfin/jellyfin", Mode: 0o755}, nil)
	for name, source := range programs {
		program, err := compile(ctx, root, dir, source)
		if err != nil {
			return nil, err
		}
		put(tar.Header{Typeflag: tar.TypeReg, Name: "jellyfin/" + name, Mode: 0o755}, program)
	}
	put(tar.Header{Typeflag: tar.TypeReg, Name: "entrypoint.sh", Mode: 0o755}, []byte(entrypoint))
	for _, program := range []string{"ffmpeg", "ffprobe"} {
		put(tar.Header{Typeflag: tar.TypeSymlink, Name: "usr/lib/jellyfin-ffmpeg/" + program, Linkname: "/usr/bin/" + program}, nil)
	}
	return layer.Bytes(), errors.Join(append(all, w.Close())...)
}

func compile(ctx context.Context, root, dir, source string) ([]byte, error) {
	program := filepath.Join(dir, filepath.Base(source))
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, source)
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %s", source, err, out)
	}
	return os.ReadFile(program)
}
