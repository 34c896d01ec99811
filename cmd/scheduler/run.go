package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"

	"github.com/ffpod/ffpod/scheduler/config"
)

// defaultConfig is where kustomize/base mounts the file.
const defaultConfig = "/etc/ffpod/config/scheduler.yaml"

// run is main with everything it depends on. It returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("scheduler", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", defaultConfig, "the configuration `file`")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: scheduler [--config FILE] [serve | version]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	switch {
	case flags.NArg() > 1 || flags.NArg() == 1 && flags.Arg(0) != "serve" && flags.Arg(0) != "version":
		fmt.Fprintf(stderr, "scheduler: unknown arguments %q; it knows serve and version\n", flags.Args())
		return 2
	case flags.Arg(0) == "version":
		fmt.Fprintln(stdout, version)
		return 0
	}
	if err := serve(ctx, *path, getenv, stderr); err != nil {
		fmt.Fprintf(stderr, "scheduler: %v\n", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, path string, getenv func(string) string, stderr io.Writer) error {
	conf, err := config.Load(path)
	if err != nil {
		return err
	}
	log, err := logger(conf.Log.Level, stderr)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }() // a pipe cannot be synced
	klog.SetLogger(zapr.NewLogger(log.Named("kubernetes")))
	p, err := build(ctx, conf, getenv, log)
	if err != nil {
		return err
	}
	return p.run(ctx)
}

// logger writes JSON lines.
func logger(level string, w io.Writer) (*zap.Logger, error) {
	at, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime, enc.EncodeDuration = "time", zapcore.RFC3339NanoTimeEncoder, zapcore.SecondsDurationEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(w)), at), zap.AddStacktrace(zapcore.DPanicLevel)), nil
}

// version is the release, set by the linker (-X main.version=...).
var version = "devel"
