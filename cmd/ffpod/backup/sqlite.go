package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// magic is how every SQLite database begins.
const magic = "SQLite format 3\x00"

// isSQLite reads the first bytes of a file. It must not be called while this
// process has the database open: closing any descriptor of a file releases the
// process's locks on it.
func isSQLite(file string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(magic))
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return string(head[:n]) == magic, nil
}

// sidecars lie beside a database and belong to it.
var sidecars = []string{"-wal", "-shm", "-journal"}

// isSidecar tells a database's companion by its name.
func isSidecar(name string) bool {
	for _, s := range sidecars {
		if base, ok := strings.CutSuffix(name, s); ok && strings.Contains(base, ".") {
			return true
		}
	}
	return false
}

// connect opens one connection; the options are SQLite's of a file URI and the
// driver's.
func connect(ctx context.Context, file, options string) (*sql.DB, *sql.Conn, error) {
	name := (&url.URL{Scheme: "file", Path: file, RawQuery: options}).String()
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, nil, err
	}
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, c, nil
}

// copyDatabase writes the database of file, as it is at one moment, to a new file
// and checks the copy. Others may read and write it meanwhile.
func copyDatabase(ctx context.Context, file, to string) error {
	// Read-only: a connection that can write tidies up on closing if it finds no
	// other's lock, and Jellyfin is known to lose its own in a migration
	// (jellyfin/jellyfin#18100); its log would be gone. This SQLite would notice
	// that too, by the index's lock; older ones do not.
	db, c, err := connect(ctx, file, "mode=ro&_pragma=busy_timeout(30000)")
	if err != nil {
		return fmt.Errorf("copy database %s: %w", file, err)
	}
	err = c.Raw(func(driver any) error {
		source, ok := driver.(interface {
			NewBackup(string) (*sqlite.Backup, error)
		})
		if !ok {
			return errors.New("this SQLite driver has no online backup")
		}
		b, err := source.NewBackup((&url.URL{Scheme: "file", Path: to}).String())
		if err != nil {
			return err
		}
		// All pages in one step, hence in one transaction: with pauses, each
		// write of Jellyfin's in between would begin the copy again.
		_, err = b.Step(-1)
		return errors.Join(err, b.Finish())
	})
	if err = errors.Join(err, c.Close(), db.Close()); err != nil {
		return fmt.Errorf("copy database %s: %s; is the volume mounted on Jellyfin's own node, and is it writable for its locks?", file, line(err))
	}
	if err := check(ctx, to); err != nil {
		return fmt.Errorf("copy database %s: %w", file, err)
	}
	return nil
}

// check fails unless a database that nobody writes is whole.
func check(ctx context.Context, file string) error {
	db, c, err := connect(ctx, file, "mode=ro&immutable=1")
	if err != nil {
		return err
	}
	defer db.Close()
	defer c.Close()
	var verdict string
	if err := c.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return fmt.Errorf("it is damaged: %s", line(err))
	}
	if verdict != "ok" {
		return fmt.Errorf("it is damaged: %s", verdict)
	}
	return nil
}

// inUse fails if a database is open elsewhere, as well as that can be told. It
// may change the database's mode of journal, which the owner sets again: for
// files about to be replaced.
func inUse(ctx context.Context, file string) error {
	busy := fmt.Errorf("%s is in use: stop Jellyfin first", file)
	if openElsewhere(file) {
		return busy
	}
	// File systems without leases. In write-ahead mode the first needs to be
	// alone, in the others the second needs no transaction beside it.
	db, c, err := connect(ctx, file, "mode=rw&_pragma=busy_timeout(2000)")
	if err != nil {
		return fmt.Errorf("open %s: %s", file, line(err))
	}
	defer db.Close()
	defer c.Close()
	for _, do := range []string{"PRAGMA journal_mode=DELETE", "BEGIN EXCLUSIVE", "ROLLBACK"} {
		_, err := c.ExecContext(ctx, do)
		if e, ok := errors.AsType[*sqlite.Error](err); ok && (e.Code()&0xff == sqlite3.SQLITE_BUSY || e.Code()&0xff == sqlite3.SQLITE_LOCKED) {
			return busy
		}
	}
	return nil // any other error: it is damaged, the best reason to replace it
}

// openElsewhere asks the kernel for a write lease, which it refuses on a file
// that anyone on this machine, in whatever container, has open for writing.
func openElsewhere(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close() // and with it the lease
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	return errors.Is(err, unix.EAGAIN)
}

// line makes an error one line.
func line(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
