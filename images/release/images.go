package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	referenceName  = "org.opencontainers.image.ref.name"
	containerdName = "io.containerd.image.name"
	sbomType       = "application/vnd.cyclonedx+json"
)

// image is one of a platform, as images/build made it.
type image struct {
	name, goarch string
	img          v1.Image
	contents     *contents
}

// load reads images/build's archives and refuses what is no part of the release.
func load(archives []string, version string) ([]image, error) {
	var all []image
	for _, file := range archives {
		manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
		if err != nil {
			return nil, fmt.Errorf("archive %s: %w", file, err)
		}
		if len(manifest) != 1 {
			return nil, fmt.Errorf("archive %s: it holds %d images, want one", file, len(manifest))
		}
		slices.Sort(manifest[0].RepoTags) // they come in any order
		i := image{}
		for _, name := range images {
			if slices.Contains(manifest[0].RepoTags, home+name+":"+version) {
				i.name = name
			}
		}
		if i.name == "" {
			return nil, fmt.Errorf("archive %s: it is %s, want one of %s; make it with images/build -tag %s -version %s of the same commit",
				file, strings.Join(manifest[0].RepoTags, ", "), home+strings.Join(images, " or "+home)+" at "+version, version, version)
		}
		if i.img, err = tarball.ImageFromPath(file, nil); err != nil {
			return nil, fmt.Errorf("archive %s: %w", file, err)
		}
		config, err := i.img.ConfigFile()
		if err != nil {
			return nil, fmt.Errorf("archive %s: %w", file, err)
		}
		if i.goarch = config.Architecture; config.OS != "linux" || !slices.Contains(platforms, i.goarch) {
			return nil, fmt.Errorf("archive %s: it is for %s/%s, want linux and %s", file, config.OS, config.Architecture, strings.Join(platforms, " or "))
		}
		if slices.ContainsFunc(all, func(o image) bool { return o.name == i.name && o.goarch == i.goarch }) {
			return nil, fmt.Errorf("archive %s: %s for linux/%s is given twice", file, i.name, i.goarch)
		}
		if i.contents, err = scan(i.img); err != nil {
			return nil, fmt.Errorf("archive %s: %w", file, err)
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b image) int {
		return strings.Compare(a.name+"/"+a.goarch, b.name+"/"+b.goarch)
	})
	for _, goarch := range platforms {
		if !slices.ContainsFunc(all, func(i image) bool { return i.name == "ffpod" && i.goarch == goarch }) {
			return nil, fmt.Errorf("image ffpod for linux/%s: no archive holds it", goarch)
		}
	}
	return all, nil
}

// published is an image under one of its names.
type published struct {
	name      string
	digest    v1.Hash // of the index
	platforms []string
}

// writeImages writes the layout, the archives for nodes, the SBOMs, the command
// line tool and images.txt.
func (r *release) writeImages(out string, all []image) ([]published, error) {
	to, err := layout.Write(filepath.Join(out, "oci"), empty.Index)
	if err != nil {
		return nil, fmt.Errorf("write OCI layout: %w", err)
	}
	var done []published
	parts := map[string][]v1.Descriptor{} // by platform, the top of its archive
	for _, name := range images {
		index := mutate.Annotations(empty.Index, r.annotations()).(v1.ImageIndex)
		var here []string
		var sboms []v1.Image
		for _, i := range all {
			if i.name != name {
				continue
			}
			img, err := r.compress(i)
			if err != nil {
				return nil, fmt.Errorf("image %s for %s: %w", name, i.goarch, err)
			}
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
				Platform: &v1.Platform{OS: "linux", Architecture: i.goarch}}})
			here = append(here, "linux/"+i.goarch)
			r.say("  %s for linux/%s: its parts", name, i.goarch)
			sbom, err := r.sbom(out, i, img)
			if err != nil {
				return nil, fmt.Errorf("describe %s for %s: %w", name, i.goarch, err)
			}
			sboms = append(sboms, sbom)
			if name == "ffpod" {
				tool, ok := i.contents.programs["ffpod/ffpod"]
				if !ok {
					return nil, fmt.Errorf("image ffpod for %s: it holds no /ffpod/ffpod", i.goarch)
				}
				if err := os.WriteFile(filepath.Join(out, "ffpod-"+r.version+"-linux-"+i.goarch), tool.body, 0o755); err != nil {
					return nil, err
				}
			}
		}
		if len(here) == 0 {
			return nil, fmt.Errorf("image %s: no archive holds it", name)
		}
		r.say("  %s: compressing", name)
		digest, err := index.Digest()
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		for _, n := range names[name] {
			if err := to.AppendIndex(index, layout.WithAnnotations(named(fullHome+n+":"+r.version))); err != nil {
				return nil, fmt.Errorf("write image %s: %w", n, err)
			}
			done = append(done, published{n, digest, here})
		}
		for _, sbom := range sboms {
			if err := to.AppendImage(sbom); err != nil {
				return nil, fmt.Errorf("write SBOM of %s: %w", name, err)
			}
		}
		top, err := partial.Descriptor(index)
		if err != nil {
			return nil, err
		}
		for _, platform := range here {
			for _, n := range names[name] {
				// By tag and by digest: a runtime looks for what the manifests say.
				for _, full := range []string{fullHome + n + ":" + r.version, fullHome + n + "@" + digest.String()} {
					d := *top
					d.Annotations = named(full)
					parts[platform] = append(parts[platform], d)
				}
			}
		}
	}
	for _, platform := range sortedKeys(parts) {
		file := filepath.Join(out, "ffpod-"+r.version+"-images-"+strings.ReplaceAll(platform, "/", "-")+".tar")
		if err := writeArchive(file, to, parts[platform], platform); err != nil {
			return nil, fmt.Errorf("write %s: %w", file, err)
		}
	}
	var list strings.Builder
	for _, p := range done {
		fmt.Fprintf(&list, "%s%s@%s\n", fullHome, p.name, p.digest)
	}
	return done, os.WriteFile(filepath.Join(out, "images.txt"), []byte(list.String()), 0o644)
}

