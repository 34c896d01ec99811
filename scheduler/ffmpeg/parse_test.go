package ffmpeg

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// brief writes an operand as "role protocol path-or-raw".
func brief(c Command) []string {
	var all []string
	for _, o := range c.Operands {
		what := o.Path
		if what == "" {
			what = o.Raw
		}
		all = append(all, string(o.Role)+" "+o.Protocol+" "+what)
	}
	return all
}

func TestOperands(t *testing.T) {
	tests := map[string]struct {
		argv []string
		want []string
	}{
		"file prefix": {[]string{"-i", "file:/m/a b.mkv"}, []string{"input file /m/a b.mkv"}},
		"relative":    {[]string{"-i", "a.mkv", "./b/../c.mkv"}, []string{"input file /work/a.mkv", "output file /work/c.mkv"}},
		"dashes":      {[]string{"-i", "-", "-"}, []string{"input pipe -", "output pipe -"}},
		"double dash": {[]string{"-i", "/a", "--", "-b.mkv"}, []string{"input file /a", "output file /work/-b.mkv"}},
		"empty":       {[]string{""}, []string{"output file "}},
		"trailing":    {[]string{"-i", "/a", "/b", "-c:v"}, []string{"input file /a", "output file /b"}},
		"unknown option has a value": {
			[]string{"-i", "/a", "-brand_new", "/x", "/b"}, []string{"input file /a", "output file /b"}},
		"flags have none": {
			[]string{"-y", "-nostdin", "-hide_banner", "-nostats", "-an", "-vn:v", "-re", "-noaccurate_seek", "-i", "/a", "-shortest", "/b"},
			[]string{"input file /a", "output file /b"}},
		"values that look like options": {
			[]string{"-i", "/a", "-sei", "-a53_cc", "-flags", "-global_header", "-map", "-0:s", "/b"},
			[]string{"input file /a", "output file /b"}},
		"autorotate of both ages": {
			[]string{"-autorotate", "0", "-i", "/a", "-autoscale", "/b"}, []string{"input file /a", "output file /b"}},
		"negated autorotate": {
			[]string{"-noautorotate", "-i", "/a", "-noautoscale", "/b"}, []string{"input file /a", "output file /b"}},
		"concat protocol": {
			[]string{"-i", "concat:/a|file:/b|c", "/o"},
			[]string{"input file /a", "input file /b", "input file /work/c", "output file /o"}},
		"subfile":        {[]string{"-i", "subfile,,start,32,end,64,,:/a:b"}, []string{"input file /a:b"}},
		"subfile, other": {[]string{"-i", "subfile,!start!32!!:file:/a"}, []string{"input file /a"}},
		"nested":         {[]string{"-i", "cache:crypto+file:/a"}, []string{"input file /a"}},
		"hls+http":       {[]string{"-i", "hls+http://h/x"}, []string{"input http http://h/x"}},
		"bluray":         {[]string{"-i", "bluray:/media/BD"}, []string{"input bluray /media/BD"}},
		"data":           {[]string{"-i", "data:,abc"}, []string{"input data data:,abc"}},
		"a colon later":  {[]string{"-i", "/a/b:c"}, []string{"input file /a/b:c"}},
		"quotes are part of a name": {
			[]string{"-i", `file:"/a"`}, []string{`input file /work/"/a"`}},
		"hls": {
			[]string{"-i", "/a", "-f", "hls", "-hls_fmp4_init_filename", "x-1.mp4", "-hls_segment_filename", "/c/x%d.mp4",
				"-master_pl_name", "m.m3u8", "-y", "/c/x.m3u8"},
			[]string{"input file /a", "output file /c/x%d.mp4", "output file /c/x.m3u8", "output file /c/x-1.mp4", "output file /c/m.m3u8"}},
		"tee": {
			[]string{"-i", "/a", "-f", "tee", `[f=mpegts:select=v]/o/1.ts|[f=null]-|/o/a\|b.mkv`},
			[]string{"input file /a", "output file /o/1.ts", "output null -", "output file /o/a|b.mkv"}},
		"segment": {
			[]string{"-i", "/a", "-f", "segment", "-segment_list", "/o/l.csv", "/o/%03d.ts"},
			[]string{"input file /a", "output file /o/l.csv", "output file /o/%03d.ts"}},
		"two passes": {
			[]string{"-i", "/a", "-pass", "1", "-passlogfile", "/o/log", "-f", "null", "/dev/null"},
			[]string{"input file /a", "output null /dev/null", "output file /o/log-%d.log"}},
		"two passes, log by default": {
			[]string{"-i", "/a", "-pass", "2", "/b"},
			[]string{"input file /a", "output file /b", "output file /work/ffmpeg2pass-%d.log"}},
		"reports": {
			[]string{"-report", "-vstats", "-progress", "/o/p", "-sdp_file", "/o/sdp", "-i", "/a", "/b"},
			[]string{"output file /work/ffmpeg-%t.log", "output file /work/vstats_%H%M%S.log", "output file /o/p", "output file /o/sdp",
				"input file /a", "output file /b"}},
		"progress on stdout": {[]string{"-progress", "-", "-i", "/a", "/b"},
			[]string{"output pipe -", "input file /a", "output file /b"}},
		"attachments": {
			[]string{"-dump_attachment:t", "", "-dump_attachment:1", "f.ttf", "-i", "/a", "-attach", "/f.otf", "/b"},
			[]string{"output file /work", "output file /work/f.ttf", "input file /a", "input file /f.otf", "output file /b"}},
		"devices": {
			[]string{"-init_hw_device", "qsv=qs:hw,child_device=/dev/dri/renderD129", "-vaapi_device", "/dev/dri/renderD128",
				"-hwaccel_device", "va", "-i", "/a", "/b"},
			[]string{"device file /dev/dri/renderD129", "device file /dev/dri/renderD128", "input file /a", "output file /b"}},
		"capture": {[]string{"-f", "v4l2", "-i", "/dev/video0", "-f", "alsa", "default"},
			[]string{"input device /dev/video0", "output device default"}},
		"x265 parameters": {
			[]string{"-i", "/a", "-x265-params", `pass=1:stats=/o/x.log:csv=/o/x\:y.csv`, "/b"},
			[]string{"input file /a", "output file /o/x.log", "output file /o/x:y.csv", "output file /b"}},
		"lavfi with a movie": {
			[]string{"-f", "lavfi", "-i", "movie=/a.mkv,scale=2:2[out0]", "/b"},
			[]string{"input lavfi movie=/a.mkv,scale=2:2[out0]", "input file /a.mkv", "output file /b"}},
		"descriptors in /dev": {[]string{"-i", "/dev/fd/9", "/dev/stdout"},
			[]string{"input pipe /dev/fd/9", "output pipe /dev/stdout"}},
		"missing value of a file option": {[]string{"-/filter_complex"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := Parse("ffmpeg", test.argv, Host{Dir: "/work"})
			if diff := cmp.Diff(test.want, brief(cmd)); diff != "" {
				t.Errorf("operands (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProbeOperands(t *testing.T) {
	tests := map[string]struct {
		argv string
		want []string
	}{
		"bare":         {"-of csv /a", []string{"input file /a"}},
		"with -i":      {"-v warning -print_format json -show_streams -show_frames -only_first_vframe -i /a", []string{"input file /a"}},
		"double dash":  {"-show_format -- -a -b", []string{"input file /work/-a", "input file /work/-b"}},
		"output":       {"-o /o.json -i /a", []string{"output file /o.json", "input file /a"}},
		"stdin":        {"-show_format -", []string{"input pipe -"}},
		"numeric args": {"-show_log 8 -show_optional_fields 1 -threads 0 -select_streams v:0 /a", []string{"input file /a"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := Parse("/usr/bin/ffprobe", lines(test.argv), Host{Dir: "/work"})
			if diff := cmp.Diff(test.want, brief(cmd)); diff != "" {
				t.Errorf("operands (-want +got):\n%s", diff)
			}
			if cmd.Program != FFprobe || cmd.ReadsStdin != (name == "stdin") {
				t.Errorf("program %s, reads stdin %t", cmd.Program, cmd.ReadsStdin)
			}
		})
	}
}

func TestGraphFiles(t *testing.T) {
	tests := map[string]struct {
		graph string
		want  []string
	}{
		"positional":               {"subtitles=/a.srt", []string{"input file /a.srt"}},
		"named":                    {"subtitles=f='/a.srt':fontsdir='/fonts'", []string{"input file /a.srt", "input file /fonts"}},
		"third unnamed":            {"ass=/a.ass:1280x720:/fonts", []string{"input file /a.ass", "input file /fonts"}},
		"no unnamed after a named": {"ass=original_size=1x1:/a.ass", nil},
		"both levels":              {`subtitles=filename=/it\\\'s\\: 1.srt`, []string{"input file /it's: 1.srt"}},
		"quoted colon":             {`subtitles=f='/a\:b.srt'`, []string{"input file /a:b.srt"}},
		"quote in quotes":          {`subtitles=f='/it'\\\''s.srt'`, []string{"input file /it's.srt"}},
		"kept space":               {`movie=/a\\\ `, []string{"input file /a "}},
		"dropped space":            {"movie= /a  ", []string{"input file /a"}},
		"brackets":                 {`[0:v]subtitles=/a\[1\]\,b.srt[v]`, []string{"input file /a[1],b.srt"}},
		"url":                      {"subtitles=file\\\\:/a.srt", []string{"input file /a.srt"}},
		"not a url":                {"ass=file\\\\:/a.ass", []string{"input file /work/file:/a.ass"}},
		"chains":                   {"movie=/logo.png [logo]; [in][logo] overlay=10:10, lut3d=/x.cube [out]", []string{"input file /logo.png", "input file /x.cube"}},
		"instance name":            {"movie@m=/a.mkv", []string{"input file /a.mkv"}},
		"audio movie":              {"amovie=filename=/a.flac:loop=0", []string{"input file /a.flac"}},
		"text":                     {"drawtext=/f.ttf:hello:textfile=/t.txt", []string{"input file /f.ttf", "input file /t.txt"}},
		"text in a file":           {"drawtext=fontfile=/f.ttf:/text=/t.txt", []string{"input file /f.ttf", "input file /t.txt"}},
		"model":                    {"arnndn=m=/m.rnnn", []string{"input file /m.rnnn"}},
		"vmaf":                     {`libvmaf=log_path=/l.json:model='path=/m.json\:name=x|version=v1'`, []string{"output file /l.json", "input file /m.json"}},
		"statistics":               {"psnr=stats_file=/s.log", []string{"output file /s.log"}},
		"to stdout":                {"ssim=f=-", []string{"output pipe -"}},
		"default file":             {"vidstabdetect=shakiness=5", []string{"output file /work/transforms.trf"}},
		"default unused":           {"vidstabtransform=input=/t.trf", []string{"input file /t.trf"}},
		"commands":                 {"sendcmd=f=/c.txt", []string{"input file /c.txt"}},
		"a new filter":             {"whatever=x=1:y=/some/file", []string{"input file /some/file"}},
		"no files":                 {`scale=trunc(min(max(iw\,ih*a)\,min(1920\,1080*a))/2)*2:-2,format=yuv420p,ebur128`, nil},
		"scaler flags":             {"sws_flags=bicubic;scale=2:2", nil},
		"unfinished":               {`subtitles='/a`, []string{"input file /a"}},
		"only brackets":            {`]]][[;,,==`, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := parser{host: Host{Dir: "/work"}}
			p.graph(0, test.graph)
			if diff := cmp.Diff(test.want, brief(p.cmd)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFilesInFiles(t *testing.T) {
	w := world{
		"/l/list.txt": "ffconcat version 1.0\n# file no\n\n  file 'it'\\''s 1.mkv'\r\nduration 5\nfile /abs.mkv\n" +
			"file file:/with/protocol.mkv\nfile sub/more.ffconcat\nfile http://h/x.ts\nfile a:b.mkv\nfile a\\ b.mkv # rest\n",
		"/l/sub/more.ffconcat":  "ffconcat version 1.0\nfile deep.mkv\n",
		"/l/fake.concat":        "not a script\nfile /no.mkv\n",
		"/l/self.ffconcat":      "ffconcat version 1.0\nfile self.ffconcat\nfile self.ffconcat\n",
		"/l/names.txt":          "/one.ts\n'/t w o.ts'\r\n\n",
		"/l/graph.txt":          "movie=/m.png[a];\n[0:v][a]overlay\n",
		"/l/keys":               "http://h/key\n/l/secret.key\n0123\n",
		"/l/audio":              "amovie=/n.flac",
		"/media/fifo.ffconcat":  "fifo",
		"/l/not-list.mkv":       "file /no.mkv\n",
		"/l/huge-extension.txt": "file x\n",
	}
	tests := map[string]struct {
		argv []string
		want []string
	}{
		"concat": {
			[]string{"-f", "concat", "-safe", "0", "-i", "/l/list.txt"},
			[]string{"input file /l/list.txt", "input file /l/it's 1.mkv", "input file /abs.mkv", "input file /with/protocol.mkv",
				"input file /l/sub/more.ffconcat", "input file /l/sub/deep.mkv", "input http http://h/x.ts",
				"input a a:b.mkv", "input file /l/a b.mkv"}},
		"recognised by its first line": {
			[]string{"-i", "/l/sub/more.ffconcat"},
			[]string{"input file /l/sub/more.ffconcat", "input file /l/sub/deep.mkv"}},
		"not recognised":     {[]string{"-i", "/l/fake.concat"}, []string{"input file /l/fake.concat"}},
		"media is not read":  {[]string{"-i", "/l/not-list.mkv"}, []string{"input file /l/not-list.mkv"}},
		"a FIFO is not read": {[]string{"-i", "/media/fifo.ffconcat"}, []string{"input file /media/fifo.ffconcat"}},
		"concatf": {[]string{"-i", "concatf:/l/names.txt"},
			[]string{"input file /l/names.txt", "input file /one.ts", "input file /t w o.ts"}},
		"filter script": {[]string{"-i", "/a", "-filter_complex_script", "/l/graph.txt", "/b"},
			[]string{"input file /a", "input file /l/graph.txt", "input file /m.png", "output file /b"}},
		"option from a file": {[]string{"-i", "/a", "-/filter:a", "/l/audio", "/b"},
			[]string{"input file /a", "input file /l/audio", "input file /n.flac", "output file /b"}},
		"hls key": {[]string{"-i", "/a", "-hls_key_info_file", "/l/keys", "/b.m3u8"},
			[]string{"input file /a", "input file /l/keys", "input file /l/secret.key", "output file /b.m3u8"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := Parse("ffmpeg", test.argv, Host{Dir: "/work", ReadFile: w.read, Stat: w.stat})
			if diff := cmp.Diff(test.want, brief(cmd)); diff != "" {
				t.Errorf("operands (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("a script that lists itself ends", func(t *testing.T) {
		cmd := Parse("ffmpeg", []string{"-i", "/l/self.ffconcat"}, Host{ReadFile: w.read, Stat: w.stat})
		if n := len(cmd.Operands); n > maxOperands {
			t.Errorf("%d operands", n)
		}
		env := Environment{Host: Host{Stat: w.stat}, Shared: []string{"/l"}}
		if d := Decide(cmd, env); d.Where != Local {
			t.Errorf("a bottomless list went %s: %s", d.Where, d.Reason)
		}
	})
	t.Run("too long a list stays here", func(t *testing.T) {
		w := world{"/l/x": strings.Repeat("file a\n", maxOperands+5)}
		cmd := Parse("ffmpeg", []string{"-f", "concat", "-i", "/l/x", "-c:v", "libx264", "/l/o.mkv"}, Host{ReadFile: w.read, Stat: w.stat})
		d := Decide(cmd, Environment{Host: Host{Stat: w.stat}, Shared: []string{"/l"}})
		if d.Clause != ClauseUnread {
			t.Errorf("got %s by %s: %s", d.Where, d.Clause, d.Reason)
		}
	})
}

func TestReport(t *testing.T) {
	tests := map[string]struct{ report, want string }{
		"named":   {`file=/logs/%p\:%t.log:level=32`, "output file /logs/%p:%t.log"},
		"default": {"level=32", "output file /work/%p-%t.log"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := Parse("ffmpeg", []string{"-report"}, Host{Dir: "/work", Report: test.report})
			if diff := cmp.Diff([]string{test.want}, brief(cmd)); diff != "" {
				t.Errorf("operands (-want +got):\n%s", diff)
			}
			if cmd.Operands[0].Arg != -1 {
				t.Errorf("arg = %d, want -1", cmd.Operands[0].Arg)
			}
		})
	}
}

func TestReadsStdin(t *testing.T) {
	tests := map[string]struct {
		argv string
		want bool
	}{
		"keys":                    {"-i /a /b", true},
		"nostdin":                 {"-nostdin -i /a /b", false},
		"nostdin, then stdin":     {"-nostdin -i /a -stdin /b", true},
		"nostdin, stdin an input": {"-nostdin -i - /b", true},
		"stdin by name":           {"-nostdin -i /dev/stdin /b", true},
		"in a list":               {"-nostdin -i concat:/a|pipe: /b", true},
		"information":             {"-version", false},
		"no output":               {"-i /a", false},
		"hardware probe":          {"-init_hw_device vaapi=va:", false},
		"attachments can ask":     {"-dump_attachment:0 /f -i /a", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Parse("ffmpeg", lines(test.argv), Host{}).ReadsStdin; got != test.want {
				t.Errorf("reads stdin = %t", got)
			}
		})
	}
}

func TestWhatIsRecorded(t *testing.T) {
	argv := lines("-init_hw_device vaapi=va:/dev/dri/renderD128,driver=iHD -init_hw_device qsv=qs@va -init_hw_device cuda=cu:0 " +
		"-hwaccel vaapi -c:v hevc_qsv -c:a ac3 -i /a -c:v h264_qsv -c:a copy -vf scale_vaapi=w=2,hwmap /b -c:v h264_qsv /c")
	cmd := Parse("ffmpeg", argv, Host{})
	want := []Device{
		{Type: "vaapi", Name: "va", Path: "/dev/dri/renderD128", Options: "driver=iHD"},
		{Type: "qsv", Name: "qs", Source: "va"},
		{Type: "cuda", Name: "cu", Path: "0"},
	}
	for _, diff := range []string{
		cmp.Diff(want, cmd.Devices),
		cmp.Diff([]string{"vaapi"}, cmd.HWAccels),
		cmp.Diff([]string{"hevc_qsv", "ac3"}, cmd.Decoders),
		cmp.Diff([]string{"h264_qsv"}, cmd.Encoders),
		cmp.Diff([]string{"scale_vaapi", "hwmap"}, cmd.Filters),
	} {
		if diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestOutputKeys(t *testing.T) {
	tests := map[string]struct {
		argv string
		want []string
		last string
	}{
		"segments":         {"-i /a -f hls -hls_segment_filename /c/x%d.ts /c/x.m3u8", []string{"/c/x"}, "/c/x"},
		"segments outside": {"-i /a -f hls -hls_segment_filename /d/y%d.ts /c/x.m3u8", []string{"/c/x", "/d/y%d.ts"}, "/c/x"},
		"one file":         {"-i /a /c/x.mp3", []string{"/c/x.mp3"}, "/c/x.mp3"},
		"three files":      {"-i /a /c/1.srt /c/2.srt /c/1.ass", []string{"/c/1.srt", "/c/2.srt", "/c/1.ass"}, "/c/1.ass"},
		"pictures":         {"-i /a /c/%08d.jpg", []string{"/c/%08d.jpg"}, "/c/%08d.jpg"},
		"nothing":          {"-i /a -f null -", nil, ""},
		"file, then null":  {"-i /a /c/x.mkv -f null -", []string{"/c/x.mkv"}, "/c/x.mkv"},
		"attachments":      {"-dump_attachment:0 /c/f.ttf -i /a", []string{"/c/f.ttf"}, "/c/f.ttf"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := Parse("ffmpeg", lines(test.argv), Host{})
			if diff := cmp.Diff(test.want, cmd.OutputKeys()); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
			if got := cmd.OutputKey(); got != test.last {
				t.Errorf("key = %q, want %q", got, test.last)
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	tests := map[string]bool{
		"http://127.0.0.1:8096/x": true, "http://127.1.2.3/": true, "https://localhost": true, "http://LOCALHOST./x": true,
		"http://[::1]:80/x": true, "http://u:p@localhost:1/x": true, "udp://@:1234": true, "tcp://0.0.0.0:9?listen=1": true,
		"tcp:127.0.0.1:9": true, "http://x.localhost/": true,
		"http://10.42.3.17:8096/x": false, "http://127.example.org/": false, "http://h/?u=http://localhost": false,
		"udp://239.0.0.1:1234": false, "http://[fd00::1]:80/x": false, "rtsp://camera/1": false,
	}
	for url, want := range tests {
		if got := isLoopback(url); got != want {
			t.Errorf("isLoopback(%q) = %t", url, got)
		}
	}
}

func TestKinds(t *testing.T) {
	tests := map[string]struct {
		program, argv string
		want          Kind
	}{
		"an http file, not live":  {"ffmpeg", "-i http://h/a.mkv -hls_playlist_type vod -f hls /c/x.m3u8", Playback},
		"an http stream":          {"ffmpeg", "-i http://h/a.ts -hls_playlist_type event -f hls /c/x.m3u8", Live},
		"measuring a stream":      {"ffmpeg", "-i http://h/a.ts -f null -", Other},
		"fragmented":              {"ffmpeg", "-i /a -movflags frag_keyframe+empty_moov /c/x.mp4", Playback},
		"progressive, any format": {"ffmpeg", "-i /a -vn /cache/transcodes/x.mp3", Playback},
		"batch":                   {"ffmpeg", "-i /a /c/x.mp4", Other},
		"subtitles":               {"ffmpeg", "-i /a /c/x.vtt", Subtitle},
		"subtitles and a film":    {"ffmpeg", "-i /a /c/x.vtt /c/x.mp4", Other},
		"several pictures":        {"ffmpeg", "-i /a /c/%d.png", Trickplay},
		"one picture of a series": {"ffmpeg", "-i /a -frames:v 1 /c/%d.png", Image},
		"frames of audio":         {"ffmpeg", "-i /a -frames:a 1 /c/%d.png", Trickplay},
		"volume":                  {"ffmpeg", "-i /a -af volumedetect -f null -", Loudness},
		"volume into a file":      {"ffmpeg", "-i /a -af loudnorm /c/x.flac", Other},
		"packets":                 {"ffprobe", "-show_entries packet=pts_time /a", Keyframes},
		"format":                  {"ffprobe", "-show_entries format=duration /a", Probe},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Parse(test.program, lines(test.argv), Host{}).Kind; got != test.want {
				t.Errorf("kind = %s, want %s", got, test.want)
			}
		})
	}
}
