package backup

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the other process that has the database open: locks
// of one process do not keep out that process itself.
func TestMain(m *testing.M) {
	if file := os.Getenv("BACKUP_TEST_JELLYFIN"); file != "" {
		if err := jellyfin(file, os.Getenv("BACKUP_TEST_JOURNAL"), os.Getenv("BACKUP_TEST_LOSE") != ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// jellyfin has a database open as Jellyfin does and moves amounts between two
// tables until its input ends: their sum stays. It reports after each 50 rounds.
func jellyfin(file, journal string, lose bool) error {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(30000)&_pragma=journal_mode("+journal+")")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	for _, do := range []string{
		"CREATE TABLE IF NOT EXISTS a (id INTEGER PRIMARY KEY, n INTEGER, filler TEXT)", "CREATE TABLE IF NOT EXISTS b (id INTEGER PRIMARY KEY, n INTEGER)",
		"INSERT OR IGNORE INTO b VALUES (1, 0)", "PRAGMA wal_autocheckpoint=50",
	} {
		if _, err := db.Exec(do); err != nil {
			return err
		}
	}
	if lose { // what a migration of Jellyfin's has been seen to do: copy the file by its name
		if _, err := os.ReadFile(file); err != nil {
			return err
		}
	}
	end := make(chan struct{})
	go func() {
		defer close(end)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	for round := 1; ; round++ {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		for _, do := range []string{"INSERT INTO a (n, filler) VALUES (1, hex(randomblob(300)))", "UPDATE b SET n = n - 1"} {
			if _, err := tx.Exec(do); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if round%50 == 0 {
			fmt.Println(round)
		}
		select {
		case <-end:
			return nil // without closing, as a killed server
		default:
		}
	}
}

// other starts a jellyfin and waits until it has done some rounds.
func other(t *testing.T, file, journal string, lose bool) (rounds func(), stop func()) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "BACKUP_TEST_JELLYFIN="+file, "BACKUP_TEST_JOURNAL="+journal)
	if lose {
		c.Env = append(c.Env, "BACKUP_TEST_LOSE=1")
	}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan int, 1000)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(said)
		for {
			var n int
			if _, err := fmt.Fscanln(out, &n); err != nil {
				return
			}
			select {
			case said <- n:
			default:
			}
		}
	}()
	rounds = func() {
		t.Helper()
		for len(said) > 0 {
			<-said
		}
		for range 2 {
			select {
			case _, ok := <-said:
				if !ok {
					t.Fatal("the writer ended")
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the writer is stuck")
			}
		}
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		in.Close()
		<-read
		if err := c.Wait(); err != nil {
			t.Errorf("the writer: %v", err)
		}
	}
	t.Cleanup(stop)
	rounds()
	return rounds, stop
}

// balance is how many rounds a database holds; it fails if half a round is in it.
func balance(t *testing.T, file string) int {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var a, b int
	if err := db.QueryRow("SELECT (SELECT sum(n) FROM a), (SELECT n FROM b)").Scan(&a, &b); err != nil {
		t.Fatal(err)
	}
	if a+b != 0 || a == 0 {
		t.Errorf("%s holds %d and %d: no moment of the database", file, a, b)
	}
	return a
}

func query(t *testing.T, file, statement string) string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var s string
	if err := db.QueryRow(statement).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func execute(t *testing.T, file string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

func inode(t *testing.T, file string) string {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(file, &s); err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(s.Ino, 10)
}

// clock gives each call another second.
func clock() func() time.Time {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	return func() time.Time {
		at = at.Add(time.Second)
		return at
	}
}

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return c
}

// bench is an install and its backups.
type bench struct {
	config, to string
	environ    []string
	now        func() time.Time
	said       strings.Builder
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{config: t.TempDir(), to: t.TempDir(), now: clock()}
	if err := os.MkdirAll(filepath.Join(b.config, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) database() string { return filepath.Join(b.config, mainDatabase) }

func (b *bench) backup(t *testing.T, keep int) (string, error) {
	t.Helper()
	b.said.Reset()
	return Make{Config: b.config, To: b.to, Keep: keep, FFpod: "test", Environ: b.environ, Now: b.now, Report: &b.said}.Run(ctx(t))
}

func (b *bench) mustBackup(t *testing.T) string {
	t.Helper()
	file, err := b.backup(t, 3)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func (b *bench) restore(t *testing.T, from string) error {
	t.Helper()
	b.said.Reset()
	return Restore{From: from, Config: b.config, Environ: b.environ, Now: b.now, Report: &b.said}.Run(ctx(t))
}
