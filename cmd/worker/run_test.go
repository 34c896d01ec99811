package main

import (
	"strings"
	"testing"
)

func settingsOf(values map[string]string) (once bool, slots int, err error) {
	conf, err := settings(func(name string) (string, bool) { v, ok := values[name]; return v, ok })
	return conf.Once, conf.Slots, err
}

// A Job's worker that takes FFPOD_ONCE for something else would never end.
func TestSettings(t *testing.T) {
	tests := map[string]struct {
		env   map[string]string
		once  bool
		slots int
		bad   string
	}{
		"nothing":      {},
		"once":         {env: map[string]string{"FFPOD_ONCE": "1"}, once: true},
		"once in full": {env: map[string]string{"FFPOD_ONCE": "true"}, once: true},
		"not once":     {env: map[string]string{"FFPOD_ONCE": "0", "FFPOD_SLOTS": "3"}, slots: 3},
		"once, oddly":  {env: map[string]string{"FFPOD_ONCE": "yes please"}, bad: "FFPOD_ONCE"},
		"oddly tried":  {env: map[string]string{"FFPOD_TRIALS": "some"}, bad: "FFPOD_TRIALS"},
		"no slots":     {env: map[string]string{"FFPOD_SLOTS": "0"}, bad: "FFPOD_SLOTS"},
		"odd idle":     {env: map[string]string{"FFPOD_IDLE": "60"}, bad: "FFPOD_IDLE"},
		"no grace":     {env: map[string]string{"FFPOD_GRACE": "-1s"}, bad: "FFPOD_GRACE"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			once, slots, err := settingsOf(tc.env)
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || once != tc.once || slots != tc.slots {
				t.Errorf("once %v, %d slots, %v", once, slots, err)
			}
		})
	}
}
