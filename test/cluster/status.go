package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// status prints what runs and fails when something does not.
func status(ctx context.Context, _ []string) error {
	c, err := open()
	if err != nil {
		return err
	}
	fmt.Printf("%-22s %-8s %-9s %s\n", "PART", "PID", "STATE", "LOG")
	var notes []string
	for _, p := range c.parts() {
		process, err := recorded(p.name)
		state := "ready"
		switch {
		case err != nil || !process.alive():
			state = "dead"
		case p.ready != nil:
			if err := p.ready(ctx); err != nil {
				state = "not ready"
				notes = append(notes, fmt.Sprintf("%s: %v", p.name, err))
			}
		}
		if state == "dead" {
			notes = append(notes, fmt.Sprintf("%s does not run; the end of its log:\n%s", p.name, logTail(p.name, 5)))
		}
		fmt.Printf("%-22s %-8d %-9s %s\n", p.name, process.Pid, state, logPath(p.name))
	}
	fmt.Println()
	for _, n := range c.nodes() {
		var object nodeObject
		if err := c.api.get(ctx, "/api/v1/nodes/"+n.name, &object); err != nil {
			notes = append(notes, err.Error())
			continue
		}
		state := "ready"
		if err := object.ready(c.Devices); err != nil {
			state = err.Error()
			notes = append(notes, state)
		}
		info := object.Status.NodeInfo
		fmt.Printf("%s  %s  kubelet %s  %s  linux %s  %s\n", n.name, n.ip(),
			info.KubeletVersion, info.ContainerRuntimeVersion, info.KernelVersion, state)
		for device := range strings.SplitSeq(c.Devices, ",") {
			name, _, _ := strings.Cut(device, "=")
			fmt.Printf("       %s: %s\n", name, object.Status.Allocatable[name])
		}
	}
	if err := resolves(ctx); err != nil {
		notes = append(notes, "DNS: "+err.Error())
	} else {
		fmt.Println("DNS answers")
	}
	fmt.Printf("kubeconfig %s\nbinaries   %s\n", kubeconfig, c.bin.dir)
	if notes != nil {
		return errors.New("not healthy; `restart PART` or `up`\n" + strings.Join(notes, "\n"))
	}
	return nil
}
