package ffmpeg

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRequirements(t *testing.T) {
	tests := map[string]struct {
		program  string
		argv     string // capabilities may hold no spaces, so neither does it
		want     string
		hardware string
		realtime bool
		network  bool
	}{
		"nothing named":              {argv: "-i a.mkv b.jpg"},
		"nothing for copies":         {argv: "-i a.mkv -c copy b.mkv"},
		"nothing for information":    {argv: "-h encoder=h264_nvenc -init_hw_device cuda"},
		"a codec is no encoder":      {argv: "-i a.mkv -c:v h264 -c:a mp3 -c:s mov_text b.mp4", want: "encoder:mov_text"},
		"the last one counts":        {argv: "-i a -c:v libx264 -c:v h264_nvenc b.mkv", want: "encoder:h264_nvenc", hardware: "nvidia"},
		"-c after -c:v counts":       {argv: "-i a -c:v libx264 -c copy b.mkv"},
		"one stream of two":          {argv: "-i a -c:v:0 libx264 -c:v:1 libx265 -c:a aac b.mkv", want: "encoder:aac encoder:libx264 encoder:libx265"},
		"no video, no encoder":       {argv: "-i a -vn -c:v libx264 -c:a aac b.m4a", want: "encoder:aac"},
		"several outputs":            {argv: "-i a -c:v libx264 b.mkv -c:v libx265 c.mkv", want: "encoder:libx264 encoder:libx265"},
		"decoder":                    {argv: "-c:v hevc_cuvid -i a -c:v h264_nvenc b.mkv", want: "decoder:hevc_cuvid encoder:h264_nvenc", hardware: "nvidia"},
		"decoder of ffprobe":         {program: "ffprobe", argv: "-c:v h264_qsv -i a", want: "decoder:h264_qsv", hardware: "intel"},
		"accelerator":                {argv: "-hwaccel vaapi -i a -c:v libx264 b.mkv", want: "encoder:libx264 hwaccel:vaapi", hardware: "amd intel"},
		"any accelerator or none":    {argv: "-hwaccel auto -i a -hwaccel none -i b c.mkv"},
		"an accelerator's old name":  {argv: "-hwaccel nvdec -i a b.mkv", want: "hwaccel:cuda", hardware: "nvidia"},
		"-filter_hw_device":          {argv: "-init_hw_device opencl=ocl:0.0 -filter_hw_device ocl -i a -vf format=p010,hwupload,tonemap_opencl=format=nv12,hwdownload,format=nv12 -c:v libx264 b.mkv", want: "device:opencl encoder:libx264 filter:format filter:hwdownload filter:hwupload filter:tonemap_opencl"},
		"-vaapi_device":              {argv: "-vaapi_device /dev/dri/renderD128 -i a -vf format=nv12,hwupload -c:v hevc_vaapi b.mkv", want: "device:vaapi encoder:hevc_vaapi filter:format filter:hwupload", hardware: "amd intel"},
		"derived devices":            {argv: "-init_hw_device vaapi=va:,driver=iHD -init_hw_device qsv=qs@va -init_hw_device opencl=ocl@va -i a b.mkv", want: "device:opencl device:qsv device:vaapi", hardware: "intel"},
		"derived by upload":          {argv: "-i a -vf hwupload=derive_device=cuda:extra_hw_frames=3,scale_cuda=w=1280 b.mkv", want: "device:cuda filter:hwupload filter:scale_cuda", hardware: "nvidia"},
		"derived by mapping":         {argv: "-i a -vf hwmap=mode=read:derive_device=opencl,tonemap_opencl,hwmap=derive_device=qsv:reverse=1 b.mkv", want: "device:opencl device:qsv filter:hwmap filter:tonemap_opencl", hardware: "intel"},
		"the driver tells the maker": {argv: "-init_hw_device vaapi=va:/dev/dri/renderD129,driver=radeonsi -i a -c:v h264_vaapi b.mkv", want: "device:vaapi encoder:h264_vaapi", hardware: "amd"},
		"complex graph": {argv: "-i a -filter_complex [0:3]scale,scale=1:2,format=yuva420p,hwupload=derive_device=cuda[s];[0:0]yadif_cuda=0:-1:0,tonemap_cuda=format=yuv420p[m];[m][s]overlay_cuda=eof_action=pass b.mkv",
			want: "device:cuda filter:format filter:hwupload filter:overlay_cuda filter:scale filter:tonemap_cuda filter:yadif_cuda", hardware: "nvidia"},
		"lavfi input":                 {argv: "-f lavfi -i testsrc2=d=1,hwupload_cuda -c:v h264_nvenc -f null -", want: "device:cuda encoder:h264_nvenc filter:hwupload_cuda filter:testsrc2", hardware: "nvidia"},
		"an instance has no name":     {argv: "-i a -vf scale@one=1:2,scale@two=3:4 b.mkv", want: "filter:scale"},
		"what no list can hold":       {argv: "-i a -vf ]nonsense{,scale b.mkv", want: "filter:scale"},
		"unknown options":             {argv: "-frobnicate h264_nvenc -i a -c:v libx264 b.mkv", want: "encoder:libx264"},
		"paced input":                 {argv: "-re -i a b.mkv", realtime: true},
		"paced input, new spelling":   {argv: "-readrate 1.5 -i a b.mkv", realtime: true},
		"not paced":                   {argv: "-readrate 0 -i a b.mkv"},
		"a sender that does not wait": {argv: "-i udp://239.0.0.1:1234 -af ebur128 -f null -", want: "filter:ebur128", realtime: true, network: true},
		"a server that waits":         {argv: "-i https://example.org/a -af ebur128 -f null -", want: "filter:ebur128", network: true},
		"playback":                    {argv: "-i a -f hls b.m3u8", realtime: true},
		"network output":              {argv: "-i a -f flv rtmp://example.org/live/key", network: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			program := "ffmpeg"
			if test.program != "" {
				program = test.program
			}
			cmd := Parse(program, lines(test.argv), Host{})
			want := Requirements{
				Capabilities: lines(test.want), Hardware: lines(test.hardware),
				Realtime: test.realtime, Network: test.network,
			}
			if diff := cmp.Diff(want, cmd.Requirements()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// listed are the names in one of ffmpeg's own lists: the word after the flags.
func listed(t *testing.T, list string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for line := range strings.Lines(stderrOf(t, realFFmpeg(t), "-hide_banner", "-"+list)) {
		fields := strings.Fields(line)
		switch {
		case list == "hwaccels" && len(fields) == 1:
			names[fields[0]] = true
		case len(fields) >= 2 && fields[1] != "=" && strings.HasPrefix(line, " "):
			names[fields[1]] = true
		}
	}
	return names
}

// TestRequirementsInFFmpegsWords: what the vectors need in software is in the
// lists of a real build, spelled the same way, or would never be found there.
func TestRequirementsInFFmpegsWords(t *testing.T) {
	lists := map[string]map[string]bool{
		"encoder": listed(t, "encoders"), "decoder": listed(t, "decoders"), "filter": listed(t, "filters"), "hwaccel": listed(t, "hwaccels"),
	}
	for _, v := range vectors(t) {
		for _, capability := range v.Requires.Capabilities {
			kind, name, _ := strings.Cut(capability, ":")
			list, known := lists[kind]
			if known && !list[name] && name != "libfdk_aac" { // not free: in no distribution's build
				t.Errorf("%s needs %s, which ffmpeg's list of them does not have", v.Name, capability)
			}
		}
	}
}

// TestCodecNamesAgainstFFmpeg: a codec whose encoder has another name is no
// requirement, and no encoder is taken for one.
func TestCodecNamesAgainstFFmpeg(t *testing.T) {
	encoders := listed(t, "encoders")
	for line := range strings.Lines(stderrOf(t, realFFmpeg(t), "-hide_banner", "-codecs")) {
		fields := strings.Fields(line)
		if len(fields) < 3 || len(fields[0]) != 6 || fields[0][1] != 'E' || fields[1] == "=" {
			continue
		}
		if name := fields[1]; isCodecOnly(name) == encoders[name] {
			t.Errorf("codec %s: has an encoder of that name: %t, is taken for a mere codec: %t", name, encoders[name], isCodecOnly(name))
		}
	}
}

// TestHardwareProbes: of Jellyfin's 28 questions at its start 5 are for a GPU.
func TestHardwareProbes(t *testing.T) {
	const node = "/dev/dri/renderD128"
	probes := [][]string{{"-version"}, {"-decoders"}, {"-encoders"}, {"-filters"}}
	for _, filter := range lines("scale_cuda tonemap_cuda tonemap_opencl overlay_opencl overlay_vaapi overlay_vulkan transpose_opencl overlay_opencl overlay_cuda") {
		probes = append(probes, []string{"-h", "filter=" + filter})
	}
	for _, bsf := range lines("hevc_metadata hevc_metadata av1_metadata av1_metadata dovi_rpu") {
		probes = append(probes, []string{"-h", "bsf=" + bsf})
	}
	probes = append(probes, []string{"-hwaccels"}, []string{"-version"},
		lines("-hide_banner -f lavfi -i nullsrc=s=1x1:d=10000 -f null -"),
		lines("-loglevel quiet -hwaccel_flags +low_priority -hide_banner -f lavfi -i nullsrc=s=1x1:d=100 -f null -"),
		lines("-loglevel quiet -f lavfi -i nullsrc=s=1x1:d=1 -only_first_vframe"))
	ffprobeAt := len(probes) - 1
	for range 3 {
		probes = append(probes, lines("-v verbose -hide_banner -init_hw_device vaapi=va:"+node))
	}
	for range 2 {
		probes = append(probes, lines("-v verbose -hide_banner -init_hw_device drm=dr:"+node+" -init_hw_device vulkan=vk@dr"))
	}
	if len(probes) != 28 {
		t.Fatalf("%d probes, want 28", len(probes))
	}
	keys := map[string]int{}
	for i, argv := range probes {
		program := FFmpeg
		if i == ffprobeAt {
			program = FFprobe
		}
		cmd := Parse(string(program), argv, Host{})
		probe, is := cmd.HardwareProbe()
		if is != (i >= 23) {
			t.Errorf("%d %v: a probe of the hardware: %t", i, argv, is)
		}
		if d := Decide(cmd, Environment{}); (d.Where == Remote) != (i >= 23) {
			t.Errorf("%d %v: %s by %s", i, argv, d.Where, d.Clause)
		}
		if cmd.Kind != Probe {
			t.Errorf("%d %v: kind %s", i, argv, cmd.Kind)
		}
		if is {
			keys[probe.Device+" "+strings.Join(probe.Hardware, ",")+" "+probe.Key]++
		}
	}
	want := map[string]int{
		"vaapi amd,intel hide_banner=1 v=verbose init_hw_device=vaapi=va:" + node:                                 3,
		"vulkan amd,intel hide_banner=1 v=verbose init_hw_device=drm=dr:" + node + " init_hw_device=vulkan=vk@dr": 2,
	}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

// TestHardwareProbeOpened asks a real ffmpeg: it ends as a failure either way, and
// says only in words that the device was there.
func TestHardwareProbeOpened(t *testing.T) {
	name := realFFmpeg(t)
	for words, want := range map[string]bool{
		"-v verbose -hide_banner":                                                               true, // all that it opens is there
		"-v verbose -hide_banner -init_hw_device vaapi=va:/dev/null":                            false,
		"-v verbose -hide_banner -init_hw_device drm=dr:/dev/null -init_hw_device vulkan=vk@dr": false,
		"-v verbose -hide_banner -init_hw_device nosuch=x":                                      false,
		"-v quiet -hide_banner":                                                                 false,
	} {
		cmd := exec.CommandContext(t.Context(), name, lines(words)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		_ = cmd.Run()
		if got := (HardwareProbe{}).Opened(int32(cmd.ProcessState.ExitCode()), stderr.Bytes()); got != want {
			t.Errorf("%s: exit %d, opened %t, want %t: %s", words, cmd.ProcessState.ExitCode(), got, want, &stderr)
		}
	}
}

func TestHardwareProbeKeys(t *testing.T) {
	tests := map[string]struct {
		argv, like string
		same       bool
	}{
		"spelling and order":   {argv: "-hide_banner -init_hw_device vaapi=va: -loglevel verbose", like: "-v verbose -hide_banner -init_hw_device vaapi=va:", same: true},
		"the last level":       {argv: "-v quiet -v verbose -init_hw_device vaapi", like: "-v verbose -init_hw_device vaapi", same: true},
		"no keys are read":     {argv: "-nostdin -init_hw_device vaapi", like: "-init_hw_device vaapi", same: true},
		"level":                {argv: "-v debug -init_hw_device vaapi", like: "-v verbose -init_hw_device vaapi"},
		"banner":               {argv: "-init_hw_device vaapi", like: "-hide_banner -init_hw_device vaapi"},
		"node":                 {argv: "-init_hw_device vaapi=va:/dev/dri/renderD128", like: "-init_hw_device vaapi=va:/dev/dri/renderD129"},
		"order of the devices": {argv: "-init_hw_device cuda -init_hw_device vulkan", like: "-init_hw_device vulkan -init_hw_device cuda"},
		"unknown options":      {argv: "-frob 1 -init_hw_device vaapi", like: "-init_hw_device vaapi"},
	}
	key := func(argv string) string {
		cmd := Parse("ffmpeg", lines(argv), Host{})
		probe, ok := cmd.HardwareProbe()
		if !ok || probe.Key == "" {
			t.Errorf("%s: %+v %t", argv, probe, ok)
		}
		return probe.Key
	}
	for name, test := range tests {
		if got := key(test.argv) == key(test.like); got != test.same {
			t.Errorf("%s: the same key: %t, want %t", name, got, test.same)
		}
	}
	for _, argv := range []string{"-init_hw_device vaapi -version", "-init_hw_device list", "-init_hw_device cuda -i a -f null -", "-init_hw_device vaapi -f lavfi -i nullsrc -f null -"} {
		cmd := Parse("ffmpeg", lines(argv), Host{})
		if probe, is := cmd.HardwareProbe(); is {
			t.Errorf("%s is taken for a probe of the hardware: %+v", argv, probe)
		}
	}
}

// TestWords checks the walk that Parse and others share.
func TestWords(t *testing.T) {
	argv := []string{"-y", "-c:v:0", "libx264", "-noautorotate", "-autoscale", "0", "-i", "a", "-/vf", "file", "--", "-x", "out", "-t"}
	var got []string
	for _, w := range Words(FFmpeg, argv) {
		value := ""
		if w.Value >= 0 {
			value = "=" + argv[w.Value]
		}
		got = append(got, w.Option+"|"+w.Spec+value+"@"+argv[w.At])
	}
	want := []string{"y|@-y", "c|v:0=libx264@-c:v:0", "noautorotate|@-noautorotate", "autoscale|=0@-autoscale", "i|=a@-i", "vf|=file@-/vf", "|@-x", "|@out", "t|@-t"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFiltersKeepTheText(t *testing.T) {
	for _, graph := range []string{
		"", "[0:4]scale,scale=1920:1080[sub];[0:0] setparams=a=b , yadif_cuda=0:-1:0 [main] ;\n[main][sub]overlay_cuda@x=eof_action=pass[out] ",
		`subtitles=f='/a,b\:c'\''d'[x];null`, "sws_flags=bilinear;scale", "[unclosed", "a]b,,c;;", "scale=(iw*2):ih",
	} {
		filters, tail := Filters(graph)
		var b strings.Builder
		for _, f := range filters {
			b.WriteString(f.Before + f.Text)
		}
		if got := b.String() + tail; got != graph {
			t.Errorf("%q came back as %q", graph, got)
		}
	}
}
