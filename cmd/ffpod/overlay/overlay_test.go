package overlay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ffpod/ffpod/kustomize"
)

// rendered writes the plan and renders it without the network, as an air-gapped
// machine does.
func rendered(t *testing.T, p Plan) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "films")
	if _, err := p.Write(dir); err != nil {
		t.Fatal(err)
	}
	all, err := kustomize.Render(dir, p.Version)
	if err != nil {
		text, _ := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
		t.Fatalf("%v\n%s", err, text)
	}
	text, err := all.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func complete(c Choices) Choices {
	c.MediaNFS, c.MediaClaim = "nas.example.org:/export/films", "films"
	c.SharedNFS, c.SharedClass = "[fd00::1]:/export/jellyfin", "longhorn"
	c.DatabaseSecret, c.Host, c.IngressClass, c.Gateway = "team-database", "jellyfin.example.org", "public", "gateways/public"
	return c
}

// Every combination of media, shared storage, database and exposure renders; GPUs
// and the rest, which touch other things, go through their values alongside.
func TestEveryCombination(t *testing.T) {
	t.Setenv("PATH", "") // no git
	gpus := [][]string{{"none"}, {"nvidia"}, {"intel-i915"}, {"intel-xe"}, {"amd"}, {"dra"}, {"nvidia", "intel-i915"}, {"amd", "intel-xe", "dra"}}
	n := 0
	for _, media := range Medias {
		for _, shared := range Shareds {
			for _, database := range Databases {
				for _, exposure := range Exposures {
					c := complete(Default())
					c.Media, c.Shared, c.Database, c.Exposure, c.GPUs = media, shared, database, exposure, gpus[n%len(gpus)]
					c.RuntimeClass = c.GPUs[0] == "nvidia"
					c.Backup, c.Recordings, c.NetworkPolicy = n%2 == 0, n%3 == 0, n%5 == 0
					if n%7 == 0 {
						c.ConfigClass = "block"
					}
					if c.ingress() {
						c.TLSSecret, c.Issuer = []string{"", "mine"}[n%2], []string{"", "letsencrypt", "Issuer/home"}[n/2%3]
					}
					if n%4 == 0 {
						c.WorkerNodes, c.JellyfinNodes = []string{"node-b", "node-c"}, []string{"node-a"}
					}
					c.Scaled, c.SchedulerIssuer = n%3 == 1, []string{"", "Issuer/home-ca", "home-ca"}[n%3]
					c.NamespaceOnly = n%11 == 0 && media != "nfs" && shared != "nfs"
					n++
					if testing.Short() && n%17 != 0 {
						continue // each renders the whole tree
					}
					t.Run(strings.Join([]string{media, shared, database, exposure}, " "), func(t *testing.T) {
						p, err := New(c, []string{"devel", "v1.2.3"}[n%2])
						if err != nil {
							t.Fatal(err)
						}
						p.Vendor = n%13 == 0
						text := rendered(t, p)
						for _, gpu := range c.GPUs {
							if gpu != "none" && !strings.Contains(text, "name: ffpod-"+gpu+"\n") {
								t.Errorf("no class %s", gpu)
							}
						}
						checkPlaces(t, c, text)
					})
				}
			}
		}
	}
}

func checkPlaces(t *testing.T, c Choices, text string) {
	t.Helper()
	has := func(when bool, want string) {
		t.Helper()
		if strings.Contains(text, want) != when {
			t.Errorf("%q: want it there: %v", want, when)
		}
	}
	has(c.Media == "nfs", "path: /export/films")
	has(c.Media == "claim", "claimName: films")
	has(c.Shared == "nfs", "server: fd00::1")
	has(c.Shared == "class", "storageClassName: longhorn")
	has(c.Database == "postgres", "kind: StatefulSet")
	has(c.Database == "postgres-cnpg", "kind: Cluster\n")
	has(c.Database == "postgres-external", "name: team-database")
	has(c.ingress(), "kind: Ingress\n")
	has(c.tls(), "\n  tls:\n  - hosts:")
	has(c.Issuer != "" && c.ingress(), "  name: jellyfin\n  namespace: jellyfin\nspec:\n  dnsNames:")
	has(c.SchedulerIssuer != "", "secretName: ffpod-scheduler-tls\n")
	has(c.pinned(), "- node-b\n")
	has(c.pinned(), "- node-a\n")
	has(c.Exposure == "gateway", "kind: HTTPRoute")
	has(c.Exposure == "loadbalancer", "type: LoadBalancer")
	has(c.Exposure == "nodeport", "nodePort: 30096")
	has(c.Backup, "name: jellyfin-backup")
	has(c.Recordings, "name: jellyfin-recordings")
	has(c.NetworkPolicy, "port: 443")
	has(c.ConfigClass != "", "storageClassName: block")
	has(!c.NamespaceOnly, "kind: Namespace\n")
	has(!c.NamespaceOnly, "kind: ValidatingAdmissionPolicy\n")
	has(c.RuntimeClass, "runtimeClassName: nvidia")
	has(false, "kind: Settings")
}

