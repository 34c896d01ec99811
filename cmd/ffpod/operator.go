package main

import (
	"github.com/spf13/cobra"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
)

// clusterFlags gives a verb the flags by which kubectl finds a cluster.
func clusterFlags(c *cobra.Command) func() (*cluster.Cluster, error) {
	var s cluster.Settings
	c.Flags().StringVar(&s.Kubeconfig, "kubeconfig", "", "instead of $KUBECONFIG and ~/.kube/config")
	c.Flags().StringVar(&s.Context, "context", "", "instead of the current context")
	c.Flags().StringVarP(&s.Namespace, "namespace", "n", "", "the install's; instead of the context's")
	return func() (*cluster.Cluster, error) { return cluster.Open(s, "ffpod/"+version) }
}
