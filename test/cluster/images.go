package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// ctr is a containerd client's command line inside the node.
func (c *cluster) ctr(n node, args ...string) []string {
	return n.enter(append([]string{c.bin.path("ctr"), "--namespace=k8s.io"}, args...)...)
}

// load imports archives into every node's containerd. An archive whose content
// a node has imported already, and whose images are all still there, is skipped.
func (c *cluster) load(ctx context.Context, archives ...string) error {
	for _, archive := range archives {
		for _, n := range c.nodes() {
			began := time.Now()
			imported, err := c.loadOne(ctx, n, archive)
			if err != nil {
				return fmt.Errorf("load %s into %s: %w", archive, n.name, err)
			}
			what := "has it already"
			if imported {
				what = "imported"
			}
			fmt.Printf("  %s: %s %s in %.1fs\n", filepath.Base(archive), n.name, what, time.Since(began).Seconds())
		}
	}
	return nil
}

// loadOne reports whether it had to import. What an import brought is noted as
// "NAME DIGEST" lines under the archive's key, to be compared the next time.
func (c *cluster) loadOne(ctx context.Context, n node, archive string) (bool, error) {
	key, names, err := inspect(archive)
	if err != nil {
		return false, err
	}
	note := filepath.Join(n.dir(), "images", key)
	present, err := c.images(ctx, n)
	if err != nil {
		return false, err
	}
	if known, err := os.ReadFile(note); err == nil && containsAll(present, string(known)) {
		return false, nil
	}
	path, err := filepath.Abs(archive)
	if err != nil {
		return false, err
	}
	if _, err := run(ctx, c.ctr(n, "images", "import", path)...); err != nil {
		return false, err
	}
	if present, err = c.images(ctx, n); err != nil {
		return false, err
	}
	var lines strings.Builder
	for _, name := range names {
		if present[name] == "" {
			return false, fmt.Errorf("containerd took the archive but has no image %s", name)
		}
		fmt.Fprintln(&lines, name, present[name])
	}
	if err := os.MkdirAll(filepath.Dir(note), 0o755); err != nil {
		return false, err
	}
	return true, os.WriteFile(note, []byte(lines.String()), 0o644)
}

// images maps the names of a node's images to their digests.
func (c *cluster) images(ctx context.Context, n node) (map[string]string, error) {
	out, err := run(ctx, c.ctr(n, "images", "list")...)
	if err != nil {
		return nil, err
	}
	present := map[string]string{}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 2 && strings.Contains(fields[2], ":") {
			present[fields[0]] = fields[2]
		}
	}
	return present, nil
}

// containsAll reports whether every noted image is present; an empty note
// proves nothing.
func containsAll(present map[string]string, note string) bool {
	for line := range strings.Lines(note) {
		name, digest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if present[name] != digest {
			return false
		}
	}
	return note != ""
}

// inspect identifies what an archive contains without reading its layers: the
// manifest names the images, and each configuration lists the digests of all
// layers. It also returns the images' full names.
func inspect(path string) (key string, names []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	hash := sha256.New()
	var manifest []struct{ RepoTags []string }
	for archive := tar.NewReader(f); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", nil, fmt.Errorf("not a docker-archive: %w", err)
		}
		// Manifests and configurations are JSON and never large; layers are
		// neither.
		if header.Typeflag != tar.TypeReg || header.Size > 1<<20 {
			continue
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			return "", nil, err
		}
		if !json.Valid(data) {
			continue
		}
		fmt.Fprintln(hash, header.Name, len(data))
		hash.Write(data)
		if header.Name == "manifest.json" {
			if err := json.Unmarshal(data, &manifest); err != nil {
				return "", nil, fmt.Errorf("manifest.json: %w", err)
			}
		}
	}
	for _, image := range manifest {
		for _, tag := range image.RepoTags {
			names = append(names, fullName(tag))
		}
	}
	if names == nil {
		return "", nil, errors.New("not a docker-archive with a named image: manifest.json has no RepoTags")
	}
	return fmt.Sprintf("%x", hash.Sum(nil)[:16]), names, nil
}

// fullName is an image's name as containerd keeps it. A first component is a
// host when it looks like one.
func fullName(tag string) string {
	host, _, hasSlash := strings.Cut(tag, "/")
	switch {
	case !hasSlash:
		return "docker.io/library/" + tag
	case strings.ContainsAny(host, ".:") || host == "localhost":
		return tag
	}
	return "docker.io/" + tag
}

// writePauseArchive makes a docker-archive of one static program: an image is
// a configuration, a layer and a manifest naming both.
func writePauseArchive(program, path string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	layer, err := archiveOf(map[string][]byte{"pause": data}, "pause")
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/pause"}, "User": "65535:65535"},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": "config.json", "RepoTags": []string{pauseImage}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return err
	}
	image, err := archiveOf(map[string][]byte{"config.json": config, "layer.tar": layer, "manifest.json": manifest},
		"config.json", "layer.tar", "manifest.json")
	if err != nil {
		return err
	}
	return os.WriteFile(path, image, fs.FileMode(0o644))
}

// archiveOf packs files in the order given, with nothing in it that differs
// between two builds.
func archiveOf(files map[string][]byte, order ...string) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	for _, name := range order {
		header := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name]))}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(files[name]); err != nil {
			return nil, err
		}
	}
	err := archive.Close()
	return buffer.Bytes(), err
}
