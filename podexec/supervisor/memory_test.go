package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/wire"
)

// tree writes files below a directory of the test.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const mountsV1 = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 /kubepods/podX/c1 /sys/fs/cgroup/cpu,cpuacct ro,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /kubepods/podX/c1 /sys/fs/cgroup/memory ro,relatime master:1 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`

func TestFindMemoryGroup(t *testing.T) {
	for name, c := range map[string]struct{ cgroup, mounts, dir, limit string }{
		"v1 in a container": {
			"5:memory:/kubepods/podX/c1\n2:cpu,cpuacct:/kubepods/podX/c1\n0::/\n", mountsV1,
			"sys/fs/cgroup/memory", "memory.limit_in_bytes",
		},
		"v1 below the mount's top": {
			"5:memory:/kubepods/podX/c1/sub\n", mountsV1, "sys/fs/cgroup/memory/sub", "memory.limit_in_bytes",
		},
		"v1 namespaced": {"5:memory:/\n", mountsV1, "sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		"v1 a sibling's name as prefix": {
			"5:memory:/kubepods/podX/c12\n", mountsV1, "sys/fs/cgroup/memory", "memory.limit_in_bytes",
		},
		"v2 namespaced": {
			"0::/\n", "41 31 0:38 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n", "sys/fs/cgroup", "memory.max",
		},
		"v2 of the host": {
			"0::/system.slice/a b.service\n", "41 31 0:38 / /sys/fs/cg\\040roup ro - cgroup2 cgroup rw\n",
			"sys/fs/cg roup/system.slice/a b.service", "memory.max",
		},
		"v2 outside of the namespace": {
			"0::/../../other\n", "41 31 0:38 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "sys/fs/cgroup", "memory.max",
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := tree(t, map[string]string{"proc/self/cgroup": c.cgroup, "proc/self/mountinfo": c.mounts})
			g, err := findMemoryGroup(root)
			if err != nil || g.dir != filepath.Join(root, c.dir) || g.limit != c.limit {
				t.Errorf("%+v, %v", g, err)
			}
		})
	}
	for name, files := range map[string]map[string]string{
		"no procfs":   {"etc/x": ""},
		"no mount":    {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": "garbage\n31 23 0:28 / /x rw - tmpfs tmpfs rw\n"},
		"no memory":   {"proc/self/cgroup": "3:cpu:/\n", "proc/self/mountinfo": mountsV1},
		"no mounts":   {"proc/self/cgroup": "0::/\n"},
		"empty files": {"proc/self/cgroup": "", "proc/self/mountinfo": ""},
	} {
		if g, err := findMemoryGroup(tree(t, files)); err == nil {
			t.Errorf("%s: found %+v", name, g)
		}
	}
}

func TestMemoryUsage(t *testing.T) {
	const gib = 1 << 30
	stat := "anon 1\ninactive_file 1073741824\nactive_file 536870912\nslab_reclaimable 536870912\n"
	files := map[string]string{"memory.max": "4294967296\n", "memory.current": "4294967296\n", "memory.stat": stat, "memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"}
	with := func(name, text string) map[string]string {
		c := map[string]string{name: text}
		for k, v := range files {
			if _, set := c[k]; !set {
				c[k] = v
			}
		}
		return c
	}
	for name, c := range map[string]struct {
		files map[string]string
		held  int64
		short bool
		fails bool
		none  bool
	}{
		"cache is no need":    {files: files, held: 2 * gib},
		"just below":          {files: with("memory.stat", "anon 1\ninactive_file 214748457\n"), held: 4*gib - 214748457},
		"short":               {files: with("memory.stat", "anon 1\ninactive_file 214748456\n"), held: 4*gib - 214748456, short: true},
		"more cache than use": {files: with("memory.current", "1000"), held: 0},
		"no limit":            {files: with("memory.max", "max\n"), fails: true, none: true},
		"v1's no limit":       {files: with("memory.max", "9223372036854771712\n"), fails: true, none: true},
		"a limit of nonsense": {files: with("memory.max", "-5\n"), fails: true},
		"usage of nonsense":   {files: with("memory.current", "lots\n"), fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := memoryGroup{tree(t, c.files), memoryV2()}
			u, err := g.usage()
			if (err != nil) != c.fails || errors.Is(err, errNoLimit) != c.none {
				t.Fatal(err)
			}
			if err == nil && (u.held() != c.held || u.short() != c.short) {
				t.Errorf("held %d, want %d; short %v", u.held(), c.held, u.short())
			}
			if g.kills() != 2 {
				t.Errorf("%d kills", g.kills())
			}
		})
	}
	if _, err := (memoryGroup{t.TempDir(), memoryV2()}).usage(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no files: %v", err)
	}
}

