package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ffpod/ffpod/scheduler/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// apiServer answers what authentication asks of an API server, over HTTP. It
// signs tokens with a key of its own.
type apiServer struct {
	t       *testing.T
	url     string
	key     *ecdsa.PrivateKey
	signer  jose.Signer
	forbid  atomic.Bool // TokenReview
	reviews atomic.Int32
	broken  atomic.Bool
	// noAudiences answers like an authenticator that knows none.
	noAudiences atomic.Bool

	mu   sync.Mutex
	pods map[string]corev1.Pod
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &apiServer{t: t, key: key, pods: map[string]corev1.Pod{}}
	if a.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, nil); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	a.url = srv.URL
	a.pod("jellyfin-0", "uid-0", "jellyfin")
	return a
}

func (a *apiServer) pod(name, uid, account string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	p.Name, p.Namespace, p.UID, p.Spec.ServiceAccountName = name, "media", types.UID(uid), account
	a.pods[name] = p
}

func (a *apiServer) client() kubernetes.Interface {
	tr := &http.Transport{}
	a.t.Cleanup(tr.CloseIdleConnections)
	c, err := kubernetes.NewForConfig(&rest.Config{Host: a.url, Transport: tr, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	fail := func(code int, reason metav1.StatusReason, words string) {
		reply(code, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: int32(code), Reason: reason, Message: words})
	}
	switch {
	case a.broken.Load():
		fail(http.StatusInternalServerError, metav1.StatusReasonInternalError, "etcd is away")
	case strings.HasSuffix(r.URL.Path, "/tokenreviews"):
		if a.forbid.Load() {
			fail(http.StatusForbidden, metav1.StatusReasonForbidden, "tokenreviews is forbidden")
			return
		}
		a.reviews.Add(1)
		var review authv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			fail(http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
			return
		}
		a.judge(&review)
		reply(http.StatusCreated, review)
	case r.URL.Path == "/.well-known/openid-configuration":
		reply(http.StatusOK, map[string]string{"issuer": "https://cluster"})
	case r.URL.Path == "/openid/v1/jwks":
		reply(http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: a.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	case strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/media/pods/"):
		a.mu.Lock()
		defer a.mu.Unlock()
		if p, ok := a.pods[strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/media/pods/")]; ok {
			reply(http.StatusOK, p)
			return
		}
		fail(http.StatusNotFound, metav1.StatusReasonNotFound, "pods not found")
	default:
		fail(http.StatusNotFound, metav1.StatusReasonNotFound, r.URL.Path)
	}
}

// judge verifies as an API server does.
func (a *apiServer) judge(r *authv1.TokenReview) {
	parsed, err := jwt.ParseSigned(r.Spec.Token, algorithms)
	if err != nil {
		r.Status.Error = "invalid bearer token"
		return
	}
	var public jwt.Claims
	var own private
	if err := parsed.Claims(a.key.Public(), &public, &own); err != nil {
		r.Status.Error = "invalid bearer token"
		return
	}
	if err := public.ValidateWithLeeway(jwt.Expected{Issuer: "https://cluster", AnyAudience: r.Spec.Audiences, Time: time.Now()}, 0); err != nil {
		r.Status.Error = "[invalid bearer token, " + err.Error() + "]"
		return
	}
	r.Status.Authenticated = true
	if !a.noAudiences.Load() {
		r.Status.Audiences = r.Spec.Audiences
	}
	r.Status.User.Username = public.Subject
	if pod := own.Kubernetes.Pod; pod.Name != "" {
		r.Status.User.Extra = map[string]authv1.ExtraValue{
			"authentication.kubernetes.io/pod-name": {pod.Name}, "authentication.kubernetes.io/pod-uid": {pod.UID}}
	}
}

// claims of a good token, to be spoiled.
type claims struct {
	namespace, account, pod, uid, audience, issuer string
	expires                                        time.Duration
	subject                                        string
	signer                                         jose.Signer
}

func (a *apiServer) token(change func(*claims)) string {
	a.t.Helper()
	c := claims{namespace: "media", account: "jellyfin", pod: "jellyfin-0", uid: "uid-0", audience: "ffpod", issuer: "https://cluster", expires: time.Hour, signer: a.signer}
	if change != nil {
		change(&c)
	}
	if c.subject == "" {
		c.subject = "system:serviceaccount:" + c.namespace + ":" + c.account
	}
	var own private
	own.Kubernetes.Namespace, own.Kubernetes.ServiceAccount.Name = c.namespace, c.account
	own.Kubernetes.Pod = object{Name: c.pod, UID: c.uid}
	now := time.Now()
	raw, err := jwt.Signed(c.signer).Claims(jwt.Claims{Issuer: c.issuer, Subject: c.subject, Audience: jwt.Audience{c.audience},
		Expiry: jwt.NewNumericDate(now.Add(c.expires)), IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-2 * time.Hour))}).Claims(own).Serialize()
	if err != nil {
		a.t.Fatal(err)
	}
	return raw
}

