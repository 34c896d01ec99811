// Command simulator is a Jellyfin server towards its ffmpeg, and an ffmpeg
// towards such a server. See package jellyfin.
//
//	simulator             performs the Order on stdin, answers with a Report
//	fake/ffmpeg ARGS...   the same program in a directory of that name
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ffpod/ffpod/test/jellyfin"
)

func main() {
	if exe, err := os.Executable(); err == nil && filepath.Base(filepath.Dir(exe)) == jellyfin.FakeDirectory {
		os.Exit(jellyfin.Fake(os.Args[1:]))
	}
	if err := perform(); err != nil {
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
