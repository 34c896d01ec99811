package translate

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// The tests here run a real ffmpeg. They are skipped with -short, and where
// there is none. No GPU is needed: lines for software run to their end, lines for
// GPUs go as far as ffmpeg takes them before it opens a device.

func program(t *testing.T, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts ffmpeg some hundred times")
	}
	found, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no %s on PATH", name)
	}
	return found
}

// run starts a program and returns what it printed, and its error.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := run(t, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", filepath.Base(name), args, err, out)
	}
	return out
}

// A solid white box that both kinds of subtitles show from 0.3 s to 1.1 s, at 20,140
// to 60,160 of 320x180: drawn, so that no font decides what is seen.
const box = `[Script Info]
ScriptType: v4.00+
PlayResX: 320
PlayResY: 180

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Sans,20,&H00FFFFFF,&H00FFFFFF,&H00FFFFFF,&H00FFFFFF,0,0,0,0,100,100,0,0,1,0,0,7,0,0,0,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.30,0:00:01.10,Default,,0,0,0,,{\pos(20,140)\p1}m 0 0 l 40 0 40 20 0 20{\p0}
`

const seconds = 3

// media makes the inputs: a film with sound and three subtitle streams, 8 bits,
// 10 bits HDR, interlaced, and a container without subtitles.
func media(t *testing.T, bin, dir string) {
	t.Helper()
	ass := filepath.Join(dir, "3.ass")
	if err := os.WriteFile(ass, []byte(box), 0o600); err != nil {
		t.Fatal(err)
	}
	sup, err := filepath.Abs("testdata/box.sup")
	if err != nil {
		t.Fatal(err)
	}
	film := func(out, source string, codec ...string) {
		args := []string{"-v", "error", "-f", "lavfi", "-i", source, "-f", "lavfi", "-i", fmt.Sprintf("sine=d=%d", seconds), "-i", ass, "-i", ass, "-i", sup,
			"-map", "0", "-map", "1", "-map", "2", "-map", "3", "-map", "4", "-c:s:0", "srt", "-c:s:1", "copy", "-c:s:2", "copy", "-c:a", "aac"}
		must(t, bin, append(append(args, codec...), "-t", strconv.Itoa(seconds), filepath.Join(dir, out))...)
	}
	// Darker than the box.
	picture := func(rate int) string {
		return fmt.Sprintf("testsrc2=s=320x180:r=%d:d=%d,lutyuv=y=val/3", rate, seconds)
	}
	film("sdr.mkv", picture(24), "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast")
	film("hdr.mkv", picture(24), "-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast",
		"-x265-params", "log-level=error:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:hdr10=1")
	film("interlaced.mkv", picture(50)+",tinterlace=interleave_top,fieldorder=tff", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast", "-flags", "+ilme+ildct")
	must(t, bin, "-v", "error", "-i", filepath.Join(dir, "sdr.mkv"), "-map", "0:v", "-map", "0:a", "-c", "copy", filepath.Join(dir, "sdr.mp4"))
}

// capabilities are those of the ffmpeg at hand, and of what stands in for the
// parts of Jellyfin's own build.
func capabilities(t *testing.T, bin string) func(string) bool {
	t.Helper()
	have := map[string]bool{"encoder:libfdk_aac": true, "filter:alphasrc": true}
	for kind, list := range map[string]string{"encoder": "-encoders", "filter": "-filters"} {
		for line := range strings.Lines(must(t, bin, "-hide_banner", list)) {
			if fields := strings.Fields(line); len(fields) > 2 {
				have[kind+":"+fields[1]] = true
			}
		}
	}
	return func(c string) bool { return have[c] }
}

var alphasrc = regexp.MustCompile(`alphasrc=s=(\d+x\d+):r=(\d+):start='0'`)

// here makes a line run on this machine: other files, the beginning of the
// film, and stand-ins for what only Jellyfin's build has.
func here(s shape, argv []string, dir, out string) []string {
	argv = slices.Clone(argv)
	for i, a := range argv {
		switch {
		case strings.HasPrefix(a, "file:/media/"):
			argv[i] = filepath.Join(dir, s.Media+filepath.Ext(a))
		case i > 0 && argv[i-1] == "-ss":
			argv[i] = "0"
		case i > 0 && argv[i-1] == "-start_number":
			argv[i] = "0"
		case a == "libfdk_aac":
			argv[i] = "aac"
		case strings.HasPrefix(a, "fps=0.1"):
			argv[i] = strings.Replace(a, "fps=0.10000000149011612", "fps=2", 1)
		}
		a = argv[i]
		a = regexp.MustCompile(`/config/data/subtitles/[^']*/`).ReplaceAllString(a, dir+"/")
		a = regexp.MustCompile(`/config/data/attachments/[^']*`).ReplaceAllString(a, dir)
		a = alphasrc.ReplaceAllString(a, "color=c=black@0.0:s=$1:r=$2")
		a = strings.ReplaceAll(a, ":sub2video=1", "")
		a = regexp.MustCompile(`^/(cache/transcodes|tmp/jellyfin/[0-9a-f]+)/`).ReplaceAllString(a, out+"/")
		argv[i] = a
	}
	return append([]string{"-nostdin", "-v", "warning"}, argv...)
}

// TestSoftwareRuns translates every line of a GPU to software, runs it on a film
// and looks at what came out: codec, size, number of frames, HDR, subtitles.
func TestSoftwareRuns(t *testing.T) {
	bin, probe := program(t, "ffmpeg"), program(t, "ffprobe")
	dir := t.TempDir()
	media(t, bin, dir)
	can := capabilities(t, bin)
	var ran int
	for _, s := range shapes(t) {
		if s.Media == "" || family(s.Argv) == Software {
			continue
		}
		ran++
		t.Run(s.Name, func(t *testing.T) {
			argv, _, err := Translate(s.Argv, Software, can)
			if err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			line := here(s, argv, dir, out)
			printed := must(t, bin, line...)
			made := strings.Replace(line[len(line)-1], "%08d", "00000001", 1)
			look(t, probe, bin, s, made, printed)
		})
	}
	if ran < 30 {
		t.Errorf("%d lines ran, want 30 or more", ran)
	}
}

type stream struct {
	Codec    string `json:"codec_name"`
	Width    int    `json:"width"`
	Height   int    `json:"height"`
	Format   string `json:"pix_fmt"`
	Transfer string `json:"color_transfer"`
	Range    string `json:"color_range"`
	Profile  string `json:"profile"`
	Frames   string `json:"nb_read_frames"`
}

// look judges one output by what the source's line asks for.
func look(t *testing.T, probe, bin string, s shape, made, printed string) {
	t.Helper()
	var got struct{ Streams []stream }
	text := must(t, probe, "-v", "error", "-count_frames", "-select_streams", "v", "-of", "json", "-show_streams", "-allowed_extensions", "ALL", made)
	if strings.HasSuffix(made, ".jpg") {
		text = must(t, probe, "-v", "error", "-count_frames", "-select_streams", "v", "-of", "json", "-show_streams", made)
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(got.Streams) != 1 {
		t.Fatalf("%v in %s", err, text)
	}
	v := got.Streams[0]
	joined := strings.Join(s.Argv, " ")
	want := stream{Width: 320, Height: 180, Format: "yuv420p", Frames: strconv.Itoa(24 * seconds)}
	cmd := ffmpeg.Parse("ffmpeg", s.Argv, ffmpeg.Host{})
	for _, name := range cmd.Encoders {
		if e, ok := encoderNamed(name); ok {
			want.Codec = e.codec
		}
	}
	if n := regexp.MustCompile(`(?:scale|vpp)_\w+=(?:w=)?(\d+):(?:h=)?(\d+)|scale=trunc\((\d+)/2\)\*2:trunc\((\d+)/2`).FindStringSubmatch(joined); n != nil {
		want.Width, _ = strconv.Atoi(n[1] + n[3])
		want.Height, _ = strconv.Atoi(n[2] + n[4])
	}
	switch {
	case strings.Contains(joined, "transpose_cuda=dir=clock"):
		want.Width, want.Height = want.Height, want.Width
	case want.Codec == "mjpeg":
		want.Frames, want.Format = "1", "yuvj420p"
	case s.Media == "interlaced" && (strings.Contains(joined, "bwdif_cuda=1") || strings.Contains(joined, "rate=field")):
		want.Frames = strconv.Itoa(50 * seconds)
	case s.Media == "interlaced":
		want.Frames = strconv.Itoa(25 * seconds)
	}
	if v.Codec != want.Codec || v.Width != want.Width || v.Height != want.Height || v.Format != want.Format || v.Frames != want.Frames {
		t.Errorf("got %+v, want %+v\n%s", v, want, printed)
	}
	if s.Media == "hdr" && v.Transfer == "smpte2084" {
		t.Errorf("it is still HDR: %+v", v)
	}
	if strings.Contains(joined, "overlay_") || strings.Contains(joined, "subtitles=") {
		if luma := lumaOfBox(t, bin, made, v); luma < 200 {
			t.Errorf("the subtitle's box is not there: its brightness is %d", luma)
		}
	}
}

// lumaOfBox is the brightness in the middle of where the subtitles draw, at 0.7 s.
func lumaOfBox(t *testing.T, bin, made string, v stream) int {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pixel")
	must(t, bin, "-v", "error", "-allowed_extensions", "ALL", "-i", made, "-vf",
		fmt.Sprintf("select=gte(t\\,0.7),crop=4:4:%d:%d,scale=1:1,format=gray", 40*v.Width/320-2, 150*v.Height/180-2), "-frames:v", "1", "-f", "rawvideo", file)
	pixel, err := os.ReadFile(file)
	if err != nil || len(pixel) != 1 {
		t.Fatalf("%v: %d bytes", err, len(pixel))
	}
	return int(pixel[0])
}

// complaints are what ffmpeg says of an option or a value it does not know,
// before it looks for a device.
var complaints = regexp.MustCompile(`(?i)(unrecognized option|option .* not found|error setting option|unable to parse|undefined constant|missing argument|` +
	`error initializing filter|error parsing|invalid argument for|unrecognised|has not been used for any stream)[^\n]*`)

// jellyfinsOwn are values and options that only Jellyfin's build has (it asks its
// ffmpeg for them at its start), and what stands in for them.
var jellyfinsOwn = [][2]string{
	{"tonemap=bt2390", "tonemap=hable"}, {":range=tv", ""}, {":tonemap_mode=max", ""},
	{"overlay_vaapi=eof_action=pass:repeatlast=0", "overlay_vaapi"},
}

// TestGPUArguments gives the encoder's options and each filter of every line for
// a GPU to ffmpeg. Without a device it stops where it would open one, but it
// reads the arguments before.
func TestGPUArguments(t *testing.T) {
	bin := program(t, "ffmpeg")
	can := capabilities(t, bin)
	encoders, filters := map[string][]string{}, map[string]bool{}
	for _, s := range shapes(t) {
		for _, to := range []Target{NVENC, QSV, VAAPI} {
			out, changes, err := Translate(s.Argv, to, nil)
			if err != nil || len(changes) == 0 || family(s.Argv) == to {
				continue
			}
			codec, graph := parts(out)
			encoders[strings.Join(codec, " ")] = codec
			all, _ := ffmpeg.Filters(graph)
			for _, f := range all {
				if strings.Contains(f.Name, "_") || strings.HasPrefix(f.Name, "hw") {
					filters[f.Text] = can("filter:" + f.Name)
				}
			}
		}
	}
	var work []func()
	skipped := 0
	for _, codec := range encoders {
		if !can("encoder:"+codec[1]) || strings.Contains(codec[1], "lib") {
			skipped++
			continue
		}
		work = append(work, func() {
			args := append([]string{"-v", "warning", "-f", "lavfi", "-i", "nullsrc=d=0.1", "-map", "0:0"}, codec...)
			printed, _ := run(t, bin, append(args, "-f", "null", "-")...)
			if found := complaints.FindString(printed); found != "" {
				t.Errorf("%q: %s", codec, found)
			}
			if strings.HasSuffix(codec[1], "_vaapi") { // stops before it reads the values
				words(t, codec, must(t, bin, "-hide_banner", "-h", "encoder="+codec[1]))
			}
		})
	}
	for text, known := range filters {
		if !known {
			skipped++ // tonemap_cuda and others of Jellyfin's build
			continue
		}
		work = append(work, func() {
			graph := "nullsrc=d=0.1," + text + "[out]"
			if strings.HasPrefix(text, "overlay") {
				graph = "nullsrc=d=0.1[a];nullsrc=d=0.1[b];[a][b]" + text + "[out]"
			}
			for _, own := range jellyfinsOwn {
				graph = strings.Replace(graph, own[0], own[1], 1)
			}
			printed, _ := run(t, bin, "-v", "warning", "-filter_complex", graph, "-map", "[out]", "-f", "null", "-")
			if found := complaints.FindString(printed); found != "" {
				t.Errorf("%s: %s", graph, found)
			}
		})
	}
	if len(work) < 25 {
		t.Errorf("%d arguments to give, want 25 or more", len(work))
	}
	t.Logf("%d sets of arguments, %d that this ffmpeg has no encoder or filter for", len(work), skipped)
	var wait sync.WaitGroup
	limit := make(chan struct{}, 3)
	for _, do := range work {
		limit <- struct{}{}
		wait.Go(func() { defer func() { <-limit }(); do() })
	}
	wait.Wait()
}

// words compares the values that are words with the help of an encoder.
func words(t *testing.T, codec []string, help string) {
	t.Helper()
	for i := 2; i+1 < len(codec); i += 2 {
		option, _, _ := strings.Cut(codec[i], ":")
		value := codec[i+1]
		_, after, own := strings.Cut(help, "  "+option+" ")
		if _, err := strconv.ParseFloat(value, 64); err == nil || !own {
			continue
		}
		constants, _, _ := strings.Cut(after, "\n  -")
		if !regexp.MustCompile(`(?m)^ +` + regexp.QuoteMeta(value) + ` `).MatchString(constants) {
			t.Errorf("%q: %s has no value %s in\n%s", codec, option, value, constants)
		}
	}
}

// parts takes the encoder with its options, and the graph, out of a line.
func parts(argv []string) (codec []string, graph string) {
	for _, w := range ffmpeg.Words(ffmpeg.FFmpeg, argv) {
		switch {
		case w.Option == "vf" || w.Option == "filter_complex":
			graph = argv[w.Value]
		case (w.Option == "c" || w.Option == "codec") && strings.HasPrefix(w.Spec, "v"):
			if _, ok := encoderNamed(argv[w.Value]); ok {
				codec = append(codec, argv[w.At:end(w)]...)
			}
		case len(codec) == 0 || w.Value < 0 || isKept(w.Option) || isDevice(w.Option) || strings.HasPrefix(w.Spec, "a") || strings.HasPrefix(w.Option, "i"):
		default:
			codec = append(codec, argv[w.At:end(w)]...)
		}
	}
	return codec, graph
}
