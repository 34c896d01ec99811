package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ffpod/ffpod/scheduler/api"
)

func newStatus() *cobra.Command {
	var asJSON bool
	var recent int
	c := &cobra.Command{
		Use:   "status [-n NAMESPACE] [--json]",
		Short: "Tell what the scheduler does: classes, workers, what runs, what waits and why, what failed",
		Long: "Status asks the scheduler over a port-forward to its pod's loopback address, so it needs pods/portforward there.\n" +
			"It tells no command line and no path of any session.",
		Args: usage(cobra.NoArgs),
	}
	open := clusterFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print everything, as JSON")
	c.Flags().IntVar(&recent, "recent", 10, "at most so many recent failures")
	c.RunE = func(c *cobra.Command, _ []string) error {
		on, err := open()
		if err != nil {
			return err
		}
		s, err := on.Status(c.Context())
		if err != nil {
			return err
		}
		if asJSON {
			out := json.NewEncoder(c.OutOrStdout())
			out.SetIndent("", "  ")
			return out.Encode(s)
		}
		return printStatus(c.OutOrStdout(), s, recent)
	}
	return c
}

// printStatus writes it for a person.
func printStatus(w io.Writer, s api.Status, recent int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "scheduler %s/%s %s, for %s\n", s.Namespace, s.Pod, s.Version, span(s.Began, s.Time))
	for _, why := range s.NotReady {
		fmt.Fprintf(&b, "  not ready: %s\n", why)
	}
	for _, why := range s.Policies {
		fmt.Fprintf(&b, "  admission policy not in force: %s\n", why)
	}
	section(&b, "CLASS\tWARM\tSLOTS USED\tJOBS\tKINDS\tPROBLEM", s.Classes, func(c api.Class) string {
		ready, slots, used := 0, 0, 0
		for _, x := range s.Workers {
			if x.Class != c.Name || x.Role != "warm" {
				continue
			}
			slots, used = slots+x.Slots, used+x.Used
			if x.Ready {
				ready++
			}
		}
		problem := strings.Join(c.Problems, "; ")
		if !c.Usable {
			problem = "UNUSABLE: " + problem
		}
		return fmt.Sprintf("%s\t%d/%d\t%d/%d\t%d/%d\t%s\t%s", c.Name, ready, c.Replicas, used, slots, c.ActiveJobs, c.Jobs,
			cmp.Or(strings.Join(c.Kinds, ","), "all"), cmp.Or(problem, "-"))
	})
	section(&b, "WORKER\tCLASS\tNODE\tSLOTS USED\tSTATE\tFFMPEG", s.Workers, func(x api.Worker) string {
		state := "ready"
		if x.Draining {
			state = "draining"
		} else if !x.Ready {
			state = "silent"
		}
		return fmt.Sprintf("%s\t%s\t%s\t%d/%d\t%s, %s\t%s", x.Pod, x.Class, cmp.Or(x.Node, "-"), x.Used, x.Slots, x.Role, state, cmp.Or(x.FFmpeg, "-"))
	})
	section(&b, "RUNS\tKIND\tCALLER\tWORKER\tNODE\tSTATE\tFOR", pick(s, api.Session.Runs, -1), func(x api.Session) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", x.ID, x.Kind, x.CallerPod, cmp.Or(x.Pod, "a Job of "+x.Class), cmp.Or(x.Node, "-"), x.State,
			span(latest(x.Asked, x.Started), s.Time))
	})
	section(&b, "WAITS\tKIND\tCALLER\tFOR\tREASON", pick(s, api.Session.Waits, -1), func(x api.Session) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s", x.ID, x.Kind, x.CallerPod, span(x.Asked, s.Time), cmp.Or(x.Reason, "-"))
	})
	section(&b, "FAILED\tKIND\tCALLER\tWORKER\tAGO\tHOW", pick(s, func(x api.Session) bool { return x.Failed }, recent), func(x api.Session) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", x.ID, x.Kind, x.CallerPod, cmp.Or(x.Pod, "-"), span(x.Ended, s.Time), ended(x))
	})
	_, err := io.WriteString(w, b.String())
	return err
}

// section writes a table, or nothing when it is empty.
func section[T any](w io.Writer, head string, rows []T, row func(T) string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, head)
	for _, r := range rows {
		fmt.Fprintln(t, row(r))
	}
	_ = t.Flush() // into memory
}

// pick returns the first n sessions of a sort, all when n is negative.
func pick(s api.Status, of func(api.Session) bool, n int) []api.Session {
	var out []api.Session
	for _, x := range s.Sessions {
		if of(x) && (n < 0 || len(out) < n) {
			out = append(out, x)
		}
	}
	return out
}

// ended words how a session ended.
func ended(x api.Session) string {
	how := x.State
	if e := x.Exit; e != nil {
		switch {
		case x.State == "ended" && e.Signal != 0:
			how = fmt.Sprintf("signal %d", e.Signal)
		case x.State == "ended":
			how = fmt.Sprintf("exit %d", e.Code)
		}
		if e.Cause != "" {
			how += ": " + e.Cause
		}
	}
	return how
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// span words a time that has passed.
func span(from, to time.Time) string {
	d := to.Sub(from)
	switch {
	case from.IsZero() || d < 0:
		return "-"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
