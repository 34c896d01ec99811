package jellyfin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Scenario is something that a server does with its ffmpeg, from its start to its
// last file.
type Scenario struct {
	Name string
	// Fake wants the simulator itself as ffmpeg, here and on the worker.
	Fake bool
	// Network reads a URL of the server: a worker needs a way to it.
	Network bool
	// Fenced is more than plain ffmpeg keeps.
	Fenced bool
	// Only says that the releases do not differ in it.
	Only Flavour
	play func(context.Context, *Server, *Report)
}

// Scenarios are all of them.
var Scenarios = []Scenario{
	{Name: "startup", play: startup},
	{Name: "startup-vaapi", Fake: true, play: startupVAAPI},
	{Name: "scan", Only: V12_0, play: scan},
	{Name: "keyframes", Only: V12_0, play: keyframes},
	{Name: "playback-ts", play: func(ctx context.Context, s *Server, r *Report) { playback(ctx, s, r, "hls-ts-x264") }},
	{Name: "playback-fmp4", play: func(ctx context.Context, s *Server, r *Report) { playback(ctx, s, r, "hls-fmp4-x264-seek-10.11") }},
	{Name: "seek-after-kill", Only: V12_0, Fake: true, play: seekAfterKill},
	{Name: "restart", Only: V12_0, Fake: true, Fenced: true, play: restart},
	{Name: "stop-at-once", play: stopAtOnce},
	{Name: "throttle-keys", Only: V12_0, Fake: true, play: throttleKeys},
	{Name: "throttle", play: throttle},
	{Name: "progressive", play: progressive},
	{Name: "live", Network: true, play: live},
	{Name: "record", Only: V12_0, Network: true, play: record},
	{Name: "image", Only: V12_0, play: image},
	{Name: "image-stuck", Only: V12_0, Fake: true, play: imageStuck},
	{Name: "trickplay", play: trickplay},
	{Name: "trickplay-stuck", Only: V12_0, Fake: true, play: trickplayStuck},
	{Name: "subtitles", play: subtitles},
	{Name: "attachments", play: attachments},
	{Name: "loudness", Only: V12_0, play: loudness},
}

func startup(ctx context.Context, s *Server, r *Report) {
	f, err := s.Validate(ctx, "")
	if !r.check("start-up", err) {
		return
	}
	if f.Processes != 23 || len(f.Decoders) < 100 || len(f.Encoders) < 100 || len(f.Filters) < 100 || len(f.HWAccels) == 0 {
		r.problem("start-up learned too little in %d processes: %d decoders, %d encoders, %d filters, %d accelerations",
			f.Processes, len(f.Decoders), len(f.Encoders), len(f.Filters), len(f.HWAccels))
	}
	r.seeValue("features", f)
}

func startupVAAPI(ctx context.Context, s *Server, r *Report) {
	f, err := s.Validate(ctx, "/dev/dri/renderD128")
	if !r.check("start-up", err) {
		return
	}
	if f.Processes != 28 || !slices.Equal(f.Drivers, []string{"Intel iHD driver"}) || !f.VulkanInterop || !f.VulkanModifier || !f.PauseKey {
		r.problem("%d processes, drivers %q, Vulkan %t %t, pause key %t; want 28, Intel's iHD, and all true",
			f.Processes, f.Drivers, f.VulkanModifier, f.VulkanInterop, f.PauseKey)
	}
}

func scan(ctx context.Context, s *Server, r *Report) {
	for _, name := range []string{movie, uhd, anime, onlySubs, music, pilot, strings.TrimSuffix(movie, ".mkv") + ".en.srt"} {
		n, text, err := s.GetMediaInfo(ctx, "file:"+s.path(name))
		if r.check(name, err) && n == 0 {
			r.problem("%s has no streams", name)
		}
		r.see(name, Seen{Stdout: sum(bytes.ReplaceAll(text, []byte(s.root), nil))})
	}
	if _, text, err := s.GetMediaInfo(ctx, "file:"+s.path("/media/none.mkv")); !errors.Is(err, errNoStreams) || string(bytes.TrimSpace(text)) != "{\n\n}" {
		r.problem("a missing file: %q, %v; want an empty object", text, err)
	}
}

