package ffmpeg

import (
	"path"
	"strings"
)

// Role says what a command does with an operand.
type Role string

// Roles of operands. A Node is a device such as /dev/dri/renderD128 that an
// option names: it is a wish for hardware, never a shared file.
const (
	Input  Role = "input"
	Output Role = "output"
	Node   Role = "device"
)

// Operand is one file, URL, descriptor or device of a command line.
type Operand struct {
	Role Role `json:"role"`
	// Path is the cleaned absolute path, empty for what is no file. Patterns
	// (%d, %v, strftime) stay in it as they are. It is text: no symbolic link
	// in it was resolved.
	Path string `json:"path"`
	// Raw is what the operand was made from: the argument, or the part of it
	// (of a graph, of a list) that names this operand, unescaped.
	Raw string `json:"raw"`
	// Protocol is how ffmpeg reaches it: "file", "pipe", "fd", "unix", "lavfi"
	// (a graph as input), "null" (a muxer that writes nothing), "data" (the
	// bytes are in the URL), "device" (a capture or output device), a network
	// protocol such as "http", or else whatever unknown word stood there.
	Protocol string `json:"protocol"`
	// Arg is the index in argv of the argument it was found in, -1 if it came
	// from the environment.
	Arg int `json:"arg"`
	// Option is the option or the filter it belongs to, "i" for inputs and
	// empty for outputs.
	Option string `json:"-"`
	// FD is the descriptor of a "pipe" or "fd" operand, else -1.
	FD int `json:"-"`
	// Relative says that Path depends on the working directory.
	Relative bool `json:"-"`
	// Unread says that the operand lists others which could not be read.
	Unread bool `json:"-"`

	beside bool // the output muxer puts it beside the main output
}

// add appends an operand, up to the bound.
func (p *parser) add(o Operand) {
	if len(p.cmd.Operands) >= maxOperands {
		p.cmd.cut = true
		return
	}
	p.cmd.Operands = append(p.cmd.Operands, o)
}

// addPath adds a name that ffmpeg or a library hands to open(2) as it is.
func (p *parser) addPath(role Role, arg int, name, option string) {
	o := Operand{Role: role, Arg: arg, Raw: name, Protocol: "file", FD: -1, Option: option}
	p.resolve(&o, name)
	p.add(o)
}

// resolve makes o a file called name, or one of the names in /dev that are no
// files.
func (p *parser) resolve(o *Operand, name string) {
	o.Protocol = "file"
	if name == "" {
		if o.Option == "dump_attachment" {
			// The tags of the attachments name the files, in the directory.
			o.Path, o.Relative = p.host.Dir, true
		}
		return
	}
	if name[0] != '/' {
		o.Relative = true
		if p.host.Dir != "" {
			name = p.host.Dir + "/" + name
		}
	}
	o.Path = path.Clean(name)
	if o.Role == Node || !strings.HasPrefix(o.Path, "/dev/") && !strings.HasPrefix(o.Path, "/proc/") {
		return
	}
	switch o.Path {
	case "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom":
		o.Path, o.Relative = "", false
		o.Protocol = "null"
		return
	case "/dev/stdin":
		o.FD = 0
	case "/dev/stdout":
		o.FD = 1
	case "/dev/stderr":
		o.FD = 2
	default:
		for _, dir := range [...]string{"/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"} {
			if n, ok := strings.CutPrefix(o.Path, dir); ok {
				o.FD = descriptor(n, unknownFD)
			}
		}
	}
	if o.FD >= 0 {
		o.Path, o.Protocol = "", "pipe"
	}
}

// unknownFD stands for a descriptor whose number could not be read: it is
// above 2, so it never travels.
const unknownFD = 1 << 20

func descriptor(s string, otherwise int) int {
	if s == "" || len(s) > 6 {
		return otherwise
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return otherwise
		}
		n = n*10 + int(s[i]-'0')
	}
	return n
}

// addURL adds a name that goes through ffmpeg's protocol layer.
func (p *parser) addURL(role Role, arg int, raw, option string) {
	o := Operand{Role: role, Arg: arg, Raw: raw, FD: -1, Option: option}
	standard := 0
	if role == Output {
		standard = 1
	}
	if raw == "-" {
		o.Protocol, o.FD = "pipe", standard
		p.add(o)
		return
	}
	scheme, rest := splitScheme(raw)
	switch scheme {
	case "":
		p.resolve(&o, raw)
	case "file":
		p.resolve(&o, rest)
	case "bluray", "dvd", "md5", "MD5":
		p.resolve(&o, rest)
		o.Protocol = scheme
	case "pipe":
		o.Protocol, o.FD = scheme, descriptor(rest, standard)
	case "fd":
		o.Protocol, o.FD = scheme, standard
		if p.group.fd >= 0 {
			o.FD = p.group.fd
		}
	case "concat":
		p.nested(role, arg, strings.Split(rest, "|"), option)
		return
	case "tee":
		p.tee(arg, rest)
		return
	case "subfile":
		p.nested(role, arg, []string{rest}, option)
		return
	case "crypto", "cache", "async", "hls":
		p.nested(role, arg, []string{rest}, option)
		return
	case "concatf":
		p.resolve(&o, strings.TrimPrefix(rest, "file:"))
		p.add(o)
		p.followNames(len(p.cmd.Operands) - 1)
		return
	default:
		o.Protocol = scheme
	}
	p.add(o)
}

