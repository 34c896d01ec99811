package translate

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

var update = flag.Bool("update", false, "write the golden file")

// shape is a command line and the sort of media it is for: sdr, hdr, interlaced,
// or none for one that is refused.
type shape struct {
	Name, Program, Media string
	Argv                 []string
}

// golden is what must become of a shape for one target.
type golden struct {
	Name   string   `json:"name"`
	Target Target   `json:"target"`
	Same   bool     `json:"same,omitempty"`
	Error  string   `json:"error,omitempty"`
	Argv   []string `json:"argv,omitempty"`
}

func read[T any](tb testing.TB, name string) (all []T) {
	tb.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var one T
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			tb.Fatal(err)
		}
		all = append(all, one)
	}
	return all
}

// shapes are Jellyfin's vectors that encode video, and more of what it makes for
// other media: HDR, interlaced, turned, with subtitles.
func shapes(tb testing.TB) (all []shape) {
	for _, v := range read[shape](tb, "../ffmpeg/testdata/vectors.jsonl") {
		cmd := ffmpeg.Parse(v.Program, v.Argv, ffmpeg.Host{})
		if v.Program == "ffmpeg" && slices.ContainsFunc(cmd.Encoders, func(e string) bool { _, ok := encoderNamed(e); return ok }) {
			v.Media = "sdr"
			all = append(all, v)
		}
	}
	if len(all) < 13 {
		tb.Fatalf("%d vectors encode video, want 13 or more", len(all))
	}
	return append(all, read[shape](tb, "testdata/shapes.jsonl")...)
}

