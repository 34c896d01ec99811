package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
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
	var yes bool
	var open func() (*cluster.Cluster, error)
	c := &cobra.Command{
		Use:   "apply [-n NAMESPACE [--yes] | --config DIR [--dry-run] [--while-running]] SETTING=VALUE...",
		Short: "Set settings of an existing install in its XML files, and leave everything else in them as it is",
		Long: "With -n (or --context, --kubeconfig) apply works from outside: it prints what would change and writes nothing;\n" +
			"with --yes it scales Jellyfin's Deployment to 0, for a running Jellyfin writes its own values over these, lets a\n" +
			"Job with its claim apply them, and gives the Deployment its replicas again whatever happens. It needs your rights\n" +
			"to pods/exec, Deployments, Jobs and logs. Suspend a GitOps controller that would heal the replicas meanwhile.\n\n" +
			"  ffpod jellyfin apply -n jellyfin --yes hardwareAcceleration=nvenc\n\n" +
			"Without them it runs where Jellyfin's configuration is mounted, for instance in its own pod:\n\n" +
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
			for _, flag := range []string{"namespace", "context", "kubeconfig"} {
				if c.Flags().Changed(flag) {
					return applyOutside(c, open, args, yes)
				}
			}
			if yes {
				return &usageError{err: errors.New("jellyfin apply: --yes is for an install's namespace: -n")}
			}
			a.Report, a.Now = c.OutOrStdout(), time.Now()
			if err := a.Run(c.Context()); err != nil {
				return fmt.Errorf("jellyfin apply: %w", err)
			}
			return nil
		},
	}
	open = clusterFlags(c)
	c.Flags().BoolVar(&yes, "yes", false, "with -n: stop Jellyfin, apply, start it again")
	c.Flags().StringVar(&a.Config, "config", "/config", "the directory that Jellyfin has as /config")
	c.Flags().BoolVar(&a.DryRun, "dry-run", false, "only print what would change")
	c.Flags().BoolVar(&a.WhileRunning, "while-running", false, "write although Jellyfin runs; restart it afterwards")
	return c
}

// applyOutside applies the settings to the Jellyfin of a namespace.
func applyOutside(c *cobra.Command, open func() (*cluster.Cluster, error), settings []string, yes bool) error {
	for _, flag := range []string{"config", "while-running", "dry-run"} {
		if c.Flags().Changed(flag) {
			return &usageError{err: fmt.Errorf("jellyfin apply: --%s is for inside the pod, not with -n", flag)}
		}
	}
	on, err := open()
	if err != nil {
		return err
	}
	// Interrupted, it still starts Jellyfin again.
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	found, err := on.Client.AppsV1().Deployments(on.Namespace).List(ctx, metav1.ListOptions{LabelSelector: cluster.JellyfinLabels})
	if err != nil {
		return fmt.Errorf("jellyfin apply: find Jellyfin in namespace %s: %w", on.Namespace, err)
	}
	if len(found.Items) != 1 {
		return fmt.Errorf("jellyfin apply: namespace %s has %d Deployments with %s, not one; name the install's namespace with -n", on.Namespace, len(found.Items), cluster.JellyfinLabels)
	}
	o := jellyfin.Outside{Client: on.Client, Namespace: on.Namespace, Deployment: found.Items[0].Name, Settings: settings, Yes: yes, Report: c.OutOrStdout(),
		Poll: time.Second, Wait: 5 * time.Minute,
		Preview: func(ctx context.Context) error {
			return preview(ctx, on, found.Items[0].Name, settings, c.OutOrStdout())
		}}
	if err := o.Run(ctx); err != nil {
		return fmt.Errorf("jellyfin apply: %w", oneLine(err))
	}
	return nil
}

// preview prints what would change, by the ffpod in Jellyfin's pod, which writes
// nothing.
func preview(ctx context.Context, on *cluster.Cluster, deployment string, settings []string, out io.Writer) error {
	caller, err := on.Caller(ctx, "deploy/"+deployment)
	if err != nil {
		return fmt.Errorf("see what would change: %w", err)
	}
	var stderr bytes.Buffer
	args := append([]string{path.Join(path.Dir(caller.Shim), "ffpod"), "jellyfin", "apply", "--config=/config", "--dry-run", "--"}, settings...)
	code, err := on.Exec(ctx, cluster.Command{Pod: caller.Pod.Name, Container: caller.Container, Args: args, Stdout: out, Stderr: &stderr})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit %d: %s", code, bytes.TrimSpace(stderr.Bytes()))
	}
	if err != nil {
		return fmt.Errorf("see what would change: %w", err)
	}
	return nil
}

func jellyfinSettings() string {
	var b strings.Builder
	for _, s := range jellyfin.Settings() {
		fmt.Fprintf(&b, "  %-28s %s (%s: %s)\n", s.Key, s.Help, s.File.Name, s.Element)
	}
	return b.String()
}
