// Command node is every Kubernetes program of the local cluster in one binary:
// one compilation and one file in the cache instead of ten.
//
//	node PART ARGS...      for instance: node kubelet --config=...
//	PART ARGS...           the same, through a link named after the part
//
// The parts are the official ones, unchanged: their main functions are called
// as their own main packages call them. Two small parts are this module's own:
// device-plugin advertises GPUs that do not exist, and provisioner turns
// claims into directories.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	_ "time/tzdata" // CronJobs with a time zone, on machines without tzdata.

	"github.com/coredns/coredns/coremain"
	"go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	// CoreDNS registers its plugins by import. These are the ones that the
	// cluster's Corefile names; the full set would add every cloud's SDK.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

// parts maps the name under which a part is run to its main function. A part
// finds its own name in os.Args[0] and its arguments behind it, as if it were
// a binary of its own, and returns its exit status.
func parts() map[string]func() int {
	return map[string]func() int{
		"kube-apiserver":          func() int { return cli.Run(apiserver.NewAPIServerCommand()) },
		"kube-controller-manager": func() int { return cli.Run(controllermanager.NewControllerManagerCommand()) },
		"kube-scheduler":          func() int { return cli.Run(scheduler.NewSchedulerCommand()) },
		"kube-proxy":              func() int { return cli.Run(proxy.NewProxyCommand()) },
		"kubelet":                 func() int { return cli.Run(kubelet.NewKubeletCommand(context.Background())) },
		"kubectl":                 runKubectl,
		"etcd":                    func() int { etcdmain.Main(os.Args); return 0 },
		"coredns":                 func() int { coremain.Run(); return 0 },
		"device-plugin":           runDevicePlugin,
		"provisioner":             runProvisioner,
	}
}

func main() {
	all := parts()
	name := filepath.Base(os.Args[0])
	if _, known := all[name]; !known && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		name = os.Args[0]
	}
	run, known := all[name]
	if !known {
		fmt.Fprintf(os.Stderr, "node: no part %q; the parts are %s\n",
			name, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
		os.Exit(2)
	}
	os.Exit(run())
}

func runKubectl() int {
	// kubectl reads kuberc and looks for plugins while its command tree is
	// built, before any flag is parsed, so verbosity is set by hand.
	if _, err := logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)); err != nil {
		kubectlutil.CheckErr(err)
	}
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
		return 1
	}
	return 0
}
