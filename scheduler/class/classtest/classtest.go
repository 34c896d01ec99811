//go:build cluster

// Package classtest puts a class on a real cluster, for the tests of the
// packages that use its workers.
//
// KUBECONFIG names the cluster. Its nodes have the image that
// FFPOD_WORKER_IMAGE names, by default ffpod/worker:dev.
package classtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// Timeout bounds every wait for the cluster.
const Timeout = 60 * time.Second

// Await polls the cluster until ok: some of what tests ask is known to no informer.
// What it says of a time-out is followed by what the others tell.
func Await(t *testing.T, what string, ok func() bool, others ...func() any) {
	t.Helper()
	deadline := time.After(Timeout)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			for _, tell := range others {
				what += fmt.Sprintf("; %+v", tell())
			}
			t.Fatalf("timed out: %s", what)
		case <-tick.C:
		}
	}
}

// Cluster is a namespace of its own on a real cluster.
type Cluster struct {
	Client    *kubernetes.Clientset
	Config    *rest.Config
	Namespace string
}

// New makes a namespace, which goes with the test.
func New(t *testing.T) *Cluster {
	t.Helper()
	path := os.Getenv("KUBECONFIG")
	if path == "" {
		t.Fatal("KUBECONFIG is not set: these tests need a cluster, such as `go run ./test/cluster up`")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 100, 200
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Config: config}
	if c.Client, err = kubernetes.NewForConfigAndClient(config, client); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { utilnet.CloseIdleConnectionsFor(client.Transport) })
	ns, err := c.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "ffpod-test-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.Namespace = ns.Name
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), Timeout)
		defer cancel()
		zero := int64(0)
		if err := c.Client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Errorf("delete namespace %s: %v", ns.Name, err)
		}
	})
	return c
}

// Open opens real channels.
func (c *Cluster) Open() lease.Open {
	return lease.Dial(&podexec.Dialer{Config: c.Config, Client: c.Client})
}

// Deploy makes a class Deployment. Its workers' ffmpeg is the worker program
// itself: `version` ends with 0, an unknown verb with 2, and `dial` runs for as
// long as its stdin is open.
func (c *Cluster) Deploy(t *testing.T, changes ...func(*appsv1.Deployment)) *appsv1.Deployment {
	t.Helper()
	labels := map[string]string{"app.kubernetes.io/name": "ffpod", "ffpod.dev/class": "cpu", "ffpod.dev/role": "warm"}
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "ffpod-cpu", Namespace: c.Namespace, Labels: map[string]string{"ffpod.dev/class": "cpu"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(0)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: map[string]string{"ffpod.dev/slots": "2"}},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: new(int64(2)),
					SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(1000)), RunAsGroup: new(int64(1000)),
						SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
					Containers: []corev1.Container{{
						Name: "worker", Image: cmp.Or(os.Getenv("FFPOD_WORKER_IMAGE"), "ffpod/worker:dev"), ImagePullPolicy: corev1.PullIfNotPresent,
						Command: []string{"/ffpod/worker", "serve"},
						Env: []corev1.EnvVar{
							field("FFPOD_CLASS", "metadata.labels['ffpod.dev/class']"), field("FFPOD_SLOTS", "metadata.annotations['ffpod.dev/slots']"),
							field("POD_NAME", "metadata.name"), field("POD_UID", "metadata.uid"), field("NODE_NAME", "spec.nodeName"),
							{Name: "FFPOD_FFMPEG", Value: "/ffpod/worker"},
						},
						Resources: corev1.ResourceRequirements{
							Requests: corev1.ResourceList{"cpu": resource.MustParse("10m"), "memory": resource.MustParse("32Mi")},
							Limits:   corev1.ResourceList{"memory": resource.MustParse("128Mi")},
						},
						SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
					}},
				},
			},
		},
	}
	for _, change := range changes {
		if change != nil {
			change(d)
		}
	}
	d, err := c.Client.AppsV1().Deployments(c.Namespace).Create(t.Context(), d, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Run runs a session to its end and returns its exit code.
func Run(ctx context.Context, runner wire.RunnerClient, id string, args ...string) (int, error) {
	s, err := Start(ctx, runner, id, args...)
	if err != nil {
		return 0, err
	}
	s.End()
	exit, err := s.Wait()
	if err != nil {
		return 0, err
	}
	if exit.Signal != 0 {
		return 0, fmt.Errorf("killed by signal %d", exit.Signal)
	}
	return int(exit.Code), nil
}

// Session is one that runs.
type Session struct {
	stdin  *io.PipeWriter
	cancel context.CancelFunc
	done   chan struct{}
	exit   *wire.Exit
	err    error
}

// Start starts a session and returns when its process runs or cannot. Wait is to
// be called.
func Start(ctx context.Context, runner wire.RunnerClient, id string, args ...string) (*Session, error) {
	ctx, cancel := context.WithCancel(ctx)
	stdin, w := io.Pipe()
	s := &Session{stdin: w, cancel: cancel, done: make(chan struct{})}
	start := &wire.Start{Session: id, Program: wire.Program_FFMPEG, Cwd: []byte("/"), Stdin: true}
	for _, a := range args {
		start.Argv = append(start.Argv, []byte(a))
	}
	started := make(chan struct{})
	open := func(ctx context.Context) (session.Stream, error) { return runner.Run(ctx) }
	client := &session.Client{Open: open, Start: start, Stdin: stdin, Direct: true, OnStarted: func(*wire.Started) { close(started) }}
	go func() {
		defer close(s.done)
		defer cancel()
		s.exit, s.err = client.Run(ctx)
		s.err = errors.Join(s.err, stdin.CloseWithError(io.ErrClosedPipe))
	}()
	select {
	case <-started:
		return s, nil
	case <-s.done:
		return s, s.err
	}
}

// End closes the session's stdin.
func (s *Session) End() { s.stdin.Close() }

// Abandon breaks the session's stream.
func (s *Session) Abandon() { s.cancel() }

// Wait waits for the session's end.
func (s *Session) Wait() (*wire.Exit, error) {
	<-s.done
	return s.exit, s.err
}
