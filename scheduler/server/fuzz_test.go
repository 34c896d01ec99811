package server

import (
	"encoding/base64"
	"strings"
	"testing"
)

// Claims are read before anything is proved: only a token of three parts with
// JSON in the second has any, and an error never repeats the token.
func FuzzPeek(f *testing.F) {
	claims := func(text string) string { return "h." + base64.RawURLEncoding.EncodeToString([]byte(text)) + ".s" }
	for _, text := range []string{
		`{"iss":"k","aud":["ffpod"],"exp":1}`, `{"aud":"ffpod","exp":1e400}`, `{"aud":[[1]]}`, `[]`, `null`, `{"kubernetes.io":{"pod":{"uid":5}}}`, ``,
	} {
		f.Add(claims(text))
	}
	f.Add("a.b")
	f.Add("secret.!!.secret")
	f.Fuzz(func(t *testing.T, token string) {
		_, err := peek(token)
		if parts := strings.Split(token, "."); err == nil && len(parts) != 3 {
			t.Errorf("%q has claims", token)
		}
		if err != nil && len(token) > 20 && strings.Contains(err.Error(), token) {
			t.Errorf("the error tells the token: %v", err)
		}
	})
}
