package prove

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	frameCount = 5
	frameSize  = "320x240" // all encoders of all makers take it
)

// own are ffmpeg's decoders in software that a codec's trials use; av1's own one
// needs hardware.
func own() map[string][]string {
	return map[string][]string{
		"h264": {"h264"}, "hevc": {"hevc"}, "av1": {"libdav1d", "libaom-av1"}, "vp8": {"vp8"}, "vp9": {"vp9"},
		"mjpeg": {"mjpeg"}, "mpeg1": {"mpeg1video"}, "mpeg2": {"mpeg2video"}, "mpeg4": {"mpeg4"}, "h263": {"h263"},
	}
}

// makers are encoders in software that make a codec's sample, the quickest first.
func makers() map[string][][]string {
	return map[string][][]string{
		"h264":  {{"libx264", "-preset", "ultrafast"}, {"libopenh264"}},
		"hevc":  {{"libx265", "-preset", "ultrafast", "-x265-params", "log-level=error"}},
		"av1":   {{"libsvtav1"}, {"librav1e", "-speed", "10"}, {"libaom-av1", "-cpu-used", "8", "-usage", "realtime"}},
		"vp8":   {{"libvpx", "-deadline", "realtime"}},
		"vp9":   {{"libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"}},
		"mjpeg": {{"mjpeg", "-pix_fmt", "yuvj420p"}},
		"mpeg1": {{"mpeg1video"}},
		"mpeg2": {{"mpeg2video"}},
		"mpeg4": {{"mpeg4"}},
	}
}

// hdrMaker makes a sample of HDR10: tone mapping in VAAPI wants its metadata.
func hdrMaker() []string {
	return []string{
		"libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le",
		"-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-x265-params",
		"log-level=error:hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400",
	}
}

func quiet() []string { return []string{"-hide_banner", "-v", "error"} }

// picture is a moving test picture as input.
func picture() []string {
	return []string{"-nostdin", "-f", "lavfi", "-i", "testsrc2=s=" + frameSize + ":r=25", "-frames:v", fmt.Sprint(frameCount)}
}

// trials are those of one family, one after the other.
type trials struct {
	*proof
	family
	init   []string // arguments that open its device as "hw"
	stalls int
}

// run is one trial. Its result is what ffmpeg wrote to stdout.
func (t *trials) run(ctx context.Context, input []byte, args ...[]string) ([]byte, error) {
	if t.stalls >= stallsBound {
		return nil, fmt.Errorf("%w: %d trials of this hardware stalled before", errGivenUp, t.stalls)
	}
	out := t.Run(ctx, Command{Args: slices.Concat(args...), Input: input, Within: t.Within})
	if out.Stalled {
		t.stalls++
	}
	return out.Stdout, out.failure()
}

// open finds the way to the family's device.
func (t *trials) open(ctx context.Context, listed bool) error {
	nodes, err := t.present(t.Root)
	if err != nil {
		return err
	}
	if t.device == "" || t.optional && !listed {
		return nil
	}
	if !listed {
		return fmt.Errorf("this ffmpeg has no device type %s", t.device)
	}
	for _, way := range t.inits(nodes) {
		var init []string
		for _, device := range way {
			init = append(init, "-init_hw_device", device)
		}
		_, failed := t.run(ctx, nil, quiet(), init, picture(), []string{"-frames:v", "1", "-f", "null", "-"})
		if failed == nil {
			t.init = append(init, "-filter_hw_device", "hw")
			return nil
		}
		if err == nil {
			err = failed // of the likeliest way
		}
	}
	return err
}

// encode tries an encoder: what it makes of five frames must be five frames.
func (t *trials) encode(ctx context.Context, name string) error {
	coding := slices.Concat(quiet(), t.init, picture(), []string{"-vf", t.upload, "-c:v", name})
	made, err := t.run(ctx, nil, coding, []string{"-f", "nut", "pipe:1"})
	if err != nil {
		return err
	}
	codec := codecOf(name)
	if err := t.check(ctx, codec, made); err != nil {
		return err
	}
	if t.samples[codec] == nil {
		t.samples[codec] = made
	}
	if t.report.encoding == nil {
		t.report.encoding = slices.Concat(t.init, []string{"-vf", t.upload, "-c:v", name})
	}
	return nil
}

// codecOf is the codec in the name of a hardware encoder or decoder.
func codecOf(name string) string { return strings.TrimSuffix(name, "_"+ending(name)) }

// check decodes what an encoder made, in software. Where nothing can, bytes are
// enough.
func (t *trials) check(ctx context.Context, codec string, made []byte) error {
	if len(made) == 0 {
		return errors.New("it ended with success and encoded nothing")
	}
	for _, name := range own()[codec] {
		if !slices.Contains(t.lists[Decoder], name) {
			continue
		}
		out, err := t.run(ctx, made, quiet(), []string{"-c:v", name, "-i", "pipe:0", "-f", "framecrc", "pipe:1"})
		if err != nil {
			return fmt.Errorf("what it encoded cannot be decoded: %w", err)
		}
		if n := frames(out); n != frameCount {
			return fmt.Errorf("it encoded %d frames of %d", n, frameCount)
		}
		return nil
	}
	return nil
}

