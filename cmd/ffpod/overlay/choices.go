package overlay

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/ffpod/ffpod/kustomize/settings"
)

// What may be chosen; the first of each is what init takes if nobody says.
var (
	GPUs      = []string{"none", "nvidia", "intel-i915", "intel-xe", "amd", "dra"}
	Medias    = []string{"new", "nfs", "claim"}
	Shareds   = []string{"default", "class", "nfs", "one-node"}
	Databases = []string{"sqlite", "postgres", "postgres-cnpg", "postgres-external"}
	Exposures = []string{"none", "ingress-nginx", "ingress-traefik", "ingress-haproxy", "ingress", "gateway", "loadbalancer", "nodeport"}
)

// Choices are what an install consists of.
type Choices struct {
	Namespace string
	// NamespaceOnly leaves out what needs a cluster's admin.
	NamespaceOnly bool

	GPUs         []string
	GPUResource  string // of the first GPU, instead of its usual name
	RuntimeClass bool   // runtimeClassName: nvidia
	DeviceClass  string // of dra

	Media      string
	MediaNFS   string // SERVER:/PATH
	MediaClaim string

	Shared      string
	SharedNFS   string
	SharedClass string
	ConfigClass string

	Database       string
	DatabaseSecret string

	Exposure     string
	Host         string
	IngressClass string
	TLSSecret    string
	Issuer       string // NAME or KIND/NAME
	Gateway      string // NAMESPACE/NAME

	// The nodes of workers and of Jellyfin, by kubernetes.io/hostname: both or none.
	WorkerNodes, JellyfinNodes []string
	// SchedulerIssuer signs the scheduler's certificate: NAME or KIND/NAME; empty:
	// its own CA does.
	SchedulerIssuer string
	// Scaled leaves the number of warm workers to others.
	Scaled bool

	User, Group int64
	Groups      []int64
	TimeZone    string

	Recordings, Backup, NetworkPolicy bool

	Registry string // where ffpod's images are
}

// Default are the choices of a home with one node.
func Default() Choices {
	return Choices{
		Namespace: "jellyfin", GPUs: []string{"none"}, DeviceClass: "gpu.nvidia.com", Media: "new", Shared: "default", Database: "sqlite", Exposure: "none",
		User: 1000, Group: 1000, TimeZone: "Etc/UTC", Backup: true,
	}
}

// invalid is a choice that is refused, by its flag.
type invalid struct{ flag, text string }

func (e invalid) Error() string { return "--" + e.flag + ": " + e.text }

