package translate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// read finds out what the line does with video, and for whose hardware it is.
func (t *translation) read() (Target, error) {
	t.words = ffmpeg.Words(ffmpeg.FFmpeg, t.argv)
	if err := t.family(); err != nil {
		return "", err
	}
	if t.from == t.to {
		return t.from, nil
	}
	outputs := 0
	for _, w := range t.words {
		switch {
		case w.FromFile:
			return "", t.refuse(w, "its value is in a file")
		case w.Option == "i":
			if t.inputAt < 0 {
				t.inputAt = w.At
			}
			t.inputs++
		case w.Option == "":
			outputs++
		default:
			if err := t.option(w, t.isInput(w)); err != nil {
				return "", err
			}
		}
	}
	switch {
	case outputs != 1:
		return "", fmt.Errorf("it has %d outputs; only lines with one are translated", outputs)
	case t.inputs == 0:
		return "", errors.New("it has no input")
	case t.encoderAt < 0:
		return "", errors.New("it names no encoder for its video")
	}
	return t.from, nil
}

// isInput reports whether the word belongs to an input: one follows.
func (t *translation) isInput(w ffmpeg.Word) bool {
	for _, later := range t.words {
		if later.At > w.At && (later.Option == "i" || later.Option == "") {
			return later.Option == "i"
		}
	}
	return false
}

// family tells for whose hardware the line is. QSV's lines name VAAPI, too.
func (t *translation) family() error {
	cmd := ffmpeg.Parse("ffmpeg", t.argv, ffmpeg.Host{})
	if cmd.Information != "" {
		return fmt.Errorf("-%s asks about the program itself", cmd.Information)
	}
	if _, is := cmd.HardwareProbe(); is {
		return errors.New("it asks about the hardware")
	}
	has := func(words ...string) bool {
		return slices.ContainsFunc(cmd.Requirements().Capabilities, func(c string) bool {
			return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(c, w) })
		})
	}
	nvidia, qsv, vaapi := has("cuda", "nvenc", "cuvid", "npp"), has("qsv"), has("vaapi")
	switch {
	case nvidia && (qsv || vaapi):
		return errors.New("it names the hardware of two makers")
	case nvidia:
		t.from = NVENC
	case qsv:
		t.from = QSV
	case vaapi:
		t.from = VAAPI
	default:
		t.from = Software
	}
	return nil
}

// option takes one word.
func (t *translation) option(w ffmpeg.Word, input bool) error {
	if isDevice(w.Option) {
		return t.device(w)
	}
	if w.Option == "vcodec" && w.Spec != "" {
		return t.refuse(w, "it says twice which stream it is for")
	}
	if strings.HasPrefix(w.Spec, "a") || strings.HasPrefix(w.Spec, "s") {
		return nil // of audio or subtitles
	}
	switch w.Option {
	case "c", "codec", "vcodec":
		return t.codec(w, input)
	case "vf", "filter", "filter_complex", "lavfi":
		if input {
			return t.refuse(w, "a graph belongs behind the inputs")
		}
		if t.graphAt >= 0 {
			return t.refuse(w, "it is the second graph")
		}
		t.graphAt = w.At
		return nil
	}
	if isKept(w.Option) {
		return nil
	}
	if input {
		return t.refuse(w, "it is not known what it does to the input")
	}
	return t.setting(w)
}

// isDevice knows the options that open and choose hardware.
func isDevice(option string) bool {
	switch option {
	case "init_hw_device", "filter_hw_device", "vaapi_device", "qsv_device", "hwaccel", "hwaccel_output_format",
		"hwaccel_device", "hwaccel_flags", "extra_hw_frames":
		return true
	}
	return false
}

