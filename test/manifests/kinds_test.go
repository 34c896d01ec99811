package manifests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"sigs.k8s.io/yaml"
)

// Every object of every tree is of a kind that Kubernetes, or a CRD in
// testdata/crds, knows, and so is each of its fields, with its type. What a CRD
// says in CEL is not evaluated.
func TestEveryFieldIsKnown(t *testing.T) {
	crds := customKinds(t)
	for name, dir := range trees {
		t.Run(name, func(t *testing.T) {
			for _, o := range objects(t, dir) {
				for _, problem := range unknown(o, crds) {
					t.Errorf("%s %s: %s", o.GetKind(), o.GetName(), problem)
				}
			}
		})
	}
}

// The test above can fail.
func TestUnknownFieldsAreFound(t *testing.T) {
	crds := customKinds(t)
	tests := map[string]struct{ object, want string }{
		"a number as a string": {"{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 1, nodePort: '2'}]}}", "int32"},
		"an unknown field":     {"{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {prots: []}}", `unknown field "spec.prots"`},
		"an unknown kind":      {"{apiVersion: example.org/v1, kind: Film, metadata: {name: f}}", "testdata/crds has no CRD"},
		"an old version":       {"{apiVersion: cert-manager.io/v1alpha2, kind: Certificate, metadata: {name: c}}", "testdata/crds has no CRD"},
		"in a CRD, an unknown field": {
			"{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: c}, spec: {secretName: s, issuerRef: {name: i, knid: Issuer}}}", "knid"},
		"in a CRD, a field that is missing": {
			"{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: c}, spec: {issuerRef: {name: i}}}", "spec.secretName"},
		"in a CRD, a bad value": {
			"{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {rules: [{timeouts: {request: 1 hour}}]}}", "request"},
		"in a CRD, its metadata": {
			"{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, label: {}}, spec: {}}", `unknown field "label"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(tt.object), o); err != nil {
				t.Fatal(err)
			}
			if got := unknown(o, crds); len(got) == 0 || !strings.Contains(strings.Join(got, "; "), tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// unknown says what is wrong with an object, one line each.
func unknown(o *unstructured.Unstructured, crds map[schema.GroupVersionKind]*spec.Schema) []string {
	if into, err := scheme.Scheme.New(o.GroupVersionKind()); err == nil {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, into, true); err != nil {
			return []string{err.Error()}
		}
		return nil
	}
	known, ok := crds[o.GroupVersionKind()]
	if !ok {
		return []string{fmt.Sprintf("%s is no kind of Kubernetes's own, and testdata/crds has no CRD for it", o.GroupVersionKind())}
	}
	var problems []string
	metadata, _, _ := unstructured.NestedMap(o.Object, "metadata")
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(metadata, &metav1.ObjectMeta{}, true); err != nil {
		problems = append(problems, "metadata: "+err.Error())
	}
	// The validator wants what a JSON decoder makes.
	text, err := json.Marshal(o.Object)
	if err != nil {
		return append(problems, err.Error())
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		return append(problems, err.Error())
	}
	for _, err := range validate.NewSchemaValidator(known, nil, "", strfmt.Default).Validate(plain).Errors {
		problems = append(problems, err.Error())
	}
	return problems
}

// customKinds reads testdata/crds.
func customKinds(t *testing.T) map[schema.GroupVersionKind]*spec.Schema {
	t.Helper()
	files, err := filepath.Glob("testdata/crds/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/crds: %v, %d files", err, len(files))
	}
	kinds := map[schema.GroupVersionKind]*spec.Schema{}
	for _, file := range files {
		var crd struct {
			Spec struct {
				Group    string
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Schema struct {
						OpenAPIV3Schema *spec.Schema `json:"openAPIV3Schema"`
					}
				}
			}
		}
		text, err := os.ReadFile(file)
		if err == nil {
			err = yaml.Unmarshal(text, &crd)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, v := range crd.Spec.Versions {
			shut(v.Schema.OpenAPIV3Schema)
			kinds[schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}] = v.Schema.OpenAPIV3Schema
		}
	}
	return kinds
}

// shut makes a schema refuse the fields that it does not name, as the API server
// does in strict validation.
func shut(s *spec.Schema) {
	if s == nil {
		return
	}
	if keep, _ := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields"); len(s.Properties) > 0 && s.AdditionalProperties == nil && !keep {
		s.AdditionalProperties = &spec.SchemaOrBool{Allows: false}
	}
	for name, p := range s.Properties {
		shut(&p)
		s.Properties[name] = p
	}
	if s.Items != nil {
		shut(s.Items.Schema)
	}
	if s.AdditionalProperties != nil {
		shut(s.AdditionalProperties.Schema)
	}
}