// Check refuses choices that contradict each other or lack something. What ends up
// in settings.yaml is checked there.
func (c Choices) Check() error {
	var all []error
	bad := func(flag, format string, args ...any) { all = append(all, invalid{flag, fmt.Sprintf(format, args...)}) }
	oneOf := func(flag, value string, allowed []string) {
		if !slices.Contains(allowed, value) {
			bad(flag, "%q; allowed: %s", value, strings.Join(allowed, ", "))
		}
	}
	needs := func(flag, value, because string) {
		if value == "" {
			bad(flag, "is needed for %s", because)
		}
	}
	if len(validation.IsDNS1123Label(c.Namespace)) > 0 {
		bad("namespace", "%q; allowed: small letters, digits and -, 63 at most", c.Namespace)
	}
	for i, g := range c.GPUs {
		oneOf("gpu", g, GPUs)
		if g == "none" && len(c.GPUs) > 1 {
			bad("gpu", "none goes with no other")
		}
		if slices.Contains(c.GPUs[:i], g) {
			bad("gpu", "%s is given twice", g)
		}
	}
	if c.RuntimeClass && !slices.Contains(c.GPUs, "nvidia") {
		bad("runtime-class-nvidia", "is for --gpu nvidia")
	}
	if slices.Contains(c.GPUs, "dra") {
		needs("device-class", c.DeviceClass, "--gpu dra")
	}
	oneOf("media", c.Media, Medias)
	switch c.Media {
	case "nfs":
		export(bad, "media-nfs", c.MediaNFS)
	case "claim":
		needs("media-claim", c.MediaClaim, "--media claim")
	}
	oneOf("shared", c.Shared, Shareds)
	switch c.Shared {
	case "nfs":
		export(bad, "shared-nfs", c.SharedNFS)
	case "class":
		needs("shared-class", c.SharedClass, "--shared class")
	}
	if c.NamespaceOnly && (c.Media == "nfs" || c.Shared == "nfs") {
		bad("namespace-only", "an NFS export needs a PersistentVolume, which is the cluster admin's; have a claim made, and use --media claim or --shared class")
	}
	oneOf("database", c.Database, Databases)
	if c.Database == "postgres-external" {
		needs("database-secret", c.DatabaseSecret, "--database postgres-external")
	}
	oneOf("exposure", c.Exposure, Exposures)
	if c.ingress() || c.Exposure == "gateway" {
		needs("host", c.Host, "--exposure "+c.Exposure)
	}
	if c.Exposure == "gateway" {
		if namespace, name, ok := strings.Cut(c.Gateway, "/"); !ok || namespace == "" || name == "" {
			bad("gateway", "%q; allowed: NAMESPACE/NAME", c.Gateway)
		}
	}
	if c.Exposure == "ingress" {
		needs("ingress-class", c.IngressClass, "--exposure ingress")
	}
	if c.TLSSecret != "" && !c.ingress() {
		bad("tls-secret", "is for an ingress; a Gateway has its own")
	}
	if c.Issuer != "" && !c.ingress() {
		bad("issuer", "is for an ingress; a Gateway's certificate is made where the Gateway is")
	}
	if (len(c.WorkerNodes) > 0) != (len(c.JellyfinNodes) > 0) {
		bad("worker-nodes", "and --jellyfin-nodes go together: name the nodes of both")
	}
	for flag, issuer := range map[string]string{"issuer": c.Issuer, "scheduler-issuer": c.SchedulerIssuer} {
		if kind, name := splitIssuer(issuer); issuer != "" && (kind == "" || name == "") {
			bad(flag, "%q; allowed: NAME of a ClusterIssuer, or KIND/NAME", issuer)
		}
	}
	return errors.Join(all...)
}

// splitIssuer takes KIND/NAME apart; a name alone is a ClusterIssuer's.
func splitIssuer(s string) (kind, name string) {
	kind, name, both := strings.Cut(s, "/")
	if !both {
		return "ClusterIssuer", s
	}
	return kind, name
}

func (c Choices) ingress() bool { return strings.HasPrefix(c.Exposure, "ingress") }

func (c Choices) pinned() bool { return len(c.WorkerNodes) > 0 }

func (c Choices) tls() bool { return c.TLSSecret != "" || c.Issuer != "" }

func export(bad func(flag, format string, args ...any), flag, value string) {
	if _, _, err := splitExport(value); err != nil {
		bad(flag, "%v", err)
	}
}

// splitExport takes SERVER:/PATH apart; an IPv6 address stands in brackets.
func splitExport(s string) (server, path string, err error) {
	i := strings.Index(s, ":/")
	if i <= 0 {
		return "", "", fmt.Errorf("%q; allowed: SERVER:/PATH", s)
	}
	server = s[:i]
	if strings.HasPrefix(server, "[") {
		if server, _, err = net.SplitHostPort(server + ":0"); err != nil {
			return "", "", fmt.Errorf("%q; allowed: SERVER:/PATH", s)
		}
	}
	return server, s[i+1:], nil
}

