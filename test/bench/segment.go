package main

import (
	"context"
	"errors"
	"time"

	"github.com/ffpod/ffpod/test/bench/agent"
)

const film = mediaDir + "/film.mkv"

// makeFilm makes a real film of 15 s, 1080p, H.264 and AAC.
func (b *bench) makeFilm(ctx context.Context) error {
	_, err := b.run(ctx, nil, realFFmpeg, "-nostdin", "-v", "error", "-y",
		"-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=25:duration=15", "-f", "lavfi", "-i", "sine=frequency=440:duration=15",
		"-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "50", "-c:a", "aac", film)
	return err
}

// measureSegment compares the time to the first complete HLS segment, and to the
// end, of a real transcode on a warm worker with the same in the client pod.
func measureSegment(ctx context.Context, b *bench) ([]row, error) {
	if err := b.makeFilm(ctx); err != nil {
		return nil, err
	}
	var total [2][]float64
	transcode := func(which int, program string, env []string) measurement {
		return func(ctx context.Context) (float64, error) {
			const dir = cacheDir + "/hls"
			if _, err := b.run(ctx, nil, "rm", "-rf", dir); err != nil {
				return 0, err
			}
			if _, err := b.run(ctx, nil, "mkdir", "-p", dir); err != nil {
				return 0, err
			}
			r, err := b.agent.Do(ctx, agent.Request{Op: agent.Run, File: dir + "/s0.ts", Timeout: 2 * time.Minute, Env: env, Argv: []string{
				program, "-nostdin", "-v", "error", "-i", film, "-t", "9", "-vf", "scale=1280:-2", "-c:v", "libx264", "-preset", "veryfast",
				"-force_key_frames", "expr:gte(t,n_forced*3)", "-c:a", "aac", "-f", "hls", "-hls_time", "3", "-hls_playlist_type", "vod",
				"-hls_flags", "temp_file", "-hls_segment_filename", dir + "/s%d.ts", "-y", dir + "/film.m3u8"}})
			if err == nil && r.File == 0 {
				err = errors.New("the transcode left no segment")
			}
			total[which] = append(total[which], ms(r.Total))
			return ms(r.File), err
		}
	}
	s, err := interleave(ctx, b.n.segments, transcode(0, realFFmpeg, nil), transcode(1, shim, forced("warm")))
	if err != nil {
		return nil, err
	}
	g := goal{bound: 1.05}
	first := quotient("first_segment_ratio_warm", "warm: first HLS segment, 1080p to 720p, over local", "ms", s[1], s[0], g)
	first.also = map[string]float64{"first_segment_overhead_ms_p50": median(paired(s[1], s[0], minus))}
	return []row{
		first,
		quotient("transcode_ratio_warm", "  the whole transcode, 9 s of film", "ms", total[1][1:], total[0][1:], goal{}),
	}, nil
}
