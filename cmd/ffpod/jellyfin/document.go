package jellyfin

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Document is one of Jellyfin's settings files. Set edits the bytes of one
// element; every other byte stays, whatever it means.
type Document struct {
	text []byte
	root string
}

// element is a child of the root: [start, end) in the text.
type element struct {
	start, end int
	values     []string // of <string> children, else the text alone
	list       bool
}

// bom is what some editors put first.
var bom = []byte("\xef\xbb\xbf")

// NewDocument is the file that Jellyfin would have written with every setting at
// its default.
func NewDocument(root string) *Document {
	return &Document{root: root, text: []byte(`<?xml version="1.0" encoding="utf-8"?>` + "\n<" + root +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">` + "\n</" + root + ">\n")}
}

// ParseDocument reads a file whose root element must be root.
func ParseDocument(text []byte, root string) (*Document, error) {
	d := &Document{text: bytes.Clone(text), root: root}
	if _, _, err := d.scan(""); err != nil {
		return nil, err
	}
	return d, nil
}

// Bytes returns the file.
func (d *Document) Bytes() []byte { return bytes.Clone(d.text) }

// Get returns the values of a setting, one unless it is a list; ok is whether it
// is there at all.
func (d *Document) Get(name string) (values []string, ok bool) {
	e, _, err := d.scan(name)
	if err != nil || e == nil {
		return nil, false
	}
	return e.values, true
}

// Set gives a setting its values: <name>value</name>, or one <string> each.
func (d *Document) Set(name string, list bool, values ...string) error {
	e, tail, err := d.scan(name)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if e != nil {
		b.Write(d.text[:e.start])
		writeElement(&b, d.newline(), name, list, values)
		b.Write(d.text[e.end:])
	} else {
		b.Write(bytes.TrimRight(d.text[:tail], " \t\r\n"))
		b.WriteString(d.newline() + "  ")
		writeElement(&b, d.newline(), name, list, values)
		b.WriteString(d.newline())
		b.Write(d.text[tail:])
	}
	edited, err := ParseDocument(b.Bytes(), d.root)
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	d.text = edited.text
	return nil
}

func writeElement(b *bytes.Buffer, newline, name string, list bool, values []string) {
	switch {
	case len(values) == 0 || !list && values[0] == "":
		b.WriteString("<" + name + " />")
	case !list:
		b.WriteString("<" + name + ">")
		_ = xml.EscapeText(b, []byte(values[0])) // a Buffer takes everything
		b.WriteString("</" + name + ">")
	default:
		b.WriteString("<" + name + ">")
		for _, v := range values {
			b.WriteString(newline + "    <string>")
			_ = xml.EscapeText(b, []byte(v))
			b.WriteString("</string>")
		}
		b.WriteString(newline + "  </" + name + ">")
	}
}

// newline is the file's own.
func (d *Document) newline() string {
	if bytes.Contains(d.text, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

// scan finds a child of the root, and where the root's end tag begins. A root
// without content, <root />, is opened.
func (d *Document) scan(name string) (found *element, tail int, err error) {
	skip := 0
	if bytes.HasPrefix(d.text, bom) {
		skip = len(bom)
	}
	r := xml.NewDecoder(bytes.NewReader(d.text[skip:]))
	depth, at := 0, skip
	var text, item strings.Builder
	for {
		before := skip + int(r.InputOffset())
		token, err := r.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, 0, fmt.Errorf("it is not XML that Jellyfin could read: %w", err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			switch depth++; {
			case depth == 1 && t.Name.Local != d.root:
				return nil, 0, fmt.Errorf("it is a <%s>, not a <%s>", t.Name.Local, d.root)
			case depth == 1 && d.opened(skip+int(r.InputOffset())):
				return d.scan(name)
			case depth == 2 && t.Name.Local == name && found == nil:
				found, at = &element{start: before}, 2
				text.Reset()
			case depth == 3 && at == 2 && found != nil && found.end == 0:
				found.list = true
				item.Reset()
			}
		case xml.CharData:
			if depth == 2 {
				text.Write(t)
			} else if depth == 3 {
				item.Write(t)
			}
		case xml.EndElement:
			switch depth--; {
			case depth == 0:
				tail = before
			case depth == 2 && found != nil && found.end == 0:
				found.values = append(found.values, item.String())
			case depth == 1 && found != nil && found.end == 0:
				found.end = skip + int(r.InputOffset())
				if !found.list {
					found.values = []string{text.String()}
				}
			}
		}
	}
	if tail == 0 {
		return nil, 0, fmt.Errorf("it has no <%s>", d.root)
	}
	return found, tail, nil
}

// opened turns a root that ends at the offset from <root /> into <root></root>.
func (d *Document) opened(end int) bool {
	if !bytes.HasSuffix(d.text[:end], []byte("/>")) {
		return false
	}
	head := bytes.TrimRight(d.text[:end-2], " \t\r\n")
	d.text = slices.Concat(head, []byte(">\n</"+d.root+">"), d.text[end:])
	return true
}
