package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
	"github.com/ffpod/ffpod/cmd/ffpod/cluster/clustertest"
	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/server"
	"github.com/ffpod/ffpod/scheduler/store"
)

// sessions is a scheduler whose program doubles its stdin and ends with a code.
type sessions struct {
	starts chan *wire.Start
	exit   *wire.Exit
	refuse string
}

func (s *sessions) Serve(_ context.Context, _ store.Caller, stream session.Stream) {
	f, err := stream.Recv()
	if err != nil {
		return
	}
	start := f.GetStart()
	s.starts <- start
	if s.refuse != "" {
		_ = stream.Send(&wire.Frame{Kind: &wire.Frame_Refused{Refused: &wire.Refused{Refusal: wire.Refusal_QUEUE_TIMEOUT, Message: s.refuse, Remedy: "add workers"}}})
		_, _ = stream.Recv()
		return
	}
	_ = stream.Send(&wire.Frame{Kind: &wire.Frame_Ticket{Ticket: &wire.Ticket{Session: start.GetSession(), Pod: "ffpod-cpu-0", Class: "cpu", Node: "n1", Placement: "warm"}}})
	var in []byte
	for closed := false; !closed; {
		f, err := stream.Recv()
		switch {
		case err != nil:
			return
		case f.GetTicketAck() != nil:
			_ = stream.Send(&wire.Frame{Kind: &wire.Frame_Started{Started: &wire.Started{Pid: 7, Epoch: 1}}})
		case f.GetData() != nil:
			in = append(in, f.GetData().GetBytes()...)
			closed = f.GetData().GetEof()
		}
	}
	out := append(in, in...)
	for at := 0; at < len(out); at += 1 << 14 {
		_ = stream.Send(&wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDOUT, Offset: uint64(at), Bytes: out[at:min(at+1<<14, len(out))]}}})
	}
	s.exit.Session, s.exit.Stdout = start.GetSession(), uint64(len(out))
	_ = stream.Send(&wire.Frame{Kind: &wire.Frame_Exit{Exit: s.exit}})
	for {
		if f, err := stream.Recv(); err != nil || f.GetExitAck() != nil {
			return
		}
	}
}

// Authenticate knows one token.
func (s *sessions) Authenticate(_ context.Context, token string) (store.Caller, error) {
	if token != "the-token" {
		return store.Caller{}, errors.New("another token")
	}
	return store.Caller{Namespace: "media", ServiceAccount: "jellyfin", Pod: "jellyfin-0"}, nil
}

// startInstall makes an API with an install of one class, and its scheduler's real door.
func startInstall(t *testing.T, s *sessions) *cluster.Cluster {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{server.ServerName}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := server.New(server.Config{Sessions: s, Authenticator: s, Certificate: func() (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
	}})
	done := make(chan error, 1)
	go func() { done <- door.Serve(l) }()
	t.Cleanup(func() {
		door.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	labels := func(name, component string) map[string]string {
		return map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/component": component}
	}
	pod := func(name string, labels map[string]string, spec corev1.PodSpec) corev1.Pod {
		return corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Namespace: "media", Name: name, UID: "u", Labels: labels}, Spec: spec, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	}
	scheduler := pod("ffpod-scheduler-0", labels("ffpod", "scheduler"), corev1.PodSpec{
		Containers: []corev1.Container{{Name: "scheduler", Ports: []corev1.ContainerPort{{Name: "grpc", ContainerPort: 7443}}}},
		Volumes: []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "ffpod-tls"}}},
			{Name: "client", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "ffpod-client"}}}}}})
	caller := pod("jellyfin-0", labels("jellyfin", "server"), corev1.PodSpec{ServiceAccountName: "jellyfin",
		InitContainers: []corev1.Container{{Command: []string{"ffpod", "install", "shim", "/i"}, VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/i"}}}},
		Containers:     []corev1.Container{{Name: "jellyfin", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/opt/ffpod"}}}}})
	class := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "media", Name: "ffpod-cpu", Labels: map[string]string{"ffpod.dev/class": "cpu"}}}
	class.Spec.Template.Spec = corev1.PodSpec{Containers: []corev1.Container{{Name: "worker", VolumeMounts: []corev1.VolumeMount{{Name: "m", MountPath: "/media"}}}},
		Volumes: []corev1.Volume{{Name: "m", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "media"}}}}}
	node := &clustertest.Node{Ports: map[int32]string{7443: l.Addr().String()}, Objects: map[string]any{
		"/api/v1/namespaces/media/pods":                           corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{scheduler, caller}},
		"/api/v1/namespaces/media/pods/ffpod-scheduler-0":         scheduler,
		"/apis/apps/v1/namespaces/media/deployments":              appsv1.DeploymentList{TypeMeta: metav1.TypeMeta{Kind: "DeploymentList", APIVersion: "apps/v1"}, Items: []appsv1.Deployment{class}},
		"/api/v1/namespaces/media/serviceaccounts/jellyfin/token": authv1.TokenRequest{TypeMeta: metav1.TypeMeta{Kind: "TokenRequest", APIVersion: "authentication.k8s.io/v1"}, Status: authv1.TokenRequestStatus{Token: "the-token"}},
		"/api/v1/namespaces/media/configmaps/ffpod-client": corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "ffpod-client"},
			Data: map[string]string{"ca.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}},
	}}
	rc := node.Start(t)
	return &cluster.Cluster{Config: rc, Client: kubernetes.NewForConfigOrDie(rc), Namespace: "media"}
}

