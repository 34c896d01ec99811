package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ffpod/ffpod/scheduler/api"
)

func newProve() *cobra.Command {
	var class string
	c := &cobra.Command{
		Use:   "prove [-n NAMESPACE] [--class NAME]",
		Short: "Have the workers try their hardware again, after a new driver or a repair",
		Long: "Prove asks the scheduler over a port-forward to its pod's loopback address, so it needs pods/portforward there.\n" +
			"Workers do this by themselves at their start, after an error of a device, and while one does not work. It does\n" +
			"not wait: `ffpod status` tells what the trials show. It fails when no worker starts any.",
		Args: usage(cobra.NoArgs),
	}
	open := clusterFlags(c)
	c.Flags().StringVar(&class, "class", "", "only workers of this class")
	c.RunE = func(c *cobra.Command, _ []string) error {
		on, err := open()
		if err != nil {
			return err
		}
		all, err := on.Prove(c.Context(), class)
		if err != nil {
			return err
		}
		return printProofs(c.OutOrStdout(), all, class)
	}
	return c
}

// printProofs writes what each worker answered. No trial at all is an error.
func printProofs(w io.Writer, all []api.Proof, class string) error {
	if len(all) == 0 {
		which := "is up"
		if class != "" {
			which = "of class " + class + " is up"
		}
		return fmt.Errorf("prove hardware: no worker %s; `ffpod status` tells why", which)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	started := 0
	for _, p := range all {
		said := "tries"
		if p.Started {
			started++
		} else {
			said = cmp.Or(p.Reason, "does not try, and does not say why")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", p.Class, p.Worker, said)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if started == 0 {
		return fmt.Errorf("prove hardware: none of %d workers tries anything", len(all))
	}
	return nil
}
