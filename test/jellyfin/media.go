package jellyfin

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// mediaVersion changes whenever what MakeMedia makes does.
const mediaVersion = "2"

// The library. A vector names its files; scenarios name these.
const (
	movie     = "/media/Movies/Arrival (2016)/Arrival (2016) - 1080p.mkv" // 60 s
	uhd       = "/media/Movies/Arrival (2016)/Arrival (2016) - 2160p.mkv"
	feature   = "/media/Movies/Long (2020)/Long (2020).mkv" // 20 min
	anime     = `/media/Anime/Show "S1"/Show - 01.mkv`
	onlySubs  = "/media/Anime/subs.mks"
	music     = "/media/Music/A/B/01.flac"
	pilot     = "/media/Shows/Pilot/Pilot S01E01.mp4"
	broadcast = "/media/live.ts"
)

// MakeMedia makes the library below dir/media with the ffmpeg in PATH, unless it is
// there. It is small: 320x180, a minute, and twenty minutes of the same.
func MakeMedia(ctx context.Context, cache string) (string, error) {
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		return "", fmt.Errorf("the library is made with ffmpeg: %w; install it (apt-get install ffmpeg)", err)
	}
	dir := filepath.Join(cache, "jellyfin-media-"+mediaVersion)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(cache, "jellyfin-media-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	l := &library{ffmpeg: ffmpeg, root: temp}
	if err := l.make(ctx); err != nil {
		return "", fmt.Errorf("make media: %w", err)
	}
	if err := os.Rename(temp, dir); err != nil && !os.IsExist(err) {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// library is made step by step; the first error stays.
type library struct {
	ffmpeg, root string
	err          error
}

func (l *library) path(name string) string { return l.root + name }

func (l *library) write(name string, content []byte) {
	if l.err == nil {
		l.err = os.MkdirAll(filepath.Dir(l.path(name)), 0o755)
	}
	if l.err == nil {
		l.err = os.WriteFile(l.path(name), content, 0o644)
	}
}

// run starts ffmpeg; arguments that begin with /media or /parts are below the root.
func (l *library) run(ctx context.Context, args ...string) {
	if l.err != nil {
		return
	}
	for i, a := range args {
		if strings.HasPrefix(a, "/media/") || strings.HasPrefix(a, "/parts/") {
			args[i] = l.path(a)
		}
	}
	if l.err = os.MkdirAll(filepath.Dir(args[len(args)-1]), 0o755); l.err != nil {
		return
	}
	cmd := exec.CommandContext(ctx, l.ffmpeg, append([]string{"-nostdin", "-v", "error", "-bitexact", "-y"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		l.err = fmt.Errorf("%s: %w: %s", args[len(args)-1], err, out)
	}
}

func (l *library) make(ctx context.Context) error {
	l.write("/parts/2.srt", []byte(srt("Plain")))
	l.write("/parts/3.ass", []byte(ass))
	l.write("/parts/4.sup", pgs())
	l.write("/parts/chapters", []byte(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=30\ntitle=One\n[CHAPTER]\nTIMEBASE=1/1\nSTART=30\nEND=60\ntitle=Two\n"))
	font := make([]byte, 40<<10)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(font)
	l.write("/parts/OpenSans.ttf", font)

	video := []string{"-f", "lavfi", "-i", "testsrc2=size=320x180:rate=12:duration=60", "-f", "lavfi", "-i", "aevalsrc=0.2*sin(440*2*PI*t)*lt(mod(t\\,10)\\,7):d=60:s=44100"}
	h264 := []string{"-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast", "-crf", "30", "-g", "24", "-c:a", "aac", "-b:a", "48k"}
	l.run(ctx, join(video, []string{"-i", "/parts/2.srt", "-i", "/parts/3.ass", "-i", "/parts/4.sup", "-i", "/parts/chapters",
		"-map", "0", "-map", "1", "-map", "2", "-map", "3", "-map", "4", "-map_metadata", "5", "-c:s", "copy"}, h264, []string{movie})...)
	l.run(ctx, join(video, []string{"-t", "30", "-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-preset", "ultrafast", "-crf", "34",
		"-x265-params", "log-level=error:keyint=24:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:hdr10=1", "-c:a", "aac", uhd})...)
	l.run(ctx, join(video, []string{"-i", "/parts/3.ass", "-map", "0", "-map", "1", "-map", "2", "-t", "20", "-c:s", "copy",
		"-attach", "/parts/OpenSans.ttf", "-metadata:s:t", "mimetype=font/ttf"}, h264, []string{anime})...)
	l.run(ctx, "-i", "/parts/3.ass", "-map", "0", "-c", "copy", "-attach", "/parts/OpenSans.ttf", "-metadata:s:t", "mimetype=application/vnd.ms-opentype",
		"-metadata:s:t", "filename=font.otf", "-f", "matroska", onlySubs)
	l.run(ctx, "-f", "lavfi", "-i", "testsrc2=size=64x64:duration=1:rate=1", "-frames:v", "1", "/parts/cover.png")
	l.run(ctx, "-f", "lavfi", "-i", "sine=frequency=440:duration=30", "-i", "/parts/cover.png", "-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic", music)
	l.run(ctx, "-i", movie, "-map", "0:v", "-map", "0:a", "-c", "copy", pilot)
	l.run(ctx, "-stream_loop", "19", "-i", movie, "-map", "0:v", "-map", "0:a", "-map_chapters", "-1", "-c", "copy", feature)
	l.run(ctx, "-i", movie, "-map", "0:v", "-map", "0:a", "-c", "copy", broadcast)

	l.write(strings.TrimSuffix(movie, ".mkv")+".en.srt", []byte(srt("Side-car")))
	l.write("/media/Movies/Old/Old.sub", []byte("{25}{75}Caf\xe9 au lait\n{100}{150}\xbfQu\xe9?\n{175}{200}Fin\n")) // windows-1252
	l.write("/media/Prepared/3.ass", []byte(ass))
	l.write("/media/Prepared/OpenSans.ttf", font)
	if l.err == nil {
		l.err = os.RemoveAll(l.path("/parts"))
	}
	return l.err
}

func join(lists ...[]string) (all []string) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

func srt(word string) string {
	var b strings.Builder
	for i := range 12 {
		fmt.Fprintf(&b, "%d\n00:00:%02d,000 --> 00:00:%02d,500\n%s line %d, Łódź 日本\n\n", i+1, 5*i+1, 5*i+3, word, i+1)
	}
	return b.String()
}

const ass = `[Script Info]
ScriptType: v4.00+
PlayResX: 320
PlayResY: 180

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,DejaVu Sans,24,&H00FFFFFF,&H000000FF,&H00000000,&H00000000,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:05.00,Default,,0,0,0,,Burned {\i1}in{\i0}
Dialogue: 0,0:00:08.00,0:00:12.00,Default,,0,0,0,,Second line
`

// pgs makes graphical subtitles, for which ffmpeg has no encoder: one box,
// shown and cleared three times.
func pgs() []byte {
	var out bytes.Buffer
	const width, height, boxWidth, boxHeight = 320, 180, 40, 20
	u16 := binary.BigEndian.AppendUint16
	for i := range 3 {
		segment := func(at int, kind byte, body []byte) {
			out.WriteString("PG")
			header := binary.BigEndian.AppendUint32(nil, uint32(at*90_000))
			header = append(append(header, 0, 0, 0, 0), kind)
			out.Write(append(u16(header, uint16(len(body))), body...))
		}
		composition := func(number int, state byte, objects []byte) []byte {
			b := u16(u16(nil, width), height)
			b = append(u16(append(b, 0x10), uint16(number)), state, 0, 0, byte(min(1, len(objects))))
			return append(b, objects...)
		}
		window := u16(u16(u16(u16([]byte{1, 0}, 20), 140), boxWidth), boxHeight)
		at := 2 + 15*i
		segment(at, 0x16, composition(2*i, 0x80, u16(u16([]byte{0, 0, 0, 0}, 20), 140)))
		segment(at, 0x17, window)
		segment(at, 0x14, []byte{0, 0, 1, 235, 128, 128, 255}) // palette: colour 1 is opaque white
		var rows []byte
		for range boxHeight {
			rows = append(rows, 0, 0x80|boxWidth, 1, 0, 0) // a run of colour 1, the end of the row
		}
		object := append([]byte{0, 0, 0, 0xc0, 0}, u16(nil, uint16(len(rows)+4))...)
		object = append(u16(u16(object, boxWidth), boxHeight), rows...)
		segment(at, 0x15, object)
		segment(at, 0x80, nil)
		segment(at+4, 0x16, composition(2*i+1, 0, nil))
		segment(at+4, 0x17, window)
		segment(at+4, 0x80, nil)
	}
	return out.Bytes()
}
