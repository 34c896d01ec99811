package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const sums = "SHA256SUMS"

// pinned is a reference of the bundle.
var pinned = regexp.MustCompile(`image: ` + home + `(\w+):[\w.-]+@(sha256:[0-9a-f]{64})$`)

// files are all of a release but its checksums and what signs them.
func files(dir string) ([]string, error) {
	var all []string
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err == nil && !strings.HasPrefix(name, sums) {
			all = append(all, filepath.ToSlash(name))
		}
		return err
	})
	slices.Sort(all)
	return all, err
}

func sumOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeSums writes what `sha256sum -c` reads.
func writeSums(dir string) error {
	all, err := files(dir)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, file := range all {
		sum, err := sumOf(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", sum, file)
	}
	return os.WriteFile(filepath.Join(dir, sums), []byte(b.String()), 0o644)
}

// check proves of a release on disk that every file is as SHA256SUMS says and none
// is missing there, that the images are whole, and that images.txt and the
// manifests name exactly them.
func check(dir string, stdout io.Writer) error {
	if err := checkSums(dir); err != nil {
		return err
	}
	refs, err := references(dir)
	if err != nil {
		return err
	}
	root, manifest, err := openLayout(dir)
	if err != nil {
		return err
	}
	known := map[string]v1.Hash{}
	for _, d := range manifest.Manifests {
		full, ok := d.Annotations[referenceName]
		if !ok {
			continue // an SBOM; validate reads it below
		}
		repository, _, _ := strings.Cut(strings.TrimPrefix(full, fullHome), ":")
		known[repository] = d.Digest
	}
	for _, ref := range refs {
		repository := strings.TrimPrefix(ref.Context().Name(), canonical)
		if known[repository].String() != ref.DigestStr() {
			return fmt.Errorf("images.txt: %s; the layout has %s", ref, known[repository])
		}
	}
	if len(known) != len(refs) {
		return fmt.Errorf("images.txt: %d images; the layout has %d", len(refs), len(known))
	}
	if err := validate.Index(root); err != nil {
		return fmt.Errorf("OCI layout: %w", err)
	}
	if err := checkManifests(dir, known); err != nil {
		return err
	}
	for _, ref := range refs {
		fmt.Fprintln(stdout, ref)
	}
	return nil
}

// canonical is how go-containerregistry writes fullHome.
const canonical = "index.docker.io/ffpod/"

// references are the images of a release, in images.txt.
func references(dir string) ([]name.Digest, error) {
	text, err := os.ReadFile(filepath.Join(dir, "images.txt"))
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", dir, err)
	}
	var refs []name.Digest
	for _, line := range strings.Fields(string(text)) {
		ref, err := name.NewDigest(line)
		if err != nil || !strings.HasPrefix(ref.Context().Name(), canonical) {
			return nil, fmt.Errorf("images.txt: %s: want %sNAME@sha256:…", line, fullHome)
		}
		refs = append(refs, ref)
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("%s: empty", filepath.Join(dir, "images.txt"))
	}
	return refs, nil
}

func checkSums(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, sums))
	if err != nil {
		return fmt.Errorf("release %s: %w", dir, err)
	}
	want := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		sum, file, ok := strings.Cut(line, "  ")
		if !ok {
			return fmt.Errorf("%s: %q: want SUM  FILE", sums, line)
		}
		want[file] = sum
	}
	all, err := files(dir)
	if err != nil {
		return err
	}
	for _, file := range all {
		sum, err := sumOf(filepath.Join(dir, file))
		switch {
		case err != nil:
			return err
		case want[file] == "":
			return fmt.Errorf("%s: not in %s", file, sums)
		case want[file] != sum:
			return fmt.Errorf("%s: SHA-256 is %s, %s says %s", file, sum, sums, want[file])
		}
		if digest, ok := strings.CutPrefix(file, "oci/blobs/sha256/"); ok && digest != sum {
			return fmt.Errorf("OCI layout: %s: SHA-256 is %s", file, sum)
		}
		delete(want, file)
	}
	for _, file := range sortedKeys(want) {
		return fmt.Errorf("%s: missing; %s lists it", file, sums)
	}
	return nil
}

// checkManifests reads every reference in the bundle.
func checkManifests(dir string, known map[string]v1.Hash) error {
	bundles, err := filepath.Glob(filepath.Join(dir, "ffpod-*-kustomize.tar.gz"))
	if err != nil || len(bundles) != 1 {
		return errors.Join(err, fmt.Errorf("release %s: %d bundles of manifests, want one", dir, len(bundles)))
	}
	seen := map[string]bool{}
	err = untar(bundles[0], func(file string, body []byte) error {
		for _, line := range bytes.Split(body, []byte("\n")) {
			m := pinned.FindSubmatch(line)
			if m == nil {
				continue
			}
			repository := string(m[1])
			seen[repository] = true
			if known[repository].String() != string(m[2]) {
				return fmt.Errorf("%s: %s; the layout has %s", file, bytes.TrimSpace(line), known[repository])
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", bundles[0], err)
	}
	for _, repository := range sortedKeys(known) {
		if !seen[repository] {
			return fmt.Errorf("%s: no manifest names %s%s by digest", bundles[0], home, repository)
		}
	}
	return nil
}

func untar(file string, visit func(name string, body []byte) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		if err := visit(h.Name, body); err != nil {
			return err
		}
	}
}

// openLayout reads a release's images: the layout's index, and what that lists.
func openLayout(dir string) (v1.ImageIndex, *v1.IndexManifest, error) {
	root, err := layout.ImageIndexFromPath(filepath.Join(dir, "oci"))
	if err != nil {
		return nil, nil, fmt.Errorf("OCI layout: %w", err)
	}
	manifest, err := root.IndexManifest()
	if err != nil {
		return nil, nil, fmt.Errorf("OCI layout: %w", err)
	}
	return root, manifest, nil
}
