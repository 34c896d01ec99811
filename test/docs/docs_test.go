package docs

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"mvdan.cc/sh/v3/syntax"
	"sigs.k8s.io/yaml"

	"github.com/ffpod/ffpod/kustomize/settings"
)

func TestLinksLeadSomewhere(t *testing.T) {
	all := map[string]page{}
	for _, p := range pages(t) {
		all[p.name] = p
	}
	for name, p := range all {
		for _, link := range p.links {
			if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
				continue
			}
			to, anchor, _ := strings.Cut(link, "#")
			target := name
			if to != "" {
				target = path.Join(path.Dir(name), to)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: link %s: %v", name, link, err)
			} else if anchor != "" && !all[target].anchors[anchor] {
				t.Errorf("%s: link %s: %s has no such heading", name, link, target)
			}
		}
	}
}

// TestEveryPageIsInTheIndex: who opens the README finds each page of docs/.
func TestEveryPageIsInTheIndex(t *testing.T) {
	readme := read(t, filepath.Join(root, "README.md"))
	for _, p := range pages(t) {
		if strings.HasPrefix(p.name, "docs/") && !slices.Contains(readme.links, p.name) {
			t.Errorf("README.md does not link %s", p.name)
		}
	}
}

// TestEveryComponentIsDescribed: kustomize/README.md names each component and
// overlay, as code.
func TestEveryComponentIsDescribed(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "kustomize/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"components", "overlays"} {
		for _, name := range children(t, "kustomize/"+kind) {
			if !regexp.MustCompile("`(" + kind + "/)?" + regexp.QuoteMeta(name) + "[`/]").Match(text) {
				t.Errorf("kustomize/README.md does not name `%s/%s`", kind, name)
			}
		}
	}
}

// TestNamesInProse: what stands as code in a sentence and looks like the name of
// something of ours is one.
func TestNamesInProse(t *testing.T) {
	components := children(t, "kustomize/components")
	sources := ownSources(t)
	for _, p := range pages(t) {
		if p.name == "CHANGELOG.md" {
			continue // it tells of what was
		}
		for _, s := range p.spans {
			word := strings.TrimSuffix(s.text, ":")
			if setting.MatchString(word) && !settingExists(word) {
				t.Errorf("%s: %s is no setting of kustomize/settings", p.name, word)
			}
			for _, name := range variable.FindAllString(s.text, -1) {
				if !strings.Contains(sources, name) {
					t.Errorf("%s: %s stands in no source", p.name, name)
				}
			}
		}
		text, err := os.ReadFile(filepath.Join(root, p.name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range component.FindAllSubmatch(text, -1) {
			for _, name := range regexp.MustCompile("[a-z0-9-]+").FindAllString(string(m[1]), -1) {
				if !slices.Contains(components, name) && name != "and" && name != "or" {
					t.Errorf("%s: there is no component %s", p.name, name)
				}
			}
		}
		for _, m := range below.FindAll(text, -1) {
			at := strings.TrimRight(string(m), "./")
			if _, err := os.Stat(filepath.Join(root, at)); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
		}
	}
}

var (
	setting   = regexp.MustCompile(`^(identity|jellyfin|storage|media|shared|database|exposure|gpu|nodes|network|backup|certificates)(\.[a-z][A-Za-z0-9]*)+$`)
	variable  = regexp.MustCompile(`\b(FFPOD_[A-Z_]+|ffpod\.dev/[a-z]+[a-z.-]*|ffpod_[a-z_]+)\b`)
	component = regexp.MustCompile("[Cc]omponents? ((?:`[a-z0-9-]+`(?:, | and | or )?)+)")
	below     = regexp.MustCompile(`\bkustomize/(components|overlays|classes|cluster|base|jellyfin|settings)\b[\w./-]*`)
)

func settingExists(word string) bool {
	if ext := path.Ext(word); slices.Contains([]string{".xml", ".yaml", ".md", ".dump", ".db"}, ext) || word == "gpu.intel.com" {
		return true
	}
	for _, f := range settings.Fields() {
		if f.Path == word || strings.HasPrefix(f.Type, "map ") && strings.HasPrefix(word, f.Path+".") {
			return true
		}
	}
	return false
}

// TestYAML: manifests decode strictly, settings are valid.
func TestYAML(t *testing.T) {
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	groups := map[string]bool{}
	for _, f := range settings.Fields() {
		groups[f.Path] = true
	}
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.language != "yaml" {
				continue
			}
			at := fmt.Sprintf("%s:%d", p.name, b.line)
			for _, doc := range strings.Split(b.text, "\n---\n") {
				var content any
				if err := yaml.UnmarshalStrict([]byte(doc), &content); err != nil {
					t.Errorf("%s: %v", at, err)
					continue
				}
				o, _ := content.(map[string]any)
				kind, _ := o["kind"].(string)
				version, _ := o["apiVersion"].(string)
				switch {
				case kind == "Settings":
					if _, err := settings.Parse(at, []byte(doc)); err != nil {
						t.Error(err)
					}
				case kind == "":
					for key := range o {
						if !groups[key] {
							break
						}
						if _, err := settings.Parse(at, []byte(settingsHead+doc)); err != nil {
							t.Error(err)
						}
						break
					}
				case scheme.Scheme.IsVersionRegistered(groupVersion(version)):
					if _, _, err := strict.Decode([]byte(doc), nil, nil); err != nil {
						t.Errorf("%s: %v", at, err)
					}
				}
			}
		}
	}
}

