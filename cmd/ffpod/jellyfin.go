package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ffpod/ffpod/cmd/ffpod/jellyfin"
)

func newJellyfin() *cobra.Command {
	c := &cobra.Command{
		Use:   "jellyfin",
		Short: "Prepare, probe and set up Jellyfin, in the pod that mounts its configuration",
		Args:  usage(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newJellyfinPrepare(), newJellyfinHealthy(), newJellyfinApply())
	return c
}

func newJellyfinPrepare() *cobra.Command {
	var p jellyfin.Prepare
	c := &cobra.Command{
		Use:   "prepare [--config DIR] [--shared DIR] [--seed DIR] [--mkdir DIR]...",
		Short: "Make directories, check that they can be written, write the first settings files (an init container runs it)",
		Long: "Prepare makes the directories of Jellyfin's claim and of the claim that workers share, as the identity it runs\n" +
			"as, and proves that it can write them. From the directory of --seed, a mounted ConfigMap with one key for each\n" +
			"setting, it writes encoding.xml, network.xml and system.xml where they are missing. It overwrites nothing.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p.Report = c.OutOrStdout()
			if err := p.Run(); err != nil {
				return fmt.Errorf("jellyfin prepare: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&p.Config, "config", "/config", "the root of Jellyfin's own claim")
	c.Flags().StringVar(&p.Shared, "shared", "", "the root of the claim that workers share")
	c.Flags().StringVar(&p.Seed, "seed", "", "a directory with one file for each setting")
	c.Flags().StringArrayVar(&p.Directories, "mkdir", nil, "a further directory")
	return c
}

func newJellyfinHealthy() *cobra.Command {
	var config string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "healthy [--config DIR]",
		Short: "Succeed when Jellyfin answers Healthy (an exec probe runs it)",
		Long:  "Healthy asks for /health below the base URL, on the port of network.xml. An HTTP probe cannot do it: Jellyfin\nanswers 200 with the word Degraded while it starts.",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			return jellyfin.Healthy(ctx, config)
		},
	}
	c.Flags().StringVar(&config, "config", "/config", "the directory that Jellyfin has as /config")
	c.Flags().DurationVar(&timeout, "timeout", 4*time.Second, "how long to wait for the answer")
	return c
}

func newJellyfinApply() *cobra.Command {
	var a jellyfin.Apply
	c := &cobra.Command{
		Use:   "apply [--config DIR] [--dry-run] [--while-running] SETTING=VALUE...",
		Short: "Set settings of an existing install in its XML files, and leave everything else in them as it is",
		Long: "Apply runs where Jellyfin's configuration is mounted, for instance in its own pod:\n\n" +
			"  kubectl exec deploy/jellyfin -- /opt/ffpod/ffpod jellyfin apply --while-running hardwareAcceleration=nvenc\n" +
			"  kubectl rollout restart deploy/jellyfin\n\n" +
			"It prints what changes, and keeps a copy of each file that it changes. The settings:\n\n" + jellyfinSettings(),
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			for _, arg := range args {
				key, value, ok := strings.Cut(arg, "=")
				if !ok {
					return &usageError{err: fmt.Errorf("jellyfin apply: %q is not SETTING=VALUE", arg)}
				}
				change, err := jellyfin.ParseChange(strings.TrimPrefix(key, "jellyfin."), value)
				if err != nil {
					return &usageError{err: fmt.Errorf("jellyfin apply: %w", err)}
				}
				a.Changes = append(a.Changes, change)
			}
			a.Report, a.Now = c.OutOrStdout(), time.Now()
			if err := a.Run(c.Context()); err != nil {
				return fmt.Errorf("jellyfin apply: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&a.Config, "config", "/config", "the directory that Jellyfin has as /config")
	c.Flags().BoolVar(&a.DryRun, "dry-run", false, "only print what would change")
	c.Flags().BoolVar(&a.WhileRunning, "while-running", false, "write although Jellyfin runs; restart it afterwards")
	return c
}

func jellyfinSettings() string {
	var b strings.Builder
	for _, s := range jellyfin.Settings() {
		fmt.Fprintf(&b, "  %-28s %s (%s: %s)\n", s.Key, s.Help, s.File.Name, s.Element)
	}
	return b.String()
}
