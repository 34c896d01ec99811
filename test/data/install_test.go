package data_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/jellyfin"
	"github.com/ffpod/ffpod/test/jellyfin/image"
	cluster "github.com/ffpod/ffpod/test/kubectl"
	"github.com/ffpod/ffpod/test/manifests"
)

// absent are the components for what the local cluster has not got.
var absent = regexp.MustCompile(`(?m)^  - \.\./\.\./components/(gpu-.*|runtime-class-.*|cert-manager)\n`)

// edited is a copy of a production overlay with what the package comment lists, in a
// directory called as the namespace.
func edited(overlay string) string {
	GinkgoHelper()
	from, dir := filepath.Join(manifests.Root(), "kustomize", "overlays", overlay), filepath.Join(GinkgoT().TempDir(), namespace)
	Expect(os.CopyFS(dir, os.DirFS(from))).To(Succeed())
	tree, err := filepath.Rel(dir, filepath.Join(manifests.Root(), "kustomize"))
	Expect(err).NotTo(HaveOccurred())
	rewrite(filepath.Join(dir, "kustomization.yaml"), func(text string) string {
		text = absent.ReplaceAllString(text, "")
		text = strings.ReplaceAll(strings.ReplaceAll(text, "media-nfs", "media-pvc"), "../../", tree+"/")
		if overlay == "production-postgres" {
			text += `images:
  - {name: postgres, newName: ffpod/postgres, newTag: dev}
patches:
  - target: {kind: StatefulSet, name: jellyfin-postgres}
    patch: |
      - {op: test, path: /spec/template/spec/initContainers/0/env/1/name, value: INITDB_OPTIONS}
      - {op: replace, path: /spec/template/spec/initContainers/0/env/1/value, value: "--locale=C.UTF-8"}
`
		}
		return text
	})
	rewrite(filepath.Join(dir, "settings.yaml"), func(text string) string {
		text = regexp.MustCompile(`longhorn(-rwx)?`).ReplaceAllString(text, "standard")
		text = regexp.MustCompile(`hardwareAcceleration: \w+`).ReplaceAllString(text, "hardwareAcceleration: none")
		text = strings.Replace(text, "keep: 7", "keep: 2", 1)
		if !strings.Contains(text, "claim: media") {
			text = strings.Replace(text, "  readOnly: true\n", "  readOnly: true\n  claim: media\n", 1)
		}
		return text
	})
	return dir
}

func rewrite(file string, change func(string) string) {
	GinkgoHelper()
	text, err := os.ReadFile(file)
	Expect(err).NotTo(HaveOccurred())
	changed := change(string(text))
	Expect(changed).NotTo(Equal(string(text)), file)
	Expect(os.WriteFile(file, []byte(changed), 0o600)).To(Succeed())
}

// load makes the server's image under both names and puts it into the cluster.
func load(ctx context.Context) {
	GinkgoHelper()
	archives := []string{filepath.Join("out", "images", "postgres.tar")}
	for _, ref := range []string{image.Jellyfin, image.Postgres} {
		archive, err := image.Make(ctx, manifests.Root(), GinkgoT().TempDir(), ref, map[string]string{"sql": "./test/data/sql"})
		Expect(err).NotTo(HaveOccurred())
		archives = append(archives, archive)
	}
	Expect(cluster.Load(ctx, manifests.Root(), archives...)).To(Succeed())
}

// fill puts films where the library is.
func fill(ctx context.Context) {
	GinkgoHelper()
	library, err := jellyfin.MakeMedia(ctx, cluster.Cache())
	Expect(err).NotTo(HaveOccurred())
	Expect(client.Unpack(ctx, library, "media", "toolbox")).To(Succeed())
}
