package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/wire"
)

// loadLeast is the least time between samples: several schedulers ask one worker.
const loadLeast = 500 * time.Millisecond

// loadMeter measures between the times it is asked. It is safe for concurrent use.
type loadMeter struct {
	root   string
	memory memoryGroup
	smi    func() (permille uint32, known bool) // of NVIDIA's GPUs

	mu    sync.Mutex
	at    time.Time
	cpu   time.Duration // used by the pod until then
	gpu   gpuClock
	known *wire.Load
}

func newLoadMeter(smi func() (uint32, bool)) *loadMeter {
	m := &loadMeter{root: "/", smi: smi, known: &wire.Load{}}
	m.memory, _ = findMemoryGroup(m.root)
	m.at, m.cpu, m.gpu = time.Now(), m.cpuUsed(), readGPUClock(m.root)
	return m
}

// now is the load since the sample before.
func (m *loadMeter) now() *wire.Load {
	m.mu.Lock()
	defer m.mu.Unlock()
	passed := time.Since(m.at)
	if passed < loadLeast {
		return proto.CloneOf(m.known)
	}
	cpu, clock := m.cpuUsed(), readGPUClock(m.root)
	l := &wire.Load{CpuPermille: permille(cpu-m.cpu, time.Duration(float64(passed)*m.cpus()))}
	l.GpuPermille, l.GpuKnown = m.gpuBusy(clock, passed)
	if use, err := m.memory.usage(); err == nil || errors.Is(err, errNoLimit) {
		l.MemoryBytes, l.MemoryLimitBytes = uint64(use.held()), uint64(use.limit)
	}
	m.at, m.cpu, m.gpu, m.known = time.Now(), cpu, clock, l
	return proto.CloneOf(l)
}

func permille(part, whole time.Duration) uint32 {
	if whole <= 0 || part < 0 {
		return 0
	}
	return uint32(min(1000, int64(part)*1000/int64(whole)))
}

// cpuUsed is the CPU time of the worker's cgroup since it began; 0 where that
// cannot be read.
func (m *loadMeter) cpuUsed() time.Duration {
	dir, second, err := findGroup(m.root, "cpuacct")
	if err != nil {
		return 0
	}
	if !second {
		n, _ := number(filepath.Join(dir, "cpuacct.usage"))
		return time.Duration(n)
	}
	b, _ := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	return time.Duration(parseLines(string(b))["usage_usec"]) * time.Microsecond
}

// cpus is how many CPUs the worker may use.
func (m *loadMeter) cpus() float64 {
	all := float64(runtime.NumCPU())
	dir, second, err := findGroup(m.root, "cpu")
	if err != nil {
		return all
	}
	var quota, period int64
	if second {
		b, _ := os.ReadFile(filepath.Join(dir, "cpu.max"))
		quota, period = parseQuota(string(b))
	} else {
		quota, _ = number(filepath.Join(dir, "cpu.cfs_quota_us")) // -1: none
		period, _ = number(filepath.Join(dir, "cpu.cfs_period_us"))
	}
	if quota <= 0 || period <= 0 {
		return all
	}
	return min(all, float64(quota)/float64(period))
}

// gpuBusy is the busiest GPU that tells.
func (m *loadMeter) gpuBusy(clock gpuClock, passed time.Duration) (busiest uint32, known bool) {
	smi, told := m.smi()
	percent, read := busyPercent(m.root)
	busiest = max(smi, percent, clock.since(m.gpu, passed))
	return busiest, told || read || clock.readable
}
