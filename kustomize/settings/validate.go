package settings

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // else which zones there are depends on the machine

	"github.com/robfig/cron/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Accelerations are what Jellyfin knows of those that make sense in a pod.
var Accelerations = []string{"none", "nvenc", "qsv", "vaapi", "amf", "rkmpp", "v4l2m2m"}

// report takes one problem.
type report func(path, format string, args ...any)

func (s *Settings) validate(bad report) {
	if s.APIVersion != APIVersion {
		bad("apiVersion", "%q; allowed: %s", s.APIVersion, APIVersion)
	}
	if s.Kind != Kind {
		bad("kind", "%q; allowed: %s", s.Kind, Kind)
	}
	if s.Metadata.Name != "settings" {
		bad("metadata.name", "%q; allowed: settings, by which components find it", s.Metadata.Name)
	}
	if s.Metadata.Annotations["config.kubernetes.io/local-config"] != "true" {
		bad("metadata.annotations.[config.kubernetes.io/local-config]", `must be "true", else kustomize would apply this file`)
	}
	s.Identity.validate(bad)
	s.Jellyfin.validate(bad)
	s.Storage.validate(bad)
	if m := s.Media; m != nil {
		object(bad, "media.claim", m.Claim)
		m.NFS.validate(bad, "media.nfs")
	}
	if s.Shared != nil {
		s.Shared.NFS.validate(bad, "shared.nfs")
	}
	s.Database.validate(bad)
	s.Exposure.validate(bad)
	s.GPU.validate(bad)
	s.Keda.validate(bad)
	if k := s.Kueue; k != nil {
		object(bad, "kueue.localQueue", k.LocalQueue)
		object(bad, "kueue.clusterQueue", k.ClusterQueue)
	}
	if p := s.Priority; p != nil {
		p.Workers.validate(bad, "priority.workers")
		p.Background.validate(bad, "priority.background")
	}
	if n := s.Nodes; n != nil {
		each(bad, "nodes.workers", n.Workers, "a node's label kubernetes.io/hostname", content.IsLabelValue)
		each(bad, "nodes.jellyfin", n.Jellyfin, "a node's label kubernetes.io/hostname", content.IsLabelValue)
	}
	s.Network.validate(bad)
	s.Backup.validate(bad)
	if c := s.Certificates; c != nil {
		c.Issuer.validate(bad, "certificates.issuer")
		c.SchedulerIssuer.validate(bad, "certificates.schedulerIssuer")
	}
}

func (i *Identity) validate(bad report) {
	if i == nil {
		return
	}
	// Kubernetes' own bounds; 0 is root, which restricted pods may not be.
	within(bad, "identity.user", i.User, 1, 1<<31-1)
	within(bad, "identity.group", i.Group, 1, 1<<31-1)
	for n, group := range i.SupplementalGroups {
		within(bad, fmt.Sprintf("identity.supplementalGroups.%d", n), &group, 0, 1<<31-1)
	}
}

func (j *Jellyfin) validate(bad report) {
	if j == nil {
		return
	}
	for name, value := range j.Environment {
		at := join("jellyfin.environment", name)
		if problems := validation.IsEnvVarName(name); len(problems) > 0 {
			bad(at, "%q is no name of an environment variable; allowed: letters, digits, _, - and ., no digit first", name)
		}
		if name == "TZ" {
			if _, err := time.LoadLocation(value); err != nil || value == "" || value == "Local" {
				bad(at, "%q; allowed: a name of the time zone database, such as Europe/Berlin or Etc/UTC", value)
			}
		}
		if ours[name] {
			bad(at, "is set by ffpod's own manifests, which win; leave it out")
		}
	}
	if v := j.PublishedServerURL; v != nil && *v != "" {
		if u, err := url.Parse(*v); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			bad("jellyfin.publishedServerUrl", "%q; allowed: a URL such as https://jellyfin.example.org, or empty", *v)
		}
	}
	if v := j.BaseURL; v != nil && *v != "" && (!strings.HasPrefix(*v, "/") || path.Clean(*v) != *v || *v == "/" || strings.ContainsAny(*v, "?#% ")) {
		bad("jellyfin.baseUrl", "%q; allowed: a path such as /jellyfin, without a slash at its end, or empty", *v)
	}
	if v := j.KnownProxies; v != nil && *v != "" {
		for _, proxy := range strings.Split(*v, ",") {
			proxy = strings.TrimSpace(proxy)
			_, address := netip.ParseAddr(proxy)
			_, network := netip.ParsePrefix(proxy)
			if address != nil && network != nil && len(validation.IsDNS1123Subdomain(proxy)) > 0 || numeric(proxy) && address != nil && network != nil {
				bad("jellyfin.knownProxies", "%q; allowed: a comma list of addresses, networks such as 10.42.0.0/16, or host names", proxy)
			}
		}
	}
	oneOf(bad, "jellyfin.hardwareAcceleration", j.HardwareAcceleration, Accelerations...)
	absolute(bad, "jellyfin.vaapiDevice", j.VaapiDevice)
}

