package kustomize

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"

	"github.com/ffpod/ffpod/kustomize/settings"
)

// kustomization reads a directory's kustomization file, and tells its name.
func (f filesystem) kustomization(dir string) (string, bool) {
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		if file := filepath.Join(dir, name); f.Exists(file) && !f.IsDir(file) {
			return file, true
		}
	}
	return "", false
}

// checkSettings checks every file of kind Settings that the kustomization lists,
// directly or through others, and then that it says what the listed components
// read. The second is left to kustomize where a patch might add to the settings.
func (f filesystem) checkSettings(dir string) error {
	w := walk{f: f, reads: map[string]string{}, seen: map[string]bool{}}
	if err := w.directory(dir); err != nil {
		return err
	}
	if w.patched || len(w.files) > 1 {
		return nil
	}
	if len(w.files) == 0 {
		if len(w.order) == 0 {
			return nil
		}
		file, _ := f.kustomization(dir)
		return fmt.Errorf("%s: no resource is a settings.yaml, and %s reads %s; list one, as `ffpod init` writes it", file, w.reads[w.order[0]], w.order[0])
	}
	var missing settings.Problems
	for _, path := range w.order {
		if !w.given(path) {
			missing = append(missing, settings.Problem{File: w.files[0], Path: path, Text: "is missing; " + w.reads[path] + " reads it"})
		}
	}
	if len(missing) > 0 {
		return missing
	}
	return nil
}

type walk struct {
	f       filesystem
	files   []string
	text    yaml.Node // of the last file
	patched bool
	reads   map[string]string // setting to the component that reads it
	order   []string
	seen    map[string]bool
}

type kustomizationFile struct {
	Resources, Components, Bases []string
	Patches                      []struct {
		Path, Patch string
		Target      struct{ Kind string }
	}
	Replacements []replacement
}

type replacement struct {
	Path   string
	Source struct {
		Kind      string
		FieldPath string `yaml:"fieldPath"`
	}
}

func (w *walk) directory(dir string) error {
	if w.seen[dir] {
		return nil
	}
	w.seen[dir] = true
	file, ok := w.f.kustomization(dir)
	if !ok {
		return nil // kustomize says so
	}
	text, err := w.f.ReadFile(file)
	if err != nil {
		return err
	}
	// Leniently: kustomize says what is wrong with it.
	k := decode(text)
	for _, p := range k.Patches {
		w.patched = w.patched || p.Target.Kind == settings.Kind || strings.Contains(p.Patch, "kind: "+settings.Kind)
		if patch, err := w.f.ReadFile(filepath.Join(dir, p.Path)); p.Path != "" && err == nil {
			w.patched = w.patched || settings.IsSettings(patch)
		}
	}
	for _, name := range slices.Concat(k.Resources, k.Bases, k.Components) {
		if err := w.entry(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for _, r := range w.replacements(dir, k.Replacements) {
		if path := r.Source.FieldPath; r.Source.Kind == settings.Kind && w.reads[path] == "" {
			w.reads[path] = "component " + filepath.Base(dir)
			w.order = append(w.order, path)
		}
	}
	return nil
}

func (w *walk) entry(path string) error {
	if w.f.IsDir(path) {
		return w.directory(path)
	}
	text, err := w.f.ReadFile(path)
	if err != nil || !settings.IsSettings(text) {
		return nil // kustomize says so if it is missing
	}
	name := strings.ReplaceAll(path, virtual, "kustomize")
	if here, err := os.Getwd(); err == nil {
		if shorter, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(shorter) {
			name = shorter
		}
	}
	w.files = append(w.files, name)
	if _, err := settings.Parse(name, text); err != nil {
		return err
	}
	w.text = yaml.Node{}
	return yaml.Unmarshal(text, &w.text)
}

func (w *walk) replacements(dir string, listed []replacement) []replacement {
	var out []replacement
	for _, r := range listed {
		if r.Path == "" {
			out = append(out, r)
			continue
		}
		var more []replacement
		if text, err := w.f.ReadFile(filepath.Join(dir, r.Path)); err == nil && yaml.Unmarshal(text, &more) == nil {
			out = append(out, more...)
		} else {
			var one replacement
			if yaml.Unmarshal(text, &one) == nil {
				out = append(out, one)
			}
		}
	}
	return out
}

// simple is a path that the walk below can follow; kustomize's own syntax has more.
var simple = regexp.MustCompile(`^[A-Za-z0-9.]+$`)

// given tells whether the settings have a value at a path.
func (w *walk) given(path string) bool {
	if !simple.MatchString(path) {
		return true
	}
	at := w.text.Content[0]
next:
	for _, key := range strings.Split(path, ".") {
		for i := 0; i+1 < len(at.Content); i += 2 {
			if at.Content[i].Value == key {
				if at = at.Content[i+1]; at.Kind == yaml.AliasNode {
					at = at.Alias
				}
				continue next
			}
		}
		return false
	}
	return true
}

func decode(text []byte) kustomizationFile {
	var k kustomizationFile
	var typed *yaml.TypeError
	if err := yaml.Unmarshal(text, &k); err != nil && !errors.As(err, &typed) {
		return kustomizationFile{}
	}
	return k
}