const settingsHead = `apiVersion: ffpod.dev/v1alpha1
kind: Settings
metadata: {name: settings, annotations: {config.kubernetes.io/local-config: "true"}}
`

// TestExampleDirectories: blocks of one section whose first lines are `# NAME.yaml`
// are the files of a directory. One with a kustomization.yaml is built.
func TestExampleDirectories(t *testing.T) {
	built := 0
	for _, p := range pages(t) {
		sections := map[string]map[string]string{}
		for _, b := range p.blocks {
			first, _, _ := strings.Cut(b.text, "\n")
			if m := fileName.FindStringSubmatch(first); m != nil && b.language == "yaml" {
				if sections[b.heading] == nil {
					sections[b.heading] = map[string]string{}
				}
				sections[b.heading][m[1]] = b.text
			}
		}
		for heading, files := range sections {
			if files["kustomization.yaml"] == "" {
				continue
			}
			dir := t.TempDir()
			for name, text := range files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out := ffpod(t, dir, "render", ".")
			if out.err != nil || !strings.Contains(out.stdout, "kind: Deployment") {
				t.Errorf("%s, %s: %v: %s", p.name, heading, out.err, out.stderr)
			}
			built++
		}
	}
	if built == 0 {
		t.Error("no example was found")
	}
}

var fileName = regexp.MustCompile(`^# ([a-z-]+\.yaml)\b`)

// TestMessagesHaveRemedies: each line that the shim may print, as docs/shim.md
// lists them, and each check of the doctor stand in docs/troubleshooting.md.
func TestMessagesHaveRemedies(t *testing.T) {
	var told []string
	for _, s := range read(t, filepath.Join(root, "docs/troubleshooting.md")).spans {
		told = append(told, s.text)
	}
	shim := read(t, filepath.Join(root, "docs/shim.md"))
	messages := 0
	for _, s := range shim.spans {
		if s.row && strings.Contains(s.text, " ") && !strings.HasPrefix(s.text, "FFPOD") {
			messages++
			if !slices.Contains(told, s.text) {
				t.Errorf("docs/troubleshooting.md does not tell what to do at %q", s.text)
			}
		}
	}
	if messages < 8 {
		t.Errorf("only %d messages found in docs/shim.md", messages)
	}
	for _, check := range doctorChecks(t) {
		if !slices.Contains(told, check) {
			t.Errorf("docs/troubleshooting.md does not name the doctor's check %s", check)
		}
	}
}

