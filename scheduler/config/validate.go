package config

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ffpod/ffpod/scheduler/class"
)

// Validate returns every problem, each as "path: what is wrong". An empty
// result means that the configuration can be used.
func (c Configuration) Validate() []error {
	var p problems
	p.address("listen.grpc", c.Listen.GRPC)
	p.address("listen.http", c.Listen.HTTP)
	if c.Listen.GRPC == c.Listen.HTTP {
		p.add("listen.http", "%q is the address of listen.grpc too", c.Listen.HTTP)
	}
	p.loopback("listen.operators", c.Listen.Operators)
	p.auth(c.Auth)
	p.oneOf("placement.policy", c.Placement.Policy, "warm-then-job", "warm", "job")
	p.oneOf("placement.builds", c.Placement.Builds, "any", "same")
	p.between("queue.limit", c.Queue.Limit, 1, 100_000)
	p.fallback(c.Placement.Fallback)
	p.between("queue.perCaller", c.Queue.PerCaller, 0, 100_000)
	p.within("queue.timeout", c.Queue.Timeout, time.Second, 24*time.Hour)
	p.within("session.grace", c.Session.Grace, time.Second, 24*time.Hour)
	p.within("session.jobStart", c.Session.JobStart, time.Second, time.Hour)
	p.between("session.history", c.Session.History, 1, 1_000_000)
	p.within("scale.idle", c.Scale.Idle, time.Second, 24*time.Hour)
	p.tls(c.TLS)
	p.oneOf("store.kind", c.Store.Kind, "memory")
	p.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	p.within("drainTimeout", c.DrainTimeout, 100*time.Millisecond, 5*time.Minute)
	return p
}

type problems []error

func (p *problems) add(path, format string, args ...any) {
	*p = append(*p, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

func (p *problems) address(path, value string) {
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		p.add(path, "%q is not HOST:PORT or :PORT", value)
		return
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		p.add(path, "%q has no port between 0 and 65535", value)
	}
}

func (p *problems) fallback(by map[string]Fallback) {
	for _, kind := range slices.Sorted(maps.Keys(by)) {
		path := "placement.fallback." + kind
		if !slices.Contains(class.Kinds(), kind) {
			p.add(path, "there is no such kind of session; there are: %s", strings.Join(class.Kinds(), ", "))
		}
		p.oneOf(path+".then", by[kind].Then, "wait", "local", "fail")
		if d := by[kind].After.Duration; d < 0 || d > time.Hour {
			p.add(path+".after", "%s is not between 0s and 1h", d)
		}
	}
}

// loopback refuses an address that others than who may port-forward could reach.
func (p *problems) loopback(path, value string) {
	if value == "" {
		return
	}
	p.address(path, value)
	if host, _, err := net.SplitHostPort(value); err == nil && !net.ParseIP(host).IsLoopback() {
		p.add(path, "%q is not a loopback address: everyone in the cluster could read it; use 127.0.0.1:PORT", value)
	}
}

func (p *problems) auth(a Auth) {
	if strings.TrimSpace(a.Audience) == "" {
		p.add("auth.audience", "is empty; tokens for any audience would be accepted")
	}
	if len(a.AllowedServiceAccounts) == 0 {
		p.add("auth.allowedServiceAccounts", "is empty; nobody could open a session")
	}
	for i, name := range a.AllowedServiceAccounts {
		path := fmt.Sprintf("auth.allowedServiceAccounts[%d]", i)
		if why := validation.IsDNS1123Subdomain(name); len(why) > 0 {
			p.add(path, "%q is not the name of a ServiceAccount: %s", name, why[0])
		}
		if slices.Index(a.AllowedServiceAccounts, name) < i {
			p.add(path, "%q is listed twice", name)
		}
	}
}

func (p *problems) tls(t TLS) {
	p.oneOf("tls.mode", t.Mode, TLSSelf, TLSSecret)
	if !filepath.IsAbs(t.Directory) {
		p.add("tls.directory", "%q is not an absolute path", t.Directory)
	}
	p.within("tls.servingLifetime", t.ServingLifetime, time.Hour, 397*24*time.Hour)
	p.within("tls.caLifetime", t.CALifetime, 24*time.Hour, 20*365*24*time.Hour)
	p.within("tls.publish", t.Publish, 10*time.Minute, 90*24*time.Hour)
	// The old CA must outlive every certificate it signs, and the new one must
	// have been published before the old one signs its last.
	if ca, need := t.CALifetime.Duration, 3*t.ServingLifetime.Duration+t.Publish.Duration; ca < need {
		p.add("tls.caLifetime", "%s is shorter than three servingLifetime and publish (%s)", ca, need)
	}
}

func (p *problems) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(path, "%q is not one of %s", value, strings.Join(allowed, ", "))
	}
}

func (p *problems) between(path string, value, least, most int) {
	if value < least || value > most {
		p.add(path, "%d is not between %d and %d", value, least, most)
	}
}

func (p *problems) within(path string, value Duration, least, most time.Duration) {
	if value.Duration < least || value.Duration > most {
		p.add(path, "%s is not between %s and %s", value.Duration, least, most)
	}
}
