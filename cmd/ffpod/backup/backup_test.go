package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sqliteXML = "<DatabaseConfigurationOptions><DatabaseType>Jellyfin-SQLite</DatabaseType><LockingBehavior>NoLock</LockingBehavior></DatabaseConfigurationOptions>"

// A server writes all the time; each backup is one moment of it, a later one
// has more, and after a restore the newest is there.
func TestWhileTheServerWrites(t *testing.T) {
	for _, journal := range []string{"WAL", "DELETE"} {
		t.Run(journal, func(t *testing.T) {
			b := newBench(t)
			rounds, stop := other(t, b.database(), journal, false)
			var last int
			var newest string
			for range 5 {
				rounds()
				newest = b.mustBackup(t)
				dir := t.TempDir()
				if _, err := unpack(ctx(t), newest, dir); err != nil {
					t.Fatal(err)
				}
				n := balance(t, filepath.Join(dir, treeName, mainDatabase))
				if n <= last {
					t.Errorf("%d rounds, the backup before had %d", n, last)
				}
				last = n
			}
			rounds() // it still can write

			if err := b.restore(t, b.to); err == nil || !strings.Contains(err.Error(), "in use: stop Jellyfin first") {
				t.Fatalf("restored under a running server: %v", err)
			}
			stop()
			if n := balance(t, b.database()); n <= last {
				t.Fatalf("a refused restore changed the database: %d rounds of %d", n, last)
			}
			execute(t, b.database(), "DELETE FROM a")
			if err := b.restore(t, b.to); err != nil {
				t.Fatal(err)
			}
			if n := balance(t, b.database()); n != last {
				t.Errorf("restored %d rounds, backed up %d", n, last)
			}
			if !strings.Contains(b.said.String(), "restored 1 files of "+newest) {
				t.Error(b.said.String())
			}
		})
	}
}

// A server that lost its locks still has its write-ahead log after a backup.
func TestLogOfAServerWithoutLocks(t *testing.T) {
	b := newBench(t)
	rounds, stop := other(t, b.database(), "WAL", true)
	before := inode(t, b.database()+"-wal")
	for range 3 {
		b.mustBackup(t)
		rounds()
	}
	if after := inode(t, b.database()+"-wal"); after != before {
		t.Error("the log was replaced under the server")
	}
	n := balance(t, b.database()) // while it is open
	stop()
	if m := balance(t, b.database()); m < n {
		t.Errorf("%d rounds, then %d", n, m)
	}
}

// What a killed server left in its log is in the backup.
func TestBackupOfAStoppedServer(t *testing.T) {
	b := newBench(t)
	_, stop := other(t, b.database(), "WAL", false)
	stop()
	if info, err := os.Stat(b.database() + "-wal"); err != nil || info.Size() == 0 {
		t.Fatal("the log is empty: the test proves nothing")
	}
	dir := t.TempDir()
	if _, err := unpack(ctx(t), b.mustBackup(t), dir); err != nil {
		t.Fatal(err)
	}
	if got, want := balance(t, filepath.Join(dir, treeName, mainDatabase)), balance(t, b.database()); got != want {
		t.Errorf("%d rounds, want %d", got, want)
	}
}

