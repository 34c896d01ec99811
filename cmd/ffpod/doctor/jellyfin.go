package doctor

import (
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
	"github.com/ffpod/ffpod/cmd/ffpod/jellyfin"
)

// document reads one of Jellyfin's settings files in its pod; nil when it is not
// there yet.
func document(ctx context.Context, p *Patient, c cluster.Caller, f jellyfin.File) (*jellyfin.Document, error) {
	out, err := p.Exec(ctx, c.Pod.Name, c.Container, "cat", "/config/config/"+f.Name)
	switch {
	case err != nil:
		return nil, err
	case out.Code != 0 && strings.Contains(out.Stderr, "No such file"):
		return jellyfin.NewDocument(f.Root), nil
	case out.Code != 0:
		return nil, fmt.Errorf("exit %d: %s", out.Code, strings.TrimSpace(out.Stderr))
	}
	return jellyfin.ParseDocument([]byte(out.Stdout), f.Root)
}

func value(d *jellyfin.Document, name, otherwise string) string {
	v, there := d.Get(name)
	if !there {
		return otherwise
	}
	return strings.TrimSpace(strings.Join(v, ","))
}

// applied is the remedy of a setting.
func applied(p *Patient, c cluster.Caller, setting string) string {
	return fmt.Sprintf("`kubectl exec -n %s %s -c %s -- %s jellyfin apply --while-running %s`, then restart Jellyfin: `kubectl rollout restart -n %s deploy/jellyfin`",
		p.Namespace, c.Pod.Name, c.Container, path.Join(path.Dir(c.Shim), "ffpod"), setting, p.Namespace)
}

// jellyfinSettings reads encoding.xml, system.xml and network.xml in Jellyfin's pod.
func jellyfinSettings(ctx context.Context, p *Patient) []Finding {
	c, there := p.facts.jellyfinCaller()
	if !there || p.Exec == nil {
		return nil
	}
	on := "pod " + c.Pod.Name
	docs := map[jellyfin.File]*jellyfin.Document{}
	for _, f := range []jellyfin.File{jellyfin.Encoding, jellyfin.Network, jellyfin.System} {
		d, err := document(ctx, p, c, f)
		if err != nil {
			return []Finding{unknown(on, f.Name+" cannot be read", err)}
		}
		docs[f] = d
	}
	found := slices.Concat(encoding(p, c, docs[jellyfin.Encoding]), patience(p, c, docs[jellyfin.System]), network(p, c, docs[jellyfin.Network]))
	if len(found) == 0 {
		return []Finding{ok(on, "hardware acceleration %s; its settings fit the install", value(docs[jellyfin.Encoding], "HardwareAccelerationType", "none"))}
	}
	return found
}

// devicesFor are the resources that a hardware type needs, by prefix.
var devicesFor = map[string][]string{"nvenc": {"nvidia.com/"}, "qsv": {"gpu.intel.com/"}, "vaapi": {"gpu.intel.com/", "amd.com/"}, "amf": {"amd.com/"}}

