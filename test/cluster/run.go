package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// run executes a tool and returns its standard output; the error has the
// command line and what the tool said.
func run(ctx context.Context, argv ...string) (string, error) {
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr strings.Builder
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err,
			strings.TrimSpace(stderr.String()+stdout.String()))
	}
	return stdout.String(), nil
}

// runAll executes commands, each written as one line, until one does not work.
func runAll(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if _, err := run(ctx, strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// poll calls check until it succeeds, every interval, for at most the limit,
// and then returns check's last error.
func poll(ctx context.Context, limit, interval time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		// What check says about running out of time hides what it waited for.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %v: %w", limit, last)
		case <-time.After(interval):
		}
	}
}

// step prints what is being done and, when it is done, how long it took.
func step(what string, do func() error) error {
	fmt.Printf("  %-44s", what)
	began := time.Now()
	if err := do(); err != nil {
		fmt.Println(" failed")
		return err
	}
	fmt.Printf(" %6.1fs\n", time.Since(began).Seconds())
	return nil
}

// isTerminal reports whether progress may overwrite its own line.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
