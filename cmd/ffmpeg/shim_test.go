package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// built is the directory with the shim under both its names.
var built string

var realFFmpeg, realFFprobe string

func TestMain(m *testing.M) {
	if arena := os.Getenv(arenaVariable); arena != "" {
		os.Exit(writeUntilKilled(arena))
	}
	os.Exit(buildAndTest(m))
}

func buildAndTest(m *testing.M) int {
	// What nohup or a CI runner set to be ignored, children would inherit; a
	// handled signal is at its default after exec.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	dir, err := os.MkdirTemp("", "ffpod-shim-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built = dir
	build := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", filepath.Join(dir, "ffmpeg"), ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the shim: %v\n%s", err, out)
		return 1
	}
	if err := os.Symlink("ffmpeg", filepath.Join(dir, "ffprobe")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for name, path := range map[string]*string{"ffmpeg": &realFFmpeg, "ffprobe": &realFFprobe} {
		if *path, err = exec.LookPath(name); err != nil {
			fmt.Fprintf(os.Stderr, "%v: these tests need the real programs, install the package ffmpeg\n", err)
			return 1
		}
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// result is how a process ended.
type result struct {
	stdout, stderr string
	code           int
	signal         syscall.Signal // 0: it exited
	core           bool
}

// call is one process to start.
type call struct {
	program string // ffmpeg unless set; a path is taken as it is
	args    []string
	env     []string
	stdin   *os.File
	dir     string
	extra   []*os.File
}

func (c call) command() *exec.Cmd {
	program := c.program
	if program == "" {
		program = "ffmpeg"
	}
	if !strings.Contains(program, "/") {
		program = filepath.Join(built, program)
	}
	cmd := exec.Command(program, c.args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, c.env...)
	cmd.Dir = c.dir
	cmd.ExtraFiles = c.extra
	if c.stdin != nil {
		cmd.Stdin = c.stdin
	}
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// run runs it to the end.
func (c call) run(t *testing.T) result {
	t.Helper()
	cmd := c.command()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	err := cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return ended(cmd, stdout.String(), stderr.String())
}

func ended(cmd *exec.Cmd, stdout, stderr string) result {
	w := cmd.ProcessState.Sys().(syscall.WaitStatus)
	r := result{stdout: stdout, stderr: stderr, code: w.ExitStatus(), core: w.CoreDump()}
	if w.Signaled() {
		r.signal = w.Signal()
	}
	return r
}

// oneLine checks that the shim said exactly one line of its own, and nothing on
// stdout.
func (r result) oneLine(t *testing.T, words ...string) {
	t.Helper()
	if r.stdout != "" {
		t.Errorf("stdout is %q, want nothing", r.stdout)
	}
	if strings.Count(r.stderr, "\n") != 1 || !strings.HasSuffix(r.stderr, "\n") {
		t.Errorf("stderr is %q, want one line", r.stderr)
	}
	if !strings.Contains(r.stderr, ": ffpod: ") {
		t.Errorf("stderr is %q, want NAME: ffpod: ...", r.stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("stderr is %q, want %q in it", r.stderr, w)
		}
	}
}

// ours checks for ffpod's own failure.
func (r result) ours(t *testing.T, words ...string) {
	t.Helper()
	r.oneLine(t, words...)
	if r.code != 125 || r.signal != 0 {
		t.Errorf("code %d signal %d, want 125", r.code, r.signal)
	}
}