// doctorChecks are the names in the doctor's table.
func doctorChecks(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "cmd/ffpod/doctor/checks.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`\{"([a-z-]+)", (?:true|false)`).FindAllSubmatch(text, -1) {
		names = append(names, string(m[1]))
	}
	if len(names) < 15 {
		t.Fatalf("only %v found in checks.go", names)
	}
	return names
}

// commands are the simple commands of a script, each with its words; what a shell
// would fill in is left as it is written. Command substitutions and both sides of
// a pipe are commands of their own.
func commands(script string) ([][]string, error) {
	file, err := syntax.NewParser().Parse(strings.NewReader(script), "")
	if err != nil {
		return nil, err
	}
	var all [][]string
	syntax.Walk(file, func(n syntax.Node) bool {
		if call, ok := n.(*syntax.CallExpr); ok && len(call.Args) > 0 {
			var words []string
			for _, w := range call.Args {
				words = append(words, word(w))
			}
			all = append(all, words)
		}
		return true
	})
	return all, nil
}

func word(w *syntax.Word) string {
	if lit := w.Lit(); lit != "" {
		return lit
	}
	var b bytes.Buffer
	for _, part := range w.Parts {
		switch part := part.(type) {
		case *syntax.Lit:
			b.WriteString(part.Value)
		case *syntax.SglQuoted:
			b.WriteString(part.Value)
		case *syntax.DblQuoted:
			b.WriteString(word(&syntax.Word{Parts: part.Parts}))
		default:
			b.WriteString("$")
		}
	}
	return b.String()
}

func TestCommands(t *testing.T) {
	c := checker{t: t, targets: makeTargets(t), objects: objectNames(t)}
	for _, words := range inits(t) {
		c.written = append(c.written, words[len(words)-1])
	}
	for _, p := range pages(t) {
		if p.name == "CHANGELOG.md" {
			continue
		}
		for _, b := range p.blocks {
			if b.language != "sh" {
				continue
			}
			c.at = fmt.Sprintf("%s:%d", p.name, b.line)
			c.script(strings.ReplaceAll("\n"+b.text, "\n$ ", "\n"), true)
		}
		for _, s := range p.spans {
			if starts.MatchString(s.text) {
				c.at = p.name
				c.script(s.text, false)
			}
		}
	}
	if c.seen["ffpod"] < 40 || c.seen["kubectl"] < 40 || c.seen["make"] < 10 {
		t.Errorf("too few commands found: %v", c.seen)
	}
}

// TestInit runs each `ffpod init` of the pages and builds what it wrote.
func TestInit(t *testing.T) {
	all := inits(t)
	if len(all) < 2 {
		t.Errorf("only %d commands found", len(all))
	}
	for _, words := range all {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "values.yaml"), []byte("jellyfin: {storage: {cache: {accessMode: ReadWriteMany}}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := ffpod(t, dir, words[1:]...); out.err != nil {
			t.Errorf("%s: %v: %s", strings.Join(words, " "), out.err, out.stderr)
		} else if out := ffpod(t, dir, "render", words[len(words)-1]); out.err != nil {
			t.Errorf("%s: then render: %v: %s", strings.Join(words, " "), out.err, out.stderr)
		}
	}
}

// inits are the `ffpod init` commands of the pages; the last word is the directory.
func inits(t *testing.T) [][]string {
	t.Helper()
	var found [][]string
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			all, err := commands(b.text)
			if b.language != "sh" || err != nil {
				continue
			}
			for _, words := range all {
				if len(words) > 2 && words[0] == "ffpod" && words[1] == "init" {
					found = append(found, words)
				}
			}
		}
	}
	return found
}

var starts = regexp.MustCompile(`^(ffpod|kubectl|kustomize build|make|go run|go test|skaffold) `)

type checker struct {
	t       *testing.T
	at      string
	targets []string
	written []string // directories that an `ffpod init` of these pages writes
	objects map[string]bool
	seen    map[string]int
}

func (c *checker) bad(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("%s: %s", c.at, fmt.Sprintf(format, args...))
}

