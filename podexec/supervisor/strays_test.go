package supervisor

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ffpod/ffpod/podexec/wire"
)

// markedFork forks script as the session id and reads the words of its first line.
func markedFork(t *testing.T, f *forking, id, script string) (*process, []string) {
	t.Helper()
	p, err := f.start("/bin/sh", &wire.Start{Session: id, Argv: [][]byte{[]byte("-c"), []byte(script)}, Cwd: []byte("/")}, marked(os.Environ(), id))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stdout.Close(); p.stderr.Close() })
	line, err := bufio.NewReader(p.stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return p, strings.Fields(line)
}

func alive(pid int) bool {
	s, ok := readStat("/proc", pid)
	return ok && !s.dead()
}

func killStrays(t *testing.T, f *forking, session string) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f.killStrays(session) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("strays of %s do not die", session)
	}
}

// Whatever a session's child does to leave its process group, it dies with the
// session, and nothing of another session does.
func TestStraysDieWithTheirSession(t *testing.T) {
	for name, script := range map[string]string{
		"setsid":            `setsid sh -c 'echo $$; exec sleep 3600' & wait`,
		"forked twice":      `(setsid sh -c 'echo $$; exec sleep 3600' &); sleep 3600`,
		"leader ended":      `(setsid sh -c 'echo $$; exec sleep 3600' &); exit 3`,
		"a tree":            `setsid sh -c 'sleep 3600 & setsid sleep 3600 & echo $$ $!; wait'`,
		"ignoring":          `setsid sh -c 'trap "" TERM HUP INT; echo $$; while :; do sleep 1; done'`,
		"bearing others on": `setsid sh -c 'echo $$; while :; do setsid sleep 3600 & sleep 0.01; done'`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newForking()
			id, other := "s-"+strconv.Itoa(os.Getpid()), "s-"+strconv.Itoa(os.Getpid())+"0"
			neighbour, theirs := markedFork(t, f, other, `setsid sh -c 'echo $$; exec sleep 3600' & wait`)
			p, strays := markedFork(t, f, id, script)
			defer func() {
				_, _, _ = neighbour.wait(f)
				killStrays(t, f, other)
			}()
			defer neighbour.signalGroup(syscall.SIGKILL)
			if name != "leader ended" {
				p.signalGroup(syscall.SIGKILL)
			}
			if _, _, err := p.wait(f); err != nil {
				t.Fatal(err)
			}
			for _, s := range strays {
				if pid, _ := strconv.Atoi(s); !alive(pid) {
					t.Fatalf("%s died with the group: it is no stray", s)
				}
			}
			begun := time.Now()
			killStrays(t, f, id)
			t.Logf("%d strays gone within %s", len(strays), time.Since(begun))
			for _, s := range strays {
				if pid, _ := strconv.Atoi(s); alive(pid) {
					b, _ := os.ReadFile("/proc/" + s + "/stat")
					t.Errorf("%s lives: %s", s, b)
				}
			}
			if pid, _ := strconv.Atoi(theirs[0]); !alive(pid) {
				t.Error("the neighbour's child was killed")
			}
		})
	}
}

// A stray that dropped its environment is known by its parent: PID 1, to which it
// was reparented, while nothing else runs.
func TestOrphansWithoutAMarkDieOnceNothingRuns(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }()
	f := newForking()
	f.reaper = os.Getpid()
	id := "bare-" + strconv.Itoa(os.Getpid())
	neighbour, _ := markedFork(t, f, id+"0", `echo; sleep 3600`)
	p, strays := markedFork(t, f, id, `(env -i setsid sh -c 'echo $$; exec sleep 3600' &); exit 0`)
	stray, _ := strconv.Atoi(strays[0])
	defer func() { _, _ = syscall.Wait4(stray, nil, 0, nil) }()
	defer func() { _ = syscall.Kill(stray, syscall.SIGKILL) }()
	if _, _, err := p.wait(f); err != nil {
		t.Fatal(err)
	}
	if killStrays(t, f, id); !alive(stray) {
		t.Error("whose it is cannot be known while another session runs")
	}
	neighbour.signalGroup(syscall.SIGKILL)
	if _, _, err := neighbour.wait(f); err != nil {
		t.Fatal(err)
	}
	if killStrays(t, f, id+"0"); alive(stray) {
		t.Error("it lives")
	}
}

func TestMarked(t *testing.T) {
	got := marked([]string{"A=1", "FFPOD_SESSION=forged", "FFPOD_SESSIONS=2"}, "real")
	if want := []string{"A=1", "FFPOD_SESSIONS=2", "FFPOD_SESSION=real"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	environ := []byte("A=1\x00XFFPOD_SESSION=x\x00FFPOD_SESSION=a=b\x00")
	for session, want := range map[string]bool{"a=b": true, "a": false, "x": false, "": false, "a=b\x00": false} {
		if got := hasMark(environ, session); got != want {
			t.Errorf("%q: %v", session, got)
		}
	}
}

// What every session pays at its end, on a machine with many more processes than a
// pod has.
func BenchmarkKillStrays(b *testing.B) {
	f := newForking()
	b.ReportMetric(float64(len(processes("/proc"))), "processes")
	for b.Loop() {
		f.killStrays("none")
	}
}
