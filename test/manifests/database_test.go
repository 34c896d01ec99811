package manifests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// workloads are the pods' templates of everything in a tree, by kind and name.
func workloads(t *testing.T, all []*unstructured.Unstructured) map[string]corev1.PodTemplateSpec {
	t.Helper()
	out := map[string]corev1.PodTemplateSpec{}
	for _, d := range typed[appsv1.Deployment](t, all, "Deployment") {
		out["Deployment "+d.Name] = d.Spec.Template
	}
	for _, s := range typed[appsv1.StatefulSet](t, all, "StatefulSet") {
		out["StatefulSet "+s.Name] = s.Spec.Template
	}
	for _, c := range typed[batchv1.CronJob](t, all, "CronJob") {
		out["CronJob "+c.Name] = c.Spec.JobTemplate.Spec.Template
	}
	return out
}

func containers(p corev1.PodSpec) []corev1.Container {
	return slices.Concat(p.InitContainers, p.Containers)
}

// What TestPods asks of Deployments, of everything else that has pods.
func TestPodsOfOtherWorkloads(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for name, dir := range trees {
		all := objects(t, dir)
		known := map[string]bool{}
		for _, o := range all {
			known[o.GetKind()+" "+o.GetName()] = true
		}
		for workload, template := range workloads(t, all) {
			if strings.HasPrefix(workload, "Deployment ") {
				continue
			}
			t.Run(name+"/"+workload, func(t *testing.T) {
				for _, result := range evaluator.EvaluatePod(restricted, &template.ObjectMeta, &template.Spec) {
					if !result.Allowed {
						t.Errorf("Pod Security restricted: %s: %s", result.ForbiddenReason, result.ForbiddenDetail)
					}
				}
				for _, c := range containers(template.Spec) {
					checkContainer(t, c)
				}
				if workload == "StatefulSet jellyfin-postgres" {
					// The image's own user; everything else is the same.
					if s := template.Spec.SecurityContext; *s.RunAsUser != 999 || *s.RunAsGroup != 999 || *s.FSGroup != 999 {
						t.Errorf("security context %v", s)
					}
					user := int64(1000)
					template.Spec.SecurityContext.RunAsUser, template.Spec.SecurityContext.RunAsGroup = &user, &user
				}
				checkPod(t, template.Spec)
				if *template.Spec.AutomountServiceAccountToken {
					t.Error("it gets a token")
				}
				for _, v := range template.Spec.Volumes {
					switch {
					case v.PersistentVolumeClaim != nil && !known["PersistentVolumeClaim "+v.PersistentVolumeClaim.ClaimName]:
						t.Errorf("claim %s is not rendered", v.PersistentVolumeClaim.ClaimName)
					case v.ConfigMap != nil && !known["ConfigMap "+v.ConfigMap.Name]:
						t.Errorf("ConfigMap %s is not rendered", v.ConfigMap.Name)
					}
				}
			})
		}
	}
}

var (
	secretEnv     = regexp.MustCompile(`(?i)passw|secret|token|credential`)
	secretLiteral = regexp.MustCompile(`(?i)(password|passwd|secret|token)(\s*=\s*|:\s+|"\s*:\s*)["']?[^\s"'$:%,(){}\[]`)
)

// No Secret has a value in a tree, and whatever is called a password comes from a
// Secret.
func TestNoPasswordInATree(t *testing.T) {
	for name, dir := range trees {
		all := objects(t, dir)
		for _, o := range all {
			if o.GetKind() != "Secret" {
				continue
			}
			for _, field := range []string{"data", "stringData"} {
				if _, ok := o.Object[field]; ok {
					t.Errorf("%s: Secret %s has %s", name, o.GetName(), field)
				}
			}
		}
		for workload, template := range workloads(t, all) {
			for _, c := range containers(template.Spec) {
				for _, e := range c.Env {
					if secretEnv.MatchString(e.Name) && (e.Value != "" || e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil) {
						t.Errorf("%s: %s: %s does not come from a Secret", name, workload, e.Name)
					}
				}
			}
		}
		for _, m := range typed[corev1.ConfigMap](t, all, "ConfigMap") {
			for key, value := range m.Data {
				if secretEnv.MatchString(key) || secretLiteral.MatchString(value) {
					t.Errorf("%s: ConfigMap %s: %s looks like a secret", name, m.Name, key)
				}
			}
		}
	}
}

