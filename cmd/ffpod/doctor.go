package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
	"github.com/ffpod/ffpod/cmd/ffpod/doctor"
)

func newDoctor() *cobra.Command {
	var before, asJSON, verbose, prove bool
	var bundle string
	var only []string
	var trial doctor.Trial
	c := &cobra.Command{
		Use:   "doctor [-n NAMESPACE] [--before] [--bundle FILE]",
		Short: "Examine a cluster before an install or after, and say of each fault what, why, and exactly what to do",
		Long: "Doctor changes nothing but what it removes again: a file in each shared directory, and with --before a claim\n" +
			"and two pods, if it is given --storage-class or --claim. What it may not look at it says. It ends with exit\n" +
			"code 1 when a check fails.\n\n" +
			"--bundle writes a tar.gz for a bug report: the findings, the objects, the scheduler's and the workers' logs. It\n" +
			"reads no Secret and replaces what looks like one; Jellyfin's log, which tells what people watch, is not in it.",
		Args: usage(cobra.NoArgs),
	}
	open := clusterFlags(c)
	f := c.Flags()
	f.BoolVar(&before, "before", false, "nothing is installed yet: check whether it can be")
	f.StringVar(&bundle, "bundle", "", "also write a tar.gz for a bug report to this file")
	f.BoolVar(&asJSON, "json", false, "print the findings as JSON")
	f.BoolVarP(&verbose, "verbose", "v", false, "print also what is right")
	f.BoolVar(&prove, "prove", false, "also encode with every class, by its hardware, and tone-map as Jellyfin would: takes a slot, or starts a Job, of each")
	f.StringSliceVar(&only, "only", nil, "only these checks, a comma list")
	f.StringVar(&trial.StorageClass, "storage-class", "", "with --before: try ReadWriteMany with a new claim of this class")
	f.StringVar(&trial.Claim, "claim", "", "with --before: try ReadWriteMany with this claim")
	f.StringVar(&trial.Image, "image", "jellyfin/jellyfin:10.11.11", "with --before: an image with sh, for the trial's pods")
	f.Int64Var(&trial.User, "user", 1000, "with --before: identity.user of settings.yaml")
	f.Int64Var(&trial.Group, "group", 1000, "with --before: identity.group of settings.yaml")
	c.RunE = func(c *cobra.Command, _ []string) error {
		on, err := open()
		if err != nil {
			return err
		}
		// Interrupted, it still removes what it made.
		ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		p := patient(on)
		if p.Dynamic, err = dynamic.NewForConfig(on.Config); err != nil {
			return fmt.Errorf("connect to %s: %w", on.Config.Host, err)
		}
		p.Before, p.Trial = before, trial
		if prove {
			p.Prove, p.Try = proof(on), try(on)
		}
		var progress func(string)
		if !asJSON && verbose {
			progress = func(check string) { fmt.Fprintf(c.ErrOrStderr(), "checking %s\n", check) }
		}
		r, err := doctor.Examine(ctx, p, only, progress)
		if err != nil {
			return err
		}
		if asJSON {
			err = r.JSON(c.OutOrStdout())
		} else {
			err = r.Text(c.OutOrStdout(), verbose)
		}
		if bundle != "" && err == nil {
			err = writeBundle(ctx, p, r, bundle)
		}
		if err == nil && r.Count(doctor.Fail) > 0 {
			return &exitError{code: 1}
		}
		return err
	}
	return c
}

// patient is a cluster as the doctor looks at it.
func patient(on *cluster.Cluster) *doctor.Patient {
	return &doctor.Patient{
		Client: on.Client, Namespace: on.Namespace, Status: on.Status,
		As: func(account string) (kubernetes.Interface, error) {
			rc := rest.CopyConfig(on.Config)
			rc.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + on.Namespace + ":" + account,
				Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + on.Namespace, "system:authenticated"}}
			return kubernetes.NewForConfig(rc)
		},
		Dial: func(ctx context.Context, pod string, port int) (net.Conn, error) { return on.Dial(ctx, pod, port) },
		Exec: func(ctx context.Context, pod, container string, args ...string) (doctor.Output, error) {
			var stdout, stderr bytes.Buffer
			code, err := on.Exec(ctx, cluster.Command{Pod: pod, Container: container, Args: args, Stdout: &stdout, Stderr: &stderr})
			return doctor.Output{Stdout: stdout.String(), Stderr: stderr.String(), Code: code}, err
		},
		Watch: func(ctx context.Context, pod, container string, line func(string), args ...string) error {
			return watch(ctx, on, cluster.Command{Pod: pod, Container: container, Args: args}, line)
		},
	}
}

// proof is the smoke test, for the doctor.
func proof(on *cluster.Cluster) func(ctx context.Context, class, encoder string) (string, error) {
	return func(ctx context.Context, class, encoder string) (string, error) {
		args, err := smokeArgs(encoder)
		if err != nil {
			return "", err
		}
		return try(on)(ctx, class, "encoded 2 s with "+encoder, args)
	}
}

// try runs ffmpeg as the smoke test does, for the doctor.
func try(on *cluster.Cluster) func(ctx context.Context, class, what string, args []string) (string, error) {
	return func(ctx context.Context, class, what string, args []string) (string, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("not within 3 m"))
		defer cancel()
		var said bytes.Buffer
		err := smoke{class: class}.try(ctx, on, what, args, &said)
		return strings.TrimPrefix(strings.TrimSpace(said.String()), "ok: "), err
	}
}

// watch calls line for each line of a command's stdout as it comes.
func watch(ctx context.Context, on *cluster.Cluster, cmd cluster.Command, line func(string)) error {
	from, to := io.Pipe()
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(from)
		for lines.Scan() {
			line(lines.Text())
		}
		_, _ = io.Copy(io.Discard, from) // after a line that is too long
	}()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = to, &stderr
	code, err := on.Exec(ctx, cmd)
	to.Close()
	<-read
	if err == nil && code != 0 {
		err = fmt.Errorf("exit %d: %s", code, bytes.TrimSpace(stderr.Bytes()))
	}
	return err
}

// writeBundle replaces the file only with a whole one, for its owner's eyes.
func writeBundle(ctx context.Context, p *doctor.Patient, r doctor.Report, name string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".ffpod-bundle-*")
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	err = errors.Join(doctor.Bundle(ctx, p, r, f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write the bundle: %w", err)
	}
	return nil
}
