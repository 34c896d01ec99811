package manifests

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
)

// call is the mark above each call of the Kubernetes API: resource, verbs.
var call = regexp.MustCompile(`(?m)^\s*// kube: ([a-z][a-z/]*), ([a-z, ]+)$`)

// clusterScoped calls are granted by kustomize/cluster, not by the Role.
var clusterScoped = []string{"tokenreviews"}

// The scheduler's Role, with what component autoscale adds, is what its source says
// it calls, no more and no less.
func TestRoleIsWhatIsCalled(t *testing.T) {
	called := map[string]map[string]bool{}
	for _, dir := range []string{"scheduler", "podexec", "cmd/scheduler"} {
		collect(t, filepath.Join(Root(), dir), called)
	}
	want := map[string]string{}
	for resource, verbs := range called {
		if !slices.Contains(clusterScoped, resource) {
			want[resource] = strings.Join(slices.Sorted(maps.Keys(verbs)), " ")
		}
	}
	granted := map[string]map[string]bool{}
	for _, role := range typed[rbacv1.Role](t, objects(t, "test/manifests/testdata/autoscale"), "Role") {
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				if granted[resource] == nil {
					granted[resource] = map[string]bool{}
				}
				for _, verb := range rule.Verbs {
					granted[resource][verb] = true
				}
			}
		}
	}
	got := map[string]string{}
	for resource, verbs := range granted {
		got[resource] = strings.Join(slices.Sorted(maps.Keys(verbs)), " ")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kustomize/base/rbac.yaml and that of component autoscale differ from the calls marked kube: in the source (-source +Role):\n%s", diff)
	}
}

// collect adds resource to verbs from the marks below dir, tests left out.
func collect(t *testing.T, dir string, all map[string]map[string]bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, match := range call.FindAllStringSubmatch(string(text), -1) {
			if all[match[1]] == nil {
				all[match[1]] = map[string]bool{}
			}
			for _, verb := range strings.Split(match[2], ",") {
				all[match[1]][strings.TrimSpace(verb)] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
