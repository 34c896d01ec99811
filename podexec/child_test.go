package podexec

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary is its own child: with CHILD set it behaves as its arguments
// say, so that any behaviour of a process is there on demand.
func TestMain(m *testing.M) {
	if os.Getenv("CHILD") != "" {
		child(os.Args[1:])
		os.Exit(0)
	}
	heedSignals()
	goleak.VerifyTestMain(m)
}

// heedSignals takes back what nohup or a CI runner set to be ignored: children
// would inherit it. A handled signal is at its default after exec.
func heedSignals() {
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}

func child(args []string) {
	switch args[0] {
	case "exit":
		code, _ := strconv.Atoi(args[1])
		fmt.Fprint(os.Stdout, "out")
		fmt.Fprint(os.Stderr, "err")
		os.Exit(code)
	case "die": // by a signal, without Go's handlers
		n, _ := strconv.Atoi(args[1])
		_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
		_ = syscall.Exec("/bin/sh", []string{"sh", "-c", fmt.Sprintf("kill -%d $$; sleep 60", n)}, nil)
	case "cat":
		_, _ = io.Copy(os.Stdout, os.Stdin)
	case "args":
		_ = json.NewEncoder(os.Stdout).Encode(args[1:])
	case "state":
		dir, _ := os.Getwd()
		mask := syscall.Umask(0)
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"dir": dir, "umask": mask, "env": os.Environ(), "pgid": syscall.Getpgrp(), "pid": os.Getpid()})
	case "flood": // bytes seed: pseudo-random stdout
		n, _ := strconv.ParseInt(args[1], 10, 64)
		_, _ = io.Copy(os.Stdout, io.LimitReader(noise(args[2]), n))
	case "zeros":
		n, _ := strconv.ParseInt(args[1], 10, 64)
		for b := make([]byte, 1<<16); n > 0; n -= int64(len(b)) {
			_, _ = os.Stdout.Write(b)
		}
	case "forever":
		fmt.Fprintln(os.Stderr, "ready")
		w := bufio.NewWriterSize(os.Stdout, 1<<16)
		for {
			if _, err := w.Write(make([]byte, 1<<15)); err != nil {
				fmt.Fprintln(os.Stderr, "write:", err)
				os.Exit(3)
			}
		}
	case "key": // prints the first byte of stdin, while stdout may be stuck
		go func() { _, _ = io.Copy(os.Stdout, noise("1")) }()
		b := make([]byte, 1)
		_, _ = os.Stdin.Read(b)
		fmt.Fprintf(os.Stderr, "got %s", b)
		os.Exit(7)
	case "signals":
		got := make(chan os.Signal, 8)
		signal.Notify(got)
		fmt.Fprintln(os.Stderr, "ready")
		for s := range got {
			if s != syscall.SIGURG { // the Go runtime's own
				fmt.Fprintln(os.Stderr, s)
				os.Exit(9)
			}
		}
	case "counts": // USR1 until TERM, and exits with how many came
		got := make(chan os.Signal, 8)
		signal.Notify(got, syscall.SIGUSR1, syscall.SIGTERM)
		fmt.Fprintln(os.Stderr, "ready")
		n := 0
		for s := range got {
			if s == syscall.SIGTERM {
				os.Exit(n)
			}
			n++
			fmt.Fprintln(os.Stderr, n)
		}
	case "sleep":
		fmt.Fprintln(os.Stderr, "ready")
		time.Sleep(time.Hour)
	case "stray", "holder": // leaves a process of another group with our pipes
		cmd := exec.Command("/bin/sleep", args[1])
		if args[0] == "holder" {
			cmd.Env = []string{} // nothing tells whose it is
		}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		_ = cmd.Start()
		fmt.Fprint(os.Stdout, cmd.Process.Pid)
	case "brood": // leaves a process in our group
		cmd := exec.Command("/bin/sleep", "3600")
		_ = cmd.Start()
		fmt.Fprint(os.Stdout, cmd.Process.Pid)
	case "closein": // reads one line, closes stdin, waits for more time
		line, _ := bufio.NewReaderSize(os.Stdin, 16).ReadString('\n')
		os.Stdin.Close()
		fmt.Fprint(os.Stderr, strings.TrimSpace(line))
		time.Sleep(200 * time.Millisecond)
	default:
		fmt.Fprintln(os.Stderr, "child: unknown", args)
		os.Exit(99)
	}
}

// noise is an endless, cheap, reproducible stream.
func noise(seed string) io.Reader {
	var key [32]byte
	copy(key[:], seed)
	return rand.NewChaCha8(key)
}
