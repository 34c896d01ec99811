package backup

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// postgres runs PostgreSQL's own clients. Where the server is and who asks, they
// read in the environment: PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD.
type postgres struct{ environ []string }

// configured is whether the environment names a server.
func (p postgres) configured() bool {
	for _, e := range p.environ {
		if value, ok := strings.CutPrefix(e, "PGHOST="); ok && value != "" {
			return true
		}
	}
	return false
}

// dump writes the whole database to a file, compressed, as it is at one moment.
func (p postgres) dump(ctx context.Context, to string) error {
	return p.run(ctx, "pg_dump", "--no-password", "--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=300s", "--file="+to)
}

// empty drops what a dump brings back, and what migrations made since, which a
// later start would stumble over. It drops what its role owns and nothing else,
// and needs no right on the database or on the schema public.
const empty = `
SET client_min_messages = warning;
DO $$
DECLARE r record;
BEGIN
  FOR r IN
    SELECT n.nspname AS schema, c.relname AS name,
      CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS kind
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND pg_has_role(c.relowner, 'USAGE')
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      -- Not what goes with something else: an identity's sequence, a partition, an extension's table.
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i', 'e'))
  LOOP
    EXECUTE format('DROP %s IF EXISTS %I.%I CASCADE', r.kind, r.schema, r.name);
  END LOOP;
  FOR r IN
    SELECT n.nspname AS schema FROM pg_namespace n
    WHERE n.nspname NOT IN ('public', 'information_schema') AND n.nspname !~ '^pg_' AND pg_has_role(n.nspowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', r.schema);
  END LOOP;
END
$$;
`

// restore puts a dump in place of what the database holds, in one transaction:
// all of it or nothing. It keeps two files in the directory meanwhile.
func (p postgres) restore(ctx context.Context, dump, dir string) error {
	first, then := filepath.Join(dir, "empty.sql"), filepath.Join(dir, "restore.sql")
	defer os.Remove(first)
	defer os.Remove(then)
	if err := os.WriteFile(first, []byte(empty), 0o600); err != nil {
		return err
	}
	// A file between the two, not a pipe: psql would commit what came before a
	// pg_restore that died.
	if err := p.run(ctx, "pg_restore", "--no-owner", "--no-privileges", "--file="+then, dump); err != nil {
		return err
	}
	return p.run(ctx, "psql", "--no-password", "--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1", "--single-transaction", "--file="+first, "--file="+then)
}

// run executes a client; its last words are the error's.
func (p postgres) run(ctx context.Context, program string, args ...string) error {
	c := exec.CommandContext(ctx, program, args...)
	c.Env = p.environ
	var words bytes.Buffer
	c.Stdout, c.Stderr = &words, &words
	err := c.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not in this image; use the image postgres of the server's major version or a later one", program)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, tail(words.String()))
	}
	return nil
}

// tail is the end of what a program said, in one line.
func tail(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 500 {
		text = "... " + text[len(text)-500:]
	}
	return text
}

var postgresName = regexp.MustCompile(`(?i)postgre|pgsql|npgsql`)

// engineOf reads in config/database.xml which database Jellyfin uses; empty if
// there is no such file.
func engineOf(config string) (string, error) {
	file := filepath.Join(config, "config", "database.xml")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var d struct {
		DatabaseType          string
		CustomProviderOptions struct{ PluginName, PluginAssembly string }
	}
	if err := xml.Unmarshal(text, &d); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	plugin := d.CustomProviderOptions.PluginName + " " + d.CustomProviderOptions.PluginAssembly
	switch {
	case d.DatabaseType == "Jellyfin-SQLite" || d.DatabaseType == "":
		return SQLite, nil
	case d.DatabaseType == "PLUGIN_PROVIDER" && postgresName.MatchString(plugin), postgresName.MatchString(d.DatabaseType):
		return PostgreSQL, nil
	}
	return "", fmt.Errorf("%s: database %s (%s) is neither SQLite nor PostgreSQL; no other can be backed up", file, d.DatabaseType, strings.TrimSpace(plugin))
}

// engine is what a backup of this install holds, and refuses a Job made for the
// other one: its backups would lack the database.
func (p postgres) engine(config string) (string, error) {
	engine, err := engineOf(config)
	if err != nil {
		return "", err
	}
	if engine == "" && p.configured() {
		engine = PostgreSQL // the provider's image writes the file at its first start
	}
	switch {
	case engine == PostgreSQL && !p.configured():
		return "", errors.New("the database is PostgreSQL by config/database.xml, and PGHOST is not set; list the component backup-postgres in place of backup")
	case engine == SQLite && p.configured():
		return "", errors.New("the database is SQLite by config/database.xml, and PGHOST is set; list the component backup in place of backup-postgres")
	case engine == "":
		engine = SQLite
	}
	return engine, nil
}
