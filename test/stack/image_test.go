package stack_test

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
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// makeImage puts the simulated server onto the worker's image, under the name and
// the paths of Jellyfin's own, and returns the archive.
func makeImage(ctx context.Context, root, dir, image string) (string, error) {
	program := filepath.Join(dir, "jellyfin")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./test/jellyfin/simulator")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the simulator: %w: %s", err, out)
	}
	layer, err := layerOf(program)
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
	config, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	config = config.DeepCopy()
	config.Config.Entrypoint, config.Config.Cmd = []string{"/jellyfin/jellyfin"}, nil
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return "", err
	}
	tag, err := name.NewTag(image)
	if err != nil {
		return "", err
	}
	archive := filepath.Join(dir, "jellyfin.tar")
	return archive, tarball.WriteToFile(archive, tag, img)
}

// layerOf is the server under its two names, and ffmpeg where Jellyfin's is.
func layerOf(program string) ([]byte, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
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
	put(tar.Header{Typeflag: tar.TypeReg, Name: "jellyfin/jellyfin", Mode: 0o755}, content)
	put(tar.Header{Typeflag: tar.TypeLink, Name: "jellyfin/simulator", Linkname: "jellyfin/jellyfin", Mode: 0o755}, nil)
	for _, program := range []string{"ffmpeg", "ffprobe"} {
		put(tar.Header{Typeflag: tar.TypeSymlink, Name: "usr/lib/jellyfin-ffmpeg/" + program, Linkname: "/usr/bin/" + program}, nil)
	}
	return layer.Bytes(), errors.Join(append(all, w.Close())...)
}
