package data_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/jellyfin"
	cluster "github.com/ffpod/ffpod/test/kubectl"
	"github.com/ffpod/ffpod/test/manifests"
)

func TestData(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "data")
}

const (
	// Of docs/, whose commands name it.
	namespace = "jellyfin"

	specBound  = 6 * time.Minute
	readyBound = 4 * time.Minute
)

// client calls in the suite's namespace.
var client = cluster.New(namespace)

func do(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := client.Run(ctx, nil, args...)
	Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(out)
}

var _ = BeforeSuite(func(ctx SpecContext) {
	Expect(client.Local()).To(BeTrue(), "this suite works in namespace jellyfin, as the docs do, and so on the local cluster only: KUBECONFIG="+cluster.LocalConfig)
	remove(ctx)
	// Other suites have applied the policies with changes, and so own fields of them.
	do(ctx, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(manifests.Root(), "kustomize", "cluster"))
	load(ctx)
}, NodeTimeout(specBound))

// remove leaves nothing of the namespace, which a policy keeps.
func remove(ctx context.Context) {
	GinkgoHelper()
	_, _ = client.Run(ctx, nil, "label", "namespace", namespace, "ffpod.dev/keep-")
	do(ctx, "delete", "--ignore-not-found", "clusterrolebinding/jellyfin-ffpod-token-review", "namespace/"+namespace)
}

var _ = Describe("Jellyfin on SQLite, production-sqlite", Ordered, func() {
	keepsData("production-sqlite", sqlite{})
})

var _ = Describe("Jellyfin on PostgreSQL, production-postgres", Ordered, func() {
	BeforeAll(func(ctx SpecContext) { // what the cluster's admin has done, and the Secret
		perform(ctx, strings.ReplaceAll(script("install.md", "ffpod render cluster"), "media", namespace))
		do(ctx, "create", "secret", "generic", "jellyfin-database", "--from-literal=host=jellyfin-postgres", "--from-literal=port=5432",
			"--from-literal=database="+role, "--from-literal=username="+role, "--from-literal=password="+password)
	}, NodeTimeout(specBound))
	keepsData("production-postgres", postgres{})
})

