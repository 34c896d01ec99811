package overlay

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/ffpod/ffpod/kustomize/settings"
)

// Values turn a values.yaml of the Helm chart ClusterJellyfin into a plan.
type Values struct {
	Release   string // its Helm release, from which its objects have their names
	Namespace string // instead of the file's
	Fresh     bool   // adopt nothing
	Version   string // ffpod's
}

// Plan maps the values. The report says of every key of the file what became of it,
// and then what has to be done with the old install; nothing is left out silently.
func (v Values) Plan(file string, text []byte) (Plan, []string, error) {
	var tree map[string]any
	if err := yaml.UnmarshalStrict(text, &tree); err != nil {
		return Plan{}, nil, fmt.Errorf("%s: %s", file, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	m := &mapping{Values: v, file: file, leaves: map[string]any{}, told: map[string]string{}, c: Default()}
	m.flatten("", tree)
	m.full = v.Release
	if name := m.text("fullnameOverride"); name != "" {
		m.full = name
		m.tell("fullnameOverride", "used for the names of the existing objects")
	} else {
		chart := "clusterjellyfin"
		if name := m.text("nameOverride"); name != "" {
			chart = name
			m.tell("nameOverride", "used for the names of the existing objects")
		}
		if !strings.Contains(m.full, chart) {
			m.full += "-" + chart
		}
	}
	m.choices()
	if len(m.errs) > 0 {
		return Plan{}, nil, fmt.Errorf("%s: %s", file, strings.Join(m.errs, "; "))
	}
	p, err := New(m.c, v.Version)
	if err != nil {
		return Plan{}, nil, fmt.Errorf("%s: %s", file, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	m.plan = &p
	m.finish()
	p.Notes = append(p.Notes, m.notes...)
	return p, m.report(), nil
}

type mapping struct {
	Values
	file   string
	full   string // chart's fullname
	leaves map[string]any
	told   map[string]string
	notes  []string
	errs   []string
	c      Choices
	plan   *Plan
	// what Choices has no word for
	later []func(p *Plan)
}

// flatten lists the leaves: scalars, empty maps, and lists as a whole.
func (m *mapping) flatten(path string, v any) {
	if inner, ok := v.(map[string]any); ok && (len(inner) > 0 || path == "") {
		for k, v := range inner {
			at := k
			if path != "" {
				at = path + "." + k
			}
			m.flatten(at, v)
		}
		return
	}
	m.leaves[path] = v
}

func (m *mapping) tell(path, format string, args ...any) {
	if _, there := m.leaves[path]; there {
		m.told[path] = fmt.Sprintf(format, args...)
	}
}

func (m *mapping) drop(path, why string) { m.tell(path, "dropped: %s", why) }

// dropAll drops what is below a path and not told yet.
func (m *mapping) dropAll(path, why string) {
	for at := range m.leaves {
		if _, told := m.told[at]; !told && (at == path || strings.HasPrefix(at, path+".")) {
			m.drop(at, why)
		}
	}
}

func (m *mapping) text(path string) string {
	switch v := m.leaves[path].(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case map[string]any:
		return ""
	default:
		m.errs = append(m.errs, fmt.Sprintf("%s: is a list; it takes one value", path))
		return ""
	}
}

func (m *mapping) number(path string) (int64, bool) {
	s := m.text(path)
	if s == "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		m.errs = append(m.errs, fmt.Sprintf("%s: %q; allowed: a whole number", path, s))
	}
	return n, err == nil
}

func (m *mapping) is(path string) bool { return m.text(path) == "true" }

// below are the scalars under a path, by what is left of theirs.
func (m *mapping) below(path string) map[string]string {
	out := map[string]string{}
	for at := range m.leaves {
		if rest, ok := strings.CutPrefix(at, path+"."); ok {
			if s := m.text(at); s != "" {
				out[rest] = s
			}
		}
	}
	return out
}

func (m *mapping) choices() {
	if m.c.Namespace = m.Namespace; m.c.Namespace != "" {
		m.drop("namespace", "--namespace says "+m.c.Namespace)
	} else {
		m.c.Namespace = m.text("namespace")
		m.tell("namespace", "the overlay's namespace; the old claims can be used only in theirs, the Helm release's (helm list -A)")
	}
	if m.c.Namespace == "" {
		m.c.Namespace = "jellyfin"
	}
	if n, ok := m.number("securityContext.runAsUser"); ok {
		m.c.User = n
		m.tell("securityContext.runAsUser", "identity.user, of Jellyfin, workers and backups")
	}
	if n, ok := m.number("securityContext.runAsGroup"); ok {
		m.c.Group = n
		m.tell("securityContext.runAsGroup", "identity.group")
	}
	if n, ok := m.number("securityContext.fsGroup"); ok {
		if n == m.c.Group {
			m.tell("securityContext.fsGroup", "identity.group, which is the volumes' group, too")
		} else {
			m.c.Groups = []int64{n}
			m.tell("securityContext.fsGroup", "identity.supplementalGroups; the volumes' group is identity.group, %d", m.c.Group)
		}
	}
	m.storage()
	m.database()
	m.jellyfin()
	m.workers()
	m.exposure()
	for _, image := range []string{"image.jellyfin", "image.worker"} {
		what := "Jellyfin and workers run the stock image jellyfin/jellyfin, and ffpod is injected; choose a release under images: in kustomization.yaml"
		m.dropAll(image, what)
	}
	m.dropAll("rffmpeg", "there is no rffmpeg and no SSH; the chart itself read nothing of it")
}

// claim is the name of one of the chart's claims.
func (m *mapping) claim(what string) string { return m.full + "-" + what }

const nothing = "an existing claim keeps its size, class and access mode"

func (m *mapping) storage() {
	s := "jellyfin.storage."
	// The library.
	nfs := m.text(s+"media.nfs.server") != "" && m.text(s+"media.storageClass") == ""
	switch {
	case !m.Fresh:
		m.c.Media, m.c.MediaClaim = "claim", m.claim("media")
		m.tell(s+"media.size", "adopted: media.claim: %s; %s", m.c.MediaClaim, nothing)
		m.dropAll(s+"media", "adopted with the claim "+m.c.MediaClaim)
	case nfs:
		m.c.Media, m.c.MediaNFS = "nfs", m.text(s+"media.nfs.server")+":"+m.text(s+"media.nfs.path")
		m.tell(s+"media.nfs.server", "media.nfs.server")
		m.tell(s+"media.nfs.path", "media.nfs.path")
		m.dropAll(s+"media", "an NFS export has no class or size of its own; workers mount it read-only")
	default:
		m.c.Media = "new"
		if size := m.text(s + "media.size"); size != "" {
			m.tell(s+"media.size", "storage.media.size")
			m.later = append(m.later, func(p *Plan) { p.Settings.Storage.Media.Size = new(settings.Quantity(size)) })
		}
		m.drop(s+"media.accessMode", "the library's claim is ReadWriteMany")
		if class := m.text(s + "media.storageClass"); class != "" {
			m.tell(s+"media.storageClass", "a patch of the claim jellyfin-media")
			m.patch("The library's StorageClass.", "PersistentVolumeClaim", "jellyfin-media", fmt.Sprintf("spec:\n  storageClassName: %q", class))
		}
		m.dropAll(s+"media", "empty: the default StorageClass")
	}
	m.configStorage(s + "config")
	m.cacheStorage(s + "cache")
}

func (m *mapping) configStorage(at string) {
	onNFS := m.text(at+".nfs.server") != "" && m.text(at+".storageClass") == ""
	size, class := m.text(at+".size"), m.text(at+".storageClass")
	if onNFS {
		why := "SQLite, of which Jellyfin and its plug-ins keep some on any database, loses data on NFS"
		m.drop(at+".nfs.server", why)
		m.drop(at+".nfs.path", why)
		m.notes = append(m.notes, fmt.Sprintf("Jellyfin's files are on NFS (%s:%s), and this install has a new claim, jellyfin-config, on the default StorageClass. To keep users and watch state, copy the files into it while no Jellyfin runs.",
			m.text(at+".nfs.server"), m.text(at+".nfs.path")))
	}
	if !m.Fresh && !onNFS {
		name := m.claim("config")
		m.tell(at+".size", "adopted: Jellyfin and backups mount the claim %s; %s", name, nothing)
		m.dropAll(at, "adopted with the claim "+name)
		m.adopt("config", "jellyfin-config", name, []string{"Deployment jellyfin", "CronJob jellyfin-backup", "CronJob jellyfin-restore"})
		return
	}
	if size != "" {
		m.tell(at+".size", "storage.config.size")
		m.later = append(m.later, func(p *Plan) { p.Settings.Storage.Config.Size = new(settings.Quantity(size)) })
	}
	if class != "" {
		m.c.ConfigClass = class
		m.tell(at+".storageClass", "storage.config.className")
	}
	m.drop(at+".accessMode", "Jellyfin's own claim is ReadWriteOnce: no worker mounts it")
	m.dropAll(at, "empty: the default StorageClass")
}

func (m *mapping) cacheStorage(at string) {
	if mode := m.text(at + ".accessMode"); !m.Fresh && mode == "ReadWriteMany" {
		name := m.claim("cache")
		m.tell(at+".size", "adopted: the directories that Jellyfin and workers exchange are on the claim %s; %s", name, nothing)
		m.dropAll(at, "adopted with the claim "+name)
		m.adopt("shared", "jellyfin-shared", name, []string{"Deployment jellyfin", "Deployment CLASSES"})
		m.later = append(m.later, func(p *Plan) {
			p.Patches = append(p.Patches, Patch{"Jobs may mount what is listed here.", "- patch: |\n    apiVersion: v1\n    kind: ServiceAccount\n    metadata:\n      name: ffpod-worker\n      annotations:\n        ffpod.dev/claim.shared: " + name})
		})
		return
	} else if !m.Fresh && mode != "" {
		m.drop(at+".accessMode", "workers of several nodes cannot mount a "+mode+" claim; the new claim jellyfin-shared takes its place, and the old one holds nothing that is missed")
	}
	if size := m.text(at + ".size"); size != "" {
		m.tell(at+".size", "storage.shared.size, of the new claim jellyfin-shared")
		m.later = append(m.later, func(p *Plan) { p.Settings.Storage.Shared.Size = new(settings.Quantity(size)) })
	}
	if class := m.text(at + ".storageClass"); class != "" {
		m.c.Shared, m.c.SharedClass = "class", class
		m.tell(at+".storageClass", "storage.shared.className; it must have ReadWriteMany")
	}
	if _, told := m.told[at+".accessMode"]; !told {
		m.tell(at+".accessMode", "the claim jellyfin-shared is ReadWriteMany")
	}
	for rest := range m.below(at + ".nfs") {
		m.drop(at+".nfs."+rest, "the chart read nothing of it; --shared nfs of `ffpod init` does that")
	}
	m.dropAll(at, "empty: the default StorageClass, which must have ReadWriteMany")
}

// adopt replaces one of the tree's claims by one that exists.
func (m *mapping) adopt(volume, ours, theirs string, mounters []string) {
	m.later = append(m.later, func(p *Plan) {
		p.Patches = append(p.Patches, Patch{"Its place has the claim " + theirs + ", which exists and is not the tree's.",
			"- patch: |\n    apiVersion: v1\n    kind: PersistentVolumeClaim\n    metadata:\n      name: " + ours + "\n    $patch: delete"})
		for _, mounter := range mounters {
			kind, name, _ := strings.Cut(mounter, " ")
			target, spec := fmt.Sprintf("{kind: %s, name: %s}", kind, name), "spec:\n      template:\n        spec:"
			volumes := "\n          volumes:\n            - name: %s\n              persistentVolumeClaim: {claimName: %s}"
			version := "apps/v1"
			switch {
			case kind == "CronJob":
				version = "batch/v1"
				spec = "spec:\n      jobTemplate:\n        spec:\n          template:\n            spec:"
				volumes = strings.ReplaceAll(volumes, "\n", "\n    ")
			case name == "CLASSES":
				target, name = "{kind: Deployment, labelSelector: ffpod.dev/class}", "any"
			}
			p.Patches = append(p.Patches, Patch{theirs + ".", "- target: " + target + "\n  patch: |\n    apiVersion: " + version + "\n    kind: " + kind + "\n    metadata:\n      name: " + name + "\n    " + spec + fmt.Sprintf(volumes, volume, theirs)})
		}
	})
}

func (m *mapping) database() {
	at := "postgresql"
	if len(m.below(at)) == 0 {
		m.dropAll(at, "empty: SQLite")
		return
	}
	own := m.full + "-postgresql"
	experimental := " Its tables were made by ClusterJellyfin's own build of Jellyfin; whether the provider of this install can go on with them is not known: dump the database first (pg_dump), and try with a copy, or begin with an empty database."
	switch secret := m.text(at + ".external.existingSecret"); {
	case m.Fresh && m.is(at+".enabled"):
		m.c.Database = "postgres"
		m.tell(at+".enabled", "component postgres, a new server")
		for _, size := range []string{at + ".deployment.storage.size", at + ".storage.size", at + ".primary.persistence.size"} {
			if v := m.text(size); v != "" {
				m.tell(size, "database.size")
				m.later = append(m.later, func(p *Plan) { p.Settings.Database.Size = new(settings.Quantity(v)) })
			}
		}
	case m.is(at + ".enabled"):
		m.c.Database, m.c.DatabaseSecret = "postgres-external", own
		m.tell(at+".enabled", "adopted: component postgres-external with the Secret %s of the server that runs", own)
		m.notes = append(m.notes, "The server and the Secret "+own+" of the old install are used further: leave its StatefulSet or Deployment, Service, Secret and claim when you remove the rest."+experimental)
	case secret != "":
		m.c.Database, m.c.DatabaseSecret = "postgres-external", secret
		m.tell(at+".enabled", "component postgres-external")
		m.tell(at+".external.existingSecret", "adopted: database.external.secretName")
		m.notes = append(m.notes, "The Secret "+secret+" must be in namespace "+m.c.Namespace+" with the keys host, port, database, username and password."+experimental)
	case m.text(at+".external.host") != "":
		m.c.Database, m.c.DatabaseSecret = "postgres-external", "jellyfin-database"
		m.tell(at+".enabled", "component postgres-external")
		m.notes = append(m.notes, "The values name a server but no Secret."+experimental)
		literals := m.literals()
		m.later = append(m.later, func(p *Plan) {
			p.Secrets[0] = p.Choices.databaseSecret("The way to the database: its PASSWORD", p.Choices.DatabaseSecret, literals)
		})
	default:
		m.tell(at+".enabled", "SQLite")
	}
	for _, key := range []string{"host", "port", "database", "username"} {
		m.drop(at+".external."+key, "it is read from the Secret "+m.c.DatabaseSecret)
	}
	why := "SQLite is used"
	switch {
	case m.c.Database == "postgres":
		why = "the new server has its own: see component postgres"
	case m.c.DatabaseSecret != "":
		why = "the server that is adopted keeps what it has"
	}
	m.dropAll(at, why)
}

// literals are what the values say of the server, and what they leave open.
func (m *mapping) literals() string {
	var b strings.Builder
	for _, key := range []struct{ name, otherwise string }{{"host", "HOST"}, {"port", "5432"}, {"database", "jellyfin"}, {"username", "USER"}, {"password", "PASSWORD"}} {
		v := key.otherwise
		if key.name != "password" { // it goes into no file
			v = cmp.Or(m.text("postgresql.external."+key.name), v)
		}
		fmt.Fprintf(&b, "--from-literal=%s=%s ", key.name, v)
	}
	return strings.TrimSpace(b.String())
}

func (m *mapping) jellyfin() {
	if n, ok := m.number("jellyfin.replicas"); ok && n == 1 {
		m.tell("jellyfin.replicas", "one, always")
	} else {
		m.drop("jellyfin.replicas", "Jellyfin can be one only: it keeps sessions and locks in memory")
	}
	if url := m.text("jellyfin.publishedServerUrl"); url != "" {
		m.tell("jellyfin.publishedServerUrl", "jellyfin.publishedServerUrl")
		m.later = append(m.later, func(p *Plan) { p.Settings.Jellyfin.PublishedServerURL = &url })
	}
	m.dropAll("jellyfin.publishedServerUrl", "empty: what Jellyfin's dashboard says")
	m.resources("jellyfin.resources", "jellyfin", "{kind: Deployment, name: jellyfin}")
	m.dropAll("jellyfin.database", "the chart read nothing of it")
	m.environment()
}

func (m *mapping) environment() {
	list, isList := m.leaves["jellyfin.extraEnv"].([]any)
	if !isList || len(list) == 0 {
		m.dropAll("jellyfin.extraEnv", "empty, or no list of {name, value}")
		return
	}
	var kept, dropped []string
	var patched []any
	for _, item := range list {
		entry, _ := item.(map[string]any)
		name, _ := entry["name"].(string)
		value, plain := entry["value"]
		switch {
		case name == "":
			dropped = append(dropped, fmt.Sprintf("%v (no name)", item))
		case strings.HasPrefix(name, "JELLYFIN_POSTGRES_") || name == "JELLYFIN_DATABASE_TYPE":
			dropped = append(dropped, name+" (the database's component says it)")
		case settings.Reserved(name):
			dropped = append(dropped, name+" (ffpod's manifests set it)")
		case plain:
			kept = append(kept, name)
			m.later = append(m.later, func(p *Plan) { p.Settings.Jellyfin.Environment[name] = fmt.Sprint(value) })
		default: // from a Secret, or the like
			kept = append(kept, name+" (by a patch)")
			patched = append(patched, entry)
		}
	}
	told := []string{}
	if len(kept) > 0 {
		told = append(told, "jellyfin.environment: "+strings.Join(kept, ", "))
	}
	if len(dropped) > 0 {
		told = append(told, "dropped: "+strings.Join(dropped, ", "))
	}
	m.tell("jellyfin.extraEnv", "%s", strings.Join(told, "; "))
	if len(patched) > 0 {
		text, err := yaml.Marshal(map[string]any{"env": patched})
		if err != nil {
			m.errs = append(m.errs, "jellyfin.extraEnv: "+err.Error())
			return
		}
		m.patch("Variables from elsewhere.", "Deployment", "jellyfin", "spec:\n  template:\n    spec:\n      containers:\n        - name: jellyfin\n"+indent(string(text), "          "))
	}
}

// resources makes a patch of a container's requests and limits.
func (m *mapping) resources(at, container, target string) {
	all := m.below(at)
	if len(all) == 0 {
		m.dropAll(at, "empty")
		return
	}
	lists := map[string]map[string]string{}
	for _, rest := range sortedKeys(all) {
		list, name, ok := strings.Cut(rest, ".")
		if !ok || list != "requests" && list != "limits" {
			continue
		}
		if lists[list] == nil {
			lists[list] = map[string]string{}
		}
		lists[list][name] = all[rest]
		m.tell(at+"."+rest, "a patch of the container %s", container)
	}
	text, err := yaml.Marshal(map[string]any{"resources": lists})
	if err != nil {
		m.errs = append(m.errs, at+": "+err.Error())
		return
	}
	body := "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: any\nspec:\n  template:\n    spec:\n      containers:\n        - name: " + container + "\n" + indent(string(text), "          ")
	m.later = append(m.later, func(p *Plan) {
		p.Patches = append(p.Patches, Patch{"From " + at + ".", "- target: " + target + "\n  patch: |\n" + indent(body, "    ")})
	})
}

func (m *mapping) patch(why, kind, name, body string) {
	version := map[string]string{"Deployment": "apps/v1"}[kind]
	if version == "" {
		version = "v1"
	}
	m.later = append(m.later, func(p *Plan) {
		p.Patches = append(p.Patches, Patch{why, "- patch: |\n" + indent("apiVersion: "+version+"\nkind: "+kind+"\nmetadata:\n  name: "+name+"\n"+body, "    ")})
	})
}

func (m *mapping) workers() {
	gpu, resource := "cpu", m.text("workers.gpu.resource")
	if m.is("workers.gpu.enabled") {
		gpu = m.gpu(resource)
	} else {
		m.drop("workers.gpu.resource", "workers.gpu.enabled is not true")
		m.drop("workers.gpu.limit", "workers.gpu.enabled is not true")
		m.tell("workers.gpu.enabled", "class cpu alone")
	}
	if gpu != "cpu" {
		m.gpuResources(gpu)
	} else {
		m.resources("workers.resources", "worker", "{kind: Deployment, name: ffpod-cpu}")
	}
	if n, ok := m.number("workers.replicas"); ok {
		m.tell("workers.replicas", "%d warm workers of class %s; sessions beyond them are Jobs", n, gpu)
		m.later = append(m.later, func(p *Plan) { p.Replicas = map[string]int64{"ffpod-" + gpu: n} })
	}
	m.drop("workers.privileged", "nothing here is privileged; the device plugin brings the device")
	nodes, _ := m.leaves["workers.nodeSelector.nodes"].([]any)
	switch {
	case m.is("workers.nodeSelector.enabled") && len(nodes) > 0:
		var names []string
		for _, n := range nodes {
			names = append(names, strconv.Quote(fmt.Sprint(n)))
		}
		m.tell("workers.nodeSelector.enabled", "a patch of all classes")
		m.tell("workers.nodeSelector.nodes", "a patch of all classes (component node-pinning would need Jellyfin's nodes, too)")
		m.later = append(m.later, func(p *Plan) {
			p.Patches = append(p.Patches, Patch{"From workers.nodeSelector.", "- target: {kind: Deployment, labelSelector: ffpod.dev/class}\n  patch: |\n" + indent(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: any
spec:
  template:
    spec:
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - {key: kubernetes.io/hostname, operator: In, values: [`+strings.Join(names, ", ")+`]}`, "    ")})
		})
	default:
		m.dropAll("workers.nodeSelector", "not enabled, or no nodes")
	}
}

// gpu chooses the class for a resource's name.
func (m *mapping) gpu(resource string) string {
	var class string
	switch {
	case strings.HasPrefix(resource, "nvidia.com/"):
		class = "nvidia"
	case strings.HasPrefix(resource, "gpu.intel.com/xe"):
		class = "intel-xe"
	case strings.HasPrefix(resource, "gpu.intel.com/"):
		class = "intel-i915"
	case strings.HasPrefix(resource, "amd.com/"):
		class = "amd"
	default:
		m.errs = append(m.errs, fmt.Sprintf("workers.gpu.resource: %q; allowed: a resource of nvidia.com, gpu.intel.com or amd.com", resource))
		return "cpu"
	}
	m.c.GPUs, m.c.GPUResource = []string{class}, resource
	m.tell("workers.gpu.enabled", "component gpu-%s", class)
	m.tell("workers.gpu.resource", "gpu.%s.resources.limits", key(class))
	if class == "nvidia" {
		m.notes = append(m.notes, "k3s and clusters like it need component runtime-class-nvidia after gpu-nvidia: the chart did without, as it used the node's devices.")
	}
	return class
}

// key is a class's name among the settings.
func key(class string) string {
	return map[string]string{"nvidia": "nvidia", "intel-i915": "intelI915", "intel-xe": "intelXe", "amd": "amd"}[class]
}

func (m *mapping) gpuResources(class string) {
	limit := m.text("workers.gpu.limit")
	if limit != "" {
		m.tell("workers.gpu.limit", "gpu.%s.resources.limits: what each worker takes", key(class))
	}
	requests, limits := m.below("workers.resources.requests"), m.below("workers.resources.limits")
	for rest := range requests {
		m.tell("workers.resources.requests."+rest, "gpu.%s.resources.requests", key(class))
	}
	for rest := range limits {
		m.tell("workers.resources.limits."+rest, "gpu.%s.resources.limits", key(class))
	}
	m.later = append(m.later, func(p *Plan) {
		g := p.Settings.GPU
		r := map[string]*settings.Class{"nvidia": g.Nvidia, "intel-i915": g.IntelI915, "intel-xe": g.IntelXe, "amd": g.AMD}[class].Resources
		for name, amount := range requests {
			r.Requests[name] = settings.Quantity(amount)
		}
		for name, amount := range limits {
			r.Limits[name] = settings.Quantity(amount)
		}
		if limit != "" {
			r.Limits[m.c.GPUResource] = settings.Quantity(limit)
		}
	})
}

func (m *mapping) exposure() {
	kind := m.text("service.type")
	lb := m.below("service.annotations")
	for rest := range lb {
		if kind == "LoadBalancer" {
			m.tell("service.annotations."+rest, "exposure.loadBalancer.annotations (the chart ignored them)")
		} else {
			m.drop("service.annotations."+rest, "the chart ignored them; they belong to a LoadBalancer")
		}
	}
	ingress := m.is("ingress.enabled")
	if ingress {
		m.ingress()
	} else {
		m.tell("ingress.enabled", "no ingress")
		m.dropAll("ingress", "ingress.enabled is not true")
	}
	extra := func(component string) {
		// The ingress is the choice; the Service's type comes beside it.
		if ingress {
			m.drop("service.type", "with an ingress; list component "+component+" too if you need both")
			return
		}
		m.c.Exposure = component
		m.tell("service.type", "component %s", component)
	}
	switch kind {
	case "LoadBalancer":
		extra("loadbalancer")
		if len(lb) > 0 && !ingress {
			m.later = append(m.later, func(p *Plan) { p.Settings.Exposure.LoadBalancer.Annotations = lb })
		}
	case "NodePort":
		extra("nodeport")
		if !ingress {
			m.notes = append(m.notes, "The chart's node ports were random; here they are exposure.nodePort, 30096 and 30920.")
		}
	default:
		m.tell("service.type", "ClusterIP")
	}
	for i, port := range []struct{ key, name, usual string }{{"service.port", "http", "8096"}, {"service.httpsPort", "https", "8920"}} {
		switch v := m.text(port.key); v {
		case "":
		case port.usual:
			m.tell(port.key, "the Service's, as it is")
		default:
			if _, ok := m.number(port.key); !ok {
				continue
			}
			m.tell(port.key, "a patch of the Service")
			index := i
			m.later = append(m.later, func(p *Plan) {
				p.Patches = append(p.Patches, Patch{"From " + port.key + ".", fmt.Sprintf("- target: {kind: Service, name: jellyfin}\n  patch: |\n    - {op: test, path: /spec/ports/%d/name, value: %s}\n    - {op: replace, path: /spec/ports/%d/port, value: %s}", index, port.name, index, v)})
			})
		}
	}
	m.dropAll("service", "no such key was read by the chart")
}

func (m *mapping) ingress() {
	annotations := m.below("ingress.annotations")
	https := m.below("ingress.httpsAnnotations")
	class := m.text("ingress.className")
	guess := strings.ToLower(class + " " + strings.Join(sortedKeys(annotations), " ") + " " + strings.Join(sortedKeys(https), " "))
	m.c.Exposure = "ingress"
	for _, controller := range []string{"nginx", "traefik", "haproxy"} {
		if strings.Contains(guess, controller) {
			m.c.Exposure = "ingress-" + controller
			break
		}
	}
	m.c.IngressClass = class
	m.tell("ingress.enabled", "component %s: one Ingress, where the chart made two", m.c.Exposure)
	m.tell("ingress.className", "exposure.ingress.className")
	if class == "" {
		if m.c.Exposure == "ingress" {
			m.c.IngressClass = "nginx"
		}
		m.notes = append(m.notes, "The values name no ingress class: check exposure.ingress.className (`kubectl get ingressclass`).")
		m.tell("ingress.className", "empty: exposure.ingress.className is guessed")
	}
	// The names that the list gives, first of all.
	hosts, _ := m.leaves["ingress.hosts"].([]any)
	var names []string
	path := ""
	for _, h := range hosts {
		entry, _ := h.(map[string]any)
		if name, ok := entry["host"].(string); ok {
			names = append(names, name)
		}
		paths, _ := entry["paths"].([]any)
		for _, p := range paths {
			if one, _ := p.(map[string]any); one["path"] != nil && one["path"] != "/" && path == "" {
				path = fmt.Sprint(one["path"])
			}
		}
	}
	if len(names) == 0 {
		m.errs = append(m.errs, "ingress.hosts: names no host, and ingress.enabled is true; give one")
		return
	}
	m.c.Host = names[0]
	told := "exposure.host: " + names[0]
	if len(names) > 1 {
		told += "; dropped: " + strings.Join(names[1:], ", ") + " (one name; add rules by a patch)"
	}
	if path != "" {
		told += "; dropped: path " + path + " (the chart published / whatever it said; see jellyfin.baseUrl)"
	}
	m.tell("ingress.hosts", "%s", told)
	m.ingressTLS()
	all := map[string]string{}
	for rest, value := range annotations {
		all[rest] = value
		m.tell("ingress.annotations."+rest, "exposure.ingress.annotations")
	}
	for rest, value := range https { // these were of the Ingress that clients use
		if before, twice := all[rest]; twice && before != value {
			m.drop("ingress.annotations."+rest, "ingress.httpsAnnotations says otherwise, and there is one Ingress")
		}
		all[rest] = value
		m.tell("ingress.httpsAnnotations."+rest, "exposure.ingress.annotations")
	}
	if m.c.Exposure != "ingress" {
		for rest := range all {
			if strings.HasPrefix(rest, "nginx.ingress.kubernetes.io/proxy-") {
				delete(all, rest)
				m.drop("ingress.annotations."+rest, "component ingress-nginx sets it, longer than ffpod's bounded waits")
				m.drop("ingress.httpsAnnotations."+rest, "component ingress-nginx sets it, longer than ffpod's bounded waits")
			}
		}
	}
	if len(all) > 0 {
		m.later = append(m.later, func(p *Plan) { p.Settings.Exposure.Ingress.Annotations = all })
	}
	m.dropAll("ingress", "empty, or not read by the chart")
}

func (m *mapping) ingressTLS() {
	list, _ := m.leaves["ingress.tls"].([]any)
	var secrets []string
	for _, item := range list {
		entry, _ := item.(map[string]any)
		if name, ok := entry["secretName"].(string); ok && name != "" && !slices.Contains(secrets, name) {
			secrets = append(secrets, name)
		}
	}
	switch {
	case len(secrets) == 0:
		m.drop("ingress.tls", "names no Secret")
	case len(secrets) == 1:
		m.c.TLSSecret = secrets[0]
		m.tell("ingress.tls", "adopted: exposure.tls.secretName: %s", secrets[0])
	default:
		m.c.TLSSecret = secrets[0]
		m.tell("ingress.tls", "adopted: exposure.tls.secretName: %s; dropped: %s (one name, one certificate)", secrets[0], strings.Join(secrets[1:], ", "))
	}
}

func (m *mapping) finish() {
	for _, f := range m.later {
		f(m.plan)
	}
	if !m.Fresh {
		m.oldInstall()
	}
}

// oldInstall says how the old install goes without taking what is adopted. Helm
// deletes what its record of the release says, and reads the annotation
// helm.sh/resource-policy there too: on a claim itself it does not help.
func (m *mapping) oldInstall() {
	ns, full := m.c.Namespace, m.full
	claims := []string{}
	for _, claim := range []string{m.claim("config"), m.claim("cache"), m.claim("media")} {
		for _, p := range m.plan.Patches {
			if strings.Contains(p.Text, claim) && !slices.Contains(claims, claim) {
				claims = append(claims, claim)
			}
		}
	}
	claims = append(claims, m.c.MediaClaim)
	sort.Strings(claims)
	list := strings.Join(slices.Compact(claims), " ")
	m.notes = append(m.notes,
		"WARNING: do not run `helm uninstall "+m.Release+"`: it deletes the claims that this install uses ("+list+"), and with most StorageClasses the files. Annotating the claims helm.sh/resource-policy=keep does not prevent that: Helm looks for it in its own record of the release. Make Helm forget the release instead: `kubectl -n "+ns+" delete secret -l owner=helm,name="+m.Release+"`.",
		"Then stop the old install; two Jellyfins on one claim destroy its database: `kubectl -n "+ns+" delete --ignore-not-found deployment/"+full+"-main statefulset/"+full+"-workers service/"+full+"-main service/"+full+"-workers service/"+full+"-workers-headless ingress/"+full+"-http ingress/"+full+"-https secret/"+full+"-main-ssh secret/"+full+"-ssh-keys`.",
		"Once Jellyfin runs here, keep the claims from being deleted: `kubectl -n "+ns+" label pvc "+list+" ffpod.dev/keep=true`.")
}

// report says of every key what became of it.
func (m *mapping) report() []string {
	width := 0
	for at := range m.leaves {
		width = max(width, len(at))
	}
	var out []string
	for _, at := range sortedKeys(m.leaves) {
		told, ok := m.told[at]
		if !ok {
			told = "dropped: no key of ClusterJellyfin's chart that ffpod knows"
		}
		out = append(out, fmt.Sprintf("%-*s  %s", width, at, told))
	}
	return out
}
