package decision

import (
	"strings"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// Hardware returns what in a command needs a GPU, in words, or an empty string
// for a command that any CPU can run. It errs towards hardware: a command that
// is wrongly kept from running here fails with a clear line, one that is
// wrongly run here fails inside ffmpeg.
func Hardware(cmd ffmpeg.Command) string {
	for _, a := range cmd.HWAccels {
		if a != "none" && a != "auto" { // both work without any
			return "-hwaccel " + a
		}
	}
	if len(cmd.Devices) > 0 {
		return "device " + cmd.Devices[0].Type
	}
	for _, codecs := range [][]string{cmd.Encoders, cmd.Decoders} {
		for _, c := range codecs {
			if hardwareSuffix(c) {
				return "codec " + c
			}
		}
	}
	for _, f := range cmd.Filters {
		if hardwareSuffix(f) || strings.HasPrefix(f, "hwupload") || strings.HasPrefix(f, "hwmap") {
			return "filter " + f
		}
	}
	return ""
}

// hardwareSuffix knows ffmpeg's habit of naming what runs on a device
// WHAT_API.
func hardwareSuffix(name string) bool {
	_, api, found := cutLast(name, '_')
	if !found {
		return false
	}
	switch api {
	case "nvenc", "cuvid", "cuda", "npp", "vaapi", "qsv", "amf", "vulkan", "opencl", "rkmpp", "rkrga",
		"v4l2m2m", "videotoolbox", "mediacodec", "omx", "mf", "d3d11va", "d3d11", "d3d12va", "mmal", "vt":
		return true
	}
	return false
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}
