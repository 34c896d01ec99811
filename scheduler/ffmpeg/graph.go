package ffmpeg

import "strings"

// space are the characters av_get_token strips.
const space = " \n\t\r"

// token is av_get_token: it skips white space, then unescapes up to the first
// character of stop that is neither quoted nor escaped, and strips white space
// from the end unless it was quoted or escaped. A backslash takes the next
// character literally, single quotes take everything up to the next one
// literally, backslashes included. rest starts with the stop character.
func token(s, stop string) (tok, rest string) {
	s = strings.TrimLeft(s, space)
	n := 0
	for n < len(s) && s[n] != '\\' && s[n] != '\'' && strings.IndexByte(stop, s[n]) < 0 {
		n++
	}
	if n == len(s) || s[n] != '\\' && s[n] != '\'' {
		return strings.TrimRight(s[:n], space), s[n:]
	}
	out := make([]byte, 0, len(s))
	out = append(out, s[:n]...)
	kept := 0 // what was escaped or quoted is never stripped
	for n < len(s) && strings.IndexByte(stop, s[n]) < 0 {
		c := s[n]
		n++
		switch {
		case c == '\\' && n < len(s):
			out = append(out, s[n])
			n++
			kept = len(out)
		case c == '\'':
			end := strings.IndexByte(s[n:], '\'')
			if end < 0 {
				out = append(out, s[n:]...)
				n = len(s)
				break
			}
			out = append(out, s[n:n+end]...)
			n += end + 1
			kept = len(out)
		default:
			out = append(out, c)
		}
	}
	for len(out) > kept && strings.IndexByte(space, out[len(out)-1]) >= 0 {
		out = out[:len(out)-1]
	}
	return string(out), s[n:]
}

// pair is av_opt_get_key_value with '=' between key and value: it takes one
// "key=value" or, when no key stands there, a value alone.
func pair(s, stop string) (key, value, rest string) {
	t := strings.TrimLeft(s, space)
	n := 0
	for n < len(t) && isKeyChar(t[n]) {
		n++
	}
	after := strings.TrimLeft(t[n:], space)
	if n > 0 && strings.HasPrefix(after, "=") {
		value, rest = token(after[1:], stop)
		return t[:n], value, rest
	}
	value, rest = token(s, stop)
	return "", value, rest
}

func isKeyChar(c byte) bool {
	return c|32 >= 'a' && c|32 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '/' || c == '.'
}

// eachPair calls do for every key=value of a list; a value alone has key "".
func eachPair(list, separator string, do func(key, value string)) {
	for list != "" {
		key, value, rest := pair(list, separator)
		do(key, value)
		if rest == "" {
			return
		}
		list = rest[1:]
	}
}

// Filter is one filter of a graph.
type Filter struct {
	// Before is the text between the filter before it and this one as it
	// stands: separators, link labels, white space.
	Before string
	// Text is the filter as it stands: "name@id=arguments".
	Text string
	// Name is its name without the instance.
	Name string
	// Arguments has lost the level of escaping that the graph takes.
	Arguments string
}

// Filters takes a filter graph apart. The texts of the filters, each after its
// Before, and tail make up the graph again, byte for byte.
func Filters(graph string) (filters []Filter, tail string) {
	tail = eachFilter(graph, func(f Filter) { filters = append(filters, f) })
	return filters, tail
}

// Options calls do for each "key=value" of a filter's arguments, in order; a
// value alone has key "".
func Options(arguments string, do func(key, value string)) { eachPair(arguments, ":", do) }

// graph finds the filters of a filter graph, and the files they name.
func (p *parser) graph(arg int, text string) {
	eachFilter(text, func(f Filter) {
		if f.Name != "" && f.Name != "sws_flags" {
			p.cmd.Filters = appendNew(p.cmd.Filters, f.Name)
			p.filter(arg, f.Name, f.Arguments)
			p.derives(f)
		}
	})
}