func (c *checker) script(text string, block bool) {
	if !block {
		text = strings.ReplaceAll(strings.ReplaceAll(text, `\|`, "|"), "...", "")
		text = regexp.MustCompile(`(\w)\|(\w)`).ReplaceAllString(text, "$1,$2") // install shim|supervisor
	}
	all, err := commands(text)
	if err != nil {
		if block {
			c.bad("%v in %q", err, text)
		}
		return
	}
	if c.seen == nil {
		c.seen = map[string]int{}
	}
	for _, words := range all {
		if words[0] == "sudo" && len(words) > 1 {
			words = words[1:]
		}
		c.seen[words[0]]++
		switch words[0] {
		case "ffpod":
			c.ffpod(words[1:])
		case "kubectl":
			if len(words) > 1 && words[1] == "ffpod" {
				c.ffpod(words[2:])
			} else {
				c.kubectl(words[1:])
			}
		case "kustomize":
			for _, arg := range words[1:] {
				c.tree(arg)
			}
		case "make":
			for _, arg := range words[1:] {
				if !strings.Contains(arg, "=") && !slices.Contains(c.targets, arg) {
					c.bad("the Makefile has no target %s", arg)
				}
			}
		case "go":
			for _, arg := range words[1:] {
				if dir, ok := strings.CutPrefix(arg, "./"); ok {
					if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(dir, "/..."))); err != nil {
						c.bad("%v", err)
					}
				}
			}
		}
	}
}

// tree checks a directory of manifests: one of ours, here or by its URL.
func (c *checker) tree(arg string) {
	dir, ours := strings.CutPrefix(arg, "https://github.com/ffpod/ffpod//")
	dir, _, _ = strings.Cut(dir, "?")
	if !ours && !strings.HasPrefix(dir, "kustomize/") {
		return // a directory of the reader's
	}
	if _, err := os.Stat(filepath.Join(root, dir, "kustomization.yaml")); err != nil {
		c.bad("%v", err)
	}
}

// ffpod checks verb and flags against the binary's own help.
func (c *checker) ffpod(words []string) {
	verb := help(c.t, nil)
	for i := 0; i < len(words); i++ {
		arg := words[i]
		switch {
		case arg == "--":
			if i+1 < len(words) && strings.HasPrefix(verb.use, "ffpod run") && words[i+1] != "ffmpeg" && words[i+1] != "ffprobe" {
				c.bad("%s runs ffmpeg or ffprobe, not %s", verb.use, words[i+1])
			}
			return
		case strings.HasPrefix(arg, "-") && len(arg) > 1:
			name, value, given := strings.Cut(arg, "=")
			takes, there := verb.flags[name]
			if !there {
				c.bad("%s has no flag %s", verb.use, name)
				continue
			}
			if takes && !given && i+1 < len(words) {
				i++
				value = words[i]
			}
			if name == "--only" {
				for _, check := range strings.Split(value, ",") {
					if check != strings.ToUpper(check) && !slices.Contains(doctorChecks(c.t), check) {
						c.bad("doctor has no check %s", check)
					}
				}
			}
		case slices.Contains(verb.verbs, arg):
			verb = help(c.t, append(strings.Fields(verb.use)[1:], arg))
		case verb.use == "ffpod":
			c.bad("ffpod has no verb %s", arg)
			return
		case verb.use == "ffpod render" && !strings.ContainsAny(arg, "./") && arg != strings.ToUpper(arg):
			if arg != "cluster" && !slices.Contains(c.written, arg) && !slices.Contains(children(c.t, "kustomize/overlays"), arg) {
				c.bad("render %s: no overlay, and no directory that init has written", arg)
			}
		case verb.use == "ffpod jellyfin apply" && strings.Contains(arg, "=") && arg != strings.ToUpper(arg):
			dir := c.t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "config"), 0o700); err != nil {
				c.t.Fatal(err)
			}
			if out := ffpod(c.t, ".", "jellyfin", "apply", "--config", dir, "--dry-run", arg); out.err != nil {
				c.bad("%s", out.stderr)
			}
		}
	}
}

