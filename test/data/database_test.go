package data_test

import (
	"context"
	"os/exec"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// The password that no backup may have, and the role's and database's name.
const (
	password = "correct-horse-battery-staple"
	role     = "jellyfin"
)

// store is where the rows are: Jellyfin's database.
type store interface {
	// run executes one statement, as Jellyfin, and returns the rows' first column.
	run(ctx context.Context, statement string) string
	// lose destroys the database while Jellyfin is stopped.
	lose(ctx context.Context)
}

type sqlite struct{}

const file = "/config/data/jellyfin.db"

func (sqlite) run(ctx context.Context, statement string) string {
	GinkgoHelper()
	return do(ctx, "exec", "deploy/jellyfin", "-c", "jellyfin", "--", "/jellyfin/sql", file, statement)
}

func (sqlite) lose(context.Context) {} // with /config

// write has Jellyfin's pod write, until stop.
func (sqlite) write(ctx context.Context) (stop func()) {
	GinkgoHelper()
	c := exec.CommandContext(ctx, client.Path, "-n", namespace, "exec", "-i", "deploy/jellyfin", "-c", "jellyfin", "--", "/jellyfin/sql", file)
	in, err := c.StdinPipe()
	Expect(err).NotTo(HaveOccurred())
	Expect(c.Start()).To(Succeed())
	return func() {
		GinkgoHelper()
		Expect(in.Close()).To(Succeed())
		Expect(c.Wait()).To(Succeed())
	}
}

type postgres struct{}

func (postgres) run(ctx context.Context, statement string) string {
	GinkgoHelper()
	return do(ctx, "exec", "jellyfin-postgres-0", "-c", "postgres", "--", "env", "PGPASSWORD="+password,
		"psql", "--host=127.0.0.1", "--username="+role, "--dbname="+role, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--command="+statement)
}

// lose leaves what a new cluster has: the server's preparation makes an empty one.
func (postgres) lose(ctx context.Context) {
	GinkgoHelper()
	do(ctx, "exec", "jellyfin-postgres-0", "-c", "postgres", "--", "psql", "-U", "postgres", "--command=DROP DATABASE "+role+" WITH (FORCE)")
	do(ctx, "rollout", "restart", "statefulset/jellyfin-postgres")
	do(ctx, "rollout", "status", "statefulset/jellyfin-postgres", "--timeout=180s")
}

// say puts one word into the database and into Jellyfin's settings, in place of the
// one before.
func say(ctx context.Context, s store, word string) {
	GinkgoHelper()
	s.run(ctx, "CREATE TABLE IF NOT EXISTS ffpod_words (word TEXT)")
	s.run(ctx, "DELETE FROM ffpod_words")
	s.run(ctx, "INSERT INTO ffpod_words VALUES ('"+word+"')")
	do(ctx, "exec", "toolbox", "--", "sh", "-c", "mkdir -p /config/metadata; echo '"+word+"' >/config/metadata/word; rm -f /config/metadata/only-*; echo >/config/metadata/only-"+word)
}

// said is the word of both.
func said(ctx context.Context, s store) []string {
	GinkgoHelper()
	return []string{s.run(ctx, "SELECT word FROM ffpod_words"), do(ctx, "exec", "toolbox", "--", "cat", "/config/metadata/word")}
}

// backups are the files on their claim, oldest first.
func backups(ctx context.Context) []string {
	GinkgoHelper()
	return strings.Fields(do(ctx, "exec", "toolbox", "--", "ls", "/backup"))
}

// lose is Jellyfin gone, and then its data.
func lose(ctx context.Context, s store) {
	GinkgoHelper()
	do(ctx, "scale", "deployment/jellyfin", "--replicas=0")
	do(ctx, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=server", "--timeout=120s")
	do(ctx, "exec", "toolbox", "--", "find", "/config", "-mindepth", "1", "-delete")
	s.lose(ctx)
}

// healthy waits for Jellyfin, by its own word: it is its readiness.
func healthy(ctx context.Context) {
	GinkgoHelper()
	Eventually(func() error {
		_, err := client.Run(ctx, nil, "rollout", "status", "deployment/jellyfin", "--timeout=120s")
		return err
	}).WithContext(ctx).WithTimeout(readyBound).WithPolling(time.Second).Should(Succeed())
}