// derives notes the device that a filter makes from another.
func (p *parser) derives(f Filter) {
	switch f.Name {
	case "hwupload", "hwmap":
		eachPair(f.Arguments, ":", func(key, value string) {
			if key == "derive_device" {
				p.cmd.derived = appendNew(p.cmd.derived, value)
			}
		})
	case "hwupload_cuda":
		p.cmd.derived = appendNew(p.cmd.derived, "cuda")
	}
}

// eachFilter walks a filter graph: chains separated by ';', filters by ',', each
// "[in]name@id=arguments[out]". The arguments lose one level of escaping here
// and a second when they are split at ':'. It returns what follows the last.
func eachFilter(text string, do func(Filter)) (tail string) {
	before := text
	s := skipLabels(text)
	for s != "" {
		f := Filter{Before: before[:len(before)-len(s)]}
		name, rest := token(s, "=,;[")
		if strings.HasPrefix(rest, "=") {
			f.Arguments, rest = token(rest[1:], "[],;")
		}
		f.Name, _, _ = strings.Cut(name, "@")
		f.Text = s[:len(s)-len(rest)]
		before = rest
		do(f)
		s = skipLabels(rest)
		if s != "" && len(s) <= len(rest) && (s[0] == ',' || s[0] == ';' || s[0] == ']') {
			s = skipLabels(s[1:])
		}
	}
	return before
}

// skipLabels skips white space and link labels. Labels are tokens too.
func skipLabels(s string) string {
	for {
		s = strings.TrimLeft(s, space)
		if !strings.HasPrefix(s, "[") {
			return s
		}
		_, s = token(s[1:], "]")
		s = strings.TrimPrefix(s, "]")
	}
}

// fileOption is an option of a filter that names a file.
type fileOption struct {
	name, alias string
	position    int // among the filter's unnamed arguments, -1 if hardly ever
	role        Role
	url         bool   // goes through the protocol layer
	byDefault   string // opened when the option is missing
}

// fileOptions knows the filters that open files. known is false for filters
// it has never heard of as well as for those that open none.
func fileOptions(filter string) (options []fileOption, known bool) {
	switch filter {
	case "subtitles":
		return []fileOption{{name: "filename", alias: "f", role: Input, url: true},
			{name: "fontsdir", position: 2, role: Input}}, true
	case "ass":
		return []fileOption{{name: "filename", alias: "f", role: Input},
			{name: "fontsdir", position: 2, role: Input}}, true
	case "movie", "amovie":
		return []fileOption{{name: "filename", role: Input, url: true}}, true
	case "lut1d", "lut3d":
		return []fileOption{{name: "file", role: Input}}, true
	case "drawtext":
		return []fileOption{{name: "fontfile", role: Input},
			{name: "textfile", position: 2, role: Input}}, true
	case "arnndn":
		return []fileOption{{name: "model", alias: "m", role: Input}}, true
	case "libvmaf", "libvmaf_cuda":
		return []fileOption{{name: "model_path", position: -1, role: Input},
			{name: "log_path", position: -1, role: Output}}, true
	case "psnr", "ssim", "vmafmotion", "xpsnr":
		return []fileOption{{name: "stats_file", alias: "f", role: Output}}, true
	case "sendcmd", "asendcmd":
		return []fileOption{{name: "filename", alias: "f", position: 1, role: Input}}, true
	case "metadata", "ametadata":
		return []fileOption{{name: "file", position: 5, role: Output, url: true}}, true
	case "vidstabdetect":
		return []fileOption{{name: "result", role: Output, byDefault: "transforms.trf"}}, true
	case "vidstabtransform":
		return []fileOption{{name: "input", role: Input, byDefault: "transforms.trf"}}, true
	case "removelogo", "cellauto", "life":
		return []fileOption{{name: "filename", alias: "f", role: Input}}, true
	case "deshake":
		return []fileOption{{name: "filename", position: 10, role: Output}}, true
	case "signature":
		return []fileOption{{name: "filename", position: -1, role: Output}}, true
	case "curves":
		return []fileOption{{name: "psfile", position: 6, role: Input},
			{name: "plot", position: 7, role: Output}}, true
	}
	return rareFileOptions(filter)
}

