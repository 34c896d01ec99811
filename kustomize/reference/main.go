// Command reference writes docs/configuration.md from the type of settings.yaml and
// from the components that read it.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/ffpod/ffpod/kustomize"
	"github.com/ffpod/ffpod/kustomize/settings"
)

func main() {
	text, err := reference()
	if err == nil {
		err = os.WriteFile(file(), text, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

// file is docs/configuration.md, found from this file.
func file() string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "docs", "configuration.md")
}

const intro = `# Configuration

Generated from the type in kustomize/settings; ` + "`make generate`" + ` makes it anew.

Everything about an install that is a number or a name stands in one file, ` + "`settings.yaml`" + `, beside the overlay's ` + "`kustomization.yaml`" + `. It is a resource of kind Settings that kustomize never applies; the components listed in the overlay copy what it says to where it belongs. So plain kustomize, ` + "`kubectl -k`" + `, Argo CD, Flux and ` + "`ffpod render`" + ` make the same of it.

` + "`ffpod init`" + ` writes one; ` + "`ffpod render`" + ` refuses one that is wrong, with the file, the line, the setting and what is allowed, before anything is applied. Plain kustomize refuses only what is missing.

There are no hidden defaults: a setting that a listed component reads must be there. *Default* is what ` + "`ffpod init`" + ` writes where nobody said otherwise; where it is empty, the setting is written only when it is asked for. An empty list or map counts as missing.

| setting | type | default | read by | meaning |
|---|---|---|---|---|
`

func reference() ([]byte, error) {
	readers, err := Readers()
	if err != nil {
		return nil, err
	}
	defaults, err := defaults()
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString(intro)
	for _, f := range settings.Fields() {
		if f.Type == "" {
			fmt.Fprintf(&b, "| **`%s`** | | | | %s |\n", f.Path, cell(f.Doc))
			continue
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.Path, f.Type, cell(defaults[f.Path]), strings.Join(readers[f.Path], ", "), cell(f.Doc))
	}
	return []byte(b.String()), nil
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

// defaults are those of Default and of the groups that init adds.
func defaults() (map[string]string, error) {
	s := settings.Default()
	s.Storage.Media, s.Storage.Recordings = settings.DefaultMedia(), settings.DefaultRecordings()
	s.Network, s.Backup = settings.DefaultNetwork(), settings.DefaultBackup()
	s.GPU = &settings.GPU{
		Nvidia: settings.DefaultClass("nvidia.com/gpu"), IntelI915: settings.DefaultClass("gpu.intel.com/i915"),
		IntelXe: settings.DefaultClass("gpu.intel.com/xe"), AMD: settings.DefaultClass("amd.com/gpu"), DRA: settings.DefaultDRA(""),
	}
	s.Media.NFS = settings.DefaultMediaNFS("", "", "")
	s.Shared = &settings.Shared{NFS: settings.DefaultSharedNFS("", "", "")}
	text, err := s.Marshal()
	if err != nil {
		return nil, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, f := range settings.Fields() {
		n := find(root.Content[0], f.Path)
		if n == nil || f.Type == "" || n.Kind == yaml.ScalarNode && n.Value == "" {
			continue
		}
		bare(n)
		value, err := yaml.Marshal(n)
		if err != nil {
			return nil, err
		}
		out[f.Path] = "`" + strings.TrimSpace(string(value)) + "`"
	}
	return out, nil
}

// bare takes the comments off, and makes it one line.
func bare(n *yaml.Node) {
	n.HeadComment = ""
	if n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle
	}
	for _, child := range n.Content {
		bare(child)
	}
}

func find(n *yaml.Node, at string) *yaml.Node {
	for _, key := range strings.Split(at, ".") {
		var next *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				next = n.Content[i+1]
			}
		}
		if next == nil {
			return nil
		}
		n = next
	}
	return n
}

// Readers are the components that read each setting, by its path.
func Readers() (map[string][]string, error) {
	out := map[string][]string{}
	err := fs.WalkDir(kustomize.Tree(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".yaml" {
			return err
		}
		text, err := fs.ReadFile(kustomize.Tree(), name)
		if err != nil {
			return err
		}
		decoder := yaml.NewDecoder(strings.NewReader(string(text)))
		for {
			var n yaml.Node
			if decoder.Decode(&n) != nil {
				return nil // the end, or no YAML, of which others complain
			}
			sources(&n, func(setting string) {
				if component := path.Base(path.Dir(name)); !slices.Contains(out[setting], component) {
					out[setting] = append(out[setting], component)
				}
			})
		}
	})
	for _, components := range out {
		slices.Sort(components)
	}
	return out, err
}

// sources finds {kind: Settings, fieldPath: ...} wherever it is.
func sources(n *yaml.Node, found func(string)) {
	if n.Kind == yaml.MappingNode {
		kind, setting := find(n, "kind"), find(n, "fieldPath")
		if kind != nil && setting != nil && kind.Value == settings.Kind {
			found(setting.Value)
		}
	}
	for _, child := range n.Content {
		sources(child, found)
	}
}
