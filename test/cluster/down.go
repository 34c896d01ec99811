package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"
	"syscall"
	"time"
)

// down stops the cluster, if there is one or the remains of one.
func down(ctx context.Context, args []string) error {
	if len(args) > 0 {
		return errors.New("down takes no arguments")
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	unlock, err := lock(cache)
	if err != nil {
		return err
	}
	defer unlock()
	began := time.Now()
	if err := removeAll(ctx); err != nil {
		return err
	}
	fmt.Printf("cluster is down, %.1fs; compiled binaries stay in %s\n", time.Since(began).Seconds(), cache)
	return nil
}

// removeAll takes a cluster apart, whatever state it is in: processes first,
// then what they held. It needs no settings and is no error to repeat.
func removeAll(ctx context.Context) error {
	if err := killAll(); err != nil {
		return err
	}
	if err := removeNetworks(ctx); err != nil {
		return err
	}
	if err := removeCgroups(); err != nil {
		return err
	}
	if err := restoreSysctls(); err != nil {
		return err
	}
	made, err := madeDirs()
	if err != nil {
		return err
	}
	for _, m := range mounts() {
		if strings.HasPrefix(m.point, stateDir+"/") {
			return fmt.Errorf("%s is still a mount, its files are left alone; unmount it", m.point)
		}
	}
	if err := os.RemoveAll(stateDir); err != nil {
		return err
	}
	for _, dir := range made {
		_ = os.Remove(dir) // not empty: someone else's by now
	}
	return nil
}

// killAll ends every process of the cluster, including the pods': those in its
// cgroups and those in its nodes' namespaces. No process is found by name.
func killAll() error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		left := cgroupPids()
		maps.Copy(left, namespacePids())
		delete(left, os.Getpid())
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes outlive SIGKILL: %v; one in uninterruptible sleep needs its I/O to end", left)
		}
		for pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// sysctls are the machine's settings that a kubelet changes on its start.
var sysctls = [...]string{
	"vm/overcommit_memory", "vm/panic_on_oom",
	"kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

const sysctlFile = stateDir + "/sysctls.json"

func readSysctls() map[string]string {
	values := map[string]string{}
	for _, name := range sysctls {
		if value, err := os.ReadFile("/proc/sys/" + name); err == nil {
			values[name] = strings.TrimSpace(string(value))
		}
	}
	return values
}

func saveSysctls() error {
	data, err := json.Marshal(readSysctls())
	if err != nil {
		return err
	}
	return os.WriteFile(sysctlFile, data, 0o644)
}

// restoreSysctls puts back what saveSysctls found. After a reboot that is what
// the machine has by itself.
func restoreSysctls() error {
	data, err := os.ReadFile(sysctlFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var values map[string]string
	if err := json.Unmarshal(data, &values); err != nil {
		return fmt.Errorf("%s: %w; remove the file to go on without", sysctlFile, err)
	}
	now := readSysctls()
	for name, value := range values {
		if now[name] == value {
			continue
		}
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("restore sysctl: %w", err)
		}
	}
	return nil
}