// ours are the variables that jellyfin/deployment.yaml sets, and by which the shim
// and the workers agree on paths.
var ours = map[string]bool{
	"JELLYFIN_FFMPEG": true, "FFPOD_FFMPEG": true, "FFPOD_FFPROBE": true, "FFPOD_SHARED": true,
	"TMPDIR": true, "XDG_CACHE_HOME": true, "HOME": true, "DOTNET_EnableDiagnostics": true, "JELLYFIN_PublishedServerUrl": true,
}

// Reserved tells whether jellyfin.environment may not set a variable.
func Reserved(name string) bool { return ours[name] }

// numeric tells what looks like an address and is none, such as 10.0.0.256.
func numeric(s string) bool { return strings.Trim(s, "0123456789./:") == "" }

func (s *Storage) validate(bad report) {
	if s == nil {
		return
	}
	if c := s.Config; c != nil {
		// Jellyfin refuses to start with less than 2 GiB free.
		size(bad, "storage.config.size", c.Size, "3Gi")
		object(bad, "storage.config.className", c.ClassName)
	}
	if c := s.Shared; c != nil {
		size(bad, "storage.shared.size", c.Size, "3Gi")
		object(bad, "storage.shared.className", c.ClassName)
	}
	if s.Media != nil {
		size(bad, "storage.media.size", s.Media.Size, "1Mi")
	}
	if s.Recordings != nil {
		size(bad, "storage.recordings.size", s.Recordings.Size, "1Mi")
	}
}

func (n *NFS) validate(bad report, at string) {
	if n == nil {
		return
	}
	object(bad, at+".volume", n.Volume)
	if v := n.Server; v != nil {
		if _, err := netip.ParseAddr(*v); err != nil && (numeric(*v) || len(validation.IsDNS1123Subdomain(strings.ToLower(*v))) > 0) {
			bad(at+".server", "%q; allowed: a host name or an address, without a path", *v)
		}
	}
	absolute(bad, at+".path", n.Path)
	for i, option := range n.MountOptions {
		if option == "" || strings.ContainsAny(option, ", \t") {
			bad(fmt.Sprintf("%s.mountOptions.%d", at, i), "%q; allowed: one mount option per item, such as nfsvers=4.1", option)
		}
	}
}

func (d *Database) validate(bad report) {
	if d == nil {
		return
	}
	size(bad, "database.size", d.Size, "1Gi")
	if v := d.Instances; v != nil && *v != 1 && *v != 3 {
		bad("database.instances", "%d; allowed: 1 or 3", *v)
	}
	if d.External != nil {
		object(bad, "database.external.secretName", d.External.SecretName)
	}
}

