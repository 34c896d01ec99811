package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/ffpod/ffpod/test/e2e"
)

// child does what it is told, and returns the code to exit with.
func child(c e2e.Child) int {
	caught := make(chan os.Signal, 8)
	for _, n := range c.Catch {
		signal.Notify(caught, syscall.Signal(n))
	}
	for _, n := range c.Ignore {
		signal.Ignore(syscall.Signal(n))
	}
	for _, n := range c.Default {
		standard(syscall.Signal(n))
	}
	if c.Ready {
		fmt.Fprintln(os.Stderr, "ready")
	}
	done := make(chan int, 1)
	go func() { done <- work(c) }()
	select {
	case s := <-caught:
		fmt.Fprintln(os.Stderr, "caught", int(s.(syscall.Signal)))
		return e2e.CaughtCode + int(s.(syscall.Signal))
	case code := <-done:
		return code
	}
}

func work(c e2e.Child) int {
	answered := make(chan struct{})
	if c.Answer {
		go func() { defer close(answered); answer() }()
	}
	if c.Tell {
		_ = json.NewEncoder(os.Stdout).Encode(told())
	}
	var floods sync.WaitGroup
	floods.Go(func() { flood(os.Stdout, c.Stdout) })
	floods.Go(func() { flood(os.Stderr, c.Stderr) })
	floods.Wait()
	if c.Echo {
		if _, err := io.Copy(struct{ io.Writer }{os.Stdout}, struct{ io.Reader }{os.Stdin}); err != nil {
			fmt.Fprintln(os.Stderr, "echo:", err)
			return 99
		}
	}
	if c.Stay {
		if c.Answer {
			<-answered
		} else {
			stay()
		}
	}
	if c.Die != 0 {
		die(syscall.Signal(c.Die))
	}
	return c.Code
}

// flood ends the process like any other program when nobody reads: by SIGPIPE.
func flood(w io.Writer, f e2e.Flood) {
	buf := make([]byte, 128<<10)
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, f.Reader(), buf); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(98)
	}
}

func answer() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Fprintf(os.Stderr, "answer %s\n", lines.Text())
	}
}

func told() e2e.Told {
	args := e2e.Args(os.Args[1:]...)
	t := e2e.Told{Count: len(args), SHA: e2e.SumArgs(args), Env: os.Environ(), UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid()}
	size := 0
	for _, a := range args {
		size += len(a)
	}
	if size < e2e.HeadBytes/4 {
		t.Args = args
	}
	t.Dir, _ = syscall.Getwd()
	t.Umask = syscall.Umask(0)
	syscall.Umask(t.Umask)
	for i, v := range t.Env { // JSON holds text only
		t.Env[i] = strings.ToValidUTF8(v, "?")
	}
	return t
}

// standard gives a signal its default action. Go's runtime handles most signals
// itself, so it is done behind its back.
func standard(s syscall.Signal) {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	var action [32]byte // struct kernel_sigaction: SIG_DFL, no flags, empty mask
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}

// die ends the process by a signal's default action.
func die(s syscall.Signal) {
	runtime.LockOSThread()
	standard(s)
	mask := uint64(1) << (uint(s) - 1)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 1 /* SIG_UNBLOCK */, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(syscall.Getpid()), uintptr(syscall.Gettid()), uintptr(s))
	stay() // the signal is not deadly: the parent's bound tells
}

// stay never returns. To the runtime, select {} would be a deadlock.
func stay() {
	for {
		time.Sleep(time.Hour)
	}
}
