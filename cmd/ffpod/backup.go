package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ffpod/ffpod/cmd/ffpod/backup"
)

func newBackup() *cobra.Command {
	b := backup.Make{FFpod: version, Environ: os.Environ(), Now: time.Now}
	c := &cobra.Command{
		Use:   "backup --to DIR [--config DIR] [--keep N]",
		Short: "Back up Jellyfin's database and settings, while it runs (the backup CronJob runs it)",
		Long: "Backup writes DIR/jellyfin-TIME.tar.gz: the database, by SQLite's online backup or by pg_dump (with PGHOST,\n" +
			"PGPORT, PGDATABASE, PGUSER and PGPASSWORD set), and the tree of --config without what can be made again and\n" +
			"without secrets. It must run on Jellyfin's node, with the same volume. Older backups than the newest N go.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if b.To == "" {
				return &usageError{err: errors.New("backup: no directory to write to; give --to DIR")}
			}
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			b.Report = c.OutOrStdout()
			if _, err := b.Run(ctx); err != nil {
				return fmt.Errorf("backup: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&b.Config, "config", "/config", "the root of Jellyfin's own claim")
	c.Flags().StringVar(&b.To, "to", "", "the directory of backups")
	c.Flags().IntVar(&b.Keep, "keep", 7, "how many backups stay")
	c.AddCommand(newBackupList(), newBackupVerify())
	return c
}

func newBackupList() *cobra.Command {
	return &cobra.Command{
		Use:   "list DIR",
		Short: "List the backups in a directory, the newest first",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			all, err := backup.List(args[0])
			if err != nil {
				return fmt.Errorf("backup list: %w", err)
			}
			for _, a := range all {
				fmt.Fprintf(c.OutOrStdout(), "%s\t%s\t%d KiB\n", a.Path, a.Made.Format(time.RFC3339), (a.Bytes+1023)/1024)
			}
			return nil
		},
	}
}

func newBackupVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "Read a whole backup and compare it with its manifest",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := backup.Verify(c.Context(), args[0])
			if err != nil {
				return fmt.Errorf("backup verify: %w", err)
			}
			fmt.Fprintf(c.OutOrStdout(), "whole: %s, %d files, made %s\n", m.Engine, len(m.Files), m.Made.Format(time.RFC3339))
			return nil
		},
	}
}

func newRestore() *cobra.Command {
	r := backup.Restore{Environ: os.Environ(), Now: time.Now}
	c := &cobra.Command{
		Use:   "restore --from DIR|FILE [--config DIR]",
		Short: "Restore the newest backup of a directory, or the one given, while Jellyfin does not run",
		Long: "Restore reads the whole backup first and refuses one that is not whole. PostgreSQL's database is replaced in\n" +
			"one transaction. Files that are replaced are kept in .ffpod-before-TIME of --config; files that the backup does\n" +
			"not have stay. What is blanked in it, for being a secret, is listed at the end.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if r.From == "" {
				return &usageError{err: errors.New("restore: nothing to restore from; give --from DIR or --from FILE")}
			}
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			r.Report = c.OutOrStdout()
			if err := r.Run(ctx); err != nil {
				return fmt.Errorf("restore: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&r.From, "from", "", "a directory of backups, or one backup")
	c.Flags().StringVar(&r.Config, "config", "/config", "the root of Jellyfin's own claim")
	return c
}