// Looks come closer as memory fills: the kernel is quick, and kills more.
func TestPace(t *testing.T) {
	for used, want := range map[int64]time.Duration{0: 475 * time.Millisecond, 1 << 29: 350 * time.Millisecond, 1900 << 20: memoryLeast, 3 << 30: memoryLeast} {
		if got := (memoryUse{limit: 2 << 30, usage: used}).pace(); got.Round(5*time.Millisecond) != want {
			t.Errorf("%d MiB used: %s, want %s", used>>20, got, want)
		}
	}
}

// The watch looks at a tree of files that says what the kernel would.
func TestTheLargestSessionEndsOneAtATime(t *testing.T) {
	stat := func(pgid, pages int) string {
		return fmt.Sprintf("9 (a) b) R 1 %d 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 1000 %d 18446744073709551615\n", pgid, pages)
	}
	mib := (1 << 20) / os.Getpagesize()
	root := tree(t, map[string]string{
		"memory.max": strconv.Itoa(1000 << 20), "memory.current": strconv.Itoa(960 << 20), "memory.stat": "inactive_file 0\n", "memory.events": "oom_kill 0\n",
		"11/stat": stat(11, 300*mib), "12/stat": stat(12, 200*mib), "13/stat": stat(12, 150*mib), "14/stat": stat(14, 100*mib), "self/stat": stat(14, 1<<30), "15/stat": "cut (short",
	})
	m := &memoryWatch{group: memoryGroup{root, memoryV2()}, proc: root, every: time.Hour, held: map[*watched]struct{}{}}
	var ended []int
	var leaves []func() bool
	for _, pgid := range []int{11, 12, 14} {
		leaves = append(leaves, m.enter(pgid, func(used, limit int64) {
			if used != 960<<20 || limit != 1000<<20 {
				t.Errorf("told %d of %d", used, limit)
			}
			ended = append(ended, pgid)
		}))
	}
	now := time.Unix(1000, 0)
	m.look(now) // the group of two processes is the largest
	m.look(now.Add(memorySettle / 2))
	if !slices.Equal(ended, []int{12}) {
		t.Fatalf("ended %v", ended)
	}
	m.look(now.Add(memorySettle)) // the first does not die: the next
	if !slices.Equal(ended, []int{12, 11}) {
		t.Fatalf("ended %v", ended)
	}
	_ = os.RemoveAll(filepath.Join(root, "11"))
	_ = os.RemoveAll(filepath.Join(root, "12"))
	_ = os.RemoveAll(filepath.Join(root, "13"))
	leaves[0]()
	leaves[1]()
	_ = os.WriteFile(filepath.Join(root, "14/stat"), []byte(stat(14, 49*mib)), 0o644)
	m.look(now.Add(time.Minute))
	if len(ended) != 2 {
		t.Errorf("a session that holds next to nothing was ended: %v", ended)
	}
	_ = os.WriteFile(filepath.Join(root, "14/stat"), []byte(stat(14, 51*mib)), 0o644)
	m.look(now.Add(time.Minute))
	if !slices.Equal(ended, []int{12, 11, 14}) {
		t.Errorf("ended %v", ended)
	}
	if m.stop == nil {
		t.Error("not polled while a session runs")
	}
	if leaves[2]() || m.stop != nil {
		t.Error("a kill out of nowhere, or polled while none runs")
	}
	var off *memoryWatch
	if off.enter(1, nil)() {
		t.Error("a worker without a limit knows of kills")
	}
}

// cgroup makes a memory cgroup with a limit and removes it after its processes.
func cgroup(t *testing.T, limit int64) memoryGroup {
	t.Helper()
	top, err := findMemoryGroup("/")
	if err != nil {
		t.Skipf("no memory cgroup to make one in: %v", err)
	}
	g := memoryGroup{filepath.Join(top.dir, fmt.Sprintf("ffpod-test-%d-%d", os.Getpid(), time.Now().UnixNano())), top.memoryFiles}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Skipf("not allowed to make a memory cgroup: %v", err)
	}
	t.Cleanup(func() {
		for range 200 {
			if err = os.Remove(g.dir); err == nil {
				return
			}
			<-time.After(10 * time.Millisecond) // the kernel is emptying it
		}
		t.Errorf("cgroup is left: %v", err)
	})
	if err := os.WriteFile(filepath.Join(g.dir, g.limit), []byte(strconv.FormatInt(limit, 10)), 0o644); err != nil {
		t.Skipf("not allowed to limit memory: %v", err)
	}
	return g
}

// inside forks script in the group; the shell has entered it when this returns.
func inside(t *testing.T, f *forking, g memoryGroup, script string) *process {
	t.Helper()
	p, _ := markedFork(t, f, "memory", "echo $$ > "+g.dir+"/cgroup.procs && echo in; "+script)
	return p
}

