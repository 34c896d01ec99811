package overlay

import (
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func fromValues(t *testing.T, v Values, text string) (Plan, string) {
	t.Helper()
	if v.Release == "" {
		v.Release = "jellyfin"
	}
	v.Version = "devel"
	p, report, err := v.Plan("values.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	told := slices.Concat(report, p.Notes)
	for _, s := range p.Secrets {
		told = append(told, s.Command)
	}
	return p, strings.Join(told, "\n")
}

func full(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func expect(t *testing.T, what, text string, wants ...string) {
	t.Helper()
	squeezed := strings.Join(strings.Fields(text), " ")
	for _, want := range wants {
		if !strings.Contains(squeezed, want) {
			t.Errorf("%s lacks %q", what, want)
		}
	}
}

func TestFromValues(t *testing.T) {
	p, report := fromValues(t, Values{}, full(t))
	expect(t, "the report", report,
		"image.jellyfin.tag dropped: Jellyfin and workers run the stock image",
		"ingress.annotations.nginx.ingress.kubernetes.io/proxy-read-timeout dropped: component ingress-nginx sets it",
		"ingress.hosts exposure.host: jellyfin.yourdomain.com; dropped: films.yourdomain.com",
		"ingress.tls adopted: exposure.tls.secretName: jellyfin-tls",
		"jellyfin.database.type dropped: the chart read nothing of it",
		"jellyfin.extraEnv jellyfin.environment: JELLYFIN_LOG_LEVEL, LIMIT, API_KEY (by a patch); dropped: TMPDIR (ffpod's manifests set it), JELLYFIN_DATABASE_TYPE",
		"jellyfin.storage.config.size adopted: Jellyfin and backups mount the claim jellyfin-clusterjellyfin-config",
		"jellyfin.storage.cache.size adopted",
		"jellyfin.storage.media.nfs.server dropped: adopted with the claim jellyfin-clusterjellyfin-media",
		"nodeSelecter.disk dropped: no key of ClusterJellyfin's chart that ffpod knows",
		"postgresql.external.existingSecret adopted: database.external.secretName",
		"postgresql.deployment.image.tag dropped: the server that is adopted keeps what it has",
		"rffmpeg.config.ssh.options dropped: there is no rffmpeg and no SSH",
		"securityContext.fsGroup identity.supplementalGroups",
		"service.annotations.metallb.universe.tf/address-pool dropped",
		"workers.privileged dropped: nothing here is privileged",
		"workers.replicas 4 warm workers of class intel-i915",
		"WARNING: do not run `helm uninstall jellyfin`: it deletes the claims that this install uses (jellyfin-clusterjellyfin-cache jellyfin-clusterjellyfin-config jellyfin-clusterjellyfin-media)",
		"kubectl -n jellyfin-system delete secret -l owner=helm,name=jellyfin",
	)
	text := rendered(t, p)
	expect(t, "the rendered install", text,
		"namespace: jellyfin-system",
		"claimName: jellyfin-clusterjellyfin-config", "claimName: jellyfin-clusterjellyfin-cache", "claimName: jellyfin-clusterjellyfin-media",
		"ffpod.dev/claim.media: jellyfin-clusterjellyfin-media ffpod.dev/claim.shared: jellyfin-clusterjellyfin-cache",
		"name: jellyfin-postgresql-external",
		`gpu.intel.com/i915: "1"`, "memory: 8Gi", "memory: 5Gi", "replicas: 4",
		"- gpu-worker-1 - gpu-worker-2",
		"runAsUser: 1001", "supplementalGroups: - 44",
		"value: https://jellyfin.yourdomain.com", "JELLYFIN_LOG_LEVEL: debug", `LIMIT: "3"`, "secretKeyRef: key: api",
		"- name: http port: 80",
		"cert-manager.io/cluster-issuer: letsencrypt-prod", `external-dns.alpha.kubernetes.io/ttl: "60"`, `proxy-read-timeout: "3600"`,
		"secretName: jellyfin-tls",
	)
	for _, wrong := range []string{"claimName: jellyfin-config", "claimName: jellyfin-shared", "claimName: jellyfin-media", "name: jellyfin-config\n", "name: jellyfin-shared\n", "TMPDIR: /tmp", "privileged: true"} {
		if strings.Contains(text, wrong) {
			t.Errorf("%q is there", wrong)
		}
	}
}

// Each key of the file has a line, whatever it is.
func TestNothingIsSilent(t *testing.T) {
	for _, v := range []Values{{}, {Fresh: true}, {Namespace: "other"}} {
		_, report := fromValues(t, v, full(t))
		var tree map[string]any
		if err := yaml.Unmarshal([]byte(full(t)), &tree); err != nil {
			t.Fatal(err)
		}
		m := &mapping{leaves: map[string]any{}}
		m.flatten("", tree)
		if len(m.leaves) < 55 {
			t.Fatalf("only %d keys", len(m.leaves))
		}
		for at := range m.leaves {
			if n := strings.Count("\n"+report, "\n"+at+" "); n != 1 {
				t.Errorf("%+v: %s is told %d times", v, at, n)
			}
		}
		if n := strings.Count(report, "no key of ClusterJellyfin's chart that ffpod knows"); n != 1 {
			t.Errorf("%+v: %d keys are unknown, want nodeSelecter alone:\n%s", v, n, report)
		}
	}
}

func TestFromValuesVariants(t *testing.T) {
	cases := map[string]struct {
		v               Values
		values          string
		report, install []string
		without         string
	}{
		"empty": {values: "{}", report: []string{"do not run `helm uninstall jellyfin`"},
			install: []string{"namespace: jellyfin", "claimName: jellyfin-clusterjellyfin-media", "claimName: jellyfin-clusterjellyfin-config", "claimName: jellyfin-shared"}, without: "POSTGRES"},
		"release's own name": {v: Values{Release: "clusterjellyfin"}, values: "{}", install: []string{"claimName: clusterjellyfin-config"}},
		"full name":          {values: "fullnameOverride: films", install: []string{"claimName: films-config"}, report: []string{"fullnameOverride used for the names"}},
		"fresh on NFS": {v: Values{Fresh: true}, values: "jellyfin: {storage: {media: {storageClass: '', nfs: {server: nas, path: /films}}}}",
			install: []string{"server: nas", "path: /films", "claimName: jellyfin-config"}, without: "clusterjellyfin"},
		"fresh, claims": {v: Values{Fresh: true}, values: "jellyfin: {storage: {media: {size: 3Ti, storageClass: nfs-client}, config: {size: 11Gi, storageClass: block}, cache: {size: 70Gi, storageClass: files, accessMode: ReadWriteOnce}}}",
			install: []string{"storage: 3Ti", "storageClassName: nfs-client", "storage: 11Gi", "storageClassName: block", "storage: 70Gi", "storageClassName: files"}},
		"config on NFS": {values: "jellyfin: {storage: {config: {storageClass: '', nfs: {server: 192.168.42.8, path: /volume1/config}}}}",
			report: []string{"config.nfs.path dropped: SQLite, of which Jellyfin", "copy the files into it while no Jellyfin runs"}, install: []string{"claimName: jellyfin-config"}},
		"cache of one node": {values: "jellyfin: {storage: {cache: {accessMode: ReadWriteOnce, size: 60Gi}}}",
			report: []string{"cache.accessMode dropped: workers of several nodes cannot mount a ReadWriteOnce claim"}, install: []string{"claimName: jellyfin-shared", "storage: 60Gi"}},
		"embedded database": {values: "postgresql: {enabled: true, deployment: {storage: {size: 50Gi}}}",
			report: []string{"adopted: component postgres-external with the Secret jellyfin-clusterjellyfin-postgresql", "leave its StatefulSet"}, install: []string{"name: jellyfin-clusterjellyfin-postgresql"}},
		"new database": {v: Values{Fresh: true}, values: "postgresql: {enabled: true, deployment: {storage: {size: 33Gi}}}", install: []string{"kind: StatefulSet", "storage: 33Gi"}},
		"database without a Secret": {values: "postgresql: {external: {host: pg, port: 5432, username: films}}",
			report: []string{"create secret generic jellyfin-database --from-literal=host=pg --from-literal=port=5432 --from-literal=database=jellyfin --from-literal=username=films --from-literal=password=PASSWORD"}, install: []string{"name: jellyfin-database"}},
		"nvidia": {values: "workers: {replicas: 2, gpu: {enabled: true, resource: nvidia.com/gpu, limit: 2}}", install: []string{`nvidia.com/gpu: "2"`, "replicas: 2", "hardwareAcceleration: nvenc"}, report: []string{"runtime-class-nvidia"}},
		"amd":    {values: "workers: {gpu: {enabled: true, resource: amd.com/gpu, limit: 1}}", install: []string{`amd.com/gpu: "1"`}, report: []string{"node's group render"}},
		"no GPU": {values: "workers: {replicas: 3, resources: {limits: {cpu: 6}}, gpu: {enabled: false, resource: nvidia.com/gpu, limit: 1}}", install: []string{"replicas: 3", "cpu: \"6\""}, report: []string{"workers.gpu.resource dropped"}, without: "name: ffpod-nvidia"},
		"balancer": {values: "service: {type: LoadBalancer, annotations: {metallb.universe.tf/address-pool: default}}",
			install: []string{"type: LoadBalancer", "metallb.universe.tf/address-pool: default"}, report: []string{"exposure.loadBalancer.annotations"}},
		"node port": {values: "service: {type: NodePort}", install: []string{"nodePort: 30096"}},
		"traefik": {values: "ingress: {enabled: true, className: '', hosts: [{host: a.b}], annotations: {traefik.ingress.kubernetes.io/router.entrypoints: web}, httpsAnnotations: {traefik.ingress.kubernetes.io/router.entrypoints: websecure}}",
			install: []string{"ingressClassName: traefik", "router.entrypoints: websecure"}, report: []string{"entrypoints dropped: ingress.httpsAnnotations says otherwise", "check exposure.ingress.className"}},
		"both ways in":  {values: "service: {type: NodePort}\ningress: {enabled: true, className: x, hosts: [{host: a.b, paths: [{path: /films}]}]}", report: []string{"service.type dropped: with an ingress", "dropped: path /films"}, install: []string{"kind: Ingress"}},
		"two Jellyfins": {values: "jellyfin: {replicas: 2}", report: []string{"jellyfin.replicas dropped: Jellyfin can be one only"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p, report := fromValues(t, c.v, c.values)
			expect(t, "the report", report, c.report...)
			text := rendered(t, p)
			expect(t, "the rendered install", text, c.install...)
			if c.without != "" && strings.Contains(text, c.without) {
				t.Errorf("%q is there", c.without)
			}
			if c.v.Fresh && strings.Contains(report, "helm uninstall") {
				t.Error("a fresh install warns of an old one")
			}
		})
	}
}

func TestFromValuesRefuses(t *testing.T) {
	for values, want := range map[string]string{
		"a: [":                           "values.yaml: ",
		"postgresql: {}\npostgresql: {}": "values.yaml: ",
		"workers: {replicas: many}":      `values.yaml: workers.replicas: "many"; allowed: a whole number`,
		"workers: {gpu: {enabled: true, resource: voodoo.com/2}}": `workers.gpu.resource: "voodoo.com/2"; allowed: a resource of nvidia.com`,
		"ingress: {enabled: true}":                                "ingress.hosts: names no host",
		"namespace: [a]":                                          "namespace: is a list",
		"namespace: A_B":                                          `--namespace: "A_B"; allowed`,
	} {
		_, _, err := Values{Release: "r", Version: "devel"}.Plan("values.yaml", []byte(values))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v\nwant %s", values, err, want)
		}
	}
}
