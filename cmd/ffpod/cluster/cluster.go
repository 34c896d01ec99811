// Package cluster is how the verbs of ffpod reach a cluster: kubectl's settings, the
// parts of one install, commands in pods, and ports of pods. Every right it uses is
// the operator's own.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/ffpod/ffpod/scheduler/class"
)

// Labels by which the parts of an install are found, whatever prefix they have.
const (
	SchedulerLabels = "app.kubernetes.io/name=ffpod,app.kubernetes.io/component=scheduler"
	JellyfinLabels  = "app.kubernetes.io/name=jellyfin,app.kubernetes.io/component=server"
	ClientLabels    = "app.kubernetes.io/name=ffpod,app.kubernetes.io/component=client"
)

// Settings are the flags that every verb with a cluster has.
type Settings struct {
	Kubeconfig, Context, Namespace string
}

// Cluster is one namespace of a cluster, as one operator.
type Cluster struct {
	Config    *rest.Config
	Client    kubernetes.Interface
	Namespace string
	// Context is kubectl's name for it, if it has one.
	Context string
}

// Open reads kubectl's settings; in a pod without any, those of its account.
func Open(s Settings, agent string) (*Cluster, error) {
	klog.SetLogger(logr.Discard()) // client-go's own words: what matters comes back as an error
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = s.Kubeconfig
	kubeconfig := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: s.Context})
	rc, err := kubeconfig.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w; use --kubeconfig and --context, as with kubectl", err)
	}
	namespace := s.Namespace
	if namespace == "" {
		if namespace, _, err = kubeconfig.Namespace(); err != nil {
			return nil, fmt.Errorf("find the namespace: %w; use --namespace", err)
		}
	}
	rc.QPS, rc.Burst, rc.UserAgent = 50, 100, agent
	rc.WarningHandler = rest.NoWarnings{} // a check that creates something dry must not warn of it
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", rc.Host, err)
	}
	name := s.Context
	if raw, err := kubeconfig.RawConfig(); err == nil && name == "" {
		name = raw.CurrentContext
	}
	return &Cluster{Config: rc, Client: client, Namespace: namespace, Context: name}, nil
}

// Pods returns the running pods with the labels, the newest ready one first.
func (c *Cluster) Pods(ctx context.Context, labels string) ([]corev1.Pod, error) {
	list, err := c.Client.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labels})
	if err != nil {
		return nil, fmt.Errorf("list the pods of namespace %s: %w", c.Namespace, err)
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil
	})
	slices.SortStableFunc(pods, func(a, b corev1.Pod) int {
		if x, y := Ready(a), Ready(b); x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return pods, nil
}

// Ready tells whether a pod is ready.
func Ready(p corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// Scheduler returns the pod of the install's scheduler.
func (c *Cluster) Scheduler(ctx context.Context) (*corev1.Pod, error) {
	pods, err := c.Pods(ctx, SchedulerLabels)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("no scheduler runs in namespace %s; name the install's with --namespace, or see `kubectl -n %s get pods`", c.Namespace, c.Namespace)
	}
	return &pods[0], nil
}

// Command is one to run in a container that runs.
type Command struct {
	Pod, Container string
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Exec runs a command and returns its exit code. A broken connection can look like
// success: who must be sure looks at what the command wrote.
func (c *Cluster) Exec(ctx context.Context, cmd Command) (int, error) {
	url := c.Client.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.Namespace).Name(cmd.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: cmd.Container, Command: cmd.Args,
			Stdin: cmd.Stdin != nil, Stdout: cmd.Stdout != nil, Stderr: cmd.Stderr != nil}, scheme.ParameterCodec).URL()
	spdy, err := remotecommand.NewSPDYExecutor(c.Config, http.MethodPost, url)
	if err != nil {
		return 0, fmt.Errorf("exec in pod %s: %w", cmd.Pod, err)
	}
	websocket, err := remotecommand.NewWebSocketExecutor(c.Config, http.MethodGet, url.String())
	if err != nil {
		return 0, fmt.Errorf("exec in pod %s: %w", cmd.Pod, err)
	}
	executor, err := remotecommand.NewFallbackExecutor(websocket, spdy, upgradeFailed)
	if err != nil {
		return 0, fmt.Errorf("exec in pod %s: %w", cmd.Pod, err)
	}
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: cmd.Stdin, Stdout: cmd.Stdout, Stderr: cmd.Stderr})
	if exit, ok := errors.AsType[exec.CodeExitError](err); ok {
		return exit.Code, nil
	}
	if err != nil && strings.Contains(err.Error(), "executable file not found") {
		return notFound, nil // as a shell would say it
	}
	if apierrors.IsForbidden(err) {
		return 0, fmt.Errorf("exec in pod %s: %w; it needs pods/exec (get and create)", cmd.Pod, err)
	}
	if err != nil {
		return 0, fmt.Errorf("exec in pod %s: %w", cmd.Pod, err)
	}
	return 0, nil
}

// notFound is a shell's exit code for a command that is not there.
const notFound = 127

func upgradeFailed(err error) bool {
	return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
}

// Classes returns the Deployments that are classes of workers.
func (c *Cluster) Classes(ctx context.Context) ([]appsv1.Deployment, error) {
	list, err := c.Client.AppsV1().Deployments(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: class.Label})
	if err != nil {
		return nil, fmt.Errorf("list the classes of namespace %s: %w", c.Namespace, err)
	}
	return list.Items, nil
}

// Shared returns the directories at which every class (or the named one) mounts
// claims.
func (c *Cluster) Shared(ctx context.Context, only string) ([]string, error) {
	classes, err := c.Classes(ctx)
	if err != nil {
		return nil, err
	}
	seen, n := map[string]int{}, 0
	for _, d := range classes {
		if only != "" && d.Labels[class.Label] != only {
			continue
		}
		n++
		for path := range ClaimMounts(d.Spec.Template.Spec, "worker") {
			seen[path]++
		}
	}
	if n == 0 && only != "" {
		return nil, fmt.Errorf("there is no class %s in namespace %s", only, c.Namespace)
	}
	var shared []string
	for path, times := range seen {
		if times == n {
			shared = append(shared, path)
		}
	}
	slices.Sort(shared)
	return shared, nil
}

// ClaimMount is where a container mounts a claim.
type ClaimMount struct {
	Claim, SubPath string
	ReadOnly       bool
}

// ClaimMounts returns the mounts of claims of a container, by path.
func ClaimMounts(spec corev1.PodSpec, container string) map[string]ClaimMount {
	claims := map[string]*corev1.PersistentVolumeClaimVolumeSource{}
	for _, v := range spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			claims[v.Name] = v.PersistentVolumeClaim
		}
	}
	out := map[string]ClaimMount{}
	for _, c := range spec.Containers {
		if c.Name != container {
			continue
		}
		for _, m := range c.VolumeMounts {
			if claim := claims[m.Name]; claim != nil {
				out[m.MountPath] = ClaimMount{Claim: claim.ClaimName, SubPath: m.SubPath, ReadOnly: m.ReadOnly || claim.ReadOnly}
			}
		}
	}
	return out
}