// maxDepth bounds lists in lists and protocols in protocols.
const maxDepth = 8

func (p *parser) nested(role Role, arg int, names []string, option string) {
	if p.depth >= maxDepth {
		p.cmd.cut = true
		return
	}
	p.depth++
	for _, name := range names {
		p.addURL(role, arg, name, option)
	}
	p.depth--
}

// splitScheme cuts a URL as libavformat does: the longest run of letters,
// digits, '+', '-' and '.' is a protocol if a colon follows. "subfile" may
// carry options before its colon, "a+b:" is protocol a around b.
func splitScheme(url string) (scheme, rest string) {
	n := 0
	for n < len(url) && isSchemeChar(url[n]) {
		n++
	}
	if n == len(url) {
		return "", url
	}
	if strings.HasPrefix(url, "subfile,") {
		if rest, ok := cutSubfile(url[len("subfile,"):]); ok {
			return "subfile", rest
		}
	}
	if url[n] != ':' || n == 0 {
		return "", url
	}
	if outer, inner, ok := strings.Cut(url[:n], "+"); ok {
		switch outer {
		case "crypto", "hls":
			return outer, inner + url[n:]
		}
	}
	return url[:n], url[n+1:]
}

func isSchemeChar(c byte) bool {
	return c|32 >= 'a' && c|32 <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.'
}

// cutSubfile skips the options of subfile: after "subfile," comes a separator
// of the caller's choice, then key and value pairs, each followed by the
// separator, then one more separator, a colon and the URL.
func cutSubfile(s string) (string, bool) {
	if s == "" {
		return "", false
	}
	sep := s[0]
	s = s[1:]
	for {
		key := strings.IndexByte(s, sep)
		if key < 0 {
			return "", false
		}
		if key == 0 {
			rest, ok := strings.CutPrefix(s[1:], ":")
			return rest, ok
		}
		value := strings.IndexByte(s[key+1:], sep)
		if value < 0 {
			return "", false
		}
		s = s[key+1+value+1:]
	}
}

// isNetwork knows the protocols of libavformat (and the demuxers that behave
// like protocols) that open a network connection.
func isNetwork(protocol string) bool {
	switch protocol {
	case "http", "https", "httpproxy", "rtsp", "rtsps", "rtp", "srtp", "udp", "udplite",
		"tcp", "tls", "dtls", "sctp", "srt", "rist", "rtmp", "rtmps", "rtmpt", "rtmpe",
		"rtmpte", "rtmpts", "ffrtmphttp", "ffrtmpcrypt", "ftp", "sftp", "smb", "mmsh",
		"mmst", "mms", "icecast", "gopher", "gophers", "sap", "satip", "amqp", "amqps",
		"zmq", "ipfs", "ipns", "prompeg", "whip", "whips":
		return true
	}
	return false
}

// isInline says that an operand needs nothing from any file system.
func isInline(protocol string) bool {
	switch protocol {
	case "lavfi", "null", "data", "pipe", "fd":
		return true
	}
	return false
}

// isLoopback reports whether a URL means the machine that opens it: its host
// is the loopback address, or missing or unspecified, which listens.
func isLoopback(url string) bool {
	host, ok := hostOf(url)
	if !ok {
		return false
	}
	switch host {
	case "", "*", "0", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1", "localhost", "ip6-localhost", "ip6-loopback":
		return true
	}
	return isLoopback4(host) || strings.HasSuffix(host, ".localhost")
}

// hostOf is the host of a URL, in lower case, without port, brackets and a last dot.
func hostOf(url string) (string, bool) {
	_, rest, ok := strings.Cut(url, ":")
	if !ok {
		return "", false
	}
	rest = strings.TrimPrefix(rest, "//")
	if n := strings.IndexAny(rest, "/?#"); n >= 0 {
		rest = rest[:n]
	}
	if n := strings.LastIndexByte(rest, '@'); n >= 0 {
		rest = rest[n+1:]
	}
	host := rest
	if strings.HasPrefix(rest, "[") {
		host, _, _ = strings.Cut(rest[1:], "]")
	} else if n := strings.LastIndexByte(rest, ':'); n >= 0 {
		host = rest[:n]
	}
	return strings.TrimSuffix(strings.ToLower(host), "."), true
}

func isLoopback4(host string) bool {
	if !strings.HasPrefix(host, "127.") {
		return false
	}
	for i := 0; i < len(host); i++ {
		if host[i] != '.' && (host[i] < '0' || host[i] > '9') {
			return false
		}
	}
	return true
}

// isDeviceFormat knows the demuxers and muxers of libavdevice: their "file" is
// a device of the machine.
func isDeviceFormat(format string) bool {
	switch format {
	case "alsa", "android_camera", "audiotoolbox", "avfoundation", "bktr", "caca",
		"decklink", "fbdev", "iec61883", "jack", "kmsgrab", "libcdio", "libdc1394",
		"openal", "opengl", "oss", "pulse", "sdl", "sdl2", "sndio", "v4l2",
		"video4linux2", "x11grab", "xcbgrab", "xv":
		return true
	}
	return false
}
