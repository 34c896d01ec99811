package kustomize

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// Repository is where the tree of each release is.
const Repository = "https://github.com/ffpod/ffpod"

// Reference names a directory of the tree in a release, as plain kustomize fetches
// it: Reference("base", "v1.0.0").
func Reference(path, release string) string {
	return Repository + "//kustomize/" + path + "?ref=" + release
}

// remote is such a reference, in any of the ways in which kustomize lets one write it.
var remote = regexp.MustCompile(`^(?:git::)?(?:https://|ssh://git@|git@)?github\.com[/:]ffpod/ffpod(?:\.git)?//kustomize/([^?]*)(?:\?(.*))?$`)

// Release is the reference under which a version of ffpod finds its own tree: its
// tag, or main for one that is none.
func Release(version string) string {
	if regexp.MustCompile(`^v\d+\.\d+\.\d+(-(alpha|beta|rc)\.?\d+)?$`).MatchString(version) {
		return version
	}
	return "main"
}

// references lead to the embedded tree instead of the network.
type references struct{ release string }

// replace rewrites a kustomization's references to the repository. Those to another
// release it refuses: what is embedded would not be what they name.
func (r references) replace(file string, text []byte) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil || len(root.Content) == 0 || root.Content[0].Kind != yaml.MappingNode {
		return text, nil // kustomize says what is wrong with it
	}
	changed := false
	for _, item := range entries(root.Content[0], "resources", "components", "bases", "crds", "configurations", "generators", "transformers", "validators") {
		match := remote.FindStringSubmatch(item.Value)
		if match == nil {
			continue
		}
		if release := query(match[2]); release != r.release {
			return nil, fmt.Errorf("%s:%d: %s is of release %q, and this ffpod carries %s: render with the ffpod of that release, or write ?ref=%s",
				file, item.Line, item.Value, release, r.release, r.release)
		}
		local := filepath.Join(virtual, filepath.FromSlash(match[1]))
		relative, err := filepath.Rel(filepath.Dir(file), local)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", file, item.Line, item.Value, err)
		}
		item.Value, changed = relative, true
	}
	if !changed {
		return text, nil
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	if err := encoder.Encode(&root); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return out.Bytes(), nil
}

// entries are the items of the lists of a kustomization.
func entries(n *yaml.Node, lists ...string) []*yaml.Node {
	var out []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		for _, list := range lists {
			if n.Content[i].Value == list && n.Content[i+1].Kind == yaml.SequenceNode {
				out = append(out, n.Content[i+1].Content...)
			}
		}
	}
	return out
}

// query finds the release in what follows the question mark.
func query(q string) string {
	for _, pair := range strings.Split(q, "&") {
		if name, value, _ := strings.Cut(pair, "="); name == "ref" || name == "version" {
			return value
		}
	}
	return ""
}
