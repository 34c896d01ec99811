package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ffpod/ffpod/test/e2e"
)

const (
	defaultWithin = 2 * time.Minute
	stepBound     = 90 * time.Second // one wait
	heldBound     = 5 * time.Second  // from the end of the process to the end of its pipes
)

// stage is a plan being run.
type stage struct {
	began time.Time

	mu     sync.Mutex
	cond   *sync.Cond
	came   int                  // runs at a Gather step
	living map[*os.Process]bool // to be killed when the suite goes away
	fork   sync.Mutex           // umask is the whole process's
}

// parent reads a Plan, runs it and writes the Results. The end of stdin before
// that means that nobody waits for them any more.
func parent() int {
	in := json.NewDecoder(os.Stdin)
	var plan e2e.Plan
	if err := in.Decode(&plan); err != nil {
		fmt.Fprintln(os.Stderr, "driver: plan:", err)
		return 2
	}
	s := &stage{began: time.Now(), living: map[*os.Process]bool{}}
	s.cond = sync.NewCond(&s.mu)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		s.abandon()
	}()
	most := plan.Parallel
	if most == 0 {
		most = len(plan.Runs)
	}
	slots := make(chan struct{}, most)
	results := make([]e2e.Result, len(plan.Runs))
	var all sync.WaitGroup
	for i, r := range plan.Runs {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			results[i] = s.run(r)
		})
	}
	all.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(results)
	return 0
}

func (s *stage) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for proc := range s.living {
		_ = proc.Kill()
	}
	os.Exit(3)
}

// acting is one run in progress.
type acting struct {
	stage *stage
	run   e2e.Run
	proc  *os.Process
	stdin *os.File // our end
	inMu  sync.Mutex
	outs  [2]*watcher

	mu      sync.Mutex
	problem error // the first
}

func (a *acting) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.problem == nil {
		a.problem = err
	}
	_ = a.proc.Kill()
}

func (s *stage) run(r e2e.Run) e2e.Result {
	result := e2e.Result{Code: -1, Started: time.Since(s.began)}
	log, err := os.CreateTemp("", "shim-*.log")
	if err != nil {
		result.Error = err.Error()
		return result
	}
	log.Close()
	defer os.Remove(log.Name())
	a := &acting{stage: s, run: r}
	if err := a.start(log.Name()); err != nil {
		result.Error = err.Error()
		return result
	}
	within := r.Within
	if within == 0 {
		within = defaultWithin
	}
	timer := time.AfterFunc(within, func() { a.fail(fmt.Errorf("the process did not end within %s", within)) })
	ended := make(chan struct{})
	var work sync.WaitGroup
	work.Go(a.feed)
	work.Go(func() { result.Steps = a.steps(ended) })

	state := a.wait()
	timer.Stop()
	close(ended)
	result.Ended = time.Since(s.began)
	for _, w := range a.outs {
		w.processGone()
	}
	a.closeStdin()
	work.Wait()
	for i, to := range []*e2e.Stream{&result.Stdout, &result.Stderr} {
		if *to, err = a.outs[i].result(); err != nil {
			a.fail(fmt.Errorf("read descriptor %d: %w", i+1, err))
		}
	}
	if state.Signaled() {
		result.Signal = state.Signal()
	} else {
		result.Code = state.ExitStatus()
	}
	if b, err := os.ReadFile(log.Name()); err == nil {
		result.Log = string(b)
	}
	if a.problem != nil {
		result.Error = a.problem.Error()
	}
	return result
}

func (a *acting) wait() syscall.WaitStatus {
	state, err := a.proc.Wait()
	a.stage.mu.Lock()
	delete(a.stage.living, a.proc)
	a.stage.mu.Unlock()
	if err != nil {
		a.fail(err)
		return 0
	}
	return state.Sys().(syscall.WaitStatus)
}