func TestSecretLiteral(t *testing.T) {
	for text, want := range map[string]bool{
		"Password=hunter2;Host=db":                  true,
		"password: 'x'":                             true,
		`{"token": "abc"}`:                          true,
		`ALTER ROLE :"username" PASSWORD :'secret'`: false,
		"POSTGRES_PASSWORD: $(openssl rand)":        false,
	} {
		if got := secretLiteral.MatchString(text); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// environment is where a container's variables come from: SECRET/KEY.
func environment(c corev1.Container) map[string]string {
	out := map[string]string{}
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			out[e.Name] = e.ValueFrom.SecretKeyRef.Name + "/" + e.ValueFrom.SecretKeyRef.Key
		}
	}
	return out
}

// Jellyfin, its backups and the way back ask the same server, by the same Secret;
// nobody else has the password.
func TestDatabase(t *testing.T) {
	keys := func(secret, database string) []string {
		return []string{secret + "/host", secret + "/port", secret + "/" + database, secret + "/username", secret + "/password"}
	}
	for name, want := range map[string][]string{
		"postgres":          keys("jellyfin-database", "database"),
		"postgres-external": keys("team-database", "database"),
		"postgres-cnpg":     keys("jellyfin-postgres-app", "dbname"),
	} {
		t.Run(name, func(t *testing.T) {
			for workload, template := range workloads(t, objects(t, trees[name])) {
				for _, c := range containers(template.Spec) {
					got := environment(c)
					var names []string
					switch {
					case workload == "Deployment jellyfin" && c.Name == "jellyfin":
						names = []string{"POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD"}
						if c.Image != "ghcr.io/jpvenson/jellyfin.pgsql:10.11.11-1" || !slices.Equal(c.Command, []string{"/entrypoint.sh"}) || template.Spec.NodeSelector["kubernetes.io/arch"] != "amd64" {
							t.Errorf("Jellyfin runs %s %v on %v", c.Image, c.Command, template.Spec.NodeSelector)
						}
					case workload == "CronJob jellyfin-backup" && c.Name == "backup", workload == "CronJob jellyfin-restore" && c.Name == "restore":
						names = []string{"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"}
						if c.Image != "postgres:18" {
							t.Errorf("%s runs %s, which has no pg_dump", workload, c.Image)
						}
					case workload == "StatefulSet jellyfin-postgres" && c.Name == "prepare":
						if diff := cmp.Diff(map[string]string{"JELLYFIN_DATABASE": want[2], "JELLYFIN_USERNAME": want[3], "JELLYFIN_PASSWORD": want[4]}, got); diff != "" {
							t.Errorf("prepare (-want +got):\n%s", diff)
						}
						continue
					}
					expected := map[string]string{}
					for i, n := range names {
						expected[n] = want[i]
					}
					if diff := cmp.Diff(expected, got); diff != "" {
						t.Errorf("%s, container %s (-want +got):\n%s", workload, c.Name, diff)
					}
				}
			}
			for _, s := range typed[corev1.Service](t, objects(t, trees[name]), "Service") {
				if s.Name == "postgres" {
					t.Error("a Service called postgres sets POSTGRES_PORT in every pod beside it")
				}
			}
		})
	}
}

