// Command simulator is a Jellyfin server towards its ffmpeg, and an ffmpeg
// towards such a server. See package jellyfin.
//
//	simulator             performs the Order on stdin, answers with a Report
//	jellyfin [ARGS...]    the same program under that name: a server that stays,
//	                      on port 8096, with $JELLYFIN_FFMPEG
//	fake/ffmpeg ARGS...   the same program in a directory of that name
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/ffpod/ffpod/test/jellyfin"
)

func main() {
	if exe, err := os.Executable(); err == nil && filepath.Base(filepath.Dir(exe)) == jellyfin.FakeDirectory {
		os.Exit(jellyfin.Fake(os.Args[1:]))
	}
	run := perform
	if filepath.Base(os.Args[0]) == "jellyfin" {
		run = serve
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "simulator:", err)
		os.Exit(2)
	}
}

func perform() error {
	var o jellyfin.Order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	report, err := jellyfin.Perform(context.Background(), o)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// serve is what the image's entry point starts.
func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return jellyfin.ServeWeb(ctx, ":8096", jellyfin.Order{
		Flavour: jellyfin.V10_11,
		FFmpeg:  os.Getenv("JELLYFIN_FFMPEG"),
		Bare:    "/usr/lib/jellyfin-ffmpeg/ffmpeg",
		Config:  "/config",
	})
}
