package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/store"
)

const day = 24 * time.Hour

var testLife = Lifetimes{CA: 365 * day, Serving: 30 * day, Publish: day}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Three years, four hours at a time: a caller that read ca.crt up to `publish` ago can
// always verify what is presented, also by a replica that reads the Secret late,
// and nothing expires.
func TestRotationOverYears(t *testing.T) {
	var data map[string][]byte
	const step = 4 * time.Hour
	var bundles []string // by step
	published := ""
	cas, servings := map[string]bool{}, map[string]bool{}
	var lastServing []byte
	for i := range int(3 * 365 * day / step) {
		now := epoch.Add(time.Duration(i) * step)
		for range 3 { // as Reconcile goes round
			next, err := rotate(data, []byte(published), testLife, now)
			if err != nil {
				t.Fatal(err)
			}
			published = string(bundle(next))
			if maps.EqualFunc(next, data, bytes.Equal) {
				break
			}
			data = next
		}
		bundles = append(bundles, published)
		cas[string(data[keyCA])], servings[string(data[keyServing])] = true, true
		old := bundles[max(0, i-int(testLife.Publish/step)+1)]
		verify(t, now, data[keyServing], old)
		if lastServing != nil {
			verify(t, now, lastServing, published) // a replica that is a step behind
		}
		lastServing = data[keyServing]
	}
	if len(cas) != 4 { // one at the start, then one in about 304 days
		t.Errorf("%d CAs in three years", len(cas))
	}
	if len(servings) < 53 || len(servings) > 60 { // one in 20 days, and one for each CA
		t.Errorf("%d serving certificates in three years", len(servings))
	}
}

func verify(t *testing.T, now time.Time, serving []byte, bundle string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(bundle))
	if err := verifyLeaf(serving, roots, now); err != nil {
		t.Fatalf("at %s: %v", now, err)
	}
}

func verifyLeaf(serving []byte, roots *x509.CertPool, now time.Time) error {
	leaf, err := parseLeaf(serving)
	if err != nil {
		return err
	}
	_, err = leaf.Verify(x509.VerifyOptions{DNSName: ServerName, Roots: roots, CurrentTime: now})
	return err
}

// A CA that callers could not read yet does not sign, however long that takes.
func TestUnpublishedCASignsNothing(t *testing.T) {
	data, err := rotate(nil, nil, testLife, epoch)
	if err != nil {
		t.Fatal(err)
	}
	first := data[keyCA]
	stale := string(bundle(data))
	now := epoch.Add(testLife.CA - 2*testLife.Serving)
	for range 20 {
		if data, err = rotate(data, []byte(stale), testLife, now); err != nil {
			t.Fatal(err)
		}
		now = now.Add(day)
	}
	if len(data[keyNext]) == 0 || !bytes.Equal(data[keyCA], first) {
		t.Fatalf("the next CA is there: %v; the first still signs: %v", len(data[keyNext]) > 0, bytes.Equal(data[keyCA], first))
	}
}

func TestRotationRepairs(t *testing.T) {
	good, err := rotate(nil, nil, testLife, epoch)
	if err != nil {
		t.Fatal(err)
	}
	again, err := rotate(good, bundle(good), testLife, epoch.Add(time.Hour))
	if err != nil || !maps.EqualFunc(good, again, bytes.Equal) {
		t.Fatalf("what is good was changed, %v", err)
	}
	spoil := func(key string, value []byte) map[string][]byte {
		d := maps.Clone(good)
		d[key] = value
		return d
	}
	other, _ := rotate(nil, nil, testLife, epoch)
	tests := map[string]struct {
		data     map[string][]byte
		at       time.Duration
		wantCA   bool // a new one
		wantCert bool
	}{
		"garbage for the certificate":   {spoil(keyServing, []byte("?")), time.Hour, false, true},
		"the key of another":            {spoil(keyServingKey, other[keyServingKey]), time.Hour, false, true},
		"the certificate of another CA": {map[string][]byte{keyCA: good[keyCA], keyCAKey: good[keyCAKey], keyServing: other[keyServing], keyServingKey: other[keyServingKey]}, time.Hour, false, true},
		"garbage for the CA":            {spoil(keyCA, []byte("?")), time.Hour, true, true},
		"no key for the CA":             {spoil(keyCAKey, nil), time.Hour, true, true},
		"two thirds have passed":        {good, 20*day + time.Minute, false, true},
		"not yet":                       {good, 20*day - time.Minute, false, false},
		"nobody was here for a year":    {good, 366 * day, true, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := rotate(tt.data, bundle(tt.data), testLife, epoch.Add(tt.at))
			if err != nil {
				t.Fatal(err)
			}
			if changed := !bytes.Equal(got[keyCA], good[keyCA]); changed != tt.wantCA {
				t.Errorf("new CA: %v", changed)
			}
			if changed := !bytes.Equal(got[keyServing], good[keyServing]); changed != tt.wantCert {
				t.Errorf("new certificate: %v", changed)
			}
			verify(t, epoch.Add(tt.at), got[keyServing], string(bundle(got)))
		})
	}
}

