package settings

import (
	_ "embed"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"sync"
)

//go:embed types.go
var source string

// Field is one setting, or a group of them.
type Field struct {
	Path string
	// Type is what it takes; a group's is empty.
	Type string
	Doc  string
}

// Fields are all settings and their groups, in the order of the type.
var Fields = sync.OnceValue(func() []Field {
	docs := comments()
	var all []Field
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		for i := range t.NumField() {
			f := t.Field(i)
			doc, told := docs[t.Name()+"."+f.Name]
			if !told {
				continue // what every object has
			}
			at, inner := join(path, nameOf(f)), f.Type
			for inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			field := Field{Path: at, Doc: doc}
			switch {
			case inner.Kind() == reflect.Struct:
			case inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct:
				field.Type = "list of " + members(inner.Elem())
			case inner.Kind() == reflect.Slice:
				field.Type = "list of " + noun(inner.Elem()) + "s"
			case inner.Kind() == reflect.Map:
				field.Type = "map to " + noun(inner.Elem()) + "s"
			default:
				field.Type = noun(inner)
			}
			all = append(all, field)
			if inner.Kind() == reflect.Struct {
				walk(inner, at)
			}
		}
	}
	walk(reflect.TypeFor[Settings](), "")
	return all
})

// Known are the paths of all settings and groups.
func Known() []string {
	var out []string
	for _, f := range Fields() {
		out = append(out, f.Path)
	}
	return append(out, "apiVersion", "kind", "metadata", "metadata.name", "metadata.annotations")
}

func members(t reflect.Type) string {
	var names []string
	for i := range t.NumField() {
		names = append(names, nameOf(t.Field(i)))
	}
	return "{" + strings.Join(names, ", ") + "}"
}

func noun(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Quantity]():
		return "amount"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int64:
		return "number"
	default:
		return "text"
	}
}

// comments are those of the fields of types.go, by TYPE.FIELD.
func comments() map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", source, parser.ParseComments)
	if err != nil {
		panic(err) // it has been compiled
	}
	out := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if t, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range t.Fields.List {
				if doc := strings.TrimSpace(f.Doc.Text()); doc != "" {
					out[spec.Name.Name+"."+f.Names[0].Name] = strings.Join(strings.Fields(doc), " ")
				}
			}
		}
		return true
	})
	return out
}
