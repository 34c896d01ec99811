package overlay

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/kustomize"
	"github.com/ffpod/ffpod/kustomize/settings"
)

// Plan is a directory to be written.
type Plan struct {
	Choices  Choices
	Settings settings.Settings
	// Version is ffpod's; its release is what remote references name.
	Version string
	// Vendor puts a copy of the tree into the directory, instead of references to
	// the repository.
	Vendor bool
	// Replicas are of Deployments that exist in the tree.
	Replicas map[string]int64
	Patches  []Patch
	// Secrets are those that the install needs and nothing in it makes.
	Secrets []Secret
	// Notes are for the reader of its README, one each.
	Notes []string
}

// Patch is one entry of the kustomization's patches, as YAML; Why stands above it.
type Patch struct{ Why, Text string }

// New is the plan of choices.
func New(c Choices, version string) (Plan, error) {
	if err := c.Check(); err != nil {
		return Plan{}, err
	}
	p := Plan{Choices: c, Settings: c.Settings(), Version: version}
	p.Notes, p.Secrets = c.notes(), c.secrets()
	return p, nil
}

func (c Choices) notes() []string {
	var out []string
	add := func(when bool, text string) {
		if when {
			out = append(out, text)
		}
	}
	groups := slices.ContainsFunc(c.GPUs, func(g string) bool { return strings.HasPrefix(g, "intel") || g == "amd" || g == "dra" })
	add(groups && len(c.Groups) == 0, "The GPU's device belongs to the node's group render: set identity.supplementalGroups to what `stat -c %g /dev/dri/renderD128` says on such a node.")
	add(len(c.GPUs) > 1, "Jellyfin asks for one kind of hardware, "+c.acceleration()+" (jellyfin.hardwareAcceleration): the other classes get only what runs on any.")
	add(c.Exposure == "gateway" || c.ingress(), "Set jellyfin.knownProxies to the addresses of the controller's pods, else Jellyfin takes all clients for one.")
	add(c.Shared == "default", "The default StorageClass must have ReadWriteMany for the claim jellyfin-shared (`ffpod doctor` tells). If not: --shared class, nfs or, on a cluster of one node, one-node.")
	add(c.Database != "sqlite", "PostgreSQL is an experiment of Jellyfin's upstream: read the head of components/jellyfin-postgres.")
	add(c.SchedulerIssuer != "", "The scheduler is ready when cert-manager has made its certificate: "+c.SchedulerIssuer+" must be a private CA that writes ca.crt (kind CA, Vault), for public ones sign no such name.")
	add(c.Scaled, "The overlay says no number of workers: a new Deployment has one until a HorizontalPodAutoscaler, KEDA or `kubectl scale` says another.")
	add(c.NamespaceOnly, "A cluster admin applies the admission policies once: `ffpod render cluster | kubectl apply --server-side -f -`, makes the namespace, and binds the ClusterRole ffpod-token-review to the ServiceAccount ffpod-scheduler.")
	return out
}

// Files are the directory's, by name.
func (p Plan) Files() (map[string][]byte, error) {
	text, err := p.Settings.Marshal()
	if err != nil {
		return nil, err
	}
	// What is written must be what ffpod render takes; flags and values may be wrong.
	if _, err := settings.Parse("settings.yaml", text); err != nil {
		return nil, fmt.Errorf("these choices make no valid settings: %w", err)
	}
	files := map[string][]byte{
		"settings.yaml":      text,
		"kustomization.yaml": p.kustomization(),
		"README.md":          p.readme(),
	}
	if !p.Choices.NamespaceOnly {
		for name, text := range map[string]string{"namespace.yaml": namespace, "token-review.yaml": tokenReview} {
			files[name] = []byte(strings.ReplaceAll(text, "NAMESPACE", p.Choices.Namespace))
		}
	}
	if p.Vendor {
		err = fs.WalkDir(kustomize.Tree(), ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasPrefix(name, "overlays/") {
				return err
			}
			files["ffpod/"+name], err = fs.ReadFile(kustomize.Tree(), name)
			return err
		})
	}
	return files, err
}

const namespace = `apiVersion: v1
kind: Namespace
metadata:
  name: NAMESPACE
  labels:
    app.kubernetes.io/part-of: ffpod
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
    # Not deleted with the tree, since its claims would go with it: take the
    # label off first (policy ffpod-keep).
    ffpod.dev/keep: "true"
  annotations:
    argocd.argoproj.io/sync-options: Prune=false,Delete=false
    kustomize.toolkit.fluxcd.io/prune: disabled
`

const tokenReview = `# Cluster-scoped, so its name carries the namespace.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: NAMESPACE-ffpod-token-review
  labels:
    app.kubernetes.io/name: ffpod
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: ffpod-token-review
subjects:
  - kind: ServiceAccount
    name: ffpod-scheduler
`

func (p Plan) reference(path string) string {
	if p.Vendor {
		return "ffpod/" + path
	}
	return kustomize.Reference(path, kustomize.Release(p.Version))
}