func (a *apiServer) authenticator(log *zap.Logger) *Authenticator {
	return NewAuthenticator(AuthConfig{Client: a.client(), Namespace: "media", Audience: "ffpod", Allowed: []string{"ffpod-client", "jellyfin"}, Log: log})
}

// Both ways of authentication answer the same, with the same words.
func TestAuthenticate(t *testing.T) {
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(key any, id string, alg jose.SignatureAlgorithm) jose.Signer {
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	tests := map[string]struct {
		token  string
		change func(*claims)
		code   codes.Code
		words  string
	}{
		"good":                     {code: codes.OK},
		"not a JWT":                {token: "hunter2", code: codes.Unauthenticated, words: "the token is malformed: 1 parts where a JWT has 3"},
		"claims are no base64":     {token: "a.%.c", code: codes.Unauthenticated, words: "malformed: its claims are not base64url"},
		"claims are no JSON":       {token: "a.aGk.c", code: codes.Unauthenticated, words: "malformed: its claims are not JSON"},
		"expired":                  {change: func(c *claims) { c.expires = -time.Hour }, code: codes.Unauthenticated, words: "the token expired 1h0m"},
		"another audience":         {change: func(c *claims) { c.audience = "https://kubernetes.default.svc" }, code: codes.Unauthenticated, words: `for audience "https://kubernetes.default.svc", not "ffpod"`},
		"another issuer":           {change: func(c *claims) { c.issuer = "https://elsewhere" }, code: codes.Unauthenticated, words: "not accepted"},
		"another key":              {change: func(c *claims) { c.signer = sign(stranger, "k1", jose.ES256) }, code: codes.Unauthenticated, words: "not accepted"},
		"an unknown key":           {change: func(c *claims) { c.signer = sign(stranger, "k9", jose.ES256) }, code: codes.Unauthenticated, words: "not accepted"},
		"a symmetric signature":    {change: func(c *claims) { c.signer = sign([]byte("0123456789012345678901234567890123456789"), "k1", jose.HS256) }, code: codes.Unauthenticated, words: "use the projected token"},
		"another namespace":        {change: func(c *claims) { c.namespace = "other" }, code: codes.PermissionDenied, words: "other/jellyfin is of another namespace than the scheduler (media)"},
		"an account not allowed":   {change: func(c *claims) { c.account = "default" }, code: codes.PermissionDenied, words: "media/default may not open sessions; add it to auth.allowedServiceAccounts"},
		"not bound to a pod":       {change: func(c *claims) { c.pod, c.uid = "", "" }, code: codes.PermissionDenied, words: "bound to no pod"},
		"no ServiceAccount at all": {change: func(c *claims) { c.subject = "alice" }, code: codes.PermissionDenied, words: "alice is no ServiceAccount"},
	}
	for _, mode := range []string{"TokenReview", "keys"} {
		for name, tt := range tests {
			t.Run(mode+"/"+name, func(t *testing.T) {
				api := newAPIServer(t)
				api.forbid.Store(mode == "keys")
				token := tt.token
				if token == "" {
					token = api.token(tt.change)
				}
				code, words := tt.code, tt.words
				if mode == "keys" && name == "no ServiceAccount at all" { // its claims say otherwise
					code, words = codes.Unauthenticated, "subject contradicts"
				}
				caller, err := api.authenticator(nil).Authenticate(t.Context(), token)
				if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), words) {
					t.Fatalf("err = %v, want %s with %q", err, code, words)
				}
				if code != codes.OK {
					if m := status.Convert(err).Message(); !strings.Contains(m, "; ") || strings.Contains(m, "\n") {
						t.Errorf("no remedy, or no single line: %q", m)
					}
					return
				}
				if want := (store.Caller{Namespace: "media", ServiceAccount: "jellyfin", Pod: "jellyfin-0", PodUID: "uid-0"}); caller != want {
					t.Errorf("caller %+v", caller)
				}
			})
		}
	}
}

