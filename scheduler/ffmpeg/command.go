package ffmpeg

import (
	"io/fs"
	"path"
	"strings"
)

// Program is the tool a command line is meant for.
type Program string

// The two programs whose grammar this package knows.
const (
	FFmpeg  Program = "ffmpeg"
	FFprobe Program = "ffprobe"
)

// Host is what Parse and Decide may ask of the machine the command was given
// on. The package does no I/O of its own. The zero Host is usable: relative
// paths then stay relative, lists are not followed, and nothing is stat-ed.
type Host struct {
	// Dir is the caller's working directory, absolute.
	Dir string
	// Report is the value of the environment variable FFREPORT.
	Report string
	// ReadFile returns the contents of a concat list, a filter script or a key
	// info file. It should refuse what is larger than about 1 MiB. It is only
	// called for names that Stat (if set) calls regular files, so it cannot
	// block on a FIFO or eat somebody's bytes.
	ReadFile func(name string) ([]byte, error)
	// Stat returns the mode of a file, following symbolic links.
	Stat func(name string) (fs.FileMode, error)
}

// Device is one hardware device that the command initialises, as the value of
// -init_hw_device: TYPE[=NAME][:PATH][,OPTIONS] or TYPE[=NAME]@SOURCE.
type Device struct {
	Type   string // vaapi, qsv, cuda, drm, vulkan, opencl, ...
	Name   string // the name other options refer to it by; may be empty
	Path   string // whatever follows the colon: a node, an index, or empty
	Source string // the name of the device it derives from
	// Options is what follows the first comma: KEY=VALUE, separated by commas.
	Options string
}

// Command is one understood command line. Parse fills it; it holds no
// reference to the argv slice, only to its strings.
type Command struct {
	Program Program
	Kind    Kind
	// Operands are all files, URLs, descriptors and device nodes, in the order
	// of argv; what was found inside a list or a graph follows its container.
	Operands []Operand
	// Information is the flag (without the dash) that makes the program print
	// something about itself and exit, such as "version". Empty if there is none.
	Information string
	// ReadsStdin says that the program would read its standard input: as an
	// input, or (ffmpeg without -nostdin) for key strokes and prompts.
	ReadsStdin bool
	// StdinInput says that standard input is one of the inputs.
	StdinInput bool

	Encoders []string // named by -c and its kin before an output; not "copy", nor what a later one replaces
	Decoders []string // named by -c and its kin before an input
	HWAccels []string // values of -hwaccel
	Devices  []Device // -init_hw_device, -vaapi_device, -qsv_device
	Filters  []string // names of filters in every graph seen

	dir      string
	ins      []input
	outs     []output
	graphs   int      // complex graphs, which may have sources of their own
	dumps    bool     // -dump_attachment
	cut      bool     // more operands than Parse is willing to list
	keyframe bool     // ffprobe asked for the packets of key frames
	paced    bool     // -re, -readrate: the input is read at its own pace
	derived  []string // types of the devices that filters derive
	probeKey string   // of a hardware probe
}

// input and output remember what the options before a file said about it.
type input struct {
	operand int // index into Operands
	format  string
	source  string // lavfi: the first filter of the graph
	noVideo bool
}

type output struct {
	operand                int
	format                 string
	noVideo, noAudio       bool
	video, audio, subtitle string // codec names
	oneFrame               bool
	fragmented             bool
	vod                    bool
}

// maxOperands bounds what a hostile concat list can make Parse hold.
const maxOperands = 8192

// Parse understands the command line of ffmpeg or ffprobe. program is argv[0]
// or any path whose last component is the program's name; argv is what follows
// it. It never fails: what it does not know is taken as an option with one
// value, which is what ffmpeg itself does with the options of its libraries.
// argv is not changed.
func Parse(program string, argv []string, host Host) Command {
	p := parser{host: host, argv: argv}
	p.cmd.Program = FFmpeg
	if path.Base(program) == string(FFprobe) {
		p.cmd.Program = FFprobe
	}
	p.cmd.dir = host.Dir
	p.cmd.Operands = make([]Operand, 0, 8)
	p.run()
	p.report()
	p.cmd.ReadsStdin = p.readsStdin()
	p.cmd.Kind = classify(&p.cmd)
	if p.cmd.isHardwareProbe() {
		p.cmd.probeKey = probeKey(p.cmd.Program, argv)
	}
	return p.cmd
}

type parser struct {
	cmd   Command
	host  Host
	argv  []string
	group group
	// interactive is the last word of -stdin and -nostdin.
	noInteraction bool
	depth         int
}

// group holds the options seen since the last file: ffmpeg applies them to
// the next one, whether that is an input or an output.
type group struct {
	format                 string
	noVideo, noAudio       bool
	video, audio, subtitle string
	codecs                 []codec // in order, for Encoders or Decoders
	oneFrame               bool
	fragmented             bool
	vod                    bool
	fd                     int // value of -fd, for "fd:"
	pass                   bool
	passArg                int
	passlog                string
	// siblings are values that name files beside the output (argv indices).
	siblings []int
}

func (p *parser) run() {
	p.group.fd = -1
	for words := newScanner(p.cmd.Program, p.argv); ; {
		w, ok := words.next()
		switch {
		case !ok:
			return
		case w.Option == "":
			p.bare(w.At)
		default:
			p.option(w)
		}
	}
}

// bare takes an argument that is no option and no option's value.
func (p *parser) bare(i int) {
	if p.cmd.Program == FFprobe {
		p.input(i, p.argv[i])
		return
	}
	p.output(i, p.argv[i])
}

