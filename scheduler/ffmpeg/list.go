package ffmpeg

import (
	"path"
	"strings"
)

// read returns the text of the file operand at index i. It marks the operand
// as unread when that is not possible, because what it names is then unknown.
func (p *parser) read(i int) (string, bool) {
	if i < 0 || i >= len(p.cmd.Operands) || p.cmd.cut {
		return "", false
	}
	o := &p.cmd.Operands[i]
	o.Unread = true
	if p.host.ReadFile == nil || o.Path == "" || o.Protocol != "file" || p.depth >= maxDepth {
		return "", false
	}
	if p.host.Stat != nil {
		if mode, err := p.host.Stat(o.Path); err != nil || !mode.IsRegular() {
			return "", false
		}
	}
	data, err := p.host.ReadFile(o.Path)
	if err != nil {
		return "", false
	}
	o.Unread = false
	return string(data), true
}

// followList adds the files of the concat script at operand i. Without
// "-f concat" ffmpeg recognises a script by its first line; only names that
// promise one are opened to look.
func (p *parser) followList(i int, forced bool) {
	if i >= len(p.cmd.Operands) {
		return
	}
	if !forced && !promisesScript(p.cmd.Operands[i].Path) {
		return
	}
	text, ok := p.read(i)
	if !ok {
		// A forced list is a list, whatever it holds.
		p.cmd.Operands[i].Unread = p.cmd.Operands[i].Unread && forced
		return
	}
	if !forced && !strings.HasPrefix(text, "ffconcat version") {
		return
	}
	list := p.cmd.Operands[i]
	p.depth++
	defer func() { p.depth-- }()
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		line = strings.TrimLeft(line, space)
		keyword, rest := cutSpace(line)
		if keyword != "file" {
			continue
		}
		name, _ := token(rest, space)
		at := len(p.cmd.Operands)
		p.listed(&list, name)
		if p.cmd.cut {
			return
		}
		p.followList(at, false)
	}
}

func promisesScript(name string) bool {
	switch path.Ext(name) {
	case ".ffconcat", ".concat":
		return true
	}
	return false
}

func cutSpace(s string) (head, tail string) {
	if n := strings.IndexAny(s, space); n >= 0 {
		return s[:n], s[n:]
	}
	return s, ""
}

// listed adds a file named in a list: what starts with a protocol, known or
// not, stands for itself, everything else is relative to the directory of the
// list.
func (p *parser) listed(list *Operand, name string) {
	if scheme, _ := splitScheme(name); scheme != "" {
		p.nested(Input, list.Arg, []string{name}, "list")
		return
	}
	o := Operand{Role: Input, Arg: list.Arg, Raw: name, Protocol: "file", FD: -1, Option: "list"}
	if name != "" && name[0] != '/' {
		p.resolve(&o, path.Dir(list.Path)+"/"+name)
		o.Relative = list.Relative
	} else {
		p.resolve(&o, name)
	}
	p.add(o)
}

// followNames adds the URLs of a "concatf:" list: one token per line.
func (p *parser) followNames(i int) {
	text, ok := p.read(i)
	if !ok {
		return
	}
	arg := p.cmd.Operands[i].Arg
	for text != "" {
		var name string
		name, text = token(text, "\r\n")
		text = strings.TrimLeft(text, "\r\n")
		if name != "" {
			p.nested(Input, arg, []string{name}, "concatf")
		}
	}
}

// keyInfo adds the key file that the second line of a key info file names.
func (p *parser) keyInfo(i int) {
	text, ok := p.read(i)
	if !ok {
		return
	}
	arg := p.cmd.Operands[i].Arg
	_, text, _ = strings.Cut(text, "\n")
	line, _, _ := strings.Cut(text, "\n")
	if line = strings.TrimSuffix(line, "\r"); line != "" {
		p.addURL(Input, arg, line, "hls_key_info_file")
	}
}

// tee takes the outputs of the tee muxer: "[options]url|[options]url".
func (p *parser) tee(arg int, raw string) {
	for {
		slave, rest := token(raw, "|")
		format := ""
		if strings.HasPrefix(slave, "[") {
			slave, format = teeOptions(slave[1:])
		}
		if format == "null" {
			p.add(Operand{Role: Output, Arg: arg, Raw: slave, Protocol: "null", FD: -1})
		} else {
			p.nested(Output, arg, []string{slave}, "tee")
		}
		if rest == "" {
			return
		}
		raw = rest[1:]
	}
}

func teeOptions(s string) (url, format string) {
	for {
		key, value, rest := pair(s, ":]")
		if key == "f" {
			format = value
		}
		if rest == "" {
			return "", format
		}
		s = rest[1:]
		if rest[0] == ']' {
			return s, format
		}
	}
}
