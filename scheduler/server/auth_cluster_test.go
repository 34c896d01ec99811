//go:build cluster

package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// On the cluster of KUBECONFIG: its own tokens, judged both ways.
func TestClusterAuthenticates(t *testing.T) {
	rc, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		t.Fatalf("no cluster in KUBECONFIG: %v; run `make cluster`", err)
	}
	ns := newNamespace(t, connect(t, rc))
	ns.account("jellyfin", "stranger", "scheduler")
	ns.pod("jellyfin-0", "jellyfin")
	ns.mayReadPods("scheduler")

	as := rest.CopyConfig(rc) // who may not review tokens
	as.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + ns.name + ":scheduler",
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + ns.name, "system:authenticated"}}
	clients := map[string]kubernetes.Interface{"TokenReview": ns.client, "keys": connect(t, as)}
	for mode, client := range clients {
		for name, tt := range map[string]struct {
			token string
			code  codes.Code
			words string
		}{
			"good":             {ns.token("jellyfin", "jellyfin-0", "ffpod"), codes.OK, ""},
			"another audience": {ns.token("jellyfin", "jellyfin-0", "elsewhere"), codes.Unauthenticated, `for audience "elsewhere"`},
			"another account":  {ns.token("stranger", "", "ffpod"), codes.PermissionDenied, "may not open sessions"},
			"bound to no pod":  {ns.token("jellyfin", "", "ffpod"), codes.PermissionDenied, "bound to no pod"},
		} {
			t.Run(mode+"/"+name, func(t *testing.T) {
				auth := NewAuthenticator(AuthConfig{Client: client, Namespace: ns.name, Audience: "ffpod", Allowed: []string{"jellyfin"}})
				caller, err := auth.Authenticate(t.Context(), tt.token)
				if status.Code(err) != tt.code || !strings.Contains(status.Convert(err).Message(), tt.words) {
					t.Fatalf("%+v, %v", caller, err)
				}
				if err == nil && (caller.Pod != "jellyfin-0" || caller.PodUID == "" || auth.mode != mode) {
					t.Errorf("%+v by %s", caller, auth.mode)
				}
			})
		}
	}
	t.Run("its pod is gone", func(t *testing.T) {
		token := ns.token("jellyfin", "jellyfin-0", "ffpod")
		if err := ns.client.CoreV1().Pods(ns.name).Delete(t.Context(), "jellyfin-0", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
			t.Fatal(err)
		}
		for mode, client := range clients {
			auth := NewAuthenticator(AuthConfig{Client: client, Namespace: ns.name, Audience: "ffpod", Allowed: []string{"jellyfin"}})
			if _, err := auth.Authenticate(t.Context(), token); status.Code(err) != codes.Unauthenticated && !cachedByAPIServer(mode) {
				t.Errorf("%s: %v", mode, err)
			}
		}
	})
}

// cachedByAPIServer: its own cache of good tokens lives 10 s.
func cachedByAPIServer(mode string) bool { return mode == "TokenReview" }

// connect makes a client whose connections end with the test.
func connect(t *testing.T, rc *rest.Config) kubernetes.Interface {
	t.Helper()
	h, err := rest.HTTPClientFor(rc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { utilnet.CloseIdleConnectionsFor(h.Transport) })
	c, err := kubernetes.NewForConfigAndClient(rc, h)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type namespace struct {
	t      *testing.T
	client kubernetes.Interface
	name   string
}

func newNamespace(t *testing.T, client kubernetes.Interface) *namespace {
	t.Helper()
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "ffpod-auth-test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{})
	})
	return &namespace{t, client, ns.Name}
}

func (n *namespace) check(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *namespace) account(names ...string) {
	for _, name := range names {
		_, err := n.client.CoreV1().ServiceAccounts(n.name).Create(n.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		n.check(err)
	}
}

// pod makes a pod that never runs: a token can be bound to it all the same.
func (n *namespace) pod(name, account string) {
	_, err := n.client.CoreV1().Pods(n.name).Create(n.t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		ServiceAccountName: account, NodeSelector: map[string]string{"no": "node"},
		AutomountServiceAccountToken: new(false),
		Containers:                   []corev1.Container{{Name: "c", Image: "none"}},
	}}, metav1.CreateOptions{})
	n.check(err)
}

func (n *namespace) mayReadPods(account string) {
	_, err := n.client.RbacV1().RoleBindings(n.name).Create(n.t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: account},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: n.name}}}, metav1.CreateOptions{})
	n.check(err)
}

func (n *namespace) token(account, pod, audience string) string {
	n.t.Helper()
	req := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{Audiences: []string{audience}}}
	if pod != "" {
		p, err := n.client.CoreV1().Pods(n.name).Get(n.t.Context(), pod, metav1.GetOptions{})
		n.check(err)
		req.Spec.BoundObjectRef = &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod, UID: p.UID}
	}
	got, err := n.client.CoreV1().ServiceAccounts(n.name).CreateToken(n.t.Context(), account, req, metav1.CreateOptions{})
	n.check(err)
	return got.Status.Token
}
