package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// An apiClient reads from the API server as the administrator. Health checks
// are a few GETs of JSON; a client library would cost seconds of compilation.
type apiClient struct{ http *http.Client }

// newAPIClient needs the certificates to exist.
func newAPIClient() (*apiClient, error) {
	ca, err := os.ReadFile(certFile("ca"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	cert, err := tls.LoadX509KeyPair(certFile("admin"), keyFile("admin"))
	if err != nil {
		return nil, err
	}
	return &apiClient{&http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}},
	}}, nil
}

// get reads a path into the value, or only checks that it answers 200.
func (a *apiClient) get(ctx context.Context, path string, into any) error {
	return fetch(ctx, a.http, apiserverURL+path, into)
}

// httpOK checks an URL for 200. The servers asked are on this machine and show
// a self-made certificate if any.
func httpOK(url string) func(context.Context) error {
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	}
	return func(ctx context.Context) error { return fetch(ctx, client, url, nil) }
}

func fetch(ctx context.Context, client *http.Client, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %.300s", url, response.Status, strings.TrimSpace(string(body)))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// nodeObject is what this command reads of a Node.
type nodeObject struct {
	Metadata struct{ Name string }
	Status   struct {
		Allocatable map[string]string
		Conditions  []struct{ Type, Status, Message string }
		NodeInfo    struct{ KubeletVersion, ContainerRuntimeVersion, KernelVersion string }
	}
	Spec struct{ Taints []struct{ Key string } }
}

// ready says what keeps pods from running on the node.
func (n nodeObject) ready(devices string) error {
	for _, condition := range n.Status.Conditions {
		if condition.Type == "Ready" && condition.Status != "True" {
			return fmt.Errorf("node %s is not ready: %s", n.Metadata.Name, condition.Message)
		}
	}
	for _, taint := range n.Spec.Taints {
		if strings.HasPrefix(taint.Key, "node.kubernetes.io/") {
			return fmt.Errorf("node %s has taint %s", n.Metadata.Name, taint.Key)
		}
	}
	for device := range strings.SplitSeq(devices, ",") {
		name, count, _ := strings.Cut(device, "=")
		if n.Status.Allocatable[name] != count {
			return fmt.Errorf("node %s has %q of %s allocatable, not %s", n.Metadata.Name, n.Status.Allocatable[name], name, count)
		}
	}
	return nil
}

// nodesReady checks every node of the cluster.
func (c *cluster) nodesReady(ctx context.Context) error {
	for _, n := range c.nodes() {
		var object nodeObject
		if err := c.api.get(ctx, "/api/v1/nodes/"+n.name, &object); err != nil {
			return err
		}
		if err := object.ready(c.Devices); err != nil {
			return err
		}
	}
	return nil
}

// podsCanStart checks that pods of the default namespace have an identity.
func (c *cluster) podsCanStart(ctx context.Context) error {
	return c.api.get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
}

// resolves asks the cluster's DNS Service for the API server. From the host
// that goes through node1, so the answer proves CoreDNS, kube-proxy and route.
func resolves(ctx context.Context) error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		dialer := net.Dialer{Timeout: time.Second}
		return dialer.DialContext(ctx, network, net.JoinHostPort(dnsServiceIP, "53"))
	}}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	addresses, err := resolver.LookupHost(ctx, "kubernetes.default.svc."+clusterDomain+".")
	if failure := new(net.DNSError); errors.As(err, &failure) {
		failure.Server = dnsServiceIP // not the one in the host's resolv.conf
	}
	if err != nil {
		return err
	}
	if len(addresses) != 1 || addresses[0] != apiServiceIP {
		return fmt.Errorf("DNS says that kubernetes.default is %v, not %s", addresses, apiServiceIP)
	}
	return nil
}

// healthy is the whole check: every process, and what they achieve together.
func (c *cluster) healthy(ctx context.Context) error {
	var problems []error
	for _, p := range c.parts() {
		if process, err := recorded(p.name); err != nil || !process.alive() {
			problems = append(problems, fmt.Errorf("%s does not run; see %s", p.name, logPath(p.name)))
		} else if p.ready != nil {
			if err := p.ready(ctx); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", p.name, err))
			}
		}
	}
	for _, check := range []func(context.Context) error{c.nodesReady, c.podsCanStart, resolves} {
		if err := check(ctx); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}