func keyframes(ctx context.Context, s *Server, r *Report) {
	frames, p, err := s.GetKeyframes(ctx, s.path(feature), 0)
	if r.check("key frames", err) && r.check("key frames", p.Wait(ctx)) && p.ExitCode() != 0 {
		r.problem("ffprobe ended with %d", p.ExitCode())
	}
	if len(frames) < 500 || !slices.IsSorted(frames) {
		r.problem("%d key frames in 20 min with one every 2 s", len(frames))
	}
	r.seeValue("key frames", frames)

	// A reader that has had enough: ffprobe ends by SIGPIPE.
	_, p, err = s.GetKeyframes(ctx, s.path(feature), 5)
	if r.check("key frames, stopped", err) && r.check("ffprobe whose stdout is closed", p.Wait(ctx)) && p.ExitCode() != 128+13 {
		r.problem("ffprobe whose stdout is closed ended with %d, want 141", p.ExitCode())
	}
}

// argv is a vector's command line for this server, of another film, with an edit
// for each option.
func (s *Server) argv(vector, film string, options map[string]string) []string {
	all, err := Vectors()
	if err != nil {
		panic(err) // the suite has a spec for it
	}
	v := all[slices.IndexFunc(all, func(v Vector) bool { return v.Name == vector })]
	argv := s.Features.Adapt(v.Argv)
	for i, a := range argv {
		if strings.HasPrefix(a, "file:") {
			a = "file:" + film
		}
		if i > 0 {
			if to, ok := options[argv[i-1]]; ok {
				a = to
			}
		}
		argv[i] = strings.NewReplacer("/cache/config/", s.path("/cache/config/"), "/cache/", s.path("/cache/"), "/media/", s.path("/media/"), "//TUNER", "//"+s.tuner.address).Replace(a)
	}
	return argv
}

// hls is a film for a viewer who begins with nothing there.
func (s *Server) hls(vector, film string) (*HLS, error) {
	h, err := s.film(vector, film, "")
	if err != nil {
		return nil, err
	}
	return h, empty(h.dir)
}

// film is a film played from a vector's command line: each start says its
// segment and its time. Its files are named after the playlist, if one is given.
func (s *Server) film(vector, film, playlist string) (*HLS, error) {
	argv := s.argv(vector, film, nil)
	if playlist != "" {
		was, _ := strings.CutSuffix(argv[len(argv)-1], ".m3u8")
		for i, a := range argv {
			argv[i] = strings.ReplaceAll(a, was, s.path(playlist))
		}
	}
	seconds, err := strconv.Atoi(argv[slices.Index(argv, "-hls_time")+1])
	if err != nil {
		return nil, err
	}
	fmp4 := slices.Contains(argv, "fmp4")
	h := s.NewHLS(seconds, func(start int) []string {
		a := slices.Clone(argv)
		if i := slices.Index(a, "-ss"); i >= 0 {
			a = slices.Delete(a, i, i+2)
		}
		a = slices.DeleteFunc(a, func(arg string) bool { return arg == "-noaccurate_seek" })
		a[slices.Index(a, "-start_number")+1] = strconv.Itoa(start)
		if i := slices.Index(a, "-hls_segment_options"); i >= 0 && s.Flavour == V12_0 {
			a[i+1] += "+skip_sidx"
		}
		if start == 0 {
			return a
		}
		at := start * seconds
		seek := []string{"-ss", fmt.Sprintf("%02d:%02d:%02d.000", at/3600, at/60%60, at%60)}
		if fmp4 && s.Flavour == V10_11 {
			seek = append(seek, "-noaccurate_seek")
		}
		return slices.Insert(a, slices.Index(a, "-i"), seek...)
	})
	return h, nil
}

