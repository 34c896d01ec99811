package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// certificate makes one of a CA, or a CA for itself.
func certificate(t *testing.T, name string, until time.Time, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: now.Add(-48 * time.Hour), NotAfter: until,
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	issuer, signer := template, any(key)
	if parent != nil {
		issuer, signer = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func pemOf(c tls.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
}

const testCA = "" // set by TestTrust: other tests do not read it

// TestTrust shakes hands with a real TLS server.
func TestTrust(t *testing.T) {
	far := time.Now().Add(365 * 24 * time.Hour)
	ca, other := certificate(t, "ca", far, nil), certificate(t, "other", far, nil)
	old := certificate(t, "old", now.Add(-24*time.Hour), nil)
	good := certificate(t, "ffpod-scheduler", far, &ca)
	stranger := certificate(t, "somebody", far, &ca)
	for name, c := range map[string]struct {
		published string
		presented tls.Certificate
		level     Level
		what      string
	}{
		"good":       {pemOf(other) + pemOf(ca), good, OK, "is of it"},
		"other CA":   {pemOf(other), good, Fail, "cannot trust"},
		"other name": {pemOf(ca), stranger, Fail, "cannot trust"},
		"expired":    {pemOf(old), good, Fail, "has expired"},
		"empty":      {"", good, Fail, "published no CA"},
	} {
		t.Run(name, func(t *testing.T) {
			x := healthy()
			x.configMaps["ffpod-client"].Data["ca.crt"] = c.published
			p := x.patient(t)
			p.Dial = func(_ context.Context, pod string, port int) (net.Conn, error) {
				if !strings.HasPrefix(pod, "ffpod-scheduler") || port != 7443 {
					t.Errorf("dialled %s:%d", pod, port)
				}
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return nil, err
				}
				go func() {
					defer l.Close()
					if theirs, err := l.Accept(); err == nil {
						defer theirs.Close()
						_ = tls.Server(theirs, &tls.Config{Certificates: []tls.Certificate{c.presented}, NextProtos: []string{"h2"}}).Handshake()
					}
				}()
				return net.Dial("tcp", l.Addr().String())
			}
			r := examine(t, p, "trust")
			if len(r.Findings) != 1 || r.Findings[0].Level != c.level || !strings.Contains(r.Findings[0].What, c.what) {
				t.Errorf("%+v", r.Findings)
			}
		})
	}
}
