package jellyfin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// endpoint is where Jellyfin listens, by its network.xml.
type endpoint struct {
	scheme, port, base string
	hosts              []string
}

// readEndpoint reads network.xml below the configuration; a file or a setting
// that is not there has Jellyfin's default.
func readEndpoint(config string) (endpoint, error) {
	e := endpoint{scheme: "http", port: "8096", hosts: []string{"127.0.0.1"}}
	file := filepath.Join(config, "config", Network.Name)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return e, err
	}
	d, err := ParseDocument(text, Network.Root)
	if err != nil {
		return e, fmt.Errorf("read %s: %w", file, err)
	}
	get := func(name, otherwise string) string {
		if v, ok := d.Get(name); ok && len(v) > 0 && strings.TrimSpace(v[0]) != "" {
			return strings.TrimSpace(v[0])
		}
		return otherwise
	}
	e.port = get("InternalHttpPort", e.port)
	if get("RequireHttps", "false") == "true" && get("EnableHttps", "false") == "true" {
		e.scheme, e.port = "https", get("InternalHttpsPort", "8920")
	}
	if base := strings.Trim(get("BaseUrl", ""), "/"); base != "" {
		e.base = "/" + base
	}
	// With these it need not listen on loopback.
	addresses, _ := d.Get("LocalNetworkAddresses")
	for _, a := range addresses {
		if ip, err := netip.ParseAddr(strings.TrimSpace(a)); err == nil {
			e.hosts = append(e.hosts, ip.String())
		}
	}
	return e, nil
}

// Healthy says why Jellyfin is not healthy, nil when it is. During start-up and
// migrations Jellyfin answers "Degraded" with status 200, so that only the words
// tell.
func Healthy(ctx context.Context, config string) error {
	e, err := readEndpoint(config)
	if err != nil {
		return err
	}
	for _, host := range e.hosts {
		url := e.scheme + "://" + net.JoinHostPort(host, e.port) + e.base + "/health"
		var body string
		if body, err = ask(ctx, url); err != nil {
			continue
		}
		switch body {
		case "Healthy":
			return nil
		case "Degraded":
			return fmt.Errorf("%s answers Degraded: Jellyfin starts, or migrates its database; see its log", url)
		}
		return fmt.Errorf("%s answers %q instead of Healthy; see Jellyfin's log", url, body)
	}
	return err
}

// client asks a server of this pod: no proxy, no name to verify, no redirection
// away from it.
func client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // loopback; whoever listens there is Jellyfin
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       10 * time.Second,
	}
}

func ask(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := client().Do(req)
	if err != nil {
		return "", fmt.Errorf("ask Jellyfin: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 200))
	if err != nil {
		return "", fmt.Errorf("ask Jellyfin: GET %s: %w", url, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Sprintf("%s %s", res.Status, strings.TrimSpace(string(b))), nil
	}
	return string(b), nil
}
