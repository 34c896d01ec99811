package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ffpod/ffpod/scheduler/api"
)

func newStatus() *cobra.Command {
	var asJSON bool
	var output string
	var show view
	c := &cobra.Command{
		Use:   "status [-n NAMESPACE] [-o json] [--flaws]",
		Short: "Tell what the scheduler does: classes, workers, what runs, what waits and why, what failed",
		Long: "Status asks the scheduler over a port-forward to its pod's loopback address, so it needs pods/portforward there.\n" +
			"It tells no command line and no path of any session. Of each GPU it tells whether it works and, in ffmpeg's\n" +
			"words, what does not. In a narrow terminal it leaves columns out; -o json holds everything.",
		Args: usage(cobra.NoArgs),
	}
	open := clusterFlags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "the same as -o json")
	c.Flags().StringVarP(&output, "output", "o", "text", "text, or json: everything")
	c.Flags().IntVar(&show.recent, "recent", 10, "at most so many recent failures, and so many sessions that their callers were told to run")
	c.Flags().BoolVar(&show.flaws, "flaws", false, "tell also what ffmpeg lists of hardware that no class asks for, and name everything that failed")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if output != "text" && output != "json" {
			return &usageError{err: fmt.Errorf("--output %s: it is text or json", output)}
		}
		on, err := open()
		if err != nil {
			return err
		}
		s, err := on.Status(c.Context())
		if err != nil {
			return err
		}
		if asJSON || output == "json" {
			out := json.NewEncoder(c.OutOrStdout())
			out.SetIndent("", "  ")
			return out.Encode(s)
		}
		show.narrow = narrow(c.OutOrStdout())
		return printStatus(c.OutOrStdout(), s, show)
	}
	return c
}

// view is what a person wants to see.
type view struct {
	recent int  // failures, and sessions that ran elsewhere, at most
	flaws  bool // all of them
	narrow bool // leave columns out
}

// wide is the least number of columns of a terminal that holds a whole table.
const wide = 110

// narrow tells whether the writer is a terminal that does not hold a whole table.
func narrow(w io.Writer) bool {
	f, is := w.(*os.File)
	if !is {
		return false
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	return err == nil && columns < wide
}

// printStatus writes it for a person.
func printStatus(w io.Writer, s api.Status, show view) error {
	var b strings.Builder
	fmt.Fprintf(&b, "scheduler %s/%s %s, for %s\n", s.Namespace, s.Pod, s.Version, span(s.Began, s.Time))
	for _, why := range s.NotReady {
		fmt.Fprintf(&b, "  not ready: %s\n", why)
	}
	for _, why := range s.Policies {
		fmt.Fprintf(&b, "  admission policy not in force: %s\n", why)
	}
	printClasses(&b, s, show)
	section(&b, show, "WORKER\tCLASS\t~NODE\tSLOTS USED\tSTATE\tGPU\t~LOAD\t~FFMPEG", s.Workers, func(x api.Worker) []string {
		return []string{x.Pod, x.Class, cmp.Or(x.Node, "-"), used(x), x.Role + ", " + state(x), verdict(x, classOf(s, x.Class)), load(x.Load), cmp.Or(x.FFmpeg, "-")}
	})
	printHardware(&b, s, show)
	section(&b, show, "RUNS\tKIND\t~CALLER\tWORKER\t~NODE\tSTATE\tFOR", pick(s, api.Session.Runs, -1), func(x api.Session) []string {
		state := x.State
		if x.Paused {
			state = "paused"
		}
		return []string{x.ID, x.Kind, x.CallerPod, cmp.Or(x.Pod, "a Job of "+x.Class), cmp.Or(x.Node, "-"), state, span(latest(x.Asked, x.Started), s.Time)}
	})
	section(&b, show, "WAITS\tPLACE\tKIND\t~CALLER\tFOR\tREASON", pick(s, api.Session.Waits, -1), func(x api.Session) []string {
		place := "-" // of a scheduler that does not tell it
		if x.Position > 0 {
			place = strconv.Itoa(x.Position)
		}
		return []string{x.ID, place, x.Kind, x.CallerPod, span(x.Asked, s.Time), cmp.Or(x.Reason, "-")}
	})
	section(&b, show, "FAILED\tKIND\t~CALLER\tWORKER\tAGO\tHOW", pick(s, func(x api.Session) bool { return x.Failed }, show.recent), func(x api.Session) []string {
		return []string{x.ID, x.Kind, x.CallerPod, cmp.Or(x.Pod, "-"), span(x.Ended, s.Time), ended(x)}
	})
	section(&b, show, "SENT BACK\tKIND\t~CALLER\tAGO\tWHY", pick(s, func(x api.Session) bool { return x.Local }, show.recent), func(x api.Session) []string {
		return []string{x.ID, x.Kind, x.CallerPod, span(x.Ended, s.Time), strings.TrimPrefix(ended(x), "refused: ")}
	})
	_, err := io.WriteString(w, b.String())
	return err
}

func printClasses(w io.Writer, s api.Status, show view) {
	section(w, show, "CLASS\tWARM\tSLOTS USED\tSTANDBY\tJOBS\t~SCALE\t~KINDS\tPROBLEM", s.Classes, func(c api.Class) []string {
		ready, standby, slots, used := 0, 0, 0, 0
		for _, x := range s.Workers {
			switch {
			case x.Class != c.Name:
			case x.Role == "standby":
				standby++
			case x.Role == "warm":
				slots, used = slots+x.Slots, used+x.Used
				if x.Ready {
					ready++
				}
			}
		}
		return []string{c.Name, fmt.Sprintf("%d/%d", ready, c.Replicas), fmt.Sprintf("%d/%d", used, slots), between(standby, c.Standby),
			fmt.Sprintf("%d/%d", c.ActiveJobs, c.Jobs), bounds(c.Scale), cmp.Or(strings.Join(c.Kinds, ","), "all"), cmp.Or(problem(c), "-")}
	})
}

// problem is what is wrong with a class, in its own words and in Kubernetes'.
func problem(c api.Class) string {
	words := strings.Join(c.Problems, "; ")
	if !c.Usable {
		words = "UNUSABLE: " + words
	}
	if c.Unable != "" {
		words = strings.TrimPrefix(words+"; ", "; ") + "Kubernetes does not run its pods: " + c.Unable
	}
	return words
}

// section writes a table, or nothing when it is empty. Columns whose head begins
// with ~ are left out where there is no room.
func section[T any](w io.Writer, show view, head string, rows []T, row func(T) []string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintln(w)
	heads := strings.Split(head, "\t")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells []string) {
		var kept []string
		for i, cell := range cells {
			if !show.narrow || !strings.HasPrefix(heads[i], "~") {
				kept = append(kept, cell)
			}
		}
		fmt.Fprintln(t, strings.Join(kept, "\t"))
	}
	line(strings.Split(strings.ReplaceAll(head, "~", ""), "\t"))
	for _, r := range rows {
		line(row(r))
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
