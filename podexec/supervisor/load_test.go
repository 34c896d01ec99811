package supervisor

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func noSMI() (uint32, bool) { return 0, false }

// link makes a symbolic link below a directory of tree.
func link(t *testing.T, root, name, to string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// later asks a meter as if so much time had passed since the sample before.
func later(m *loadMeter, passed time.Duration) { m.at = time.Now().Add(-passed) }

func TestLoadOfACgroup(t *testing.T) {
	const self2 = "0::/\n"
	v2 := map[string]string{
		"proc/self/cgroup":       self2,
		"proc/self/mountinfo":    "41 31 0:38 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
		"sys/fs/cgroup/cpu.stat": "usage_usec 1000000\nuser_usec 1\n", "sys/fs/cgroup/cpu.max": "50000 100000\n",
		"sys/fs/cgroup/memory.max": "1000000\n", "sys/fs/cgroup/memory.current": "600000\n", "sys/fs/cgroup/memory.stat": "inactive_file 100000\n",
	}
	v1 := map[string]string{
		"proc/self/cgroup":                "4:memory:/\n2:cpu,cpuacct:/\n",
		"proc/self/mountinfo":             "32 31 0:29 / /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n35 31 0:32 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
		"sys/fs/cgroup/cpu/cpuacct.usage": "1000000000\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
		"sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "600000\n", "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 100000\n",
	}
	for name, tc := range map[string]struct {
		files       map[string]string
		usage, more string
	}{
		"v2": {v2, "sys/fs/cgroup/cpu.stat", "usage_usec 2000000\n"},
		"v1": {v1, "sys/fs/cgroup/cpu/cpuacct.usage", "2000000000\n"},
	} {
		t.Run(name, func(t *testing.T) {
			root := tree(t, tc.files)
			m := newMeterOf(root)
			write(t, root, tc.usage, tc.more) // a second of work
			later(m, 4*time.Second)           // of half a CPU: half of what it may
			l := m.now()
			if l.CpuPermille < 490 || l.CpuPermille > 500 || l.MemoryBytes != 500000 || l.MemoryLimitBytes != 1000000 || l.GpuKnown {
				t.Errorf("%v", l)
			}
			write(t, root, tc.usage, "0\n")
			if again := m.now(); again.CpuPermille != l.CpuPermille {
				t.Errorf("at once: %v", again)
			}
			later(m, time.Second)
			if l := m.now(); l.CpuPermille != 0 {
				t.Errorf("a counter that went back: %v", l)
			}
		})
	}
}

func newMeterOf(root string) *loadMeter {
	m := &loadMeter{root: root, smi: noSMI}
	m.memory, _ = findMemoryGroup(root)
	m.cpu, m.gpu = m.cpuUsed(), readGPUClock(root)
	return m
}

// This machine's own, whatever it is: the numbers are possible ones.
func TestLoadOfThisProcess(t *testing.T) {
	m := newLoadMeter(noSMI)
	later(m, time.Second)
	l := m.now()
	if l.CpuPermille > 1000 || l.GpuPermille > 1000 || l.MemoryLimitBytes != 0 && l.MemoryBytes > l.MemoryLimitBytes*2 {
		t.Errorf("%v", l)
	}
	if _, _, err := findGroup("/", "memory"); err == nil && l.MemoryBytes == 0 {
		t.Errorf("nothing holds memory: %v", l)
	}
	t.Log(l)
}

const fdinfo = `pos:	0
flags:	02100002
drm-driver:	i915
drm-client-id:	5
drm-pdev:	0000:00:02.0
drm-engine-render:	1000000000 ns
drm-engine-video:	2000000000 ns
drm-engine-capacity-video:	2
drm-total-system0:	2048 KiB
`

func TestLoadOfAGPU(t *testing.T) {
	t.Run("amd", func(t *testing.T) {
		root := tree(t, map[string]string{
			"dev/dri/renderD128": "", "sys/class/drm/renderD128/device/gpu_busy_percent": "37\n",
			"sys/class/drm/renderD129/device/gpu_busy_percent": "99\n", // of another pod
		})
		m := newMeterOf(root)
		later(m, time.Second)
		if l := m.now(); l.GpuPermille != 370 || !l.GpuKnown {
			t.Errorf("%v", l)
		}
	})
	t.Run("intel", func(t *testing.T) {
		root := tree(t, map[string]string{"dev/dri/renderD128": "", "proc/7/fdinfo/4": fdinfo, "proc/7/fdinfo/5": fdinfo, "proc/7/fdinfo/6": "pos: 0\n"})
		link(t, root, "sys/class/drm/renderD128/device/driver", "../../bus/pci/drivers/i915")
		for _, fd := range []string{"4", "5"} {
			link(t, root, "proc/7/fd/"+fd, "/dev/dri/renderD128")
		}
		link(t, root, "proc/7/fd/6", "/media/film.mkv")
		m := newMeterOf(root)
		for _, fd := range []string{"4", "5"} { // two descriptors of one client count once
			write(t, root, "proc/7/fdinfo/"+fd, "drm-pdev: 0000:00:02.0\ndrm-client-id: 5\ndrm-engine-render: 1100000000 ns\ndrm-engine-video: 3000000000 ns\ndrm-engine-capacity-video: 2\n")
		}
		later(m, time.Second)
		if l := m.now(); l.GpuPermille < 480 || l.GpuPermille > 500 || !l.GpuKnown {
			t.Errorf("%v", l)
		}
	})
	t.Run("xe counts cycles", func(t *testing.T) {
		before, after := gpuClock{clients: map[string]gpuClient{}}, gpuClock{clients: map[string]gpuClient{}}
		id, c := parseClient("drm-pdev: a\ndrm-client-id: 1\ndrm-cycles-vcs: 100\ndrm-total-cycles-vcs: 1000\n")
		before.clients[id] = c
		id, c = parseClient("drm-pdev: a\ndrm-client-id: 1\ndrm-cycles-vcs: 350\ndrm-total-cycles-vcs: 2000\n")
		after.clients[id] = c
		if got := after.since(before, time.Second); got != 250 {
			t.Errorf("%d", got)
		}
	})
	for text, want := range map[string]uint32{"12, 97, 3\n40, 0, 0\n": 970, "[N/A], 5, [N/A]\n": 50, "0, 0, 0\n": 0} {
		if got, ok := parseSMI(text); got != want || !ok {
			t.Errorf("%q: %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "Failed to initialize NVML: Driver/library version mismatch\n", "-1, 900\n"} {
		if got, ok := parseSMI(text); ok {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// What nvidia-smi says is asked where there is one and a GPU of NVIDIA, and believed
// for a while only.
func TestNvidiaSMI(t *testing.T) {
	s := claiming(t, Config{}, func(*prover) {})
	dir := t.TempDir()
	script := "#!/bin/sh\necho 12, 34, 56\n"
	if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s.prover.smiLook(t.Context())
	if got, known := s.prover.utilisation(); got != 560 || !known {
		t.Errorf("%d, %v", got, known)
	}
	s.prover.mu.Lock()
	s.prover.smi.at = time.Now().Add(-2 * smiValid)
	s.prover.mu.Unlock()
	if _, known := s.prover.utilisation(); known {
		t.Error("what was said long ago")
	}
}
