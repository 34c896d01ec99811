package ffmpeg_test

import (
	"encoding/json"
	"fmt"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

func ExampleParse() {
	cmd := ffmpeg.Parse("/usr/bin/ffmpeg", []string{
		"-i", "file:/media/film.mkv", "-vf", `subtitles=f='/cache/it'\\\''s.srt'`, "-c:v", "libx264",
		"-f", "hls", "-hls_segment_filename", "/cache/x%d.ts", "/cache/x.m3u8",
	}, ffmpeg.Host{Dir: "/"})
	for _, o := range cmd.Operands {
		fmt.Println(o.Arg, o.Role, o.Path)
	}
	fmt.Println(cmd.Kind, cmd.OutputKey(), cmd.Encoders)
	// Output:
	// 1 input /media/film.mkv
	// 3 input /cache/it's.srt
	// 9 output /cache/x%d.ts
	// 10 output /cache/x.m3u8
	// playback /cache/x [libx264]
}

func ExampleDecide() {
	env := ffmpeg.Environment{Shared: ffmpeg.SplitShared("/media:/cache")}
	for _, argv := range [][]string{
		{"-hide_banner", "-encoders"},
		{"-i", "/media/film.mkv", "-c:v", "libx264", "/cache/film.mp4"},
		{"-i", "/home/me/film.mkv", "-c:v", "libx264", "/cache/film.mp4"},
	} {
		d := ffmpeg.Decide(ffmpeg.Parse("ffmpeg", argv, env.Host), env)
		fmt.Printf("%s: %s\n", d.Where, d.Reason)
	}
	// Output:
	// local: -encoders asks about the program itself
	// remote: it encodes or decodes and every file is shared
	// local: input /home/me/film.mkv is not below a shared directory
}

func ExampleDecide_forced() {
	env := ffmpeg.Environment{Shared: []string{"/media"}, Mode: ffmpeg.ForceRemote}
	d := ffmpeg.Decide(ffmpeg.Parse("ffmpeg", []string{"-i", "pipe:3", "/media/film.mp4"}, env.Host), env)
	fmt.Println(d.Where, d.Problems)
	// Output: remote [input pipe:3 is descriptor 3 of the caller]
}

func ExampleExplain() {
	e := ffmpeg.Explain("ffprobe", []string{"-show_format", "/media/film.mkv"}, ffmpeg.Environment{})
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(text))
	// Output:
	// {
	//   "program": "ffprobe",
	//   "where": "local",
	//   "clause": "ffprobe",
	//   "reason": "ffprobe stays local",
	//   "kind": "probe",
	//   "requires": {
	//     "capabilities": [],
	//     "hardware": [],
	//     "realtime": false,
	//     "network": false
	//   },
	//   "operands": [
	//     {
	//       "role": "input",
	//       "path": "/media/film.mkv",
	//       "raw": "/media/film.mkv",
	//       "protocol": "file",
	//       "arg": 1
	//     }
	//   ],
	//   "outputKey": "",
	//   "stdin": false
	// }
}
