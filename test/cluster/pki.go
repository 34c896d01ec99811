package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"text/template"
	"time"
)

// An authority signs every certificate of one cluster, servers' and clients'.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// An identity is a certificate to be made: a client of the API server by name
// and groups, or, when it has hosts, a server.
type identity struct {
	file   string
	name   string
	groups []string
	hosts  []string
	config string // also write a kubeconfig here
}

// identities are all certificates of a cluster with these nodes.
func identities(nodes []node) []identity {
	all := []identity{
		{file: "admin", name: "admin", groups: []string{"system:masters"}, config: kubeconfig},
		{file: "apiserver", name: "kube-apiserver", hosts: []string{hostIP, apiServiceIP, "127.0.0.1", "localhost",
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + clusterDomain}},
		{file: "apiserver-kubelet", name: "kube-apiserver", groups: []string{"system:masters"}},
		{file: "controller-manager", name: "system:kube-controller-manager"},
		{file: "scheduler", name: "system:kube-scheduler"},
		{file: "coredns", name: "system:coredns"},
		{file: "provisioner", name: "system:provisioner"},
		{file: "kube-proxy", name: "system:kube-proxy"},
	}
	for i := range all {
		if all[i].config == "" && all[i].hosts == nil {
			all[i].config = kubeconfigOf(all[i].file)
		}
	}
	for _, n := range nodes {
		all = append(all,
			identity{file: n.name, name: "system:node:" + n.name, groups: []string{"system:nodes"}, config: kubeconfigOf(n.name)},
			identity{file: n.name + "-serving", name: n.name, hosts: []string{n.name, n.ip(), "127.0.0.1"}})
	}
	return all
}

func certFile(name string) string     { return filepath.Join(pkiDir, name+".crt") }
func keyFile(name string) string      { return filepath.Join(pkiDir, name+".key") }
func kubeconfigOf(name string) string { return filepath.Join(pkiDir, name+".kubeconfig") }

// writePKI makes the authority, every identity, and the key pair that signs
// ServiceAccount tokens.
func writePKI(nodes []node) error {
	if err := os.MkdirAll(pkiDir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := os.WriteFile(certFile("ca"), ca.pem, 0o644); err != nil {
		return err
	}
	if err := writeKey(keyFile("ca"), ca.key); err != nil {
		return err
	}
	for _, id := range identities(nodes) {
		if err := ca.issue(id); err != nil {
			return fmt.Errorf("certificate %s: %w", id.file, err)
		}
	}
	return writeTokenKeys()
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificate("ffpod-cluster")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// certificate is valid from an hour ago, for clocks that step back.
func certificate(name string) *x509.Certificate {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
	}
}

func (a *authority) issue(id identity) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert := certificate(id.name)
	cert.Subject.Organization = id.groups
	cert.KeyUsage = x509.KeyUsageDigitalSignature
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if id.hosts != nil {
		cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	for _, host := range id.hosts {
		if ip := net.ParseIP(host); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(certFile(id.file), certPEM, 0o644); err != nil {
		return err
	}
	if err := writeKey(keyFile(id.file), key); err != nil {
		return err
	}
	if id.config == "" {
		return nil
	}
	keyPEM, err := os.ReadFile(keyFile(id.file))
	if err != nil {
		return err
	}
	return writeKubeconfig(id.config, id.name, a.pem, certPEM, keyPEM)
}

// writeTokenKeys makes the RSA pair of ServiceAccount tokens; RSA because that
// is what tokens of nearly all clusters are signed with.
func writeTokenKeys() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	if err := os.WriteFile(filepath.Join(pkiDir, "tokens.pub"), block, 0o644); err != nil {
		return err
	}
	return writeKey(keyFile("tokens"), key)
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

const kubeconfigText = `apiVersion: v1
kind: Config
current-context: ffpod-cluster
contexts: [{name: ffpod-cluster, context: {cluster: ffpod-cluster, user: {{.User}}}}]
clusters: [{name: ffpod-cluster, cluster: {server: "{{.Server}}", certificate-authority-data: {{.CA}}}}]
users: [{name: {{.User}}, user: {client-certificate-data: {{.Cert}}, client-key-data: {{.Key}}}}]
`

func writeKubeconfig(path, user string, ca, cert, key []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	encode := base64.StdEncoding.EncodeToString
	err = template.Must(template.New("").Parse(kubeconfigText)).Execute(f, map[string]string{
		"User": `"` + user + `"`, "Server": apiserverURL, "CA": encode(ca), "Cert": encode(cert), "Key": encode(key),
	})
	if err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