func keepsData(overlay string, s store) {
	var tree string
	BeforeAll(func(ctx SpecContext) {
		tree = edited(overlay)
		do(ctx, "apply", "--server-side", "-k", tree)
		do(ctx, "apply", "--server-side", "-f", filepath.Join(manifests.Root(), "test", "data", "toolbox.yaml"))
		do(ctx, "wait", "--for=condition=Ready", "pod/toolbox", "--timeout=120s")
		fill(ctx)
	}, NodeTimeout(specBound))

	AfterAll(func(ctx SpecContext) {
		if os.Getenv("DATA_KEEP") != "1" {
			remove(ctx)
		}
	}, NodeTimeout(readyBound))

	AfterEach(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			for _, args := range [][]string{{"get", "pods,jobs,pvc", "-o", "wide"}, {"get", "events"}, {"logs", "-l", "app.kubernetes.io/component in (server,backup,restore,database)", "--all-containers", "--tail=30", "--prefix"}} {
				state, _ := client.Run(ctx, nil, args...)
				AddReportEntry(strings.Join(args, " "), state, ReportEntryVisibilityFailureOrVerbose)
			}
		}
	}, NodeTimeout(readyBound))

	It("is installed, and looked at, as docs/install.md says", func(ctx SpecContext) {
		perform(ctx, strings.ReplaceAll(script("install.md", "kubectl -n films rollout status"), "films", namespace))
		Expect(do(ctx, "get", "namespace", namespace, "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`)).To(Equal("restricted"))
		Expect(do(ctx, "get", "networkpolicies", "-o", "name")).To(ContainSubstring("jellyfin"))
	}, NodeTimeout(specBound))

	It("plays on a worker", func(ctx SpecContext) {
		order, err := json.Marshal(jellyfin.Order{
			Scenario: "progressive", Flavour: jellyfin.V12_0, FFmpeg: "/opt/ffpod/ffmpeg", Bare: "/usr/lib/jellyfin-ffmpeg/ffmpeg", Config: "/config",
			Within: 3 * time.Minute,
		})
		Expect(err).NotTo(HaveOccurred())
		out, err := client.Run(ctx, bytes.NewReader(order), "exec", "-i", "deploy/jellyfin", "-c", "jellyfin", "--", "env", "FFPOD_LOG=/tmp/decisions.log", "/jellyfin/simulator")
		Expect(err).NotTo(HaveOccurred())
		var report jellyfin.Report
		Expect(json.Unmarshal([]byte(out), &report)).To(Succeed(), "%.300q", out)
		Expect(report.Problems).To(BeEmpty())
		Expect(do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "cat", "/tmp/decisions.log")).To(ContainSubstring("remote"))
	}, NodeTimeout(specBound))

	It("gives the rights that docs/security.md shows, and scales as docs/scaling.md says", func(ctx SpecContext) {
		rights := perform(ctx, script("security.md", "kubectl -n jellyfin auth can-i --list"))
		Expect(rights).To(ContainSubstring("pods/exec"))
		perform(ctx, script("scaling.md", "kubectl -n jellyfin scale deployment/ffpod-cpu"))
		do(ctx, "scale", "deployment/ffpod-cpu", "--replicas=1")
	}, NodeTimeout(specBound))

	It("is backed up, keeps as many as it was told, and comes back, as docs/backup.md says", func(ctx SpecContext) {
		backup := func(word string) string {
			say(ctx, s, word)
			before := backups(ctx)
			log := perform(ctx, script("backup.md", "kubectl -n jellyfin create job backup-now"))
			after := backups(ctx)
			newest := after[len(after)-1]
			Expect(before).NotTo(ContainElement(newest))
			Expect(log).To(ContainSubstring(newest))
			return newest
		}
		first := backup("first")
		stop := func() {}
		if s, ok := s.(sqlite); ok {
			stop = s.write(ctx)
		}
		second := backup("second")
		stop()
		third := backup("third")
		Expect(backups(ctx)).To(Equal([]string{second, third}), "keep: 2; %s is too old", first)

		By("looking for the password in the newest")
		text := do(ctx, "exec", "toolbox", "--", "sh", "-c", "mkdir /tmp/x && tar -C /tmp/x -xzf /backup/"+third+" && ls -R /tmp/x && ! grep -r "+password+" /tmp/x")
		Expect(text).To(ContainSubstring("manifest.json"))
		if _, ok := s.(postgres); ok {
			Expect(do(ctx, "exec", "toolbox", "--", "grep", "-c", password, "/config/config/database.xml")).To(Equal("1"), "the password was not where the backup might have taken it from")
			Expect(text).To(ContainSubstring("postgres.dump"))
		}

		By("losing everything, and restoring the newest")
		lose(ctx, s)
		perform(ctx, script("backup.md", "kubectl -n jellyfin create job restore --from=cronjob/jellyfin-restore"))
		healthy(ctx)
		Expect(said(ctx, s)).To(HaveEach("third"))

		By("restoring the one before, by its name")
		named := strings.ReplaceAll(script("backup.md", "kubectl set env --local"), "jellyfin-20260102T030405Z.tar.gz", second)
		whole := strings.Split(script("backup.md", "kubectl -n jellyfin create job restore --from=cronjob/jellyfin-restore"), "\n")
		for i, line := range whole {
			if strings.Contains(line, "create job restore") {
				whole[i] = named
			}
		}
		perform(ctx, strings.Join(whole, "\n"))
		healthy(ctx)
		Expect(said(ctx, s)).To(HaveEach("second"))
		if _, ok := s.(sqlite); ok {
			began, ended := s.run(ctx, "SELECT count(*) || ' to ' || max(N) FROM Began"), s.run(ctx, "SELECT count(*) || ' to ' || max(N) FROM Ended")
			Expect(began).To(Equal(ended))
			Expect(began).NotTo(HavePrefix("0 "), "nothing was written while the backup was made")
			Expect(s.run(ctx, "PRAGMA integrity_check")).To(Equal("ok"))
		}
	}, NodeTimeout(specBound))

	It("answers what docs/troubleshooting.md and docs/quick-reference.md have one ask", func(ctx SpecContext) {
		for _, page := range []string{"troubleshooting.md", "quick-reference.md"} {
			for _, command := range questions(page) {
				By(command)
				perform(ctx, command)
			}
		}
	}, NodeTimeout(specBound))

	// Of the same release: the first apply changes nothing, and diff would say so.
	It("is applied anew as docs/upgrade.md says", func(ctx SpecContext) {
		perform(ctx, "cd "+filepath.Dir(tree)+"\n"+strings.ReplaceAll(script("upgrade.md", "ffpod render films | kubectl diff"), "films", namespace))
		do(ctx, "wait", "--for=condition=complete", "--timeout=180s", "job/backup-before")
	}, NodeTimeout(specBound))
}
