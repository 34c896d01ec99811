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
	"syscall"
)

// A mount is one line of /proc/self/mountinfo.
type mount struct{ point, kind, source string }

func mounts() []mount {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var all []mount
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) >= 5 && len(right) >= 2 {
			all = append(all, mount{left[4], right[0], right[1]})
		}
	}
	return all
}

// makeHostNetwork makes the bridge that the nodes are plugged into. Its
// address is the control plane's; nothing of it is reachable from outside,
// because nothing forwards to it.
func makeHostNetwork(ctx context.Context) error {
	taken, err := run(ctx, "ip", "-o", "route", "show", "table", "all", "root", clusterNet)
	if err != nil {
		return err
	}
	if taken != "" {
		return fmt.Errorf("the machine already routes part of %s, which the cluster needs: %s; remove that route",
			clusterNet, strings.TrimSpace(taken))
	}
	return runAll(ctx,
		"ip link add "+bridge+" type bridge",
		"ip address add "+hostIP+"/24 dev "+bridge,
		"ip link set "+bridge+" up")
}

// makePinDir prepares the directory whose files namespaces are bound to: it
// must be a private mount, or the kernel refuses to pin mount namespaces there.
func makePinDir(ctx context.Context) error {
	if err := os.MkdirAll(pinDir, 0o700); err != nil {
		return err
	}
	return runAll(ctx, "mount --bind "+pinDir+" "+pinDir, "mount --make-private "+pinDir)
}

// makeNamespaces creates the node's two namespaces, binds its private
// directories and plugs it into the bridge. The namespaces live until their
// pins are unmounted and their last process ends.
func (n node) makeNamespaces(ctx context.Context) error {
	// unshare, not `ip netns`, which remounts /sys in every process that it
	// starts, and the kubelet then finds no cgroups.
	script := []string{"set -e", "mount --make-rshared /"}
	for _, dir := range privateDirs {
		own := filepath.Join(n.dir(), strings.ReplaceAll(strings.TrimPrefix(dir, "/"), "/", "-"))
		if err := os.MkdirAll(own, 0o755); err != nil {
			return err
		}
		if err := makeMountPoint(dir); err != nil {
			return err
		}
		script = append(script, "mount --bind "+own+" "+dir)
	}
	for _, pin := range []string{n.netPin(), n.mountPin()} {
		if err := os.WriteFile(pin, nil, 0o600); err != nil {
			return err
		}
	}
	// Mounts of the host appear in the node, never the other way round.
	_, err := run(ctx, "unshare", "--net="+n.netPin(), "--mount="+n.mountPin(), "--propagation=slave",
		"sh", "-c", strings.Join(script, "\n"))
	if err != nil {
		return fmt.Errorf("namespaces of %s: %w", n.name, err)
	}
	if err := n.plug(ctx); err != nil {
		return fmt.Errorf("network of %s: %w", n.name, err)
	}
	return nil
}

// plug connects the node's network namespace with the bridge.
func (n node) plug(ctx context.Context) error {
	inside := n.hostLink() + "-in"
	err := runAll(ctx,
		"ip link add "+n.hostLink()+" type veth peer name "+inside,
		"ip link set "+n.hostLink()+" master "+bridge+" up",
		"ip link set "+inside+" netns "+n.netPin(),
		"ip route add "+n.podNet()+" via "+n.ip())
	if err != nil {
		return err
	}
	for _, line := range []string{
		"ip link set lo up",
		"ip link set " + inside + " name eth0",
		"ip address add " + n.ip() + "/24 dev eth0",
		"ip link set eth0 up",
		"ip route add default via " + hostIP,
	} {
		if _, err := run(ctx, n.enter(strings.Fields(line)...)...); err != nil {
			return err
		}
	}
	// /proc/sys/net shows the settings of the reader's network namespace.
	_, err = run(ctx, n.enter("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")...)
	return err
}

// routeTo makes the other node's pods reachable from this one.
func (n node) routeTo(ctx context.Context, other node) error {
	_, err := run(ctx, n.enter("ip", "route", "add", other.podNet(), "via", other.ip())...)
	return err
}

// madeDirsFile lists directories made outside the state directory.
const madeDirsFile = stateDir + "/made-dirs.json"

// makeMountPoint makes a directory of the host for nodes to bind over and
// notes each that was not there, for down to remove.
func makeMountPoint(dir string) error {
	made, err := madeDirs()
	if err != nil {
		return err
	}
	var missing []string
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil {
			break
		}
		missing = append(missing, at)
	}
	if len(missing) == 0 {
		return nil
	}
	// Noted before it is made: a directory too many in the list does no harm,
	// only empty ones are removed.
	data, err := json.Marshal(append(made, missing...))
	if err != nil {
		return err
	}
	if err := os.WriteFile(madeDirsFile, data, 0o644); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o755)
}

// madeDirs is the list, children before parents.
func madeDirs() ([]string, error) {
	var made []string
	data, err := os.ReadFile(madeDirsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &made); err != nil {
		return nil, err
	}
	slices.SortFunc(made, func(a, b string) int { return len(b) - len(a) })
	return made, nil
}

// nsfsMagic is the file system of namespaces. After a reboot a pin is but an
// ordinary file.
const nsfsMagic = 0x6e736673

// namespacePids lists the processes in the nodes' namespaces. Containers have
// namespaces of their own but are in the cluster's cgroups.
func namespacePids() map[int]bool {
	inodes := map[string]bool{}
	pins, _ := filepath.Glob(filepath.Join(pinDir, "*"))
	for _, pin := range pins {
		var stat syscall.Stat_t
		var fs syscall.Statfs_t
		if syscall.Stat(pin, &stat) == nil && syscall.Statfs(pin, &fs) == nil && fs.Type == nsfsMagic {
			inodes[fmt.Sprint(stat.Ino)] = true
		}
	}
	found := map[int]bool{}
	for _, pid := range processes(func(pid int) bool {
		for _, kind := range []string{"mnt", "net"} {
			link, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)) // mnt:[4026532000]
			_, inode, _ := strings.Cut(link, "[")
			if inodes[strings.TrimSuffix(inode, "]")] {
				return true
			}
		}
		return false
	}) {
		found[pid] = true
	}
	return found
}

// removeNetworks unmounts the pins and removes the links, which takes the
// addresses and routes with them.
func removeNetworks(ctx context.Context) error {
	all := mounts()
	slices.Reverse(all) // what was mounted last is unmounted first
	for _, m := range all {
		if m.point == pinDir || strings.HasPrefix(m.point, pinDir+"/") {
			if err := syscall.Unmount(m.point, syscall.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", m.point, err)
			}
		}
	}
	links, err := filepath.Glob("/sys/class/net/ffpod-node*")
	if err != nil {
		return err
	}
	for _, link := range append(links, "/sys/class/net/"+bridge) {
		if _, err := os.Stat(link); err != nil {
			continue
		}
		// A veth may be on its way out with its namespace.
		_, err := run(ctx, "ip", "link", "delete", filepath.Base(link))
		if _, still := os.Stat(link); err != nil && still == nil {
			return err
		}
	}
	return nil
}
