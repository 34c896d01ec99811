package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A snapshot is what a cluster could leave behind on a machine, as lines that
// can be compared, by kind.
type snapshot map[string][]string

func beforeFile(cache string) string { return filepath.Join(cache, "cluster", "before.json") }

// recordBefore notes the machine's state before a cluster changes it.
func recordBefore(ctx context.Context, cache string) error {
	data, err := json.Marshal(take(ctx, cache))
	if err != nil {
		return err
	}
	return os.WriteFile(beforeFile(cache), data, 0o644)
}

// checkClean compares the machine with what the last up found.
func checkClean(ctx context.Context, _ []string) error {
	if _, err := os.Stat(stateDir); err == nil {
		return fmt.Errorf("%s exists: the cluster is up; run down first", stateDir)
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(beforeFile(cache))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("nothing to compare with: no cluster was ever started with this cache")
	}
	if err != nil {
		return err
	}
	var before snapshot
	if err := json.Unmarshal(data, &before); err != nil {
		return err
	}
	now := take(ctx, cache)
	var left []string
	for _, kind := range snapshotKinds {
		extra := without(now[kind], before[kind])
		lost := without(before[kind], now[kind])
		fmt.Printf("%-12s %4d before, %4d now\n", kind, len(before[kind]), len(now[kind]))
		for _, line := range extra {
			left = append(left, fmt.Sprintf("  + %s: %s", kind, line))
		}
		for _, line := range lost {
			left = append(left, fmt.Sprintf("  - %s: %s", kind, line))
		}
	}
	if left != nil {
		return errors.New("the machine is not as before:\n" + strings.Join(left, "\n"))
	}
	fmt.Println("the machine is as before")
	return nil
}

func without(lines, others []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(others, line) })
}

var snapshotKinds = [...]string{"mounts", "links", "addresses", "routes", "nft", "namespaces", "cgroups", "processes", "directories", "sysctls"}

// take describes the machine. Processes of others come and go meanwhile, so
// only those of the kinds that a cluster starts are listed.
func take(ctx context.Context, cache string) snapshot {
	s := snapshot{}
	for _, m := range mounts() {
		s["mounts"] = append(s["mounts"], m.point+" "+m.kind+" "+m.source)
	}
	tools := map[string][]string{
		"links":     {"ip", "-brief", "link"},
		"addresses": {"ip", "-brief", "address"},
		"routes":    {"ip", "route", "show", "table", "all"},
		"nft":       {"nft", "list", "tables"},
	}
	for kind, argv := range tools {
		out, err := run(ctx, argv...)
		if err != nil {
			out = err.Error()
		}
		for line := range strings.Lines(out) {
			s[kind] = append(s[kind], strings.Join(strings.Fields(line), " "))
		}
	}
	s["namespaces"] = networkNamespaces()
	s["cgroups"] = cgroupList()
	for _, pid := range processes(func(pid int) bool { return isClusterProgram(pid, cache) }) {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		s["processes"] = append(s["processes"], fmt.Sprint(pid, " ", strings.ReplaceAll(string(args), "\x00", " ")))
	}
	for _, dir := range append(privateDirs[:], "/etc/cni", stateDir, "/var/run/kubernetes", "/usr/libexec/kubernetes", "/run/nri") {
		if _, err := os.Stat(dir); err == nil {
			s["directories"] = append(s["directories"], dir)
		}
	}
	for name, value := range readSysctls() {
		s["sysctls"] = append(s["sysctls"], name+" = "+value)
	}
	return s
}

// networkNamespaces lists those that a process is in or that a file pins.
func networkNamespaces() []string {
	var found []string
	add := func(line string) {
		if line != "" && !slices.Contains(found, line) {
			found = append(found, line)
		}
	}
	processes(func(pid int) bool {
		link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		add(link)
		return false
	})
	for _, m := range mounts() {
		if m.kind == "nsfs" {
			add(m.point)
		}
	}
	return found
}

// cgroupList lists cgroups, without those around the caller's own: whatever
// keeps sessions or jobs apart on this machine makes and removes these.
func cgroupList() []string {
	var volatile []string
	own, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(own)) {
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 && fields[2] != "/" {
			volatile = append(volatile, filepath.Dir(fields[2]))
		}
	}
	var found []string
	for _, root := range hierarchies() {
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil
			}
			inside := strings.TrimPrefix(path, root)
			for _, parent := range volatile {
				if parent != "/" && inside == parent {
					return fs.SkipDir
				}
			}
			found = append(found, path)
			return nil
		})
	}
	return found
}

// isClusterProgram reports whether a process runs one of the cluster's
// binaries, kubectl excepted, or a container's helper.
func isClusterProgram(pid int, cache string) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	program, _, _ := strings.Cut(string(args), "\x00")
	if filepath.Base(program) == "kubectl" {
		return false
	}
	return strings.HasPrefix(exe, filepath.Join(cache, "cluster")+"/") || exe == "/pause" || filepath.Base(exe) == "runc"
}
