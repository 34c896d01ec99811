package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/ffpod/ffpod/kustomize"
)

const version = "v1.2.3"

// shim is a small program with a module in it, of this repository's versions: its
// build information is real.
var shim = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "release-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	main := filepath.Join(dir, "main.go")
	if err := os.WriteFile(main, []byte("package main\n\nimport \"github.com/package-url/packageurl-go\"\n\nfunc main() { println(packageurl.TypeGolang) }\n"), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", filepath.Join(dir, "ffmpeg"), main)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "ffmpeg"))
})

// archive writes an image as images/build does: a docker-archive, plain layers.
func archive(t *testing.T, dir, image, goarch, tag string, more map[string]string) string {
	t.Helper()
	body, err := shim()
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string]string{"ffpod/" + map[string]string{"ffpod": "ffpod", "worker": "worker"}[image]: string(body)}
	maps.Copy(contents, more)
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	for _, name := range sortedKeys(contents) {
		if err := add(tw, name, 0o755, []byte(contents[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.ConfigFile(img, config(t, img, goarch)); err != nil {
		t.Fatal(err)
	}
	refs := map[name.Reference]v1.Image{}
	for _, n := range names[image] {
		refs[reference(t, home+n+":"+tag)] = img
	}
	file := filepath.Join(dir, image+"-"+goarch+".tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tarball.MultiRefWrite(refs, f), f.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

func reference(t *testing.T, text string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func config(t *testing.T, img v1.Image, goarch string) *v1.ConfigFile {
	t.Helper()
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", goarch
	file.Config = v1.Config{User: "1000:1000", Entrypoint: []string{"/ffpod/ffpod"}}
	return file
}

var debian = map[string]string{
	"usr/lib/os-release":           "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
	"var/lib/dpkg/status.d/libc6":  "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\nVersion: 2.36-9+deb12u10\n",
	"var/lib/dpkg/status.d/ffmpeg": "Package: ffmpeg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 7:5.1.6-0+deb12u1\nHomepage: https://ffmpeg.org/\n",
}

func archives(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	return []string{archive(t, dir, "ffpod", "amd64", version, nil), archive(t, dir, "ffpod", "arm64", version, nil),
		archive(t, dir, "worker", "amd64", version, debian)}
}

// workTree is a commit, tagged, of this repository's manifests, prepared.
func workTree(t *testing.T) string {
	t.Helper()
	work := t.TempDir()
	if err := os.CopyFS(filepath.Join(work, "kustomize"), os.DirFS("../../kustomize")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(work, "LICENSE"), "Apache-2.0\n")
	put(t, filepath.Join(work, "CHANGELOG.md"), "# Changelog\n\n## Unreleased\n\nLater.\n\n## v1.2.3 - 2026-11-23\n\n### Added\n- This.\n\n## v1.2.2\n\nBefore.\n")
	if err := prepare(work, version, io.Discard); err != nil {
		t.Fatal(err)
	}
	gitRun(t, work, "init", "-q")
	commit(t, work)
	gitRun(t, work, "tag", version)
	return work
}

func commit(t *testing.T, work string) {
	t.Helper()
	gitRun(t, work, "add", "-A")
	gitRun(t, work, "commit", "-qm", "release", "--date=2026-01-02T03:04:05Z")
}

func gitRun(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z", "GIT_CONFIG_GLOBAL=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func assemble(t *testing.T, work string, archives []string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), version)
	r := &release{work: work, out: out, version: version, offline: true, stdout: t.Output()}
	if err := errors.Join(r.inspect(t.Context()), r.assemble(t.Context(), archives)); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRelease(t *testing.T) {
	work := workTree(t)
	out := assemble(t, work, archives(t))

	t.Run("the same again", func(t *testing.T) {
		again := assemble(t, work, archives(t))
		if diff := cmp.Diff(read(t, filepath.Join(out, sums)), read(t, filepath.Join(again, sums))); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
	t.Run("checksums for sha256sum", func(t *testing.T) {
		cmd := exec.Command("sha256sum", "--check", "--strict", "--quiet", sums)
		cmd.Dir = out
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, text)
		}
	})
	t.Run("one image under two names, both platforms", func(t *testing.T) {
		refs, err := references(out)
		if err != nil {
			t.Fatal(err)
		}
		if len(refs) != 3 || refs[0].DigestStr() != refs[1].DigestStr() || refs[0].DigestStr() == refs[2].DigestStr() {
			t.Errorf("images.txt: %v", refs)
		}
	})
	t.Run("the tool", func(t *testing.T) {
		body, _ := shim()
		if read(t, filepath.Join(out, "ffpod-v1.2.3-linux-arm64")) != string(body) {
			t.Error("is not the image's")
		}
	})
	t.Run("the notes", func(t *testing.T) {
		notes := read(t, filepath.Join(out, "NOTES.md"))
		for _, want := range []string{"- This.", "| linux/amd64, linux/arm64 |", "`ffpod/worker` is not there for linux/arm64", "Not checked for vulnerabilities"} {
			if !strings.Contains(notes, want) {
				t.Errorf("lack %q:\n%s", want, notes)
			}
		}
		if strings.Contains(notes, "Before.") || strings.Contains(notes, "Later.") {
			t.Errorf("tell of another release:\n%s", notes)
		}
	})
	t.Run("the manifests", func(t *testing.T) { checkRendered(t, out) })
	t.Run("the SBOM", func(t *testing.T) { checkSBOM(t, filepath.Join(out, "worker-v1.2.3-linux-amd64.cdx.json")) })
	t.Run("the archive of a platform", func(t *testing.T) { checkArchive(t, out) })
}

// checkRendered unpacks the bundle as a user does and renders it, plainly and with
// the images of a registry of one's own.
func checkRendered(t *testing.T, out string) {
	t.Helper()
	dir := t.TempDir()
	err := untar(filepath.Join(out, "ffpod-v1.2.3-kustomize.tar.gz"), func(file string, body []byte) error {
		put(t, filepath.Join(dir, file), string(body))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "ffpod-v1.2.3/kustomize")
	mirror := filepath.Join(tree, "overlays/mirrored")
	put(t, filepath.Join(mirror, "kustomization.yaml"), `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../minimal]
images:
  - {name: ffpod/ffpod, newName: registry.example.org/media/ffpod}
  - {name: ffpod/shim, newName: registry.example.org/media/ffpod}
`)
	digest := strings.TrimSpace(strings.SplitN(strings.SplitN(read(t, filepath.Join(out, "images.txt")), "\n", 2)[0], "@", 2)[1])
	for overlay, prefix := range map[string]string{"overlays/minimal": "ffpod/", "overlays/mirrored": "registry.example.org/media/"} {
		all, err := kustomize.Render(filepath.Join(tree, overlay), version)
		if err != nil {
			t.Fatal(err)
		}
		text, err := all.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, m := range regexp.MustCompile(`image: (\S*ffpod\S*|\S*shim\S*)\n`).FindAllStringSubmatch(string(text), -1) {
			found++
			if !strings.HasPrefix(m[1], prefix) || !strings.HasSuffix(m[1], "@"+digest) {
				t.Errorf("%s: %s; want %s…@%s", overlay, m[1], prefix, digest)
			}
		}
		if found < 4 { // the scheduler, two of Jellyfin's pod, the workers'
			t.Errorf("%s: %d images of ffpod", overlay, found)
		}
	}
}

func checkSBOM(t *testing.T, file string) {
	t.Helper()
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(strings.NewReader(read(t, file)), cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	purls, refs := map[string]bool{}, map[string]bool{bom.Metadata.Component.BOMRef: true}
	for _, c := range *bom.Components {
		purls[c.PackageURL], refs[c.BOMRef] = true, true
	}
	goVersion := strings.TrimPrefix(runtime.Version(), "go")
	goVersion, _, _ = strings.Cut(goVersion, " ")
	for _, want := range []string{
		"pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc",
		"pkg:deb/debian/ffmpeg@7:5.1.6-0%2Bdeb12u1?arch=amd64&distro=debian-12",
		"pkg:golang/stdlib@" + goVersion,
		"pkg:golang/github.com/package-url/packageurl-go@" + moduleVersion(t, "github.com/package-url/packageurl-go"),
	} {
		if !purls[want] {
			t.Errorf("lacks %s; has %v", want, sortedKeys(purls))
		}
	}
	for _, d := range *bom.Dependencies {
		for _, on := range *d.Dependencies {
			if !refs[d.Ref] || !refs[on] {
				t.Errorf("%s depends on %s: one of them is not described", d.Ref, on)
			}
		}
	}
	if bom.SpecVersion != cyclonedx.SpecVersion1_6 || bom.Metadata.Timestamp != "2026-01-02T03:04:05Z" || !strings.Contains(bom.Metadata.Component.PackageURL, "sha256") {
		t.Errorf("says of itself %v %+v", bom.SpecVersion, bom.Metadata.Component)
	}
}

func moduleVersion(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// checkArchive reads the archive as containerd does: names from index.json, blobs
// by digest, of the index only what is for the platform.
func checkArchive(t *testing.T, out string) {
	t.Helper()
	f, err := os.Open(filepath.Join(out, "ffpod-v1.2.3-images-linux-arm64.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs := map[string][]byte{}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if blobs[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
	var top v1.IndexManifest
	if err := json.Unmarshal(blobs["index.json"], &top); err != nil {
		t.Fatal(err)
	}
	digest := top.Manifests[0].Digest
	var got []string
	for _, d := range top.Manifests {
		got = append(got, d.Annotations[containerdName])
	}
	want := []string{"docker.io/ffpod/ffpod:v1.2.3", "docker.io/ffpod/ffpod@" + digest.String(), "docker.io/ffpod/shim:v1.2.3", "docker.io/ffpod/shim@" + digest.String()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	read := func(h v1.Hash, into any) {
		if sum, _, _ := v1.SHA256(bytes.NewReader(blobs["blobs/sha256/"+h.Hex])); sum != h {
			t.Fatalf("blob %s is %s", h, sum)
		}
		if into != nil {
			if err := json.Unmarshal(blobs["blobs/sha256/"+h.Hex], into); err != nil {
				t.Fatal(err)
			}
		}
	}
	var index v1.IndexManifest
	read(digest, &index)
	for _, m := range index.Manifests {
		if m.Platform.Architecture != "arm64" {
			if blobs["blobs/sha256/"+m.Digest.Hex] != nil {
				t.Errorf("holds %s", m.Platform)
			}
			continue
		}
		var img v1.Manifest
		read(m.Digest, &img)
		read(img.Config.Digest, nil)
		for _, l := range img.Layers {
			read(l.Digest, nil)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	out := assemble(t, workTree(t), archives(t))
	first := func(pattern string) string {
		all, err := filepath.Glob(filepath.Join(out, pattern))
		if err != nil || len(all) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		return all[0]
	}
	for name, c := range map[string]struct {
		file   string
		change func(text string) string
		resum  bool // SHA256SUMS is made again, as whoever tampers would
		want   string
	}{
		"a changed file":           {first("NOTES.md"), func(s string) string { return s + "x" }, false, "NOTES.md: SHA-256 is"},
		"a missing file":           {first("images.txt"), nil, false, "images.txt: missing"},
		"a changed blob":           {first("oci/blobs/sha256/*"), func(s string) string { return s + " " }, true, "OCI layout"},
		"other images":             {first("images.txt"), func(s string) string { return strings.Replace(s, "sha256:", "sha256:0123", 1)[:71+22] }, true, "images.txt"},
		"an image that is unnamed": {first("images.txt"), func(s string) string { return s[:strings.Index(s, "\n")+1] }, true, "1 images; the layout has 3"},
	} {
		t.Run(name, func(t *testing.T) {
			before := read(t, c.file)
			sumsBefore := read(t, filepath.Join(out, sums))
			defer put(t, c.file, before)
			defer put(t, filepath.Join(out, sums), sumsBefore)
			if c.change == nil {
				if err := os.Remove(c.file); err != nil {
					t.Fatal(err)
				}
			} else {
				put(t, c.file, c.change(before))
			}
			if c.resum {
				if err := writeSums(out); err != nil {
					t.Fatal(err)
				}
			}
			if err := check(out, io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if err := check(out, io.Discard); err != nil {
		t.Errorf("put back: %v", err)
	}
}

func TestPush(t *testing.T) {
	work := workTree(t)
	out := assemble(t, work, archives(t))
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	to := strings.TrimPrefix(server.URL, "http://") + "/media"
	for range 2 { // the second finds everything there
		if err := push(t.Context(), out, to, t.Output()); err != nil {
			t.Fatal(err)
		}
	}
	refs, err := references(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range refs {
		short := strings.TrimPrefix(ref.Context().Name(), canonical)
		there := reference(t, to+"/"+short+"@"+ref.DigestStr()).(name.Digest)
		index, err := remote.Index(there)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(index); err != nil {
			t.Errorf("%s: %v", there, err)
		}
		tag, err := remote.Head(reference(t, to+"/"+short+":"+version))
		if err != nil || tag.Digest.String() != ref.DigestStr() {
			t.Errorf("tag of %s: %v, %v", short, tag, err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range manifest.Manifests {
			checkReferrer(t, there.Context().Digest(m.Digest.String()))
		}
	}

	t.Run("a tag that is another's", func(t *testing.T) {
		put(t, filepath.Join(work, "CHANGELOG.md"), "## v1.2.3\n\nOther.\n")
		commit(t, work)
		gitRun(t, work, "tag", "-f", version)
		other := assemble(t, work, archives(t))
		err := push(t.Context(), other, to, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "a release does not change") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a registry that refuses", func(t *testing.T) {
		shut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
		defer shut.Close()
		err := push(t.Context(), out, strings.TrimPrefix(shut.URL, "http://"), io.Discard)
		if err == nil || !strings.Contains(err.Error(), "look for ") {
			t.Errorf("got %v", err)
		}
	})
}

// checkReferrer finds the SBOM in the registry, as cosign, oras and scanners do.
func checkReferrer(t *testing.T, of name.Digest) {
	t.Helper()
	all, err := remote.Referrers(of)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := all.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].ArtifactType != sbomType {
		t.Fatalf("%s has referrers %+v; want one SBOM", of, manifest.Manifests)
	}
	img, err := remote.Image(of.Context().Digest(manifest.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%v, %v", layers, err)
	}
	body, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil || !bytes.Contains(text, []byte(`"bomFormat": "CycloneDX"`)) || !bytes.Contains(text, []byte(of.DigestStr()[7:])) {
		t.Errorf("%s: %v: not its SBOM: %.80s", of, err, text)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	amd64, arm64 := archive(t, dir, "ffpod", "amd64", version, nil), archive(t, dir, "ffpod", "arm64", version, nil)
	for name, c := range map[string]struct {
		archives []string
		want     string
	}{
		"another release":      {[]string{archive(t, t.TempDir(), "ffpod", "amd64", "v1.2.2", nil)}, "it is ffpod/ffpod:v1.2.2, ffpod/shim:v1.2.2"},
		"a platform twice":     {[]string{amd64, amd64}, "given twice"},
		"a platform too few":   {[]string{amd64}, "ffpod for linux/arm64: no archive"},
		"a platform too many":  {[]string{archive(t, t.TempDir(), "ffpod", "riscv64", version, nil)}, "linux/riscv64"},
		"unknown programs":     {[]string{archive(t, t.TempDir(), "ffpod", "amd64", version, map[string]string{"ffpod/tool": "#!/bin/sh\n"})}, "/ffpod/tool: "},
		"a system of unknowns": {[]string{arm64, archive(t, t.TempDir(), "worker", "amd64", version, map[string]string{"usr/lib/os-release": "ID=debian\n"})}, "names no package"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load(c.archives, version); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestInspectRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		version string
		change  func(t *testing.T, work string)
		want    string
	}{
		"no version":       {"main", nil, "want a tag such as"},
		"a changed tree":   {version, func(t *testing.T, work string) { put(t, filepath.Join(work, "LICENSE"), "x") }, "not as committed (M LICENSE)"},
		"another tag":      {"v1.2.4", nil, "not tagged v1.2.4"},
		"nothing to tell":  {version, changed("## v1.2.3\n\n## v1.2.2\nx\n"), "section v1.2.3 is empty"},
		"no section":       {version, changed("## Unreleased\n- x\n"), "no section `## v1.2.3`"},
		"a longer version": {version, changed("## v1.2.3-rc.1\n- x\n"), "no section `## v1.2.3`"},
		"a tag not prepared": {version, func(t *testing.T, work string) {
			file := filepath.Join(work, "kustomize/jellyfin/deployment.yaml")
			put(t, file, strings.ReplaceAll(read(t, file), ":v1.2.3", ":dev"))
			commit(t, work)
			gitRun(t, work, "tag", "-f", version)
		}, "kustomize/jellyfin/deployment.yaml: image ffpod/shim has tag dev, want v1.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			work := workTree(t)
			if c.change != nil {
				c.change(t, work)
			}
			out := filepath.Join(t.TempDir(), "out")
			r := &release{work: work, out: out, version: c.version, offline: true, stdout: io.Discard}
			err := r.inspect(t.Context())
			if err == nil {
				err = r.assemble(t.Context(), archives(t))
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if left, _ := filepath.Glob(out + "*"); len(left) > 0 {
				t.Errorf("left %v behind", left)
			}
		})
	}
}

func changed(text string) func(*testing.T, string) {
	return func(t *testing.T, work string) {
		put(t, filepath.Join(work, "CHANGELOG.md"), text)
		commit(t, work)
		gitRun(t, work, "tag", "-f", version)
	}
}

// A database with one entry, about a function that a program calls; govulncheck
// itself is the real one.
func TestGateAsksGo(t *testing.T) {
	work := t.TempDir()
	put(t, filepath.Join(work, "go.mod"), "module example.invalid/tiny\n\ngo 1.26\n")
	for _, c := range commands {
		put(t, filepath.Join(work, c, "main.go"), "package main\n\nimport \"strings\"\n\nfunc main() { println(strings.ToUpper(\"x\")) }\n")
	}
	database := func(t *testing.T, function string) string {
		dir := t.TempDir()
		put(t, filepath.Join(dir, "index/db.json"), `{"modified":"2026-01-01T00:00:00Z"}`)
		put(t, filepath.Join(dir, "index/vulns.json"), `[{"id":"GO-2026-0001","modified":"2026-01-01T00:00:00Z"}]`)
		put(t, filepath.Join(dir, "index/modules.json"), `[{"path":"stdlib","vulns":[{"id":"GO-2026-0001","modified":"2026-01-01T00:00:00Z"}]}]`)
		put(t, filepath.Join(dir, "ID/GO-2026-0001.json"), fmt.Sprintf(`{"schema_version":"1.3.1","id":"GO-2026-0001","modified":"2026-01-01T00:00:00Z","published":"2026-01-01T00:00:00Z",
			"database_specific":{"url":"https://example.invalid/GO-2026-0001"},"summary":"Wrong letters","details":"Wrong letters.","affected":[{"package":{"name":"stdlib","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}],
			"ecosystem_specific":{"imports":[{"path":"strings","symbols":[%q]}]}}]}`, function))
		return "file://" + dir
	}
	t.Run("nothing known", func(t *testing.T) {
		if err := vulnerabilities(t.Context(), work, database(t, "ToTitle"), io.Discard); err != nil {
			t.Error(err)
		}
	})
	t.Run("something known", func(t *testing.T) {
		err := vulnerabilities(t.Context(), work, database(t, "ToUpper"), io.Discard)
		if err == nil || !strings.Contains(err.Error(), "vulnerabilities in what ffpod calls") || !strings.Contains(err.Error(), "GO-2026-0001") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no answer", func(t *testing.T) {
		if err := vulnerabilities(t.Context(), work, "file:///nowhere", io.Discard); err == nil || !strings.Contains(err.Error(), "did not get to an answer") {
			t.Errorf("got %v", err)
		}
	})
}

// apt's part is played by scripts, but its comparison of versions is dpkg's own.
func TestGateAsksDebian(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("no dpkg")
	}
	with := func(version string) []image {
		return []image{{name: "worker", goarch: "amd64", contents: &contents{packages: []deb{{name: "libc6", version: version}}}}}
	}
	for name, c := range map[string]struct{ version, update, policy, want string }{
		"current":        {"2.36-9", "exit 0", "Candidate: 2.36-9", ""},
		"newer than apt": {"2.36-10", "exit 0", "Candidate: 2.36-9", ""},
		"replaced":       {"2.36-9", "exit 0", "Candidate: 2.36-10", "libc6 2.36-9, Debian has 2.36-10"},
		"unknown":        {"2.36-9", "exit 0", "Candidate: (none)", "apt knows no package libc6"},
		"no archive":     {"2.36-9", "echo no network; exit 100", "", "not known, since apt-get update failed"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			put(t, filepath.Join(bin, "apt-get"), "#!/bin/sh\n"+c.update+"\n")
			put(t, filepath.Join(bin, "apt-cache"), "#!/bin/sh\nprintf 'libc6:\\n  Installed: 1\\n  "+c.policy+"\\n'\n")
			for _, f := range []string{"apt-get", "apt-cache"} {
				if err := os.Chmod(filepath.Join(bin, f), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			err := outdated(t.Context(), with(c.version), io.Discard)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// The signature as docs/release.md has it: its commands, with a key made here.
func TestSignature(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("no ssh-keygen")
	}
	text := read(t, "../../docs/release.md")
	command := func(prefix string) string {
		for _, line := range strings.Split(text, "\n") {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, prefix) {
				return line
			}
		}
		t.Fatalf("docs/release.md has no command %s", prefix)
		return ""
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, sums), "0  file\n")
	sh := func(line string) error {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, t.Output(), t.Output()
		return cmd.Run()
	}
	if err := sh("ssh-keygen -q -t ed25519 -N '' -f key && echo \"release@ffpod.dev $(cat key.pub)\" >allowed_signers"); err != nil {
		t.Fatal(err)
	}
	if err := sh(strings.ReplaceAll(command("ssh-keygen -Y sign"), "KEY", "key")); err != nil {
		t.Fatalf("sign: %v", err)
	}
	verify := command("ssh-keygen -Y verify")
	if err := sh(verify); err != nil {
		t.Errorf("verify: %v", err)
	}
	put(t, filepath.Join(dir, sums), "1  file\n")
	if err := sh(verify); err == nil {
		t.Error("a changed file is verified")
	}
}

// A real release of this commit: both platforms, the real images, and the same
// bytes from another directory with nothing cached but Go's packages.
func TestWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("builds every image for two platforms, twice")
	}
	work := filepath.Join(t.TempDir(), "work")
	gitRun(t, ".", "clone", "-q", "--no-local", "../..", work)
	file := filepath.Join(work, "CHANGELOG.md")
	put(t, file, strings.Replace(read(t, file), "## Unreleased\n", "## Unreleased\n\n## v1.2.3\n", 1))
	if err := prepare(work, version, t.Output()); err != nil {
		t.Fatal(err)
	}
	commit(t, work)
	gitRun(t, work, "tag", version)
	var all []string
	again := filepath.Join(t.TempDir(), "elsewhere", "again")
	gitRun(t, ".", "clone", "-q", "--no-local", "--branch", version, work, again)
	for _, work := range []string{work, again} {
		if work == again {
			t.Setenv("FFPOD_CACHE", t.TempDir())
		}
		out := filepath.Join(t.TempDir(), version)
		began := time.Now()
		r := &release{work: work, out: out, version: version, offline: true, stdout: t.Output()}
		if err := r.build(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("built in %s", time.Since(began).Round(time.Second))
		all = append(all, out)
	}
	if diff := cmp.Diff(read(t, filepath.Join(all[0], sums)), read(t, filepath.Join(all[1], sums))); diff != "" {
		t.Errorf("not the same twice:\n%s", diff)
	}
	tool := filepath.Join(all[0], "ffpod-"+version+"-linux-"+runtime.GOARCH)
	if out, err := exec.Command(tool, "version").CombinedOutput(); err != nil || !strings.Contains(string(out), version) {
		t.Errorf("%s version: %v: %s", tool, err, out)
	}
	list, err := exec.Command(tool, "render", "minimal").Output()
	if err != nil || !slices.Contains(strings.Fields(string(list)), "ffpod/shim:"+version) {
		t.Errorf("the release's tool renders other images: %v", err)
	}
}

// The range that the documentation states is the one that ffpod doctor holds to.
func TestSupportedRange(t *testing.T) {
	constants := regexp.MustCompile(`oldestMinor, newestMinor = (\d+), (\d+)`).FindStringSubmatch(read(t, "../../cmd/ffpod/doctor/control.go"))
	if constants == nil {
		t.Fatal("cmd/ffpod/doctor has no range")
	}
	if want := fmt.Sprintf("Supported: 1.%s to 1.%s.", constants[1], constants[2]); !strings.Contains(read(t, "../../docs/release.md"), want) {
		t.Errorf("docs/release.md does not say %q", want)
	}
}
