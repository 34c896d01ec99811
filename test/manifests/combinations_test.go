package manifests

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// first and last say where in an overlay components stand that do not stand
// between: the order that kustomize/README.md asks for.
var (
	first = []string{"class-*", "gpu-*", "runtime-class-*", "inject-supervisor", "jellyfin-workers", "autoscale", "scaled", "keda", "kueue", "priority", "media-*", "shared-*", "recordings", "loadbalancer", "nodeport", "ingress", "ingress-*"}
	last  = []string{"backup", "backup-postgres", "rwo", "storage-class", "settings"}
)

// ground is what every combination stands on.
var ground = []string{"class-cpu", "jellyfin-workers", "settings"}

// exclude are pairs that cannot be meant together, and what the build then says.
var exclude = map[[2]string]string{
	{"media-new", "media-nfs"}:             "only-one-of-media-new-media-nfs-media-pvc",
	{"media-new", "media-pvc"}:             "only-one-of-media-new-media-nfs-media-pvc",
	{"media-nfs", "media-pvc"}:             "only-one-of-media-new-media-nfs-media-pvc",
	{"shared-nfs", "shared-rwx"}:           "only-one-of-shared-nfs-shared-rwx",
	{"loadbalancer", "nodeport"}:           "only-one-of-loadbalancer-nodeport",
	{"postgres", "postgres-external"}:      "only-one-of-postgres-postgres-external-postgres-cnpg",
	{"postgres", "postgres-cnpg"}:          "only-one-of-postgres-postgres-external-postgres-cnpg",
	{"postgres-cnpg", "postgres-external"}: "only-one-of-postgres-postgres-external-postgres-cnpg",
	{"backup", "backup-postgres"}:          "may not add resource with an already registered id", // the one contains the other
	{"demo", "jellyfin-workers"}:           "only-one-of-demo-jellyfin-workers",                  // both mount a library at /media
}

// needs are components that make no sense without one of some others, and what
// the build then says.
var needs = map[string]struct {
	oneOf []string
	why   string
}{
	"backup-postgres": {[]string{"jellyfin-postgres", "postgres", "postgres-external", "postgres-cnpg"}, "POSTGRES_HOST].valueFrom` is missing"},
}

// Every component alone, and every two of them, render with Jellyfin to
// something that holds together, or are refused with the reason.
func TestCombinations(t *testing.T) {
	files, settings, all := copied(t), read(t, "test/manifests/testdata/all/settings.yaml"), components(t)
	if len(all) < 20 {
		t.Fatalf("found only %v", all)
	}
	try := func(t *testing.T, chosen ...string) {
		t.Helper()
		chosen = inOrder(slices.Concat(ground, chosen))
		objects, err := files.put(t, overlayOf(chosen), settings)
		if want := reason(chosen); want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %v; want it refused, saying %q", chosen, err, want)
			}
			return
		}
		if err != nil {
			t.Errorf("%v: %v", chosen, err)
			return
		}
		if checkJellyfin(t, objects) == 0 {
			t.Error("there are no workers")
		}
		if t.Failed() {
			t.Fatalf("of %v", chosen)
		}
	}
	for i, one := range all {
		t.Run(one, func(t *testing.T) { try(t, one) })
		for _, two := range all[:i] {
			t.Run(one+"+"+two, func(t *testing.T) {
				if testing.Short() && (i+len(two))%16 != 0 && reason([]string{one, two}) == "" {
					t.Skip("a few will do")
				}
				try(t, one, two)
			})
		}
	}
}

// reason is why the components cannot be together, empty if they can.
func reason(chosen []string) string {
	if i := slices.IndexFunc(chosen, func(c string) bool { return refused["kustomize/components/"+c] != "" }); i >= 0 {
		return refused["kustomize/components/"+chosen[i]]
	}
	for _, one := range chosen {
		for _, two := range chosen {
			if why := exclude[[2]string{one, two}]; why != "" {
				return why
			}
		}
	}
	for _, one := range chosen {
		if n := needs[one]; n.why != "" && !slices.ContainsFunc(chosen, func(c string) bool { return slices.Contains(n.oneOf, c) }) {
			return n.why
		}
	}
	return ""
}

func components(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(Root(), "kustomize", "components", "*", "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	return names
}

// rank is negative for what comes first, positive for what comes last.
func rank(name string) int {
	is := func(pattern string) bool {
		ok, _ := filepath.Match(pattern, name)
		return ok
	}
	if i := slices.IndexFunc(first, is); i >= 0 {
		return i - len(first)
	}
	return slices.IndexFunc(last, is) + 1
}

func inOrder(names []string) []string {
	out := slices.Clone(names)
	slices.SortFunc(out, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(out)
}

func overlayOf(components []string) string {
	text := `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: tried
resources: [settings.yaml, ../../kustomize/base, ../../kustomize/jellyfin]
components:
`
	for _, c := range components {
		text += fmt.Sprintf("  - ../../kustomize/components/%s\n", c)
	}
	return text
}

// A wrong order that would render something that runs and fails later is
// refused.
func TestWrongOrderIsRefused(t *testing.T) {
	files, settings := copied(t), read(t, "test/manifests/testdata/all/settings.yaml")
	for want, order := range map[string][]string{
		"metadata.labels.[app.kubernetes.io/part-of]":                          {"jellyfin-workers", "class-cpu", "settings"},
		"metadata.annotations.[ffpod.dev/claim.shared]` is missing":            {"class-cpu", "recordings", "jellyfin-workers", "settings"},
		`metadata.annotations.[ffpod.dev/claim.media]\" in replacement target`: {"class-cpu", "media-pvc", "jellyfin-workers", "settings"},
	} {
		if _, err := files.put(t, overlayOf(order), settings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want it refused, saying %q", order, err, want)
		}
	}
}

// The order of an overlay of ours is the one that combinations are tried in.
func TestOverlaysListComponentsInOrder(t *testing.T) {
	for name, dir := range trees {
		var listed []string
		for _, line := range strings.Split(read(t, dir+"/kustomization.yaml"), "\n") {
			if _, c, ok := strings.Cut(line, "/components/"); ok && strings.HasPrefix(strings.TrimSpace(line), "- ") {
				listed = append(listed, strings.TrimSpace(c))
			}
		}
		for i := range listed[:max(len(listed)-1, 0)] {
			if rank(listed[i]) > rank(listed[i+1]) {
				t.Errorf("%s lists %s before %s", name, listed[i], listed[i+1])
			}
		}
	}
}
