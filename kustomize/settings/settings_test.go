package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const head = `apiVersion: ffpod.dev/v1alpha1
kind: Settings
metadata: {name: settings, annotations: {config.kubernetes.io/local-config: "true"}}
`

// Every settings.yaml of the repository is a valid one, and the one with every
// setting there is leaves none out.
func TestFilesOfTheRepository(t *testing.T) {
	var files []string
	for _, pattern := range []string{"../overlays/*/settings.yaml", "../../test/manifests/testdata/*/settings.yaml"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	if len(files) < 8 {
		t.Fatalf("found only %v", files)
	}
	for _, file := range files {
		if _, err := Load(file); err != nil {
			t.Error(err)
		}
	}
}

func TestRefuses(t *testing.T) {
	cases := map[string]struct{ text, want string }{
		"unknown":         {head + "identity: {usr: 1}\n", "s.yaml:4: identity.usr: no such setting; the nearest is identity.user"},
		"unknown group":   {head + "storge: {}\n", "s.yaml:4: storge: no such setting; the nearest is storage"},
		"elsewhere":       {head + "media:\n  path: /x\n", "s.yaml:5: media.path: no such setting; the nearest is media.nfs.path"},
		"case":            {head + "jellyfin: {publishedServerURL: x}\n", "the nearest is jellyfin.publishedServerUrl"},
		"twice":           {head + "identity:\n  user: 1\n  user: 2\n", "s.yaml:6: identity.user: is given twice, also in line 5"},
		"null":            {head + "jellyfin: {baseUrl: }\n", "jellyfin.baseUrl: has no value"},
		"text for number": {head + "identity: {user: \"1000\"}\n", `identity.user: "1000" is a text; it takes a whole number`},
		"number for text": {head + "jellyfin:\n  environment:\n    LEVEL: 3\n", `s.yaml:6: jellyfin.environment.LEVEL: 3 is taken for a number; it takes a text: quote it, "3"`},
		"yes":             {head + "media: {readOnly: maybe}\n", `media.readOnly: "maybe" is a text; it takes true or false`},
		"list for map":    {head + "gpu: [nvidia]\n", "gpu: is a list; it takes a map"},
		"empty list":      {head + "identity: {supplementalGroups: []}\n", "identity.supplementalGroups: is empty, which kustomize takes for missing"},
		"empty map":       {head + "exposure: {ingress: {annotations: {}}}\n", "exposure.ingress.annotations: is empty"},
		"root":            {head + "identity: {user: 0}\n", "identity.user: 0; allowed: 1 to 2147483647"},
		"zone":            {head + "jellyfin: {environment: {TZ: Europe/Bonn}}\n", "jellyfin.environment.TZ: \"Europe/Bonn\"; allowed: a name of the time zone database"},
		"variable":        {head + "jellyfin: {environment: {\"A B\": x}}\n", `is no name of an environment variable`},
		"our variable":    {head + "jellyfin: {environment: {TMPDIR: /x}}\n", "jellyfin.environment.TMPDIR: is set by ffpod's own manifests"},
		"url":             {head + "jellyfin: {publishedServerUrl: jellyfin.example.org}\n", "jellyfin.publishedServerUrl: "},
		"base url":        {head + "jellyfin: {baseUrl: jellyfin/}\n", "jellyfin.baseUrl: "},
		"proxies":         {head + "jellyfin: {knownProxies: \"10.0.0.1,10.0.0.256\"}\n", `jellyfin.knownProxies: "10.0.0.256"`},
		"acceleration":    {head + "jellyfin: {hardwareAcceleration: cuda}\n", `"cuda"; allowed: none, nvenc, qsv, vaapi, amf, rkmpp, v4l2m2m`},
		"device":          {head + "jellyfin: {vaapiDevice: renderD128}\n", "jellyfin.vaapiDevice: \"renderD128\"; allowed: an absolute path"},
		"size":            {head + "storage: {config: {size: 20GB}}\n", `storage.config.size: "20GB"; allowed: an amount such as 20Gi`},
		"too small":       {head + "storage: {config: {size: 2Gi}}\n", `storage.config.size: "2Gi"; allowed: 3Gi or more`},
		"class name":      {head + "storage: {shared: {className: \"\"}}\n", "storage.shared.className: \"\"; allowed: an object's name"},
		"server":          {head + "media: {nfs: {server: \"nas:/export\"}}\n", "media.nfs.server: "},
		"path":            {head + "shared: {nfs: {path: export}}\n", "shared.nfs.path: \"export\"; allowed: an absolute path"},
		"options":         {head + "media: {nfs: {mountOptions: [\"hard,noatime\"]}}\n", "media.nfs.mountOptions.0: \"hard,noatime\"; allowed: one mount option per item"},
		"instances":       {head + "database: {instances: 2}\n", "database.instances: 2; allowed: 1 or 3"},
		"host":            {head + "exposure: {host: https://x.org}\n", "exposure.host: "},
		"same port":       {head + "exposure: {nodePort: {http: 30000, https: 30000}}\n", "exposure.nodePort.https: 30000 is exposure.nodePort.http, too"},
		"no device":       {head + "gpu: {nvidia: {slots: 1, resources: {limits: {cpu: 1}}}}\n", "gpu.nvidia.resources.limits: names no device; one of them must begin with nvidia.com/"},
		"half a device":   {head + "gpu: {amd: {resources: {limits: {amd.com/gpu: 500m}}}}\n", "gpu.amd.resources.limits.[amd.com/gpu]: \"500m\"; allowed: a whole number"},
		"over its limit":  {head + "gpu: {dra: {resources: {requests: {cpu: 2}, limits: {cpu: \"1\"}}}}\n", `gpu.dra.resources.requests.cpu: "2" is more than the limit "1"`},
		"slots":           {head + "gpu: {dra: {slots: 0}}\n", "gpu.dra.slots: 0; allowed: 1 to 1000"},
		"node":            {head + "nodes: {workers: [\"a b\"]}\n", "nodes.workers.0: \"a b\"; allowed: a node's label"},
		"protocol":        {head + "network: {jellyfinEgress: [{port: 80, protocol: tcp}]}\n", "network.jellyfinEgress.0.protocol: \"tcp\"; allowed: TCP, UDP, SCTP"},
		"no port":         {head + "network: {jellyfinEgress: [{protocol: TCP}]}\n", "network.jellyfinEgress.0.port: is missing"},
		"schedule":        {head + "backup: {schedule: daily}\n", "backup.schedule: \"daily\"; allowed: five fields as in cron"},
		"keep":            {head + "backup: {keep: 0}\n", "backup.keep: 0; allowed: 1 to 10000"},
		"issuer":          {head + "certificates: {issuer: {kind: cert-manager.io/Issuer}}\n", "certificates.issuer.kind: "},
		"local config":    {"apiVersion: ffpod.dev/v1alpha1\nkind: Settings\nmetadata: {name: settings}\n", "local-config]: must be \"true\""},
		"name":            {strings.Replace(head, "name: settings", "name: mine", 1), "metadata.name: \"mine\"; allowed: settings"},
		"version":         {strings.Replace(head, "v1alpha1", "v1", 1), "apiVersion: \"ffpod.dev/v1\"; allowed: ffpod.dev/v1alpha1"},
		"no YAML":         {"a: [", "s.yaml: yaml: "},
		"two":             {head + "---\n" + head, "more than one YAML document"},
		"empty":           {"", "s.yaml: is empty"},
		"a list":          {"- x\n", "is a list; it takes a map"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("s.yaml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

// All problems of a file are told at once, in the file's order.
func TestAllProblems(t *testing.T) {
	_, err := Parse("s.yaml", []byte(head+"nodes: {workers: [\"\"]}\nidentity: {user: 0}\nbackup: {keep: -1}\n"))
	problems, ok := err.(Problems)
	if !ok || len(problems) != 3 || problems[0].Line != 4 || problems[1].Line != 5 || problems[2].Line != 6 {
		t.Errorf("%v", err)
	}
}

// What is written is read again as it was, and each setting is described.
func TestMarshal(t *testing.T) {
	all, err := Load("../../test/manifests/testdata/all/settings.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := all.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("written", text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if diff := cmp.Diff(all, again); diff != "" {
		t.Error(diff)
	}
	folded := strings.Join(strings.Fields(strings.ReplaceAll(string(text), "#", "")), " ")
	for _, f := range Fields() {
		if f.Path == "" || f.Doc == "" {
			t.Errorf("%+v is not described", f)
		}
		if strings.HasPrefix(f.Path, "storage.") && !strings.Contains(folded, f.Doc) {
			t.Errorf("%s is not described in\n%s", f.Path, text)
		}
	}
}

func TestDefault(t *testing.T) {
	s := Default()
	text, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse("default", text); err != nil {
		t.Error(err)
	}
	if os.Getenv("SHOW") != "" {
		t.Logf("\n%s", text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head))
	all, err := os.ReadFile("../../test/manifests/testdata/all/settings.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse("s.yaml", text)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse("s.yaml", again); err != nil {
			t.Fatalf("%v in\n%s\nmade from\n%s", err, again, text)
		}
	})
}
