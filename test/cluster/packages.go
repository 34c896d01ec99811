package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// tools are the programs a cluster needs from the machine, with the Debian
// package of each. runc is Debian's because one built without cgo lacks
// seccomp, which the container runtime asks for.
var tools = [...]struct{ program, pkg string }{
	{"runc", "runc"},
	{"nft", "nftables"}, // kube-proxy programs Services with it
	{"ip", "iproute2"},
	{"nsenter", "util-linux"},
	{"unshare", "util-linux"},
	{"mount", "mount"},
	{"/usr/lib/cni/ptp", "containernetworking-plugins"},
}

// installTools installs what is missing. Package lists are fetched only when
// the ones at hand do not do.
func installTools(ctx context.Context) error {
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("not installed: %s; install these (the names are Debian's), there is no apt-get to do it",
			strings.Join(missing, ", "))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("not installed: %s; run this as root", strings.Join(missing, ", "))
	}
	argv := append([]string{"env", "DEBIAN_FRONTEND=noninteractive",
		"apt-get", "install", "-y", "-qq", "--no-install-recommends"}, missing...)
	return step("installing "+strings.Join(missing, " "), func() error {
		if _, err := run(ctx, argv...); err == nil {
			return nil
		}
		if _, err := run(ctx, "apt-get", "update", "-qq"); err != nil {
			return err
		}
		_, err := run(ctx, argv...)
		return err
	})
}

func missingPackages() []string {
	var missing []string
	for _, tool := range tools {
		if findTool(tool.program) != "" || slices.Contains(missing, tool.pkg) {
			continue
		}
		missing = append(missing, tool.pkg)
	}
	return missing
}

// findTool looks in PATH and in the directories that a user's PATH may lack.
// CNI plugins are looked for where either packages or releases put them.
func findTool(program string) string {
	candidates := []string{filepath.Join("/usr/sbin", program), filepath.Join("/sbin", program)}
	if filepath.IsAbs(program) {
		candidates = []string{program, filepath.Join("/opt/cni/bin", filepath.Base(program))}
	} else if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}