// playback watches a film: its start, a jump far ahead, one back, and the end.
func playback(ctx context.Context, s *Server, r *Report, vector string) {
	if !r.check("features", s.learn(ctx)) {
		return
	}
	h, err := s.hls(vector, feature)
	if !r.check("playback", err) {
		return
	}
	for _, n := range []int{0, 1, 2, 3, 200, 201, 202, 100, 101, 102} {
		began := time.Now()
		if !r.check(fmt.Sprint("segment ", n), h.Segment(ctx, n)) {
			break
		}
		if n%100 == 0 {
			r.note("segment %d after %s", n, time.Since(began).Round(time.Millisecond))
		}
	}
	if h.Starts < 3 {
		r.problem("%d starts of ffmpeg, want one for the film and one for each jump", h.Starts)
	}
	if h.job == nil {
		return
	}
	if h.ext == ".mp4" && size(filepath.Join(h.dir, h.name+"-1.mp4")) <= 0 {
		r.problem("the init segment is empty")
	}
	r.check("stop", h.End())
	if count(h.job.Lines(), " time=") == 0 {
		r.problem("no progress was read from stderr: %q", h.job.last(3))
	}
	r.gone(h.job)
}

// gone deletes a transcode's files and sees that they stay away.
func (r *Report) gone(t *Transcode) {
	if !r.check("delete files", t.DeleteFiles()) {
		return
	}
	dir, name := stem(t.playlist)
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(pollEvery) {
		if left, _ := filepath.Glob(filepath.Join(dir, name+"*")); len(left) > 0 {
			r.problem("files came back after they were deleted: %q", left)
			return
		}
	}
}

// seekAfterKill is a seek while ffmpeg does not heed q: SIGKILL, and at once the
// same names.
func seekAfterKill(ctx context.Context, s *Server, r *Report) {
	if !r.check("locks", empty(s.path("/cache/locks"))) {
		return
	}
	h, err := s.hls("hls-ts-x264", "/media/"+stubborn+".mkv")
	if !r.check("playback", err) {
		return
	}
	defer func() { h.job.Kill() }()
	for i, n := range []int{0, 1, 5000, 5001, 2000, 2001} {
		began := time.Now()
		if !r.check(fmt.Sprint("segment ", n), h.Segment(ctx, n)) {
			return
		}
		if i > 1 && i%2 == 0 {
			r.note("segment %d after %s", n, time.Since(began).Round(time.Millisecond))
		}
	}
	if h.Starts != 3 {
		r.problem("%d starts of ffmpeg, want 3", h.Starts)
	}
	if both, _ := filepath.Glob(s.path("/cache/locks/*.overlap")); len(both) > 0 {
		r.problem("two processes wrote the same names at the same time")
	}
}

// restart is a server that restarts within its process: the old ffmpeg runs on
// and nobody knows it, the directory is wiped, and the viewer comes back.
func restart(ctx context.Context, s *Server, r *Report) {
	if !r.check("locks", empty(s.path("/cache/locks"))) {
		return
	}
	before, err := s.hls("hls-ts-x264", "/media/"+endless+".mkv")
	if !r.check("playback", err) || !r.check("segment", before.Segment(ctx, 0)) {
		return
	}
	defer before.job.Kill()
	after, err := s.hls("hls-ts-x264", "/media/"+endless+".mkv") // it wipes
	if !r.check("playback", err) {
		return
	}
	began := time.Now()
	for _, n := range []int{700, 701, 702} {
		if !r.check(fmt.Sprint("segment after the restart ", n), after.Segment(ctx, n)) {
			return
		}
	}
	r.note("segment after the restart within %s", time.Since(began).Round(time.Millisecond))
	switch {
	case !before.job.WaitForExit(stopLimit):
		r.problem("the old ffmpeg runs on beside the new one")
	case before.job.ExitCode() == 0:
		r.problem("the old ffmpeg was taken over, and ended with 0")
	}
	if both, _ := filepath.Glob(s.path("/cache/locks/*.overlap")); len(both) > 0 {
		r.problem("two processes wrote the same names at the same time")
	}
	r.check("stop", after.End())
}

