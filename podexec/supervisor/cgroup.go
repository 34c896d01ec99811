package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// memoryGroup is a memory cgroup: where its files are, and which they are.
type memoryGroup struct {
	dir string
	memoryFiles
}

// memoryFiles are the names of what cgroup v1 and v2 tell of memory.
type memoryFiles struct {
	limit, usage, stat string
	cache              []string // keys of stat: what the kernel gives up first
	events             string   // has a line oom_kill
}

func memoryV1() memoryFiles {
	return memoryFiles{
		limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", stat: "memory.stat",
		cache: []string{"total_inactive_file", "total_active_file"}, events: "memory.oom_control",
	}
}

func memoryV2() memoryFiles {
	return memoryFiles{
		limit: "memory.max", usage: "memory.current", stat: "memory.stat",
		cache: []string{"inactive_file", "active_file", "slab_reclaimable"}, events: "memory.events",
	}
}

// memoryUse is one look, in bytes.
type memoryUse struct{ limit, usage, cache int64 }

// held is what the kernel cannot give back without killing. The page cache of
// files does not count, also not the active part: a film that is read twice would
// end sessions otherwise.
func (u memoryUse) held() int64 { return max(0, u.usage-u.cache) }

func (u memoryUse) short() bool { return u.held() >= u.limit/100*memoryBound }

var errNoLimit = errors.New("none is set")

func (g memoryGroup) usage() (memoryUse, error) {
	var u memoryUse
	var err error
	if u.limit, err = g.number(g.limit); err != nil {
		return u, err
	}
	if u.usage, err = g.number(g.memoryFiles.usage); err != nil {
		return u, err
	}
	lines, err := g.lines(g.stat)
	for _, key := range g.cache {
		u.cache += min(lines[key], u.usage)
	}
	if err == nil && u.limit >= math.MaxInt64>>1 { // v1's "none" is the largest number of pages
		u.limit, err = 0, errNoLimit
	}
	return u, err
}

// kills is how many processes of the group the kernel has killed for memory; 0
// where it does not tell.
func (g memoryGroup) kills() uint64 {
	lines, _ := g.lines(g.events)
	return uint64(lines["oom_kill"])
}

func (g memoryGroup) number(name string) (int64, error) { return number(filepath.Join(g.dir, name)) }

// number reads a file of the kernel that holds one number or "max".
func number(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(b))
	if text == "max" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s holds %.40q, not a number", path, text)
	}
	return n, nil
}

func (g memoryGroup) lines(name string) (map[string]int64, error) {
	b, err := os.ReadFile(filepath.Join(g.dir, name))
	return parseLines(string(b)), err
}

// parseLines reads "key number" lines, as memory.stat and memory.events have them.
// What is neither is passed over.
func parseLines(text string) map[string]int64 {
	all := map[string]int64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
			all[key] = n
		}
	}
	return all
}

// findMemoryGroup finds the memory cgroup of this process below root, which is /
// outside tests.
func findMemoryGroup(root string) (memoryGroup, error) {
	dir, second, err := findGroup(root, "memory")
	switch {
	case err != nil:
		return memoryGroup{}, err
	case second:
		return memoryGroup{dir, memoryV2()}, nil
	}
	return memoryGroup{dir, memoryV1()}, nil
}

// findGroup finds this process's cgroup of a controller, of v1 where that has it,
// and tells whether it is of v2. In a container the hierarchy's mount shows the
// container's group as its top, whatever /proc/self/cgroup calls it.
func findGroup(root, controller string) (dir string, second bool, err error) {
	own, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return "", false, err
	}
	mounts, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return "", false, err
	}
	v1, v2 := parseCgroups(string(own), controller)
	for lines := bufio.NewScanner(strings.NewReader(string(mounts))); lines.Scan(); {
		m, ok := parseMount(lines.Text())
		switch {
		case !ok:
		case m.fs == "cgroup" && slices.Contains(m.options, controller) && v1 != "":
			return filepath.Join(root, m.path(v1)), false, nil
		case m.fs == "cgroup2" && v2 != "" && dir == "":
			dir = filepath.Join(root, m.path(v2))
		}
	}
	if dir == "" {
		return "", false, fmt.Errorf("no %s cgroup is mounted", controller)
	}
	return dir, true, nil
}

// parseCgroups finds the group of a controller of v1 and the one of v2 in
// /proc/self/cgroup; "" where there is none.
func parseCgroups(text, controller string) (v1, v2 string) {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") {
			continue
		}
		if parts[0] == "0" && parts[1] == "" {
			v2 = parts[2]
		}
		if slices.Contains(strings.Split(parts[1], ","), controller) {
			v1 = parts[2]
		}
	}
	return v1, v2
}

// cgroupMount is a line of /proc/self/mountinfo.
type cgroupMount struct {
	top, point, fs string
	options        []string // of the file system: v1's controllers
}

// parseMount reads one line: "ID PARENT DEV TOP POINT OPTIONS [TAG...] - FS SOURCE
// SUPER", see proc_pid_mountinfo(5).
func parseMount(line string) (m cgroupMount, ok bool) {
	before, after, found := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !found || len(left) < 6 || len(right) < 3 {
		return m, false
	}
	return cgroupMount{top: unescape(left[3]), point: unescape(left[4]), fs: right[0], options: strings.Split(right[2], ",")}, true
}

// path is where the mount shows a group. One that it does not show is taken for
// its top: a namespace calls it otherwise.
func (m cgroupMount) path(group string) string {
	rest, inside := strings.CutPrefix(group, strings.TrimSuffix(m.top, "/"))
	if !inside || rest != "" && rest[0] != '/' || strings.Contains(rest+"/", "/../") {
		return m.point
	}
	return filepath.Join(m.point, rest)
}
