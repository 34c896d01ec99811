package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

const header = "All settings of this overlay. Its components read them; kustomize applies nothing of this file itself. `ffpod render` checks them."

// Marshal writes a settings.yaml with each setting's description above it.
func (s Settings) Marshal() ([]byte, error) {
	s.APIVersion, s.Kind = APIVersion, Kind
	s.Metadata = Metadata{Name: "settings", Annotations: map[string]string{"config.kubernetes.io/local-config": "true"}}
	asJSON, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write settings: %w", err)
	}
	// JSON is YAML; the order is the type's.
	var root yaml.Node
	if err := yaml.Unmarshal(asJSON, &root); err != nil {
		return nil, fmt.Errorf("write settings: %w", err)
	}
	docs := map[string]string{}
	for _, f := range Fields() {
		docs[f.Path] = f.Doc
	}
	dress(root.Content[0], "", docs)
	root.Content[0].Content[0].HeadComment = comment(header, 80)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&root); err != nil {
		return nil, fmt.Errorf("write settings: %w", err)
	}
	return out.Bytes(), nil
}

// dress turns JSON's flow style into blocks with comments. Lists, and what has no
// comments of its own, stay in one line.
func dress(n *yaml.Node, path string, docs map[string]string) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode {
		if n.Value == "" {
			n.Style = yaml.DoubleQuotedStyle
		}
		return
	}
	if n.Kind == yaml.SequenceNode || path != "" && strings.Contains(path, "resources.") {
		n.Style = yaml.FlowStyle
	}
	for i, child := range n.Content {
		at := path
		if n.Kind == yaml.MappingNode {
			if i%2 == 0 {
				child.Style = 0
				child.HeadComment = comment(docs[join(path, child.Value)], 80-2*strings.Count(join(path, child.Value), "."))
				continue
			}
			at = join(path, n.Content[i-1].Value)
		}
		dress(child, at, docs)
	}
}

// comment breaks a text into lines of a comment.
func comment(text string, width int) string {
	if text == "" {
		return ""
	}
	var lines []string
	line := "#"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > width && line != "#" {
			lines, line = append(lines, line), "#"
		}
		line += " " + word
	}
	return strings.Join(append(lines, line), "\n")
}