func TestPostgresServer(t *testing.T) {
	all := objects(t, trees["postgres"])
	set := typed[appsv1.StatefulSet](t, all, "StatefulSet")[0]
	mounts := map[string]string{}
	for _, c := range containers(set.Spec.Template.Spec) {
		var data string
		for _, e := range c.Env {
			if e.Name == "PGDATA" {
				data = e.Value
			}
		}
		for _, m := range c.VolumeMounts {
			mounts[m.MountPath] = m.Name
		}
		// Below the mount: a volume's root may have a lost+found, and a mode that
		// the server refuses. With the release: another finds none of its own.
		if data != "/var/lib/postgresql/18/docker" || mounts["/var/lib/postgresql"] != "data" {
			t.Errorf("%s keeps its data in %s, mounts %v", c.Name, data, mounts)
		}
		if c.Image != "postgres:18" {
			t.Errorf("%s runs %s", c.Name, c.Image)
		}
	}
	pods := map[string]labels.Set{}
	for workload, template := range workloads(t, all) {
		pods[workload] = template.Labels
	}
	for _, s := range typed[corev1.Service](t, all, "Service") {
		for workload, set := range pods {
			want := s.Name == "jellyfin" && workload == "Deployment jellyfin" || s.Name == "jellyfin-postgres" && workload == "StatefulSet jellyfin-postgres" ||
				s.Name == "ffpod-scheduler" && workload == "Deployment ffpod-scheduler"
			if got := selects(t, &metav1.LabelSelector{MatchLabels: s.Spec.Selector}, set); got != want {
				t.Errorf("Service %s selects pods of %s: %v", s.Name, workload, got)
			}
		}
	}
	for _, p := range typed[networkingv1.NetworkPolicy](t, all, "NetworkPolicy") {
		if p.Name != "jellyfin-postgres" {
			continue
		}
		if len(p.Spec.Egress) != 0 || len(p.Spec.PolicyTypes) != 2 {
			t.Errorf("the database may speak to others: %v", p.Spec)
		}
		for workload, set := range pods {
			if got := selects(t, &p.Spec.PodSelector, set); got != (workload == "StatefulSet jellyfin-postgres") {
				t.Errorf("the policy is about pods of %s: %v", workload, got)
			}
			want := workload == "Deployment jellyfin" || strings.HasPrefix(workload, "CronJob jellyfin-")
			if got := selects(t, p.Spec.Ingress[0].From[0].PodSelector, set); got != want {
				t.Errorf("pods of %s are let in: %v", workload, got)
			}
		}
	}
}

// A backup runs where Jellyfin does, and where it does not run, too; a restore
// nowhere while either runs.
func TestBackupPlacement(t *testing.T) {
	for _, name := range []string{"backup", "postgres", "postgres-external", "postgres-cnpg"} {
		t.Run(name, func(t *testing.T) {
			all := workloads(t, objects(t, trees[name]))
			jellyfin, backup, restore := all["Deployment jellyfin"], all["CronJob jellyfin-backup"], all["CronJob jellyfin-restore"]
			near := backup.Spec.Affinity.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0]
			if near.TopologyKey != "kubernetes.io/hostname" || !selects(t, near.LabelSelector, jellyfin.Labels) || !selects(t, near.LabelSelector, backup.Labels) {
				t.Errorf("a backup goes to %v", near)
			}
			away := restore.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0]
			if away.TopologyKey != "kubernetes.io/os" || !selects(t, away.LabelSelector, jellyfin.Labels) || !selects(t, away.LabelSelector, backup.Labels) || selects(t, away.LabelSelector, restore.Labels) {
				t.Errorf("a restore stays away from %v", away)
			}
			claim := func(p corev1.PodSpec) string {
				for _, v := range p.Volumes {
					if v.Name == "config" {
						return v.PersistentVolumeClaim.ClaimName
					}
				}
				return ""
			}
			if c := claim(jellyfin.Spec); c == "" || claim(backup.Spec) != c || claim(restore.Spec) != c {
				t.Error("they do not mount Jellyfin's claim")
			}
			for _, template := range []corev1.PodTemplateSpec{backup, restore} {
				mine, yours := template.Spec.SecurityContext, jellyfin.Spec.SecurityContext
				if diff := cmp.Diff(yours, mine); diff != "" {
					t.Errorf("another identity (-Jellyfin +this):\n%s", diff)
				}
			}
		})
	}
}

