package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open makes a registry that is old enough to have no past.
func open(t testing.TB) *Registry {
	t.Helper()
	r, err := openOne(filepath.Join(t.TempDir(), "registry"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	age(t, r, bornFile, 2*DefaultBound)
	return r
}

func age(t testing.TB, r *Registry, name string, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	if err := os.Chtimes(filepath.Join(r.path, name), at, at); err != nil {
		t.Fatal(err)
	}
}

// begin starts a process and waits for its first line.
func begin(t *testing.T, args ...string) (cmd *exec.Cmd, first string) {
	t.Helper()
	cmd = self(args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

// writer is the command of a local writer of a key.
func writer(r *Registry, key string) []string {
	return []string{"local", r.path, key, exe(), "registry-test", "write", filepath.Dir(r.path) + "/arena"}
}

func (r *Registry) count(prefix string) int {
	n := 0
	for _, name := range r.list(1 << 20) {
		if strings.HasPrefix(name, prefix) {
			n++
		}
	}
	return n
}

// The lock lives as long as the program that the process became, and no longer.
func TestLocalThenLocal(t *testing.T) {
	r := open(t)
	cmd, first := begin(t, writer(r, "/c/x")...)
	if first != "writing" {
		t.Fatal(first)
	}
	err := r.Local(t.Context(), Local{Keys: []string{"/c/x"}, Wait: 30 * time.Millisecond})
	busy, ok := errors.AsType[*BusyError](err)
	if !ok || busy.Holder != fmt.Sprintf("process %d", cmd.Process.Pid) {
		t.Fatalf("%v", err)
	}
	if err := r.Local(t.Context(), Local{Keys: []string{"/c/y"}}); err != nil {
		t.Errorf("another key: %v", err)
	}
	if _, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/x"}, Session: "a", Wait: 30 * time.Millisecond}); !errors.As(err, &busy) {
		t.Errorf("a session on a worker: %v", err)
	}
	if n := r.count("s-"); n != 0 {
		t.Errorf("%d sessions of those that may not start", n)
	}
	done := make(chan error, 1)
	go func() { done <- r.Local(t.Context(), Local{Keys: []string{"/c/x"}}) }()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("after its death: %v", err)
	}
}

// The program has one descriptor more, a high one, and the caller's own.
func TestDescriptors(t *testing.T) {
	r := open(t)
	for name, limit := range map[string]string{"usual": "", "low limit": "ulimit -Sn 32; ulimit -Hn 32; "} {
		t.Run(name, func(t *testing.T) {
			// The shell's own end of the list is the pipe of the substitution.
			script := limit + `exec 7</dev/null; exec "$0" registry-test local "$1" "$2" /bin/sh -c 'for f in /proc/$$/fd/*; do readlink $f; done'`
			out, err := exec.Command("/bin/sh", "-c", script, exe(), r.path, "/c/"+name).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if n := strings.Count(string(out), r.path+"/k-"); n != 1 || !strings.Contains(string(out), "/dev/null") {
				t.Errorf("descriptors:\n%s", out)
			}
		})
	}
	out, err := self("local", r.path, "/c/z", "/bin/sh", "-c", "readlink /proc/$$/fd/2??").Output()
	if err != nil || !strings.Contains(string(out), r.path) {
		t.Errorf("from 200 on: %s, %v", out, err)
	}
}

func TestSessionsShare(t *testing.T) {
	r := open(t)
	a, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/x", "/c/y", "/c/x"}, Session: "a"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/y"}, Session: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Placed("w-1", time.Minute), b.Placed("w-2", time.Minute), a.Placed("w-3", time.Minute)); err != nil {
		t.Fatal(err)
	}
	// One of the two is asked to be killed; the other's shim has ended by itself.
	cleared := make(chan []string, 1)
	done := make(chan error, 1)
	go func() {
		done <- r.Local(t.Context(), Local{Keys: []string{"/c/y"}, Clear: func(_ context.Context, keys []string) error { cleared <- keys; return nil }})
	}()
	if keys := <-cleared; len(keys) != 1 || keys[0] != "/c/y" {
		t.Errorf("cleared %q", keys)
	}
	if len(done) != 0 {
		t.Error("it runs beside a living shim")
	}
	b.Ended()
	a.Ended()
	a.Ended()
	a.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if r.count("s-") != 0 || r.count("k-") != 1 {
		t.Errorf("left: %q", r.list(100))
	}
	var none *Hold
	none.Ended()
	none.Close()
	if err := none.Placed("w", 0); err != nil {
		t.Error(err)
	}
}

