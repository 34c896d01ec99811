package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ffpod/ffpod/cmd/ffpod/jellyfin"
)

// commands finds every command line of ffpod in a document.
func commands(v any, found *[][]string) {
	switch v := v.(type) {
	case map[string]any:
		line := append(words(v["command"]), words(v["args"])...)
		if len(line) > 0 && filepath.Base(line[0]) == "ffpod" {
			*found = append(*found, line)
		}
		for _, child := range v {
			commands(child, found)
		}
	case []any:
		for _, child := range v {
			commands(child, found)
		}
	}
}

func words(v any) []string {
	var out []string
	list, _ := v.([]any)
	for _, w := range list {
		s, _ := w.(string)
		out = append(out, s)
	}
	return out
}

// TestManifestsCallFfpodRightly parses every command line of ffpod that the shipped
// overlays render: init containers, probes, CronJobs.
func TestManifestsCallFfpodRightly(t *testing.T) {
	goldens, err := filepath.Glob("../../test/manifests/testdata/golden/*.yaml")
	if err != nil || len(goldens) == 0 {
		t.Fatal("no golden files", err)
	}
	verbs := map[string]int{}
	for _, golden := range goldens {
		b, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(b, []byte("\n---\n")) {
			var o any
			if err := yaml.Unmarshal(doc, &o); err != nil {
				t.Fatal(err)
			}
			var lines [][]string
			commands(o, &lines)
			for _, line := range lines {
				c, rest, err := newRoot(line[0], os.Getenv).Find(line[1:])
				if err == nil {
					err = c.ParseFlags(rest)
				}
				if err == nil && c.Args != nil {
					err = c.Args(c, c.Flags().Args())
				}
				if err == nil && !c.Runnable() {
					err = os.ErrInvalid
				}
				if err != nil {
					t.Errorf("%s: %q: %v", filepath.Base(golden), line, err)
				}
				verbs[c.CommandPath()]++
			}
		}
	}
	for _, verb := range []string{"ffpod jellyfin prepare", "ffpod jellyfin healthy", "ffpod install"} {
		if verbs[verb] == 0 {
			t.Errorf("%s is called nowhere: %v", verb, verbs)
		}
	}
}

// TestShippedSeed prepares a pod with the ConfigMap that the repository ships: each
// of its keys is a setting.
func TestShippedSeed(t *testing.T) {
	b, err := os.ReadFile("../../kustomize/jellyfin/settings.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cm corev1.ConfigMap
	first, _, _ := strings.Cut(string(b), "\n---\n")
	if err := yaml.UnmarshalStrict([]byte(first), &cm); err != nil || cm.Name != "jellyfin-seed" {
		t.Fatalf("%s, %v", cm.Name, err)
	}
	seed, config := t.TempDir(), t.TempDir()
	for k, v := range cm.Data {
		if err := os.WriteFile(filepath.Join(seed, k), []byte(v), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := call(nil, "jellyfin", "prepare", "--config="+config, "--seed="+seed, "--shared="+t.TempDir())
	if code != 0 || stderr != "" || strings.Contains(stdout, "passed over") || !strings.Contains(stdout, "encoding.xml") || !strings.Contains(stdout, "system.xml") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	for key := range cm.Data {
		if !slices.ContainsFunc(jellyfin.Settings(), func(s jellyfin.Setting) bool { return s.Key == key }) {
			t.Errorf("%s is no setting", key)
		}
	}
}

func TestJellyfinApply(t *testing.T) {
	config := t.TempDir()
	code, _, stderr := call(nil, "jellyfin", "apply", "--config", config, "hardwareAcceleration=nvenc")
	if code != 1 || !strings.Contains(stderr, "--config") {
		t.Errorf("%d %q", code, stderr)
	}
	if err := os.Mkdir(filepath.Join(config, "config"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"hardwareAcceleration"}, {"hardwareAcceleration=cuda"}, {"nope=1"}, {}} {
		if code, _, stderr := call(nil, append([]string{"jellyfin", "apply", "--config", config}, args...)...); code != 2 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: %d %q", args, code, stderr)
		}
	}
	code, stdout, stderr := call(nil, "jellyfin", "apply", "--config", config, "--dry-run", "jellyfin.hardwareAcceleration=nvenc")
	if code != 0 || stdout != "encoding.xml: HardwareAccelerationType: (default) -> nvenc\n" {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
}

// TestNoCluster has verbs that need one say what is missing in one line.
func TestNoCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, args := range [][]string{{"status"}, {"test"}, {"doctor"}, {"run", "--", "ffmpeg", "-version"}} {
		code, stdout, stderr := call(nil, args...)
		if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "--kubeconfig") {
			t.Errorf("%v: %d %q %q", args, code, stdout, stderr)
		}
	}
	for _, args := range [][]string{{"test", "--encoder", "mpeg2"}, {"run", "--", "ls"}, {"run"}, {"doctor", "x"}} {
		if code, _, _ := call(nil, args...); code != 2 {
			t.Errorf("%v: %d", args, code)
		}
	}
}
