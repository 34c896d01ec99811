package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ffpod/ffpod/test/chaos/act"
)

const (
	namespace  = "ffpod-chaos"
	stateDir   = "/var/lib/ffpod-cluster" // of test/cluster
	schedulers = "app.kubernetes.io/component=scheduler"
	workers    = "app.kubernetes.io/component=worker"
	clients    = "app.kubernetes.io/component=client"
)

// world is the machine, the cluster and the install on it.
type world struct {
	config  *rest.Config
	set     kubernetes.Interface
	census  census
	command string // the built test/cluster
	dir     string // for what is built
	tag     string // of the images

	clientPid int // of a process in the client's container, on this machine
	clientEnv []string
	reference map[kind]map[string]string // files of real ffmpeg without ffpod

	narrow sync.Mutex // one scene at a time queues
}

func connect(kubeconfig, dir string) (*world, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	config.QPS, config.Burst, config.Timeout = 200, 200, 10*time.Second
	config.WarningHandler = rest.NoWarnings{}
	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &world{config: config, set: set, dir: dir, reference: map[kind]map[string]string{}}, nil
}

// hostPath is where the machine sees a path of the pods' shared volume.
func (w *world) hostPath(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", w.clientPid), path)
}

// build compiles a command of this repository.
func (w *world) build(ctx context.Context, name, pkg string) (string, error) {
	path := filepath.Join(w.dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w: %s", pkg, err, bytes.TrimSpace(out))
	}
	return path, nil
}

// clusterCommand runs test/cluster; it is not ended with the run, for a part that
// was killed must be started.
func (w *world) clusterCommand(args ...string) error {
	if out, err := exec.Command(w.command, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("cluster %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// part is the process of a part of the cluster.
func (w *world) part(name string) (int, error) {
	data, err := os.ReadFile(filepath.Join(stateDir, "run", strings.ReplaceAll(name, "/", "-")+".json"))
	if err != nil {
		return 0, err
	}
	var record struct {
		Pid int `json:"pid"`
	}
	return record.Pid, json.Unmarshal(data, &record)
}

// pods are those that have not ended and are not being deleted.
func (w *world) pods(ctx context.Context, selector string) ([]corev1.Pod, error) {
	list, err := w.set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list pods %s: %w", selector, err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	}), nil
}

func uids(pods []corev1.Pod) map[string]bool {
	set := map[string]bool{}
	for _, p := range pods {
		set[string(p.UID)] = true
	}
	return set
}

// A running scheduler: its process, and which start of its pod that is.
type replica struct {
	proc
	restarts int32
}

// scheduler is the one that serves.
func (w *world) scheduler(ctx context.Context) (replica, error) {
	pods, err := w.pods(ctx, schedulers)
	if err != nil {
		return replica{}, err
	}
	for _, p := range pods {
		if !ready(p) {
			continue
		}
		for _, found := range w.census.inPods(map[string]bool{string(p.UID): true}, "/ffpod/scheduler") {
			return replica{found, p.Status.ContainerStatuses[0].RestartCount}, nil
		}
	}
	return replica{}, errors.New("no scheduler is ready")
}

// schedulerAfter waits until another one than before is ready.
func (w *world) schedulerAfter(ctx context.Context, before replica) (time.Time, error) {
	err := until(ctx, healBound, 100*time.Millisecond, func() bool {
		now, err := w.scheduler(ctx)
		return err == nil && now.pid != before.pid && (now.pod != before.pod || now.restarts > before.restarts)
	})
	if err != nil {
		return time.Now(), fmt.Errorf("wait for another scheduler: %w", err)
	}
	return time.Now(), nil
}

func ready(p corev1.Pod) bool {
	return len(p.Status.ContainerStatuses) > 0 && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// until asks again and again.
func until(ctx context.Context, bound, every time.Duration, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", bound, context.Cause(ctx))
		}
	}
	return nil
}

// served waits until every class serves again: a session of each passes.
func (w *world) served(ctx context.Context, n int) error {
	if err := w.freshen(ctx); err != nil {
		return err
	}
	var wrong error
	for i, class := range []string{"fake", "narrow", "hog", "cpu"} {
		attempt := 0
		err := until(ctx, healBound, 200*time.Millisecond, func() bool {
			attempt++
			s := w.script(cast{Kind: image, Moment: idle}, fmt.Sprintf("p%d.%d.%d", n, i, attempt))
			if class != "cpu" {
				s = w.script(cast{Kind: quiet, Moment: idle, Seed: uint64(attempt)}, s.mark)
				s.act.Quiet, s.class = 0, class
				s.argv = s.act.Argv()
			}
			if wrong = s.start(); wrong != nil {
				return false
			}
			select {
			case <-s.ended:
			case <-time.After(20 * time.Second):
				_ = s.proc.Kill()
				<-s.ended
			}
			v, why := s.judge(fault{})
			wrong = fmt.Errorf("%s: %s %s %s", v, s.exit(), why, s.words())
			_ = os.RemoveAll(w.hostPath(s.dir))
			return v == exact
		})
		if err != nil {
			return fmt.Errorf("class %s does not serve: %w: the last session: %w", class, err, wrong)
		}
	}
	return nil
}

// freshen replaces pods whose container was restarted: the kubelet would make the
// next restart wait, and the one after that longer.
func (w *world) freshen(ctx context.Context) error {
	pods, err := w.pods(ctx, "app.kubernetes.io/name=ffpod")
	if err != nil {
		return err
	}
	now := int64(0)
	for _, p := range pods {
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].RestartCount == 0 || p.Labels["app.kubernetes.io/component"] == "client" {
			continue
		}
		if err := w.set.CoreV1().Pods(namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			return err
		}
		if p.Labels["app.kubernetes.io/component"] == "scheduler" {
			if _, err := w.schedulerAfter(ctx, replica{proc{pod: string(p.UID)}, 1 << 30}); err != nil {
				return err
			}
		}
	}
	return nil
}

// overlaps are the writers of a scene that met another.
func (w *world) overlaps(scene int) (found []string) {
	b, err := os.ReadFile(w.hostPath(act.Overlaps))
	if err != nil {
		return nil // there was none in any scene
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, fmt.Sprintf("s%d.", scene)) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}
