package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A part is one process of the cluster.
type part struct {
	name  string // apiserver, node1/kubelet
	argv  []string
	env   []string
	ready func(context.Context) error // nil: as soon as it runs
}

// patience is how long a part may take to become ready. A loaded machine needs
// far more than the usual few seconds.
const patience = 90 * time.Second

// parts lists every process in the order of starting.
func (c *cluster) parts() []part {
	all := []part{c.etcd(), c.apiserver(), c.controllerManager(), c.scheduler(), c.coredns(), c.provisioner()}
	for _, n := range c.nodes() {
		all = append(all, c.containerd(n), c.kubelet(n), c.kubeProxy(n), c.devicePlugin(n))
	}
	return all
}

// find returns the parts that a name means: the very part, or the one of that
// name on every node.
func (c *cluster) find(name string) ([]part, error) {
	var found []part
	var names []string
	for _, p := range c.parts() {
		if p.name == name || strings.HasSuffix(p.name, "/"+name) {
			found = append(found, p)
		}
		names = append(names, p.name)
	}
	if found == nil {
		return nil, fmt.Errorf("no part %q; the parts are %s", name, strings.Join(names, ", "))
	}
	return found, nil
}

// environment is the same for every part, whoever starts it.
func (c *cluster) environment() []string {
	return []string{
		"PATH=" + c.bin.dir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + stateDir,
		"LANG=C.UTF-8",
	}
}

// hostPart is a program of the node binary on the host.
func (c *cluster) hostPart(name string, ready func(context.Context) error, program string, args ...string) part {
	argv := append([]string{c.bin.path("node"), program}, args...)
	return part{name: name, argv: argv, env: c.environment(), ready: ready}
}

func (c *cluster) nodePart(n node, name string, ready func(context.Context) error, argv ...string) part {
	return part{name: n.name + "/" + name, argv: n.enter(argv...), env: c.environment(), ready: ready}
}

func (c *cluster) etcd() part {
	return c.hostPart("etcd", httpOK(etcdURL+"/health"), "etcd",
		"--name=ffpod", "--data-dir="+filepath.Join(stateDir, "etcd"),
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+etcdPeerURL, "--initial-advertise-peer-urls="+etcdPeerURL,
		"--initial-cluster=ffpod="+etcdPeerURL,
		// A machine's crash loses the cluster anyway: up starts anew.
		"--unsafe-no-fsync", "--log-level=warn")
}

func (c *cluster) apiserver() part {
	return c.hostPart("apiserver", func(ctx context.Context) error { return c.api.get(ctx, "/readyz", nil) }, "kube-apiserver",
		"--advertise-address="+hostIP, "--bind-address="+hostIP, "--secure-port=6443",
		"--etcd-servers="+etcdURL,
		"--service-cluster-ip-range="+serviceNet,
		"--client-ca-file="+certFile("ca"),
		"--tls-cert-file="+certFile("apiserver"), "--tls-private-key-file="+keyFile("apiserver"),
		"--kubelet-client-certificate="+certFile("apiserver-kubelet"), "--kubelet-client-key="+keyFile("apiserver-kubelet"),
		"--kubelet-certificate-authority="+certFile("ca"), "--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer="+serviceAccountID,
		"--service-account-key-file="+filepath.Join(pkiDir, "tokens.pub"), "--service-account-signing-key-file="+keyFile("tokens"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true", "--profiling=false")
}

func (c *cluster) controllerManager() part {
	config := kubeconfigOf("controller-manager")
	return c.hostPart("controller-manager", httpOK("https://127.0.0.1:"+managerPort+"/healthz"), "kube-controller-manager",
		"--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--bind-address=127.0.0.1", "--secure-port="+managerPort,
		"--leader-elect=false", "--use-service-account-credentials=true", "--allocate-node-cidrs=false",
		"--root-ca-file="+certFile("ca"), "--service-account-private-key-file="+keyFile("tokens"),
		"--cluster-signing-cert-file="+certFile("ca"), "--cluster-signing-key-file="+keyFile("ca"),
		// It makes this directory, by default under /usr/libexec.
		"--flex-volume-plugin-dir="+filepath.Join(stateDir, "volumeplugins"),
		"--profiling=false")
}

func (c *cluster) scheduler() part {
	config := kubeconfigOf("scheduler")
	return c.hostPart("scheduler", httpOK("https://127.0.0.1:"+schedulerPort+"/healthz"), "kube-scheduler",
		"--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--bind-address=127.0.0.1", "--secure-port="+schedulerPort, "--leader-elect=false", "--profiling=false")
}

func (c *cluster) coredns() part {
	return c.hostPart("coredns", httpOK("http://"+hostIP+":8181/ready"), "coredns", "-conf", corefile)
}

func (c *cluster) provisioner() part {
	return c.hostPart("provisioner", nil, "provisioner", "--kubeconfig="+kubeconfigOf("provisioner"),
		"--name="+storageProvider, "--class="+storageClass, "--root="+volumeDir)
}

func (c *cluster) containerd(n node) part {
	ready := func(ctx context.Context) error {
		_, err := run(ctx, n.enter(c.bin.path("ctr"), "version")...)
		return err
	}
	return c.nodePart(n, "containerd", ready, c.bin.path("containerd"), "--config="+n.containerdConfig())
}

func (c *cluster) kubelet(n node) part {
	return c.nodePart(n, "kubelet", httpOK("http://"+n.ip()+":10248/healthz"), c.bin.path("node"), "kubelet",
		"--config="+n.kubeletConfig(), "--kubeconfig="+kubeconfigOf(n.name),
		"--hostname-override="+n.name, "--node-ip="+n.ip(), "--oom-score-adj=0")
}

func (c *cluster) kubeProxy(n node) part {
	return c.nodePart(n, "kube-proxy", httpOK("http://"+n.ip()+":10256/healthz"), c.bin.path("node"), "kube-proxy",
		"--config="+n.proxyConfig())
}

func (c *cluster) devicePlugin(n node) part {
	return c.nodePart(n, "device-plugin", nil, c.bin.path("node"), "device-plugin", "--resources="+c.Devices, "--lost="+lostFile(n.name))
}

// start starts parts, all at once, and waits until each is ready. One that
// runs already is left alone.
func (c *cluster) start(ctx context.Context, parts ...part) error {
	for _, p := range parts {
		if running, err := recorded(p.name); err == nil && running.alive() {
			continue
		}
		if err := daemonise(p); err != nil {
			return err
		}
	}
	for _, p := range parts {
		if err := p.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// await returns when the part is ready, or can no longer become so.
func (p part) await(ctx context.Context) error {
	process, err := recorded(p.name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = poll(ctx, patience, 50*time.Millisecond, func(ctx context.Context) error {
		if !process.alive() {
			cancel(nil)
			return fmt.Errorf("its process %d has ended", process.Pid)
		}
		if p.ready == nil {
			return nil
		}
		return p.ready(ctx)
	})
	if err != nil {
		return fmt.Errorf("%s is not ready %w\n  the end of its log %s:\n%s", p.name, err, logPath(p.name), logTail(p.name, 12))
	}
	return nil
}

// stop ends parts with a signal, the last started first.
func stop(signal syscall.Signal, parts ...part) error {
	for _, p := range slices.Backward(parts) {
		process, err := recorded(p.name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := process.end(signal, 10*time.Second); err != nil {
			return fmt.Errorf("stop %s: %w", p.name, err)
		}
	}
	return nil
}