func encoding(p *Patient, c cluster.Caller, d *jellyfin.Document) (found []Finding) {
	on := "pod " + c.Pod.Name + ", encoding.xml"
	kind := value(d, "HardwareAccelerationType", "none")
	offer := p.facts.hardware()
	switch want := devicesFor[kind]; {
	case kind == "none" && len(offer) > 0:
		found = append(found, Finding{Level: Warn, On: on, What: "hardware acceleration is off, and there are classes with " + strings.Join(offer, ", "), Why: "Jellyfin asks for software encoders, so those classes stay idle", Remedy: applied(p, c, "hardwareAcceleration="+typeFor(offer[0]))})
	case kind != "none" && want != nil && !slices.ContainsFunc(offer, func(o string) bool {
		return slices.ContainsFunc(want, func(w string) bool { return strings.HasPrefix(o, w) })
	}) && !p.facts.driByHand():
		found = append(found, Finding{Level: Fail, On: on, What: "hardware acceleration is " + kind + ", and no class has such a device", Why: "its sessions find no worker: playback fails", Remedy: "list a gpu component, or " + applied(p, c, "hardwareAcceleration=none")})
	}
	if kind == "vaapi" && value(d, "VaapiDevice", "/dev/dri/renderD128") == "" {
		found = append(found, Finding{Level: Fail, On: on, What: "hardware acceleration is vaapi, and VaapiDevice is empty", Why: "Jellyfin then asks no device what it can do, and uses none", Remedy: applied(p, c, "vaapiDevice=/dev/dri/renderD128")})
	}
	if q := value(d, "QsvDevice", ""); q != "" && kind == "qsv" {
		found = append(found, Finding{Level: Warn, On: on, What: "QsvDevice is " + q, Why: "the node that a worker was given may have another number", Remedy: applied(p, c, "qsvDevice=")})
	}
	spec, _ := container(c.Pod.Spec, c.Container)
	shared := strings.Split(env(spec, "FFPOD_SHARED"), ":")
	if dir := value(d, "TranscodingTempPath", ""); dir != "" && !below(shared, dir) {
		found = append(found, Finding{Level: Fail, On: on, What: "TranscodingTempPath is " + dir + ", which FFPOD_SHARED does not list", Why: "no worker sees it, so every transcode runs in Jellyfin's pod", Remedy: applied(p, c, "transcodingTempPath=")})
	}
	if shown := value(d, "EncoderAppPathDisplay", ""); shown != "" && shown != c.Shim {
		found = append(found, Finding{Level: Fail, On: on, What: "Jellyfin uses " + shown + ", not the shim", Why: "it writes there what it found at its last start", Remedy: "let JELLYFIN_FFMPEG be " + c.Shim + ", remove any --ffmpeg argument, and `kubectl rollout restart deploy/jellyfin`"})
	}
	return found
}

func typeFor(resource string) string {
	for kind, prefixes := range map[string]string{"nvenc": "nvidia.com/", "qsv": "gpu.intel.com/", "vaapi": "amd.com/"} {
		if strings.HasPrefix(resource, prefixes) {
			return kind
		}
	}
	return "none"
}