func named(full string) map[string]string {
	return map[string]string{referenceName: full, containerdName: full}
}

// annotations are what registries show of an image.
func (r *release) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.created":  r.created.Format(time.RFC3339),
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.revision": r.revision,
		"org.opencontainers.image.source":   source,
		"org.opencontainers.image.vendor":   "ffpod",
		"org.opencontainers.image.version":  r.version,
	}
}

// compress makes of an archive's image, whose layers are plain and Docker's, what a
// registry wants: gzip, OCI's types. Go's gzip of equal content is equal.
func (r *release) compress(i image) (v1.Image, error) {
	config, err := i.img.ConfigFile()
	if err != nil {
		return nil, err
	}
	layers, err := i.img.Layers()
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range layers {
		small, err := tarball.LayerFromOpener(l.Uncompressed, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.DefaultCompression))
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, small); err != nil {
			return nil, err
		}
	}
	made, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	made = made.DeepCopy()
	made.OS, made.Architecture, made.Config = config.OS, config.Architecture, config.Config
	made.Created = v1.Time{Time: r.created}
	if img, err = mutate.ConfigFile(img, made); err != nil {
		return nil, err
	}
	return mutate.Annotations(img, r.annotations()).(v1.Image), nil
}

// referrer is a document about an image, for a registry to keep beside it.
func referrer(subject v1.Image, body []byte, annotations map[string]string) (v1.Image, error) {
	about, err := partial.Descriptor(subject)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), sbomType)
	if img, err = mutate.AppendLayers(img, static.NewLayer(body, sbomType)); err != nil {
		return nil, err
	}
	img = mutate.Annotations(img, annotations).(v1.Image)
	return mutate.Subject(img, v1.Descriptor{MediaType: about.MediaType, Size: about.Size, Digest: about.Digest}).(v1.Image), nil
}

// writeArchive writes what a node of one platform needs of the layout as an OCI
// archive: the whole indexes, for their digests, and of their manifests only the
// platform's. containerd skips the others.
func writeArchive(file string, from layout.Path, top []v1.Descriptor, platform string) error {
	blobs := map[v1.Hash]bool{}
	for _, d := range top {
		if blobs[d.Digest] {
			continue
		}
		blobs[d.Digest] = true
		root, err := from.ImageIndex()
		if err != nil {
			return err
		}
		index, err := root.ImageIndex(d.Digest)
		if err != nil {
			return err
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			return err
		}
		for _, m := range manifest.Manifests {
			if m.Platform.String() != platform {
				continue
			}
			img, err := index.Image(m.Digest)
			if err != nil {
				return err
			}
			inner, err := img.Manifest()
			if err != nil {
				return err
			}
			blobs[m.Digest], blobs[inner.Config.Digest] = true, true
			for _, l := range inner.Layers {
				blobs[l.Digest] = true
			}
		}
	}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: top})
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(f)
	err = errors.Join(add(tw, "oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)), add(tw, "index.json", 0o644, index))
	for _, h := range sortedHashes(blobs) {
		err = errors.Join(err, addBlob(tw, from, h))
	}
	return errors.Join(err, tw.Close(), f.Close())
}

func addBlob(tw *tar.Writer, from layout.Path, h v1.Hash) error {
	f, err := os.Open(filepath.Join(string(from), "blobs", h.Algorithm, h.Hex))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(header(path.Join("blobs", h.Algorithm, h.Hex), 0o644, info.Size())); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

func add(tw *tar.Writer, name string, mode fs.FileMode, body []byte) error {
	if err := tw.WriteHeader(header(name, mode, int64(len(body)))); err != nil {
		return err
	}
	_, err := tw.Write(body)
	return err
}

// header depends on no clock and no user.
func header(name string, mode fs.FileMode, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode.Perm()), Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

func sortedHashes(set map[v1.Hash]bool) []v1.Hash {
	all := make([]v1.Hash, 0, len(set))
	for h := range set {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b v1.Hash) int { return strings.Compare(a.Hex, b.Hex) })
	return all
}
