package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	good, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	seed      uint64
	faults    int
	out, lock string
	tag       string
	only      *regexp.Regexp
	planOnly  bool
	table     string
	verbose   bool
	keep      bool
	parallel  int
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.Uint64Var(&o.seed, "seed", 1, "of the plan: same seed, same plan")
	flags.IntVar(&o.faults, "faults", 48, "how many to inject")
	flags.StringVar(&o.out, "o", "out/chaos.json", "report, written anew after each scene; logs of bad scenes go beside it")
	only := flags.String("only", "", "regexp: only the faults whose name matches")
	flags.BoolVar(&o.planOnly, "plan", false, "print the plan and do nothing")
	flags.StringVar(&o.table, "table", "", "print this report as the tables of docs/reliability.md and do nothing")
	flags.BoolVar(&o.verbose, "v", false, "print every session")
	flags.BoolVar(&o.keep, "keep", false, "use the install of an earlier run, and leave it")
	flags.IntVar(&o.parallel, "parallel", 6, "most scenes of one session at a time")
	flags.StringVar(&o.tag, "tag", "dev", "of the images, loaded before; see images/build")
	flags.StringVar(&o.lock, "lock", "", "file to flock, shared, or exclusively while the cluster is broken: for a cluster that others use")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	o.only, err = regexp.Compile(*only)
	if err == nil && (flags.NArg() > 0 || o.faults < 1 || o.parallel < 1) {
		err = fmt.Errorf("arguments %q, -faults %d, -parallel %d: want none, and at least 1", flags.Args(), o.faults, o.parallel)
	}
	return o, err
}

// again is the command that plays the same scenes.
func (o options) again() string {
	text := fmt.Sprintf("go run ./test/chaos -seed %d -faults %d", o.seed, o.faults)
	if only := o.only.String(); only != "" {
		text += fmt.Sprintf(" -only '%s'", only)
	}
	return text
}

// chosen are the faults of a run.
func (o options) chosen() (all []fault) {
	for _, f := range faults() {
		if o.only.MatchString(f.name) {
			all = append(all, f)
		}
	}
	return all
}

func run(ctx context.Context, args []string) (good bool, err error) {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if o.table != "" {
		return true, table(os.Stdout, o.table)
	}
	scenes := plan(o.seed, o.faults, o.chosen())
	if len(scenes) == 0 {
		return false, fmt.Errorf("-only %s matches no fault", o.only)
	}
	if o.planOnly {
		for _, s := range scenes {
			fmt.Println(s)
		}
		return true, nil
	}
	if os.Geteuid() != 0 {
		return false, errors.New("entering pods and breaking networks needs root; run this as root")
	}
	dir, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	kubeconfig := filepath.Join(stateDir, "kubeconfig")
	w, err := connect(kubeconfig, dir)
	if err != nil {
		return false, err
	}
	w.tag = o.tag
	b := &book{path: o.out, began: time.Now(), Report: Report{
		Seed: o.seed, Planned: len(scenes), Began: time.Now().Format(time.RFC3339),
		Command: o.again(),
	}}
	g := &stage{world: w, book: b, logs: strings.TrimSuffix(o.out, ".json") + "-logs"}
	if err := g.perform(ctx, o, scenes); err != nil {
		b.print(os.Stdout)
		return false, err
	}
	b.print(os.Stdout)
	return b.good(), nil
}

// perform installs, plays every scene and removes the install.
func (g *stage) perform(ctx context.Context, o options, scenes []scene) error {
	w := g.world
	release, err := hold(o.lock, syscall.LOCK_SH)
	if err != nil {
		return err
	}
	if o.keep && w.usable(ctx) {
		w.command, err = w.build(ctx, "cluster", "github.com/ffpod/ffpod/test/cluster")
		if err == nil {
			err = w.furnish(ctx)
		}
	} else {
		err = w.install(ctx)
	}
	w.versions(&g.book.Report)
	release()
	if err == nil {
		err = g.playAll(ctx, o, scenes)
	}
	if o.keep {
		say("-keep: namespace %s stays", namespace)
		return err
	}
	return errors.Join(err, w.uninstall(context.WithoutCancel(ctx)))
}

// playAll plays scenes of one session side by side, the others alone.
func (g *stage) playAll(ctx context.Context, o options, scenes []scene) error {
	for len(scenes) > 0 && ctx.Err() == nil {
		n := 0
		for n < len(scenes) && find(scenes[n].Fault).scope == ofSession {
			n++
		}
		var err error
		if n > 0 {
			err = g.playSideBySide(ctx, o, scenes[:n])
		} else {
			n, err = 1, g.playAlone(ctx, o, scenes[0])
		}
		if err != nil {
			return err
		}
		scenes = scenes[n:]
	}
	return context.Cause(ctx)
}

func (g *stage) playSideBySide(ctx context.Context, o options, scenes []scene) error {
	release, err := hold(o.lock, syscall.LOCK_SH)
	if err != nil {
		return err
	}
	defer release()
	slots, errs := make(chan struct{}, o.parallel), make(chan error, len(scenes))
	var group sync.WaitGroup
	for _, sc := range scenes {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() == nil {
				errs <- g.enter(o, g.play(ctx, sc))
			}
		})
	}
	group.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

func (g *stage) playAlone(ctx context.Context, o options, sc scene) error {
	how := syscall.LOCK_SH
	if find(sc.Fault).scope == ofCluster {
		how = syscall.LOCK_EX
	}
	release, err := hold(o.lock, how)
	if err != nil {
		return err
	}
	defer release()
	played := g.play(ctx, sc)
	again := time.Now()
	err = g.world.served(ctx, sc.Number)
	played.ServiceMs = ms(time.Since(again))
	return errors.Join(g.enter(o, played), err)
}

const few = 5 // bad sessions of a scene that are shown; the report has all

// enter writes a scene down and shows it.
func (g *stage) enter(o options, s Scene) error {
	sums, shown := map[verdict]int{}, 0
	for _, x := range s.Sessions {
		sums[x.Verdict]++
		if o.verbose || x.Broken != "" && shown < few {
			shown++
			say("     %-8s %-8s %-7s %-11s gap %5d resume %5d kill %4d ms %s %s %s %s",
				x.Kind, x.Moment, x.Verdict, x.Exit, x.GapMs, x.ResumeMs, x.KillMs, x.Broken, x.Missed, x.Why, x.Said)
		}
	}
	text := fmt.Sprintf("%4d %-26s %5d ms", s.Number, s.Fault, s.FaultMs)
	for _, v := range []verdict{exact, failed, killed, lie, hang} {
		if sums[v] > 0 {
			text += fmt.Sprintf("  %s %d", v, sums[v])
		}
	}
	for _, line := range append(append([]string{}, s.Orphans...), s.Overlaps...) {
		text += "\n       left or overlapping: " + line
	}
	if s.Undone != "" {
		text += "  NOT INJECTED: " + s.Undone
	}
	say("%s", text)
	return g.book.add(s)
}

// hold takes a lock that other users of the cluster honour.
func hold(path string, how int) (release func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// usable says whether an earlier run's install is still there, of the same images.
func (w *world) usable(ctx context.Context) bool {
	d, err := w.set.AppsV1().Deployments(namespace).Get(ctx, "ffpod-scheduler", metav1.GetOptions{})
	return err == nil && strings.HasSuffix(d.Spec.Template.Spec.Containers[0].Image, ":"+w.tag) && w.deployed(ctx)
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