// stopAtOnce is a viewer who goes away before there is anything to see.
func stopAtOnce(ctx context.Context, s *Server, r *Report) {
	if !r.check("features", s.learn(ctx)) {
		return
	}
	h, err := s.hls("hls-ts-x264", feature)
	if !r.check("playback", err) {
		return
	}
	for _, after := range []time.Duration{0, 50 * time.Millisecond, 300 * time.Millisecond, time.Second} {
		t, err := s.beginTranscode(ctx, h.argv(0))
		if !r.check("start", err) {
			return
		}
		time.Sleep(after) // the moment is what differs
		began := time.Now()
		r.check(fmt.Sprintf("stop %s after the start", after), t.Stop())
		if t.WaitForExit(heldBound) {
			r.note("stopped %s after the start: code %d after %s", after, t.ExitCode(), time.Since(began).Round(time.Millisecond))
		}
		select {
		case <-t.logged:
		case <-time.After(heldBound):
			r.problem("stderr is held open after the end of ffmpeg")
		}
		t.Close()
	}
	r.check("empty", empty(h.dir))
}

// throttleKeys sees that exactly the keys arrive, in their order, and only those.
func throttleKeys(ctx context.Context, s *Server, r *Report) {
	s.Features.PauseKey = true
	h, err := s.hls("hls-ts-x264", "/media/"+endless+".mkv")
	if !r.check("playback", err) || !r.check("segment", h.Segment(ctx, 0)) {
		return
	}
	t := h.job
	for range 2 {
		for _, pause := range []bool{true, true, false, false} {
			r.check("throttle", t.Throttle(pause))
		}
	}
	r.check("throttle", t.Throttle(true))
	if !r.check("last p", await(ctx, func() bool { return count(t.Lines(), `fake: key 'p'`) == 3 })) {
		return
	}
	paused, _ := h.newest()
	time.Sleep(10 * fakeStep) // as long as the pause is looked at
	if now, _ := h.newest(); now > paused+1 {
		r.problem("segments came during a pause: from %d to %d", paused, now)
	}
	r.check("stop of a paused ffmpeg", t.Stop())
	<-t.logged
	var keys []string
	for _, line := range t.Lines() {
		if key, ok := strings.CutPrefix(line, "fake: key "); ok {
			keys = append(keys, key)
		}
	}
	if got, want := strings.Join(keys, ""), `'p''u''p''u''p''u''q''\n'`; got != want {
		r.problem("keys %s arrived, want %s", got, want)
	}
	if code := t.ExitCode(); code != 0 {
		r.problem("ended with %d", code)
	}
	t.Close()
}

