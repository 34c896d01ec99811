package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// up makes sure that a healthy cluster runs: it leaves one as it is, removes
// the remains of any other, and starts anew.
func up(ctx context.Context, args []string) error {
	began := time.Now()
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	nodes := flags.Int("nodes", 1, "number of nodes")
	devices := flags.String("devices", "all", "`NAME=COUNT,...` of pretended devices on each node; all: every name by which GPUs are given out")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *devices == "all" {
		*devices = allDevices
	}
	if *nodes < 1 || *nodes > maxNodes || flags.NArg() > 0 {
		return fmt.Errorf("up: --nodes is 1 to %d, and there are no arguments", maxNodes)
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

	asked := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { asked[f.Name] = true })
	running, err := reuse(ctx, asked, *nodes, *devices)
	if err != nil {
		return err
	}
	if running == nil {
		source, err := sourceDir()
		if err != nil {
			return err
		}
		bin, err := prepare(ctx, source, cache)
		if err != nil {
			return err
		}
		running = &cluster{bin: bin, settings: settings{
			Nodes: *nodes, Devices: *devices, Binaries: bin.dir, Kubernetes: bin.kubernetes,
		}}
		if err := running.boot(ctx, cache); err != nil {
			return fmt.Errorf("%w\n  what was started is left for you to look at; `up` starts anew, `down` removes it", err)
		}
	}
	if err := running.bin.publish(cache); err != nil {
		return err
	}
	fmt.Printf("cluster is up: Kubernetes %s, %d node(s), %.1fs\n\n", running.Kubernetes, running.Nodes, time.Since(began).Seconds())
	fmt.Printf("export KUBECONFIG=%s\n", kubeconfig)
	fmt.Printf("alias kubectl=%s\n", filepath.Join(cache, "bin", "kubectl"))
	return nil
}

// reuse returns the cluster that runs if it is healthy and what was asked for,
// nil after removing one that is not healthy.
func reuse(ctx context.Context, asked map[string]bool, nodes int, devices string) (*cluster, error) {
	c, err := open()
	if err == nil {
		if err = c.healthy(ctx); err == nil {
			if asked["nodes"] && nodes != c.Nodes || asked["devices"] && devices != c.Devices {
				return nil, fmt.Errorf("a cluster of %d node(s) with %s each runs already; run down first", c.Nodes, c.Devices)
			}
			return c, nil
		}
	}
	if !errors.Is(err, errNoCluster) {
		fmt.Printf("the cluster found is not healthy and will be replaced:\n  %v\n", err)
	}
	return nil, removeAll(ctx)
}

// prepare brings tools and binaries to the machine.
func prepare(ctx context.Context, source, cache string) (binaries, error) {
	if err := installTools(ctx); err != nil {
		return binaries{}, err
	}
	bin, err := locate(source, cache)
	if err != nil {
		return bin, err
	}
	if bin.complete() {
		return bin, nil
	}
	return bin, bin.build(ctx, source)
}

// boot starts everything. The control plane and the nodes' containerd come up
// side by side; what needs the API server waits for it.
func (c *cluster) boot(ctx context.Context, cache string) error {
	fmt.Printf("starting Kubernetes %s with %d node(s), usually 10 to 20 seconds\n", c.Kubernetes, c.Nodes)
	if err := recordBefore(ctx, cache); err != nil {
		return err
	}
	if err := step("certificates and configuration", c.writeFiles); err != nil {
		return err
	}
	if err := step("namespaces, links and cgroups", func() error { return c.makeMachines(ctx) }); err != nil {
		return err
	}
	runtimes := []part{c.etcd()}
	for _, n := range c.nodes() {
		runtimes = append(runtimes, c.containerd(n))
	}
	if err := step("etcd and containerd", func() error { return c.start(ctx, runtimes...) }); err != nil {
		return err
	}
	if err := step("API server, pause image", func() error { return c.startAPI(ctx) }); err != nil {
		return err
	}
	if err := step("controllers, kubelets, proxies, DNS", func() error { return c.startRest(ctx) }); err != nil {
		return err
	}
	return step("nodes ready, devices, DNS answers", func() error { return c.awaitReady(ctx) })
}

// writeFiles writes all that the parts read.
func (c *cluster) writeFiles() error {
	for _, dir := range []string{stateDir, volumeDir} {
		// Searchable by all: claims are directories under it.
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := saveSysctls(); err != nil {
		return err
	}
	if err := writePKI(c.nodes()); err != nil {
		return err
	}
	if err := writeConfigs(c.nodes()); err != nil {
		return err
	}
	var err error
	if c.api, err = newAPIClient(); err != nil {
		return err
	}
	return c.save()
}

// makeMachines makes what the nodes consist of.
func (c *cluster) makeMachines(ctx context.Context) error {
	if err := makeCgroups(c.nodes()); err != nil {
		return err
	}
	if err := makePinDir(ctx); err != nil {
		return err
	}
	if err := makeHostNetwork(ctx); err != nil {
		return err
	}
	for _, n := range c.nodes() {
		if err := n.makeNamespaces(ctx); err != nil {
			return err
		}
	}
	for _, n := range c.nodes() {
		for _, other := range c.nodes() {
			if n == other {
				continue
			}
			if err := n.routeTo(ctx, other); err != nil {
				return err
			}
		}
	}
	// Services, from the host: the first node's proxy does it.
	return runAll(ctx, "ip route add "+serviceNet+" via "+c.nodes()[0].ip())
}

// startAPI starts the API server and imports the pause image meanwhile.
func (c *cluster) startAPI(ctx context.Context) error {
	var importing sync.WaitGroup
	failures := make([]error, c.Nodes)
	for i, n := range c.nodes() {
		importing.Go(func() { _, failures[i] = c.loadOne(ctx, n, c.bin.path("pause.tar")) })
	}
	err := c.start(ctx, c.apiserver())
	importing.Wait()
	return errors.Join(append(failures, err)...)
}

// startRest starts all parts that are clients of the API server, and creates
// the objects that some of them need.
func (c *cluster) startRest(ctx context.Context) error {
	var applying sync.WaitGroup
	var failure error
	applying.Go(func() {
		_, failure = run(ctx, c.bin.path("kubectl"), "--kubeconfig="+kubeconfig, "apply", "--server-side", "--filename="+addonsFile)
	})
	err := c.start(ctx, c.parts()...) // those that run already are left alone
	applying.Wait()
	return errors.Join(failure, err)
}

// awaitReady returns when pods can run, have devices, and find each other.
func (c *cluster) awaitReady(ctx context.Context) error {
	for _, check := range []func(context.Context) error{c.nodesReady, c.podsCanStart, resolves} {
		if err := poll(ctx, patience, 100*time.Millisecond, check); err != nil {
			return fmt.Errorf("%w; the logs are in %s", err, logDir)
		}
	}
	return nil
}
