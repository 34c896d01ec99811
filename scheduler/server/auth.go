package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"

	"github.com/ffpod/ffpod/scheduler/store"
)

// AuthConfig of an Authenticator.
type AuthConfig struct {
	Client kubernetes.Interface
	// Namespace is the scheduler's own, the only one whose pods may call.
	Namespace string
	// Audience is what tokens must be made for.
	Audience string
	// Allowed are the names of the ServiceAccounts that may call.
	Allowed []string
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
	// Log defaults to none.
	Log *zap.Logger
}

const (
	// A token that was good is good for this long: a pod that is deleted, or an
	// account that is, keeps its way in for as long.
	cacheFor  = 30 * time.Second
	cacheMost = 4096
	// How long to leave TokenReview alone after it was forbidden.
	reviewPause = 10 * time.Minute
	authTimeout = 10 * time.Second
)

// Authenticator tells callers from their tokens. It owns no goroutine.
type Authenticator struct {
	cfg  AuthConfig
	log  *zap.Logger
	keys *keys

	mu        sync.Mutex
	cache     map[[sha256.Size]byte]cached
	forbidden time.Time // when TokenReview was
	mode      string    // that is in use, as logged
}

type cached struct {
	caller store.Caller
	until  time.Time
}

// NewAuthenticator asks nothing yet.
func NewAuthenticator(cfg AuthConfig) *Authenticator {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	a := &Authenticator{cfg: cfg, log: cfg.Log, cache: map[[sha256.Size]byte]cached{}}
	a.keys = &keys{client: cfg.Client, now: cfg.Now}
	return a
}

// identity is what a token says once it is proved.
type identity struct {
	username    string // system:serviceaccount:NAMESPACE:NAME
	pod, podUID string
}

// unproven are claims of a token that nobody has verified: good for words only.
type unproven struct {
	Audience audience `json:"aud"`
	Expires  int64    `json:"exp"`
}

type audience []string

// UnmarshalJSON takes a string or a list.
func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// Authenticate returns the caller whose token this is. Errors are gRPC statuses:
// Unauthenticated, PermissionDenied, or Unavailable, each with what is wrong and
// what to do.
func (a *Authenticator) Authenticate(ctx context.Context, token string) (store.Caller, error) {
	key := sha256.Sum256([]byte(token))
	if caller, ok := a.cached(key); ok {
		return caller, nil
	}
	claims, err := peek(token)
	if err != nil {
		return store.Caller{}, status.Errorf(codes.Unauthenticated, "the token is malformed: %v; use the projected token of the pod", err)
	}
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	id, err := a.prove(ctx, token, claims)
	if err != nil {
		return store.Caller{}, err
	}
	caller, err := a.permit(id)
	if err != nil {
		return store.Caller{}, err
	}
	a.remember(key, caller, claims)
	return caller, nil
}

// prove verifies the token by TokenReview, or by keys where that is forbidden.
func (a *Authenticator) prove(ctx context.Context, token string, claims unproven) (identity, error) {
	if a.mayReview() {
		id, err := a.review(ctx, token, claims)
		if !apierrors.IsForbidden(err) {
			if err == nil {
				a.using("TokenReview", nil)
			}
			return id, words(err)
		}
		a.mu.Lock()
		a.forbidden = a.cfg.Now()
		a.mu.Unlock()
		a.using("keys", err)
	}
	id, err := a.verify(ctx, token, claims)
	return id, words(err)
}

// Probe finds out which way of authentication can be used, and logs it, before
// the first caller does.
func (a *Authenticator) Probe(ctx context.Context) error {
	_, err := a.review(ctx, "probe", unproven{})
	switch {
	case apierrors.IsForbidden(err):
		a.mu.Lock()
		a.forbidden = a.cfg.Now()
		a.mu.Unlock()
		a.using("keys", err)
		_, err = a.keys.find(ctx, "")
		if errors.Is(err, errNoKey) {
			err = nil
		}
		return err
	case status.Code(err) == codes.Unauthenticated: // it was reviewed
		a.using("TokenReview", nil)
		return nil
	}
	return err
}

