package main

import (
	"strings"
	"testing"

	"github.com/ffpod/ffpod/scheduler/api"
)

func TestPrintProofs(t *testing.T) {
	tries := api.Proof{Class: "nvidia", Worker: "gpu-a", Started: true}
	not := api.Proof{Class: "cpu", Worker: "cpu-a", Reason: "worker cpu-a runs no trials: its trials have just ended"}
	for name, tt := range map[string]struct {
		all       []api.Proof
		class     string
		out, fail string
	}{
		"some":        {all: []api.Proof{not, tries}, out: "cpu     cpu-a  worker cpu-a runs no trials: its trials have just ended\nnvidia  gpu-a  tries\n"},
		"none tries":  {all: []api.Proof{not}, out: "cpu  cpu-a  worker", fail: "none of 1 workers tries anything"},
		"none is up":  {fail: "no worker is up"},
		"of no class": {class: "amd", fail: "no worker of class amd is up"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := printProofs(&out, tt.all, tt.class)
			if !strings.Contains(out.String(), tt.out) || tt.out == "" && out.Len() > 0 {
				t.Errorf("printed %q", &out)
			}
			if (err != nil) != (tt.fail != "") || err != nil && !strings.Contains(err.Error(), tt.fail) {
				t.Errorf("told %v", err)
			}
		})
	}
}
