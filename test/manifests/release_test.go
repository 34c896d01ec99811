package manifests

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A new ffpod moves the scheduler and the workers and leaves Jellyfin's pod as it
// is, byte for byte: a changed template would restart it, and end what people
// watch. Moving the shim is a step of its own, which does restart it.
func TestReleaseLeavesJellyfin(t *testing.T) {
	const base = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [ROOT/"
	for _, name := range []string{"minimal", "production-sqlite", "production-postgres"} {
		t.Run(name, func(t *testing.T) {
			with := func(images string) map[string]string {
				all, err := RenderText(base + trees[name] + "]\n" + images)
				if err != nil {
					t.Fatal(err)
				}
				return templates(t, all)
			}
			before := with("")
			released := with("images: [{name: ffpod/ffpod, newTag: v9.9.9}]\n")
			if diff := cmp.Diff(before["Deployment/jellyfin"], released["Deployment/jellyfin"]); diff != "" {
				t.Errorf("Jellyfin would restart (-before +after):\n%s", diff)
			}
			for _, moved := range []string{"Deployment/ffpod-scheduler", "Deployment/ffpod-cpu"} {
				if before[moved] == released[moved] {
					t.Errorf("%s stays on the old release", moved)
				}
			}
			pinned := with("images: [{name: ffpod/ffpod, newTag: v9.9.9, digest: \"sha256:" +
				"0123456789012345678901234567890123456789012345678901234567890123\"}]\n")
			if diff := cmp.Diff(before["Deployment/jellyfin"], pinned["Deployment/jellyfin"]); diff != "" {
				t.Errorf("Jellyfin would restart with digests (-before +after):\n%s", diff)
			}
			if shim := with("images: [{name: ffpod/shim, newTag: v9.9.9}]\n"); shim["Deployment/jellyfin"] == before["Deployment/jellyfin"] {
				t.Error("a new shim does not reach Jellyfin")
			}
		})
	}
}

// templates are the pod templates of what runs pods, as JSON.
func templates(t *testing.T, all []*unstructured.Unstructured) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, o := range all {
		template, ok, err := unstructured.NestedFieldNoCopy(o.Object, "spec", "template")
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			text, err := json.Marshal(template)
			if err != nil {
				t.Fatal(err)
			}
			out[o.GetKind()+"/"+o.GetName()] = string(text)
		}
	}
	if out["Deployment/jellyfin"] == "" {
		t.Fatal("no Deployment jellyfin")
	}
	return out
}
