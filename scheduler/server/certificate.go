package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// CertificatesConfig of Certificates.
type CertificatesConfig struct {
	Client kubernetes.Interface
	Self   Self
	// Directory, when set, holds tls.crt, tls.key and ca.crt of somebody else
	// (an operator's Secret, cert-manager's): mode secret. Empty: mode self.
	Directory string
	// Lifetimes of mode self.
	Lifetimes Lifetimes
	// Interval is how often everything is looked at. Defaults to 1 m, and to
	// 10 s in mode secret.
	Interval time.Duration
	// Egress is which network inputs the classes may reach at most, once they are
	// known; callers are told, and send such commands then. Nil: none.
	Egress func() (most ffmpeg.Egress, known bool)
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
	// Log defaults to none.
	Log *zap.Logger
}

// Certificates keeps the serving certificate, and what callers need to verify it
// in their ConfigMap. Run is its only goroutine.
type Certificates struct {
	cfg     CertificatesConfig
	log     *zap.Logger
	current atomic.Pointer[tls.Certificate]
	failure atomic.Pointer[error] // of the last look
	noticed string                // the last problem with the address, logged once
}

// NewCertificates looks at nothing yet.
func NewCertificates(cfg CertificatesConfig) *Certificates {
	if cfg.Interval == 0 {
		cfg.Interval = time.Minute
		if cfg.Directory != "" {
			cfg.Interval = 10 * time.Second
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Certificates{cfg: cfg, log: cfg.Log}
}

// Certificate returns what to present now.
func (c *Certificates) Certificate() (*tls.Certificate, error) {
	if cert := c.current.Load(); cert != nil {
		return cert, nil
	}
	return nil, errors.New("there is no serving certificate yet")
}

// Ready says why there is no usable certificate, nil when there is one.
func (c *Certificates) Ready() error {
	cert := c.current.Load()
	if cert == nil {
		if err := c.failure.Load(); err != nil && *err != nil {
			return *err
		}
		return errors.New("not loaded yet")
	}
	if !c.cfg.Now().Before(cert.Leaf.NotAfter) {
		return fmt.Errorf("the serving certificate expired at %s", cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// Run renews and publishes until ctx is done. Trouble is logged and tried again:
// the certificate in use stays in use.
func (c *Certificates) Run(ctx context.Context) error {
	for {
		err := c.Reconcile(ctx)
		pause := c.cfg.Interval
		if err != nil && ctx.Err() == nil {
			c.log.Warn("certificate or its publication is not as it should be; trying again", zap.Error(err))
			pause = min(pause, 5*time.Second)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// Reconcile looks at everything once.
func (c *Certificates) Reconcile(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var err error
	if c.cfg.Directory != "" {
		err = c.mounted(ctx)
	} else {
		err = c.managed(ctx)
	}
	c.failure.Store(&err)
	return err
}

// maxConflicts bounds the rounds in which another replica was faster.
const maxConflicts = 5

// managed is mode self: the Secret is brought up to date, then used.
func (c *Certificates) managed(ctx context.Context) error {
	for range maxConflicts {
		secret, changed, err := c.renew(ctx)
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := c.use(secret.Data[keyServing], secret.Data[keyServingKey]); err != nil {
			return fmt.Errorf("secret %s: %w", c.cfg.Self.Secret, err)
		}
		if err := c.publish(ctx, bundle(secret.Data)); err != nil {
			return err
		}
		if !changed {
			return nil
		}
		// Once more: what was published now may allow the next step to begin.
	}
	return fmt.Errorf("secret %s: other replicas changed it %d times in a row", c.cfg.Self.Secret, maxConflicts)
}

// renew brings the Secret up to date.
//
// kube: secrets, get, update
func (c *Certificates) renew(ctx context.Context) (*corev1.Secret, bool, error) {
	secrets := c.cfg.Client.CoreV1().Secrets(c.cfg.Self.Namespace)
	secret, err := secrets.Get(ctx, c.cfg.Self.Secret, metav1.GetOptions{})
	if err != nil {
		return nil, false, fmt.Errorf("read Secret %s: %w; kustomize/base makes it, empty", c.cfg.Self.Secret, err)
	}
	published, err := c.published(ctx)
	if err != nil {
		return nil, false, err
	}
	data, err := rotate(secret.Data, []byte(published.Data[keyCA]), c.cfg.Lifetimes, c.cfg.Now())
	if err != nil {
		return nil, false, fmt.Errorf("renew the certificates of Secret %s: %w", c.cfg.Self.Secret, err)
	}
	if maps.EqualFunc(data, secret.Data, bytes.Equal) {
		return secret, false, nil
	}
	changes := changed(secret.Data, data)
	secret.Data = data // with the resourceVersion that was read
	if secret, err = secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return nil, false, fmt.Errorf("update Secret %s: %w", c.cfg.Self.Secret, err)
	}
	c.log.Info("certificates renewed", zap.String("secret", c.cfg.Self.Secret), zap.Strings("keys", changes))
	return secret, true, nil
}

func changed(from, to map[string][]byte) []string {
	var keys []string
	for _, k := range []string{keyCA, keyServing, keyNext, keyNextSince, keyPrevious} {
		if !bytes.Equal(from[k], to[k]) {
			keys = append(keys, k)
		}
	}
	return keys
}

// mounted is mode secret: files that somebody else renews are used and published.
func (c *Certificates) mounted(ctx context.Context) error {
	read := func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(c.cfg.Directory, name)) }
	cert, err := read(keyServing)
	if err != nil {
		return fmt.Errorf("read the serving certificate: %w; let the volume tls name a Secret of type kubernetes.io/tls", err)
	}
	key, err := read(keyServingKey)
	if err != nil {
		return fmt.Errorf("read the serving key: %w", err)
	}
	if err := c.use(cert, key); err != nil {
		return fmt.Errorf("certificate in %s: %w", c.cfg.Directory, err)
	}
	ca, err := read(keyCA)
	if errors.Is(err, os.ErrNotExist) {
		ca, err = nil, nil // callers know the CA by other means, or ca.crt is put there by hand
	}
	if err != nil {
		return fmt.Errorf("read the CA: %w", err)
	}
	return c.publish(ctx, ca)
}

// use presents a certificate from now on, if callers will accept it.
func (c *Certificates) use(cert, key []byte) error {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("certificate and key cannot be used: %w", err)
	}
	if err := pair.Leaf.VerifyHostname(ServerName); err != nil {
		return fmt.Errorf("add the DNS name %s to the certificate: %w", ServerName, err)
	}
	if now := c.cfg.Now(); !now.Before(pair.Leaf.NotAfter) {
		return fmt.Errorf("the certificate expired at %s", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	old := c.current.Load()
	if old != nil && bytes.Equal(old.Leaf.Raw, pair.Leaf.Raw) {
		return nil
	}
	c.current.Store(&pair)
	c.log.Info("serving certificate loaded", zap.Time("notAfter", pair.Leaf.NotAfter), zap.String("issuer", pair.Leaf.Issuer.CommonName))
	return nil
}

// kube: configmaps, get
func (c *Certificates) published(ctx context.Context) (*corev1.ConfigMap, error) {
	m, err := c.cfg.Client.CoreV1().ConfigMaps(c.cfg.Self.Namespace).Get(ctx, c.cfg.Self.ConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w; kustomize/base makes it, empty", c.cfg.Self.ConfigMap, err)
	}
	return m, nil
}

// publish tells callers what to trust (unless ca is empty), where to go, and whether
// network inputs may be sent there.
//
// kube: configmaps, update
func (c *Certificates) publish(ctx context.Context, ca []byte) error {
	m, err := c.published(ctx)
	if err != nil {
		return err
	}
	want := maps.Clone(m.Data)
	if want == nil {
		want = map[string]string{}
	}
	if len(ca) > 0 {
		want[keyCA] = string(ca)
	}
	if address, err := c.cfg.Self.address(ctx, c.cfg.Client); err == nil {
		want["address"] = address
		c.noticed = ""
	} else if c.noticed != err.Error() && c.cfg.Self.Pod != "" {
		c.noticed = err.Error()
		c.log.Warn("the scheduler's address is not published; callers need FFPOD_ADDRESS", zap.Error(err))
	}
	if c.cfg.Egress != nil {
		if most, known := c.cfg.Egress(); known {
			want["egress"] = cmp.Or(string(most), "false")
		}
	}
	if maps.Equal(want, m.Data) {
		return nil
	}
	m.Data = want
	if _, err := c.cfg.Client.CoreV1().ConfigMaps(c.cfg.Self.Namespace).Update(ctx, m, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update ConfigMap %s: %w", c.cfg.Self.ConfigMap, err)
	}
	c.log.Info("published to callers", zap.String("configMap", c.cfg.Self.ConfigMap), zap.String("address", want["address"]))
	return nil
}
