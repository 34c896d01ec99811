package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/ffpod/ffpod/test/kubectl"
)

// result is one row of the table.
type result struct {
	what, where  string
	firstSegment string // seconds, of HLS only
	total        string
	exit         string
	bad          string // why the verdict is bad
}

const film = "/media/ffpod-demo/film.mkv"

// makeFilm is a real two-minute H.264/AAC mkv, made once.
const makeFilm = `
if [ ! -s ` + film + ` ]; then
  mkdir -p /media/ffpod-demo
  /usr/bin/ffmpeg -nostdin -v error -y -f lavfi -i testsrc2=size=1280x720:rate=25:duration=120 -f lavfi -i sine=frequency=440:duration=120 \
    -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 50 -c:a aac -f matroska ` + film + `.part
  mv ` + film + `.part ` + film + `
fi
/usr/bin/ffprobe -v error -show_entries format=duration -of csv=p=0 ` + film

// runSteps runs every step even when one is bad.
func runSteps(ctx context.Context, k kubectl.Client) ([]result, error) {
	fmt.Println("\nthe main job, in the client pod:")
	if err := step("make a two-minute H.264/AAC film (first time 15 s)", func() error {
		_, err := inClient(ctx, k, makeFilm)
		return err
	}); err != nil {
		return nil, err
	}
	var all []result
	for _, s := range []struct {
		what, title string
		run         func(context.Context, kubectl.Client) result
	}{
		{"HLS, warm worker", "(a) HLS transcode on a warm worker (15 s)", func(ctx context.Context, k kubectl.Client) result {
			return transcode(ctx, k, "warm", "cpu")
		}},
		{"HLS, Job with a GPU", "(b) the same as a Job that requests nvidia.com/gpu (20 s)", func(ctx context.Context, k kubectl.Client) result {
			return transcode(ctx, k, "job", "nvidia")
		}},
		{"ffprobe -of json", "(c) ffprobe -of json", probe},
		{"binary stdout, sha256", "(d) stdout through a pipe, against a local run", pipe},
		{"a failing command", "(e) a command that fails", failing},
	} {
		var r result
		_ = step(s.title, func() error {
			r = s.run(ctx, k)
			if r.bad != "" {
				return fmt.Errorf("%s", r.bad)
			}
			return nil
		})
		r.what = s.what
		all = append(all, r)
	}
	return all, ctx.Err()
}

// transcode makes HLS and waits for its first segment as a player does.
func transcode(ctx context.Context, k kubectl.Client, policy, class string) result {
	dir := "/cache/ffpod-demo/" + policy
	out, err := inClient(ctx, k, `
rm -rf `+dir+`; mkdir -p `+dir+`
now() { date +%s.%N; }
begin=$(now)
FFPOD_MODE=remote FFPOD_FALLBACK=fail FFPOD_POLICY=`+policy+` FFPOD_CLASS=`+class+` ffmpeg -nostdin -v warning -i `+film+` \
  -c:v libx264 -preset veryfast -vf scale=640:-2 -force_key_frames 'expr:gte(t,n_forced*3)' -c:a aac \
  -f hls -hls_time 3 -hls_playlist_type vod -hls_segment_filename `+dir+`/film%d.ts -y `+dir+`/film.m3u8 2>`+dir+`/log &
pid=$!
while [ ! -e `+dir+`/film0.ts ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
first=$(now)
code=0; wait $pid || code=$?
end=$(now)
echo $begin $first $end $code $(ls `+dir+`/*.ts 2>/dev/null | wc -l) $(grep -c ENDLIST `+dir+`/film.m3u8 2>/dev/null || true)
/usr/bin/ffprobe -v error -show_entries format=duration -of csv=p=0 `+dir+`/film.m3u8 || echo 0
tail -n 3 `+dir+`/log`)
	r := result{}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	f := strings.Fields(lines[0])
	if err != nil || len(f) != 6 || len(lines) < 2 {
		r.bad = fmt.Sprintf("the script said %q: %v", out, err)
		return r
	}
	r.firstSegment, r.total, r.exit = seconds(f[0], f[1]), seconds(f[0], f[2]), f[3]
	r.where = lastWhere(ctx, k)
	length, _ := strconv.ParseFloat(lines[1], 64)
	switch {
	case r.exit != "0":
		r.bad = fmt.Sprintf("exit %s: %s", r.exit, strings.Join(lines[2:], " "))
	case f[5] != "1":
		r.bad = "the playlist has no end"
	case length < 119 || length > 121:
		r.bad = fmt.Sprintf("the playlist lasts %.1f s, the film 120 s, in %s segments", length, f[4])
	case policy == "job" && !strings.Contains(r.where, "job"), policy == "warm" && !strings.Contains(r.where, "warm"):
		r.bad = "it ran elsewhere than asked"
	}
	return r
}

