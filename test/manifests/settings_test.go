package manifests

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// workers stands for the Deployment of every class.
const workers = "Deployment ffpod-[^s]*"

// places says of every setting where it goes: all of them, and nothing else
// changes. A place is KIND NAME PATH, in which NAME may be a pattern; containers,
// volumes, variables and ports go by their names. A tree need not have every
// place, but some tree must.
var places = map[string][]string{
	"identity.user": {
		"Deployment jellyfin spec.template.spec.securityContext.runAsUser",
		workers + " spec.template.spec.securityContext.runAsUser",
		"CronJob jellyfin-* spec.jobTemplate.spec.template.spec.securityContext.runAsUser",
	},
	"identity.group": {
		"Deployment jellyfin spec.template.spec.securityContext.runAsGroup",
		"Deployment jellyfin spec.template.spec.securityContext.fsGroup",
		workers + " spec.template.spec.securityContext.runAsGroup",
		workers + " spec.template.spec.securityContext.fsGroup",
		"CronJob jellyfin-* spec.jobTemplate.spec.template.spec.securityContext.runAsGroup",
		"CronJob jellyfin-* spec.jobTemplate.spec.template.spec.securityContext.fsGroup",
	},
	"identity.supplementalGroups": {
		"Deployment jellyfin spec.template.spec.securityContext.supplementalGroups",
		workers + " spec.template.spec.securityContext.supplementalGroups",
		"CronJob jellyfin-* spec.jobTemplate.spec.template.spec.securityContext.supplementalGroups",
	},
	"jellyfin.environment":          {"ConfigMap jellyfin-environment data", "CronJob jellyfin-backup spec.timeZone"},
	"jellyfin.publishedServerUrl":   {"Deployment jellyfin spec.template.spec.containers.jellyfin.env.JELLYFIN_PublishedServerUrl.value"},
	"jellyfin.baseUrl":              {"ConfigMap jellyfin-seed data.baseUrl"},
	"jellyfin.knownProxies":         {"ConfigMap jellyfin-seed data.knownProxies"},
	"jellyfin.hardwareAcceleration": {"ConfigMap jellyfin-seed data.hardwareAcceleration"},
	"jellyfin.vaapiDevice":          {"ConfigMap jellyfin-seed data.vaapiDevice"},
	"storage.config.size":           {"PersistentVolumeClaim jellyfin-config spec.resources.requests.storage"},
	"storage.config.className": {
		"PersistentVolumeClaim jellyfin-config spec.storageClassName",
		"PersistentVolumeClaim jellyfin-postgres spec.storageClassName",
		"PersistentVolumeClaim jellyfin-backup spec.storageClassName",
		"Cluster jellyfin-postgres spec.storage.storageClass",
	},
	"storage.shared.size": {
		"PersistentVolumeClaim jellyfin-shared spec.resources.requests.storage",
		"PersistentVolume *-shared spec.capacity.storage",
	},
	"storage.shared.className": {"PersistentVolumeClaim jellyfin-shared spec.storageClassName"},
	"storage.media.size":       {"PersistentVolumeClaim jellyfin-media spec.resources.requests.storage"},
	"storage.recordings.size":  {"PersistentVolumeClaim jellyfin-recordings spec.resources.requests.storage"},
	"media.readOnly":           {"Deployment jellyfin spec.template.spec.volumes.media.persistentVolumeClaim.readOnly"},
	"media.claim": {
		"Deployment jellyfin spec.template.spec.volumes.media.persistentVolumeClaim.claimName",
		workers + " spec.template.spec.volumes.media.persistentVolumeClaim.claimName",
		"ServiceAccount ffpod-worker metadata.annotations.ffpod.dev/claim.media",
	},
	"media.nfs.volume": {
		"PersistentVolume *-media metadata.name",
		"PersistentVolumeClaim jellyfin-media spec.volumeName",
	},
	"media.nfs.server":       {"PersistentVolume *-media spec.nfs.server"},
	"media.nfs.path":         {"PersistentVolume *-media spec.nfs.path"},
	"media.nfs.mountOptions": {"PersistentVolume *-media spec.mountOptions"},
	"shared.nfs.volume": {
		"PersistentVolume *-shared metadata.name",
		"PersistentVolumeClaim jellyfin-shared spec.volumeName",
	},
	"shared.nfs.server":       {"PersistentVolume *-shared spec.nfs.server"},
	"shared.nfs.path":         {"PersistentVolume *-shared spec.nfs.path"},
	"shared.nfs.mountOptions": {"PersistentVolume *-shared spec.mountOptions"},
	"database.size": {
		"PersistentVolumeClaim jellyfin-postgres spec.resources.requests.storage",
		"Cluster jellyfin-postgres spec.storage.size",
	},
	"database.instances": {"Cluster jellyfin-postgres spec.instances"},
	"database.external.secretName": slices.Concat(
		variables("Deployment jellyfin spec.template.spec.containers.jellyfin", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD"),
		variables("CronJob jellyfin-backup spec.jobTemplate.spec.template.spec.containers.backup", "PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"),
		variables("CronJob jellyfin-restore spec.jobTemplate.spec.template.spec.containers.restore", "PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"),
	),
	"backup.schedule": {"CronJob jellyfin-backup spec.schedule"},
	"backup.keep":     {"CronJob jellyfin-backup spec.jobTemplate.spec.template.spec.containers.backup.args.0"},
	"backup.size":     {"PersistentVolumeClaim jellyfin-backup spec.resources.requests.storage"},
	"exposure.host": {
		"Ingress jellyfin spec.rules.0.host",
		"Ingress jellyfin spec.tls.0.hosts.0",
		"HTTPRoute jellyfin spec.hostnames.0",
		"Certificate jellyfin spec.dnsNames.0",
	},
	"exposure.ingress.className":   {"Ingress jellyfin spec.ingressClassName"},
	"exposure.ingress.annotations": {"Ingress jellyfin metadata.annotations"},
	"exposure.tls.secretName": {
		"Ingress jellyfin spec.tls.0.secretName",
		"Certificate jellyfin spec.secretName",
	},
	"exposure.gateway.name":             {"HTTPRoute jellyfin spec.parentRefs.0.name"},
	"exposure.gateway.namespace":        {"HTTPRoute jellyfin spec.parentRefs.0.namespace"},
	"exposure.loadBalancer.annotations": {"Service jellyfin metadata.annotations"},
	"exposure.nodePort.http":            {"Service jellyfin spec.ports.http.nodePort"},
	"exposure.nodePort.https":           {"Service jellyfin spec.ports.https.nodePort"},
	"certificates.issuer.name":          {"Certificate jellyfin spec.issuerRef.name"},
	"certificates.issuer.kind":          {"Certificate jellyfin spec.issuerRef.kind"},
	"certificates.schedulerIssuer.name": {"Certificate ffpod-scheduler spec.issuerRef.name"},
	"certificates.schedulerIssuer.kind": {"Certificate ffpod-scheduler spec.issuerRef.kind"},
	"keda.class":                        {"ScaledObject ffpod spec.scaleTargetRef.name", "ScaledObject ffpod spec.triggers.0.metadata.valueLocation"},
	"keda.namespace":                    {"ScaledObject ffpod spec.triggers.0.metadata.url"},
	"keda.min":                          {"ScaledObject ffpod spec.minReplicaCount"},
	"keda.max":                          {"ScaledObject ffpod spec.maxReplicaCount"},
	"keda.idleSeconds":                  {"ScaledObject ffpod spec.cooldownPeriod", "ScaledObject ffpod spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.stabilizationWindowSeconds"},
	"kueue.localQueue":                  {"LocalQueue * metadata.name", workers + " metadata.annotations.ffpod.dev/queue-name"},
	"kueue.clusterQueue":                {"LocalQueue * spec.clusterQueue"},
	"priority.workers.name":             {"PriorityClass *-workers metadata.name", "Deployment ffpod-amd spec.template.spec.priorityClassName"},
	"priority.workers.value":            {"PriorityClass *-workers value"},
	"priority.background.name":          {"PriorityClass *-background metadata.name", "Deployment ffpod-cpu spec.template.spec.priorityClassName"},
	"priority.background.value":         {"PriorityClass *-background value"},
	"nodes.workers":                     {workers + " spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.0.values"},
	"nodes.jellyfin":                    {"Deployment jellyfin spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.0.values"},
	"network.jellyfinEgress":            {"NetworkPolicy jellyfin spec.egress.3.ports"},
	"gpu.nvidia.slots":                  slots("ffpod-nvidia"),
	"gpu.nvidia.resources.requests":     {"Deployment ffpod-nvidia spec.template.spec.containers.worker.resources.requests"},
	"gpu.nvidia.resources.limits":       {"Deployment ffpod-nvidia spec.template.spec.containers.worker.resources.limits"},
	"gpu.intelI915.slots":               slots("ffpod-intel-i915"),
	"gpu.intelI915.resources.requests":  {"Deployment ffpod-intel-i915 spec.template.spec.containers.worker.resources.requests"},
	"gpu.intelI915.resources.limits":    {"Deployment ffpod-intel-i915 spec.template.spec.containers.worker.resources.limits"},
	"gpu.intelXe.slots":                 slots("ffpod-intel-xe"),
	"gpu.intelXe.resources.requests":    {"Deployment ffpod-intel-xe spec.template.spec.containers.worker.resources.requests"},
	"gpu.intelXe.resources.limits":      {"Deployment ffpod-intel-xe spec.template.spec.containers.worker.resources.limits"},
	"gpu.amd.slots":                     slots("ffpod-amd"),
	"gpu.amd.resources.requests":        {"Deployment ffpod-amd spec.template.spec.containers.worker.resources.requests"},
	"gpu.amd.resources.limits":          {"Deployment ffpod-amd spec.template.spec.containers.worker.resources.limits"},
	"gpu.dra.deviceClassName":           {"ResourceClaimTemplate ffpod-dra spec.spec.devices.requests.0.exactly.deviceClassName", "Deployment ffpod-dra metadata.annotations.ffpod.dev/devices"},
	"gpu.dra.slots":                     slots("ffpod-dra"),
	"gpu.dra.resources.requests":        {"Deployment ffpod-dra spec.template.spec.containers.worker.resources.requests"},
	"gpu.dra.resources.limits":          {"Deployment ffpod-dra spec.template.spec.containers.worker.resources.limits"},
}

// variables are those that a container reads from a Secret.
func variables(container string, names ...string) []string {
	var all []string
	for _, name := range names {
		all = append(all, container+".env."+name+".valueFrom.secretKeyRef.name")
	}
	return all
}

func slots(class string) []string {
	return []string{
		"Deployment " + class + " metadata.annotations.ffpod.dev/slots",
		"Deployment " + class + " spec.template.metadata.annotations.ffpod.dev/slots",
	}
}

// Every setting of every settings.yaml, set to something else, changes what is
// rendered: at its places, at all of them, and nowhere else.
func TestEverySettingHasItsEffect(t *testing.T) {
	files := copied(t)
	seen := map[string]bool{} // "SETTING PLACE"
	for name, dir := range trees {
		file := "/" + dir + "/settings.yaml"
		if !files.Exists(file) {
			continue
		}
		original, err := files.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before, _, err := build(files, "/"+dir)
		if err != nil {
			t.Fatal(err)
		}
		for setting, value := range leaves(t, original) {
			t.Run(name+"/"+setting, func(t *testing.T) {
				if places[setting] == nil {
					t.Fatalf("%s has the setting %s, of which places in this test does not know what it is for", file, setting)
				}
				if err := files.WriteFile(file, with(t, original, setting, other(value))); err != nil {
					t.Fatal(err)
				}
				defer files.WriteFile(file, original)
				after, _, err := build(files, "/"+dir)
				if err != nil {
					t.Fatal(err)
				}
				checkEffect(t, setting, before, after, seen)
			})
		}
	}
	for setting, all := range places {
		for _, place := range all {
			if !seen[setting+" "+place] {
				t.Errorf("%s goes to %s, says this test, but no tree has both", setting, place)
			}
		}
	}
}

func checkEffect(t *testing.T, setting string, before, after []*unstructured.Unstructured, seen map[string]bool) {
	t.Helper()
	changed := differences(before, after)
	if len(changed) == 0 {
		t.Errorf("%s has no effect", setting)
	}
	hit := map[string]bool{} // places
	for _, c := range changed {
		i := slices.IndexFunc(places[setting], func(place string) bool { return c.at(place) })
		if i < 0 {
			t.Errorf("%s changes %s", setting, c)
			continue
		}
		hit[places[setting][i]+" of "+c.name] = true
		seen[setting+" "+places[setting][i]] = true
	}
	for f := range fields(before) {
		for _, place := range places[setting] {
			if f.at(place) && !hit[place+" of "+f.name] {
				t.Errorf("%s does not change %s", setting, f)
			}
		}
	}
}

// leaves are the settings of a file: what has places is one, whatever is below
// it, and else what has nothing below it.
func leaves(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var all map[string]any
	if err := yaml.UnmarshalStrict(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"apiVersion", "kind", "metadata"} {
		delete(all, own)
	}
	out := map[string]any{}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		below, isMap := v.(map[string]any)
		if !isMap || places[at] != nil {
			out[at] = v
			return
		}
		for key, v := range below {
			walk(strings.TrimPrefix(at+"."+key, "."), v)
		}
	}
	walk("", all)
	return out
}

