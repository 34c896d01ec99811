package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/ffpod/ffpod/test/chaos/act"
	"github.com/ffpod/ffpod/test/manifests"
)

const installBound = 3 * time.Minute

// install makes the install from nothing, and everything a run needs.
func (w *world) install(ctx context.Context) (err error) {
	if w.command, err = w.build(ctx, "cluster", "github.com/ffpod/ffpod/test/cluster"); err != nil {
		return err
	}
	nodes, err := w.set.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("the cluster: %w; start it with `go run ./test/cluster up --nodes 2`", err)
	}
	if _, err := os.Stat(filepath.Join(stateDir, "run")); err != nil || len(nodes.Items) < 2 {
		return fmt.Errorf("chaos needs the local cluster with 2 nodes, not %d; `go run ./test/cluster up --nodes 2` starts it", len(nodes.Items))
	}
	if err := w.uninstall(ctx); err != nil {
		return err
	}
	say("apply test/chaos/overlay to namespace %s (usually 15 s until it runs)", namespace)
	if err := w.apply(ctx); err != nil {
		return err
	}
	if err := until(ctx, installBound, 250*time.Millisecond, func() bool { return w.deployed(ctx) }); err != nil {
		return fmt.Errorf("wait for the install's pods: %w; see kubectl -n %s get pods", err, namespace)
	}
	return w.furnish(ctx)
}

func (w *world) apply(ctx context.Context) error {
	objects, err := manifests.Render("test/chaos/overlay")
	if err != nil {
		return err
	}
	disco, err := discovery.NewDiscoveryClientForConfig(w.config)
	if err != nil {
		return err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))
	client, err := dynamic.NewForConfig(w.config)
	if err != nil {
		return err
	}
	for _, o := range objects {
		w.retag(o.Object)
		if err := applyOne(ctx, client, mapper, o); err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// retag names the images to try: those of `images/build -tag`.
func (w *world) retag(fields map[string]any) {
	for name, value := range fields {
		switch v := value.(type) {
		case string:
			if image, ok := strings.CutSuffix(v, ":dev"); ok && name == "image" {
				fields[name] = image + ":" + w.tag
			}
		case map[string]any:
			w.retag(v)
		case []any:
			for _, item := range v {
				if m, ok := item.(map[string]any); ok {
					w.retag(m)
				}
			}
		}
	}
}

func applyOne(ctx context.Context, client dynamic.Interface, mapper meta.RESTMapper, o *unstructured.Unstructured) error {
	kind := o.GroupVersionKind()
	mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	var r dynamic.ResourceInterface = client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		r = client.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	_, err = r.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: "ffpod-chaos", Force: true})
	return err
}

// deployed tells whether every pod is there that should be.
func (w *world) deployed(ctx context.Context) bool {
	list, err := w.set.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) == 0 {
		return false
	}
	for _, d := range list.Items {
		if s := d.Status; s.ObservedGeneration < d.Generation || s.AvailableReplicas != *d.Spec.Replicas {
			return false
		}
	}
	return true
}

// furnish brings the fake ffmpeg, the film, and what real ffmpeg makes of it.
func (w *world) furnish(ctx context.Context) error {
	if err := w.findClient(ctx); err != nil {
		return err
	}
	fake, err := w.build(ctx, "fake", "github.com/ffpod/ffpod/test/chaos/fake")
	if err != nil {
		return err
	}
	home := w.hostPath(act.Home)
	if err := os.MkdirAll(filepath.Join(home, "s"), 0o777); err != nil {
		return err
	}
	for _, dir := range []string{home, filepath.Join(home, "s")} {
		if err := os.Chown(dir, uid, uid); err != nil {
			return err
		}
	}
	_ = os.Remove(w.hostPath(act.Overlaps)) // of an earlier run
	if err := copyFile(fake, w.hostPath(act.Fake)); err != nil {
		return err
	}
	say("make a film of 12 s and what a local ffmpeg makes of it")
	if err := w.local(ctx, "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=frequency=440",
		"-t", "12", "-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-c:a", "aac", film); err != nil {
		return err
	}
	for _, k := range []kind{hls, image} {
		if err := w.makeReference(ctx, k); err != nil {
			return err
		}
	}
	say("wait until every class serves")
	return w.served(ctx, 0)
}

const referenceDir = act.Home + "/reference"

func (w *world) makeReference(ctx context.Context, k kind) error {
	dir := w.hostPath(referenceDir)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chown(dir, uid, uid); err != nil {
		return err
	}
	if err := w.local(ctx, realArgv(k, referenceDir)...); err != nil {
		return err
	}
	files, err := filesIn(dir)
	w.reference[k] = files
	return err
}

// local runs real ffmpeg in the client pod.
func (w *world) local(ctx context.Context, argv ...string) error {
	r, said, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	proc, err := spawn(w.clientPid, "/usr/bin/ffmpeg", argv, w.clientEnv, act.Home, [3]*os.File{null, said, said})
	said.Close()
	if err != nil {
		return fmt.Errorf("spawn a local ffmpeg: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = proc.Kill() })()
	words, _ := io.ReadAll(r)
	state, err := proc.Wait()
	if err != nil || !state.Success() {
		return fmt.Errorf("a local ffmpeg: %v %w: %.300s", state, err, words)
	}
	return nil
}

// findClient finds the client's container among the machine's processes.
func (w *world) findClient(ctx context.Context) error {
	pods, err := w.pods(ctx, clients)
	if err != nil {
		return err
	}
	found := w.census.inPods(uids(pods), "sleep", "infinity")
	if len(found) != 1 {
		return fmt.Errorf("%d processes `sleep infinity` of the client pod of %s on this machine, want 1", len(found), namespace)
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", found[0].pid))
	if err != nil {
		return err
	}
	w.clientPid, w.clientEnv = found[0].pid, strings.Split(strings.TrimSuffix(string(env), "\x00"), "\x00")
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to+".new", b, 0o755); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

// uninstall removes the namespace and waits until it is gone.
func (w *world) uninstall(ctx context.Context) error {
	err := w.set.RbacV1().ClusterRoleBindings().Delete(ctx, namespace+"-token-review", metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	err = w.set.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil && !apierrors.IsConflict(err) {
		return err
	}
	say("remove namespace %s (usually 15 s)", namespace)
	return until(ctx, installBound, 250*time.Millisecond, func() bool {
		_, err := w.set.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// versions of what runs.
func (w *world) versions(r *Report) {
	if v, err := w.set.Discovery().ServerVersion(); err == nil {
		r.Kubernetes = v.GitVersion
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		r.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := exec.Command("git", "-C", manifests.Root(), "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		r.Version = strings.TrimSpace(string(b))
	}
}