// start spawns the process with our pipes as its descriptors 0, 1 and 2.
func (a *acting) start(log string) error {
	r := a.run
	path := r.Path
	if path == "" {
		path = e2e.Shim
	}
	argv := []string{path}
	for _, arg := range r.Args {
		argv = append(argv, string(arg))
	}
	var theirs [3]*os.File
	defer func() {
		for _, f := range theirs {
			if f != nil {
				f.Close()
			}
		}
	}()
	if err := a.openStdin(&theirs[0]); err != nil {
		return err
	}
	for i, conf := range []e2e.Output{r.Stdout, r.Stderr} {
		ours, out, err := os.Pipe()
		if err != nil {
			return err
		}
		theirs[i+1], a.outs[i] = out, newWatcher(ours, conf)
	}
	dir := r.Dir
	if dir == "" {
		dir = e2e.Home
	}
	a.stage.fork.Lock()
	defer a.stage.fork.Unlock()
	if r.Umask != nil {
		defer syscall.Umask(syscall.Umask(*r.Umask))
	}
	proc, err := os.StartProcess(path, argv, &os.ProcAttr{
		Dir: dir, Files: theirs[:],
		Env: environment(os.Environ(), []string{"FFPOD_LOG=" + log}, r.Env),
	})
	if err != nil {
		return err
	}
	a.proc = proc
	a.stage.mu.Lock()
	a.stage.living[proc] = true
	a.stage.mu.Unlock()
	for _, w := range a.outs {
		go w.read()
	}
	return nil
}

// environment joins lists; a later value of a name replaces an earlier one.
func environment(lists ...[]string) (env []string) {
	at := map[string]int{}
	for _, v := range slices.Concat(lists...) {
		name, _, _ := strings.Cut(v, "=")
		if i, ok := at[name]; ok {
			env[i] = v
			continue
		}
		at[name] = len(env)
		env = append(env, v)
	}
	return env
}

func (a *acting) openStdin(theirs **os.File) (err error) {
	if a.run.Stdin == nil {
		*theirs, err = os.Open(os.DevNull)
		return err
	}
	*theirs, a.stdin, err = os.Pipe()
	return err
}

// feed writes what stdin is made of. A process that does not read it all is
// nothing to report: the process's own end is.
func (a *acting) feed() {
	in := a.run.Stdin
	if in == nil {
		return
	}
	_, err := a.stdin.Write(in.Text)
	if err == nil {
		_, err = io.Copy(struct{ io.Writer }{a.stdin}, in.Random.Reader())
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) {
		a.fail(fmt.Errorf("write stdin: %w", err))
	}
	if !in.Open {
		a.closeStdin()
	}
}

func (a *acting) closeStdin() {
	a.inMu.Lock()
	defer a.inMu.Unlock()
	if a.stdin != nil {
		a.stdin.Close()
	}
}

// steps does what is to be done and returns when each was.
func (a *acting) steps(ended chan struct{}) []time.Duration {
	var times []time.Duration
	for i, step := range a.run.Steps {
		if err := a.step(step, ended); err != nil {
			a.fail(fmt.Errorf("step %d: %w", i+1, err))
			break
		}
		times = append(times, time.Since(a.stage.began))
	}
	return times
}

func (a *acting) step(step e2e.Step, ended chan struct{}) error {
	switch {
	case step.Seen != nil:
		return a.outs[step.Seen.FD-1].wait(*step.Seen)
	case step.Signal != 0:
		return a.proc.Signal(step.Signal)
	case step.Write != nil:
		_, err := a.stdin.Write(step.Write)
		return err
	case step.CloseStdin:
		a.closeStdin()
	case step.Pause > 0:
		select {
		case <-time.After(step.Pause):
		case <-ended:
			return errors.New("the process ended during a pause")
		}
	case step.Gather > 0:
		return a.stage.gather(step.Gather, ended)
	case step.Release > 0:
		a.outs[step.Release-1].release()
	case step.File != "":
		return appears(step.File, ended)
	}
	return nil
}

func appears(file string, ended chan struct{}) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	bound := time.After(stepBound)
	for {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ended:
			return fmt.Errorf("the process ended before %s was there", file)
		case <-bound:
			return fmt.Errorf("%s was not there within %s", file, stepBound)
		}
	}
}

// gather waits until n runs are here: all of them run at the same time.
func (s *stage) gather(n int, ended chan struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.came++
	s.cond.Broadcast()
	late := false
	timer := time.AfterFunc(stepBound, func() { s.mu.Lock(); late = true; s.mu.Unlock(); s.cond.Broadcast() })
	defer timer.Stop()
	for s.came < n && !late {
		s.cond.Wait()
	}
	select {
	case <-ended:
		return errors.New("the process ended before all had gathered")
	default:
	}
	if s.came < n {
		return fmt.Errorf("%d of %d runs gathered within %s", s.came, n, stepBound)
	}
	return nil
}
