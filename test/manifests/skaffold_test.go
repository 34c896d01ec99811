package manifests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// What skaffold.yaml uses of schema v4beta14, and no more: a field that is not
// here is a slip, or is to be added with a look at skaffold's reference.
type (
	skaffold struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
		skaffoldPipeline
		Profiles []skaffoldProfile `json:"profiles"`
	}
	skaffoldPipeline struct {
		Build       skaffoldBuild     `json:"build"`
		Manifests   skaffoldManifests `json:"manifests"`
		Deploy      skaffoldDeploy    `json:"deploy"`
		PortForward []skaffoldForward `json:"portForward"`
	}
	skaffoldBuild struct {
		Local struct {
			UseBuildkit bool  `json:"useBuildkit"`
			Push        *bool `json:"push"`
		} `json:"local"`
		Platforms []string           `json:"platforms"`
		Artifacts []skaffoldArtifact `json:"artifacts"`
	}
	skaffoldArtifact struct {
		Image   string `json:"image"`
		Context string `json:"context"`
		Docker  struct {
			Dockerfile string `json:"dockerfile"`
		} `json:"docker"`
		Requires []struct {
			Image string `json:"image"`
			Alias string `json:"alias"`
		} `json:"requires"`
		Hooks struct {
			After []struct {
				Command []string `json:"command"`
				OS      []string `json:"os"`
			} `json:"after"`
		} `json:"hooks"`
	}
	skaffoldManifests struct {
		Kustomize struct {
			Paths []string `json:"paths"`
		} `json:"kustomize"`
	}
	skaffoldDeploy struct {
		Kubectl struct{} `json:"kubectl"`
	}
	skaffoldForward struct {
		ResourceType string `json:"resourceType"`
		ResourceName string `json:"resourceName"`
		Namespace    string `json:"namespace"`
		Port         int    `json:"port"`
		LocalPort    int    `json:"localPort"`
	}
	skaffoldProfile struct {
		Name       string `json:"name"`
		Activation []struct {
			KubeContext string `json:"kubeContext"`
		} `json:"activation"`
		skaffoldPipeline
		Patches []struct {
			Op    string `json:"op"`
			Path  string `json:"path"`
			Value any    `json:"value"`
		} `json:"patches"`
	}
)