func TestGolden(t *testing.T) {
	const file = "testdata/golden.jsonl"
	var got []golden
	for _, s := range shapes(t) {
		for _, to := range Targets() {
			g := golden{Name: s.Name, Target: to}
			out, changes, err := Translate(s.Argv, to, nil)
			switch {
			case err != nil:
				g.Error = err.Error()
			case len(changes) == 0:
				g.Same = true
			default:
				g.Argv = out
			}
			got = append(got, g)
		}
	}
	if *update {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		for _, g := range got {
			if err := e.Encode(g); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := read[golden](t, file)
	if len(want) != len(got) {
		t.Fatalf("%d results, %d golden: go test ./scheduler/translate -update, and read what changed", len(got), len(want))
	}
	for i := range want {
		if diff := cmp.Diff(want[i], got[i]); diff != "" {
			t.Errorf("%s to %s (-want +got):\n%s", want[i].Name, want[i].Target, diff)
		}
	}
}

// each calls do with every translation that succeeds.
func each(t *testing.T, do func(t *testing.T, s shape, to Target, out []string, changes []Change)) {
	for _, s := range shapes(t) {
		for _, to := range Targets() {
			before := slices.Clone(s.Argv)
			out, changes, err := Translate(s.Argv, to, nil)
			if !slices.Equal(before, s.Argv) {
				t.Fatalf("%s: argv was changed", s.Name)
			}
			if (err != nil) != (s.Media == "") && !allowed(s, to) {
				t.Errorf("%s to %s: %v, media %q", s.Name, to, err, s.Media)
			}
			if err != nil {
				if strings.Contains(err.Error(), "\n") || out != nil || changes != nil {
					t.Errorf("%s to %s: %q with %v", s.Name, to, err, out)
				}
				continue
			}
			t.Run(s.Name+"/"+string(to), func(t *testing.T) { do(t, s, to, out, changes) })
		}
	}
}

// allowed knows the shapes that some targets take and some do not.
func allowed(s shape, to Target) bool {
	switch s.Name {
	case "premultiplied":
		return to == Software || to == NVENC
	case "trickplay-sw-10.11":
		return to == NVENC // which has no encoder for pictures
	}
	return s.Media == "" && to == family(s.Argv)
}

func family(argv []string) Target {
	t := &translation{argv: argv}
	if t.family() != nil {
		return ""
	}
	return t.from
}

// TestOnlyTheVideo: what is read and written, what is mapped and where it
// begins, is the same before and after; and so is every other word that is not
// of the hardware, the encoder or the graph.
func TestOnlyTheVideo(t *testing.T) {
	each(t, func(t *testing.T, s shape, to Target, out []string, changes []Change) {
		type operand struct {
			Role            ffmpeg.Role
			Raw, Path, Name string
		}
		operands := func(argv []string) (all []operand) {
			cmd := ffmpeg.Parse("ffmpeg", argv, ffmpeg.Host{Dir: "/"})
			for _, o := range cmd.Operands {
				if o.Role != ffmpeg.Node {
					all = append(all, operand{o.Role, o.Raw, o.Path, o.Option})
				}
			}
			return all
		}
		if diff := cmp.Diff(operands(s.Argv), operands(out)); diff != "" {
			t.Errorf("operands (-before +after):\n%s", diff)
		}
		kept := func(argv []string) (all []string) {
			for _, w := range ffmpeg.Words(ffmpeg.FFmpeg, argv) {
				if isKept(w.Option) || strings.HasPrefix(w.Spec, "a") || w.Option == "i" || w.Option == "" {
					all = append(all, argv[w.At:end(w)]...)
				}
			}
			return all
		}
		if diff := cmp.Diff(kept(s.Argv), kept(out)); diff != "" {
			t.Errorf("other words (-before +after):\n%s", diff)
		}
		for _, c := range changes {
			if c.From == c.To || c.Arg < 0 || c.Arg > len(s.Argv) {
				t.Errorf("change %+v", c)
			}
		}
		if (len(changes) == 0) != slices.Equal(s.Argv, out) {
			t.Errorf("%d changes, the same line: %t", len(changes), slices.Equal(s.Argv, out))
		}
	})
}

func TestIdempotent(t *testing.T) {
	each(t, func(t *testing.T, s shape, to Target, out []string, _ []Change) {
		again, changes, err := Translate(out, to, nil)
		if err != nil || len(changes) > 0 || !slices.Equal(out, again) {
			t.Errorf("the second time: %v, %d changes\n%q\n%q", err, len(changes), out, again)
		}
	})
}

// TestNoHardwareLeft: translated to software, nothing needs a GPU; translated to
// a maker's, nothing needs another's, and the graph is one that moves its frames
// to where each filter is.
func TestNoHardwareLeft(t *testing.T) {
	makers := map[Target][]string{Software: {}, NVENC: {"nvidia"}, QSV: {"intel"}, VAAPI: {"amd", "intel"}}
	each(t, func(t *testing.T, s shape, to Target, out []string, changes []Change) {
		if len(changes) == 0 || s.Media == "" {
			return
		}
		cmd := ffmpeg.Parse("ffmpeg", out, ffmpeg.Host{})
		needs := cmd.Requirements()
		if diff := cmp.Diff(makers[to], needs.Hardware); diff != "" {
			t.Errorf("hardware (-want +got):\n%s", diff)
		}
		for _, c := range needs.Capabilities {
			kind, name, _ := strings.Cut(c, ":")
			_, api, _ := cutLast(name, '_')
			of := to == Software && (kind == "hwaccel" || kind == "device" || strings.HasPrefix(name, "hw") ||
				slices.Contains([]string{"nvenc", "cuda", "cuvid", "qsv", "vaapi", "opencl", "vulkan"}, api))
			if of {
				t.Errorf("%s is left in %q", c, out)
			}
		}
		back := &translation{argv: out, to: Software, can: func(string) bool { return true }, encoderAt: -1, deviceAt: -1, inputAt: -1, graphAt: -1}
		if to == Software {
			return
		}
		if _, err := back.read(); err != nil {
			t.Fatalf("read back: %v", err)
		}
		if back.graphAt >= 0 {
			w := back.wordAt(back.graphAt)
			g, err := readGraph(out[w.Value], w.Option == "vf")
			if err == nil {
				err = g.places(back.onDevice)
			}
			if err != nil {
				t.Errorf("graph %s: %v", out[w.Value], err)
			}
		}
	})
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// TestThereAndBack: a line that went through a GPU comes to software with the
// same codec, size and subtitles as one that went there at once.
func TestThereAndBack(t *testing.T) {
	each(t, func(t *testing.T, s shape, to Target, out []string, _ []Change) {
		if to == Software || family(s.Argv) == Software || s.Media == "" {
			return
		}
		by, _, err := Translate(out, Software, nil)
		if err != nil {
			t.Fatal(err)
		}
		at, _, err := Translate(s.Argv, Software, nil)
		if err != nil {
			t.Fatal(err)
		}
		encoders := func(argv []string) []string {
			cmd := ffmpeg.Parse("ffmpeg", argv, ffmpeg.Host{})
			return cmd.Encoders
		}
		if diff := cmp.Diff(encoders(at), encoders(by)); diff != "" {
			t.Errorf("encoders (-at once +by %s):\n%s", to, diff)
		}
		sizes := func(argv []string) (all []string) {
			for _, a := range argv {
				for _, word := range []string{"w=256:h=144", "w=1280:h=720", "w=320:h=180", "w=144:h=256", "transpose", "hflip,vflip", "yadif=1", "yadif=0", "overlay", "subtitles="} {
					if strings.Contains(strings.ReplaceAll(a, "bwdif", "yadif"), word) {
						all = append(all, word)
					}
				}
			}
			return all
		}
		if diff := cmp.Diff(sizes(at), sizes(by)); diff != "" {
			t.Errorf("filters (-at once +by %s):\n%s\n%q\n%q", to, diff, at, by)
		}
	})
}

func TestCan(t *testing.T) {
	hdr := []string{"-init_hw_device", "cuda=cu:0", "-hwaccel", "cuda", "-hwaccel_output_format", "cuda", "-i", "a", "-c:v", "h264_nvenc",
		"-vf", "yadif_cuda=0:-1:0,tonemap_cuda=tonemap=bt2390", "b.mkv"}
	tests := map[string]struct {
		to     Target
		cannot []string
		want   string // in the new line
		err    string
	}{
		"Jellyfin's own filter":         {to: Software, want: "tonemapx=format=yuv420p:p=bt709:t=bt709:m=bt709:tonemap=bt2390:peak=100:desat=0"},
		"the filters of any ffmpeg":     {to: Software, cannot: []string{"filter:tonemapx"}, want: "tonemap=tonemap=hable"},
		"no tone mapping":               {to: Software, cannot: []string{"filter:tonemapx", "filter:zscale"}, err: "filter:zscale"},
		"no encoder":                    {to: VAAPI, cannot: []string{"encoder:h264_vaapi"}, err: "encoder:h264_vaapi"},
		"no device":                     {to: QSV, cannot: []string{"device:qsv"}, err: "device:qsv"},
		"OpenCL keeps the parameters":   {to: QSV, want: "tonemap_opencl=format=nv12:p=bt709:t=bt709:m=bt709:tonemap=bt2390"},
		"without OpenCL":                {to: QSV, cannot: []string{"device:opencl"}, want: "tonemap_vaapi=format=nv12"},
		"in memory, between two copies": {to: VAAPI, cannot: []string{"filter:tonemap_vaapi"}, want: "deinterlace_vaapi=rate=frame,scale_vaapi=format=p010,hwdownload,format=p010le,tonemapx="},
		"and up again":                  {to: VAAPI, cannot: []string{"filter:tonemap_vaapi"}, want: "format=nv12,hwupload=derive_device=vaapi"},
	}
	for name, test := range tests {
		out, _, err := Translate(hdr, test.to, func(c string) bool { return !slices.Contains(test.cannot, c) })
		if test.err == "" && (err != nil || !strings.Contains(strings.Join(out, " "), test.want)) {
			t.Errorf("%s: %v, %q", name, err, out)
		}
		if test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: %v, want an error about %s", name, err, test.err)
		}
	}
}

func TestUnknownTarget(t *testing.T) {
	if _, _, err := Translate(nil, "amf", nil); err == nil || !strings.Contains(err.Error(), "amf") {
		t.Errorf("%v", err)
	}
}

// FuzzTranslate: whatever stands in argv, it is kept, and what is made of it is
// made the same way again.
func FuzzTranslate(f *testing.F) {
	for _, s := range shapes(f) {
		f.Add(strings.Join(s.Argv, "\n"))
	}
	f.Fuzz(func(t *testing.T, joined string) {
		argv := strings.Split(joined, "\n")
		before := slices.Clone(argv)
		for _, to := range Targets() {
			out, changes, err := Translate(argv, to, nil)
			if !slices.Equal(before, argv) {
				t.Fatalf("argv was changed: %q, was %q", argv, before)
			}
			if err != nil {
				continue
			}
			again, more, err := Translate(out, to, nil)
			if len(changes) > 0 && (err != nil || len(more) > 0 || !slices.Equal(out, again)) {
				t.Fatalf("to %s: %q became %q, then %q: %v", to, argv, out, again, err)
			}
		}
	})
}
