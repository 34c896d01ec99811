package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// review asks the API server. Its error is a status when the token was judged.
//
// kube: tokenreviews, create
func (a *Authenticator) review(ctx context.Context, token string, claims unproven) (identity, error) {
	r, err := a.cfg.Client.AuthenticationV1().TokenReviews().Create(ctx, &authv1.TokenReview{
		Spec: authv1.TokenReviewSpec{Token: token, Audiences: []string{a.cfg.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return identity{}, err
	}
	// An authenticator that knows no audiences returns none: its word says
	// nothing about ours.
	if !r.Status.Authenticated || !slices.Contains(r.Status.Audiences, a.cfg.Audience) {
		verdict := r.Status.Error
		if verdict == "" {
			verdict = "the API server does not know it"
		}
		return identity{}, a.explain(claims, verdict)
	}
	extra := func(key string) string {
		if v := r.Status.User.Extra["authentication.kubernetes.io/"+key]; len(v) == 1 {
			return v[0]
		}
		return ""
	}
	return identity{username: r.Status.User.Username, pod: extra("pod-name"), podUID: extra("pod-uid")}, nil
}

// private are the claims that Kubernetes adds.
type private struct {
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount object `json:"serviceaccount"`
		Pod            object `json:"pod"`
	} `json:"kubernetes.io"`
}

type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// algorithms are those that API servers sign with. None of them is symmetric.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}

// verify checks the signature against the published keys, the claims, and that
// the pod is there.
func (a *Authenticator) verify(ctx context.Context, token string, claims unproven) (identity, error) {
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return identity{}, status.Error(codes.Unauthenticated, "the token is malformed: no signature of an API server; use the projected token of the pod")
	}
	set, err := a.keys.find(ctx, parsed.Headers[0].KeyID)
	if errors.Is(err, errNoKey) {
		return identity{}, a.explain(claims, "it is signed by a key that this cluster's API server does not publish")
	}
	if err != nil {
		return identity{}, err
	}
	var public jwt.Claims
	var own private
	if err := parsed.Claims(set.key, &public, &own); err != nil {
		return identity{}, a.explain(claims, "its signature is wrong")
	}
	err = public.ValidateWithLeeway(jwt.Expected{Issuer: set.issuer, AnyAudience: jwt.Audience{a.cfg.Audience}, Time: a.cfg.Now()}, 5*time.Second)
	if err != nil {
		return identity{}, a.explain(claims, err.Error())
	}
	k := own.Kubernetes
	id := identity{username: "system:serviceaccount:" + k.Namespace + ":" + k.ServiceAccount.Name, pod: k.Pod.Name, podUID: k.Pod.UID}
	if public.Subject != id.username {
		return identity{}, a.explain(claims, "its subject contradicts its claims")
	}
	if _, err := a.permit(id); err != nil {
		return identity{}, err // before its pod is asked for, which may be of another namespace
	}
	return id, a.alive(ctx, k.Namespace, k.Pod, k.ServiceAccount.Name)
}

// alive checks that the pod a token is bound to is there and uses the account.
// TokenReview does that too.
//
// kube: pods, get
func (a *Authenticator) alive(ctx context.Context, namespace string, pod object, account string) error {
	p, err := a.cfg.Client.CoreV1().Pods(namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && string(p.UID) != pod.UID:
		return status.Errorf(codes.Unauthenticated, "the token's pod %s is gone; use the projected token of a running pod", pod.Name)
	case err != nil:
		return err
	case p.Spec.ServiceAccountName != account:
		return status.Errorf(codes.Unauthenticated, "the token's pod %s does not run as %s; use the projected token of the pod", pod.Name, account)
	}
	return nil
}

// errNoKey says that no published key has the token's id.
var errNoKey = errors.New("no such key")

const (
	keysFor      = 10 * time.Minute // how long they are good
	keysPause    = 10 * time.Second // least time between two questions
	maxDiscovery = 1 << 20
)

// keys are the API server's published ones.
type keys struct {
	client kubernetes.Interface
	now    func() time.Time

	mu     sync.Mutex
	issuer string
	set    jose.JSONWebKeySet
	read   time.Time
}

// found is one key with its issuer.
type found struct {
	issuer string
	key    jose.JSONWebKey
}

// find returns the key with the id. One that is not known is asked for once more:
// API servers rotate keys.
func (k *keys) find(ctx context.Context, id string) (found, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := k.now().Sub(k.read)
	if k.read.IsZero() || age >= keysFor || len(k.set.Key(id)) == 0 && age >= keysPause {
		if err := k.fetch(ctx); err != nil {
			return found{}, err
		}
	}
	match := k.set.Key(id)
	if len(match) != 1 {
		return found{}, errNoKey
	}
	return found{issuer: k.issuer, key: match[0]}, nil
}

// kube: /.well-known/openid-configuration, get
// kube: /openid/v1/jwks, get
func (k *keys) fetch(ctx context.Context) error {
	var discovery struct {
		Issuer string `json:"issuer"`
	}
	var set jose.JSONWebKeySet
	for path, into := range map[string]any{"/.well-known/openid-configuration": &discovery, "/openid/v1/jwks": &set} {
		b, err := k.client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if len(b) > maxDiscovery {
			return fmt.Errorf("read %s: %d bytes", path, len(b))
		}
		if err := json.Unmarshal(b, into); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	if strings.TrimSpace(discovery.Issuer) == "" {
		return errors.New("read /.well-known/openid-configuration: it names no issuer")
	}
	k.issuer, k.set, k.read = discovery.Issuer, set, k.now()
	return nil
}