func count(lines []string, part string) (n int) {
	for _, line := range lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func await(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// throttle pauses the real ffmpeg with the key that its build has.
func throttle(ctx context.Context, s *Server, r *Report) {
	if !r.check("features", s.learn(ctx)) {
		return
	}
	h, err := s.hls("hls-ts-x264", feature)
	if !r.check("playback", err) || !r.check("segment 2", h.Segment(ctx, 2)) {
		return
	}
	t := h.job
	r.check("pause", t.Throttle(true))
	still := func() bool { // no new segment for longer than one takes
		before, _ := h.newest()
		time.Sleep(time.Second)
		now, _ := h.newest()
		return now == before
	}
	if !r.check("pause", await(ctx, still)) {
		return
	}
	paused, _ := h.newest()
	if t.HasExited() {
		r.problem("ffmpeg was done before the pause: the film is too short for this machine")
	}
	r.check("resume", t.Throttle(false))
	r.check("segments after the pause", await(ctx, func() bool { n, _ := h.newest(); return n > paused }))
	r.check("pause", t.Throttle(true))
	r.check("stop of a paused ffmpeg", h.End())
	if code := t.ExitCode(); code != 0 {
		r.problem("ended with %d: %q", code, t.last(3))
	}
}

func progressive(ctx context.Context, s *Server, r *Report) {
	if !r.check("features", s.learn(ctx)) {
		return
	}
	argv := s.argv("progressive-mp4", movie, nil)
	output := argv[len(argv)-1]
	if !r.check("empty", empty(filepath.Dir(output))) {
		return
	}
	t, err := s.StartTranscode(ctx, argv, output)
	if !r.check("start", err) {
		return
	}
	sent, err := t.Tail(ctx)
	r.check("read the growing file", err)
	<-t.logged
	now, err := os.ReadFile(output)
	if r.check("the file", err) && !bytes.Equal(sent, now) {
		r.problem("%d bytes were sent of a file that has %d", len(sent), len(now))
	}
	if t.ExitCode() != 0 || len(sent) == 0 {
		r.problem("code %d, %d bytes", t.ExitCode(), len(sent))
	}
	text, _, err := s.bareProbe(ctx, "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", output)
	if r.check("ffprobe", err) {
		if d, _ := strconv.ParseFloat(strings.TrimSpace(text), 64); math.Abs(d-60) > 1 {
			r.problem("the file lasts %q, want 60 s", text)
		}
	}
	t.Close()
}

// live waits for ffmpeg's own playlist to have some segments, and serves it.
func live(ctx context.Context, s *Server, r *Report) {
	if !r.check("features", s.learn(ctx)) {
		return
	}
	argv := slices.Insert(s.argv("livetv-hls-event", "", nil), 0, "-re")
	playlist := argv[len(argv)-1]
	if !r.check("empty", empty(filepath.Dir(playlist))) {
		return
	}
	t, err := s.StartTranscode(ctx, argv, playlist)
	if !r.check("start", err) {
		return
	}
	r.check("playlist", await(ctx, func() bool { return playlistLines(playlist) >= minSegments || t.HasExited() }))
	b, err := os.ReadFile(playlist)
	if r.check("playlist", err) {
		if playlistLines(playlist) < minSegments {
			r.problem("ffmpeg ended with %d: %q", t.ExitCode(), t.last(3))
		}
		for _, line := range strings.Split(string(b), "\n") {
			if strings.HasSuffix(line, ".ts") && size(filepath.Join(filepath.Dir(playlist), filepath.Base(line))) <= 0 {
				r.problem("the playlist names %s, which is not there", line)
			}
		}
	}
	r.check("stop", t.Stop())
	<-t.logged
	r.gone(t)
	t.Close()
}

func record(ctx context.Context, s *Server, r *Report) {
	target := s.path("/cache/recordings/Show/Show.ts")
	code, err := s.Record(ctx, target, func() bool { return size(target) > 32<<10 })
	if r.check("record", err) && code != 0 {
		r.problem("the recording ended with %d and counts as failed", code)
	}
	text, _, err := s.bareProbe(ctx, "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", target)
	if r.check("ffprobe", err) && (!strings.Contains(text, "h264") || !strings.Contains(text, "aac")) {
		r.problem("the recording has streams %q", text)
	}
}

func image(ctx context.Context, s *Server, r *Report) {
	for _, vector := range []string{"image-iframe", "image-fallback", "image-audio-cover"} {
		film := movie
		if vector == "image-audio-cover" {
			film = music
		}
		argv := s.argv(vector, film, nil)
		picture := argv[len(argv)-1]
		_ = os.Remove(picture)
		r.check(vector, s.ExtractImage(ctx, argv))
		text, _, err := s.bareProbe(ctx, "-v", "error", "-show_entries", "stream=codec_name,width", "-of", "csv=p=0", picture)
		if r.check(vector, err) && !strings.HasPrefix(text, "mjpeg,") {
			r.problem("%s made %q", vector, text)
		}
	}
	// A seek past the end: ffmpeg exits with 0 and writes nothing.
	argv := s.argv("image-fallback", movie, map[string]string{"-ss": "01:00:00.000"})
	_ = os.Remove(argv[len(argv)-1])
	if err := s.ExtractImage(ctx, argv); err == nil || !strings.Contains(err.Error(), "exit code 0, -1 bytes") {
		r.problem("a picture past the end: %v", err)
	}
}

func imageStuck(ctx context.Context, s *Server, r *Report) {
	argv := s.argv("image-fallback", "/media/"+stuck+".mkv", nil)
	if err := s.ExtractImage(ctx, argv); !errors.Is(err, errTooSlow) {
		r.problem("a picture that never comes: %v", err)
	}
}

func trickplay(ctx context.Context, s *Server, r *Report) {
	argv := s.argv("trickplay-sw-10.11", feature, nil)
	if i := slices.Index(argv, "-vf"); s.Flavour == V12_0 {
		argv[i+1] = "setpts=N/12/TB," + argv[i+1]
	}
	n, err := s.ExtractTrickplay(ctx, argv)
	if r.check("trickplay", err) && (n < 119 || n > 121) {
		r.problem("%d pictures of 20 min, one every 10 s", n)
	}
}

func trickplayStuck(ctx context.Context, s *Server, r *Report) {
	argv := s.argv("trickplay-sw-10.11", "/media/"+stuck+".mkv", nil)
	if _, err := s.ExtractTrickplay(ctx, argv); !errors.Is(err, errTooSlow) {
		r.problem("pictures that never come: %v", err)
	}
}

func subtitles(ctx context.Context, s *Server, r *Report) {
	argv := s.argv("subs-extract-10.11", movie, nil)
	var outputs []string
	for _, a := range argv {
		if strings.Contains(a, "/subtitles/") {
			outputs = append(outputs, a)
		}
	}
	dir := filepath.Dir(outputs[0])
	if len(outputs) != 3 || !r.check("empty", empty(dir)) {
		return
	}
	code, err := s.ExtractSubtitles(ctx, argv, outputs)
	if r.check("subtitles", err) && code != 0 {
		r.problem("subtitles: exit code %d", code)
	}
	for _, o := range outputs {
		b, err := os.ReadFile(o)
		r.check("subtitle", err)
		r.see(filepath.Base(o), Seen{Stdout: sum(b)})
		// Jellyfin edits what it got: the file must be its own.
		f, err := os.OpenFile(o, os.O_WRONLY|os.O_APPEND, 0)
		if r.check("write to "+filepath.Base(o), err) {
			f.Close()
		}
	}
	// What is left over from before: 10.11 says nothing, ffmpeg asks, and the end
	// of stdin is a no.
	before := sum(must(os.ReadFile(outputs[0])))
	code, err = s.ExtractSubtitles(ctx, argv, outputs)
	r.check("subtitles again", err)
	if after := sum(must(os.ReadFile(outputs[0]))); (s.Flavour == V10_11) != (code == 1) || after != before {
		r.problem("with files left over ffmpeg ended with %d; the first one was %v, is %v", code, before, after)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		return []byte(err.Error())
	}
	return b
}

func attachments(ctx context.Context, s *Server, r *Report) {
	dir := s.path("/cache/config/data/attachments/7b/7b1f8c2e-4d5a-4f6e-9c0b-1a2d3e4f5a6b")
	r.check("fonts", s.ExtractAttachments(ctx, dir, s.path(anime), false))
	r.see("font", Seen{Stdout: sum(must(os.ReadFile(filepath.Join(dir, "OpenSans.ttf"))))})
	if size(filepath.Join(dir, "OpenSans.ttf")) != 40<<10 {
		r.problem("OpenSans.ttf has %d bytes", size(filepath.Join(dir, "OpenSans.ttf")))
	}
	if size(filepath.Join(dir, "null")) >= 0 {
		r.problem("the output named null became a file")
	}
	if s.Flavour == V12_0 {
		r.check("fonts of a film without pictures", s.ExtractAttachments(ctx, dir, s.path(onlySubs), true))
		if size(filepath.Join(dir, "font.otf")) != 40<<10 {
			r.problem("font.otf has %d bytes", size(filepath.Join(dir, "font.otf")))
		}
	}
}

func loudness(ctx context.Context, s *Server, r *Report) {
	value, p, err := s.CalculateLUFS(ctx, s.path(music), 0)
	if r.check("loudness", err) && r.check("loudness", p.Wait(ctx)) {
		if _, err := strconv.ParseFloat(value, 64); err != nil {
			r.problem("loudness is %q", value)
		}
		r.seeValue("loudness", value)
		p.Close()
	}
	// A cancelled task: stderr is closed, and that is all.
	_, p, err = s.CalculateLUFS(ctx, s.path(feature), 100)
	if r.check("loudness, cancelled", err) && r.check("ffmpeg whose stderr is closed", p.Wait(ctx)) {
		r.note("ffmpeg whose stderr is closed ended with %d", p.ExitCode())
		p.Close()
	}
}
