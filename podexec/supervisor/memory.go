package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The kernel's answer to a full memory cgroup may be to kill the whole container
// (memory.oom.group, which kubelets set), hence every session of the worker. So
// the largest session is ended a little before.
const (
	// memoryPoll is the time between looks while there is room, memoryLeast the one
	// while there is none: a session may take as much as memoryGrowth a second.
	memoryPoll   = 250 * time.Millisecond
	memoryLeast  = 10 * time.Millisecond
	memoryGrowth = 4 << 30
	memoryBound  = 95 // per cent of the limit
	// memoryBlame is the share of the limit, in per cent, that all sessions
	// together must hold to be worth ending: a volume in memory that is full is
	// not emptied by it.
	memoryBlame = 100 - memoryBound
	// memorySettle is how long a killed session may take to give its memory back,
	// before a second one is ended.
	memorySettle = 2 * time.Second
)

// memoryWatch keeps the sessions of a worker from being killed for one of them.
// It polls only while sessions run. It is safe for concurrent use; its goroutine
// ends with the last session.
//
//	leave := watch.enter(group, end)   after the fork
//	killed := leave()                  after the reap
type memoryWatch struct {
	group memoryGroup
	proc  string        // where procfs is
	every time.Duration // the longest time between looks

	mu    sync.Mutex
	held  map[*watched]struct{}
	stop  chan struct{} // closed for the goroutine to end; nil while there is none
	ended chan struct{} // closed when it is gone
}

// watched is one session that runs.
type watched struct {
	pgid  int
	end   func(used, limit int64)
	kills uint64    // of the kernel in this cgroup, before the session
	told  time.Time // when its end was ordered
}

// newMemoryWatch finds the memory cgroup of this process. Its error says why there
// is nothing to watch; the watch it returns then does nothing.
func newMemoryWatch() (*memoryWatch, error) {
	group, err := findMemoryGroup("/")
	if err == nil {
		_, err = group.usage()
	}
	if err != nil {
		return nil, fmt.Errorf("memory limit of this worker: %w", err)
	}
	return &memoryWatch{group: group, proc: "/proc", every: memoryPoll, held: map[*watched]struct{}{}}, nil
}

// enter watches the process group of a session that has begun. end is called at
// most once, when the session has to go; it must not wait for leave. leave is
// called when the group is gone, and tells whether the kernel killed a process of
// this worker for its memory meanwhile.
func (m *memoryWatch) enter(pgid int, end func(used, limit int64)) (leave func() (killed bool)) {
	if m == nil {
		return func() bool { return false }
	}
	w := &watched{pgid: pgid, end: end, kills: m.group.kills()}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[w] = struct{}{}
	if m.stop == nil {
		stop, ended := make(chan struct{}), make(chan struct{})
		m.stop, m.ended = stop, ended
		go func() { defer close(ended); m.poll(stop) }()
	}
	return func() bool { return m.leave(w) }
}

func (m *memoryWatch) leave(w *watched) bool {
	killed := m.group.kills() > w.kills
	m.mu.Lock()
	delete(m.held, w)
	stop, ended := m.stop, m.ended
	last := len(m.held) == 0 && stop != nil
	if last {
		m.stop = nil
		close(stop)
	}
	m.mu.Unlock()
	if last {
		<-ended
	}
	return killed
}

func (m *memoryWatch) poll(stop <-chan struct{}) {
	timer := time.NewTimer(min(memoryLeast, m.every))
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case now := <-timer.C:
			timer.Reset(m.look(now))
		}
	}
}

// look ends the largest session if memory is short. It returns how soon to look
// again.
func (m *memoryWatch) look(now time.Time) time.Duration {
	use, err := m.group.usage()
	if err != nil {
		return m.every
	}
	if use.short() {
		m.endLargest(use, now)
	}
	return min(m.every, use.pace())
}

// pace is the time in which memory may be short.
func (u memoryUse) pace() time.Duration {
	room := u.limit/100*memoryBound - u.held()
	return max(memoryLeast, time.Duration(float64(room)/memoryGrowth*float64(time.Second)))
}

func (m *memoryWatch) endLargest(use memoryUse, now time.Time) {
	m.mu.Lock()
	w := m.largest(use.limit, now)
	if w != nil {
		w.told = now
	}
	m.mu.Unlock()
	if w != nil {
		w.end(use.held(), use.limit)
	}
}

// largest is the session to end, nil when that would not help or one is going
// already.
func (m *memoryWatch) largest(limit int64, now time.Time) *watched {
	sizes := groupSizes(m.proc)
	var most *watched
	var sum int64
	for w := range m.held {
		size := sizes[w.pgid]
		sum += size
		switch {
		case w.told.IsZero():
			if most == nil || size > sizes[most.pgid] {
				most = w
			}
		case now.Sub(w.told) < memorySettle:
			return nil
		}
	}
	if sum < limit/100*memoryBlame {
		return nil
	}
	return most
}

// groupSizes is the resident memory of each process group, in bytes.
func groupSizes(proc string) map[int]int64 {
	sizes := map[int]int64{}
	page := int64(os.Getpagesize())
	for _, pid := range processes(proc) {
		if s, ok := readStat(proc, pid); ok {
			sizes[s.pgid] += s.pages * page
		}
	}
	return sizes
}

// stat is what is asked of /proc/PID/stat.
type stat struct {
	state        string
	parent, pgid int
	flags        uint64 // PF_* of the kernel
	pages        int64  // resident
	bare         bool   // no environment is set up, or it is not ours to see
}

// dead tells whether the process runs no more of its program.
func (s stat) dead() bool {
	const exiting = 0x4
	return s.state == "Z" || s.state == "X" || s.flags&exiting != 0
}

func readStat(proc string, pid int) (stat, bool) {
	b, err := os.ReadFile(proc + "/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	return parseStat(string(b))
}

// parseStat reads past the program's name, which may hold anything.
func parseStat(line string) (s stat, ok bool) {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 22 {
		return s, false
	}
	s.state = fields[0]
	var errs [4]error
	s.parent, errs[0] = strconv.Atoi(fields[1])
	s.pgid, errs[1] = strconv.Atoi(fields[2])
	s.pages, errs[2] = strconv.ParseInt(fields[21], 10, 64)
	s.flags, errs[3] = strconv.ParseUint(fields[6], 10, 64)
	s.bare = len(fields) > 48 && fields[48] == "0"
	return s, errors.Join(errs[:]...) == nil && s.pages >= 0 && s.pages < 1<<40
}

// processes lists the ids of what runs.
func processes(proc string) []int {
	d, err := os.Open(proc)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var all []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			all = append(all, pid)
		}
	}
	return all
}
