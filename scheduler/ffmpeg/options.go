package ffmpeg

import (
	"slices"
	"strings"
)

// isInformation reports whether the option makes the program print something
// and exit (OPT_EXIT in ffmpeg's tables). ffmpeg lets such an option take the
// next argument as an optional topic.
func isInformation(program Program, name string) bool {
	switch name {
	case "L", "h", "?", "help", "-help", "version", "buildconf", "formats",
		"muxers", "demuxers", "devices", "codecs", "decoders", "encoders",
		"bsfs", "protocols", "filters", "pix_fmts", "layouts", "sample_fmts",
		"dispositions", "colors", "sources", "sinks":
		return true
	case "hwaccels":
		return program == FFmpeg
	case "sections":
		return program == FFprobe
	}
	return false
}

// takesValue reports whether the option uses the next argument. All do but the
// flags of the programs' own tables: options of the libraries always have a
// value, be it 0 or 1.
func takesValue(program Program, name string) bool {
	if isFlag(program, name) {
		return false
	}
	positive, negated := strings.CutPrefix(name, "no")
	return !negated || !isBool(program, positive) && !versionedFlag(positive)
}

// isFlag knows the options without a value of ffmpeg 4.4 to 8.
func isFlag(program Program, name string) bool {
	switch name {
	case "report":
		return true
	case "vstats", "qphist", "deinterlace", "intra", "sameq", "same_quant":
		return program == FFmpeg
	case "pretty", "show_error", "show_format", "show_frames", "show_packets",
		"show_programs", "show_stream_groups", "show_streams", "show_chapters",
		"show_program_version", "show_library_versions", "show_versions",
		"show_pixel_formats":
		return program == FFprobe
	}
	return isBool(program, name)
}

// isBool knows the flags that "no" negates.
func isBool(program Program, name string) bool {
	switch name {
	case "hide_banner", "bitexact", "find_stream_info":
		return true
	}
	if program == FFprobe {
		switch name {
		case "unit", "prefix", "byte_binary_prefix", "sexagesimal", "show_data",
			"count_frames", "count_packets", "show_private_data", "private",
			"analyze_frames", "only_first_vframe":
			return true
		}
		return false
	}
	switch name {
	case "y", "n", "ignore_unknown", "copy_unknown", "recast_media", "stats",
		"benchmark", "benchmark_all", "stdin", "dump", "hex", "re", "copyts",
		"start_at_zero", "shortest", "xerror", "copyinkf", "accurate_seek",
		"auto_conversion_filters", "debug_ts", "psnr", "vn", "an", "sn", "dn",
		"force_fps", "fix_sub_duration", "fix_sub_duration_heartbeat",
		"display_hflip", "display_vflip", "print_graphs":
		return true
	}
	return false
}

// versionedFlag names the options that have a 0 or 1 before ffmpeg 7 and no
// value since; the value is recognised by what it is. Negated they never had one.
func versionedFlag(name string) bool {
	switch name {
	case "autorotate", "autoscale":
		return true
	}
	return false
}

// value applies one option with a value. arg is the value's index in argv;
// value differs from argv[arg] when the option was read from a file.
func (p *parser) value(arg int, name, spec, value string) {
	if p.cmd.Program == FFprobe {
		p.probeValue(arg, name, value)
		return
	}
	g := &p.group
	switch name {
	case "f":
		g.format = value
	case "c", "codec", "vcodec", "acodec", "scodec", "dcodec":
		p.codec(name, spec, value)
	case "vframes":
		g.oneFrame = value == "1"
	case "frames":
		if spec == "" || spec[0] == 'v' {
			g.oneFrame = value == "1"
		}
	case "vf", "af", "filter":
		p.graph(arg, value)
	case "filter_complex", "lavfi":
		p.cmd.graphs++
		p.graph(arg, value)
	case "movflags":
		g.fragmented = g.fragmented || strings.Contains(value, "frag_") || strings.Contains(value, "empty_moov")
	case "hls_playlist_type":
		g.vod = value == "vod"
	case "fd":
		g.fd = descriptor(value, -1)
	case "pass":
		g.pass = true
	case "passlogfile":
		g.passlog, g.passArg = value, arg
	case "hwaccel":
		if value != "none" {
			p.cmd.HWAccels = appendNew(p.cmd.HWAccels, value)
		}
	case "init_hw_device":
		p.initDevice(arg, value)
	case "vaapi_device", "qsv_device":
		p.cmd.Devices = append(p.cmd.Devices, Device{Type: strings.TrimSuffix(name, "_device"), Path: value})
		p.node(arg, value, name)
	case "hwaccel_device":
		p.node(arg, value, name)
	case "readrate":
		p.cmd.paced = strings.Trim(value, "0.") != ""
	case "x264opts", "x264-params", "x265-params", "svtav1-params":
		p.encoderFiles(arg, value, name)
	case "hls_fmp4_init_filename", "master_pl_name", "init_seg_name", "media_seg_name",
		"hls_master_name", "single_file_name":
		g.siblings = append(g.siblings, arg)
	default:
		p.fileValue(arg, name, value)
	}
}

