package doctor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestRedact has secrets as they stand in logs, YAML, XML, URLs and JSON; and what
// must stay readable.
func TestRedact(t *testing.T) {
	const s = "s3cr3t-Value"
	for name, text := range map[string]string{
		"bearer":       "authorization: Bearer " + s + "xxxx",
		"jwt":          "token eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOi" + "J4In0.c2lnbmF0dXJl-" + s,
		"env":          "POSTGRES_PASSWORD=" + s,
		"yaml":         "  password: " + s,
		"quoted yaml":  `  password: "` + s + `"`,
		"json":         `{"apiKey":"` + s + `","x":1}`,
		"url":          "connect to postgres://jellyfin:" + s + "@db:5432/jellyfin",
		"query":        "GET /Videos/1/stream?api_key=" + s + "&x=1",
		"emby":         `X-Emby-Token="` + s + `"`,
		"dsn":          "Host=db;Username=j;Password=" + s + ";Database=x",
		"xml":          "<CertificatePassword>" + s + "</CertificatePassword>",
		"xml, lines":   "<ConnectionString>\nHost=a\n" + s + "\n</ConnectionString>",
		"key":          "-----BEGIN EC PRIVATE KEY-----\n" + s + "\n-----END EC PRIVATE KEY-----\n",
		"cut key":      "-----BEGIN PRIVATE KEY-----\n" + s,
		"client key":   "access_token: " + s,
		"in a message": `dial failed: password=` + s + `: refused`,
	} {
		got := string(Redact([]byte(text)))
		if strings.Contains(got, s) || !strings.Contains(got, redacted) {
			t.Errorf("%s: %s", name, got)
		}
		if again := string(Redact([]byte(got))); strings.Contains(again, s) || strings.Count(again, redacted) != strings.Count(got, redacted) {
			t.Errorf("%s: twice is not once: %s", name, again)
		}
	}
	for _, text := range []string{
		"secret:\n  secretName: ffpod-tls\n", "serviceAccountToken:\n  audience: ffpod\n", "reason: the token's audience is vault",
		"scheduler refused the token: it is for audience x", "https://jellyfin.example.org:8920/web", "key: password\n",
	} {
		if got := string(Redact([]byte(text))); got != text {
			t.Errorf("changed %q to %q", text, got)
		}
	}
}

// TestBundle puts a secret wherever a user may have put one.
func TestBundle(t *testing.T) {
	const s = "hunter2hunter2"
	x := healthy()
	x.jellyfin.Spec.Template.Spec.Containers[0].Env = append(x.jellyfin.Spec.Template.Spec.Containers[0].Env,
		corev1.EnvVar{Name: "POSTGRES_PASSWORD", Value: s}, corev1.EnvVar{Name: "SOME_API_KEY", Value: s}, corev1.EnvVar{Name: "DATABASE_URL", Value: "postgres://j:" + s + "@db/x"})
	x.jellyfin.Spec.Template.Spec.Containers[0].Args = []string{"--db-password=" + s}
	x.jellyfin.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: `{"x":"` + s + `"}`, "note": "password: " + s}
	x.secrets = []*corev1.Secret{{ObjectMeta: meta("jellyfin-database", nil), Data: map[string][]byte{"password": []byte(s)}}}
	x.status.Sessions[0].Reason = "Bearer " + s
	p := x.patient(t)
	r := examine(t, p, "callers", "database")
	r.Findings = append(r.Findings, Finding{Check: "x", Level: Fail, What: "password=" + s})
	var b bytes.Buffer
	if err := Bundle(t.Context(), p, r, &b); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.TrimPrefix(h.Name, "ffpod-doctor/"))
		if bytes.Contains(text, []byte(s)) {
			t.Errorf("%s tells it: %s", h.Name, text)
		}
		if strings.Contains(h.Name, "ecret") {
			t.Errorf("a Secret is in the bundle: %s", h.Name)
		}
		if h.Name == "ffpod-doctor/deployment/jellyfin.yaml" && (!bytes.Contains(text, []byte("name: SOME_API_KEY")) || !bytes.Contains(text, []byte("/opt/ffpod/ffmpeg"))) {
			t.Errorf("what is needed is gone: %s", text)
		}
	}
	for _, want := range []string{"report.json", "report.txt", "status.json", "deployment/jellyfin.yaml", "pod/jellyfin-0.yaml", "claim/jellyfin-shared.yaml", "volume/pv-jellyfin-shared.yaml", "node/n1.yaml", "events.txt", "log/ffpod-scheduler-0.log"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing in %v", want, names)
		}
	}
}