// hog holds n MiB and prints when it has them.
func hog(n int) string {
	return fmt.Sprintf("(head -c %dm /dev/zero; echo; exec sleep 3600) | tail -n 1", n)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// On the kernel of this machine: memory runs short, the largest goes, the other
// stays; a full page cache alone ends nobody.
func TestShortMemoryEndsTheLargest(t *testing.T) {
	g := cgroup(t, 128<<20)
	f := newForking()
	m := &memoryWatch{group: g, proc: "/proc", every: 10 * time.Millisecond, held: map[*watched]struct{}{}}
	film := filepath.Join(t.TempDir(), "film")
	reader := inside(t, f, g, "dd if=/dev/zero of="+film+" bs=1M count=160 conv=fsync 2>/dev/null; cat "+film+" "+film+" >/dev/null; "+hog(20))
	var mu sync.Mutex
	told := map[string]string{}
	enter := func(name string, p *process) func() bool {
		return m.enter(p.pid, func(used, limit int64) {
			mu.Lock()
			told[name] = fmt.Sprintf("%d of %d MiB", used>>20, limit>>20)
			mu.Unlock()
			p.signalGroup(syscall.SIGKILL)
		})
	}
	leaveReader := enter("reader", reader)
	until(t, "the page cache", func() bool {
		u, err := g.usage()
		return err == nil && u.usage > u.limit*90/100 && groupSizes("/proc")[reader.pid] > 20<<20
	})
	mu.Lock()
	if len(told) > 0 {
		t.Fatalf("ended for page cache: %v", told)
	}
	mu.Unlock()
	eater := inside(t, f, g, hog(104))
	leave := enter("eater", eater)
	status, _, err := eater.wait(f)
	if err != nil || status.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v", status, err)
	}
	killed := leave()
	mu.Lock()
	t.Logf("%v, kernel killed: %v", told, killed)
	if told["reader"] != "" || !killed && told["eater"] == "" {
		t.Errorf("told %v, killed %v", told, killed)
	}
	mu.Unlock()
	if !alive(reader.pid) {
		t.Error("the small one died too")
	}
	reader.signalGroup(syscall.SIGKILL)
	_, _, _ = reader.wait(f)
	leaveReader()
}

// A kill by the kernel is known for what it is.
func TestTheKernelsKillIsKnown(t *testing.T) {
	g := cgroup(t, 64<<20)
	f := newForking()
	m := &memoryWatch{group: g, proc: t.TempDir(), every: time.Hour, held: map[*watched]struct{}{}} // it finds nobody to blame
	p := inside(t, f, g, "exec sleep 3600")
	quiet := m.enter(p.pid, func(int64, int64) { t.Error("ended by us") })
	if quiet() {
		t.Error("a kill before there was one")
	}
	leave := m.enter(p.pid, func(int64, int64) { t.Error("ended by us") })
	other := inside(t, f, g, "exec tail /dev/zero")
	status, _, err := other.wait(f)
	if err != nil || status.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v", status, err)
	}
	p.signalGroup(syscall.SIGKILL)
	_, _, _ = p.wait(f)
	if !leave() {
		t.Error("the kernel's kill is not known")
	}
}

// Whoever ends a session for its memory, the supervisor or the kernel, its exit
// says so; a session that is killed by others does not.
func TestTheExitTellsOfMemory(t *testing.T) {
	for name, c := range map[string]struct {
		proc   string
		script string
		want   wire.Cause
	}{
		"the supervisor was quicker": {"/proc", hog(125), wire.Cause_CAUSE_MEMORY},
		"the kernel was quicker":     {t.TempDir(), "exec tail /dev/zero", wire.Cause_CAUSE_MEMORY},
		"by its own hand":            {"/proc", "kill -9 $$", wire.Cause_CAUSE_UNSPECIFIED},
	} {
		t.Run(name, func(t *testing.T) {
			g := cgroup(t, 128<<20)
			s, err := New(Config{FFmpeg: "/bin/sh"})
			if err != nil {
				t.Fatal(err)
			}
			s.memory = &memoryWatch{group: g, proc: c.proc, every: time.Hour, held: map[*watched]struct{}{}}
			script := "echo $$ > " + g.dir + "/cgroup.procs && " + c.script
			start := &wire.Start{Session: "exit-" + strconv.Itoa(os.Getpid()), Program: wire.Program_FFMPEG, Argv: [][]byte{[]byte("-c"), []byte(script)}, Cwd: []byte("/"), Orders: true}
			r, _, err := s.begin(start)
			if err != nil {
				t.Fatal(err)
			}
			r.mu.Lock()
			r.giveUp() // nobody will take the exit
			r.mu.Unlock()
			if err := r.live(s.children, &s.looks, s.watch(r), func(*wire.Exit) {}); err != nil {
				t.Fatal(err)
			}
			e := r.state().Exit
			if e.Signal != int32(syscall.SIGKILL) || e.Cause != c.want {
				t.Errorf("signal %d, cause %v", e.Signal, e.Cause)
			}
		})
	}
}

// This machine has a limit or says why not; either way a session may enter.
func TestNewMemoryWatch(t *testing.T) {
	m, err := newMemoryWatch()
	if (m == nil) != (err != nil) {
		t.Errorf("%v, %v", m, err)
	}
	t.Log(err)
	m.enter(os.Getpid(), func(int64, int64) { t.Error("ended") })()
}