// kubectl checks what of it is ours: directories, and the names of objects.
func (c *checker) kubectl(words []string) {
	for i, arg := range words {
		if arg == "--" {
			if inner := words[i+1:]; len(inner) > 0 && path.Base(inner[0]) == "ffpod" {
				c.ffpod(inner[1:])
			}
			return
		}
		if arg == "-k" && i+1 < len(words) {
			c.tree(words[i+1])
		}
		kind, name, slash := strings.Cut(strings.TrimPrefix(arg, "--from="), "/")
		if kind, known := kinds[kind]; slash && known && ownName.MatchString(name) && !c.objects[kind+"/"+name] {
			c.bad("kubectl %s: no manifest here makes %s %s", strings.Join(words, " "), kind, name)
		}
	}
}

var ownName = regexp.MustCompile(`^(ffpod|jellyfin)(-[a-z0-9-]+)?$`)

var kinds = map[string]string{
	"deploy": "Deployment", "deployment": "Deployment", "statefulset": "StatefulSet", "cronjob": "CronJob",
	"svc": "Service", "service": "Service", "sa": "ServiceAccount", "serviceaccount": "ServiceAccount", "cm": "ConfigMap", "configmap": "ConfigMap", "secret": "Secret",
	"pvc": "PersistentVolumeClaim", "networkpolicy": "NetworkPolicy", "ingress": "Ingress",
}

// objectNames are KIND/NAME of all manifests of kustomize.
func objectNames(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(root, "kustomize"), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(file) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, doc := range strings.Split(string(text), "\n---\n") {
			var o struct {
				Kind     string
				Metadata struct{ Name string }
			}
			if yaml.Unmarshal([]byte(doc), &o) == nil && o.Metadata.Name != "" {
				all[o.Kind+"/"+o.Metadata.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Made from the template under these names, by a generator and by the API.
	for _, class := range children(t, "kustomize/classes") {
		if class != "template" {
			all["Deployment/ffpod-"+class] = true
		}
	}
	all["ConfigMap/ffpod-scheduler"] = true
	return all
}

func makeTargets(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllSubmatch(text, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

func children(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// ownSources are Go files, without tests, and manifests, as one text.
func ownSources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"cmd", "podexec", "scheduler", "kustomize", "test/cluster"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(file, "_test.go") || !slices.Contains([]string{".go", ".yaml"}, filepath.Ext(file)) {
				return err
			}
			text, err := os.ReadFile(file)
			all.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// built is the binary of this tree.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ffpod-docs-*")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "ffpod")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/ffpod")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := built(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

type result struct {
	stdout, stderr string
	err            error
}

func ffpod(t *testing.T, dir string, args ...string) result {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	err = cmd.Run()
	return result{out.String(), errs.String(), err}
}

// verbHelp is what the help of a verb says.
type verbHelp struct {
	use   string
	verbs []string
	flags map[string]bool // name → takes a value
}

var helps = map[string]verbHelp{}

func help(t *testing.T, verb []string) verbHelp {
	t.Helper()
	use := strings.Join(append([]string{"ffpod"}, verb...), " ")
	if h, ok := helps[use]; ok {
		return h
	}
	out := ffpod(t, ".", append(slices.Clone(verb), "--help")...)
	if out.err != nil || !strings.Contains(out.stdout, "\n  "+use) {
		t.Fatalf("%s --help: %v: %s", use, out.err, out.stdout)
	}
	h := verbHelp{use: use, flags: map[string]bool{}}
	_, list, _ := strings.Cut(out.stdout, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z-]+) `).FindAllStringSubmatch(list, -1) {
		h.verbs = append(h.verbs, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^  (?:    |(-[a-zA-Z]), )(--[a-z-]+)( [a-zA-Z0-9]+)? `).FindAllStringSubmatch(out.stdout, -1) {
		h.flags[m[2]] = m[3] != ""
		if m[1] != "" {
			h.flags[m[1]] = m[3] != ""
		}
	}
	helps[use] = h
	return h
}

func groupVersion(s string) schema.GroupVersion {
	gv, err := schema.ParseGroupVersion(s)
	if err != nil || s == "" {
		return schema.GroupVersion{Group: "none"}
	}
	return gv
}
