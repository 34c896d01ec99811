package server

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"time"
)

// Keys of the Secret. The next CA is there while it is published but signs
// nothing; the previous one for as long as a replica may still present what it
// signed.
const (
	keyCA         = "ca.crt"
	keyCAKey      = "ca.key"
	keyServing    = "tls.crt"
	keyServingKey = "tls.key"
	keyNext       = "next-ca.crt"
	keyNextKey    = "next-ca.key"
	keyNextSince  = "next-ca.published" // RFC 3339, when callers could first read it
	keyPrevious   = "previous-ca.crt"
)

// Lifetimes of mode self.
type Lifetimes struct {
	CA      time.Duration
	Serving time.Duration
	// Publish is how long a CA is known to callers before it signs.
	Publish time.Duration
}

// backdate makes a certificate valid for callers whose clock is behind.
const backdate = 10 * time.Minute

// rotate returns what the Secret should hold now. published is what the callers'
// ConfigMap holds. Nothing of the arguments is changed; the same map in content
// means that there is nothing to do.
func rotate(data map[string][]byte, published []byte, life Lifetimes, now time.Time) (map[string][]byte, error) {
	next := maps.Clone(data)
	if next == nil {
		next = map[string][]byte{}
	}
	if err := rotateCA(next, published, life, now); err != nil {
		return nil, err
	}
	ca, caKey, err := parsePair(next[keyCA], next[keyCAKey])
	if err != nil {
		return nil, fmt.Errorf("read the CA that was just made: %w", err)
	}
	if reason := staleServing(next, ca, life, now); reason == "" {
		return next, nil
	}
	next[keyServing], next[keyServingKey], err = newServing(ca, caKey, life, now)
	return next, err
}

// rotateCA sees to it that the CA can sign, and that its successor is known in time.
func rotateCA(d map[string][]byte, published []byte, life Lifetimes, now time.Time) error {
	ca, _, err := parsePair(d[keyCA], d[keyCAKey])
	if err != nil || !now.Before(ca.NotAfter) {
		// The first start, or nobody was here for a year: nobody can be told
		// before.
		for _, k := range []string{keyNext, keyNextKey, keyNextSince, keyPrevious, keyServing, keyServingKey} {
			delete(d, k)
		}
		d[keyCA], d[keyCAKey], err = newCA(life, now)
		return err
	}
	if _, _, err := parsePair(d[keyNext], d[keyNextKey]); err != nil {
		delete(d, keyNext)
		delete(d, keyNextKey)
		delete(d, keyNextSince)
		// While the CA outlives two serving certificates, its successor has the
		// time of a serving certificate to become known.
		if now.After(ca.NotAfter.Add(-2*life.Serving - life.Publish)) {
			if d[keyNext], d[keyNextKey], err = newCA(life, now); err != nil {
				return err
			}
		}
		if since := ca.NotBefore.Add(backdate + 2*life.Publish); now.After(since) {
			delete(d, keyPrevious)
		}
		return nil
	}
	since, err := time.Parse(time.RFC3339, string(d[keyNextSince]))
	switch {
	case !bytes.Contains(published, bytes.TrimSpace(d[keyNext])):
		delete(d, keyNextSince)
	case err != nil:
		d[keyNextSince] = []byte(now.UTC().Format(time.RFC3339))
	case !now.Before(since.Add(life.Publish)):
		d[keyPrevious] = d[keyCA]
		d[keyCA], d[keyCAKey] = d[keyNext], d[keyNextKey]
		delete(d, keyNext)
		delete(d, keyNextKey)
		delete(d, keyNextSince)
	}
	return nil
}

// bundle is what callers must trust.
func bundle(d map[string][]byte) []byte {
	var all []byte
	for _, key := range []string{keyPrevious, keyCA, keyNext} {
		if c := bytes.TrimSpace(d[key]); len(c) > 0 {
			all = append(append(all, c...), '\n')
		}
	}
	return all
}

// staleServing says why the serving certificate must be renewed, "" if not.
func staleServing(d map[string][]byte, ca *x509.Certificate, life Lifetimes, now time.Time) string {
	leaf, _, err := parsePair(d[keyServing], d[keyServingKey])
	switch {
	case err != nil:
		return err.Error()
	case leaf.CheckSignatureFrom(ca) != nil:
		return "another CA signed it"
	case leaf.VerifyHostname(ServerName) != nil:
		return "it names somebody else"
	case now.Before(leaf.NotBefore):
		return "it is of the future"
	case !now.Before(renewAt(leaf)):
		return "two thirds of its life have passed"
	}
	return ""
}

// renewAt is when two thirds of a certificate's life have passed.
func renewAt(c *x509.Certificate) time.Time {
	begin := c.NotBefore.Add(backdate)
	return begin.Add(c.NotAfter.Sub(begin) * 2 / 3)
}

func newCA(life Lifetimes, now time.Time) (cert, key []byte, err error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "ffpod CA " + now.UTC().Format("2006-01-02 15:04:05")},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life.CA),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		// Whoever steals it can pretend to be a scheduler, and nobody else.
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{ServerName},
	}
	return sign(template, nil, nil)
}

func newServing(ca *x509.Certificate, caKey *ecdsa.PrivateKey, life Lifetimes, now time.Time) (cert, key []byte, err error) {
	end := now.Add(life.Serving)
	if end.After(ca.NotAfter) {
		end = ca.NotAfter
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: ServerName},
		DNSNames:    []string{ServerName},
		NotBefore:   now.Add(-backdate),
		NotAfter:    end,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return sign(template, ca, caKey)
}

// sign makes a key and its certificate; without a CA it signs itself.
func sign(template, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (cert, key []byte, err error) {
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, fmt.Errorf("make a serial number: %w", err)
	}
	if ca == nil {
		ca, caKey = template, own
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &own.PublicKey, caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("sign a certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// parsePair reads a certificate with its key, as sign makes them.
func parsePair(cert, key []byte) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	if len(cert) == 0 || len(key) == 0 {
		return nil, nil, errors.New("there is none")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, nil, err
	}
	own, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("its key is not ECDSA")
	}
	return pair.Leaf, own, nil
}
