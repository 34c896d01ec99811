// Package postgres runs a real PostgreSQL for tests, as the component postgres
// runs it: the same preparation, the same rules of access, another version. Debian's
// package has it (apt-get install postgresql); without it a test is skipped,
// but not in CI.
package postgres

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is one that runs until its test ends.
type Server struct {
	// Environ is what PostgreSQL's clients need to reach it as Jellyfin's role.
	Environ []string
	// Data is where its files are.
	Data string
	// Log is what the preparation and the server said.
	Log *Log

	t       testing.TB
	bin     string
	sockets string
	port    int
	who     *syscall.SysProcAttr
	process *exec.Cmd
}

// Log is written while it is read.
type Log struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (l *Log) Write(b []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(b)
}

func (l *Log) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

// The role and the database, as in a Secret jellyfin-database.
const (
	Username = "jellyfin-user"
	Database = "jelly fin"
)

// New makes a server's directories and starts nothing.
func New(t testing.TB) *Server {
	t.Helper()
	bin := binaries()
	if bin == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("no PostgreSQL on this machine: apt-get install postgresql")
		}
		t.Skip("no PostgreSQL on this machine: apt-get install postgresql")
	}
	// A socket's path is short, and its directories are entered by another user.
	dir, err := os.MkdirTemp("/tmp", "pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{t: t, bin: bin, sockets: dir, Data: filepath.Join(dir, "versioned", "data"), Log: &Log{}, who: &syscall.SysProcAttr{}, port: 5432}
	if os.Getuid() == 0 { // which initdb refuses to be
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.who.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	} else if u, err := user.Current(); err != nil || u.Username != "postgres" {
		t.Skip("this test runs as root, or as the user postgres: no other is let in as the superuser")
	}
	t.Cleanup(s.Stop)
	return s
}

// binaries is a directory with a server's programs, the newest of Debian's.
func binaries() string {
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(all) == 0 {
		return ""
	}
	slices.SortFunc(all, func(a, b string) int { return major(a) - major(b) })
	return filepath.Dir(all[len(all)-1])
}

func major(file string) int {
	n, _ := strconv.Atoi(strings.Split(file, "/")[4])
	return n
}

// Component is the directory of the component postgres.
func Component() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "kustomize", "components", "postgres")
}

// Prepare runs the component's preparation with the password that the Secret
// would hold. The scripts are copied, as a ConfigMap's volume would have them.
func (s *Server) Prepare(password string) error {
	s.t.Helper()
	scripts := filepath.Join(s.sockets, "scripts")
	if err := os.MkdirAll(scripts, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"prepare.sh", "role.sql", "pg_hba.conf"} {
		text, err := os.ReadFile(filepath.Join(Component(), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(scripts, name), text, 0o644); err != nil {
			return err
		}
	}
	c := exec.Command("bash", filepath.Join(scripts, "prepare.sh"))
	c.Env = []string{"PATH=" + s.bin + ":/usr/bin:/bin", "PGDATA=" + s.Data, "SOCKETS=" + s.sockets, "INITDB_OPTIONS=--locale=C.UTF-8",
		"JELLYFIN_USERNAME=" + Username, "JELLYFIN_DATABASE=" + Database, "JELLYFIN_PASSWORD=" + password}
	c.SysProcAttr, c.Dir = s.who, s.sockets
	c.Stdout, c.Stderr = s.Log, s.Log
	if err := c.Run(); err != nil {
		return fmt.Errorf("prepare.sh: %w: %s", err, s.Log)
	}
	s.Environ = []string{"PATH=" + s.bin + ":/usr/bin:/bin", "HOME=" + s.sockets, "PGHOST=127.0.0.1", "PGPORT=" + strconv.Itoa(s.port),
		"PGUSER=" + Username, "PGDATABASE=" + Database, "PGPASSWORD=" + password, "PGCONNECT_TIMEOUT=10"}
	return nil
}

// Start runs the server, as the component's StatefulSet does, on a loopback port
// of its own, and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	for i, e := range s.Environ {
		if strings.HasPrefix(e, "PGPORT=") {
			s.Environ[i] = "PGPORT=" + strconv.Itoa(s.port)
		}
	}
	s.process = exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.Data, "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories="+s.sockets, "-c", "hba_file="+filepath.Join(s.sockets, "scripts", "pg_hba.conf"), "-c", "fsync=off")
	s.process.SysProcAttr, s.process.Dir = s.who, s.sockets
	s.process.Stdout, s.process.Stderr = s.Log, s.Log
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if s.command(s.Environ, "pg_isready", "--quiet").Run() == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("PostgreSQL does not answer: %s", s.Log)
		}
	}
}

// Stop ends the server, as the image's stop signal does.
func (s *Server) Stop() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(syscall.SIGINT)
	_ = s.process.Wait()
	s.process = nil
}

func (s *Server) command(environ []string, program string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.bin, program), args...)
	c.Env = environ
	return c
}

// Query runs SQL as Jellyfin's role, over the network, and returns what it prints.
func (s *Server) Query(sql string) (string, error) {
	return output(s.command(s.Environ, "psql", "--no-password", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--command="+sql))
}

// Superuser runs SQL in Jellyfin's database as the superuser, on the socket.
func (s *Server) Superuser(sql string) (string, error) {
	c := s.command([]string{"HOME=" + s.sockets}, "psql", "--host="+s.sockets, "--port="+strconv.Itoa(s.port), "--username=postgres", "--dbname="+Database,
		"--no-password", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--command="+sql)
	c.SysProcAttr, c.Dir = s.who, s.sockets
	return output(c)
}

// Dump is the whole database as SQL: two databases are equal if these are.
func (s *Server) Dump() (string, error) {
	text, err := output(s.command(s.Environ, "pg_dump", "--no-password", "--no-owner"))
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, `\restrict`) && !strings.HasPrefix(line, `\unrestrict`) { // random
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, ""), err
}

func output(c *exec.Cmd) (string, error) {
	var out, words bytes.Buffer
	c.Stdout, c.Stderr = &out, &words
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), err, words.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}