// device notes where the source's hardware begins, and checks what it is.
func (t *translation) device(w ffmpeg.Word) error {
	if w.Value < 0 {
		return t.refuse(w, "its value is missing")
	}
	if t.deviceAt < 0 {
		t.deviceAt = w.At
	}
	value := t.argv[w.Value]
	switch w.Option {
	case "init_hw_device":
		kind, _, _ := strings.Cut(value, ":")
		kind, _, _ = strings.Cut(kind, "=")
		kind, _, _ = strings.Cut(kind, "@")
		if !slices.Contains([]string{"cuda", "vaapi", "qsv", "opencl", "drm", "vulkan"}, kind) {
			return t.refuse(w, "a device of type %s has no counterpart", kind)
		}
	case "hwaccel", "hwaccel_output_format":
		switch value {
		case "cuda", "nvdec", "cuvid", "vaapi", "qsv":
			t.onDevice = t.onDevice || w.Option == "hwaccel_output_format"
		default:
			return t.refuse(w, "%s has no counterpart", value)
		}
	}
	return nil
}

// codec takes -c: of all streams, or of the video.
func (t *translation) codec(w ffmpeg.Word, input bool) error {
	if w.Value < 0 {
		return t.refuse(w, "its value is missing")
	}
	name := t.argv[w.Value]
	switch {
	case input:
		if isDecoder(name) {
			if t.deviceAt < 0 {
				t.deviceAt = w.At
			}
			t.replace(w, "the decoder is one maker's")
		}
		return nil
	case name == "copy":
		return nil
	case w.Option != "vcodec" && !strings.HasPrefix(strings.ToLower(w.Spec), "v"):
		return t.refuse(w, "it does not say which stream it is for")
	case t.encoderAt >= 0:
		return t.refuse(w, "it is the second encoder for video")
	}
	known, ok := encoderNamed(name)
	if !ok {
		return t.refuse(w, "the encoder has no counterpart")
	}
	t.encoder, t.encoderAt = known, w.At
	return nil
}

func isDecoder(name string) bool {
	return strings.HasSuffix(name, "_cuvid") || strings.HasSuffix(name, "_qsv")
}

// isKept knows the options that mean the same whoever encodes: of inputs,
// outputs, maps, seeks, timestamps, muxers, audio, and the general ones.
func isKept(option string) bool {
	switch option {
	case "y", "n", "stdin", "nostdin", "hide_banner", "loglevel", "v", "stats", "nostats", "threads", "filter_threads",
		"filter_complex_threads",
		"analyzeduration", "probesize", "user_agent", "referer", "headers", "f", "fflags", "ss", "t", "to", "sseof", "itsoffset",
		"noaccurate_seek", "accurate_seek", "seek_timestamp", "stream_loop", "re", "readrate", "readrate_catchup",
		"readrate_initial_burst", "reconnect", "reconnect_at_eof", "reconnect_streamed", "reconnect_delay_max",
		"rtsp_transport", "rtsp_flags", "async", "safe", "canvas_size", "sub_charenc", "thread_queue_size", "skip_frame",
		"fix_sub_duration", "autorotate", "noautorotate", "autoscale", "noautoscale", "allowed_extensions",
		"map", "map_metadata", "map_chapters", "metadata", "disposition", "vn", "an", "sn", "dn",
		"copyts", "start_at_zero", "avoid_negative_ts", "max_muxing_queue_size", "max_delay", "muxdelay", "flush_packets",
		"shortest", "frames", "vframes", "fps_mode", "vsync", "r", "tag", "flags", "strict", "aspect",
		"acodec", "scodec", "af", "ac", "ab", "ar", "aq", "cutoff", "channel_layout", "id3v2_version", "write_id3v1",
		"movflags", "start_number", "hls_time", "hls_segment_type", "hls_fmp4_init_filename", "hls_base_url",
		"hls_segment_filename", "hls_playlist_type", "hls_list_size", "hls_segment_options", "hls_flags", "hls_allow_cache",
		"individual_header_trailer", "segment_format", "segment_list", "segment_time", "frag_duration", "min_frag_duration":
		return true
	}
	return false
}
