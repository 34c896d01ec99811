package translate

import (
	"strconv"
	"strings"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// encoder is one of the encoders that have counterparts.
type encoder struct {
	name  string
	codec string // h264, hevc, av1, mjpeg
	of    Target
}

func (e encoder) String() string { return e.name }

// encoderNamed knows the encoders by their names.
func encoderNamed(name string) (encoder, bool) {
	for _, codec := range [...]string{"h264", "hevc", "av1", "mjpeg"} {
		for _, of := range Targets() {
			if e, ok := encoderFor(codec, of); ok && e.name == name {
				return e, true
			}
		}
	}
	return encoder{}, false
}

// encoderFor returns a target's encoder of a codec. NVENC has none for pictures:
// the software's takes its place.
func encoderFor(codec string, of Target) (encoder, bool) {
	e := encoder{name: codec + "_" + string(of), codec: codec, of: of}
	if of != Software {
		return e, codec != "mjpeg" || of != NVENC
	}
	switch codec {
	case "h264":
		e.name = "libx264"
	case "hevc":
		e.name = "libx265"
	case "av1":
		e.name = "libsvtav1"
	case "mjpeg":
		e.name = "mjpeg"
	}
	return e, true
}

// settings is what the source asks of its encoder, in nobody's words.
type settings struct {
	rank     int    // of the preset, 1 the fastest to 7 the slowest; 0 unknown
	fastest  int    // how much faster than rank 1 software should be: veryfast 0, superfast 1, ultrafast 2
	quality  string // a constant quality; empty if there is none
	picture  int    // quality of pictures, 1 (best) to 31; 0 unknown
	bitrate  string
	cap      string // -maxrate
	buffer   string // -bufsize
	tenBits  bool   // the profile wants it
	eight    bool   // the profile wants it
	interval bool   // -g is given
	forced   bool   // -force_key_frames is given
	capAt    ffmpeg.Word
	rateAt   ffmpeg.Word
}

// setting takes an option of the video's encoder.
func (t *translation) setting(w ffmpeg.Word) error {
	if t.encoderAt < 0 && !isRate(w.Option) {
		return t.refuse(w, "it is not known; it stands before the encoder it may belong to")
	}
	if w.Value < 0 {
		return t.refuse(w, "it is not known")
	}
	if t.keepsEncoder() {
		return nil
	}
	value := t.argv[w.Value]
	s := &t.settings
	switch w.Option {
	case "b":
		s.bitrate, s.rateAt = value, w
	case "maxrate":
		s.cap, s.capAt = value, w
	case "bufsize":
		s.buffer = value
	case "g":
		s.interval = true
	case "keyint_min":
	case "force_key_frames":
		s.forced = true
	case "profile":
		return t.profile(w, value)
	case "level":
		return t.level(w, value)
	case "preset":
		return t.preset(w, value)
	case "qscale", "q", "global_quality", "crf", "cq", "qp":
		return t.quality(w, value)
	default:
		if !t.encoder.owns(w.Option) {
			return t.refuse(w, "it is not known what it means to %s", t.encoder)
		}
		if w.Option == "compression_level" {
			return t.preset(w, value)
		}
		t.replace(w, "only "+t.encoder.name+" has it")
	}
	return nil
}

// keepsEncoder says that a line which only decodes or filters on its GPU goes on
// encoding in software.
func (t *translation) keepsEncoder() bool {
	return t.encoderAt >= 0 && t.encoder.of == Software && t.from != Software
}

func isRate(option string) bool {
	switch option {
	case "b", "maxrate", "bufsize", "g", "keyint_min", "force_key_frames":
		return true
	}
	return false
}

// owns knows the options that only the encoders of one maker have, and whose
// loss changes nothing but how well they encode.
func (e encoder) owns(option string) bool {
	switch e.of {
	case NVENC:
		switch option {
		case "rc", "tune", "multipass", "spatial-aq", "spatial_aq", "temporal-aq", "temporal_aq", "aq-strength",
			"rc-lookahead", "b_ref_mode", "forced-idr", "no-scenecut", "gpu", "surfaces", "tier", "bf":
			return true
		}
	case QSV:
		switch option {
		case "mbbrc", "rc_init_occupancy", "low_power", "look_ahead", "look_ahead_depth", "async_depth", "forced_idr",
			"extbrc", "adaptive_i", "adaptive_b", "low_delay_brc", "scenario", "bf":
			return true
		}
	case VAAPI:
		switch option {
		case "rc_mode", "compression_level", "sei", "low_power", "async_depth", "idr_interval", "b_depth", "bf":
			return true
		}
	default:
		switch option {
		case "x264opts", "x264-params", "x265-params", "svtav1-params", "sc_threshold", "tune":
			return true
		}
	}
	return false
}

func (t *translation) profile(w ffmpeg.Word, value string) error {
	s := &t.settings
	s.eight, s.tenBits = value != "main10" && value != "high10", value == "main10"
	switch t.encoder.codec + " " + strings.ToLower(value) {
	case "h264 main", "h264 high", "hevc main", "hevc main10":
	case "h264 baseline", "h264 constrained_baseline":
		if t.to == VAAPI {
			t.value(w, "the other baseline is not made here", "constrained_baseline")
		} else {
			t.value(w, "the others call it so", "baseline")
		}
	case "av1 main", "av1 0":
		s.eight = false
		t.replace(w, "AV1 encoders choose it")
	default:
		return t.refuse(w, "the profile has no counterpart")
	}
	return nil
}

// level reads what four encoders write in three ways.
func (t *translation) level(w ffmpeg.Word, value string) error {
	n, err := strconv.ParseFloat(value, 64)
	switch {
	case err != nil || n <= 0:
		return t.refuse(w, "the level is no number")
	case strings.Contains(value, ".") || n < 10:
		n *= 10
	case t.encoder.codec == "hevc" && n >= 90:
		n /= 3
	}
	switch {
	case t.encoder.codec == "av1":
		t.replace(w, "AV1 encoders choose it")
	case t.to == NVENC:
		t.replace(w, "NVENC fails on a level that is too low")
	case t.encoder.codec == "hevc" && t.to == Software:
		t.replace(w, "libx265 chooses it")
	case t.encoder.codec == "hevc" && t.to == VAAPI:
		t.value(w, "thirty times the level", strconv.Itoa(int(n*3)))
	default:
		t.value(w, "", strconv.Itoa(int(n)))
	}
	return nil
}

// presets of x264, x265 and QSV by rank; index 0 is rank 1.
var presets = [...]string{"veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"}

func (t *translation) preset(w ffmpeg.Word, value string) error {
	s := &t.settings
	switch {
	case t.encoder.name == "libsvtav1":
		n, err := strconv.Atoi(value)
		if err != nil || n < 5 || n > 13 {
			return t.refuse(w, "the preset has no counterpart")
		}
		s.rank, s.fastest = max(1, 12-n), max(0, n-11)
	case t.encoder.of == VAAPI:
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 7 {
			return t.refuse(w, "the level of compression has no counterpart")
		}
		s.rank = 8 - n
	case t.encoder.of == NVENC:
		n, err := strconv.Atoi(strings.TrimPrefix(value, "p"))
		if err != nil || value[0] != 'p' || n < 1 || n > 7 {
			return t.refuse(w, "the preset has no counterpart")
		}
		s.rank = n
	default:
		switch value {
		case "superfast":
			s.rank, s.fastest = 1, 1
		case "ultrafast":
			s.rank, s.fastest = 1, 2
		}
		for i, name := range presets {
			if name == value {
				s.rank = i + 1
			}
		}
		if s.rank == 0 {
			return t.refuse(w, "the preset has no counterpart")
		}
	}
	t.replace(w, "")
	return nil
}

// quality takes the constant quality of video, or that of pictures.
func (t *translation) quality(w ffmpeg.Word, value string) error {
	s := &t.settings
	n, err := strconv.ParseFloat(value, 64)
	switch {
	case err != nil || n <= 0:
		return t.refuse(w, "the quality is no number above 0")
	case t.encoder.codec == "mjpeg" && w.Option == "global_quality" && n <= 100:
		s.picture = max(1, 1+int(100-n)/3)
	case t.encoder.codec == "mjpeg" && (w.Option == "qscale" || w.Option == "q") && n <= 31:
		s.picture = int(n)
	case t.encoder.codec == "av1":
		return t.refuse(w, "the encoders of AV1 have no common scale of quality")
	case t.encoder.codec == "mjpeg", n > 51, w.Option == "qscale", w.Option == "q":
		return t.refuse(w, "the quality has no counterpart")
	default:
		s.quality = value
	}
	t.replace(w, "")
	return nil
}

// options are the target encoder's options, to stand behind its name.
func (t *translation) options(e encoder) []string {
	s := &t.settings
	var o []string
	add := func(words ...string) { o = append(o, words...) }
	if s.picture > 0 && e.codec == "mjpeg" {
		if e.of == Software {
			add("-qscale:v", strconv.Itoa(s.picture))
		} else {
			add("-global_quality:v", strconv.Itoa(100-3*(s.picture-1)))
		}
	}
	if e.codec == "mjpeg" {
		return o
	}
	if s.rank == 0 && e.of == Software {
		s.rank = 1 // who chose a GPU did not mean the slow preset that software takes by itself
	}
	if s.rank > 0 {
		add(e.preset(s.rank, s.fastest)...)
	}
	add(t.rate(e)...)
	video := strings.HasSuffix(t.argv[t.encoderAt], ":0")
	spec := ""
	if video {
		spec = ":v:0"
	}
	switch {
	case e.of == Software && e.codec == "h264" && (s.interval || s.forced):
		add("-sc_threshold"+spec, "0") // segments are cut where key frames were asked for
	case e.of == Software && e.codec == "hevc" && (s.interval || s.forced):
		add("-x265-params", "scenecut=0:open-gop=0")
	case e.of == NVENC && s.forced:
		add("-forced-idr", "1")
	case e.of == QSV && s.forced && e.codec != "av1":
		add("-forced_idr", "1")
	}
	return o
}

func (e encoder) preset(rank, fastest int) []string {
	switch {
	case e.of == NVENC:
		return []string{"-preset", "p" + strconv.Itoa(rank)}
	case e.of == VAAPI:
		return nil // -compression_level means something else on each driver
	case e.codec == "av1" && e.of == Software:
		return []string{"-preset", strconv.Itoa(12 - rank + fastest)}
	case e.of == Software && fastest > 0:
		return []string{"-preset", [...]string{"superfast", "ultrafast"}[fastest-1]}
	}
	return []string{"-preset", presets[rank-1]}
}

// rate are the options that choose between bits and quality. Those that name
// bits stay where they are.
func (t *translation) rate(e encoder) (o []string) {
	s := &t.settings
	if s.quality != "" && s.bitrate == "" {
		switch {
		case e.of == Software:
			return []string{"-crf", s.quality}
		case s.cap != "":
			o = append(o, "-b:v", s.cap) // the cap becomes the rate, as Jellyfin has it
		case e.of == NVENC:
			return []string{"-rc", "vbr", "-cq", s.quality}
		case e.of == QSV:
			return []string{"-global_quality", s.quality}
		default:
			return []string{"-rc_mode", "CQP", "-qp", s.quality}
		}
	}
	switch {
	case s.bitrate == "" && len(o) == 0:
	case e.of == VAAPI:
		o = append(o, "-rc_mode", "VBR")
	case e.of == QSV && e.codec != "av1":
		o = append(o, "-mbbrc", "1")
		if n, err := strconv.ParseInt(s.buffer, 10, 64); err == nil {
			o = append(o, "-rc_init_occupancy", strconv.FormatInt(n/2, 10))
		}
	}
	return o
}

// caps mends the cap of bits: QSV takes one that equals the rate for a constant
// rate, so its lines have one bit more; libsvtav1 has none beside a rate.
func (t *translation) caps(e encoder) {
	s := &t.settings
	rate := s.bitrate
	if rate == "" && s.quality != "" && e.of != Software {
		rate = s.cap
	}
	n, err := strconv.ParseInt(rate, 10, 64)
	if s.cap == "" || err != nil {
		return
	}
	switch {
	case e.name == "libsvtav1":
		t.replace(s.capAt, "libsvtav1 has no cap beside a rate")
	case e.of == QSV && s.cap == rate:
		t.value(s.capAt, "equal to the rate it would mean a constant rate", strconv.FormatInt(n+1, 10))
	case t.encoder.of == QSV && s.cap == strconv.FormatInt(n+1, 10):
		t.value(s.capAt, "the one more is QSV's", rate)
	}
}
