package kustomize

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/ffpod/ffpod/kustomize/settings"
)

// What is embedded is what is on the disk: a new directory must be listed, and go:embed
// leaves out names that begin with a dot or an underscore.
func TestEverythingIsEmbedded(t *testing.T) {
	here := []string{"settings", "reference"} // Go, not manifests
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(here, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.Contains(name, "/") { // this package, and the README
			return nil
		}
		want, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		got, err := fs.ReadFile(Tree(), name)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s is not embedded: %v", name, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func render(t *testing.T, dir string) string {
	t.Helper()
	all, err := Render(dir, "devel")
	if err != nil {
		t.Fatal(err)
	}
	text, err := all.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// plainBuild is what kustomize itself makes of a directory.
func plainBuild(t *testing.T, dir string) string {
	t.Helper()
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy
	all, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := all.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An embedded overlay, the same one on the disk, and plain kustomize are one.
func TestOverlays(t *testing.T) {
	for _, name := range Overlays() {
		t.Run(name, func(t *testing.T) {
			if name == "dev" || strings.HasPrefix(name, "demo") {
				if _, err := Render(name, "devel"); err != nil {
					t.Fatal(err)
				}
			}
			want := plainBuild(t, "overlays/"+name)
			if diff := cmp.Diff(want, render(t, name)); diff != "" {
				t.Errorf("embedded: %s", diff)
			}
			if diff := cmp.Diff(want, render(t, "overlays/"+name)); diff != "" {
				t.Errorf("on the disk: %s", diff)
			}
		})
	}
	if !strings.Contains(render(t, "cluster"), "kind: ValidatingAdmissionPolicy") {
		t.Error("cluster")
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func minimalSettings(t *testing.T) string {
	t.Helper()
	s := settings.Default()
	s.Storage.Media = settings.DefaultMedia()
	text, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const small = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: films
resources:
  - settings.yaml
  - https://github.com/ffpod/ffpod//kustomize/base?ref=v1.2.3
  - git@github.com:ffpod/ffpod.git//kustomize/jellyfin?ref=v1.2.3
components:
  - github.com/ffpod/ffpod//kustomize/components/class-cpu?timeout=90s&ref=v1.2.3
  - https://github.com/ffpod/ffpod//kustomize/components/jellyfin-workers?ref=v1.2.3
  - https://github.com/ffpod/ffpod//kustomize/components/media-new?ref=v1.2.3
  - https://github.com/ffpod/ffpod//kustomize/components/settings?ref=v1.2.3
patches:
  - path: patches/jellyfin.yaml
`

const patch = `apiVersion: apps/v1
kind: Deployment
metadata: {name: jellyfin}
spec: {template: {spec: {priorityClassName: films}}}
`

// An overlay that refers to the repository of this release is rendered without the
// network, through a symbolic link too, with its own files beside it.
func TestRemoteReferences(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "films")
	write(t, dir, map[string]string{"kustomization.yaml": small, "settings.yaml": minimalSettings(t), "patches/jellyfin.yaml": patch})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	// git would be asked otherwise.
	t.Setenv("PATH", "")
	for _, dir := range []string{dir, link} {
		all, err := Render(dir, "v1.2.3")
		if err != nil {
			t.Fatal(err)
		}
		text, _ := all.AsYaml()
		for _, want := range []string{"name: ffpod-cpu", "namespace: films", "priorityClassName: films", "claimName: jellyfin-media"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s is missing", want)
			}
		}
		if strings.Contains(string(text), "kind: Settings") {
			t.Error("the settings would be applied")
		}
	}
	_, err := Render(dir, "v1.2.4")
	if err == nil || !strings.Contains(err.Error(), `kustomization.yaml:6: https://github.com/ffpod/ffpod//kustomize/base?ref=v1.2.3 is of release "v1.2.3", and this ffpod carries v1.2.4`) {
		t.Errorf("another release: %v", err)
	}
}

func TestRefuses(t *testing.T) {
	good := minimalSettings(t)
	cases := map[string]struct {
		files map[string]string
		want  string
	}{
		"unknown setting": {map[string]string{"settings.yaml": strings.Replace(good, "  user: 1000", "  usr: 1000", 1)},
			"settings.yaml:12: identity.usr: no such setting; the nearest is identity.user"},
		"missing setting": {map[string]string{"settings.yaml": strings.Replace(good, "hardwareAcceleration: none", "vaapiDevice: /dev/x", 1)}, "jellyfin.vaapiDevice: is given twice"},
		"missing": {map[string]string{"settings.yaml": strings.Replace(good, "    TZ: Etc/UTC", "    X: y", 1), "kustomization.yaml": strings.Replace(small, "components/media-new", "components/media-pvc", 1)},
			"media.claim: is missing; component media-pvc reads it"},
		"no settings": {map[string]string{"kustomization.yaml": strings.Replace(small, "  - settings.yaml\n", "", 1)},
			"no resource is a settings.yaml, and component media-new reads storage.media.size"},
		"no such component": {map[string]string{"kustomization.yaml": strings.Replace(small, "components/media-new", "components/media-old", 1)}, "media-old"},
		"no kustomization":  {map[string]string{"kustomization.yaml": "", "other": ""}, "kustomization"},
		"two media": {map[string]string{"kustomization.yaml": strings.Replace(small, "patches:\n", "  - https://github.com/ffpod/ffpod//kustomize/components/media-pvc?ref=v1.2.3\npatches:\n", 1),
			"settings.yaml": strings.Replace(good, "  readOnly: true", "  readOnly: true\n  claim: films", 1)}, "only-one-of-media-new-media-nfs-media-pvc"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, map[string]string{"kustomization.yaml": small, "settings.yaml": good, "patches/jellyfin.yaml": patch})
			write(t, dir, c.files)
			_, err := Render(dir, "v1.2.3")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), ".ffpod-embedded") {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
	for arg, want := range map[string]string{
		"nosuch":       "neither a directory nor an embedded overlay; there are demo, demo-rwo, dev, minimal, production-postgres, production-sqlite",
		"../kustomize": "it holds no kustomization.yaml",
		"README.md":    "it is a file",
	} {
		if _, err := Render(arg, "v1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// A patch of an overlay upon another may add settings.
func TestPatchedSettings(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"settings.yaml": minimalSettings(t),
		"kustomization.yaml": strings.Replace(strings.Replace(small, "components/media-new", "components/media-pvc", 1), "  - path: patches/jellyfin.yaml",
			"  - target: {kind: Settings}\n    patch: |\n      - {op: add, path: /media/claim, value: films}", 1),
	})
	// Components come before patches: what they read is not there yet.
	if _, err := Render(dir, "v1.2.3"); err == nil || !strings.Contains(err.Error(), "media.claim") {
		t.Errorf("%v", err)
	}
	write(t, dir, map[string]string{
		"below/settings.yaml":      minimalSettings(t),
		"below/kustomization.yaml": "resources: [settings.yaml]\npatches:\n  - target: {kind: Settings}\n    patch: |\n      - {op: add, path: /media/claim, value: films}\n",
		"kustomization.yaml":       strings.Replace(strings.Replace(strings.Replace(small, "components/media-new", "components/media-pvc", 1), "patches:\n  - path: patches/jellyfin.yaml\n", "", 1), "settings.yaml", "below", 1),
	})
	all, err := Render(dir, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := all.AsYaml(); !strings.Contains(string(text), "claimName: films") {
		t.Error("the patch of the settings is lost")
	}
}

func TestRelease(t *testing.T) {
	for version, want := range map[string]string{"v1.2.3": "v1.2.3", "v1.0.0-rc.1": "v1.0.0-rc.1", "devel": "main", "v1.2.3-4-gabcdef": "main", "v1.2.3-dirty": "main", "abcdef0": "main"} {
		if got := Release(version); got != want {
			t.Errorf("%s: %s, want %s", version, got, want)
		}
	}
}
