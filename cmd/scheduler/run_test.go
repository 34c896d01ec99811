package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("apiVersion: ffpod.dev/v1alpha1\nkind: SchedulerConfiguration\nqueue: {limit: 0, size: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "good.yaml")
	if err := os.WriteFile(good, []byte("apiVersion: ffpod.dev/v1alpha1\nkind: SchedulerConfiguration\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		args   []string
		code   int
		stdout string
		stderr []string
	}{
		"version":                     {[]string{"version"}, 0, version, nil},
		"help":                        {[]string{"-h"}, 0, "", []string{"usage: scheduler"}},
		"an unknown command":          {[]string{"start"}, 2, "", []string{`unknown arguments ["start"]`}},
		"an unknown flag":             {[]string{"--verbose"}, 2, "", []string{"verbose"}},
		"no configuration":            {[]string{"--config", "/none.yaml"}, 1, "", []string{"scheduler: read configuration: open /none.yaml", "name it with --config"}},
		"a configuration with faults": {[]string{"--config", bad}, 1, "", []string{`unknown field "queue.size"`, "queue.limit: 0 is not between"}},
		"no cluster":                  {[]string{"--config", good}, 1, "", []string{"set KUBECONFIG"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", "")
			t.Setenv("HOME", t.TempDir())
			t.Setenv("KUBERNETES_SERVICE_HOST", "")
			var stdout, stderr strings.Builder
			if code := run(t.Context(), tt.args, func(string) string { return "" }, &stdout, &stderr); code != tt.code {
				t.Errorf("code %d, want %d", code, tt.code)
			}
			if strings.TrimSpace(stdout.String()) != tt.stdout {
				t.Errorf("stdout %q", stdout.String())
			}
			for _, want := range tt.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("stderr has no %q:\n%s", want, stderr.String())
				}
			}
		})
	}
}