func (p *parser) option(w Word) {
	if isInformation(p.cmd.Program, w.Option) {
		if p.cmd.Information == "" {
			p.cmd.Information = w.Option
		}
		return
	}
	if w.Value < 0 {
		p.flag(w.At, w.Option)
		return
	}
	value := p.argv[w.Value]
	switch {
	case w.Option == "i" && w.Spec == "" && !w.FromFile:
		p.input(w.Value, value)
	case w.FromFile:
		full := strings.TrimPrefix(p.argv[w.At], "-/")
		p.addURL(Input, w.Value, value, full)
		if text, ok := p.read(len(p.cmd.Operands) - 1); ok {
			p.value(w.Value, w.Option, w.Spec, text)
		}
	default:
		p.value(w.Value, w.Option, w.Spec, value)
	}
}

func (p *parser) flag(i int, name string) {
	g := &p.group
	switch name {
	case "vn":
		g.noVideo = true
	case "an":
		g.noAudio = true
	case "re":
		p.cmd.paced = true
	case "stdin":
		p.noInteraction = false
	case "nostdin":
		p.noInteraction = true
	case "vstats":
		p.addPath(Output, i, "vstats_%H%M%S.log", name)
	case "report":
		if p.host.Report == "" {
			p.addPath(Output, i, "ffmpeg-%t.log", name)
		}
	}
}

// input takes the value of -i, or ffprobe's operand.
func (p *parser) input(i int, raw string) {
	g := &p.group
	in := input{operand: len(p.cmd.Operands), format: g.format, noVideo: g.noVideo}
	switch {
	case g.format == "lavfi":
		p.add(Operand{Role: Input, Arg: i, Raw: raw, Protocol: "lavfi", FD: -1, Option: "i"})
		seen := len(p.cmd.Filters)
		p.graph(i, raw)
		if len(p.cmd.Filters) > seen {
			in.source = p.cmd.Filters[seen]
		}
	case isDeviceFormat(g.format):
		p.add(Operand{Role: Input, Arg: i, Raw: raw, Protocol: "device", FD: -1, Option: "i"})
	default:
		p.addURL(Input, i, raw, "i")
		p.followList(in.operand, g.format == "concat")
	}
	p.cmd.ins = append(p.cmd.ins, in)
	for _, c := range g.codecs {
		p.cmd.Decoders = appendNew(p.cmd.Decoders, c.name)
	}
	p.group = group{fd: -1}
}

// output takes one of ffmpeg's output names.
func (p *parser) output(i int, raw string) {
	g := &p.group
	at := len(p.cmd.Operands)
	switch {
	case g.format == "null":
		p.add(Operand{Role: Output, Arg: i, Raw: raw, Protocol: "null", FD: -1})
	case g.format == "tee":
		p.tee(i, raw)
	case isDeviceFormat(g.format):
		p.add(Operand{Role: Output, Arg: i, Raw: raw, Protocol: "device", FD: -1})
	default:
		p.addURL(Output, i, raw, "")
	}
	format := g.format
	if format == "" && at < len(p.cmd.Operands) {
		format = formatOf(p.cmd.Operands[at].Path)
	}
	p.siblings(at)
	p.passLog(i)
	p.cmd.outs = append(p.cmd.outs, output{
		operand: at, format: format, noVideo: g.noVideo, noAudio: g.noAudio,
		video: g.video, audio: g.audio, subtitle: g.subtitle,
		oneFrame: g.oneFrame, fragmented: g.fragmented, vod: g.vod,
	})
	for _, c := range g.codecs {
		if c.name != "copy" && !(c.medium == 'v' && g.noVideo) && !(c.medium == 'a' && g.noAudio) {
			p.cmd.Encoders = appendNew(p.cmd.Encoders, c.name)
		}
	}
	p.group = group{fd: -1}
}

// siblings adds the files whose names the muxers join to the directory of the
// main output, whatever those names look like: the hls muxer's fMP4 header
// and master playlist, and dash's segments.
func (p *parser) siblings(at int) {
	g := &p.group
	if len(g.siblings) == 0 || at >= len(p.cmd.Operands) {
		return
	}
	main := p.cmd.Operands[at]
	for _, arg := range g.siblings {
		raw := p.argv[arg]
		if raw == "" || main.Path == "" {
			continue
		}
		p.add(Operand{
			Role: Output, Arg: arg, Raw: raw, Protocol: "file", FD: -1,
			Path: path.Clean(path.Dir(main.Path) + "/" + raw), Relative: main.Relative,
			Option: strings.TrimPrefix(p.argv[arg-1], "-"), beside: true,
		})
	}
}

func (p *parser) passLog(i int) {
	g := &p.group
	if !g.pass {
		return
	}
	prefix, arg := g.passlog, g.passArg
	if prefix == "" {
		prefix, arg = "ffmpeg2pass", i
	}
	p.addPath(Output, arg, prefix+"-%d.log", "passlogfile")
}

// report adds the file that FFREPORT asks for.
func (p *parser) report() {
	if p.host.Report == "" {
		return
	}
	name := "%p-%t.log"
	eachPair(p.host.Report, ":", func(key, value string) {
		if key == "file" && value != "" {
			name = value
		}
	})
	p.addPath(Output, -1, name, "FFREPORT")
}

func (p *parser) readsStdin() bool {
	c := &p.cmd
	for i := range c.Operands {
		if c.Operands[i].Role == Input && c.Operands[i].FD == 0 {
			c.StdinInput = true
		}
	}
	if c.Information != "" {
		return false
	}
	// Keys are read while transcoding, and the overwrite prompt belongs to an
	// output: without one ffmpeg exits before it looks.
	writes := len(c.outs) > 0 || c.dumps
	return c.StdinInput || c.Program == FFmpeg && writes && !p.noInteraction
}

func appendNew(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}