// Others that came before, or only wait, have not written since.
func TestAlone(t *testing.T) {
	r := open(t)
	hold := func(session string) *Hold {
		h, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/x", "/c/" + session}, Session: session})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Ended)
		return h
	}
	check := func(what string, h *Hold, want bool) {
		t.Helper()
		if h.Alone() != want {
			t.Errorf("%s: alone is %v", what, !want)
		}
	}
	before := hold("before")
	_ = before.Placed("w", time.Minute)
	h := hold("ours")
	_ = h.Placed("w", time.Minute)
	check("nobody came since", h, true)
	check("somebody runs", before, false)
	next := hold("next")
	check("the next waits", h, true)
	_ = next.Placed("w", time.Minute)
	check("the next runs", h, false)
	next.Ended()
	check("the next has run", h, false)
	check("there is no registry", nil, true)
}

func TestShimLives(t *testing.T) {
	r := open(t)
	h, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/x"}, Session: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Ended()
	if err := h.Placed("w-1", time.Minute); err != nil {
		t.Fatal(err)
	}
	var problems []string
	err = r.Local(t.Context(), Local{Keys: []string{"/c/x"}, Wait: 300 * time.Millisecond, Log: func(p string) { problems = append(problems, p) },
		Clear: func(context.Context, []string) error { return errors.New("nobody there") }})
	if busy, ok := errors.AsType[*BusyError](err); !ok || busy.Holder != fmt.Sprintf("session a on worker w-1 (process %d)", os.Getpid()) {
		t.Errorf("%v", err)
	}
	if len(problems) != 1 || !strings.Contains(problems[0], "nobody there") {
		t.Errorf("logged %q", problems)
	}
	if err := r.Local(t.Context(), Local{Keys: []string{"/c/x"}, Clear: func(context.Context, []string) error { return ErrSuperseded }}); !errors.Is(err, ErrSuperseded) {
		t.Errorf("%v", err)
	}
	stop := errors.New("a signal")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if err := r.Local(ctx, Local{Keys: []string{"/c/x"}}); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// A shim was killed. What its session is worth then depends on how far it was.
func TestShimDied(t *testing.T) {
	tests := map[string]struct {
		placed bool
		grace  time.Duration
		since  time.Duration // for how long it has been dead
		clear  error
		asked  int
		said   bool // it waits for the bound
	}{
		"before its ticket":        {},
		"cleared":                  {placed: true, grace: time.Minute, asked: 1},
		"long ago":                 {placed: true, grace: time.Minute, since: time.Minute + Margin},
		"unreachable, soon over":   {placed: true, since: Margin - 300*time.Millisecond, clear: errors.New("nobody there"), asked: 1, said: true},
		"the clock was set back":   {placed: true, grace: time.Minute, since: -time.Hour, asked: 1},
		"a newer one is out there": {placed: true, grace: time.Minute, clear: ErrSuperseded, asked: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			h, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/x", "/c/y"}, Session: "a"})
			if err != nil {
				t.Fatal(err)
			}
			if test.placed {
				if err := h.Placed("w-1", test.grace); err != nil {
					t.Fatal(err)
				}
			}
			h.Close() // the locks go as with SIGKILL, the record stays
			age(t, r, sessionFile("a"), test.since)
			asked, said, begun := 0, "", time.Now()
			err = r.Local(t.Context(), Local{
				Keys: []string{"/c/x", "/c/y"}, Say: func(s string) { said = s },
				Clear: func(context.Context, []string) error { asked++; return test.clear },
			})
			if errors.Is(test.clear, ErrSuperseded) != errors.Is(err, ErrSuperseded) || err != nil && !errors.Is(err, ErrSuperseded) {
				t.Error(err)
			}
			if asked != test.asked || (said != "") != test.said {
				t.Errorf("asked %d times, said %q", asked, said)
			}
			if test.said && (time.Since(begun) < 290*time.Millisecond || !strings.Contains(said, "session a on worker w-1") || !strings.Contains(said, "nobody there")) {
				t.Errorf("after %s: %q", time.Since(begun), said)
			}
			if left := r.left([]int{}); err == nil && len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

// A session that goes to a worker does not wait for what the scheduler fences.
func TestRemoteAfterDeadShim(t *testing.T) {
	r := open(t)
	a, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/x"}, Session: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Placed("w-1", time.Hour); err != nil {
		t.Fatal(err)
	}
	a.Close()
	b, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/x"}, Session: "b"})
	if err != nil {
		t.Fatal(err)
	}
	b.Ended() // it was refused: the first one is still out there
	asked := 0
	err = r.Local(t.Context(), Local{Keys: []string{"/c/x"}, Clear: func(context.Context, []string) error { asked++; return nil }})
	if err != nil || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
	if r.count("s-") != 0 {
		t.Errorf("left: %q", r.list(100))
	}
}

// A pod that has just begun may follow one whose sessions live on.
func TestYoung(t *testing.T) {
	for name, answer := range map[string]error{"nothing": nil, "no answer": errors.New("nobody there"), "superseded": ErrSuperseded} {
		t.Run(name, func(t *testing.T) {
			r := open(t)
			age(t, r, bornFile, 0)
			asked := 0
			clear := func(context.Context, []string) error { asked++; return answer }
			if err := r.Local(t.Context(), Local{Keys: []string{"/c/x"}, Clear: clear}); asked != 1 || errors.Is(answer, ErrSuperseded) == (err == nil) {
				t.Errorf("asked %d times, %v", asked, err)
			}
			age(t, r, bornFile, DefaultBound+time.Second)
			if err := r.Local(t.Context(), Local{Keys: []string{"/c/y"}, Clear: clear}); asked != 1 || err != nil {
				t.Errorf("when it is old: asked %d times, %v", asked, err)
			}
		})
	}
}

func TestUnusable(t *testing.T) {
	top := t.TempDir()
	own := fmt.Sprintf("/ffpod-%d", os.Geteuid())
	mk := func(name string, make func(path string) error) string {
		dir := filepath.Join(top, name)
		if err := errors.Join(os.Mkdir(dir, 0o700), make(dir+own)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	elsewhere := t.TempDir()
	bad := []string{
		mk("link", func(p string) error { return os.Symlink(elsewhere, p) }),
		mk("file", func(p string) error { return os.WriteFile(p, nil, 0o600) }),
		mk("open", func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o755)) }),
		"/proc/nowhere",
	}
	if os.Geteuid() == 0 {
		bad = append(bad, mk("foreign", func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chown(p, 4711, 0)) }))
	}
	for _, dir := range bad {
		if r, err := openIn(dir); err == nil {
			t.Errorf("%s is used: %+v", dir, r)
		}
	}
	r, err := openIn(append(bad, top)...)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.path != top+own {
		t.Error(r.path)
	}
	// A file that is none is left alone.
	name := filepath.Join(r.path, keyFile("/c/x"))
	if err := os.Symlink("/dev/zero", name); err != nil {
		t.Fatal(err)
	}
	if err := r.Local(t.Context(), Local{Keys: []string{"/c/x"}}); err == nil || errors.Is(err, ErrSuperseded) {
		t.Errorf("a link for a key: %v", err)
	}
	if err := errors.Join(os.Remove(name), syscall.Mkfifo(name, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := r.Local(t.Context(), Local{Keys: []string{"/c/x"}, Wait: 10 * time.Millisecond}); err == nil {
		t.Error("a FIFO for a key is a lock")
	}
	if _, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/y"}, Session: "../x"}); err == nil {
		t.Error("a session left the directory")
	}
}

// mounted are tests on a file system of their own.
var mounted = map[string]func(dir string) error{
	"full": func(dir string) error {
		r, err := openOne(dir + "/registry")
		if err != nil {
			return err
		}
		if err := os.WriteFile(dir+"/big", make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("it is not full: %w", err)
		}
		var problems int
		h, err := r.Remote(context.Background(), Remote{Keys: []string{"/c/x"}, Session: "a", Log: func(string) { problems++ }})
		if err != nil || problems == 0 {
			return fmt.Errorf("remote: %d problems, %w", problems, err)
		}
		if err := h.Placed("w", time.Minute); !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("placed: %w", err)
		}
		// Locks need no memory of the file system.
		if err := r.Local(context.Background(), Local{Keys: []string{"/c/x"}, Wait: time.Millisecond}); !strings.Contains(fmt.Sprint(err), "another process of this pod") &&
			!strings.Contains(fmt.Sprint(err), "session a") {
			return fmt.Errorf("beside it: %w", err)
		}
		h.Ended()
		return r.Local(context.Background(), Local{Keys: []string{"/c/x"}})
	},
	"no files left": func(dir string) error {
		r, err := openOne(dir + "/registry")
		if err != nil {
			return err
		}
		for i := 0; err == nil && i < 100; i++ {
			err = os.WriteFile(fmt.Sprint(dir, "/", i), nil, 0o600)
		}
		if err := r.Local(context.Background(), Local{Keys: []string{"/c/x"}}); !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("local: %w", err)
		}
		if _, err := r.Remote(context.Background(), Remote{Keys: []string{"/c/x"}, Session: "a"}); !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("remote: %w", err)
		}
		return nil
	},
	"read-only": func(dir string) error {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return err
		}
		if _, err := openIn(dir); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("open: %w", err)
		}
		return nil
	},
}

