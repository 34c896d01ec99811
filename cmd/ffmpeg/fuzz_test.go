package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is read as a token can be sent as one: a header of HTTP/2 has no line ends
// and no control characters.
func FuzzReadToken(f *testing.F) {
	f.Add([]byte("eyJh.eyJi.c2ln\n"))
	f.Add([]byte(" \n\t"))
	f.Add([]byte("a\r\nx-evil: 1"))
	f.Add([]byte("t\x7fk"))
	f.Add([]byte("t\xc3\xa4"))
	f.Fuzz(func(t *testing.T, content []byte) {
		name := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		token, err := readToken(name)
		if err != nil {
			if len(content) > 8 && strings.Contains(err.Error(), string(content)) {
				t.Errorf("the error tells the token: %v", err)
			}
			return
		}
		for _, c := range []byte(token) {
			if c <= ' ' || c > '~' {
				t.Fatalf("token %q", token)
			}
		}
		if token == "" || !strings.Contains(string(content), token) {
			t.Errorf("token %q of %q", token, content)
		}
	})
}
