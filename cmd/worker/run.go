package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/supervisor"
	"github.com/ffpod/ffpod/podexec/wire"
)

// version is the release, set by the linker (-X main.version=...).
var version = "devel"

// exitUsage and exitFailure are the worker's own; a once worker otherwise exits
// with its session's status.
const (
	exitUsage   = 2
	exitFailure = session.InfrastructureExit
)

// dialWait bounds how long an exec that came early waits for the supervisor. It
// is short: the caller execs again.
const dialWait = 3 * time.Second

func run(ctx context.Context, args []string, env func(string) (string, bool)) int {
	verb := ""
	if len(args) == 1 {
		verb = args[0]
	}
	switch verb {
	case "serve":
		return serve(ctx, env)
	case "dial":
		return report(supervisor.Dial(ctx, supervisor.Socket, dialWait, os.Stdin, os.Stdout))
	case "probe":
		return report(probe(ctx))
	case "version":
		fmt.Println("ffpod worker", version)
		return 0
	}
	fmt.Fprintln(os.Stderr, "worker: usage: worker serve | dial | probe | version")
	return exitUsage
}

func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return exitFailure
	}
	return 0
}

func serve(ctx context.Context, env func(string) (string, bool)) int {
	conf, err := settings(env)
	if err != nil {
		return report(err)
	}
	conf.Log, err = zap.NewProduction(zap.WithCaller(false))
	if err != nil {
		return report(fmt.Errorf("log: %w", err))
	}
	defer func() { _ = conf.Log.Sync() }()
	s, err := supervisor.New(conf)
	if err != nil {
		return report(err)
	}
	l, err := supervisor.Listen(supervisor.Socket)
	if err != nil {
		return report(err)
	}
	conf.Log.Info("worker serves", zap.String("class", conf.Class), zap.Int("slots", max(1, conf.Slots)), zap.Bool("once", conf.Once),
		zap.String("ffmpeg", conf.FFmpeg), zap.String("version", version))
	exit, err := s.Serve(ctx, l)
	switch {
	case err != nil:
		conf.Log.Error("worker ended", zap.Error(err))
		return exitFailure
	case !conf.Once:
		return 0
	case exit == nil: // a standby worker that was retired
		return 0
	case exit.Signal != 0:
		return 128 + int(exit.Signal)
	}
	return int(exit.Code)
}

// settings reads the environment and names every problem at once.
func settings(env func(string) (string, bool)) (supervisor.Config, error) {
	var problems []error
	text := func(name string) string { v, _ := env(name); return v }
	duration := func(name string) time.Duration {
		v := text(name)
		if v == "" {
			return 0
		}
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			problems = append(problems, fmt.Errorf("%s=%q is not a positive duration such as 60s", name, v))
		}
		return d
	}
	conf := supervisor.Config{
		Class: text("FFPOD_CLASS"), Pod: text("POD_NAME"), PodUID: text("POD_UID"), Node: text("NODE_NAME"),
		Idle: duration("FFPOD_IDLE"), Grace: duration("FFPOD_GRACE"),
		FFmpeg: program(text("FFPOD_FFMPEG"), "ffmpeg"), FFprobe: program(text("FFPOD_FFPROBE"), "ffprobe"),
		Version: version,
	}
	flag := func(name string, otherwise bool) bool {
		v := text(name)
		if v == "" {
			return otherwise
		}
		on, err := strconv.ParseBool(v)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s=%q is neither 1 nor 0", name, v))
		}
		return on
	}
	conf.Once, conf.Standby, conf.Unproved = flag("FFPOD_ONCE", false), flag("FFPOD_STANDBY", false), !flag("FFPOD_TRIALS", true)
	if v := text("FFPOD_SLOTS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			problems = append(problems, fmt.Errorf("FFPOD_SLOTS=%q is not a positive number", v))
		}
		conf.Slots = n
	}
	return conf, errors.Join(problems...)
}

// program finds a real program; "" when there is none: sessions that ask for it
// are refused with that reason.
func program(set, name string) string {
	if set != "" {
		return set
	}
	if path := "/usr/lib/jellyfin-ffmpeg/" + name; isFile(path) {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	conn, err := grpc.NewClient("unix-abstract:"+supervisor.Socket[1:], append(session.ChannelDialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer conn.Close()
	if _, err := wire.NewSupervisorClient(conn).Describe(ctx, &wire.DescribeRequest{}); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	return nil
}
