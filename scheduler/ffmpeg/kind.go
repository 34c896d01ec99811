package ffmpeg

import (
	"path"
	"strings"
)

// Kind is what a session is for. Priorities, niceness and the choice of a
// class depend on it, never correctness.
type Kind string

// The kinds, as the project's glossary names them.
const (
	Probe     Kind = "probe"     // asks about a file, a build or a device
	Playback  Kind = "playback"  // somebody waits for the first segment
	Live      Kind = "live"      // from a network source that does not wait
	Image     Kind = "image"     // one picture
	Trickplay Kind = "trickplay" // a series of pictures
	Subtitle  Kind = "subtitle"  // subtitle tracks, and fonts for them
	Loudness  Kind = "loudness"  // measures, writes nothing
	Keyframes Kind = "keyframes" // lists the key frames of a whole file
	Other     Kind = "other"
)

// Kinds are all of them.
func Kinds() []Kind {
	return []Kind{Probe, Playback, Live, Image, Trickplay, Subtitle, Loudness, Keyframes, Other}
}

func classify(c *Command) Kind {
	switch {
	case c.Information != "":
		return Probe
	case c.Program == FFprobe && c.keyframe:
		return Keyframes
	case c.Program == FFprobe, c.isIdle(), c.isSourceCheck():
		return Probe
	case c.dumps:
		return Subtitle
	case len(c.outs) == 0:
		return Other
	case c.isLoudness():
		return Loudness
	case c.all(output.isPicture):
		if c.all(c.isSeries) {
			return Trickplay
		}
		return Image
	case c.all(c.isSubtitle):
		return Subtitle
	case c.isLive():
		return Live
	case c.any(c.isPlayback):
		return Playback
	}
	return Other
}

func (c *Command) all(is func(output) bool) bool {
	for _, o := range c.outs {
		if !is(o) {
			return false
		}
	}
	return len(c.outs) > 0
}

func (c *Command) any(is func(output) bool) bool {
	for _, o := range c.outs {
		if is(o) {
			return true
		}
	}
	return false
}

// at returns the operand of an output, or an empty one.
func (c *Command) at(o output) Operand {
	if o.operand < len(c.Operands) {
		return c.Operands[o.operand]
	}
	return Operand{FD: -1}
}

// isIdle says that nothing goes in and nothing comes out.
func (c *Command) isIdle() bool {
	return len(c.ins) == 0 && len(c.outs) == 0 && c.graphs == 0
}

func (c *Command) isNull(o output) bool { return c.at(o).Protocol == "null" }

// isSourceCheck recognises a run that only proves that the binary works: an
// empty source into nothing, no codec, no hardware.
func (c *Command) isSourceCheck() bool {
	for _, in := range c.ins {
		if in.source != "nullsrc" && in.source != "anullsrc" {
			return false
		}
	}
	return len(c.ins) > 0 && c.all(c.isNull) && c.graphs == 0 &&
		len(c.Encoders) == 0 && len(c.Devices) == 0 && len(c.HWAccels) == 0
}

func (c *Command) isLoudness() bool {
	if !c.all(c.isNull) {
		return false
	}
	for _, f := range c.Filters {
		switch f {
		case "ebur128", "loudnorm", "volumedetect", "replaygain":
			return true
		}
	}
	return false
}

func (o output) isPicture() bool { return o.format == "image2" }

func (c *Command) isSeries(o output) bool {
	return !o.oneFrame && strings.Contains(c.at(o).Path, "%")
}

func (c *Command) isSubtitle(o output) bool {
	switch o.format {
	case "srt", "ass", "webvtt", "sup":
		return true
	}
	return o.noVideo && o.noAudio
}

func (c *Command) isLive() bool {
	if c.any(func(o output) bool { return o.vod }) || c.all(c.isNull) {
		return false
	}
	for _, in := range c.ins {
		if in.operand < len(c.Operands) && isNetwork(c.Operands[in.operand].Protocol) {
			return true
		}
	}
	return false
}

func (o output) isSegmented() bool { return o.format == "hls" || o.format == "dash" }

func (c *Command) isPlayback(o output) bool {
	return o.isSegmented() || o.fragmented || strings.Contains(c.at(o).Path, "/transcodes/")
}

// formatOf guesses the muxer from a file name, for those that matter here.
func formatOf(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".m3u8":
		return "hls"
	case ".mpd":
		return "dash"
	case ".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".tga", ".jxl":
		return "image2"
	case ".srt":
		return "srt"
	case ".ass", ".ssa":
		return "ass"
	case ".vtt":
		return "webvtt"
	case ".sup":
		return "sup"
	}
	return ""
}

// OutputKeys returns one key for every set of files that the command writes
// and that no other command may write at the same time. A segmenting muxer
// owns every name that starts with its playlist's name without the extension,
// so that is its key; any other output is its own key, patterns included.
// Streams, descriptors and network outputs have none.
func (c *Command) OutputKeys() []string {
	var keys []string
	for _, o := range c.outs {
		if !o.isSegmented() {
			continue
		}
		if name := c.at(o).Path; name != "" {
			keys = appendNew(keys, strings.TrimSuffix(name, path.Ext(name)))
		}
	}
	stems := len(keys)
	for i := range c.Operands {
		o := &c.Operands[i]
		if o.Role != Output || o.Path == "" || owned(keys[:stems], o.Path) {
			continue
		}
		keys = appendNew(keys, o.Path)
	}
	return keys
}

// OutputKey returns the key of the command's last file output, which for a
// program that makes one thing is the thing; empty if it writes no file.
func (c *Command) OutputKey() string {
	for i := len(c.outs) - 1; i >= 0; i-- {
		name := c.at(c.outs[i]).Path
		switch {
		case name == "":
		case c.outs[i].isSegmented():
			return strings.TrimSuffix(name, path.Ext(name))
		default:
			return name
		}
	}
	if keys := c.OutputKeys(); len(keys) > 0 {
		return keys[len(keys)-1]
	}
	return ""
}

func owned(stems []string, name string) bool {
	for _, stem := range stems {
		if strings.HasPrefix(name, stem) {
			return true
		}
	}
	return false
}