func (e *Exposure) validate(bad report) {
	if e == nil {
		return
	}
	if v := e.Host; v != nil {
		if len(validation.IsDNS1123Subdomain(*v)) > 0 || numeric(*v) {
			bad("exposure.host", "%q; allowed: a DNS name in lower case, such as jellyfin.example.org, without a scheme or port", *v)
		}
	}
	if i := e.Ingress; i != nil {
		object(bad, "exposure.ingress.className", i.ClassName)
		annotations(bad, "exposure.ingress.annotations", i.Annotations)
	}
	if e.TLS != nil {
		object(bad, "exposure.tls.secretName", e.TLS.SecretName)
	}
	if g := e.Gateway; g != nil {
		object(bad, "exposure.gateway.name", g.Name)
		if g.Namespace != nil && len(validation.IsDNS1123Label(*g.Namespace)) > 0 {
			bad("exposure.gateway.namespace", "%q; allowed: a namespace's name", *g.Namespace)
		}
	}
	if e.LoadBalancer != nil {
		annotations(bad, "exposure.loadBalancer.annotations", e.LoadBalancer.Annotations)
	}
	if n := e.NodePort; n != nil {
		// The cluster may have another range; this is its widest.
		within(bad, "exposure.nodePort.http", n.HTTP, 1, 65535)
		within(bad, "exposure.nodePort.https", n.HTTPS, 1, 65535)
		if n.HTTP != nil && n.HTTPS != nil && *n.HTTP == *n.HTTPS {
			bad("exposure.nodePort.https", "%d is exposure.nodePort.http, too; allowed: another port", *n.HTTPS)
		}
	}
}

func (g *GPU) validate(bad report) {
	if g == nil {
		return
	}
	g.Nvidia.validate(bad, "gpu.nvidia", "nvidia.com/")
	g.IntelI915.validate(bad, "gpu.intelI915", "gpu.intel.com/")
	g.IntelXe.validate(bad, "gpu.intelXe", "gpu.intel.com/")
	g.AMD.validate(bad, "gpu.amd", "amd.com/")
	if d := g.DRA; d != nil {
		object(bad, "gpu.dra.deviceClassName", d.DeviceClassName)
		within(bad, "gpu.dra.slots", d.Slots, 1, 1000)
		d.Resources.validate(bad, "gpu.dra.resources")
	}
}

func (c *Class) validate(bad report, at, maker string) {
	if c == nil {
		return
	}
	within(bad, at+".slots", c.Slots, 1, 1000)
	c.Resources.validate(bad, at+".resources")
	if c.Resources == nil || c.Resources.Limits == nil {
		return
	}
	for name := range c.Resources.Limits {
		if strings.HasPrefix(name, maker) {
			return
		}
	}
	bad(at+".resources.limits", "names no device; one of them must begin with %s, as the nodes offer it (kubectl describe node)", maker)
}

func (r *Resources) validate(bad report, at string) {
	if r == nil {
		return
	}
	for list, amounts := range map[string]map[string]Quantity{"requests": r.Requests, "limits": r.Limits} {
		for name, amount := range amounts {
			where := join(at+"."+list, name)
			q, err := amount.parse()
			if err != nil || q.Sign() < 0 {
				bad(where, "%q; allowed: an amount such as 250m, 2Gi or 1", amount)
				continue
			}
			if len(content.IsLabelKey(name)) > 0 {
				bad(where, "%q is no name of a resource; allowed: cpu, memory, or a name such as nvidia.com/gpu", name)
			}
			// A container may ask for whole devices only.
			if strings.Contains(name, "/") && (q.MilliValue()%1000 != 0 || q.Sign() == 0) {
				bad(where, "%q; allowed: a whole number, at least 1", amount)
			}
			if limit, limited := r.Limits[name]; list == "requests" && limited {
				if l, err := limit.parse(); err == nil && q.Cmp(l) > 0 {
					bad(where, "%q is more than the limit %q", amount, limit)
				}
			}
		}
	}
}

func (k *Keda) validate(bad report) {
	if k == nil {
		return
	}
	object(bad, "keda.class", k.Class)
	if k.Namespace != nil && len(validation.IsDNS1123Label(*k.Namespace)) > 0 {
		bad("keda.namespace", "%q; allowed: a namespace's name", *k.Namespace)
	}
	within(bad, "keda.min", k.Min, 0, 1000)
	within(bad, "keda.max", k.Max, 1, 1000)
	if k.Min != nil && k.Max != nil && *k.Max < *k.Min {
		bad("keda.max", "%d is less than keda.min, %d", *k.Max, *k.Min)
	}
	within(bad, "keda.idleSeconds", k.IdleSeconds, 0, 3600) // the most that a HorizontalPodAutoscaler takes
}

