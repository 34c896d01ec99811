// Command cluster runs a real Kubernetes cluster on this machine, without
// Docker, a registry or a downloaded release: the control plane and the
// kubelets are compiled from the Go module proxy, once, into a cache.
//
//	go run ./test/cluster up [--nodes N]    start it, or check that it runs
//	go run ./test/cluster load TAR...       images into every node
//	go run ./test/cluster kubectl -- ARGS   kubectl, already configured
//	go run ./test/cluster down              stop it and remove every trace
//
// What runs where:
//
//	host network                      10.248.0.1 on bridge ffpod0
//	  etcd  apiserver  controller-manager  scheduler  coredns  provisioner
//	    │
//	    ├─ veth ─ node1, 10.248.0.11: own network and mount namespace
//	    │           containerd  kubelet  kube-proxy  device-plugin
//	    │           └─ pods 10.249.1.0/24, one veth each (ptp), routed
//	    └─ veth ─ node2, 10.248.0.12: likewise, pods 10.249.2.0/24
//
//	Services 10.250.0.0/16 by kube-proxy (nftables) in each node's namespace;
//	the host reaches them, and the pods, by routes through the nodes.
//
// A node's mount namespace has private directories bound over the paths that
// kubelet, containerd and CNI take for granted (/var/lib/kubelet, /run/netns
// and so on), so that several nodes, and a container runtime of the machine's
// own, do not meet. Every process of the cluster lives in the cgroup
// /ffpod-cluster; that, the two namespaces per node, one bridge and the state
// directory are all there is to remove.
//
// Nothing restarts a part that dies, so that a test can kill one and see what
// its absence does: see the commands kill, start and restart.
package main
