package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of /proc/PID/stat: USER_HZ is 100 on every
// architecture that Kubernetes runs on.
const ticksPerSecond = 100

// usage is CPU seconds by part.
type usage map[string]float64

// sample of the processes that bytes of a session go through.
type processes struct {
	cpu  map[string]float64 // by pid and start time
	part map[string]string
	self float64
}

// part names the process that a command line belongs to, "" for one through which
// no byte goes. ffmpeg is left out: it is the same on every way.
func part(argv [][]byte) string {
	base := filepath.Base(string(argv[0]))
	first := ""
	if len(argv) > 1 {
		first = string(argv[1])
	}
	switch {
	case base == "kube-apiserver" || first == "kube-apiserver":
		return "apiserver"
	case base == "kubelet" || first == "kubelet":
		return "kubelet"
	case base == "containerd":
		return "containerd"
	case base == "containerd-shim-runc-v2":
		return "containerd-shim"
	case string(argv[0]) == "/ffpod/scheduler":
		return "scheduler"
	case string(argv[0]) == "/ffpod/worker":
		return "worker " + first
	case string(argv[0]) == podDir+"/inside":
		return "reader"
	}
	return ""
}

// snapshot reads what every part has used so far.
func snapshot() processes {
	p := processes{cpu: map[string]float64{}, part: map[string]string{}, self: selfCPU()}
	for pid, argv := range commandLines() {
		name := part(argv)
		if name == "" {
			continue
		}
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(f) < 20 {
			continue
		}
		user, _ := strconv.ParseFloat(f[11], 64)
		system, _ := strconv.ParseFloat(f[12], 64)
		key := pid + " " + f[19]
		p.cpu[key], p.part[key] = (user+system)/ticksPerSecond, name
	}
	return p
}

// since is what was used between two snapshots; nil where the parts do not run on
// this machine.
func (p processes) since(before processes) usage {
	used := usage{"reader": p.self - before.self}
	seen := false
	for key, cpu := range p.cpu {
		seen = seen || p.part[key] == "worker serve"
		used[p.part[key]] += cpu - before.cpu[key]
	}
	if !seen {
		return nil
	}
	return used
}

// commandLines lists the processes of this machine, also those in containers.
func commandLines() map[string][][]byte {
	all := map[string][][]byte{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, err := os.ReadFile(dir + "/cmdline")
		if err == nil && len(b) > 0 {
			all[filepath.Base(dir)] = bytes.Split(b, []byte{0})
		}
	}
	return all
}

// findProcess waits for a process of a program that has the argument.
func findProcess(ctx context.Context, program, argument string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for pid, argv := range commandLines() {
			if string(argv[0]) != program {
				continue
			}
			for _, a := range argv[1:] {
				if string(a) == argument {
					return strconv.Atoi(pid)
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("no process %s of the session is seen in /proc: the worker's node must be this machine, and this user must see its processes", program)
		}
	}
}
