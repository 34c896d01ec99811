package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const usage = `A Kubernetes cluster on this machine, compiled from source, for tests and tries.

  up [--nodes N] [--devices NAME=COUNT,...|all]
                                              start it; at once when it runs
  down                                        stop it, remove every trace but the cache
  status                                      what runs; exit 1 when not healthy
  load TAR...                                 docker-archives into every node
  kubectl -- ARGS...                          kubectl with this cluster's kubeconfig
  kill PART... | start PART... | restart PART...
                                              for tests: SIGKILL, start, or SIGTERM and start;
                                              PART is apiserver, etcd, kubelet, node2/kubelet, ...
  lose NODE RESOURCE/ID... | find NODE RESOURCE/ID...
                                              for tests: a device such as nvidia.com/gpu/gpu-0
                                              becomes unhealthy, or healthy again
  enter NODE [-- COMMAND...]                  a shell or command in a node's namespaces
  check-clean                                 after down: compare the machine with before up

Run as root: go run ./test/cluster up
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"help"}
	}
	name, args := args[0], args[1:]
	commands := map[string]func(context.Context, []string) error{
		"up": up, "down": down, "status": status, "check-clean": checkClean,
		"load": loadCommand, "kubectl": kubectl, "enter": enter,
		"lose": lose, "find": find, "kill": killParts, "start": startParts, "restart": restartParts,
	}
	do, known := commands[name]
	if !known {
		fmt.Print(usage)
		if name == "help" || name == "-h" || name == "--help" {
			return nil
		}
		return fmt.Errorf("no command %q", name)
	}
	if os.Geteuid() != 0 && name != "kubectl" {
		return errors.New("namespaces, mounts and cgroups need root; run this as root")
	}
	err := do(ctx, args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

// lock keeps two invocations from changing the cluster, or filling the cache,
// at the same time. It is released by unlock or by the end of the process.
func lock(cache string) (unlock func(), err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(cache, "cluster.lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		fmt.Println("waiting for another invocation of this command to finish")
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, err
		}
	}
	return func() { f.Close() }, nil
}

func loadCommand(ctx context.Context, archives []string) error {
	if len(archives) == 0 {
		return errors.New("load: no archive named; usage: load TAR [TAR]")
	}
	c, unlock, err := openLocked()
	if err != nil {
		return err
	}
	defer unlock()
	return c.load(ctx, archives...)
}

// kubectl becomes kubectl: same terminal, same exit status.
func kubectl(_ context.Context, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	c, err := open()
	if err != nil {
		return err
	}
	env := os.Environ()
	if os.Getenv("KUBECONFIG") == "" {
		env = append(env, "KUBECONFIG="+kubeconfig)
	}
	return syscall.Exec(c.bin.path("kubectl"), append([]string{"kubectl"}, args...), env)
}

// enter becomes a command, by default a shell, in a node's namespaces.
func enter(_ context.Context, args []string) error {
	c, err := open()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return errors.New("enter: no node named; usage: enter NODE [-- COMMAND...]")
	}
	command := args[1:]
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		command = []string{"/bin/sh"}
	}
	for _, n := range c.nodes() {
		if n.name == args[0] {
			argv := n.enter(command...)
			return syscall.Exec(findTool(argv[0]), argv, os.Environ())
		}
	}
	return fmt.Errorf("no node %q; the cluster has %d, node1 and so on", args[0], c.Nodes)
}

func killParts(ctx context.Context, names []string) error {
	return withParts(names, func(_ *cluster, parts []part) error { return stop(syscall.SIGKILL, parts...) })
}

func startParts(ctx context.Context, names []string) error {
	return withParts(names, func(c *cluster, parts []part) error { return c.start(ctx, parts...) })
}

func restartParts(ctx context.Context, names []string) error {
	return withParts(names, func(c *cluster, parts []part) error {
		if err := stop(syscall.SIGTERM, parts...); err != nil {
			return err
		}
		return c.start(ctx, parts...)
	})
}

func withParts(names []string, do func(*cluster, []part) error) error {
	c, unlock, err := openLocked()
	if err != nil {
		return err
	}
	defer unlock()
	if len(names) == 0 {
		return errors.New("no part named; `status` lists them")
	}
	var parts []part
	for _, name := range names {
		found, err := c.find(name)
		if err != nil {
			return err
		}
		parts = append(parts, found...)
	}
	return do(c, parts)
}
