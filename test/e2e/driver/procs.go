package main

import (
	"os"
	"strconv"
	"strings"

	"github.com/ffpod/ffpod/test/e2e"
)

// processes lists /proc without this process itself.
func processes() []e2e.Process {
	all := []e2e.Process{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it is gone
		}
		// The name in parentheses may hold anything.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		parent, _ := strconv.Atoi(fields[1])
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		all = append(all, e2e.Process{PID: pid, Parent: parent, State: fields[0], Args: args})
	}
	return all
}