// TestRun goes through a port-forward, TLS, a token and the session protocol to the
// scheduler's own door.
func TestRun(t *testing.T) {
	s := &sessions{starts: make(chan *wire.Start, 1), exit: &wire.Exit{Code: 3}}
	on := startInstall(t, s)
	in := strings.Repeat("0123456789", 20_000)
	var stdout, stderr bytes.Buffer
	r := remote{dir: "/", class: "cpu", verbose: true, stdin: strings.NewReader(in), stdout: &stdout, stderr: &stderr}
	err := r.run(t.Context(), on, ffmpeg.FFmpeg, []string{"-i", "-", "-f", "mpegts", "-"})
	exit, ok := errors.AsType[*exitError](err)
	if !ok || exit.code != 3 || stdout.String() != in+in {
		t.Fatalf("%v, %d bytes", err, stdout.Len())
	}
	if start := <-s.starts; string(start.GetArgv()[3]) != "mpegts" || start.GetClass() != "cpu" || !start.GetStdin() || !start.GetResumes() || string(start.GetCwd()) != "/" {
		t.Errorf("%v", start)
	}
	if !strings.Contains(stderr.String(), "worker ffpod-cpu-0 of class cpu on node n1") {
		t.Errorf("%q", &stderr)
	}
}

func TestRunDiesBySignal(t *testing.T) {
	s := &sessions{starts: make(chan *wire.Start, 1), exit: &wire.Exit{Signal: 9}}
	r := remote{dir: "/", stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	err := r.run(t.Context(), startInstall(t, s), ffmpeg.FFmpeg, []string{"-i", "/media/a.mkv", "-f", "null", "-"})
	if exit, ok := errors.AsType[*exitError](err); !ok || exit.code != 137 {
		t.Errorf("%v", err)
	}
}

func TestRunRefused(t *testing.T) {
	s := &sessions{starts: make(chan *wire.Start, 1), refuse: "no worker within 2m0s"}
	on := startInstall(t, s)
	for name, c := range map[string]struct {
		as, class, file, want string
	}{
		"by the scheduler": {"", "", "/media/a.mkv", "nothing ran: no worker within 2m0s; add workers"},
		"no such file":     {"", "", "/home/me/a.mkv", "/home/me/a.mkv"},
		"no such class":    {"", "gpu", "/media/a.mkv", "no class gpu"},
		"no such caller":   {"deploy/other", "", "/media/a.mkv", "called other"},
	} {
		r := remote{dir: "/", as: c.as, class: c.class, stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
		err := r.run(t.Context(), on, ffmpeg.FFmpeg, []string{"-i", c.file, "-f", "null", "-"})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