func TestFileSystems(t *testing.T) {
	for name, options := range map[string]string{"full": "size=4k", "no files left": "size=64k,nr_inodes=8", "read-only": "size=64k"} {
		t.Run(name, func(t *testing.T) {
			cmd := self("mounted", options, t.TempDir(), name)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
			if os.Geteuid() != 0 {
				cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
				cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
				cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
			}
			if out, err := cmd.Output(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// Nobody cleans up by trade: a thousand entries are gone after some commands, and
// what lives or may live stays.
func TestStale(t *testing.T) {
	r := open(t)
	for i := range 500 {
		h, err := r.Remote(t.Context(), Remote{Keys: []string{fmt.Sprint("/c/", i)}, Session: fmt.Sprint("old-", i)})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Placed("w", 0); err != nil {
			t.Fatal(err)
		}
		h.Close()
		age(t, r, sessionFile(fmt.Sprint("old-", i)), 2*Margin)
	}
	alive, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/alive"}, Session: "alive"})
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Ended()
	dead, err := r.Remote(t.Context(), Remote{Keys: []string{"/c/dead"}, Session: "dead"})
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.Placed("w", time.Minute); err != nil {
		t.Fatal(err)
	}
	dead.Close()
	for i := range 600 {
		h, err := r.Remote(t.Context(), Remote{Keys: []string{fmt.Sprint("/d/", i)}, Session: fmt.Sprint("new-", i)})
		if err != nil {
			t.Fatal(err)
		}
		h.Close() // each leaves something itself
	}
	if n := r.count(""); n > 40 {
		t.Errorf("%d files are left", n)
	}
	left := fmt.Sprint(r.list(1000))
	for _, name := range []string{sessionFile("alive"), sessionFile("dead"), keyFile("/c/alive"), keyFile("/c/dead"), bornFile} {
		if !strings.Contains(left, name) {
			t.Errorf("%s is gone", name)
		}
	}
}

// Many shims at once: whoever runs is alone, and no one fails for another reason
// than that.
func TestCrowd(t *testing.T) {
	r := open(t)
	if err := os.Mkdir(filepath.Dir(r.path)+"/workers", 0o700); err != nil {
		t.Fatal(err)
	}
	var crowd sync.WaitGroup
	var mu sync.Mutex
	ran := 0
	for i := range 60 {
		crowd.Go(func() {
			args := writer(r, "/c/x")
			if i%3 == 0 {
				args = []string{"remote", r.path, "/c/x", fmt.Sprint("s", i)}
			}
			cmd := self(args...)
			cmd.Env = append(os.Environ(), "WAIT=3s")
			out, _ := cmd.StdoutPipe()
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			line, _ := bufio.NewReader(out).ReadString('\n')
			mu.Lock()
			defer mu.Unlock()
			switch line {
			case "writing\n", "started\n":
				ran++
			default: // a session that came later has won
				if !strings.Contains(line, "still writes the same outputs after 3s") {
					t.Errorf("%d: %q", i, line)
				}
			}
		})
	}
	crowd.Wait()
	if err := clearAll(filepath.Dir(r.path))(t.Context(), nil); err != nil {
		t.Error(err)
	}
	noOverlap(t, r)
	if ran < 20 {
		t.Errorf("%d of 60 ran", ran)
	}
}

func noOverlap(t *testing.T, r *Registry) {
	t.Helper()
	if b, err := os.ReadFile(filepath.Dir(r.path) + "/arena.overlap"); err == nil {
		t.Errorf("two writers overlap: %s", b)
	}
}

// TestSeek kills the writer, or its shim, at random moments and starts the next at
// once, here or on a worker.
func TestSeek(t *testing.T) {
	seeks := 120
	if testing.Short() {
		seeks = 40
	}
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	r := open(t)
	top := filepath.Dir(r.path)
	if err := os.Mkdir(top+"/workers", 0o700); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	before := "nothing"
	ways := []string{"local to local", "local to remote", "remote to local", "remote to remote"}
	unplayed := func() bool {
		return slices.ContainsFunc(ways, func(way string) bool { return counts[way] == 0 })
	}
	for i := 0; i < seeks || unplayed() && i < 10*seeks; i++ {
		kind, args := "local", writer(r, "/c/x")
		if rnd.IntN(2) == 0 {
			kind, args = "remote", []string{"remote", r.path, "/c/x", fmt.Sprintf("seek-%d", i)}
		}
		cmd := self(args...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := make(chan string, 1)
		go func() {
			line, _ := bufio.NewReader(out).ReadString('\n')
			lines <- line
		}()
		if rnd.IntN(3) > 0 { // it plays
			select {
			case line := <-lines:
				if line != "writing\n" && line != "started\n" {
					t.Errorf("seed %d, seek %d: %s after %s: %q", seed, i, kind, before, line)
				}
				counts[before+" to "+kind]++
			case <-time.After(20 * time.Second):
				t.Fatalf("seed %d, seek %d: %s after %s does not start", seed, i, kind, before)
			}
		} else { // killed in whatever it does
			time.Sleep(time.Duration(rnd.IntN(12_000)) * time.Microsecond)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		if rnd.IntN(2) == 0 {
			_ = cmd.Wait()
		} else {
			defer func() { _ = cmd.Wait() }()
		}
		before = kind
	}
	if err := clearAll(top)(t.Context(), nil); err != nil {
		t.Error(err)
	}
	noOverlap(t, r)
	if unplayed() {
		t.Errorf("seed %d: not every way was played: %v", seed, counts)
	}
	t.Log("seed", seed, counts)
}

// Files are removed while others open them: whoever has a lock has the one that is
// in the directory.
func TestRemoved(t *testing.T) {
	r := open(t)
	var inside atomic.Int32
	var crowd sync.WaitGroup
	for range 8 {
		crowd.Go(func() {
			for range 400 {
				fd, err := r.lock("k-x", unix.LOCK_EX, unix.O_CREAT)
				if errors.Is(err, errBusy) {
					runtime.Gosched()
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold the lock")
				}
				runtime.Gosched()
				inside.Add(-1)
				r.remove(fd, "k-x") // from here on the name is another's
				_ = unix.Close(fd)
			}
		})
	}
	crowd.Wait()
}

// openShared makes a registry where pods have theirs.
func openShared(b *testing.B) *Registry {
	b.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ffpod-benchmark-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	r, err := openOne(dir + "/registry")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(r.Close)
	age(b, r, bornFile, 2*DefaultBound)
	return r
}

func BenchmarkLocal(b *testing.B) {
	r := openShared(b)
	for b.Loop() {
		var held []int
		l := Local{Keys: []string{"/cache/transcodes/0123456789abcdef"}, Wait: time.Second}
		o, err := openOne(r.path)
		if err != nil {
			b.Fatal(err)
		}
		if err := o.local(b.Context(), &l, &held); err != nil {
			b.Fatal(err)
		}
		o.sweep()
		o.Close()
		for _, fd := range held {
			_ = unix.Close(fd)
		}
	}
}

func BenchmarkRemote(b *testing.B) {
	r := openShared(b)
	for b.Loop() {
		h, err := r.Remote(b.Context(), Remote{Keys: []string{"/cache/transcodes/0123456789abcdef"}, Session: "019a0000-0000-7000-8000-000000000000"})
		if err != nil {
			b.Fatal(err)
		}
		if err := h.Placed("ffpod-cpu-1", time.Minute); err != nil {
			b.Fatal(err)
		}
		h.Ended()
	}
}