func (p Plan) kustomization() []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Jellyfin with its workers, as `ffpod init` wrote it; yours from now on. Everything")
	line("# that is a number or a name is in settings.yaml. The order of the components counts.")
	line("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: %s\nresources:", p.Choices.Namespace)
	if !p.Choices.NamespaceOnly {
		line("  - namespace.yaml\n  - token-review.yaml")
	}
	line("  - settings.yaml")
	for _, name := range p.Choices.Resources() {
		line("  - %s", p.reference(name))
	}
	line("components:")
	for _, name := range p.Choices.Components() {
		line("  - %s", p.reference("components/"+name))
	}
	p.images(line)
	if len(p.Replicas) > 0 {
		line("replicas:")
		for _, name := range sortedKeys(p.Replicas) {
			line("  - {name: %s, count: %d}", name, p.Replicas[name])
		}
	}
	if len(p.Patches) > 0 {
		line("patches:")
		for _, patch := range p.Patches {
			line("  # %s\n%s", patch.Why, indent(patch.Text, "  "))
		}
	}
	return b.Bytes()
}

func (p Plan) images(line func(string, ...any)) {
	release := kustomize.Release(p.Version)
	if release == "main" && p.Choices.Registry == "" {
		return // whoever builds from source says where the images are
	}
	tag, prefix := release, p.Choices.Registry
	if release == "main" {
		tag = "dev"
	}
	if prefix == "" {
		prefix = "ffpod"
	}
	line("images:")
	line("  - {name: ffpod/ffpod, newName: %s/ffpod, newTag: %s}", strings.TrimSuffix(prefix, "/"), tag)
	line("  # The shim in Jellyfin's pod, with a line of its own: moving it restarts Jellyfin.")
	line("  - {name: ffpod/shim, newName: %s/ffpod, newTag: %s}", strings.TrimSuffix(prefix, "/"), tag)
}

func (p Plan) readme() []byte {
	var b bytes.Buffer
	n := p.Choices.Namespace
	fmt.Fprintf(&b, "# Jellyfin in namespace %s\n\nWritten by `ffpod init`. Keep the directory in git; change settings.yaml, then:\n\n", n)
	fmt.Fprintf(&b, "    ffpod render . | kubectl apply --server-side -f -\n\nThe settings are checked first, and nothing is fetched. The same with kustomize alone:\n\n")
	fmt.Fprintf(&b, "    kubectl apply --server-side -k .\n\n")
	if p.Vendor {
		fmt.Fprintf(&b, "ffpod/ is a copy of the manifests of ffpod %s: to move to another release, let that release's `ffpod init --vendor` write one elsewhere, and replace it.\n\n", p.Version)
	} else {
		fmt.Fprintf(&b, "To move to another release, change `?ref=` and the tags in kustomization.yaml, and use that release's ffpod.\n\n")
	}
	fmt.Fprintf(&b, "Then:\n\n    kubectl -n %s rollout status deployment/ffpod-scheduler deployment/jellyfin\n    ffpod doctor -n %s\n    ffpod test -n %s\n", n, n, n)
	if p.Choices.Exposure == "none" {
		fmt.Fprintf(&b, "    kubectl -n %s port-forward service/jellyfin 8096     # http://localhost:8096\n", n)
	}
	if len(p.Secrets) > 0 {
		fmt.Fprintf(&b, "\n## Secrets\n\nNo password and no key is in a file here. Before the first apply")
		if !p.Choices.NamespaceOnly {
			fmt.Fprintf(&b, ", and after `kubectl apply -f namespace.yaml`")
		}
		fmt.Fprintf(&b, ":\n")
		for _, s := range p.Secrets {
			fmt.Fprintf(&b, "\n%s:\n\n    %s\n", s.For, s.Command)
		}
	}
	if len(p.Notes) > 0 {
		fmt.Fprintf(&b, "\n## To do\n\n")
		for _, note := range p.Notes {
			fmt.Fprintf(&b, "- %s\n", note)
		}
	}
	fmt.Fprintf(&b, "\n## To remove it\n\n    ffpod render . | kubectl delete -f -\n\nClaims and the namespace stay (policy ffpod-keep); take the label ffpod.dev/keep off what should go.\n")
	if !p.Choices.NamespaceOnly {
		fmt.Fprintf(&b, "The admission policies go too: if another install of this cluster relies on them, leave `cluster` and token-review.yaml out of one of the two.\n")
	}
	return b.Bytes()
}

// Write makes the directory. It refuses to touch one that holds any of the files,
// and leaves nothing of its own behind when it fails.
func (p Plan) Write(dir string) ([]string, error) {
	files, err := p.Files()
	if err != nil {
		return nil, err
	}
	names := sortedKeys(files)
	for _, name := range append([]string{"kustomization.yml", "Kustomization"}, names...) {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("%s exists and is left as it is; give a directory that has none, or remove it", filepath.Join(dir, name))
		}
	}
	var written []string
	for _, name := range names {
		file := filepath.Join(dir, filepath.FromSlash(name))
		err := os.MkdirAll(filepath.Dir(file), 0o755)
		if err == nil {
			err = create(file, files[name])
		}
		if err != nil {
			for _, file := range written {
				_ = os.Remove(file) // what failed is told
			}
			return nil, fmt.Errorf("write the overlay: %w", err)
		}
		written = append(written, file)
	}
	return written, nil
}

// create fails if the file exists, also if it came a moment ago.
func create(file string, text []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		_ = os.Remove(file)
	}
	return err
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by)
}
