package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// allDevices is what --devices all means: every resource by which GPUs are given
// out, whole, shared or in parts. Of AMD's there is one, as in most homes.
const allDevices = "nvidia.com/gpu=2,nvidia.com/gpu.shared=4,nvidia.com/mig-1g.5gb=2,gpu.intel.com/i915=2,gpu.intel.com/xe=2,amd.com/gpu=1"

// lostFile names the devices of a node that are lost.
func lostFile(node string) string { return filepath.Join(stateDir, "lost-"+node) }

// lose makes devices unhealthy: lose NODE RESOURCE/ID..., as nvidia.com/gpu/gpu-0.
// The kubelet learns it within a second. What runs on them goes on, as it does
// beside a GPU that has fallen off the bus.
func lose(ctx context.Context, args []string) error {
	return setLost(args, func(lost []string, device string) []string { return append(lost, device) })
}

// find makes lost devices healthy again.
func find(ctx context.Context, args []string) error {
	return setLost(args, func(lost []string, device string) []string {
		return slices.DeleteFunc(lost, func(d string) bool { return d == device })
	})
}

func setLost(args []string, change func([]string, string) []string) error {
	if len(args) < 2 {
		return errors.New("which? NODE RESOURCE/ID..., as node1 nvidia.com/gpu/gpu-0")
	}
	c, unlock, err := openLocked()
	if err != nil {
		return err
	}
	defer unlock()
	if !slices.ContainsFunc(c.nodes(), func(n node) bool { return n.name == args[0] }) {
		return fmt.Errorf("no node %q", args[0])
	}
	text, err := os.ReadFile(lostFile(args[0]))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	lost := strings.Fields(string(text))
	for _, device := range args[1:] {
		lost = change(lost, device)
	}
	slices.Sort(lost)
	return os.WriteFile(lostFile(args[0]), []byte(strings.Join(slices.Compact(lost), "\n")+"\n"), 0o644)
}
