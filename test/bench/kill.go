package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ffpod/ffpod/test/bench/agent"
)

// deathBound is how long a death is waited for.
const deathBound = 30 * time.Second

// measureKill kills shims and watches their ffmpeg die, by a descriptor of the
// process itself.
func measureKill(ctx context.Context, b *bench) ([]row, error) {
	kill := func(ctx context.Context) (float64, error) {
		mark := fmt.Sprintf("comment=ffpod-bench-%d", rand.Uint64())
		_, err := b.agent.Do(ctx, agent.Request{Op: agent.Start, Env: forced("warm"), Argv: []string{
			shim, "-nostdin", "-v", "error", "-re", "-f", "lavfi", "-i", "anullsrc", "-metadata", mark, "-t", "600", "-f", "null", "-"}})
		if err != nil {
			return 0, err
		}
		death, err := watchDeath(ctx, mark)
		if err != nil {
			r, _ := b.agent.Do(ctx, agent.Request{Op: agent.Kill})
			return 0, fmt.Errorf("%w; the shim said %q", err, r.Stderr)
		}
		pause(ctx, time.Duration(rand.Int64N(int64(100*time.Millisecond)))) // at no particular moment
		r, err := b.agent.Do(ctx, agent.Request{Op: agent.Kill})
		if err != nil {
			return 0, err
		}
		if r.Code != -1 {
			return 0, fmt.Errorf("the shim had ended with %d before it was killed: %s", r.Code, r.Stderr)
		}
		died := <-death
		if died.IsZero() {
			return 0, fmt.Errorf("ffmpeg still runs %s after its shim was killed", deathBound)
		}
		return ms(died.Sub(time.Unix(0, r.KilledAt))), nil
	}
	s, err := interleave(ctx, b.n.kills, kill)
	if err != nil {
		return nil, err
	}
	return []row{
		alone("shim_kill_to_worker_kill_ms_p99", "kill: shim SIGKILLed to its ffmpeg dead, p99", percentile(s[0], 99), goal{bound: 250}, b.n.kills),
		alone("shim_kill_to_worker_kill_ms_p50", "  the same, median", median(s[0]), goal{}, b.n.kills),
	}, nil
}

// watchDeath finds the worker's ffmpeg by its mark. The channel gives the time of
// its death, zero if it does not die.
func watchDeath(ctx context.Context, mark string) (<-chan time.Time, error) {
	pid, err := findProcess(ctx, realFFmpeg, mark)
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	death := make(chan time.Time, 1)
	go func() {
		defer unix.Close(fd)
		deadline := time.Now().Add(deathBound)
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
			now := time.Now()
			switch {
			case n > 0:
				death <- now
				return
			case err != unix.EINTR && now.After(deadline) || err != nil && err != unix.EINTR:
				death <- time.Time{}
				return
			}
		}
	}()
	return death, nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