func TestCheckRefuses(t *testing.T) {
	cases := map[string]struct {
		change func(*Choices)
		want   string
	}{
		"namespace":   {func(c *Choices) { c.Namespace = "A" }, "--namespace: "},
		"gpu":         {func(c *Choices) { c.GPUs = []string{"voodoo"} }, `--gpu: "voodoo"; allowed: none, nvidia`},
		"gpu twice":   {func(c *Choices) { c.GPUs = []string{"amd", "amd"} }, "--gpu: amd is given twice"},
		"none and":    {func(c *Choices) { c.GPUs = []string{"none", "amd"} }, "--gpu: none goes with no other"},
		"class":       {func(c *Choices) { c.RuntimeClass = true }, "--runtime-class-nvidia: is for --gpu nvidia"},
		"media":       {func(c *Choices) { c.Media = "nfs" }, `--media-nfs: ""; allowed: SERVER:/PATH`},
		"claim":       {func(c *Choices) { c.Media = "claim" }, "--media-claim: is needed"},
		"shared":      {func(c *Choices) { c.Shared = "class" }, "--shared-class: is needed"},
		"not admin":   {func(c *Choices) { c.NamespaceOnly, c.Media, c.MediaNFS = true, "nfs", "a:/b" }, "--namespace-only: an NFS export needs a PersistentVolume"},
		"database":    {func(c *Choices) { c.Database = "mysql" }, `--database: "mysql"; allowed: sqlite, postgres`},
		"secret":      {func(c *Choices) { c.Database = "postgres-external" }, "--database-secret: is needed"},
		"host":        {func(c *Choices) { c.Exposure = "ingress-nginx" }, "--host: is needed for --exposure ingress-nginx"},
		"gateway":     {func(c *Choices) { c.Exposure, c.Host, c.Gateway = "gateway", "a.b", "public" }, `--gateway: "public"; allowed: NAMESPACE/NAME`},
		"half pinned": {func(c *Choices) { c.WorkerNodes = []string{"a"} }, "--worker-nodes: and --jellyfin-nodes go together"},
		"issuer":      {func(c *Choices) { c.SchedulerIssuer = "Issuer/" }, `--scheduler-issuer: "Issuer/"; allowed: NAME`},
		"tls nowhere": {func(c *Choices) { c.TLSSecret = "x" }, "--tls-secret: is for an ingress"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			choices := Default()
			c.change(&choices)
			if _, err := New(choices, "devel"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
	c := Default()
	c.User = 0
	p, err := New(c, "devel")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Files(); err == nil || !strings.Contains(err.Error(), "identity.user: 0; allowed") {
		t.Errorf("%v", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "settings.yaml")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := New(Default(), "devel")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(dir); err == nil || !strings.Contains(err.Error(), mine+" exists and is left as it is") {
		t.Errorf("%v", err)
	}
	if text, _ := os.ReadFile(mine); string(text) != "mine" {
		t.Error("it was overwritten")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// What plain kustomize would fetch is this release's tree.
func TestReferences(t *testing.T) {
	for version, want := range map[string]string{"v1.2.3": "?ref=v1.2.3", "devel": "?ref=main"} {
		p, err := New(Default(), version)
		if err != nil {
			t.Fatal(err)
		}
		files, err := p.Files()
		if err != nil {
			t.Fatal(err)
		}
		var k struct {
			Resources, Components []string
			Images                []struct{ NewTag string }
		}
		if err := yaml.Unmarshal(files["kustomization.yaml"], &k); err != nil {
			t.Fatal(err)
		}
		for _, ref := range append(k.Resources, k.Components...) {
			if !strings.HasSuffix(ref, ".yaml") && (!strings.HasSuffix(ref, want) || !strings.HasPrefix(ref, "https://github.com/ffpod/ffpod//kustomize/")) {
				t.Errorf("%s", ref)
			}
		}
		if version == "v1.2.3" && (len(k.Images) != 2 || k.Images[0].NewTag != version) {
			t.Errorf("images %v", k.Images)
		}
	}
}