// with is the file with one setting changed.
func with(t *testing.T, text []byte, setting string, value any) []byte {
	t.Helper()
	var all map[string]any
	if err := yaml.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedField(all, value, strings.Split(setting, ".")...); err != nil {
		t.Fatal(err)
	}
	out, err := yaml.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// other is another value of the same type.
func other(v any) any {
	switch v := v.(type) {
	case bool:
		return !v
	case float64:
		return v + 4711
	case []any:
		if len(v) > 0 {
			return []any{other(v[0]), other(v[0])}
		}
		return []any{"sentinel"}
	case map[string]any:
		out := map[string]any{"SENTINEL": "sentinel"}
		for key, value := range v {
			out[key] = other(value)
		}
		return out
	}
	return "sentinel"
}

// field is one value of a rendered object.
type field struct{ kind, name, path string }

func (f field) String() string { return f.kind + " " + f.name + " " + f.path }

// of tells whether a place is one of this field's object.
func (f field) of(place string) bool {
	parts := strings.Fields(place)
	ok, err := path.Match(parts[1], strings.TrimPrefix(f.name, "film-")) // of tree storage
	return err == nil && ok && f.kind == parts[0]
}

// at tells whether the field is the place or lies below it.
func (f field) at(place string) bool {
	parts := strings.Fields(place)
	return f.of(place) && (f.path == parts[2] || strings.HasPrefix(f.path, parts[2]+"."))
}

// differences are the fields that two renderings do not have in common. An
// object that has another name differs in that alone.
func differences(before, after []*unstructured.Unstructured) []field {
	a, b := fields(before), fields(after)
	var out []field
	for f, v := range a {
		switch w, ok := b[f]; {
		case f.path == "metadata.name" && !ok:
			out = append(out, f)
		case !ok && hasObject(b, f), ok && v != w:
			out = append(out, f)
		}
	}
	for f := range b {
		if _, ok := a[f]; !ok && hasObject(a, f) {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(x, y field) int { return strings.Compare(x.String(), y.String()) })
	return out
}

// hasObject tells whether the field's object is there under this name.
func hasObject(all map[field]string, f field) bool {
	_, ok := all[field{f.kind, f.name, "metadata.name"}]
	return ok
}

func fields(objects []*unstructured.Unstructured) map[field]string {
	out := map[field]string{}
	for _, o := range objects {
		flatten(o.Object, "", func(at, value string) { out[field{o.GetKind(), o.GetName(), at}] = value })
	}
	return out
}

// byName are the lists whose elements go by their names.
var byName = []string{".containers", ".initContainers", ".volumes", ".env", ".ports"}

func flatten(v any, at string, each func(at, value string)) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			flatten(v[key], strings.TrimPrefix(at+"."+key, "."), each)
		}
	case []any:
		for i, item := range v {
			key := strconv.Itoa(i)
			if m, ok := item.(map[string]any); ok && slices.Contains(byName, path.Ext(at)) {
				if name, ok := m["name"].(string); ok { // the ports of a NetworkPolicy have none
					key = name
				}
			}
			flatten(item, at+"."+key, each)
		}
	default:
		each(at, fmt.Sprintf("%T %v", v, v))
	}
}