// fileValue applies the options whose whole value is a file or a URL.
func (p *parser) fileValue(arg int, name, value string) {
	switch name {
	case "filter_script", "filter_complex_script":
		if name == "filter_complex_script" {
			p.cmd.graphs++
		}
		p.addURL(Input, arg, value, name)
		if text, ok := p.read(len(p.cmd.Operands) - 1); ok {
			p.graph(arg, text)
		}
	case "dump_attachment":
		p.cmd.dumps = true
		p.addURL(Output, arg, value, name)
	case "attach", "graph_file":
		p.addURL(Input, arg, value, name)
	case "hls_key_info_file":
		p.addURL(Input, arg, value, name)
		p.keyInfo(len(p.cmd.Operands) - 1)
	case "hls_segment_filename", "hls_subtitle_path", "segment_list", "segment_header_filename",
		"progress", "stats_enc_pre", "stats_enc_post", "stats_mux_pre":
		p.addURL(Output, arg, value, name)
	case "stats_file", "vstats_file", "sdp_file", "print_graphs_file":
		p.addPath(Output, arg, value, name)
	case "fpre", "ca_file", "cafile", "cert_file", "key_file", "sub_name":
		p.addPath(Input, arg, value, name)
	case "assetmaps":
		for _, one := range strings.Split(value, ",") {
			p.addURL(Input, arg, one, name)
		}
	}
}

// probeValue applies the options of ffprobe that matter here.
func (p *parser) probeValue(arg int, name, value string) {
	switch name {
	case "f":
		p.group.format = value
	case "fd":
		p.group.fd = descriptor(value, -1)
	case "o":
		p.addURL(Output, arg, value, name)
	case "show_entries":
		p.cmd.keyframe = p.cmd.keyframe || strings.Contains(value, "packet=")
	case "c", "codec", "vcodec", "acodec", "scodec", "dcodec":
		p.cmd.Decoders = appendNew(p.cmd.Decoders, value)
	case "ca_file", "cafile", "cert_file", "key_file", "sub_name":
		p.addPath(Input, arg, value, name)
	}
}

// codec is the value of one -c that counts.
type codec struct {
	medium byte   // v, a, s, d, t, or 0 for all
	spec   string // the stream specifier; "" after one of the old spellings
	name   string
}

// codec applies -c and its older spellings. The last matching option wins, so
// one for all streams replaces all before it, and one for all streams of a
// type those of that type. One for a single stream adds to them: "copy" for it
// says nothing about its neighbours.
func (p *parser) codec(name, spec, value string) {
	g := &p.group
	kind, one := byte(0), false
	switch {
	case name == "vcodec" || name == "acodec" || name == "scodec" || name == "dcodec":
		kind = name[0]
	case spec != "":
		kind, one = spec[0]|32, len(spec) > 1
	default:
		g.video, g.audio, g.subtitle = value, value, value
	}
	g.codecs = slices.DeleteFunc(g.codecs, func(c codec) bool {
		return kind == 0 || kind == c.medium && (!one || spec == c.spec)
	})
	g.codecs = append(g.codecs, codec{medium: kind, spec: spec, name: value})
	var stream *string
	switch kind {
	case 'v':
		stream = &g.video
	case 'a':
		stream = &g.audio
	case 's':
		stream = &g.subtitle
	default:
		return
	}
	if !one || value != "copy" || *stream == "" {
		*stream = value
	}
}

// encoderFiles finds files in the parameter lists of encoder libraries.
func (p *parser) encoderFiles(arg int, list, option string) {
	eachPair(list, ":", func(key, value string) {
		switch key {
		case "stats", "csv", "dump-yuv", "dump_yuv", "recon", "analysis-save":
			p.addPath(Output, arg, value, option)
		case "qpfile", "cqmfile", "analysis-load", "scaling-list", "lambda-file",
			"zonefile", "dhdr10-info", "dolby-vision-rpu", "film-grain", "fgs-table":
			p.addPath(Input, arg, value, option)
		}
	})
}

// initDevice takes the value of -init_hw_device.
func (p *parser) initDevice(arg int, value string) {
	if value == "list" {
		if p.cmd.Information == "" {
			p.cmd.Information = "init_hw_device list"
		}
		return
	}
	var d Device
	rest := value
	take := func(stop string) string {
		n := strings.IndexAny(rest, stop)
		if n < 0 {
			n = len(rest)
		}
		head := rest[:n]
		rest = rest[n:]
		return head
	}
	d.Type = take("=:@,")
	if strings.HasPrefix(rest, "=") {
		rest = rest[1:]
		d.Name = take(":@,")
	}
	switch {
	case strings.HasPrefix(rest, "@"):
		rest = rest[1:]
		d.Source = take(",")
	case strings.HasPrefix(rest, ":"):
		rest = rest[1:]
		d.Path = take(",")
	}
	d.Options = strings.TrimPrefix(rest, ",")
	p.cmd.Devices = append(p.cmd.Devices, d)
	p.node(arg, d.Path, "init_hw_device")
	for strings.HasPrefix(rest, ",") {
		rest = rest[1:]
		if key, node, ok := strings.Cut(take(","), "="); ok && key == "child_device" {
			p.node(arg, node, "init_hw_device")
		}
	}
}

// node records a device node; an index, a display or a name is none.
func (p *parser) node(arg int, value, option string) {
	if strings.HasPrefix(value, "/") {
		p.addPath(Node, arg, value, option)
	}
}
