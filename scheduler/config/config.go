// Package config is the scheduler's configuration file: versioned, decoded
// strictly, with defaults, and validated as a whole.
//
// Only cmd/scheduler imports it; every other package has a Config of its own,
// so that a change of the file's format stays here. testdata/full.yaml shows
// every setting with its default.
package config

import (
	"errors"
	"fmt"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/ffpod/ffpod/scheduler/api"
)

// The one version there is.
const (
	APIVersion = "ffpod.dev/v1alpha1"
	Kind       = "SchedulerConfiguration"
)

// Who owns the serving certificate: TLS.Mode.
const (
	TLSSelf   = "self"
	TLSSecret = "secret"
)

// Configuration is the file.
type Configuration struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`

	Listen    Listen    `json:"listen"`
	Auth      Auth      `json:"auth"`
	Placement Placement `json:"placement"`
	Queue     Queue     `json:"queue"`
	Session   Session   `json:"session"`
	Scale     Scale     `json:"scale"`
	TLS       TLS       `json:"tls"`
	Store     Store     `json:"store"`
	Log       Log       `json:"log"`

	// DrainTimeout bounds the time from SIGTERM to the end of the process.
	// Defaults to 5s.
	DrainTimeout Duration `json:"drainTimeout"`
}

// Listen are the addresses, HOST:PORT or :PORT.
type Listen struct {
	// GRPC serves sessions over TLS. Defaults to :7443.
	GRPC string `json:"grpc"`
	// HTTP serves health and metrics in the clear. Defaults to :8080.
	HTTP string `json:"http"`
	// Operators serves `ffpod status`, to whoever may port-forward to the pod: it
	// must be a loopback address. Empty: nobody. Defaults to 127.0.0.1:8081.
	Operators string `json:"operators"`
}

// Auth says who may open sessions.
type Auth struct {
	// Audience a token must be made for. Defaults to ffpod.
	Audience string `json:"audience"`
	// AllowedServiceAccounts are names in the scheduler's own namespace.
	// Defaults to ffpod-client and jellyfin.
	AllowedServiceAccounts []string `json:"allowedServiceAccounts"`
}

// Placement says where sessions go that ask for nothing else.
type Placement struct {
	// Policy is warm-then-job, warm or job. Defaults to warm-then-job.
	Policy string `json:"policy"`
	// Builds says what becomes of a worker whose ffmpeg is another build than
	// the caller's: any accepts it, same refuses it. Defaults to any.
	Builds string `json:"builds"`
	// Fallback says, by kind of session, what becomes of one that no worker can take:
	// wait (as long as the queue lets it), local (the caller runs it, if it can) or
	// fail. Defaults to local after 5s for image and trickplay, whose caller kills
	// them soon, and to wait for the others.
	Fallback map[string]Fallback `json:"fallback,omitempty"`
}

// Fallback is what becomes of a session that no worker can take.
type Fallback struct {
	// Then is wait, local or fail.
	Then string `json:"then"`
	// After is how long it waits first; 0s: not at all. Not read for wait.
	After Duration `json:"after"`
}

// Queue bounds the sessions that wait.
type Queue struct {
	// Limit is the most sessions that wait at a time. Defaults to 256.
	Limit int `json:"limit"`
	// Timeout is the longest wait of a session that names no bound of its own.
	// Defaults to 2m.
	Timeout Duration `json:"timeout"`
	// PerCaller is the most sessions of one ServiceAccount on workers at a time; more
	// wait. 0: any number. Defaults to 0.
	PerCaller int `json:"perCaller"`
}

// Session bounds one session.
type Session struct {
	// Grace is how long a worker keeps a session to which nobody is attached.
	// Defaults to 5m.
	Grace Duration `json:"grace"`
	// JobStart is the most time from the decision for a Job until its worker
	// answers. Defaults to 3m.
	JobStart Duration `json:"jobStart"`
	// History is the number of ended sessions that are remembered. Defaults to
	// 1000.
	History int `json:"history"`
}

// Scale is of the classes that the scheduler scales.
type Scale struct {
	// Idle is how long fewer warm workers must have been enough before any goes.
	// Defaults to 5m.
	Idle Duration `json:"idle"`
}

// TLS is the serving certificate.
type TLS struct {
	// Mode is self or secret. Defaults to self.
	Mode string `json:"mode"`
	// Directory is where the volume `tls` is mounted; mode secret reads it.
	// Defaults to /etc/ffpod/tls.
	Directory string `json:"directory"`
	// CALifetime is the life of a CA of mode self. Defaults to 8760h.
	CALifetime Duration `json:"caLifetime"`
	// ServingLifetime is the life of a certificate of mode self, renewed after
	// two thirds of it. Defaults to 720h.
	ServingLifetime Duration `json:"servingLifetime"`
	// Publish is how long a new CA is known to callers before it signs
	// anything. Defaults to 24h.
	Publish Duration `json:"publish"`
}

// Store is where the queue and the sessions are kept.
type Store struct {
	// Kind is memory. Defaults to memory.
	Kind string `json:"kind"`
}

// Log is the scheduler's own log.
type Log struct {
	// Level is debug, info, warn or error. Defaults to info.
	Level string `json:"level"`
}

// Duration is written as in 1h30m.
type Duration = metav1.Duration

// Default returns the configuration of a file that sets nothing.
func Default() Configuration {
	d := func(t time.Duration) Duration { return Duration{Duration: t} }
	soon := Fallback{Then: "local", After: d(5 * time.Second)}
	return Configuration{
		APIVersion: APIVersion,
		Kind:       Kind,
		Listen:     Listen{GRPC: ":7443", HTTP: ":8080", Operators: fmt.Sprintf("127.0.0.1:%d", api.Port)},
		Auth:       Auth{Audience: "ffpod", AllowedServiceAccounts: []string{"ffpod-client", "jellyfin"}},
		Placement:  Placement{Policy: "warm-then-job", Builds: "any", Fallback: map[string]Fallback{"image": soon, "trickplay": soon}},
		Queue:      Queue{Limit: 256, Timeout: d(2 * time.Minute)},
		Session:    Session{Grace: d(5 * time.Minute), JobStart: d(3 * time.Minute), History: 1000},
		Scale:      Scale{Idle: d(5 * time.Minute)},
		TLS: TLS{Mode: TLSSelf, Directory: "/etc/ffpod/tls", CALifetime: d(365 * 24 * time.Hour),
			ServingLifetime: d(30 * 24 * time.Hour), Publish: d(24 * time.Hour)},
		Store:        Store{Kind: "memory"},
		Log:          Log{Level: "info"},
		DrainTimeout: d(5 * time.Second),
	}
}

// Load reads and parses the file at path.
func Load(path string) (Configuration, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Configuration{}, fmt.Errorf("read configuration: %w; mount it there or name it with --config", err)
	}
	c, err := Parse(b)
	if err != nil {
		return Configuration{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// Parse decodes a file over the defaults and validates it. The error names
// every problem with its path, not only the first.
func Parse(b []byte) (Configuration, error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := yaml.Unmarshal(b, &head); err != nil {
		return Configuration{}, fmt.Errorf("not YAML: %w", err)
	}
	if head.APIVersion != APIVersion || head.Kind != Kind {
		return Configuration{}, fmt.Errorf("apiVersion %q, kind %q: want %q, %q", head.APIVersion, head.Kind, APIVersion, Kind)
	}
	doc, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return Configuration{}, fmt.Errorf("decode: %w", err)
	}
	c := Default()
	problems, err := json.UnmarshalStrict(doc, &c)
	if err != nil {
		return Configuration{}, fmt.Errorf("decode: %w", err)
	}
	if problems = append(problems, c.Validate()...); len(problems) > 0 {
		return Configuration{}, errors.Join(problems...)
	}
	return c, nil
}
