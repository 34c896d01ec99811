package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test binary is also every process that the tests need: what it does is its
// first argument after "registry-test".
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "registry-test" {
		os.Exit(act(os.Args[2], os.Args[3:]))
	}
	goleak.VerifyTestMain(m)
}

func act(what string, args []string) int {
	var err error
	switch what {
	case "local": // DIR KEY PROGRAM ARGS...: become it
		err = actLocal(args[0], args[1], args[2:])
	case "remote": // DIR KEY SESSION: a shim with a session on a worker
		err = actRemote(args[0], args[1], args[2])
	case "write": // ARENA: write until killed
		err = actWrite(args[0], func() {})
	case "work": // TOP: the same on a worker, with the door open as 3
		err = actWork(args[0])
	case "mounted": // OPTIONS DIR TEST: one test on a file system of its own
		err = actMounted(args[0], args[1], args[2])
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func self(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{"registry-test"}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

func actLocal(dir, key string, program []string) error {
	r, err := openOne(dir)
	if err != nil {
		return err
	}
	wait := 30 * time.Second
	if w := os.Getenv("WAIT"); w != "" {
		wait, _ = time.ParseDuration(w)
	}
	if err := r.Local(context.Background(), Local{Keys: []string{key}, Wait: wait, Clear: clearAll(filepath.Dir(dir))}); err != nil {
		return err
	}
	return syscall.Exec(program[0], program, os.Environ())
}

// clearAll is the scheduler of the tests: it kills whatever runs remotely, whose
// pids are in a directory, and returns when it is dead. One at a time: the door.
func clearAll(top string) func(context.Context, []string) error {
	if _, err := os.Stat(top + "/workers"); err != nil {
		return nil
	}
	return func(context.Context, []string) error {
		door, err := openDoor(top)
		if err != nil {
			return err
		}
		defer door.Close()
		return killWorkers(top)
	}
}

func openDoor(top string) (*os.File, error) {
	door, err := os.OpenFile(top+"/door", os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = unix.Flock(int(door.Fd()), unix.LOCK_EX)
	}
	return door, err
}

func killWorkers(top string) error {
	list, err := os.ReadDir(top + "/workers")
	for _, e := range list {
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil {
			return err
		}
		_ = unix.Kill(pid, unix.SIGKILL)
		for alive(pid) {
			time.Sleep(time.Millisecond)
		}
		_ = os.Remove(top + "/workers/" + e.Name())
	}
	return err
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil && !zombie(pid) }

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	if !strings.HasPrefix(rest, "Z") {
		return false
	}
	// The first thread may be a zombie before the others have let go of the files.
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return err != nil || len(threads) <= 1
}

// actRemote is a shim: its ffmpeg is another process, which outlives it.
func actRemote(dir, key, session string) error {
	r, err := openOne(dir)
	if err != nil {
		return err
	}
	h, err := r.Remote(context.Background(), Remote{Keys: []string{key}, Session: session, Wait: 30 * time.Second})
	if err != nil {
		return err
	}
	top := filepath.Dir(dir)
	door, err := openDoor(top)
	if err != nil {
		return err
	}
	if err := killWorkers(top); err != nil {
		return err
	}
	if err := h.Placed("worker-1", time.Hour); err != nil {
		return err
	}
	// A worker's process is nobody's child here, and has entered before the door opens.
	worker := exec.Command("/bin/sh", "-c", `"$0" registry-test work "$1" >/dev/null 2>&1 & echo $!`, exe(), top)
	worker.ExtraFiles = []*os.File{door}
	out, err := worker.Output()
	if err != nil {
		return fmt.Errorf("start a worker: %w", err)
	}
	_ = door.Close()
	var pid int
	if _, err := fmt.Sscan(string(out), &pid); err != nil {
		return err
	}
	if door, err = openDoor(top); err != nil {
		return err
	}
	_ = door.Close()
	fmt.Println("started")
	for alive(pid) {
		time.Sleep(time.Millisecond)
	}
	h.Ended()
	return nil
}

// actWork is ffmpeg on a worker: it is known before it writes.
func actWork(top string) error {
	if err := os.WriteFile(fmt.Sprint(top, "/workers/", os.Getpid()), nil, 0o600); err != nil {
		return err
	}
	return actWrite(top+"/arena", func() { _ = unix.Close(3) })
}

func exe() string {
	name, err := os.Readlink("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	return name
}

// actWrite is ffmpeg: nobody else may be in the arena.
func actWrite(arena string, entered func()) error {
	fd, err := unix.Open(arena, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = os.WriteFile(arena+".overlap", fmt.Appendf(nil, "process %d: %v\n", os.Getpid(), err), 0o600)
		return errors.New("two writers overlap")
	}
	log, err := unix.Open(arena+".log", unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, _ = unix.Write(log, fmt.Appendf(nil, "%d\n", os.Getpid()))
	fmt.Println("writing")
	entered()
	time.Sleep(time.Minute)
	return nil
}

// actMounted runs one function on a tmpfs of its own, in a mount namespace.
func actMounted(options, dir, name string) error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		return err
	}
	return mounted[name](dir)
}
