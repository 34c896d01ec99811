package doctor

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/ffpod/ffpod/cmd/ffpod/cluster"
)

// Bundle writes everything that a maintainer would ask for, as a tar.gz, and no
// secret: no Secret is read, values that look like secrets are replaced wherever
// they stand, and Jellyfin's own log is left out, for it tells what people watch.
func Bundle(ctx context.Context, p *Patient, r Report, w io.Writer) error {
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	add := func(name string, text []byte) error {
		text = Redact(text)
		if err := out.WriteHeader(&tar.Header{Name: "ffpod-doctor/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: r.Time}); err != nil {
			return err
		}
		_, err := out.Write(text)
		return err
	}
	files, err := p.collect(ctx, r)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := add(f.name, f.text); err != nil {
			return fmt.Errorf("write the bundle: %w", err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	return zip.Close()
}

type file struct {
	name string
	text []byte
}

func (p *Patient) collect(ctx context.Context, r Report) ([]file, error) {
	var report, text bytes.Buffer
	if err := r.JSON(&report); err != nil {
		return nil, err
	}
	if err := r.Text(&text, true); err != nil {
		return nil, err
	}
	files := []file{{"report.json", report.Bytes()}, {"report.txt", text.Bytes()}}
	f := p.facts
	if f.status != nil {
		b, err := json.MarshalIndent(f.status, "", "  ")
		if err != nil {
			return nil, err
		}
		files = append(files, file{"status.json", b})
	}
	for i := range f.deployments {
		files = append(files, p.object("deployment", f.deployments[i].Name, &f.deployments[i]))
	}
	for i := range f.pods {
		if ours(f.pods[i]) {
			files = append(files, p.object("pod", f.pods[i].Name, &f.pods[i]))
		}
	}
	for name, c := range f.claims {
		files = append(files, p.object("claim", name, &c))
		if v, there := f.volumes[c.Spec.VolumeName]; there {
			files = append(files, p.object("volume", v.Name, &v))
		}
	}
	for i := range f.services {
		files = append(files, p.object("service", f.services[i].Name, &f.services[i]))
	}
	for i := range f.ingresses {
		files = append(files, p.object("ingress", f.ingresses[i].Name, &f.ingresses[i]))
	}
	for i := range f.nodes {
		files = append(files, p.object("node", f.nodes[i].Name, &f.nodes[i]))
	}
	files = append(files, p.events(ctx)...)
	return append(files, p.logs(ctx)...), nil
}

// object is one object's YAML without what only machines read.
func (p *Patient) object(kind, name string, o runtime.Object) file {
	o = o.DeepCopyObject()
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
		a := m.GetAnnotations()
		delete(a, corev1.LastAppliedConfigAnnotation)
		m.SetAnnotations(a)
	}
	b, err := yaml.Marshal(hideEnv(o))
	if err != nil {
		b = []byte(err.Error())
	}
	return file{kind + "/" + name + ".yaml", b}
}

// hideEnv empties the literal values of variables whose names tell of secrets.
func hideEnv(o runtime.Object) any {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	hide(m)
	return m
}

func hide(v any) {
	switch v := v.(type) {
	case map[string]any:
		name, _ := v["name"].(string)
		if _, literal := v["value"].(string); literal && secretName.MatchString(name) {
			v["value"] = redacted
		}
		for _, child := range v {
			hide(child)
		}
	case []any:
		for _, child := range v {
			hide(child)
		}
	}
}

func (p *Patient) events(ctx context.Context) []file {
	list, err := p.Client.CoreV1().Events(p.Namespace).List(ctx, metav1.ListOptions{Limit: 500})
	if err != nil {
		return []file{{"events.txt", []byte(err.Error() + "\n")}}
	}
	var b strings.Builder
	for _, e := range list.Items {
		fmt.Fprintf(&b, "%s %s %s/%s %s: %s\n", e.LastTimestamp.UTC().Format("2006-01-02T15:04:05Z"), e.Type, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, oneLine(e.Message))
	}
	return []file{{"events.txt", []byte(b.String())}}
}

// logs are the last lines of our own programs. They never hold a command line.
func (p *Patient) logs(ctx context.Context) []file {
	var files []file
	for _, pod := range append(podsOf(p.facts, cluster.SchedulerLabels), podsOf(p.facts, "app.kubernetes.io/name=ffpod,app.kubernetes.io/component=worker")...) {
		for _, previous := range []bool{false, true} {
			b, err := p.Client.CoreV1().Pods(p.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Previous: previous, TailLines: new(int64(2000)), LimitBytes: new(int64(4 << 20)),
				Container: cmp.Or(pod.Annotations["kubectl.kubernetes.io/default-container"], pod.Spec.Containers[0].Name)}).DoRaw(ctx)
			if err != nil {
				continue // there is no previous one, mostly
			}
			name := "log/" + pod.Name + ".log"
			if previous {
				name = "log/" + pod.Name + ".previous.log"
			}
			files = append(files, file{name, b})
		}
	}
	return files
}

const redacted = "REDACTED"

var (
	secretName = regexp.MustCompile(`(?i)passw|secret|token|api_?key|credential|private_?key|connection_?string|_dsn$|^dsn$`)
	// Each keeps its first group, and the last if there is a third.
	secrets = []*regexp.Regexp{
		regexp.MustCompile(`(?i)(\bBearer\s+)[A-Za-z0-9._~+/=-]{8,}`),
		regexp.MustCompile(`()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`),                                                                                                // a JWT
		regexp.MustCompile(`(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`),                                                                      // a key, also a cut one
		regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@"']*:)[^\s/@"']+(@)`),                                                                                                   // scheme://user:password@
		regexp.MustCompile(`(?i)((?:password|passwd|pwd|secret|api[_-]?key|access[_-]?token|auth[_-]?token|x-emby-token|connectionstring)["']?[ \t]*[=:][ \t]*["']?)[^\s"'&;,<>\\]+`), // name=value
		regexp.MustCompile(`(?is)(<(?:[a-z]*password|[a-z]*token|[a-z]*secret|api_?key|connectionstring)>)[^<]*(</)`),                                                                 // XML
	}
)

// Redact replaces what looks like a secret.
func Redact(text []byte) []byte {
	for _, s := range secrets {
		keep := "${1}" + redacted
		if s.NumSubexp() > 1 {
			keep += "${2}"
		}
		text = s.ReplaceAll(text, []byte(keep))
	}
	return text
}