func TestAuthenticateByKeysChecksThePod(t *testing.T) {
	tests := map[string]struct {
		change func(*claims)
		words  string
	}{
		"deleted":              {func(c *claims) { c.pod = "jellyfin-1" }, "pod jellyfin-1 is gone"},
		"made again":           {func(c *claims) { c.uid = "uid-old" }, "pod jellyfin-0 is gone"},
		"of another account":   {func(c *claims) { c.account = "ffpod-client" }, "does not run as ffpod-client"},
		"of another namespace": {func(c *claims) { c.namespace = "other" }, "another namespace"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			api := newAPIServer(t)
			api.forbid.Store(true)
			_, err := api.authenticator(nil).Authenticate(t.Context(), api.token(tt.change))
			if err == nil || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestAuthenticatorThatKnowsNoAudience(t *testing.T) {
	api := newAPIServer(t)
	api.noAudiences.Store(true)
	if _, err := api.authenticator(nil).Authenticate(t.Context(), api.token(nil)); status.Code(err) != codes.Unauthenticated {
		t.Errorf("err = %v", err)
	}
}

func TestAPIServerAway(t *testing.T) {
	for _, forbidden := range []bool{false, true} {
		api := newAPIServer(t)
		auth := api.authenticator(nil)
		api.forbid.Store(forbidden)
		if forbidden {
			_ = auth.Probe(t.Context())
		}
		api.broken.Store(true)
		auth.keys.read = time.Time{}
		_, err := auth.Authenticate(t.Context(), api.token(nil))
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "could not be asked") {
			t.Errorf("forbidden %v: err = %v", forbidden, err)
		}
	}
}

func TestAuthenticationIsCached(t *testing.T) {
	api := newAPIServer(t)
	auth := api.authenticator(nil)
	now := time.Now()
	auth.cfg.Now = func() time.Time { return now }
	good, bad := api.token(nil), api.token(func(c *claims) { c.account = "default" })
	short := api.token(func(c *claims) { c.expires = 10 * time.Second })
	ask := func(token string) int32 {
		before := api.reviews.Load()
		_, _ = auth.Authenticate(t.Context(), token)
		return api.reviews.Load() - before
	}
	if ask(good) != 1 || ask(good) != 0 {
		t.Error("a success is not cached")
	}
	if first, second := ask(bad), ask(bad); first != 1 || second != 1 {
		t.Error("a refusal is cached")
	}
	if ask(short) != 1 || ask(short) != 0 {
		t.Error("a short-lived token is not cached")
	}
	now = now.Add(15 * time.Second)
	if ask(short) != 1 {
		t.Error("a token is cached beyond its life")
	}
	now = now.Add(cacheFor - 15*time.Second)
	if ask(good) != 1 {
		t.Errorf("a success is cached longer than %s", cacheFor)
	}
}

func TestTheWayIsLogged(t *testing.T) {
	api := newAPIServer(t)
	core, logs := observer.New(zap.InfoLevel)
	auth := api.authenticator(zap.New(core))
	said := func() string {
		all := logs.TakeAll()
		if len(all) != 1 {
			return ""
		}
		return all[0].Message
	}
	if err := auth.Probe(t.Context()); err != nil || !strings.Contains(said(), "by TokenReview") {
		t.Errorf("TokenReview: %v", err)
	}
	api.forbid.Store(true)
	if _, err := auth.Authenticate(t.Context(), api.token(nil)); err != nil || !strings.Contains(said(), "published keys") {
		t.Errorf("keys: %v", err)
	}
	if _, err := auth.Authenticate(context.Background(), api.token(nil)); err != nil || said() != "" {
		t.Errorf("said twice, or %v", err)
	}
}