// hardware lists the device resources that classes request.
func (f *facts) hardware() []string {
	var all []string
	for _, d := range f.classes {
		if c, there := container(d.Spec.Template.Spec, "worker"); there {
			for name := range c.Resources.Limits {
				if extended(name) {
					all = append(all, string(name))
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// driByHand tells whether a class gets its devices without a plugin: by DRA or a
// host path.
func (f *facts) driByHand() bool {
	return slices.ContainsFunc(f.classes, func(d appsv1.Deployment) bool {
		s := d.Spec.Template.Spec
		return len(s.ResourceClaims) > 0 || slices.ContainsFunc(s.Volumes, func(v corev1.Volume) bool {
			return v.HostPath != nil && strings.HasPrefix(v.HostPath.Path, "/dev/")
		})
	})
}

func below(dirs []string, dir string) bool {
	dir = path.Clean(dir)
	return slices.ContainsFunc(dirs, func(d string) bool {
		return d != "" && (dir == path.Clean(d) || strings.HasPrefix(dir, path.Clean(d)+"/"))
	})
}

// patience is whether Jellyfin's limits leave time for a Job's start.
func patience(p *Patient, c cluster.Caller, d *jellyfin.Document) []Finding {
	warm := slices.ContainsFunc(p.facts.classes, func(d appsv1.Deployment) bool { return d.Spec.Replicas == nil || *d.Spec.Replicas > 0 })
	if ms, _ := strconv.Atoi(value(d, "ImageExtractionTimeoutMs", "0")); ms < 60_000 && !warm {
		return []Finding{{Level: Warn, On: "pod " + c.Pod.Name + ", system.xml", What: fmt.Sprintf("ImageExtractionTimeoutMs is %d, and no class has a warm worker", ms), Why: "Jellyfin gives up on an image after 10 s, which a Job's start may take", Remedy: applied(p, c, "imageExtractionTimeoutMs=60000") + ", or keep one warm worker"}}
	}
	return nil
}

func network(p *Patient, c cluster.Caller, d *jellyfin.Document) (found []Finding) {
	on := "pod " + c.Pod.Name + ", network.xml"
	base := value(d, "BaseUrl", "")
	for _, i := range p.facts.ingresses {
		for _, at := range pathsTo(i, p.facts.jellyfinServices()) {
			if value(d, "KnownProxies", "") == "" {
				found = append(found, Finding{Level: Warn, On: on, What: "KnownProxies is empty, and Ingress " + i.Name + " is in front", Why: "every client seems to come from the proxy: local-network rules and the log are wrong", Remedy: applied(p, c, "knownProxies=10.42.0.0/16") + " (the cluster's pod network)"})
			}
			if strings.TrimSuffix(at, "/") != strings.TrimSuffix(base, "/") && at != "/" {
				found = append(found, Finding{Level: Fail, On: on, What: fmt.Sprintf("BaseUrl is %q, and Ingress %s sends %s", base, i.Name, at), Why: "Jellyfin answers 404 or redirects in a circle", Remedy: applied(p, c, "baseUrl="+at)})
			}
		}
	}
	return found
}

// jellyfinServices are the names of the Services in front of Jellyfin.
func (f *facts) jellyfinServices() []string {
	var names []string
	for _, s := range f.services {
		if s.Spec.Selector["app.kubernetes.io/name"] == "jellyfin" {
			names = append(names, s.Name)
		}
	}
	return names
}

func pathsTo(i networkingv1.Ingress, services []string) []string {
	var out []string
	for _, r := range i.Spec.Rules {
		if r.HTTP == nil {
			continue
		}
		for _, at := range r.HTTP.Paths {
			if at.Backend.Service != nil && slices.Contains(services, at.Backend.Service.Name) {
				out = append(out, cmp.Or(at.Path, "/"))
			}
		}
	}
	return out
}

// probes finds out whether Jellyfin asked for its hardware before a worker could
// answer: it asks once in its life.
func probes(_ context.Context, p *Patient) []Finding {
	c, there := p.facts.jellyfinCaller()
	if !there || p.facts.status == nil {
		return nil
	}
	on := "pod " + c.Pod.Name
	began := time.Time{}
	for _, s := range c.Pod.Status.ContainerStatuses {
		if s.Name == c.Container && s.State.Running != nil {
			began = s.State.Running.StartedAt.Time
		}
	}
	asked := 0
	for _, s := range p.facts.status.Sessions {
		if s.CallerPod != c.Pod.Name || s.Kind != "probe" || s.Asked.Before(began) {
			continue
		}
		asked++
		if s.State == "refused" || s.State == "lost" {
			why := s.State
			if s.Exit != nil {
				why = s.Exit.Cause
			}
			return []Finding{{Level: Warn, On: on, What: "a question of Jellyfin's for its hardware was not answered, at " + s.Asked.Format(time.TimeOnly), Why: why + "; Jellyfin asks only when it starts, and believes for its life that the device can do nothing",
				Remedy: "when the workers are ready: `kubectl rollout restart -n " + p.Namespace + " deploy/jellyfin`"}}
		}
	}
	return []Finding{ok(on, "%d questions for hardware since it started, all answered", asked)}
}

// databaseKeys are those of Secret jellyfin-database.
var databaseKeys = []string{"host", "port", "database", "username", "password"}

// database checks that a Jellyfin that is told of PostgreSQL uses it.
func database(ctx context.Context, p *Patient) []Finding {
	c, there := p.facts.jellyfinCaller()
	if !there {
		return nil
	}
	spec, _ := container(c.Pod.Spec, c.Container)
	secret, told := "", false
	for _, e := range spec.Env {
		if strings.HasPrefix(e.Name, "POSTGRES_") {
			told = true
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				secret = e.ValueFrom.SecretKeyRef.Name
			}
		}
	}
	on := "pod " + c.Pod.Name
	if !told {
		return []Finding{ok(on, "SQLite")}
	}
	var found []Finding
	if env(spec, "POSTGRES_PASSWORD") != "" {
		found = append(found, Finding{Level: Fail, On: on, What: "the database's password stands in the Deployment", Why: "whoever may read Deployments has it", Remedy: "refer to Secret jellyfin-database, as the component postgres does"})
	}
	if l := c.Pod.Spec.EnableServiceLinks; l == nil || *l {
		found = append(found, Finding{Level: Warn, On: on, What: "enableServiceLinks is on", Why: "a Service called postgres would set POSTGRES_PORT=tcp://…, and the provider crashes on it", Remedy: "set enableServiceLinks: false"})
	}
	found = append(found, keys(ctx, p, secret)...)
	if p.Exec == nil {
		return found
	}
	found = append(found, provider(ctx, p, c)...)
	return append(found, reach(ctx, p, c)...)
}

func keys(ctx context.Context, p *Patient, secret string) []Finding {
	if secret == "" {
		return nil
	}
	on := "Secret " + secret
	s, err := p.Client.CoreV1().Secrets(p.Namespace).Get(ctx, secret, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return []Finding{{Level: Fail, On: on, What: "it does not exist", Remedy: "create it with the keys " + strings.Join(databaseKeys, ", ")}}
	case err != nil:
		return []Finding{unknown(on, "its keys may not be read", err)}
	}
	var missing []string
	for _, k := range databaseKeys {
		if len(s.Data[k]) == 0 {
			missing = append(missing, k)
		}
	}
	if len(missing) > 0 {
		return []Finding{{Level: Fail, On: on, What: "these keys are missing or empty: " + strings.Join(missing, ", "), Remedy: "add them"}}
	}
	return []Finding{ok(on, "it has its keys")}
}

// provider reads database.xml: a lost one silently means SQLite.
func provider(ctx context.Context, p *Patient, c cluster.Caller) []Finding {
	on := "pod " + c.Pod.Name + ", database.xml"
	out, err := p.Exec(ctx, c.Pod.Name, c.Container, "cat", "/config/config/database.xml")
	if err != nil || out.Code != 0 {
		return []Finding{unknown(on, "it cannot be read", fmt.Errorf("exit %d %s %v", out.Code, out.Stderr, err))}
	}
	var d struct{ DatabaseType string } // and nothing else: it may hold a password
	if err := xml.Unmarshal([]byte(out.Stdout), &d); err != nil {
		return []Finding{{Level: Fail, On: on, What: "it is not XML that Jellyfin could read", Remedy: "restore it from a backup; do not delete it: without it Jellyfin starts with an empty SQLite library"}}
	}
	if d.DatabaseType != "PLUGIN_PROVIDER" {
		return []Finding{{Level: Fail, On: on, What: "Jellyfin uses " + cmp.Or(d.DatabaseType, "SQLite") + ", although it is told of PostgreSQL", Why: "the file was lost or written before the provider was there, so it fell back without a word",
			Remedy: "stop Jellyfin, remove the file, and start the image with the provider: it writes it anew"}}
	}
	return []Finding{ok(on, "PostgreSQL by plug-in")}
}

// reach connects to the database from Jellyfin's pod, by its own environment.
func reach(ctx context.Context, p *Patient, c cluster.Caller) []Finding {
	on := "pod " + c.Pod.Name
	out, err := p.Exec(ctx, c.Pod.Name, c.Container, "bash", "-c", `timeout 5 bash -c 'exec 3<>"/dev/tcp/$POSTGRES_HOST/${POSTGRES_PORT:-5432}"'`)
	switch {
	case err != nil || out.Code == 126 || out.Code == 127:
		return []Finding{unknown(on, "it has no bash to try the database with", fmt.Errorf("exit %d %v", out.Code, err))}
	case out.Code != 0:
		return []Finding{{Level: Fail, On: on, What: "the database does not accept a connection", Why: strings.TrimSpace(out.Stderr), Remedy: "check host and port in the Secret, the database's pod, and NetworkPolicies (Jellyfin to port 5432)"}}
	}
	return []Finding{ok(on, "the database accepts connections")}
}