// acceleration is what Jellyfin is told to ask for; a class with another GPU is not
// asked for it.
func (c Choices) acceleration() string {
	switch first := c.GPUs[0]; {
	case first == "nvidia":
		return "nvenc"
	case strings.HasPrefix(first, "intel"):
		return "qsv"
	case first == "amd":
		return "vaapi"
	case first == "dra" && strings.Contains(c.DeviceClass, "nvidia"):
		return "nvenc"
	case first == "dra" && strings.Contains(c.DeviceClass, "intel"):
		return "qsv"
	case first == "dra" && strings.Contains(c.DeviceClass, "amd"):
		return "vaapi"
	}
	return "none"
}

// Settings are the file that the choices mean.
func (c Choices) Settings() settings.Settings {
	s := settings.Default()
	s.Identity.User, s.Identity.Group = &c.User, &c.Group
	s.Identity.SupplementalGroups = []int64{c.Group}
	if len(c.Groups) > 0 {
		s.Identity.SupplementalGroups = c.Groups
	}
	s.Jellyfin.Environment["TZ"] = c.TimeZone
	s.Jellyfin.HardwareAcceleration = new(c.acceleration())
	if c.ConfigClass != "" {
		s.Storage.Config.ClassName = &c.ConfigClass
	}
	c.media(&s)
	switch c.Shared {
	case "class":
		s.Storage.Shared.ClassName = &c.SharedClass
	case "nfs":
		server, path, _ := splitExport(c.SharedNFS)
		s.Shared = &settings.Shared{NFS: settings.DefaultSharedNFS(c.Namespace+"-shared", server, path)}
	}
	switch c.Database {
	case "postgres":
		s.Database = &settings.Database{Size: new(settings.Quantity("20Gi"))}
	case "postgres-cnpg":
		s.Database = &settings.Database{Size: new(settings.Quantity("20Gi")), Instances: new(int64(3))}
	case "postgres-external":
		s.Database = &settings.Database{External: &settings.ExternalDatabase{SecretName: &c.DatabaseSecret}}
	}
	c.exposure(&s)
	c.gpus(&s)
	if c.pinned() {
		s.Nodes = &settings.Nodes{Workers: c.WorkerNodes, Jellyfin: c.JellyfinNodes}
	}
	if c.SchedulerIssuer != "" {
		kind, name := splitIssuer(c.SchedulerIssuer)
		if s.Certificates == nil {
			s.Certificates = &settings.Certificates{}
		}
		s.Certificates.SchedulerIssuer = &settings.Issuer{Name: &name, Kind: &kind}
	}
	if c.Recordings {
		s.Storage.Recordings = settings.DefaultRecordings()
	}
	if c.NetworkPolicy {
		s.Network = settings.DefaultNetwork()
	}
	if c.Backup {
		s.Backup = settings.DefaultBackup()
	}
	return s
}

func (c Choices) media(s *settings.Settings) {
	switch c.Media {
	case "new":
		s.Storage.Media = settings.DefaultMedia()
		s.Media.ReadOnly = new(false) // else nobody can fill it
	case "nfs":
		server, path, _ := splitExport(c.MediaNFS)
		s.Media.NFS = settings.DefaultMediaNFS(c.Namespace+"-media", server, path)
	case "claim":
		s.Media.Claim = &c.MediaClaim
	}
}

