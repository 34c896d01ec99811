package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the release",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			release := "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				release = info.Main.Version
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "ffpod %s %s/%s %s\n", release, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}
