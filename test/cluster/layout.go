package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// Everything that is the same in every cluster. One cluster per machine.
const (
	stateDir   = "/var/lib/ffpod-cluster"
	kubeconfig = stateDir + "/kubeconfig"
	configFile = stateDir + "/cluster.json"
	pkiDir     = stateDir + "/pki"
	logDir     = stateDir + "/logs"
	runDir     = stateDir + "/run"     // a record of each process
	pinDir     = stateDir + "/ns"      // namespaces, bound to files
	volumeDir  = stateDir + "/volumes" // what claims are made of

	cgroupName = "ffpod-cluster"
	bridge     = "ffpod0"

	// clusterNet holds the three networks below and nothing else.
	clusterNet = "10.248.0.0/14"
	nodeNet    = "10.248.0.0/24"
	podNet     = "10.249.0.0/16"
	serviceNet = "10.250.0.0/16"

	hostIP       = "10.248.0.1"
	apiServiceIP = "10.250.0.1"
	dnsServiceIP = "10.250.0.10"

	apiserverURL  = "https://" + hostIP + ":6443"
	etcdURL       = "http://127.0.0.1:23790"
	etcdPeerURL   = "http://127.0.0.1:23800"
	managerPort   = "16257"
	schedulerPort = "16259"

	pauseImage       = "docker.io/ffpod/pause:1"
	storageClass     = "standard"
	storageProvider  = "cluster.ffpod.dev/directory"
	clusterDomain    = "cluster.local"
	serviceAccountID = "https://kubernetes.default.svc." + clusterDomain

	maxNodes = 8
)

// A node is a network namespace and a mount namespace that pass for a machine.
type node struct {
	name  string
	index int
}

func (n node) ip() string         { return fmt.Sprintf("10.248.0.%d", 10+n.index) }
func (n node) podNet() string     { return fmt.Sprintf("10.249.%d.0/24", n.index) }
func (n node) dir() string        { return filepath.Join(stateDir, "nodes", n.name) }
func (n node) netPin() string     { return filepath.Join(pinDir, n.name+".net") }
func (n node) mountPin() string   { return filepath.Join(pinDir, n.name+".mnt") }
func (n node) hostLink() string   { return "ffpod-" + n.name }
func (n node) cgroupRoot() string { return "/" + cgroupName + "/" + n.name }

// enter is argv, run inside the node.
func (n node) enter(argv ...string) []string {
	return append([]string{"nsenter", "--net=" + n.netPin(), "--mount=" + n.mountPin(), "--"}, argv...)
}

// privateDirs are the host paths that each node has its own directory bound
// over. Constants of the kubelet (device-plugins, /var/log/containers), of CNI
// (its result cache) and of containerd's shim (its sockets) leave no other way.
var privateDirs = [...]string{
	"/var/lib/kubelet",
	"/var/lib/containerd",
	"/var/lib/cni",
	"/var/log/pods",
	"/var/log/containers",
	"/run/containerd",
	"/run/netns",
	"/etc/cni/net.d",
}

// cacheDir is where everything lives that outlasts a cluster.
func cacheDir() (string, error) {
	if dir := os.Getenv("FFPOD_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir() // $XDG_CACHE_HOME, else $HOME/.cache
	if err != nil {
		return "", fmt.Errorf("cache directory: %w; set FFPOD_CACHE", err)
	}
	return filepath.Join(dir, "ffpod"), nil
}
