package main

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed config
var configFiles embed.FS

// configValues are what the templates in config/ may use.
type configValues struct {
	Node                              *nodeValues
	HostIP, DNSServiceIP              string
	PodNet, Domain                    string
	CA, PauseImage                    string
	APIServer, Kubeconfig             string
	StorageClass, StorageProvisioner  string
	RuncBinary, CNIBinDir, ResolvConf string
}

type nodeValues struct {
	Name, IP, PodNet, CgroupRoot string
	Cert, Key, ProxyKubeconfig   string
}

func newConfigValues(n *node) configValues {
	v := configValues{
		HostIP: hostIP, DNSServiceIP: dnsServiceIP, PodNet: podNet, Domain: clusterDomain,
		CA: certFile("ca"), PauseImage: pauseImage,
		APIServer: apiserverURL, Kubeconfig: kubeconfigOf("coredns"),
		StorageClass: storageClass, StorageProvisioner: storageProvider,
		RuncBinary: findTool("runc"), CNIBinDir: filepath.Dir(findTool("/usr/lib/cni/ptp")),
		ResolvConf: resolvConf,
	}
	if n != nil {
		v.Node = &nodeValues{
			Name: n.name, IP: n.ip(), PodNet: n.podNet(), CgroupRoot: n.cgroupRoot(),
			Cert: certFile(n.name + "-serving"), Key: keyFile(n.name + "-serving"),
			ProxyKubeconfig: kubeconfigOf("kube-proxy"),
		}
	}
	return v
}

const (
	corefile     = stateDir + "/Corefile"
	resolvConf   = stateDir + "/resolv.conf"
	addonsFile   = stateDir + "/addons.yaml"
	templatesDir = "config/"
)

func (n node) containerdConfig() string { return filepath.Join(n.dir(), "containerd.toml") }
func (n node) kubeletConfig() string    { return filepath.Join(n.dir(), "kubelet.yaml") }
func (n node) proxyConfig() string      { return filepath.Join(n.dir(), "kube-proxy.yaml") }

// cniConfig is in the directory that the node sees as /etc/cni/net.d.
func (n node) cniConfig() string {
	return filepath.Join(n.dir(), "etc-cni-net.d", "10-ffpod.conflist")
}

// writeConfigs renders every configuration file of the cluster.
func writeConfigs(nodes []node) error {
	files := map[string]string{corefile: "Corefile", resolvConf: "resolv.conf", addonsFile: "addons.yaml"}
	for path, name := range files {
		if err := render(path, name, newConfigValues(nil)); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		files := map[string]string{
			n.containerdConfig(): "containerd.toml",
			n.kubeletConfig():    "kubelet.yaml",
			n.proxyConfig():      "kube-proxy.yaml",
			n.cniConfig():        "cni.conflist",
		}
		for path, name := range files {
			if err := render(path, name, newConfigValues(&n)); err != nil {
				return err
			}
		}
	}
	return nil
}

func render(path, name string, values configValues) error {
	parsed, err := template.ParseFS(configFiles, templatesDir+name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := parsed.Execute(f, values); err != nil {
		f.Close()
		return fmt.Errorf("render %s: %w", name, err)
	}
	return f.Close()
}
