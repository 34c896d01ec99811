package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const provisionedBy = "pv.kubernetes.io/provisioned-by"

// A provisioner makes a directory and a hostPath volume for every claim of its
// storage class and removes both when the claim is gone. All nodes of the
// cluster are namespaces of one machine and see the same directories, so any
// access mode is true, ReadWriteMany too. Requested sizes are not enforced.
//
// The controller manager's own hostPath provisioner is no help: it refuses
// every access mode but ReadWriteOnce and makes directories only root may use.
type provisioner struct {
	client kubernetes.Interface
	name   string // as in the storage class's provisioner field
	class  string
	root   string
	claims cache.Store
	pvs    cache.Store
	queue  workqueue.TypedRateLimitingInterface[string]
}

// runProvisioner watches claims and volumes until SIGTERM.
func runProvisioner() int {
	flags := flag.NewFlagSet("provisioner", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig `file`")
	name := flags.String("name", "", "provisioner `name` of the storage class")
	class := flags.String("class", "", "storage class `name`")
	root := flags.String("root", "", "`directory` to make volumes in")
	_ = flags.Parse(os.Args[1:]) // ExitOnError.

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		fmt.Fprintln(os.Stderr, "provisioner:", err)
		return 1
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "provisioner:", err)
		return 1
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	claims := factory.Core().V1().PersistentVolumeClaims().Informer()
	pvs := factory.Core().V1().PersistentVolumes().Informer()
	p := &provisioner{
		client: client, name: *name, class: *class, root: *root,
		claims: claims.GetStore(), pvs: pvs.GetStore(),
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]()),
	}
	for kind, informer := range map[string]cache.SharedIndexInformer{"claim": claims, "volume": pvs} {
		if _, err := informer.AddEventHandler(p.enqueue(kind)); err != nil {
			fmt.Fprintln(os.Stderr, "provisioner:", err)
			return 1
		}
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	factory.WaitForCacheSync(ctx.Done())
	context.AfterFunc(ctx, p.queue.ShutDown)
	for p.next(ctx) {
	}
	return 0
}

// enqueue hands every change of an object to the queue as "KIND:KEY".
func (p *provisioner) enqueue(kind string) cache.ResourceEventHandler {
	add := func(object any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			p.queue.Add(kind + ":" + key)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    add,
		UpdateFunc: func(_, object any) { add(object) },
	}
}

// next handles one queued object and reports whether there can be another.
func (p *provisioner) next(ctx context.Context) bool {
	item, shutdown := p.queue.Get()
	if shutdown {
		return false
	}
	defer p.queue.Done(item)
	if err := p.reconcile(ctx, item); err != nil {
		klog.ErrorS(err, "provisioner", "item", item)
		p.queue.AddRateLimited(item)
		return true
	}
	p.queue.Forget(item)
	return true
}

func (p *provisioner) reconcile(ctx context.Context, item string) error {
	if key, isClaim := strings.CutPrefix(item, "claim:"); isClaim {
		object, exists, err := p.claims.GetByKey(key)
		if err != nil || !exists {
			return err
		}
		return p.provision(ctx, object.(*core.PersistentVolumeClaim))
	}
	key := strings.TrimPrefix(item, "volume:")
	object, exists, err := p.pvs.GetByKey(key)
	if err != nil || !exists {
		return err
	}
	return p.release(ctx, object.(*core.PersistentVolume))
}

// provision makes the volume of a claim that asks for one. Its name comes from
// the claim's UID, so a second attempt finds the first one's work.
func (p *provisioner) provision(ctx context.Context, claim *core.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil ||
		claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName != p.class {
		return nil
	}
	name := "pvc-" + string(claim.UID)
	dir := filepath.Join(p.root, name)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := os.Chown(dir, 1000, 1000); err != nil {
		return err
	}
	// Pods of any identity may write, as on an export without root squashing;
	// Mkdir alone would apply the umask.
	if err := os.Chmod(dir, 0o777); err != nil {
		return err
	}
	directory := core.HostPathDirectory
	pv := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: p.name}},
		Spec: core.PersistentVolumeSpec{
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			StorageClassName:              p.class,
			PersistentVolumeReclaimPolicy: core.PersistentVolumeReclaimDelete,
			ClaimRef: &core.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: core.PersistentVolumeSource{
				HostPath: &core.HostPathVolumeSource{Path: dir, Type: &directory},
			},
		},
	}
	_, err := p.client.CoreV1().PersistentVolumes().Create(ctx, pv, meta.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		klog.InfoS("provisioned", "claim", klog.KObj(claim), "volume", name)
	}
	return err
}

// release removes the directory and the volume object of a claim that is gone.
func (p *provisioner) release(ctx context.Context, pv *core.PersistentVolume) error {
	if pv.Annotations[provisionedBy] != p.name || pv.Status.Phase != core.VolumeReleased ||
		pv.Spec.PersistentVolumeReclaimPolicy != core.PersistentVolumeReclaimDelete {
		return nil
	}
	// Only ever a direct child of root, whatever the object says.
	if err := os.RemoveAll(filepath.Join(p.root, filepath.Base(pv.Spec.HostPath.Path))); err != nil {
		return err
	}
	err := p.client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, meta.DeleteOptions{
		Preconditions: &meta.Preconditions{UID: &pv.UID},
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	klog.InfoS("released", "volume", pv.Name, "age", time.Since(pv.CreationTimestamp.Time).Round(time.Second))
	return err
}