// Each profile, applied, builds every image that its manifests name and that is
// ours, from a Dockerfile that is there, and forwards ports that its Services have.
// Skaffold itself is not run.
func TestSkaffold(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(Root(), "skaffold.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var conf skaffold
	if err := yaml.UnmarshalStrict(text, &conf); err != nil {
		t.Fatal(err)
	}
	if conf.APIVersion != "skaffold/v4beta14" || conf.Kind != "Config" || conf.Metadata.Name == "" {
		t.Errorf("%s %s %q: want skaffold/v4beta14, Config and a name", conf.APIVersion, conf.Kind, conf.Metadata.Name)
	}
	t.Run("no profile", func(t *testing.T) { checkSkaffold(t, conf.skaffoldPipeline) })
	names := []string{}
	for _, p := range conf.Profiles {
		names = append(names, p.Name)
		t.Run(p.Name, func(t *testing.T) {
			under := applied(t, text, p)
			checkSkaffold(t, under)
			for _, a := range under.Build.Artifacts {
				if imported := len(a.Hooks.After) > 0; imported != (p.Name == "k3s") {
					t.Errorf("artifact %s is imported into k3s: %v", a.Image, imported)
				}
			}
		})
		for _, a := range p.Activation {
			if _, err := regexp.Compile(a.KubeContext); err != nil || a.KubeContext == "" {
				t.Errorf("profile %s: context %q: %v", p.Name, a.KubeContext, err)
			}
		}
	}
	for _, want := range []string{"kind", "minikube", "k3d", "k3s", "registry", "jellyfin"} {
		if !slices.Contains(names, want) {
			t.Errorf("no profile %s", want)
		}
	}
	slices.Sort(names)
	if once := slices.Compact(slices.Clone(names)); len(once) != len(names) {
		t.Errorf("a profile occurs twice: %q", names)
	}
}

// applied is the configuration under a profile, as skaffold makes it: a field
// that the profile has takes the place of the same field, then come its patches.
func applied(t *testing.T, text []byte, p skaffoldProfile) skaffoldPipeline {
	t.Helper()
	var all map[string]any
	if err := yaml.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for _, profile := range all["profiles"].([]any) {
		if profile := profile.(map[string]any); profile["name"] == p.Name {
			overlay(all, profile)
		}
	}
	for _, patch := range p.Patches {
		if patch.Op != "add" && patch.Op != "replace" {
			t.Fatalf("patch %s: op %s is not one that this test knows", patch.Path, patch.Op)
		}
		set(t, all, strings.Split(strings.TrimPrefix(patch.Path, "/"), "/"), patch.Op == "replace", patch.Value)
	}
	for _, key := range []string{"apiVersion", "kind", "metadata", "profiles"} {
		delete(all, key)
	}
	merged, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	var out skaffoldPipeline
	if err := yaml.UnmarshalStrict(merged, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// overlay puts the profile's fields over the configuration's: maps are merged,
// lists and values replaced.
func overlay(under, over map[string]any) {
	for key, value := range over {
		if key == "name" || key == "activation" || key == "patches" {
			continue
		}
		into, isMap := under[key].(map[string]any)
		from, fromMap := value.(map[string]any)
		if isMap && fromMap {
			overlay(into, from)
			continue
		}
		under[key] = value
	}
}

// set is a JSON patch of one value.
func set(t *testing.T, at any, path []string, must bool, value any) any {
	t.Helper()
	if len(path) == 0 {
		return value
	}
	switch at := at.(type) {
	case map[string]any:
		child, ok := at[path[0]]
		if !ok && (must || len(path) > 1) {
			t.Fatalf("patch: nothing at %s", path[0])
		}
		at[path[0]] = set(t, child, path[1:], must, value)
		return at
	case []any:
		i, err := strconv.Atoi(path[0])
		if err != nil || i >= len(at) {
			t.Fatalf("patch: no item %s", path[0])
		}
		at[i] = set(t, at[i], path[1:], must, value)
		return at
	}
	t.Fatalf("patch: nothing at %s", path[0])
	return nil
}

func checkSkaffold(t *testing.T, p skaffoldPipeline) {
	t.Helper()
	if !p.Build.Local.UseBuildkit {
		t.Error("useBuildkit is off: the Dockerfiles mount caches")
	}
	built := map[string]bool{}
	for _, a := range p.Build.Artifacts {
		if built[a.Image] {
			t.Errorf("artifact %s occurs twice", a.Image)
		}
		built[a.Image] = true
		checkArtifact(t, a, built)
	}
	if len(p.Manifests.Kustomize.Paths) == 0 {
		t.Error("no manifests")
	}
	used, ports := map[string]bool{}, map[string][]int32{}
	for _, dir := range p.Manifests.Kustomize.Paths {
		all := objects(t, dir)
		for _, d := range typed[appsv1.Deployment](t, all, "Deployment") {
			for _, c := range slices.Concat(d.Spec.Template.Spec.InitContainers, d.Spec.Template.Spec.Containers) {
				image, _, _ := strings.Cut(c.Image, ":")
				used[image] = true
				if strings.HasPrefix(image, "ffpod/") && !built[image] {
					t.Errorf("%s, of Deployment %s in %s, is built by no artifact", c.Image, d.Name, dir)
				}
			}
		}
		for _, s := range typed[corev1.Service](t, all, "Service") {
			for _, port := range s.Spec.Ports {
				ports[s.Namespace+"/"+s.Name] = append(ports[s.Namespace+"/"+s.Name], port.Port)
			}
		}
	}
	if !used["ffpod/ffpod"] {
		t.Errorf("%q name no image ffpod/ffpod, which skaffold could replace", p.Manifests.Kustomize.Paths)
	}
	for _, f := range p.PortForward {
		if f.ResourceType != "service" || f.LocalPort == 0 || !slices.Contains(ports[f.Namespace+"/"+f.ResourceName], int32(f.Port)) {
			t.Errorf("port-forward %+v: Service %s/%s has the ports %v", f, f.Namespace, f.ResourceName, ports[f.Namespace+"/"+f.ResourceName])
		}
	}
	for _, platform := range p.Build.Platforms {
		if !slices.Contains([]string{"linux/amd64", "linux/arm64"}, platform) {
			t.Errorf("platform %s", platform)
		}
	}
	if len(p.Build.Platforms) > 1 && (p.Build.Local.Push == nil || !*p.Build.Local.Push) {
		t.Error("images of several platforms have to be pushed")
	}
}

func checkArtifact(t *testing.T, a skaffoldArtifact, built map[string]bool) {
	t.Helper()
	if a.Context != "." {
		t.Errorf("artifact %s: context %q, want the repository, from which the Dockerfiles copy", a.Image, a.Context)
	}
	dockerfile, err := os.ReadFile(filepath.Join(Root(), a.Docker.Dockerfile))
	if err != nil {
		t.Errorf("artifact %s: %v", a.Image, err)
		return
	}
	if _, err := os.Stat(filepath.Join(Root(), a.Docker.Dockerfile+".dockerignore")); err != nil {
		t.Errorf("artifact %s: any change would rebuild it: %v", a.Image, err)
	}
	for _, r := range a.Requires {
		if !built[r.Image] {
			t.Errorf("artifact %s requires %s, which is not built before it", a.Image, r.Image)
		}
		if !strings.Contains(string(dockerfile), "\nARG "+r.Alias+"=") {
			t.Errorf("artifact %s: %s has no build argument %s", a.Image, a.Docker.Dockerfile, r.Alias)
		}
	}
	for _, h := range a.Hooks.After {
		file := h.Command[len(h.Command)-1]
		if info, err := os.Stat(filepath.Join(Root(), file)); err != nil || info.Mode()&0o100 == 0 {
			t.Errorf("artifact %s: hook %q: %v; it has to be there and executable", a.Image, h.Command, err)
		}
	}
}

// The script of profile k3s, with a docker and a sudo that only write down what
// they are asked.
func TestImportIntoK3s(t *testing.T) {
	script := filepath.Join(Root(), "images/import-k3s.sh")
	run := func(t *testing.T, docker string, env ...string) (said, wrote string, err error) {
		t.Helper()
		dir := t.TempDir()
		log := filepath.Join(dir, "log")
		for name, text := range map[string]string{
			"docker": docker,
			"sudo":   "echo sudo $1 $2 $3 $4 >> " + log + "; cat \"$5\" >> " + log,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("sh", script)
		cmd.Env = append(env, "PATH="+dir+":"+os.Getenv("PATH"), "TMPDIR="+dir)
		out, err := cmd.CombinedOutput()
		text, _ := os.ReadFile(log)
		left, _ := filepath.Glob(filepath.Join(dir, "tmp.*"))
		if len(left) > 0 {
			t.Errorf("it leaves %q", left)
		}
		return string(out), string(text), err
	}
	const docker = `case $1 in
		image) [ "$5" = ffpod/ffpod:v1 ] && echo "ffpod/ffpod:v1 ffpod/ffpod:abc" ;;
		save) shift 2; file=$1; shift; echo "archive of $*" > "$file" ;;
	esac`
	out, wrote, err := run(t, docker, "SKAFFOLD_IMAGE=ffpod/ffpod:v1")
	if want := "archive of ffpod/ffpod:v1 ffpod/ffpod:abc\n"; err != nil || !strings.HasPrefix(wrote, "sudo k3s ctr images import") || !strings.HasSuffix(wrote, want) {
		t.Errorf("%v, %q; k3s was given %q, want it to end in %q", err, out, wrote, want)
	}
	if out, wrote, err := run(t, "exit 1", "SKAFFOLD_IMAGE=ffpod/ffpod:v1"); err == nil || wrote != "" {
		t.Errorf("docker fails: %v, %q; k3s was given %q", err, out, wrote)
	}
	if out, wrote, err := run(t, docker); err == nil || wrote != "" || !strings.Contains(out, "SKAFFOLD_IMAGE") {
		t.Errorf("without an image: %v, %q; k3s was given %q", err, out, wrote)
	}
}
