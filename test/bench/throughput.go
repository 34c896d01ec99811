package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/test/bench/agent"
)

const (
	frameSize = 1920 * 1080 * 3 / 2
	loop      = 8 // frames in the file; they stay in the page cache
	zeros     = mediaDir + "/zeros.yuv"
	gigabyte  = 1e9
)

// flood is an ffmpeg that only copies raw frames to stdout: alone it makes more
// than 2 GB/s.
func flood(frames int) []string {
	return []string{"-nostdin", "-v", "error", "-stream_loop", "-1", "-f", "rawvideo", "-video_size", "1920x1080", "-pixel_format", "yuv420p",
		"-i", zeros, "-c", "copy", "-frames:v", strconv.Itoa(frames), "-f", "rawvideo", "-"}
}

// counter counts what it is given.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// way is one way for the same bytes: it returns how many arrived, how long that
// took, and the CPU time of processes that are already gone.
type way func(context.Context) (bytes int64, took, cpu time.Duration, err error)

// measureThroughput compares one session's stdout, the whole way to the shim and
// the channel's part of it alone, with client-go exec of the same producer.
func measureThroughput(ctx context.Context, b *bench) ([]row, error) {
	if _, err := b.run(ctx, nil, "truncate", "-s", strconv.Itoa(loop*frameSize), zeros); err != nil {
		return nil, err
	}
	ch, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer ch.Close()
	raw := func(ctx context.Context) (int64, time.Duration, time.Duration, error) {
		var n counter
		began := time.Now()
		err := b.exec(ctx, b.workerPod, podexec.Container, nil, &n, append([]string{realFFmpeg}, flood(b.n.frames)...)...)
		return n.n, time.Since(began), 0, err
	}
	channel := func(ctx context.Context) (int64, time.Duration, time.Duration, error) {
		var n counter
		cmd := ch.Command(wire.Program_FFMPEG, flood(b.n.frames)...)
		cmd.Stdout = &n
		began := time.Now()
		err := cmd.Run(ctx)
		return n.n, time.Since(began), 0, err
	}
	whole := func(ctx context.Context) (int64, time.Duration, time.Duration, error) {
		r, err := b.agent.Do(ctx, agent.Request{Op: agent.Run, Timeout: 5 * time.Minute, Env: forced("warm"), Argv: append([]string{shim}, flood(b.n.frames)...)})
		return r.Bytes, r.Total, r.CPU, err
	}
	ways := []*stream{{name: "exec", way: raw}, {name: "podexec", way: channel}, {name: "shim", way: whole}}
	s, err := interleave(ctx, b.n.floods, ways[0].sample(b), ways[1].sample(b), ways[2].sample(b))
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(b.verbose)
	for _, w := range ways {
		w.print(b)
	}
	g := goal{bound: 0.6, stretch: 0.8, atLeast: true}
	rows := []row{
		quotient("stdout_throughput_ratio", "stdout: worker to shim, over client-go exec from here", "MB/s", s[2], s[0], g),
		quotient("stdout_throughput_podexec_ratio", "  worker to a podexec.Cmd here", "MB/s", s[1], s[0], g),
	}
	if len(ways[0].cpu) > 0 {
		rows = append(rows,
			quotient("stdout_cpu_ratio", "  CPU seconds per GB, all parts but ffmpeg: shim", "s", ways[2].cpu[1:], ways[0].cpu[1:], goal{}),
			quotient("stdout_podexec_cpu_ratio", "  CPU seconds per GB, all parts but ffmpeg: podexec", "s", ways[1].cpu[1:], ways[0].cpu[1:], goal{}))
	}
	return rows, nil
}

// stream is a way with the CPU time that it cost.
type stream struct {
	name  string
	way   way
	cpu   []float64 // seconds per GB, all parts; none where they run elsewhere
	parts []usage   // the same by part
}

// sample measures megabytes per second.
func (s *stream) sample(b *bench) measurement {
	return func(ctx context.Context) (float64, error) {
		before := snapshot()
		n, took, gone, err := s.way(ctx)
		if err != nil {
			return 0, err
		}
		if want := int64(b.n.frames) * frameSize; n != want {
			return 0, fmt.Errorf("%s: %d bytes arrived, not %d", s.name, n, want)
		}
		if used := snapshot().since(before); used != nil {
			used["shim"] = gone.Seconds()
			gb := float64(n) / gigabyte
			var sum float64
			for part := range used {
				used[part] /= gb
				sum += used[part]
			}
			s.cpu, s.parts = append(s.cpu, sum), append(s.parts, used)
		}
		return float64(n) / 1e6 / took.Seconds(), nil
	}
}

// print tells where the CPU time went.
func (s *stream) print(b *bench) {
	if len(s.parts) < 2 {
		return
	}
	var names []string
	for _, p := range s.parts[1:] {
		for name := range p {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	var text []string
	for _, name := range names {
		var v []float64
		for _, p := range s.parts[1:] {
			v = append(v, p[name])
		}
		if m := median(v); m >= 0.01 {
			text = append(text, fmt.Sprintf("%s %.2f", name, m))
		}
	}
	fmt.Fprintf(b.verbose, "    CPU s/GB, %-8s %s\n", s.name+":", strings.Join(text, ", "))
}

// selfCPU is what this process has used.
func selfCPU() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