func probe(ctx context.Context, k kubectl.Client) result {
	out, err := inClient(ctx, k, timed(`ffprobe -v error -of json -show_format -show_streams `+film))
	r, body := split(out, err)
	r.where = "local (ffprobe reads only the media)"
	var parsed struct {
		Streams []struct {
			CodecName string `json:"codec_name"`
		}
	}
	if r.bad == "" {
		if err := json.Unmarshal([]byte(body), &parsed); err != nil || len(parsed.Streams) != 2 || parsed.Streams[0].CodecName != "h264" {
			r.bad = fmt.Sprintf("not the JSON of the film: %v", err)
		}
	}
	return r
}

func pipe(ctx context.Context, k kubectl.Client) result {
	const command = `ffmpeg -nostdin -v error -i ` + film + ` -map 0:v -c copy -fflags +bitexact -f mpegts - | sha256sum`
	local, err := inClient(ctx, k, "/usr/bin/"+command)
	if err != nil {
		return result{bad: err.Error()}
	}
	out, err := inClient(ctx, k, timed(`FFPOD_MODE=remote FFPOD_FALLBACK=fail FFPOD_POLICY=warm `+command))
	r, body := split(out, err)
	r.where = lastWhere(ctx, k)
	if r.bad == "" && strings.TrimSpace(body) != strings.TrimSpace(local) {
		r.bad = "sha256 differs from the local run"
	}
	return r
}

func failing(ctx context.Context, k kubectl.Client) result {
	const command = `ffmpeg -nostdin -hide_banner -v error -i /media/ffpod-demo/there-is-no-such-film.mkv -c:v libx264 -f null - 2>&1`
	local, err := inClient(ctx, k, "code=0; /usr/bin/"+command+" || code=$?; echo code $code")
	if err != nil {
		return result{bad: err.Error()}
	}
	out, err := inClient(ctx, k, timed(`FFPOD_MODE=remote FFPOD_FALLBACK=fail FFPOD_POLICY=warm `+command))
	r, body := split(out, err)
	r.where = lastWhere(ctx, k)
	if r.bad == "" && body+"code "+r.exit != strings.TrimSpace(local) {
		r.bad = fmt.Sprintf("said %q and exit %s, local ffmpeg %q", body, r.exit, local)
	}
	if r.exit == "0" {
		r.bad = "it did not fail"
	}
	return r
}

// timed runs a command and prints begin, end and exit code in a last line.
func timed(command string) string {
	return `begin=$(date +%s.%N); code=0; ` + command + ` || code=$?; end=$(date +%s.%N); echo; echo "@ $begin $end $code"`
}

func split(out string, err error) (result, string) {
	body, last, ok := strings.Cut(out, "\n@ ")
	f := strings.Fields(last)
	if err != nil || !ok || len(f) != 3 {
		return result{bad: fmt.Sprintf("the script said %q: %v", out, err)}, ""
	}
	return result{total: seconds(f[0], f[1]), exit: f[2]}, body
}

func seconds(begin, end string) string {
	a, _ := strconv.ParseFloat(begin, 64)
	b, _ := strconv.ParseFloat(end, 64)
	return fmt.Sprintf("%.2f s", b-a)
}

// lastWhere reads where the newest session ran from the scheduler's audit line.
func lastWhere(ctx context.Context, k kubectl.Client) string {
	out, err := k.Run(ctx, nil, "logs", "deploy/ffpod-scheduler", "--tail=50")
	if err != nil {
		return "unknown: " + err.Error()
	}
	where := "unknown: no audit line"
	for line := range strings.Lines(out) {
		var audit struct{ Msg, Placement, Worker, Node string }
		if json.Unmarshal([]byte(line), &audit) == nil && audit.Worker != "" && audit.Placement != "" {
			where = fmt.Sprintf("%s: pod %s on %s", audit.Placement, audit.Worker, audit.Node)
		}
	}
	return where
}

func countBad(all []result) int {
	n := 0
	for _, r := range all {
		if r.bad != "" {
			n++
		}
	}
	return n
}

func printTable(w io.Writer, all []result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nWHAT\tWHERE\tFIRST SEGMENT\tTOTAL\tEXIT\tVERDICT")
	for _, r := range all {
		verdict := "good"
		if r.bad != "" {
			verdict = "BAD: " + r.bad
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.what, r.where, r.firstSegment, r.total, r.exit, verdict)
	}
	t.Flush()
}
