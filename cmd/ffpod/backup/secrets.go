package backup

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
)

// secretName tells a secret by what its setting is called.
var secretName = regexp.MustCompile(`(?i)(password|passwd|passphrase|secret|token|api_?key|access_?key|private_?key|credentials?|connection_?string|\bpin)(base64|hash|value)?$`)

// userinfo is the password of an address with a user in it.
var userinfo = regexp.MustCompile(`(://[^/\s:@<>"']*):[^/\s@<>"']+@`)

// privateKey begins a key in PEM.
var privateKey = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----`)

// keyFiles are names of files that are nothing but keys.
var keyFiles = []string{".pfx", ".p12", ".key", ".jks", ".kdbx"}

// keyFile tells why a file is left out for being a key; empty if it is none.
func keyFile(name string, head []byte) string {
	if slices.Contains(keyFiles, strings.ToLower(path.Ext(name))) || privateKey.Match(head) {
		return "a private key"
	}
	return ""
}

// settingsFile tells how a file is searched for secrets: xml, json, or "" for a
// file that holds none; why is set for one whose secrets cannot be told from the
// rest of it.
func settingsFile(name string) (kind, why string) {
	plugin := strings.HasPrefix(name, "plugins/configurations/")
	if !plugin && !strings.HasPrefix(name, "config/") {
		return "", ""
	}
	switch ext := strings.ToLower(path.Ext(name)); {
	case ext == ".xml" || ext == ".json":
		return ext[1:], ""
	case plugin:
		return "", "settings of a plug-in in a form in which secrets cannot be found"
	}
	return "", ""
}

// span is a range of bytes.
type span struct{ start, end int64 }

// blank removes the secrets of a settings file and nothing else, and returns the
// names of those that were set.
func blank(kind string, text []byte) ([]byte, []string, error) {
	var spans []span
	var names []string
	var err error
	switch kind {
	case "xml":
		spans, names, err = xmlSecrets(text)
	case "json":
		spans, names, err = jsonSecrets(text)
	}
	if err != nil {
		return nil, nil, err
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.start - b.start) })
	var out []byte
	var at int64
	for _, s := range spans {
		if s.start < at { // lies within the one before
			continue
		}
		out = append(out, text[at:s.start]...)
		at = s.end
	}
	out = append(out, text[at:]...)
	if userinfo.Match(out) {
		names = append(names, "a password in an address")
		out = userinfo.ReplaceAll(out, []byte("$1@"))
	}
	slices.Sort(names)
	return out, slices.Compact(names), nil
}

// open is an element whose end has not come.
type open struct {
	name    string
	inner   int64  // where its content begins
	text    string // its own text
	keyed   string // the text of a child called Key or Name
	value   span   // the content of a child called Value
	valueIs string
}

// xmlSecrets finds the content of elements whose name is a secret's, and of Value
// beside a Key (or Name) that is one.
func xmlSecrets(text []byte) ([]span, []string, error) {
	d := xml.NewDecoder(bytes.NewReader(text))
	var spans []span
	var names []string
	var stack []open
	take := func(s span, content, name string) {
		switch strings.ToLower(strings.TrimSpace(content)) {
		case "", "true", "false": // not set, or a switch such as EnableToken
			return
		}
		spans, names = append(spans, s), append(names, name)
	}
	for {
		before := d.InputOffset()
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return spans, names, nil
		}
		if err != nil {
			return nil, nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			for _, a := range t.Attr {
				if secretName.MatchString(a.Name.Local) && a.Value != "" {
					return nil, nil, fmt.Errorf("attribute %s of %s is a secret's", a.Name.Local, t.Name.Local)
				}
			}
			stack = append(stack, open{name: t.Name.Local, inner: d.InputOffset()})
		case xml.CharData:
			if len(stack) > 0 {
				stack[len(stack)-1].text += string(t)
			}
		case xml.EndElement:
			e := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			content := span{e.inner, before}
			if before < e.inner { // <Name/>: both tokens at one place
				content = span{e.inner, e.inner}
			}
			inner := string(text[content.start:content.end])
			if secretName.MatchString(e.name) {
				take(content, inner, e.name)
			}
			if secretName.MatchString(e.keyed) {
				take(e.value, e.valueIs, e.keyed)
			}
			if len(stack) > 0 {
				parent := &stack[len(stack)-1]
				switch e.name {
				case "Key", "Name":
					parent.keyed = strings.TrimSpace(e.text)
				case "Value":
					parent.value, parent.valueIs = content, inner
				}
			}
		}
	}
}

// jsonSecrets finds the values of members whose name is a secret's.
func jsonSecrets(text []byte) ([]span, []string, error) {
	text, cut := bytes.CutPrefix(text, []byte("\xef\xbb\xbf"))
	d := json.NewDecoder(bytes.NewReader(text))
	w := jsonWalk{d: d, text: text}
	if cut {
		w.shift = 3
	}
	err := w.value("")
	return w.spans, w.names, err
}

type jsonWalk struct {
	d     *json.Decoder
	text  []byte
	shift int64
	spans []span
	names []string
}

// value reads one value, the member of that name.
func (w *jsonWalk) value(name string) error {
	before := w.d.InputOffset()
	token, err := w.d.Token()
	if err != nil {
		return err
	}
	secret := secretName.MatchString(name)
	switch t := token.(type) {
	case json.Delim:
		for w.d.More() {
			member := name // of a list's items: the list's
			if t == '{' {
				key, err := w.d.Token()
				if err != nil {
					return err
				}
				member = key.(string) // by the grammar
				if secret {
					member = name
				}
			}
			if err := w.value(member); err != nil {
				return err
			}
		}
		_, err := w.d.Token()
		return err
	case string:
		if secret && t != "" {
			start := before + int64(bytes.IndexByte(w.text[before:], '"')) + 1
			w.spans = append(w.spans, span{start + w.shift, w.d.InputOffset() - 1 + w.shift})
			w.names = append(w.names, name)
		}
	}
	return nil
}
