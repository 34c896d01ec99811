package registry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzFiles: whatever stands in the files, reading them ends, names nothing outside
// the directory, and an open end is never in the far future.
func FuzzFiles(f *testing.F) {
	for _, seed := range [][2]string{
		{"a\n", `{"session":"a","pid":1,"placed":true,"bound_ms":60000}`}, {"pid 17        \na\n", "{}"}, {"../../etc/passwd\n", ""},
		{"a\n", `{"session":"x\ny","worker":"w\n","placed":true,"bound_ms":60000}`}, {"a\na\n\n\xff", `{"placed":true,"bound_ms":9223372036854775807}`}, {"a", `{"placed":true,"bound_ms":-9223372036854775808}`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, key, session []byte) {
		r := open(t)
		name := keyFile("/c/x")
		for file, content := range map[string][]byte{name: key, sessionFile("a"): session} {
			if err := os.WriteFile(filepath.Join(r.path, file), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, rem := range r.remnants(key) {
			if !rem.alive && time.Until(rem.dead) > mostBound {
				t.Errorf("%+v is never over", rem)
			}
		}
		if words, _ := r.holder(name); words == "" || strings.Contains(words, "\n") {
			t.Errorf("holder %q", words)
		}
		for range 3 {
			r.sweep()
		}
		fd, err := r.lock(name, unix.LOCK_EX, unix.O_CREAT)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		if _, err := os.Stat(filepath.Join(r.path, bornFile)); err != nil {
			t.Error(err)
		}
	})
}
