package decision

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// The shim reads its environment before anything else, so nothing in it may do
// harm: settings are good, or one of them is named.
func FuzzLoad(f *testing.F) {
	f.Add("FFPOD_MODE=remote\nFFPOD_WAIT=30s\nFFPOD_SHARED=/media:/cache")
	f.Add("FFPOD_SHARED=/a:b")
	f.Add("FFPOD_ADDRESS=[::1]:7443\nFFPOD_CLASS=cpu\nFFPOD_POLICY=job")
	f.Add("FFPOD_ADDRESS=host:99999\nFFPOD_CLASS=-")
	f.Add("FFPOD_WAIT=-1s\nFFPOD_TOKEN_FILE=token\nFFPOD_SCHEDULER_PORT=tcp://10.0.0.1:7443")
	f.Fuzz(func(t *testing.T, text string) {
		env := map[string]string{}
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			env[name] = value
		}
		s, err := Load(func(name string) string { return env[name] })
		var bad *SettingError
		if err != nil {
			if !errors.As(err, &bad) || env[bad.Name] == "" || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q", err)
			}
			return
		}
		for _, p := range append([]string{s.TokenFile, s.CAFile}, s.Shared...) {
			if !filepath.IsAbs(p) {
				t.Errorf("path %q", p)
			}
		}
		if s.Wait < 0 || s.Wait > maxWait || s.Address != "" && !ValidAddress(s.Address) || len(s.Class) > 63 {
			t.Errorf("settings %+v", s)
		}
	})
}
