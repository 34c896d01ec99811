// Command bench measures what ffpod costs, on the cluster of KUBECONFIG with the
// demo deployed. Every figure stands beside its baseline, measured in the same run
// and in turn with it (A B, B A, A B, ...): on a shared machine absolute times
// drift, pairs do not.
//
//	bench -o out/bench.json [-quick] [-only REGEXP] [-v]
//
// It prints a table and writes a flat JSON object of numbers: KEY, KEY_baseline,
// KEY_ours and KEY_n for each row. A missed goal is a figure, not a failure; the
// exit is 1 only when something could not be measured.
//
// Three things take part:
//
//	bench (here) ── exec ── inside (client pod): runs local ffmpeg and the shim, and times them
//	     ├───────── exec ── worker pod: raw exec as baseline, a channel of bench's own
//	     └───────── /proc, where the workers' processes are on this machine: deaths, CPU time
//
// Times that two of them take part in (a Job's and a pod's first byte, a kill)
// need one clock, so they mean something only where client, node and bench are
// one machine, as with test/cluster.
//
// Not measured here yet: standby workers, resume after a restart, a thousand
// live sessions.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// sizes are how often each thing is measured.
type sizes struct {
	tiny, local, warm, exec, echo, jobs, kills, segments, floods, frames int
}

var (
	full  = sizes{tiny: 300, local: 60, warm: 80, exec: 60, echo: 1000, jobs: 10, kills: 100, segments: 15, floods: 5, frames: 173}
	quick = sizes{tiny: 100, local: 20, warm: 20, exec: 20, echo: 300, jobs: 3, kills: 20, segments: 5, floods: 3, frames: 86}
)

// section is what is measured together.
type section struct {
	name    string
	usually [2]string // how long it takes: full, quick
	measure func(context.Context, *bench) ([]row, error)
}

var sections = []section{
	{"local decision", [2]string{"20 s", "5 s"}, measureLocal},
	{"warm start", [2]string{"45 s", "15 s"}, measureWarm},
	{"channel", [2]string{"10 s", "5 s"}, measureChannel},
	{"job start", [2]string{"60 s", "20 s"}, measureJob},
	{"first segment", [2]string{"60 s", "20 s"}, measureSegment},
	{"stdout throughput", [2]string{"120 s", "30 s"}, measureThroughput},
	{"kill", [2]string{"45 s", "10 s"}, measureKill},
}

// bench is what every section uses.
type bench struct {
	*cluster
	n       sizes
	verbose io.Writer // where details go, io.Discard without -v
}

func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	out := flags.String("o", "out/bench.json", "the flat JSON object of figures")
	short := flags.Bool("quick", false, "fewer rounds: 2 minutes instead of 6")
	only := flags.String("only", "", "only sections whose name this regular expression matches")
	namespace := flags.String("namespace", "ffpod-demo", "where kustomize/overlays/demo is deployed")
	verbose := flags.Bool("v", false, "print details: CPU time by part")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	wanted, err := regexp.Compile(*only)
	if err != nil || flags.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "bench: -only wants a regular expression, and there are no other arguments:", errors.Join(err, nil))
		return 2
	}
	b := &bench{n: full, verbose: io.Discard}
	if *short {
		b.n = quick
	}
	if *verbose {
		b.verbose = os.Stdout
	}
	klog.SetLogger(logr.Discard()) // client-go calls every exec that is cut short an error
	if err := b.all(ctx, *namespace, wanted, *short, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// all measures every wanted section, also when one of them fails, and reports.
func (b *bench) all(ctx context.Context, namespace string, wanted *regexp.Regexp, short bool, out string) error {
	began := time.Now()
	c, err := prepare(ctx, namespace)
	if err != nil {
		return err
	}
	defer c.close()
	b.cluster = c
	m := observe(ctx, c)
	m.print(os.Stdout)
	var rows []row
	var problems []error
	for _, s := range sections {
		if !wanted.MatchString(s.name) || ctx.Err() != nil {
			continue
		}
		usual := s.usually[0]
		if short {
			usual = s.usually[1]
		}
		fmt.Printf("  %-20s (usually %5s) ", s.name, usual)
		start := time.Now()
		got, err := s.measure(ctx, b)
		rows = append(rows, got...)
		if err != nil {
			fmt.Printf(" not measured: %v\n", err)
			problems = append(problems, fmt.Errorf("%s: %w", s.name, err))
			continue
		}
		fmt.Printf(" %.0f s\n", time.Since(start).Seconds())
	}
	printTable(os.Stdout, rows)
	if ctx.Err() != nil { // the figures of an earlier run are worth more than half of this one
		return fmt.Errorf("interrupted; %s is as it was", out)
	}
	if err := writeFigures(out, figures(rows, m, time.Since(began))); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}