// sample is a codec's frames for a decoder; nil when nothing here makes any.
func (t *trials) sample(ctx context.Context, codec string) []byte {
	made, known := t.samples[codec]
	if known {
		return made
	}
	for _, maker := range makers()[codec] {
		if made = t.make(ctx, maker); made != nil {
			break
		}
	}
	t.samples[codec] = made
	return made
}

func (t *trials) make(ctx context.Context, maker []string) []byte {
	if !slices.Contains(t.lists[Encoder], maker[0]) {
		return nil
	}
	format := []string{"-pix_fmt", "yuv420p"}
	if slices.Contains(maker, "-pix_fmt") {
		format = nil
	}
	out := t.Run(ctx, Command{Args: slices.Concat(quiet(), picture(), format, []string{"-c:v"}, maker, []string{"-f", "nut", "pipe:1"}), Within: t.Within})
	if out.failure() != nil || len(out.Stdout) == 0 {
		return nil
	}
	return out.Stdout
}

// decoders tries the family's decoders. One whose codec nothing can encode goes
// with the others.
func (t *trials) decoders(ctx context.Context, names []string) {
	var works bool
	var untried []string
	for _, name := range names {
		sample := t.sample(ctx, codecOf(name))
		if sample == nil {
			untried = append(untried, name)
			continue
		}
		err := t.decode(ctx, sample, "-c:v", name)
		works = works || err == nil
		t.judge(Decoder+":"+name, err)
	}
	for _, name := range untried {
		if works {
			t.passed(Decoder + ":" + name)
		} else {
			t.flawed(Decoder+":"+name, "no encoder here makes an input to try it with, and no other decoder of this hardware works")
		}
	}
}

// decode tries one way of decoding, given as input options.
func (t *trials) decode(ctx context.Context, sample []byte, options ...string) error {
	out, err := t.run(ctx, sample, quiet(), t.init, options, []string{"-i", "pipe:0"}, t.download(options), []string{"-f", "framecrc", "pipe:1"})
	if err != nil {
		return err
	}
	if n := frames(out); n != frameCount {
		return fmt.Errorf("it decoded %d frames of %d", n, frameCount)
	}
	return nil
}

// download makes sure that frames come from the hardware: ffmpeg would decode in
// software what that refuses.
func (t *trials) download(options []string) []string {
	if slices.Contains(options, "-hwaccel") {
		return []string{"-vf", "hwdownload,format=nv12"}
	}
	return nil
}

// hwaccel tries -hwaccel with one codec after the other until one works. A type
// that does not decode is one that opens.
func (t *trials) hwaccel(ctx context.Context) error {
	if t.family.hwaccel == "" {
		return nil
	}
	var first error
	for _, codec := range []string{"h264", "hevc", "av1", "vp9", "mpeg2"} {
		decoder := own()[codec][0]
		switch {
		case t.wrapped != "":
			decoder = codec + "_" + t.wrapped
		case codec == "av1":
			decoder = codec
		}
		sample := t.sample(ctx, codec)
		if sample == nil || !slices.Contains(t.lists[Decoder], decoder) {
			continue
		}
		err := t.decode(ctx, sample, "-hwaccel", t.device, "-hwaccel_device", "hw", "-hwaccel_output_format", t.family.hwaccel, "-c:v", decoder)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = errors.New("no encoder here makes an input to try it with")
	}
	return first
}

// filter tries a filter of the family, if it has a trial. One that scales and maps
// tones is told as two: what it does with tones is NAME=tonemap.
func (t *trials) filter(ctx context.Context, name string) {
	plain, scales := t.basic[name]
	mapping, maps := t.tonemap[name]
	capability := Filter + ":" + name
	if scales || !maps {
		var err error
		if scales {
			_, err = t.run(ctx, nil, quiet(), t.init, picture(), t.graph("format=nv12", name+"="+plain, "nv12"))
		}
		t.judge(capability, err)
		capability += "=tonemap"
	}
	if maps {
		t.judge(capability, t.tones(ctx, name+"="+mapping, mapping))
	}
}

// graph is a filter between system memory and system memory.
func (t *trials) graph(before, filter, after string) []string {
	return []string{"-vf", before + ",hwupload," + filter + ",hwdownload,format=" + after, "-f", "null", "-"}
}

// tones tries tone mapping on frames of HDR10, or on some that only say so.
func (t *trials) tones(ctx context.Context, filter, options string) error {
	after := "nv12"
	if strings.Contains(options, "yuv420p") {
		after = "yuv420p"
	}
	sample, known := t.samples["hdr"]
	if !known {
		sample = t.make(ctx, hdrMaker())
		t.samples["hdr"] = sample
	}
	if sample == nil || !slices.Contains(t.lists[Decoder], "hevc") {
		_, err := t.run(ctx, nil, quiet(), t.init, picture(),
			t.graph("setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc,format=p010", filter, after))
		return err
	}
	_, err := t.run(ctx, sample, quiet(), t.init, []string{"-c:v", "hevc", "-i", "pipe:0"}, t.graph("format=p010", filter, after))
	return err
}