// Each setting reaches its place.
func TestBackupSettings(t *testing.T) {
	all := objects(t, trees["backup"])
	for _, c := range typed[batchv1.CronJob](t, all, "CronJob") {
		switch c.Name {
		case "jellyfin-backup":
			args := c.Spec.JobTemplate.Spec.Template.Spec.Containers[0].Args
			if c.Spec.Schedule != "15 4 * * 0" || *c.Spec.TimeZone != "Europe/Zurich" || !slices.Equal(args, []string{"--keep=5"}) || c.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent {
				t.Errorf("%+v, %v", c.Spec, args)
			}
		case "jellyfin-restore":
			if c.Spec.Suspend == nil || !*c.Spec.Suspend {
				t.Error("a restore may begin by itself")
			}
		}
	}
	for _, p := range typed[corev1.PersistentVolumeClaim](t, all, "PersistentVolumeClaim") {
		if size := p.Spec.Resources.Requests[corev1.ResourceStorage]; p.Name == "jellyfin-backup" && size.String() != "33Gi" {
			t.Errorf("the claim has %s", &size)
		}
	}
	for name, want := range map[string]string{"postgres": "11Gi", "postgres-cnpg": "12Gi"} {
		var got string
		for _, o := range objects(t, trees[name]) {
			switch o.GetKind() + " " + o.GetName() {
			case "PersistentVolumeClaim jellyfin-postgres":
				got, _, _ = unstructured.NestedString(o.Object, "spec", "resources", "requests", "storage")
			case "Cluster jellyfin-postgres":
				got, _, _ = unstructured.NestedString(o.Object, "spec", "storage", "size")
				if n := o.Object["spec"].(map[string]any)["instances"]; n != 3 { // a number, no text
					t.Errorf("%#v instances", n)
				}
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// What GitOps and `kubectl delete -k` must not take: claims and the operator's
// cluster.
func TestDatabasesAreKept(t *testing.T) {
	for _, name := range []string{"backup", "postgres", "postgres-cnpg"} {
		for _, o := range objects(t, trees[name]) {
			if k := o.GetKind(); k != "PersistentVolumeClaim" && k != "Cluster" {
				continue
			}
			a := o.GetAnnotations()
			if a["argocd.argoproj.io/sync-options"] != "Prune=false,Delete=false" || a["kustomize.toolkit.fluxcd.io/prune"] != "disabled" {
				t.Errorf("%s: %s %s is pruned", name, o.GetKind(), o.GetName())
			}
			if o.GetKind() == "PersistentVolumeClaim" && o.GetLabels()["ffpod.dev/keep"] != "true" {
				t.Errorf("%s: claim %s is deleted with the tree", name, o.GetName())
			}
		}
	}
}

// Two databases, or a setting that is missing, stop the build with the name.
func TestDatabaseRefuses(t *testing.T) {
	settings, err := os.ReadFile(filepath.Join(Root(), "test/manifests/testdata/all/settings.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		components []string
		without    string
		want       string
	}{
		"two databases":     {[]string{"postgres", "postgres-external"}, "", "only-one-of-postgres-postgres-external-postgres-cnpg"},
		"no size":           {[]string{"postgres"}, "  size: 11Gi\n", "database.size"},
		"no Secret's name":  {[]string{"postgres-external"}, "  external: {secretName: team-database}\n", "database.external.secretName"},
		"no schedule":       {[]string{"backup"}, "  schedule: \"15 4 * * 0\"\n", "backup.schedule"},
		"both backups":      {[]string{"postgres", "backup", "backup-postgres"}, "", "jellyfin-backup"},
		"no database first": {[]string{"backup-postgres"}, "", "POSTGRES_HOST"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			root, err := filepath.Rel(dir, Root())
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Replace(string(settings), c.without, "", 1)
			if c.without != "" && text == string(settings) {
				t.Fatalf("%q is not in the settings", c.without)
			}
			kustomization := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [settings.yaml, " + root + "/kustomize/base, " + root + "/kustomize/jellyfin]\ncomponents:\n"
			for _, component := range c.components {
				kustomization += "- " + root + "/kustomize/components/" + component + "\n"
			}
			for file, text := range map[string]string{"settings.yaml": text, "kustomization.yaml": kustomization} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := render(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