func rareFileOptions(filter string) ([]fileOption, bool) {
	one := func(name string, position int, role Role) ([]fileOption, bool) {
		return []fileOption{{name: name, position: position, role: role}}, true
	}
	switch filter {
	case "selectivecolor":
		return one("psfile", -1, Input)
	case "cover_rect":
		return one("cover", 0, Input)
	case "find_rect":
		return one("object", 0, Input)
	case "fieldhint":
		return one("hint", 0, Input)
	case "nnedi":
		return []fileOption{{name: "weights", role: Input, byDefault: "nnedi3_weights.bin"}}, true
	case "sofalizer":
		return one("sofa", 0, Input)
	case "program_opencl", "openclsrc":
		return one("source", 0, Input)
	case "xfade_opencl":
		return one("source", -1, Input)
	case "libplacebo":
		return []fileOption{{name: "custom_shader_path", position: -1, role: Input},
			{name: "lut", position: -1, role: Input}}, true
	case "showcqt":
		return []fileOption{{name: "fontfile", position: -1, role: Input},
			{name: "axisfile", position: -1, role: Input}}, true
	case "dnn_processing", "dnn_detect", "dnn_classify", "derain", "sr":
		return []fileOption{{name: "model", position: -1, role: Input},
			{name: "labels", position: -1, role: Input}}, true
	case "firequalizer":
		return one("dumpfile", -1, Output)
	case "paletteuse":
		return one("debug_kdtree", -1, Output)
	case "flite", "qrencode", "qrencodesrc":
		return one("textfile", -1, Input)
	case "asr":
		return []fileOption{{name: "hmm", position: 1, role: Input}, {name: "dict", position: 2, role: Input},
			{name: "lm", position: 3, role: Input}, {name: "lmctl", position: 4, role: Input}}, true
	case "whisper":
		return []fileOption{{name: "model", role: Input}, {name: "vad_model", position: -1, role: Input},
			{name: "destination", position: -1, role: Output, url: true}}, true
	case "lensfun":
		return one("db_path", -1, Input)
	case "ocr":
		return one("datapath", 0, Input)
	}
	return nil, false
}

// filter finds the files among the arguments of one filter.
func (p *parser) filter(arg int, name, arguments string) {
	options, known := fileOptions(name)
	if arguments == "" && !known {
		return
	}
	var seen uint
	position, named := 0, false
	eachPair(arguments, ":", func(key, value string) {
		at := -1
		if key == "" && !named {
			at = position
			position++
		} else {
			named = true
		}
		if file, ok := strings.CutPrefix(key, "/"); ok && file != "" {
			p.addURL(Input, arg, value, name) // ffmpeg 7: /option=file holds the value
			return
		}
		for i := range options {
			o := &options[i]
			if key != "" && (key == o.name || key == o.alias) || at >= 0 && at == o.position {
				seen |= 1 << i
				p.filterFile(arg, name, o, value)
				return
			}
		}
		switch {
		case name == "libvmaf" && key == "model":
			p.vmafModels(arg, value)
		case (!known || name == "ladspa") && len(value) > 1 && value[0] == '/':
			p.addPath(Input, arg, value, name)
		}
	})
	for i := range options {
		if options[i].byDefault != "" && seen&(1<<i) == 0 {
			p.filterFile(arg, name, &options[i], options[i].byDefault)
		}
	}
}

func (p *parser) filterFile(arg int, filter string, o *fileOption, value string) {
	switch {
	case value == "":
	case o.url || value == "-":
		p.addURL(o.role, arg, value, filter)
	default:
		p.addPath(o.role, arg, value, filter)
	}
}

// vmafModels takes libvmaf's "path=...:name=...|version=...".
func (p *parser) vmafModels(arg int, models string) {
	for _, model := range strings.Split(models, "|") {
		eachPair(model, ":", func(key, value string) {
			if key == "path" && value != "" {
				p.addPath(Input, arg, value, "libvmaf")
			}
		})
	}
}
