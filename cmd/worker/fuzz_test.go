package main

import (
	"strings"
	"testing"
)

// The kubelet sets most of this from fields and annotations that people write.
func FuzzSettings(f *testing.F) {
	f.Add("4", "1", "60s", "20s", "cpu")
	f.Add("0", "yes", "60", "-1s", "")
	f.Add("99999999999999999999", "T", "1e9h", "NaN", "a\nb")
	f.Fuzz(func(t *testing.T, slots, once, idle, grace, class string) {
		env := map[string]string{"FFPOD_SLOTS": slots, "FFPOD_ONCE": once, "FFPOD_IDLE": idle, "FFPOD_GRACE": grace, "FFPOD_CLASS": class, "FFPOD_FFMPEG": "/f", "FFPOD_FFPROBE": "/p"}
		conf, err := settings(func(name string) (string, bool) { v, ok := env[name]; return v, ok })
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				name, value, _ := strings.Cut(line, "=")
				if _, ours := env[name]; !ours || value == "" {
					t.Errorf("no setting is named: %q", line)
				}
			}
			return
		}
		if conf.Slots < 0 || slots != "" && conf.Slots < 1 || conf.Idle < 0 || conf.Grace < 0 || conf.Class != class {
			t.Errorf("%+v", conf)
		}
	})
}
