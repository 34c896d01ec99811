package ffmpeg

import (
	"slices"
	"strings"
)

// Requirements is what a command asks of the machine that runs it, beside its
// files.
type Requirements struct {
	// Capabilities are KIND:NAME, sorted, each once. KIND is encoder, decoder,
	// filter, hwaccel or device, NAME is as ffmpeg's own lists have it. They are
	// those that the command line names: what ffmpeg picks by itself, such as
	// the encoder for the name of an output, is not among them.
	Capabilities []string `json:"capabilities"`
	// Hardware are the makers of whom one must have made the GPU, sorted: amd,
	// intel, nvidia. None means that no maker is named.
	Hardware []string `json:"hardware"`
	// Realtime says that somebody waits for each second of it, or that the input
	// comes at its own pace; all else is a batch.
	Realtime bool `json:"realtime"`
	// Network says that it opens a connection.
	Network bool `json:"network"`
}

// Requirements tells what the command needs. Commands that ask about the
// program itself need nothing.
func (c Command) Requirements() Requirements {
	if c.Information != "" {
		return Requirements{Capabilities: []string{}, Hardware: []string{}}
	}
	return Requirements{
		Capabilities: c.capabilities(), Hardware: c.hardware(),
		Realtime: c.realtime(), Network: c.network(),
	}
}

func (c *Command) capabilities() []string {
	all := make([]string, 0, 8)
	add := func(kind, name string) {
		if isName(name) {
			all = append(all, kind+":"+name)
		}
	}
	for _, name := range c.Encoders {
		if !isCodecOnly(name) {
			add("encoder", name)
		}
	}
	for _, name := range c.Decoders {
		if !isCodecOnly(name) {
			add("decoder", name)
		}
	}
	for _, name := range c.HWAccels {
		switch name {
		case "auto": // takes what there is
		case "nvdec", "cuvid": // other names of the same
			add("hwaccel", "cuda")
		default:
			add("hwaccel", name)
		}
	}
	for _, d := range c.Devices {
		add("device", d.Type)
	}
	for _, d := range c.derived {
		add("device", d)
	}
	for _, name := range c.Filters {
		add("filter", name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// isName keeps out what can be no name in ffmpeg's lists, such as what is left
// of a graph that ffmpeg will refuse.
func isName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c|32 < 'a' || c|32 > 'z' {
			if (c < '0' || c > '9') && c != '_' && c != '-' {
				return false
			}
		}
	}
	return s != ""
}

// isCodecOnly knows the names of codecs that ffmpeg takes for their default
// encoder or decoder, and that are in no list of those: which one it takes
// depends on the build.
func isCodecOnly(name string) bool {
	switch name {
	case "copy", "auto", "none",
		"h264", "hevc", "vvc", "av1", "vp8", "vp9", "theora", "webp", "jpegxl", "evc",
		"mp3", "speex", "gsm", "gsm_ms", "ilbc", "amr_nb", "amr_wb", "codec2", "lc3",
		"dvd_subtitle", "dvb_subtitle", "dvb_teletext", "hdmv_pgs_subtitle", "hdmv_text_subtitle", "eia_608",
		"a64_multi", "a64_multi5", "dirac", "flv1", "msmpeg4v3", "roq", "dts", "ra_144",
		"adpcm_g722", "adpcm_g726", "adpcm_g726le":
		return true
	}
	return false
}

// makers lists, for words in the names of codecs, accelerators, devices and
// filters, whose hardware they need.
func makers(word string) []string {
	switch word {
	case "nvenc", "cuvid", "cuda", "nvdec", "npp":
		return []string{"nvidia"}
	case "qsv":
		return []string{"intel"}
	case "amf":
		return []string{"amd"}
	}
	return []string{"amd", "intel"} // vaapi
}

// hardware tells whose hardware a command line names. A command that names
// several makers' gets what all of them have in common, or all.
func (c *Command) hardware() []string {
	common, all := []string{}, []string{}
	named := func(who []string) {
		if len(all) == 0 {
			common = who
		}
		both := []string{}
		for _, maker := range common {
			if slices.Contains(who, maker) {
				both = append(both, maker)
			}
		}
		common = both
		all = append(all, who...)
	}
	for _, word := range [...]string{"nvenc", "cuvid", "cuda", "nvdec", "npp", "qsv", "amf", "vaapi"} {
		if c.mentions(word) {
			named(makers(word))
		}
	}
	for _, d := range c.Devices {
		if who := d.makers(); who != nil {
			named(who)
		}
	}
	if len(common) == 0 {
		common = all
	}
	slices.Sort(common)
	return slices.Compact(common)
}

// mentions reports whether a name of the command has the word in it.
func (c *Command) mentions(word string) bool {
	is := func(name string) bool { return strings.Contains(name, word) }
	return slices.ContainsFunc(c.Encoders, is) || slices.ContainsFunc(c.Decoders, is) ||
		slices.ContainsFunc(c.HWAccels, is) || slices.ContainsFunc(c.Filters, is) ||
		slices.ContainsFunc(c.derived, is) ||
		slices.ContainsFunc(c.Devices, func(d Device) bool { return is(d.Type) })
}

// makers tells whose device it must be by its options; nil if they do not say.
func (d Device) makers() (who []string) {
	if d.Type == "drm" && strings.HasPrefix(d.Path, "/dev/dri/") {
		who = makers("vaapi") // NVIDIA's are not reached this way
	}
	if d.Type != "vaapi" {
		return who
	}
	eachPair(d.Options, ",", func(key, value string) {
		switch key + "=" + value {
		case "driver=iHD", "driver=i965", "vendor_id=0x8086", "kernel_driver=i915", "kernel_driver=xe":
			who = []string{"intel"}
		case "driver=radeonsi", "vendor_id=0x1002", "kernel_driver=amdgpu":
			who = []string{"amd"}
		}
	})
	return who
}

func (c *Command) realtime() bool {
	if c.paced || c.Kind == Playback || c.Kind == Live {
		return true
	}
	for _, in := range c.ins {
		if in.operand >= len(c.Operands) {
			continue
		}
		switch c.Operands[in.operand].Protocol {
		case "device", "udp", "udplite", "rtp", "srtp", "rtsp", "rtsps", "srt", "rist", "sap", "satip",
			"rtmp", "rtmps", "rtmpt", "rtmpe", "rtmpte", "rtmpts", "mms", "mmsh", "mmst":
			return true // these do not wait; what http serves may
		}
	}
	return false
}

func (c *Command) network() bool {
	for i := range c.Operands {
		if isNetwork(c.Operands[i].Protocol) {
			return true
		}
	}
	return false
}
