package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

const root = "../.."

// page is a Markdown file as its readers see it.
type page struct {
	name    string // from the root, with slashes
	anchors map[string]bool
	links   []string
	spans   []span  // code inside of sentences and tables
	blocks  []block // code on its own
}

type span struct {
	text string
	row  bool // it stands in the first column of a table
}

type block struct {
	// language is what stands behind the fence; of an indented block, sh.
	language string
	heading  string // the section it is in
	text     string
	line     int
}

// pages are all that users and contributors read.
func pages(t *testing.T) []page {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*.md", "docs/*.md", "kustomize/*.md", "images/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	if len(names) < 20 {
		t.Fatalf("only %d pages found: %v", len(names), names)
	}
	var all []page
	for _, name := range names {
		all = append(all, read(t, name))
	}
	return all
}

func read(t *testing.T, file string) page {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name, err := filepath.Rel(root, file)
	if err != nil {
		t.Fatal(err)
	}
	p := page{name: filepath.ToSlash(name), anchors: map[string]bool{}}
	heading := ""
	lines := func(n ast.Node) (string, int) {
		var b strings.Builder
		at := 0
		for i := range n.Lines().Len() {
			s := n.Lines().At(i)
			if i == 0 {
				at = strings.Count(string(source[:s.Start]), "\n") + 1
			}
			b.Write(s.Value(source))
		}
		return b.String(), at
	}
	tree := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	err = ast.Walk(tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			heading = plain(n, source)
			p.anchors[slug(heading)] = true
		case *ast.Link:
			p.links = append(p.links, string(n.Destination))
		case *ast.CodeSpan:
			cell := n.Parent()
			p.spans = append(p.spans, span{plain(n, source), cell.Kind().String() == "TableCell" && cell.PreviousSibling() == nil})
		case *ast.FencedCodeBlock:
			text, line := lines(n)
			p.blocks = append(p.blocks, block{string(n.Language(source)), heading, text, line})
		case *ast.CodeBlock:
			text, line := lines(n)
			p.blocks = append(p.blocks, block{"sh", heading, text, line})
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if t, ok := c.(*ast.Text); ok {
			b.Write(t.Segment.Value(source))
		} else {
			b.WriteString(plain(c, source))
		}
	}
	return b.String()
}

// slug is the anchor that GitHub gives a heading.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}
