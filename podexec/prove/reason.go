package prove

import (
	"regexp"
	"strings"
)

// trouble is a text in ffmpeg's stderr that means a device in trouble, and where it
// comes from. The rest of such a line differs by driver and release.
type trouble struct{ text, source string }

func troubles() []trouble {
	return []trouble{
		{"Device creation failed", "fftools/ffmpeg_hw.c: -init_hw_device or -hwaccel"},
		{"OpenEncodeSessionEx failed", "libavcodec/nvenc.c: the driver gives no session"},
		{"No capable devices found", "libavcodec/nvenc.c"},
		{"Cannot load libcuda.so.1", "ffnvcodec/dynlink_loader.h, by nvenc.c and hworigincuda.c"},
		{"Cannot load libnvidia-encode.so.1", "ffnvcodec/dynlink_loader.h, by nvenc.c"},
		{"Cannot load libnvcuvid.so.1", "ffnvcodec/dynlink_loader.h, by nvdec.c and cuviddec.c"},
		{"CUDA_ERROR_NO_DEVICE", "libavutil/cuda_check.h, names of cuda.h"},
		{"CUDA_ERROR_UNKNOWN", "as above: after a suspend, or a driver that was replaced below the pod"},
		{"CUDA_ERROR_ECC_UNCORRECTABLE", "as above"},
		{"CUDA_ERROR_LAUNCH_FAILED", "as above"},
		{"CUDA_ERROR_ILLEGAL_ADDRESS", "as above"},
		{"CUDA_ERROR_DEVICE_UNAVAILABLE", "as above"},
		{"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "as above"},
		{"No VA display found", "libavutil/hworiginvaapi.c"},
		{"Failed to initialise VAAPI connection", "libavutil/hworiginvaapi.c"},
		{"Failed to end picture encode issue", "libavcodec/vaapi_encode.c"},
		{"Failed to sync to picture completion", "libavcodec/vaapi_encode.c"},
		{"Failed to end picture decode issue", "libavcodec/vaapi_decode.c"},
		{"Error initializing an internal MFX session", "libavcodec/qsv.c"},
		{"Error creating a MFX session", "libavutil/hworiginqsv.c"},
		{"device lost (-13)", "libavcodec/qsv.c: MFX_ERR_DEVICE_LOST"},
		{"device failed (-17)", "libavcodec/qsv.c: MFX_ERR_DEVICE_FAILED"},
		{"GPU Hang (-21)", "libavcodec/qsv.c: MFX_ERR_GPU_HANG"},
		{"Failed to create MPP context", "libavcodec/rkmppdec.c, rkmppenc.c"},
		{"Could not find a valid device", "libavcodec/v4l2_m2m.c"},
	}
}

// DeviceError finds a device in trouble in the end of a session's stderr, as one
// line for a person; "" when there is none.
func DeviceError(stderr string) string {
	for line := range strings.Lines(stderr) {
		for _, t := range troubles() {
			if strings.Contains(line, t.text) {
				return clean(line)
			}
		}
	}
	return ""
}

// exhausted tells that a trial found the device in use, not broken: drivers of
// consumer cards bound the sessions of all processes together.
func exhausted(reason string) bool {
	for _, text := range []string{
		"OpenEncodeSessionEx failed: out of memory",           // the sessions are used up
		"OpenEncodeSessionEx failed: incompatible client key", // the same, of older drivers
		"CUDA_ERROR_OUT_OF_MEMORY",
		"Cannot allocate memory",
	} {
		if strings.Contains(reason, text) {
			return true
		}
	}
	return false
}

// origin is what ffmpeg puts before a message: "[h264_nvenc @ 0x5581] ".
var origin = regexp.MustCompile(`^(?:\[[^\]]*\] )+`)

const (
	reasonLines = 2
	reasonBytes = 240
)

// reason makes one line of the first lines of stderr: later ones only repeat it in
// more general words.
func reason(stderr string) string {
	var parts []string
	for line := range strings.Lines(stderr) {
		if line = clean(line); line != "" && len(parts) < reasonLines {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

func clean(line string) string {
	line = strings.TrimSpace(origin.ReplaceAllString(strings.ToValidUTF8(line, "?"), ""))
	line = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, line)
	if len(line) > reasonBytes/reasonLines {
		line = strings.ToValidUTF8(line[:reasonBytes/reasonLines], "") + "..."
	}
	return line
}
