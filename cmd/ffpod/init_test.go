package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/ffpod/ffpod/cmd/ffpod/overlay"
)

func TestInitAndRender(t *testing.T) {
	t.Setenv("PATH", "") // no git, no kustomize
	dir := filepath.Join(t.TempDir(), "films")
	code, stdout, stderr := call(nil, "init", "--namespace", "films", "--gpu", "nvidia,amd", "--runtime-class-nvidia", "--media", "nfs", "--media-nfs", "nas:/films",
		"--exposure", "ingress-traefik", "--host", "films.example.org", "--issuer", "letsencrypt", "--groups", "104", "--registry", "registry.example.org/ffpod", dir)
	if code != 0 || stderr != "" {
		t.Fatalf("%d %s", code, stderr)
	}
	for _, name := range []string{"kustomization.yaml", "settings.yaml", "namespace.yaml", "README.md"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil || !strings.Contains(stdout, "wrote "+filepath.Join(dir, name)) {
			t.Errorf("%s: %v, %s", name, err, stdout)
		}
	}
	code, manifests, stderr := call(nil, "render", dir)
	if code != 0 || stderr != "" {
		t.Fatalf("%d %s", code, stderr)
	}
	for _, want := range []string{"namespace: films", "path: /films", "host: films.example.org", "runtimeClassName: nvidia", "name: ffpod-amd", "- 104", "image: registry.example.org/ffpod/ffpod:"} {
		if !strings.Contains(manifests, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if code, _, stderr := call(nil, "init", dir); code != 1 || !strings.Contains(stderr, "exists and is left as it is") {
		t.Errorf("again: %d %s", code, stderr)
	}
	file := filepath.Join(dir, "settings.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(text, []byte("user: 1000"), []byte("user: root"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := call(nil, "render", dir); code != 1 || stdout != "" || !strings.Contains(stderr, `settings.yaml:12: identity.user: "root" is a text; it takes a whole number`) {
		t.Errorf("bad setting: %d %q %s", code, stdout, stderr)
	}
}

func TestInitFromValues(t *testing.T) {
	dir := t.TempDir()
	values := filepath.Join(dir, "values.yaml")
	if err := os.WriteFile(values, []byte("namespace: films\nworkers: {privileged: true}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := call(nil, "init", "--from-values", values, "--release", "home", "--vendor", filepath.Join(dir, "films"))
	if code != 0 || !strings.Contains(stdout, "workers.privileged  dropped:") || !strings.Contains(stdout, "do not run `helm uninstall home`") {
		t.Fatalf("%d %s %s", code, stdout, stderr)
	}
	if code, manifests, stderr := call(nil, "render", filepath.Join(dir, "films")); code != 0 || !strings.Contains(manifests, "claimName: home-clusterjellyfin-config") {
		t.Errorf("%d %s", code, stderr)
	}
	if code, _, stderr := call(nil, "init", "--from-values", values, "--gpu", "amd", filepath.Join(dir, "x")); code != 2 || !strings.Contains(stderr, "--gpu goes not with --from-values") {
		t.Errorf("%d %s", code, stderr)
	}
}

func TestInitRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	code, _, stderr := call(nil, "init", "--media", "tape", "--database", "oracle", dir)
	if code != 2 || !strings.Contains(stderr, `--media: "tape"; allowed: new, nfs, claim; --database: "oracle"`) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("%d %s", code, stderr)
	}
	if code, _, stderr := call(nil, "init", "--user", "0", dir); code != 1 || !strings.Contains(stderr, "identity.user: 0; allowed") {
		t.Errorf("%d %s", code, stderr)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it made the directory")
	}
	if code, _, stderr := call(nil, "render", "nosuch"); code != 1 || !strings.Contains(stderr, "there are demo, ") {
		t.Errorf("%d %s", code, stderr)
	}
}

// Questions are asked for what no flag has said; a wrong answer is asked again.
func TestAsk(t *testing.T) {
	c := newInit()
	if err := c.ParseFlags([]string{"--database", "postgres"}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c.SetErr(&out)
	choices := overlay.Default()
	answers := "films\nvoodoo\nnvidia\nmaybe\nyes\nnode-b, node-c\nnode-a\nyes\nnfs\nnas:/films\none-node\ningress-nginx\nfilms.example.org\nfilms-tls\nroot\n1001\n\n"
	if err := ask(c, strings.NewReader(answers), &choices); err != nil {
		t.Fatalf("%v after\n%s", err, &out)
	}
	if choices.Namespace != "films" || choices.GPUs[0] != "nvidia" || !choices.RuntimeClass || choices.MediaNFS != "nas:/films" || choices.Shared != "one-node" ||
		choices.Host != "films.example.org" || choices.TLSSecret != "films-tls" || choices.User != 1001 || !slices.Equal(choices.WorkerNodes, []string{"node-b", "node-c"}) || !slices.Equal(choices.JellyfinNodes, []string{"node-a"}) || !choices.Scaled || choices.Group != 1000 {
		t.Errorf("%+v", choices)
	}
	if strings.Contains(out.String(), "Database") || !strings.Contains(out.String(), `"voodoo"; allowed: none, nvidia`) {
		t.Errorf("asked\n%s", &out)
	}
	if err := choices.Check(); err != nil {
		t.Error(err)
	}
	if err := ask(&cobra.Command{}, strings.NewReader("films\n"), &choices); err == nil || !strings.Contains(err.Error(), "the input ended at the question for --gpu; nothing is written") {
		t.Errorf("%v", err)
	}
}

// Every Secret that the overlay needs and does not make is told with its command,
// on the terminal and in the README; every other one is not.
func TestInitSecrets(t *testing.T) {
	for name, c := range map[string]struct {
		flags      []string
		want, none []string
	}{
		"postgres": {[]string{"--database", "postgres"}, []string{"kubectl -n jellyfin create secret generic jellyfin-database --from-literal=host=jellyfin-postgres"}, []string{"secret tls"}},
		"external, own certificate": {[]string{"-n", "films", "--database", "postgres-external", "--database-secret", "team-db", "--exposure", "ingress-nginx", "--host", "a.example.org", "--tls-secret", "mine"},
			[]string{"kubectl -n films create secret generic team-db --from-literal=host=HOST", "kubectl -n films create secret tls mine --cert="}, nil},
		"made by others": {[]string{"--database", "postgres-cnpg", "--exposure", "ingress-nginx", "--host", "a.example.org", "--tls-secret", "mine", "--issuer", "home", "--scheduler-issuer", "Issuer/ca"}, nil, []string{"create secret"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "films")
			code, stdout, stderr := call(nil, append(append([]string{"init"}, c.flags...), dir)...)
			if code != 0 {
				t.Fatalf("%d %s", code, stderr)
			}
			readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
			if err != nil {
				t.Fatal(err)
			}
			for where, text := range map[string]string{"terminal": stdout, "README": string(readme)} {
				for _, want := range c.want {
					if !strings.Contains(text, want) {
						t.Errorf("%s: %q is missing in\n%s", where, want, text)
					}
				}
				for _, none := range c.none {
					if strings.Contains(text, none) {
						t.Errorf("%s: %q in\n%s", where, none, text)
					}
				}
			}
			if len(c.want) > 0 && !strings.Contains(stdout, "first: kubectl apply -f "+filepath.Join(dir, "namespace.yaml")) {
				t.Errorf("no namespace before the Secret:\n%s", stdout)
			}
		})
	}
}