func (c Choices) exposure(s *settings.Settings) {
	// Kustomize takes an empty map for a missing one; this one says nothing new.
	harmless := map[string]string{"app.kubernetes.io/part-of": "ffpod"}
	switch {
	case c.ingress():
		class := c.IngressClass
		if class == "" {
			class = strings.TrimPrefix(c.Exposure, "ingress-")
		}
		s.Exposure = &settings.Exposure{Host: &c.Host, Ingress: &settings.Ingress{ClassName: &class, Annotations: harmless}}
		scheme := "http://"
		if c.tls() {
			scheme = "https://"
			secret := c.TLSSecret
			if secret == "" {
				secret = "jellyfin-tls"
			}
			s.Exposure.TLS = &settings.TLS{SecretName: &secret}
		}
		s.Jellyfin.PublishedServerURL = new(scheme + c.Host)
		if c.Issuer != "" {
			kind, name := splitIssuer(c.Issuer)
			s.Certificates = &settings.Certificates{Issuer: &settings.Issuer{Name: &name, Kind: &kind}}
		}
	case c.Exposure == "gateway":
		namespace, name, _ := strings.Cut(c.Gateway, "/")
		s.Exposure = &settings.Exposure{Host: &c.Host, Gateway: &settings.Gateway{Name: &name, Namespace: &namespace}}
		s.Jellyfin.PublishedServerURL = new("https://" + c.Host)
	case c.Exposure == "loadbalancer":
		s.Exposure = &settings.Exposure{LoadBalancer: &settings.LoadBalancer{Annotations: harmless}}
	case c.Exposure == "nodeport":
		s.Exposure = &settings.Exposure{NodePort: &settings.NodePort{HTTP: new(int64(30096)), HTTPS: new(int64(30920))}}
	}
}

func (c Choices) gpus(s *settings.Settings) {
	usual := map[string]string{"nvidia": "nvidia.com/gpu", "intel-i915": "gpu.intel.com/i915", "intel-xe": "gpu.intel.com/xe", "amd": "amd.com/gpu"}
	for i, gpu := range c.GPUs {
		if gpu == "none" {
			return
		}
		if s.GPU == nil {
			s.GPU = &settings.GPU{}
		}
		device := usual[gpu]
		if i == 0 && c.GPUResource != "" {
			device = c.GPUResource
		}
		switch gpu {
		case "nvidia":
			s.GPU.Nvidia = settings.DefaultClass(device)
		case "intel-i915":
			s.GPU.IntelI915 = settings.DefaultClass(device)
		case "intel-xe":
			s.GPU.IntelXe = settings.DefaultClass(device)
		case "amd":
			s.GPU.AMD = settings.DefaultClass(device)
		case "dra":
			s.GPU.DRA = settings.DefaultDRA(c.DeviceClass)
		}
	}
}

// Resources are the tree's directories that the choices need.
func (c Choices) Resources() []string {
	if c.NamespaceOnly {
		return []string{"base", "jellyfin"}
	}
	return []string{"cluster", "base", "jellyfin"}
}

// Components are the tree's, in the order in which they must be listed: classes,
// Jellyfin's workers, library and shared storage, database, exposure, policies,
// backups, what concerns all claims, and last the settings that concern everything.
func (c Choices) Components() []string {
	out := []string{"class-cpu"}
	for _, gpu := range c.GPUs {
		if gpu != "none" {
			out = append(out, "gpu-"+gpu)
		}
	}
	add := func(when bool, names ...string) {
		if when {
			out = append(out, names...)
		}
	}
	add(c.RuntimeClass, "runtime-class-nvidia")
	add(c.Scaled, "scaled")
	add(c.SchedulerIssuer != "", "cert-manager-scheduler")
	add(true, "jellyfin-workers", map[string]string{"new": "media-new", "nfs": "media-nfs", "claim": "media-pvc"}[c.Media])
	add(c.Shared == "class", "shared-rwx")
	add(c.Shared == "nfs", "shared-nfs")
	add(c.Recordings, "recordings")
	add(c.Database != "sqlite", c.Database)
	if c.ingress() {
		add(true, "ingress")
		add(c.tls(), "ingress-tls")
		add(c.Exposure != "ingress", c.Exposure)
		add(c.Issuer != "", "cert-manager")
	} else {
		add(c.Exposure != "none", c.Exposure)
	}
	add(c.pinned(), "node-pinning")
	add(c.NetworkPolicy, "network-policy")
	add(c.Backup, map[bool]string{true: "backup", false: "backup-postgres"}[c.Database == "sqlite"])
	// After everything that makes claims.
	add(c.Shared == "one-node", "rwo")
	add(c.ConfigClass != "", "storage-class")
	return append(out, "settings")
}
