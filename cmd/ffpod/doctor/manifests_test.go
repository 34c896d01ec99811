package doctor

import (
	"bytes"
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
)

// TestManifests examines the overlays that the repository ships, as if a cluster
// ran them: what they render must be healthy in the doctor's eyes.
func TestManifests(t *testing.T) {
	for _, overlay := range []string{"minimal", "production-sqlite", "production-postgres", "demo"} {
		t.Run(overlay, func(t *testing.T) {
			x := healthy()
			p := x.patient(t)
			namespace, objects := rendered(t, overlay)
			objects = append(objects, x.nodes[0]) // minimal is for one node
			if overlay == "production-postgres" { // its library is a claim that is there before
				media := *x.claims["jellyfin-media"]
				media.Name, media.Namespace = "media", namespace
				objects = append(objects, &media)
			}
			p.Namespace, p.Client = namespace, fake.NewSimpleClientset(objects...)
			for _, f := range examine(t, p, "pods", "claims", "callers", "paths", "identity", "ingress", "images").Findings {
				if f.Check != "images" && (f.Level == Fail || f.Level == Warn) || f.Check == "images" && overlay != "demo" && f.Level != OK {
					t.Errorf("%+v", f)
				}
			}
			if overlay != "demo" {
				if _, there := p.facts.jellyfinCaller(); !there {
					t.Error("Jellyfin was not found")
				}
			}
			if len(p.facts.classes) == 0 || p.facts.scheduler == nil || len(p.facts.callers) == 0 {
				t.Errorf("parts are missing: %d classes, %d callers", len(p.facts.classes), len(p.facts.callers))
			}
		})
	}
}

// rendered reads a golden file of test/manifests and adds what controllers would:
// running pods, bound claims.
func rendered(t *testing.T, overlay string) (namespace string, objects []runtime.Object) {
	t.Helper()
	b, err := os.ReadFile("../../../test/manifests/testdata/golden/" + overlay + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range bytes.Split(b, []byte("\n---\n")) {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			if strings.Contains(err.Error(), "no kind") {
				continue // of a CRD
			}
			t.Fatalf("%v in %s", err, doc)
		}
		switch o := o.(type) {
		case *appsv1.Deployment:
			namespace = o.Namespace
			if o.Spec.Replicas == nil || *o.Spec.Replicas > 0 {
				objects = append(objects, placed(o))
			}
		case *corev1.PersistentVolumeClaim:
			o.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, AccessModes: o.Spec.AccessModes}
		}
		objects = append(objects, o)
	}
	return namespace, objects
}

func placed(d *appsv1.Deployment) *corev1.Pod {
	p := running(d, "n1")
	p.Namespace = d.Namespace
	return p
}
