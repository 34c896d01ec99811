package postgres

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func server(t *testing.T) *Server {
	t.Helper()
	s := New(t)
	if err := s.Prepare("first 'pass\"word\\"); err != nil {
		t.Fatal(err)
	}
	s.Start()
	return s
}

func query(t *testing.T, what func(string) (string, error), sql, want string) {
	t.Helper()
	got, err := what(sql)
	if err != nil || got != want {
		t.Errorf("%s: got %q, want %q: %v", sql, got, want, err)
	}
}

// The role owns its database and nothing more.
func TestRole(t *testing.T) {
	s := server(t)
	query(t, s.Query, "SELECT current_user || '@' || current_database() || ' ' || pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()", Username+"@"+Database+" UTF8")
	query(t, s.Query, "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication FROM pg_roles WHERE rolname = current_user", "f")
	query(t, s.Query, "CREATE TABLE t (x int); INSERT INTO t VALUES (1); SELECT x FROM t", "1")
	query(t, s.Superuser, "SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'postgres'", "t")
	if _, err := s.Query("COPY t TO PROGRAM 'true'"); err == nil {
		t.Error("the role may run programs")
	}
}

// Nobody comes in over the network as the superuser, or without the password.
func TestAccess(t *testing.T) {
	s := server(t)
	right := s.Environ
	for _, c := range []struct{ change, want string }{
		{"PGPASSWORD=wrong", "password authentication failed"},
		{"PGUSER=postgres", "rejects connection"},
	} {
		s.Environ = append(append([]string{}, right...), c.change)
		if _, err := s.Query("SELECT 1"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.change, err)
		}
	}
}

// A changed Secret is in force after a restart; what was stored stays.
func TestPasswordChanges(t *testing.T) {
	s := server(t)
	query(t, s.Query, "CREATE TABLE t (x int); INSERT INTO t VALUES (7)", "")
	old := s.Environ
	s.Stop()
	if err := s.Prepare("second"); err != nil {
		t.Fatal(err)
	}
	s.Start()
	query(t, s.Query, "SELECT x FROM t", "7")
	port := s.Environ[3]
	s.Environ = append(append([]string{}, old...), port)
	if out, err := s.Query("SELECT 1"); err == nil {
		t.Errorf("the old password is still good: %s", out)
	}
	if strings.Contains(s.Log.String(), "second") || strings.Contains(s.Log.String(), "pass\"word") {
		t.Errorf("a password is in the log:\n%s", s.Log)
	}
}

// A power cut while the directory is made: the next start begins anew. One while
// the server runs: the next start recovers.
func TestInterrupted(t *testing.T) {
	s := New(t)
	if err := os.MkdirAll(s.Data+".new/base", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Data+".new/PG_VERSION", []byte("15\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s.who.Credential != nil { // all of it is the server's user's
		for _, d := range []string{s.Data + ".new/PG_VERSION", s.Data + ".new/base", s.Data + ".new", filepath.Dir(s.Data)} {
			if err := os.Chown(d, int(s.who.Credential.Uid), int(s.who.Credential.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Prepare("p"); err != nil {
		t.Fatal(err)
	}
	s.Start()
	query(t, s.Query, "CREATE TABLE t (x int); INSERT INTO t VALUES (7)", "")
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
	s.process = nil
	if err := s.Prepare("p"); err != nil {
		t.Fatal(err)
	}
	s.Start()
	query(t, s.Query, "SELECT x FROM t", "7")
}

// Without a password there would be a role that nobody can use, or everybody.
func TestNoPassword(t *testing.T) {
	s := New(t)
	if err := s.Prepare(""); err == nil || !strings.Contains(err.Error(), "JELLYFIN_PASSWORD is empty") {
		t.Errorf("got %v", err)
	}
}
