package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// hierarchies lists where cgroups are: on version 2 the one mount at
// /sys/fs/cgroup, on version 1 every controller's. A version 2 mount beside
// version 1 controllers has none of its own and is left out.
func hierarchies() []string {
	const root = "/sys/fs/cgroup"
	var v1 []string
	for _, m := range mounts() {
		switch {
		case m.kind == "cgroup2" && m.point == root:
			return []string{root}
		case m.kind == "cgroup":
			v1 = append(v1, m.point)
		}
	}
	return v1
}

func unifiedHierarchy() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// cgroupDirs are the directories of one of the cluster's cgroups.
func cgroupDirs(name string) []string {
	var dirs []string
	for _, root := range hierarchies() {
		dirs = append(dirs, filepath.Join(root, cgroupName, name))
	}
	return dirs
}

// makeCgroups creates the cgroup of the parts and one for each node's pods.
// Two kubelets on one cgroup root would each remove the other's pods.
func makeCgroups(nodes []node) error {
	names := []string{"system"}
	for _, n := range nodes {
		names = append(names, n.name)
	}
	for _, root := range hierarchies() {
		top := filepath.Join(root, cgroupName)
		if err := makeCgroup(top); err != nil {
			return err
		}
		for _, name := range names {
			if err := makeCgroup(filepath.Join(top, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeCgroup creates one directory that processes can be put into at once.
func makeCgroup(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cgroup: %w; the cluster needs a writable /sys/fs/cgroup", err)
	}
	parent := filepath.Dir(dir)
	if unifiedHierarchy() {
		// Children get only the controllers that their parent passes on. A
		// controller that cannot be is the kubelet's to complain about.
		available, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, controller := range strings.Fields(string(available)) {
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0)
		}
		return nil
	}
	// A new cpuset is empty, and nothing can be put into an empty one.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another controller
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
			return err
		}
	}
	return nil
}

// cgroupPids lists the processes in the cluster's cgroups, pods' included.
func cgroupPids() map[int]bool {
	pids := map[int]bool{}
	for _, root := range hierarchies() {
		_ = filepath.WalkDir(filepath.Join(root, cgroupName), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Name() != "cgroup.procs" {
				return nil // gone meanwhile, or not a list of processes
			}
			data, _ := os.ReadFile(path)
			for _, text := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(text); err == nil && pid > 0 {
					pids[pid] = true
				}
			}
			return nil
		})
	}
	return pids
}

// removeCgroups removes the cluster's cgroups, which must be empty. The kernel
// frees one a moment after its last process, hence the patience.
func removeCgroups() error {
	for _, root := range hierarchies() {
		top := filepath.Join(root, cgroupName)
		for attempt := 0; ; attempt++ {
			err := removeTree(top)
			if err == nil {
				break
			}
			if attempt == 50 {
				return fmt.Errorf("cgroup: %w; see cgroup.procs there for what is left", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// removeTree removes directories only: the files in a cgroup go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