func (p *PriorityClass) validate(bad report, at string) {
	if p == nil {
		return
	}
	object(bad, at+".name", p.Name)
	within(bad, at+".value", p.Value, -10, 0)
}

func (n *Network) validate(bad report) {
	if n == nil {
		return
	}
	for i, p := range n.JellyfinEgress {
		at := fmt.Sprintf("network.jellyfinEgress.%d", i)
		if p.Port == nil {
			bad(at+".port", "is missing; allowed: 1 to 65535")
		}
		within(bad, at+".port", p.Port, 1, 65535)
		within(bad, at+".endPort", p.EndPort, 1, 65535)
		if p.Port != nil && p.EndPort != nil && *p.EndPort < *p.Port {
			bad(at+".endPort", "%d comes before port %d", *p.EndPort, *p.Port)
		}
		oneOf(bad, at+".protocol", p.Protocol, "TCP", "UDP", "SCTP")
	}
}

func (b *Backup) validate(bad report) {
	if b == nil {
		return
	}
	if v := b.Schedule; v != nil {
		// The CronJob controller's own parser. It refuses a zone here.
		if _, err := cron.ParseStandard(*v); err != nil || strings.Contains(*v, "TZ=") {
			bad("backup.schedule", "%q; allowed: five fields as in cron, such as 30 3 * * * (the time zone is jellyfin.environment.TZ)", *v)
		}
	}
	within(bad, "backup.keep", b.Keep, 1, 10000)
	size(bad, "backup.size", b.Size, "1Mi")
}

func (i *Issuer) validate(bad report, at string) {
	if i == nil {
		return
	}
	object(bad, at+".name", i.Name)
	if i.Kind != nil && (*i.Kind == "" || strings.ContainsAny(*i.Kind, "/. ")) {
		bad(at+".kind", "%q; allowed: Issuer, ClusterIssuer, or an external issuer's kind", *i.Kind)
	}
}

func within(bad report, at string, v *int64, least, most int64) {
	if v != nil && (*v < least || *v > most) {
		bad(at, "%d; allowed: %d to %d", *v, least, most)
	}
}

func oneOf(bad report, at string, v *string, allowed ...string) {
	if v != nil && !slices.Contains(allowed, *v) {
		bad(at, "%q; allowed: %s", *v, strings.Join(allowed, ", "))
	}
}

// object checks the name of an object of Kubernetes.
func object(bad report, at string, v *string) {
	if v != nil && len(validation.IsDNS1123Subdomain(*v)) > 0 {
		bad(at, "%q; allowed: an object's name: small letters, digits, - and ., a letter or digit first and last", *v)
	}
}

func absolute(bad report, at string, v *string) {
	if v != nil && (!strings.HasPrefix(*v, "/") || strings.ContainsAny(*v, "\n\x00")) {
		bad(at, "%q; allowed: an absolute path", *v)
	}
}

func size(bad report, at string, v *Quantity, least string) {
	if v == nil {
		return
	}
	q, err := v.parse()
	if err != nil {
		bad(at, "%q; allowed: an amount such as 20Gi", *v)
		return
	}
	if m := resource.MustParse(least); q.Cmp(m) < 0 {
		bad(at, "%q; allowed: %s or more", *v, least)
	}
}

func annotations(bad report, at string, all map[string]string) {
	for key := range all {
		if problems := content.IsLabelKey(strings.ToLower(key)); len(problems) > 0 {
			bad(join(at, key), "%q is no annotation's key; allowed: such as example.org/name", key)
		}
	}
}

func each(bad report, at string, all []string, what string, check func(string) []string) {
	for i, v := range all {
		if v == "" || len(check(v)) > 0 {
			bad(fmt.Sprintf("%s.%d", at, i), "%q; allowed: %s", v, what)
		}
	}
}