func (a *Authenticator) mayReview() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.forbidden.IsZero() || a.cfg.Now().Sub(a.forbidden) >= reviewPause
}

// using logs which way is in use, when that changes.
func (a *Authenticator) using(mode string, why error) {
	a.mu.Lock()
	changed := a.mode != mode
	a.mode = mode
	a.mu.Unlock()
	switch {
	case !changed:
	case why == nil:
		a.log.Info("callers are authenticated by TokenReview")
	default:
		a.log.Info("callers are authenticated by the API server's published keys and their pod's UID; "+
			"to use TokenReview bind the ClusterRole system:auth-delegator, as kustomize/cluster does", zap.Error(why))
	}
}

// permit checks that an identity may call.
func (a *Authenticator) permit(id identity) (store.Caller, error) {
	rest, ok := strings.CutPrefix(id.username, "system:serviceaccount:")
	namespace, name, ok2 := strings.Cut(rest, ":")
	switch {
	case !ok || !ok2:
		return store.Caller{}, status.Errorf(codes.PermissionDenied, "%s is no ServiceAccount; use the projected token of the pod", id.username)
	case namespace != a.cfg.Namespace:
		return store.Caller{}, status.Errorf(codes.PermissionDenied,
			"ServiceAccount %s/%s is of another namespace than the scheduler (%s); install ffpod in the caller's namespace", namespace, name, a.cfg.Namespace)
	case !slices.Contains(a.cfg.Allowed, name):
		return store.Caller{}, status.Errorf(codes.PermissionDenied,
			"ServiceAccount %s/%s may not open sessions; add it to auth.allowedServiceAccounts of the scheduler", namespace, name)
	case id.pod == "" || id.podUID == "":
		return store.Caller{}, status.Error(codes.PermissionDenied, "the token is bound to no pod; use the projected token of the pod")
	}
	return store.Caller{Namespace: namespace, ServiceAccount: name, Pod: id.pod, PodUID: id.podUID}, nil
}

func (a *Authenticator) cached(key [sha256.Size]byte) (store.Caller, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.cache[key]
	return c.caller, ok && a.cfg.Now().Before(c.until)
}

func (a *Authenticator) remember(key [sha256.Size]byte, caller store.Caller, claims unproven) {
	now := a.cfg.Now()
	until := now.Add(cacheFor)
	if exp := time.Unix(claims.Expires, 0); claims.Expires != 0 && exp.Before(until) {
		until = exp
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.cache) >= cacheMost {
		for k, c := range a.cache {
			if !now.Before(c.until) {
				delete(a.cache, k)
			}
		}
	}
	if len(a.cache) < cacheMost {
		a.cache[key] = cached{caller, until}
	}
}

// explain says why a token was not accepted, as far as its claims tell.
func (a *Authenticator) explain(claims unproven, verdict string) error {
	switch now := a.cfg.Now().Unix(); {
	case claims.Expires != 0 && claims.Expires <= now:
		return status.Errorf(codes.Unauthenticated, "the token expired %s ago; read its file again for every run, the kubelet renews it",
			time.Duration(now-claims.Expires)*time.Second)
	case !slices.Contains(claims.Audience, a.cfg.Audience):
		return status.Errorf(codes.Unauthenticated, "the token is for audience %q, not %q; set audience: %s in the serviceAccountToken volume",
			strings.Join(claims.Audience, ","), a.cfg.Audience, a.cfg.Audience)
	}
	return status.Errorf(codes.Unauthenticated, "the token is not accepted: %s; use the projected token of the pod", verdict)
}

// words makes a status of an error that is none yet: the API server could not be
// asked.
func words(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Errorf(codes.Unavailable, "the API server could not be asked about the token: %v; try again", err)
}

// peek reads the claims of a JWT without verifying it.
func peek(token string) (unproven, error) {
	var claims unproven
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims, fmt.Errorf("%d parts where a JWT has 3", len(parts))
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return claims, errors.New("its claims are not base64url")
	}
	if err := json.Unmarshal(body, &claims); err != nil {
		return claims, errors.New("its claims are not JSON")
	}
	return claims, nil
}