// cluster is a namespace as kustomize/base makes it, with optimistic
// concurrency, which the fake client leaves out.
func cluster() *fake.Clientset {
	labels := map[string]string{"app.kubernetes.io/component": "scheduler", "team": "media"}
	c := fake.NewClientset(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "x-ffpod-tls", Namespace: "media", ResourceVersion: "1"}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x-ffpod-client", Namespace: "media", ResourceVersion: "1"}, Data: map[string]string{"mine": "kept"}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "a-worker", Namespace: "media"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "x"}, Ports: []corev1.ServicePort{{Name: "grpc", Port: 1}}}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "b-headless", Namespace: "media"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "grpc", Port: 2}}}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "x-ffpod-scheduler", Namespace: "media"}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app.kubernetes.io/component": "scheduler"}, Ports: []corev1.ServicePort{{Name: "http", Port: 8080}, {Name: "grpc", Port: 7443}}}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x-1", Namespace: "media", Labels: labels}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "scheduler"}},
			Volumes: []corev1.Volume{
				{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "x-ffpod-tls"}}},
				{Name: "client", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "x-ffpod-client"}}}}}}},
			}}},
	)
	var mu sync.Mutex
	version := 1
	c.PrependReactor("update", "secrets", func(action k8stesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		s := action.(k8stesting.UpdateAction).GetObject().(*corev1.Secret).DeepCopy()
		now, err := c.Tracker().Get(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, "media", s.Name)
		if err != nil {
			return true, nil, err
		}
		if now.(*corev1.Secret).ResourceVersion != s.ResourceVersion {
			return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, s.Name, nil)
		}
		version++
		s.ResourceVersion = strconv.Itoa(version)
		return true, s, c.Tracker().Update(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, s, "media")
	})
	return c
}

func TestFindSelf(t *testing.T) {
	c := cluster()
	self, err := FindSelf(t.Context(), c, "media", "x-1")
	if err != nil || self.Secret != "x-ffpod-tls" || self.ConfigMap != "x-ffpod-client" || self.Container != "scheduler" {
		t.Fatalf("%+v, %v", self, err)
	}
	if addr, err := self.address(t.Context(), c); err != nil || addr != "x-ffpod-scheduler.media.svc:7443" {
		t.Errorf("address %q, %v", addr, err)
	}
	if _, err := FindSelf(t.Context(), c, "media", "nobody"); !apierrors.IsNotFound(err) {
		t.Errorf("err = %v", err)
	}
}

func managed(t *testing.T, c *fake.Clientset, now func() time.Time) *Certificates {
	t.Helper()
	self, err := FindSelf(t.Context(), c, "media", "x-1")
	if err != nil {
		t.Fatal(err)
	}
	return NewCertificates(CertificatesConfig{Client: c, Self: self, Lifetimes: testLife, Now: now})
}

// Replicas that begin at the same moment agree on one CA.
func TestReplicasAgree(t *testing.T) {
	c := cluster()
	var wg sync.WaitGroup
	certs := make([]*Certificates, 3)
	for i := range certs {
		certs[i] = managed(t, c, time.Now)
		wg.Go(func() {
			for certs[i].Reconcile(t.Context()) != nil && t.Context().Err() == nil {
			}
		})
	}
	wg.Wait()
	published, err := c.CoreV1().ConfigMaps("media").Get(t.Context(), "x-ffpod-client", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(published.Data["ca.crt"], "BEGIN CERTIFICATE"); got != 1 {
		t.Errorf("%d CAs are published", got)
	}
	if published.Data["address"] != "x-ffpod-scheduler.media.svc:7443" || published.Data["mine"] != "kept" {
		t.Errorf("published %v", published.Data)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(published.Data["ca.crt"]))
	for _, cert := range certs {
		pair, err := cert.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: ServerName, Roots: roots}); err != nil {
			t.Error(err)
		}
	}
}

