package ffmpeg_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

func TestFileSets(t *testing.T) {
	tests := map[string]struct {
		argv string
		want []ffmpeg.FileSet
	}{
		"a file":    {argv: "-i /m/a.mkv /c/a.mp4", want: []ffmpeg.FileSet{{"/c", "a.mp4", true}}},
		"relative":  {argv: "-i /m/a.mkv sub/../a.mp4", want: []ffmpeg.FileSet{{"/work", "a.mp4", true}}},
		"to stdout": {argv: "-i /m/a.mkv -f mpegts -", want: nil},
		"nowhere":   {argv: "-i /m/a.mkv -f null /dev/null", want: nil},
		"two files, one of them twice": {
			argv: "-i /m/a.mkv /c/a.srt -map 0:3 /c/b.srt -map 0:3 /c/b.srt",
			want: []ffmpeg.FileSet{{"/c", "a.srt", true}, {"/c", "b.srt", true}},
		},
		"pictures": {argv: "-i /m/a.mkv -f image2 /c/t/%08d.jpg", want: []ffmpeg.FileSet{{"/c/t", "", false}}},
		"hls in MPEG-TS": {
			argv: "-i /m/a.mkv -f hls -hls_segment_filename /c/8f%d.ts -y /c/8f.m3u8",
			want: []ffmpeg.FileSet{{"/c", "8f", false}, {"/c", "init", false}},
		},
		"hls in fMP4": {
			argv: "-i /m/a.mkv -f hls -hls_fmp4_init_filename 8f-1.mp4 -hls_segment_filename /c/8f%d.mp4 -y /c/8f.m3u8",
			want: []ffmpeg.FileSet{{"/c", "8f", false}},
		},
		"hls whose segments lie elsewhere": {
			argv: "-i /m/a.mkv -hls_fmp4_init_filename i.mp4 -hls_segment_filename /d/seg_%v_%03d.mp4 /c/8f.m3u8",
			want: []ffmpeg.FileSet{{"/c", "8f", false}, {"/d", "seg_", false}, {"/c", "i.mp4", true}},
		},
		"hls under another name": {
			argv: "-i /m/a.mkv -f hls -hls_fmp4_init_filename 8f-1.mp4 /c/8f",
			want: []ffmpeg.FileSet{{"/c", "8f", false}},
		},
		"dash": {
			argv: "-i /m/a.mkv /c/8f.mpd",
			want: []ffmpeg.FileSet{{"/c", "8f", false}, {"/c", "chunk-stream", false}, {"/c", "init-stream", false}},
		},
		"segments with a list": {
			argv: "-i /m/a.mkv -f segment -segment_list /c/l.csv /c/s%03d.ts",
			want: []ffmpeg.FileSet{{"/c", "l.csv", true}, {"/c", "s", false}},
		},
		"tee": {
			argv: "-i /m/a.mkv -f tee [f=mpegts]/c/a.ts|/c/8f.m3u8",
			want: []ffmpeg.FileSet{{"/c", "8f", false}, {"/c", "init", false}, {"/c", "a.ts", true}},
		},
		"attachments by their tags": {
			argv: "-dump_attachment:t  -y -i /m/a.mkv -t 0 -f null null",
			want: []ffmpeg.FileSet{{"/work", "", false}},
		},
		"one attachment": {
			argv: "-dump_attachment:3 /c/f.ttf -i /m/a.mkv -t 0 -f null null",
			want: []ffmpeg.FileSet{{"/c", "f.ttf", true}},
		},
		"a log of two passes": {
			argv: "-i /m/a.mkv -pass 1 -passlogfile /c/two -f null -",
			want: []ffmpeg.FileSet{{"/c", "two-", false}},
		},
		"a report is no output":        {argv: "-report -i /m/a.mkv /c/a.mp4", want: []ffmpeg.FileSet{{"/c", "a.mp4", true}}},
		"a pattern names directories":  {argv: "-i /m/a.mkv -f segment /c/%v/s%03d.ts", want: nil},
		"a percent sign is no promise": {argv: "-i /m/a.mkv /c/100%.mp4", want: []ffmpeg.FileSet{{"/c", "100", false}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			argv := strings.Split(tt.argv, " ")
			c := ffmpeg.Parse("ffmpeg", argv, ffmpeg.Host{Dir: "/work"})
			if diff := cmp.Diff(tt.want, c.FileSets()); diff != "" {
				t.Errorf("FileSets (-want +got):\n%s", diff)
			}
		})
	}
}
