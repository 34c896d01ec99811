package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const schedulerPort = 7443

// ports are the local ports of the session's connections to the scheduler.
func (s *session) ports() []int {
	inodes := map[string]bool{}
	base := fmt.Sprintf("/proc/%d", s.proc.Pid)
	fds, _ := os.ReadDir(base + "/fd")
	for _, fd := range fds {
		link, _ := os.Readlink(base + "/fd/" + fd.Name()) // socket:[1234]
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	table, _ := os.ReadFile(base + "/net/tcp")
	var found []int
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 10 || !inodes[f[9]] || !strings.HasSuffix(f[2], fmt.Sprintf(":%04X", schedulerPort)) {
			continue
		}
		_, hex, _ := strings.Cut(f[1], ":")
		if port, err := strconv.ParseInt(hex, 16, 32); err == nil {
			found = append(found, int(port))
		}
	}
	return found
}

// awaitPorts waits for a session's connection: one that starts has none yet.
func (s *session) awaitPorts(ctx context.Context) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if ports := s.ports(); len(ports) > 0 {
			return ports, nil
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return nil, errEnded
		case <-ctx.Done():
			return nil, fmt.Errorf("%s has no connection", s.mark)
		}
	}
}

// netns runs a command of the machine in the network namespace of a process.
func netns(pid int, stdin string, argv ...string) error {
	// Not bound to the run's context: what was put up must come down.
	cmd := exec.Command("nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", pid), "--"}, argv...)...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s in the network of process %d: %w: %s", argv[0], pid, err, bytes.TrimSpace(out))
	}
	return nil
}

// reset destroys sockets that match, as if the peer had sent RST; the peer gets one.
func reset(pid int, match ...string) error {
	return netns(pid, "", append([]string{"ss", "-K", "-t", "-n"}, match...)...)
}

// tables get names of their own: two may be up in one namespace.
var tables atomic.Int64

// filtered puts rules into a network namespace for a time. Both directions see
// the rules; `in` and `out` also name who goes through a node.
func filtered(ctx context.Context, pid int, d time.Duration, rules ...string) error {
	name := fmt.Sprintf("chaos%d", tables.Add(1))
	body := strings.Join(rules, "\n")
	text := fmt.Sprintf("table inet %s {\n", name)
	for hook, chain := range map[string]string{"input": "in", "output": "out", "forward": "through"} {
		text += fmt.Sprintf("chain %s { type filter hook %s priority -200; policy accept;\n%s\n}\n", chain, hook, body)
	}
	if err := netns(pid, text+"}\n", "nft", "-f", "-"); err != nil {
		return err
	}
	lasting(ctx, d)
	return netns(pid, "", "nft", "delete", "table", "inet", name)
}

func resetShim(ctx context.Context, w *world, at []*session) (time.Time, error) {
	ports, err := at[0].awaitPorts(ctx)
	if err != nil {
		return time.Now(), err
	}
	for _, p := range ports {
		err = errors.Join(err, reset(w.clientPid, "sport", "=", fmt.Sprintf(":%d", p)))
	}
	return time.Now(), err
}

// resetShimFar is the same from the scheduler's end.
func resetShimFar(ctx context.Context, w *world, at []*session) (time.Time, error) {
	ports, err := at[0].awaitPorts(ctx)
	if err != nil {
		return time.Now(), err
	}
	scheduler, err := w.scheduler(ctx)
	if err != nil {
		return time.Now(), err
	}
	for _, p := range ports {
		err = errors.Join(err, reset(scheduler.pid, "dport", "=", fmt.Sprintf(":%d", p)))
	}
	return time.Now(), err
}

// blockShim drops or rejects the packets of the connection that a session has.
func blockShim(verdict string, d time.Duration) strike {
	return func(ctx context.Context, w *world, at []*session) (time.Time, error) {
		ports, err := at[0].awaitPorts(ctx)
		if err != nil {
			return time.Now(), err
		}
		var rules []string
		for _, p := range ports {
			// A reset of ours must get through.
			rules = append(rules, fmt.Sprintf("tcp sport %d tcp flags & rst == 0 %s", p, verdict), fmt.Sprintf("tcp dport %d tcp flags & rst == 0 %s", p, verdict))
		}
		err = filtered(ctx, w.clientPid, d, rules...)
		return time.Now(), err
	}
}

// blockClients drops everything between the client pod and the scheduler, new
// connections too.
func blockClients(d time.Duration) strike {
	return func(ctx context.Context, w *world, _ []*session) (time.Time, error) {
		err := filtered(ctx, w.clientPid, d, fmt.Sprintf("tcp dport %d drop", schedulerPort), fmt.Sprintf("tcp sport %d drop", schedulerPort))
		return time.Now(), err
	}
}

// resetChannels breaks every connection of the scheduler with the API server.
func resetChannels(ctx context.Context, w *world, _ []*session) (time.Time, error) {
	p, err := w.scheduler(ctx)
	if err != nil {
		return time.Now(), err
	}
	return time.Now(), reset(p.pid, "dport", "=", ":443")
}

func blockChannels(d time.Duration) strike {
	return func(ctx context.Context, w *world, _ []*session) (time.Time, error) {
		p, err := w.scheduler(ctx)
		if err != nil {
			return time.Now(), err
		}
		err = filtered(ctx, p.pid, d, "tcp dport 443 drop", "tcp sport 443 drop")
		return time.Now(), err
	}
}

// resetKubeletLinks breaks every connection of the API server with the workers'
// kubelet.
func resetKubeletLinks(ctx context.Context, w *world, _ []*session) (time.Time, error) {
	pid, err := w.part("node2/kubelet")
	if err != nil {
		return time.Now(), err
	}
	return time.Now(), reset(pid, "sport", "=", ":10250")
}

// cutNode takes a node off the network.
func cutNode(node string, d time.Duration) strike {
	return func(ctx context.Context, w *world, _ []*session) (time.Time, error) {
		pid, err := w.part(node + "/kubelet")
		if err != nil {
			return time.Now(), err
		}
		err = filtered(ctx, pid, d, `iifname "eth0" drop`, `oifname "eth0" drop`)
		return time.Now(), err
	}
}