// Callers are told of egress when it is known, and again when it changes.
func TestPublishesEgress(t *testing.T) {
	c := cluster()
	cert := managed(t, c, time.Now)
	most, known := ffmpeg.NoEgress, false
	cert.cfg.Egress = func() (ffmpeg.Egress, bool) { return most, known }
	for _, want := range []struct {
		most      ffmpeg.Egress
		known     bool
		published string
	}{
		{ffmpeg.NoEgress, false, ""}, {ffmpeg.CallerEgress, true, "caller"}, {ffmpeg.AnyEgress, true, "true"},
		{ffmpeg.NoEgress, false, "true"}, {ffmpeg.NoEgress, true, "false"},
	} {
		most, known = want.most, want.known
		if err := cert.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		m, err := c.CoreV1().ConfigMaps("media").Get(t.Context(), "x-ffpod-client", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Data["egress"]; got != want.published {
			t.Errorf("%+v: published %q", want, got)
		}
	}
}

func TestNoSecret(t *testing.T) {
	c := cluster()
	cert := managed(t, c, time.Now)
	if err := c.CoreV1().Secrets("media").Delete(t.Context(), "x-ffpod-tls", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := cert.Reconcile(t.Context()); err == nil || !strings.Contains(err.Error(), "x-ffpod-tls") {
		t.Errorf("err = %v", err)
	}
	if err := cert.Ready(); err == nil || !strings.Contains(err.Error(), "kustomize/base makes it") {
		t.Errorf("not ready because %v", err)
	}
}

// An operator's certificate is used, published, and read again when it changes;
// a bad one leaves the good one in place.
func TestMountedSecret(t *testing.T) {
	c, dir := cluster(), t.TempDir()
	put := func(d map[string][]byte) {
		for _, k := range []string{keyServing, keyServingKey, keyCA} {
			if err := os.WriteFile(filepath.Join(dir, k), d[k], 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	one, _ := rotate(nil, nil, testLife, time.Now())
	two, _ := rotate(nil, nil, testLife, time.Now())
	self, _ := FindSelf(t.Context(), c, "media", "x-1")
	cert := NewCertificates(CertificatesConfig{Client: c, Self: self, Directory: dir})
	if err := cert.Reconcile(t.Context()); err == nil || cert.Ready() == nil {
		t.Errorf("an empty directory is fine? %v", err)
	}
	for _, d := range []map[string][]byte{one, two} {
		put(d)
		if err := cert.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		pair, err := cert.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		if want, _ := parseLeaf(d[keyServing]); !want.Equal(pair.Leaf) {
			t.Error("another certificate is presented")
		}
		m, _ := c.CoreV1().ConfigMaps("media").Get(t.Context(), "x-ffpod-client", metav1.GetOptions{})
		if m.Data["ca.crt"] != string(d[keyCA]) {
			t.Error("another CA is published")
		}
	}
	put(map[string][]byte{keyServing: two[keyCA], keyServingKey: two[keyCAKey], keyCA: two[keyCA]}) // names nobody
	if err := cert.Reconcile(t.Context()); err == nil || !strings.Contains(err.Error(), "add the DNS name ffpod-scheduler") {
		t.Errorf("err = %v", err)
	}
	if err := cert.Ready(); err != nil {
		t.Errorf("the good one is in use no more: %v", err)
	}
}

func parseLeaf(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// sessionsFunc is a scheduler that does what the test says.
type sessionsFunc func(context.Context, store.Caller, session.Stream)

func (f sessionsFunc) Serve(ctx context.Context, c store.Caller, s session.Stream) { f(ctx, c, s) }

// A shim's connection: TLS, token, session.
func TestServer(t *testing.T) {
	api, c := newAPIServer(t), cluster()
	certs := managed(t, c, time.Now)
	if err := certs.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	callers := make(chan store.Caller, 4)
	srv := New(Config{Authenticator: api.authenticator(nil), Certificate: certs.Certificate,
		Sessions: sessionsFunc(func(_ context.Context, caller store.Caller, s session.Stream) {
			callers <- caller
			_ = s.Send(&wire.Frame{Kind: &wire.Frame_Lost{Lost: &wire.Lost{Message: "served"}}})
		})})
	if srv.Ready() == nil {
		t.Error("ready before it listens")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { srv.Stop(); wg.Wait() })

	m, _ := c.CoreV1().ConfigMaps("media").Get(t.Context(), "x-ffpod-client", metav1.GetOptions{})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(m.Data["ca.crt"]))
	run := func(conf *tls.Config, headers ...string) (*wire.Frame, error) {
		conn, err := grpc.NewClient(l.Addr().String(), append(session.DialOptions(), grpc.WithTransportCredentials(credentials.NewTLS(conf)))...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), headers...), 10*time.Second)
		defer cancel()
		stream, err := wire.NewRunnerClient(conn).Run(ctx)
		if err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	good := &tls.Config{RootCAs: roots, ServerName: ServerName}
	f, err := run(good, "authorization", "Bearer "+api.token(nil))
	if err != nil || f.GetLost().GetMessage() != "served" {
		t.Fatalf("%v, %v", f, err)
	}
	if caller := <-callers; caller.Pod != "jellyfin-0" {
		t.Errorf("caller %+v", caller)
	}
	for name, tt := range map[string]struct {
		conf    *tls.Config
		headers []string
		code    codes.Code
	}{
		"no token":         {good, nil, codes.Unauthenticated},
		"another scheme":   {good, []string{"authorization", "Basic eDp5"}, codes.Unauthenticated},
		"TLS 1.2":          {&tls.Config{RootCAs: roots, ServerName: ServerName, MaxVersion: tls.VersionTLS12}, nil, codes.Unavailable},
		"another name":     {&tls.Config{RootCAs: roots, ServerName: "localhost"}, nil, codes.Unavailable},
		"a CA of no trust": {&tls.Config{RootCAs: x509.NewCertPool(), ServerName: ServerName}, nil, codes.Unavailable},
	} {
		if _, err := run(tt.conf, tt.headers...); status.Code(err) != tt.code {
			t.Errorf("%s: %v, want %s", name, err, tt.code)
		}
	}
	if len(callers) != 0 {
		t.Error("somebody without a token was served")
	}
}
