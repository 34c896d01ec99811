package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ffpod/ffpod/kustomize"
)

func newRender() *cobra.Command {
	return &cobra.Command{
		Use:   "render DIR|NAME",
		Short: "Check an overlay's settings and print its manifests; needs no network, no git, no kustomize",
		Long: "Render builds the kustomization in DIR, or the overlay NAME of the tree that ffpod carries (" + strings.Join(kustomize.Overlays(), ", ") + ";\n" +
			"cluster for the admin's part alone). References to " + kustomize.Repository + " of this release lead to that tree.\n" +
			"It first checks each settings.yaml, and prints nothing if one is wrong. What it prints is what `kustomize build DIR` prints.",
		Example: "  ffpod render ./jellyfin | kubectl apply --server-side -f -\n  ffpod render cluster | kubectl apply --server-side -f -",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			all, err := kustomize.Render(args[0], version)
			if err != nil {
				return err
			}
			text, err := all.AsYaml()
			if err != nil {
				return fmt.Errorf("render %s: %w", args[0], err)
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
}
