package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/test/bench/agent"
)

// measurement returns one sample.
type measurement func(context.Context) (float64, error)

// interleave takes n samples of each measurement, in turn; every round begins
// with another one. A first round is not counted: caches fill.
func interleave(ctx context.Context, n int, each ...measurement) ([][]float64, error) {
	all := make([][]float64, len(each))
	for round := -1; round < n; round++ {
		if round >= 0 && n <= 20 || round%max(1, n/20) == 0 {
			fmt.Print(".")
		}
		for i := range each {
			i = (i + round + 1) % len(each)
			v, err := each[i](ctx)
			if err != nil {
				return nil, err
			}
			if round >= 0 {
				all[i] = append(all[i], v)
			}
		}
	}
	return all, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// inPod is how long a command takes in the client pod, fork to reaped.
func (b *bench) inPod(env []string, argv ...string) measurement {
	return func(ctx context.Context) (float64, error) {
		r, err := b.run(ctx, env, argv...)
		return ms(r.Total), err
	}
}

// here is how long something takes that bench itself does.
func here(f func(context.Context) error) measurement {
	return func(ctx context.Context) (float64, error) {
		began := time.Now()
		err := f(ctx)
		return ms(time.Since(began)), err
	}
}

// measureLocal compares a shim that decides to run locally with the program
// itself: the real ffmpeg, and the tiniest program in its place.
func measureLocal(ctx context.Context, b *bench) ([]row, error) {
	const tiny = podDir + "/tiny"
	if _, err := b.agent.Do(ctx, agent.Request{Op: agent.Tiny, File: tiny}); err != nil {
		return nil, err
	}
	small, err := interleave(ctx, b.n.tiny, b.inPod(nil, tiny, "-version"), b.inPod([]string{"FFPOD_FFMPEG=" + tiny}, shim, "-version"))
	if err != nil {
		return nil, err
	}
	real, err := interleave(ctx, b.n.local, b.inPod(nil, realFFmpeg, "-version"), b.inPod(nil, shim, "-version"))
	if err != nil {
		return nil, err
	}
	g := goal{bound: 6, stretch: 2.5}
	return []row{
		difference("local_shim_overhead_ms", "local: shim, then ffmpeg -version, over ffmpeg itself", real[1], real[0], g),
		difference("local_shim_overhead_tiny_ms", "the same with a program of 130 bytes for ffmpeg", small[1], small[0], g),
	}, nil
}

// measureWarm compares `ffmpeg -version` in the client pod with the same on a
// warm worker, and with the same through exec from here.
func measureWarm(ctx context.Context, b *bench) ([]row, error) {
	kubectl := func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, b.kubectl, "--kubeconfig", b.kubeconfig, "-n", b.namespace, "exec", b.clientPod, "-c", "client", "--", realFFmpeg, "-version").CombinedOutput()
		if err != nil {
			return fmt.Errorf("kubectl exec: %w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	clientGo := func(ctx context.Context) error {
		return b.exec(ctx, b.clientPod, "client", nil, nil, realFFmpeg, "-version")
	}
	s, err := interleave(ctx, b.n.warm, b.inPod(nil, realFFmpeg, "-version"), b.inPod(forced("warm"), shim, "-version"), here(kubectl), here(clientGo))
	if err != nil {
		return nil, err
	}
	return []row{
		difference("warm_overhead_ms", "warm: ffmpeg -version on a worker, over local", s[1], s[0], goal{bound: 15, stretch: 5}),
		difference("kubectl_exec_overhead_ms", "  instead, kubectl exec of it from here", s[2], s[0], goal{}),
		difference("clientgo_exec_overhead_ms", "  instead, client-go exec of it from here", s[3], s[0], goal{}),
	}, nil
}

// measureChannel compares a call over an open channel with a byte there and back
// through an open exec of `cat`, and with what opening a stream costs.
func measureChannel(ctx context.Context, b *bench) ([]row, error) {
	ch, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	defer ch.Close()
	echo, stop, err := b.echo(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	kill := func(ctx context.Context) error { // the smallest call: it looks for a session that is not there
		_, _ = ch.Supervisor().Kill(ctx, &wire.KillRequest{Session: "none"})
		if err := ch.Err(); err != nil {
			return fmt.Errorf("channel: %w", err)
		}
		return ctx.Err()
	}
	trips, err := interleave(ctx, b.n.echo, here(echo), here(kill))
	if err != nil {
		return nil, err
	}
	noop := func(ctx context.Context) error {
		return b.exec(ctx, b.workerPod, podexec.Container, nil, nil, "/bin/true")
	}
	opening, err := interleave(ctx, b.n.exec, here(noop), here(func(ctx context.Context) error {
		ch, err := b.open(ctx)
		if err != nil {
			return err
		}
		return ch.Close()
	}))
	if err != nil {
		return nil, err
	}
	trip := difference("channel_round_trip_ms", "channel: a call, over a byte through an open exec of cat", trips[1], trips[0], goal{})
	trip.also["channel_round_trip_ms_ours_p99"], trip.also["channel_round_trip_ms_baseline_p99"] = percentile(trips[1], 99), percentile(trips[0], 99)
	first := difference("channel_open_ms", "channel: open, Describe, close, over client-go exec of a no-op", opening[1], opening[0], goal{})
	first.also["clientgo_exec_noop_ms_p50"] = median(opening[0])
	return []row{trip, first}, nil
}

// open opens a channel of bench's own to the warm worker.
func (b *bench) open(ctx context.Context) (*podexec.Channel, error) {
	d := &podexec.Dialer{Config: b.config, Client: b.client}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return d.Open(ctx, podexec.Target{Namespace: b.namespace, Pod: b.workerPod})
}

// echo opens an exec of `cat` in the worker. What it returns sends a byte and
// waits until it is back.
func (b *bench) echo(ctx context.Context) (trip func(context.Context) error, stop func(), err error) {
	stdin, to := io.Pipe()
	from, stdout := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := b.exec(ctx, b.workerPod, podexec.Container, stdin, stdout, "/bin/cat")
		if err == nil {
			err = os.ErrClosed
		}
		stdin.CloseWithError(err)
		stdout.CloseWithError(err)
	}()
	one := []byte{'x'}
	trip = func(context.Context) error {
		if _, err := to.Write(one); err != nil {
			return fmt.Errorf("exec of cat: %w", err)
		}
		if _, err := io.ReadFull(from, one); err != nil {
			return fmt.Errorf("exec of cat: %w", err)
		}
		return nil
	}
	stop = func() {
		to.Close()
		cancel()
		from.Close()
		<-done
	}
	if err := trip(ctx); err != nil {
		stop()
		return nil, nil, err
	}
	return trip, stop, nil
}
