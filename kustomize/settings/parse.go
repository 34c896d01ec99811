package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sort"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// APIVersion and Kind say that a file is one of settings.
const (
	APIVersion = "ffpod.dev/v1alpha1"
	Kind       = "Settings"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	File string
	Line int    // 0: the file as a whole
	Path string // of the setting, such as identity.user
	Text string
}

func (p Problem) Error() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Path == "" {
		return where + ": " + p.Text
	}
	return where + ": " + p.Path + ": " + p.Text
}

// Problems are all that is wrong with a file, in the file's order.
type Problems []Problem

func (p Problems) Error() string {
	texts := make([]string, len(p))
	for i := range p {
		texts[i] = p[i].Error()
	}
	return strings.Join(texts, "; ")
}

// Load reads and checks a file. The error is Problems if the file could be read.
func Load(file string) (*Settings, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, text)
}

// IsSettings tells whether a YAML text is one object of kind Settings, whether or
// not it is a valid one.
func IsSettings(text []byte) bool {
	var head struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
	}
	return yaml.Unmarshal(text, &head) == nil && head.Kind == Kind && strings.HasPrefix(head.APIVersion, "ffpod.dev/")
}

// Parse checks a text; file is its name in errors.
func Parse(file string, text []byte) (*Settings, error) {
	whole := func(format string, args ...any) error {
		return Problems{{File: file, Text: fmt.Sprintf(format, args...)}}
	}
	// The parser that kustomize uses: what it takes for a number, so does this.
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root yaml.Node
	if err := decoder.Decode(&root); errors.Is(err, io.EOF) {
		return nil, whole("is empty; ffpod init writes one")
	} else if err != nil {
		return nil, whole("%s", strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, whole("holds more than one YAML document; one file, one Settings")
	}
	p := checker{file: file, lines: map[string]int{}}
	p.check(root.Content[0], reflect.TypeFor[Settings](), "")
	if len(p.problems) > 0 {
		return nil, p.sorted()
	}
	var generic any
	if err := root.Decode(&generic); err != nil {
		return nil, whole("%s", strings.ReplaceAll(err.Error(), "\n", " "))
	}
	asJSON, err := json.Marshal(generic)
	if err != nil {
		return nil, whole("%v", err)
	}
	var s Settings
	if err := json.Unmarshal(asJSON, &s); err != nil {
		return nil, whole("%v", err)
	}
	s.validate(p.add)
	if len(p.problems) > 0 {
		return nil, p.sorted()
	}
	return &s, nil
}

type checker struct {
	file     string
	lines    map[string]int
	problems Problems
}

func (p *checker) add(path, format string, args ...any) {
	line := p.lines[path]
	for at := path; line == 0 && at != ""; line = p.lines[at] {
		at = parent(at) // what is missing is missing in something
	}
	p.problems = append(p.problems, Problem{File: p.file, Line: line, Path: path, Text: fmt.Sprintf(format, args...)})
}

func (p *checker) sorted() Problems {
	sort.SliceStable(p.problems, func(i, j int) bool { return p.problems[i].Line < p.problems[j].Line })
	return p.problems
}

// check compares a node with what a Go type takes.
func (p *checker) check(n *yaml.Node, t reflect.Type, path string) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if p.lines[path] == 0 {
		p.lines[path] = n.Line
	}
	if want := wanted(t); !fits(n, t) {
		switch {
		case n.ShortTag() == "!!null":
			p.add(path, "has no value; it takes %s, or leave the key out", want)
		case t.Kind() == reflect.String && n.Kind == yaml.ScalarNode:
			p.add(path, "%s is taken for %s; it takes %s: quote it, %q", n.Value, called(n), want, n.Value)
		case n.Kind == yaml.ScalarNode:
			p.add(path, "%q is %s; it takes %s", n.Value, called(n), want)
		default:
			p.add(path, "is %s; it takes %s", called(n), want)
		}
		return
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		p.checkMapping(n, t, path)
	case reflect.Slice:
		if len(n.Content) == 0 {
			p.add(path, "is empty, which kustomize takes for missing; give one item at least, or leave the key out")
		}
		for i, item := range n.Content {
			p.check(item, t.Elem(), fmt.Sprintf("%s.%d", path, i))
		}
	}
}

func (p *checker) checkMapping(n *yaml.Node, t reflect.Type, path string) {
	if len(n.Content) == 0 && t.Kind() == reflect.Map {
		p.add(path, "is empty, which kustomize takes for missing; give one entry at least, or leave the key out")
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := join(path, key.Value)
		p.lines[at] = key.Line
		if first, twice := seen[key.Value]; twice {
			p.add(at, "is given twice, also in line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		if t.Kind() == reflect.Map {
			p.check(value, t.Elem(), at)
			continue
		}
		field, known := fieldOf(t, key.Value)
		switch {
		case known:
			p.check(value, field.Type, at)
		default:
			p.add(at, "no such setting; the nearest is %s", nearest(path, key.Value))
		}
	}
}

func fits(n *yaml.Node, t reflect.Type) bool {
	switch tag := n.ShortTag(); {
	case t == reflect.TypeFor[Quantity]():
		return tag == "!!str" || tag == "!!int" || tag == "!!float"
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		return n.Kind == yaml.MappingNode
	case t.Kind() == reflect.Slice:
		return n.Kind == yaml.SequenceNode
	case t.Kind() == reflect.String:
		return tag == "!!str"
	case t.Kind() == reflect.Int64:
		return tag == "!!int"
	default:
		return tag == "!!bool"
	}
}

func called(n *yaml.Node) string {
	switch n.ShortTag() {
	case "!!map":
		return "a map"
	case "!!seq":
		return "a list"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "a date"
	default:
		return "a text"
	}
}

// wanted says what a type takes.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Quantity]():
		return "an amount such as 20Gi"
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		return "a map"
	case t.Kind() == reflect.Slice:
		return "a list"
	case t.Kind() == reflect.String:
		return "a text"
	case t.Kind() == reflect.Int64:
		return "a whole number"
	default:
		return "true or false"
	}
}

// fieldOf is a struct's field by the name it has in files.
func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if f := t.Field(i); nameOf(f) == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

func nameOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// join makes a path as kustomize writes it: keys with dots stand in brackets.
func join(path, key string) string {
	if strings.Contains(key, ".") {
		key = "[" + key + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func parent(path string) string {
	if i := strings.LastIndex(path, ".["); strings.HasSuffix(path, "]") && i >= 0 {
		return path[:i]
	}
	return path[:max(0, strings.LastIndex(path, "."))]
}

// nearest is the known path that a wrong one probably means: first among its
// siblings, then anywhere.
func nearest(path, key string) string {
	wrong, best, least := strings.ToLower(key[:min(len(key), 64)]), "", 1<<30
	for _, known := range Known() {
		leaf := known[strings.LastIndex(known, ".")+1:]
		distance := 3 * edits(wrong, strings.ToLower(leaf))
		if parent(known) != path {
			distance += 2
		}
		if distance < least {
			best, least = known, distance
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