// example is an install with something of everything.
func example(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	execute(t, b.database(), "PRAGMA journal_mode=WAL", "CREATE TABLE Users (Name TEXT)", "INSERT INTO Users VALUES ('ann')")
	execute(t, filepath.Join(b.config, "data/playback_reporting.db"), "CREATE TABLE t (x TEXT)", "INSERT INTO t VALUES ('plug-in')")
	write(t, b.config, map[string]string{
		"config/database.xml":                      sqliteXML,
		"config/system.xml":                        "<ServerConfiguration><PreviousVersionStr>10.11.11</PreviousVersionStr></ServerConfiguration>",
		"config/network.xml":                       "<NetworkConfiguration>\n  <CertificatePassword>p&amp;ss word</CertificatePassword>\n  <BaseUrl>/x</BaseUrl>\n</NetworkConfiguration>",
		"config/cert.pfx":                          "binary",
		"config/site.pem":                          "-----BEGIN EC PRIVATE KEY-----\nxyz\n",
		"config/users/ann/profile.png":             "\x89PNG",
		"config/broken.xml":                        "<a><Password>hidden</a>",
		"plugins/configurations/LDAP.xml":          "<C><LdapBindPassword>deep-secret</LdapBindPassword><LdapServer>ldap.example</LdapServer></C>",
		"plugins/configurations/other.yaml":        "password: yaml-secret",
		"plugins/LDAP_1.0/LDAP.dll":                "MZ",
		"metadata/library/ab/poster.jpg":           strings.Repeat("jpeg", 2<<20), // more than is kept in memory
		"data/playlists/one/playlist.xml":          "<Item/>",
		"data/ScheduledTasks/x.js":                 "[]",
		"data/subtitles/a/b.srt":                   "regenerable",
		"data/trickplay/a/0.jpg":                   "regenerable",
		"data/SQLiteBackups/20260101_jellyfin.db":  "old-secret",
		"log/log_20260102.log":                     "regenerable",
		"cache/images/a":                           "regenerable",
		".aspnet/DataProtection-Keys/key-1.xml":    "<key>aspnet-secret</key>",
		own + "before-20250101T000000Z/config/old": "restore-secret",
	})
	if err := os.Symlink("/etc", filepath.Join(b.config, "metadata/elsewhere")); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestContent(t *testing.T) {
	b := example(t)
	file := b.mustBackup(t)
	m, err := Verify(ctx(t), file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Path)
	}
	if diff := cmp.Diff([]string{
		"config/config/database.xml", "config/config/network.xml", "config/config/system.xml", "config/config/users/ann/profile.png",
		"config/data/ScheduledTasks/x.js", "config/data/jellyfin.db", "config/data/playback_reporting.db", "config/data/playlists/one/playlist.xml",
		"config/metadata/library/ab/poster.jpg", "config/plugins/LDAP_1.0/LDAP.dll", "config/plugins/configurations/LDAP.xml",
	}, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	var leftOut []string
	for _, l := range m.Left {
		if l.Why == "" || !strings.Contains(b.said.String(), "left out: "+l.Path+", "+l.Why+"\n") {
			t.Errorf("%s: no reason is told", l.Path)
		}
		leftOut = append(leftOut, l.Path)
	}
	slices.Sort(leftOut)
	if diff := cmp.Diff([]string{
		".aspnet", own + "before-20250101T000000Z", "cache", "config/broken.xml", "config/cert.pfx", "config/site.pem", "data/SQLiteBackups",
		"data/subtitles", "data/trickplay", "log", "metadata/elsewhere", "plugins/configurations/other.yaml",
	}, leftOut); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Blanked{
		{Path: "config/network.xml", Names: []string{"CertificatePassword"}},
		{Path: "plugins/configurations/LDAP.xml", Names: []string{"LdapBindPassword"}},
	}, m.Blanked); diff != "" {
		t.Errorf("blanked (-want +got):\n%s", diff)
	}
	if m.Jellyfin != "10.11.11" || m.Engine != SQLite || m.FFpod != "test" || !slices.Equal(m.Databases, []string{"data/jellyfin.db", "data/playback_reporting.db"}) {
		t.Errorf("manifest %+v", m)
	}
	for _, secret := range []string{"p&amp;ss", "deep-secret", "yaml-secret", "aspnet-secret", "old-secret", "restore-secret", "hidden", "PRIVATE KEY", "regenerable"} {
		if bytes.Contains(plain(t, file), []byte(secret)) {
			t.Errorf("the backup holds %q", secret)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(b.to); len(entries) != 2 { // the backup and the lock
		t.Errorf("left in the directory of backups: %v", entries)
	}
}

// plain is the archive's bytes, decompressed.
func plain(t *testing.T, file string) []byte {
	t.Helper()
	zip, err := gzip.NewReader(strings.NewReader(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// After damage to everything, a restore brings back what was backed up, keeps
// what it replaces, and leaves what is not its own.
func TestRestore(t *testing.T) {
	b := example(t)
	b.mustBackup(t)
	later := b.database() + "-wal"
	write(t, b.config, map[string]string{
		"config/network.xml":             "damaged",
		"metadata/library/ab/poster.jpg": "damaged",
		"data/jellyfin.db":               "damaged",
		"data/new.txt":                   "made since",
		"cache/images/a":                 "mine",
	})
	write(t, "", map[string]string{later: "a log of something else"})
	if err := os.RemoveAll(filepath.Join(b.config, "plugins")); err != nil {
		t.Fatal(err)
	}
	if err := b.restore(t, b.to); err != nil {
		t.Fatal(err)
	}
	if exists(later) {
		t.Error("the old database's log lies beside the new one")
	}
	if got := query(t, b.database(), "SELECT Name FROM Users"); got != "ann" {
		t.Errorf("user %q", got)
	}
	if got := query(t, filepath.Join(b.config, "data/playback_reporting.db"), "SELECT x FROM t"); got != "plug-in" {
		t.Errorf("plug-in's database: %q", got)
	}
	for name, want := range map[string]string{
		"config/network.xml":              "<NetworkConfiguration>\n  <CertificatePassword></CertificatePassword>\n  <BaseUrl>/x</BaseUrl>\n</NetworkConfiguration>",
		"metadata/library/ab/poster.jpg":  strings.Repeat("jpeg", 2<<20),
		"plugins/configurations/LDAP.xml": "<C><LdapBindPassword></LdapBindPassword><LdapServer>ldap.example</LdapServer></C>",
		"plugins/LDAP_1.0/LDAP.dll":       "MZ",
		"data/new.txt":                    "made since",
		"cache/images/a":                  "mine",
		"config/cert.pfx":                 "binary",
	} {
		if got := read(t, filepath.Join(b.config, name)); got != want {
			t.Errorf("%s: %.100q", name, got)
		}
	}
	kept, _ := filepath.Glob(filepath.Join(b.config, own+"before-2026*"))
	if len(kept) != 1 || read(t, filepath.Join(kept[0], "config/network.xml")) != "damaged" || !exists(filepath.Join(kept[0], "data/jellyfin.db-wal")) {
		t.Errorf("kept: %v", kept)
	}
	for _, want := range []string{"restored 11 files", "by Jellyfin 10.11.11", "enter again, for secrets are not backed up: CertificatePassword of config/network.xml", kept[0]} {
		if !strings.Contains(b.said.String(), want) {
			t.Errorf("%q is not told in:\n%s", want, &b.said)
		}
	}
	if exists(filepath.Join(b.config, own+"restore")) {
		t.Error("the staged files are still there")
	}
}

// A new, empty volume: the disaster that backups are for.
func TestRestoreIntoNothing(t *testing.T) {
	b := example(t)
	file := b.mustBackup(t)
	b.config = filepath.Join(t.TempDir(), "new")
	if err := b.restore(t, file); err != nil {
		t.Fatal(err)
	}
	if got := query(t, b.database(), "SELECT Name FROM Users"); got != "ann" {
		t.Errorf("user %q", got)
	}
	if kept, _ := filepath.Glob(filepath.Join(b.config, own+"*")); len(kept) != 0 {
		t.Errorf("left: %v", kept)
	}
}

func TestRestoreRefuses(t *testing.T) {
	whole := example(t)
	good := read(t, whole.mustBackup(t))
	cases := map[string]struct{ text, want string }{
		"cut":             {good[:len(good)-200], "no whole backup"},
		"cut at the part": {repack(t, good, func(h *tar.Header, text []byte) []byte { return drop(h.Name == manifestName, text) }), "it ends before manifest.json"},
		"a flipped bit": {repack(t, good, func(h *tar.Header, text []byte) []byte {
			if h.Name == "config/data/playlists/one/playlist.xml" {
				text[2] ^= 1
			}
			return text
		}), "config/data/playlists/one/playlist.xml is not what was backed up"},
		"a missing part": {repack(t, good, func(h *tar.Header, text []byte) []byte { return drop(h.Name == "config/data/jellyfin.db", text) }), "config/data/jellyfin.db is not what was backed up"},
		"a part too many": {repack(t, good, func(h *tar.Header, text []byte) []byte {
			if h.Name == "config/data/playlists/one/playlist.xml" {
				h.Name = "config/data/other.xml"
			}
			return text
		}), "is not"},
		"a way out": {repack(t, good, func(h *tar.Header, text []byte) []byte {
			if h.Name == "config/data/playlists/one/playlist.xml" {
				h.Name = "config/../../evil"
			}
			return text
		}), "is none of a backup"},
		"another format": {repack(t, good, func(h *tar.Header, text []byte) []byte {
			return bytes.Replace(text, []byte(`"format": 1`), []byte(`"format": 9`), 1)
		}), "format 9"},
		"something else": {"not at all", "no whole backup"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			write(t, b.config, map[string]string{"config/network.xml": "mine"})
			write(t, b.to, map[string]string{"jellyfin-20260101T000000Z.tar.gz": c.text})
			err := b.restore(t, b.to)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if got := read(t, filepath.Join(b.config, "config/network.xml")); got != "mine" {
				t.Errorf("it was replaced: %q", got)
			}
			if exists(filepath.Join(b.config, own+"restore")) || exists(filepath.Join(filepath.Dir(b.config), "evil")) {
				t.Error("something was left")
			}
		})
	}
	t.Run("no backup", func(t *testing.T) {
		b := newBench(t)
		if err := b.restore(t, b.to); err == nil || !strings.Contains(err.Error(), "holds no backup") {
			t.Error(err)
		}
	})
	t.Run("a damaged database", func(t *testing.T) {
		b := newBench(t)
		write(t, b.config, map[string]string{mainDatabase: magic + strings.Repeat("x", 8000)})
		if _, err := b.backup(t, 1); err == nil || !strings.Contains(err.Error(), "jellyfin.db") {
			t.Error(err)
		}
		if all, _ := List(b.to); len(all) != 0 {
			t.Error("a failed backup has a name")
		}
	})
}

func drop(it bool, text []byte) []byte {
	if it {
		return nil
	}
	return text
}

// repack changes the parts of an archive; one that becomes nil is left out.
func repack(t *testing.T, archive string, change func(*tar.Header, []byte) []byte) string {
	t.Helper()
	zip, err := gzip.NewReader(strings.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	from, to := tar.NewReader(zip), tar.NewWriter(zipped)
	for {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		text, err2 := io.ReadAll(from)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if text = change(h, text); text == nil {
			continue
		}
		h.Size = int64(len(text))
		err = to.WriteHeader(h)
		if _, err2 := to.Write(text); errors.Join(err, err2) != nil {
			t.Fatal(err, err2)
		}
	}
	if err := errors.Join(to.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Only whole backups count, the newest stay, and a failed one removes none.
func TestKeep(t *testing.T) {
	b := example(t)
	write(t, b.to, map[string]string{"notes.txt": "", "jellyfin-latest.tar.gz": "", own + "killed/archive": "half"})
	var made []string
	for range 4 {
		file, err := b.backup(t, 2)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, file)
	}
	all, err := List(b.to)
	if err != nil || len(all) != 2 || all[0].Path != made[3] || all[1].Path != made[2] {
		t.Errorf("%v, %v; made %v", all, err, made)
	}
	if !exists(filepath.Join(b.to, "notes.txt")) || !exists(filepath.Join(b.to, "jellyfin-latest.tar.gz")) || exists(filepath.Join(b.to, own+"killed")) {
		t.Error("what is no backup was touched, or what a killed one left was not")
	}
	if err := os.Remove(b.database()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.backup(t, 1); err == nil || !strings.Contains(err.Error(), "no database to back up") {
		t.Error(err)
	}
	if _, err := b.backup(t, 0); err == nil || !strings.Contains(err.Error(), "keep 0 backups") {
		t.Error(err)
	}
	if all, _ := List(b.to); len(all) != 2 {
		t.Errorf("a failed backup removed others: %v", all)
	}
}

func TestOneAtATime(t *testing.T) {
	b := example(t)
	unlock, err := lock(b.to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.backup(t, 1); err == nil || !strings.Contains(err.Error(), "another backup or restore is under way") {
		t.Error(err)
	}
	unlock()
	b.mustBackup(t)
}

// A Job made for the other database would back up none.
func TestEngine(t *testing.T) {
	pg := "<DatabaseConfigurationOptions><DatabaseType>PLUGIN_PROVIDER</DatabaseType><CustomProviderOptions><PluginName>PostgreSQL</PluginName></CustomProviderOptions></DatabaseConfigurationOptions>"
	for name, c := range map[string]struct {
		xml     string
		environ []string
		want    string
		err     string
	}{
		"nothing said":          {"", nil, SQLite, ""},
		"before the first run":  {"", []string{"PGHOST=db"}, PostgreSQL, ""},
		"sqlite":                {sqliteXML, []string{"PGHOST="}, SQLite, ""},
		"postgres":              {pg, []string{"PGHOST=db"}, PostgreSQL, ""},
		"postgres, sqlite Job":  {pg, nil, "", "list the component backup-postgres in place of backup"},
		"sqlite, postgres Job":  {sqliteXML, []string{"PGHOST=db"}, "", "list the component backup in place of backup-postgres"},
		"another":               {strings.Replace(pg, "PostgreSQL", "MySQL", 1), nil, "", "neither SQLite nor PostgreSQL"},
		"not well-formed":       {"<x>", nil, "", "database.xml"},
		"a provider of its own": {"<x><DatabaseType>Jellyfin-PgSql</DatabaseType></x>", []string{"PGHOST=db"}, PostgreSQL, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.xml != "" {
				write(t, dir, map[string]string{"config/database.xml": c.xml})
			}
			got, err := postgres{c.environ}.engine(dir)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
