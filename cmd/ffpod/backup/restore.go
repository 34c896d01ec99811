package backup

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Restore puts a backup back.
type Restore struct {
	From    string // the directory of backups, or one of them
	Config  string // Jellyfin's /config; Jellyfin must not run
	Environ []string
	Now     func() time.Time
	Report  io.Writer
}

// Run restores. Nothing changes until the whole backup was read and proved whole.
// Each file that it replaces is kept beside; a file that the backup does not have
// stays. A restore that was interrupted is run again.
func (r Restore) Run(ctx context.Context) error {
	archive, err := r.choose()
	if err != nil {
		return err
	}
	unlock, err := lock(filepath.Dir(archive))
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.MkdirAll(r.Config, 0o755); err != nil {
		return err
	}
	// On the file system of /config, for what is in it is moved, not copied.
	stage := filepath.Join(r.Config, own+"restore")
	if err := os.RemoveAll(stage); err != nil { // of one that was killed
		return err
	}
	if err := os.Mkdir(stage, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(stage)
	m, err := unpack(ctx, archive, stage)
	if err != nil {
		return err
	}
	if err := r.fits(ctx, m, stage); err != nil {
		return err
	}
	if m.Engine == PostgreSQL {
		if err := (postgres{r.Environ}).restore(ctx, filepath.Join(stage, dumpName), stage); err != nil {
			return err
		}
		r.say("restored the PostgreSQL database")
	}
	before := filepath.Join(r.Config, own+"before-"+r.Now().UTC().Format(timeLayout))
	n, err := r.swap(m, stage, before)
	if err != nil {
		return fmt.Errorf("%w; run the restore again: what was there is in %s", err, before)
	}
	r.say("restored %d files of %s, made %s%s", n, archive, m.Made.Format(time.RFC3339), version(m))
	if _, err := os.Stat(before); err == nil {
		r.say("what they replaced is in %s; remove it when all is well", before)
	}
	for _, b := range m.Blanked {
		if b.Path != "config/database.xml" { // the provider's image fills it in again
			r.say("enter again, for secrets are not backed up: %s of %s", strings.Join(b.Names, ", "), b.Path)
		}
	}
	return nil
}

func version(m *Manifest) string {
	if m.Jellyfin == "" {
		return ""
	}
	return " by Jellyfin " + m.Jellyfin
}

func (r Restore) say(format string, args ...any) { fmt.Fprintf(r.Report, format+"\n", args...) }

// choose is the backup to restore: the one that was named, or the newest.
func (r Restore) choose() (string, error) {
	info, err := os.Stat(r.From)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return r.From, nil
	}
	all, err := List(r.From)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", fmt.Errorf("%s holds no backup", r.From)
	}
	return all[0].Path, nil
}

// fits refuses a backup that this install could not run with, and one for a
// Jellyfin that runs.
func (r Restore) fits(ctx context.Context, m *Manifest, stage string) error {
	pg := postgres{r.Environ}
	switch {
	case m.Engine == PostgreSQL && !pg.configured():
		return errors.New("the backup's database is PostgreSQL, and PGHOST is not set; restore into an install with PostgreSQL and the component backup-postgres")
	case m.Engine == SQLite && pg.configured():
		return errors.New("the backup's database is SQLite, and this install's is PostgreSQL (PGHOST is set); restore into an install with SQLite and the component backup")
	}
	for _, name := range m.Databases {
		if err := check(ctx, filepath.Join(stage, treeName, name)); err != nil {
			return fmt.Errorf("%s in the backup: %w", name, err)
		}
		target := filepath.Join(r.Config, name)
		if is, err := isSQLite(target); err == nil && is {
			if err := inUse(ctx, target); err != nil {
				return err
			}
		}
	}
	return nil
}

// swap moves the staged files into place and what was there to before.
func (r Restore) swap(m *Manifest, stage, before string) (n int, err error) {
	aside := func(name string) error {
		to := filepath.Join(before, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		return os.Rename(filepath.Join(r.Config, name), to)
	}
	for _, f := range m.Files {
		name, ok := strings.CutPrefix(f.Path, treeName+"/")
		if !ok {
			continue
		}
		names := []string{name}
		if slices.Contains(m.Databases, name) {
			// A log of the old database would be applied to the new one.
			for _, s := range sidecars {
				names = append(names, name+s)
			}
		}
		for _, old := range names {
			if _, err := os.Lstat(filepath.Join(r.Config, old)); errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := aside(old); err != nil {
				return n, err
			}
		}
		target := filepath.Join(r.Config, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return n, err
		}
		if err := os.Rename(filepath.Join(stage, treeName, name), target); err != nil {
			return n, err
		}
		n++
	}
	return n, syncFileSystem(r.Config)
}

// syncFileSystem has everything written.
func syncFileSystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// Verify reads a whole backup and proves that it is one.
func Verify(ctx context.Context, archive string) (*Manifest, error) {
	return unpack(ctx, archive, "")
}

// unpack writes the parts of a backup into a directory, unless that is empty, and
// compares them with the manifest.
func unpack(ctx context.Context, archive, dir string) (*Manifest, error) {
	bad := func(err error) error { return fmt.Errorf("%s is no whole backup: %w", archive, err) }
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		return nil, bad(err)
	}
	parts := tar.NewReader(zip)
	read := map[string]File{}
	var m *Manifest
	for {
		if stop := context.Cause(ctx); stop != nil {
			return nil, stop
		}
		h, err := parts.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, bad(err)
		}
		if h.Name == manifestName {
			text, err := io.ReadAll(parts)
			if err == nil {
				m, err = decodeManifest(text)
			}
			if err != nil {
				return nil, bad(err)
			}
			continue
		}
		if h.Typeflag != tar.TypeReg || !filepath.IsLocal(h.Name) || h.Name != dumpName && !strings.HasPrefix(h.Name, treeName+"/") {
			return nil, bad(fmt.Errorf("part %q is none of a backup", h.Name))
		}
		part, err := extract(parts, h, dir)
		if err != nil {
			return nil, bad(err)
		}
		read[h.Name] = part
	}
	// gzip's checksum stands at its end.
	if _, err := io.Copy(io.Discard, zip); err != nil {
		return nil, bad(err)
	}
	if m == nil {
		return nil, bad(errors.New("it ends before " + manifestName))
	}
	for _, want := range m.Files {
		if read[want.Path] != want {
			return nil, bad(fmt.Errorf("%s is not what was backed up", want.Path))
		}
		delete(read, want.Path)
	}
	for name := range read {
		return nil, bad(fmt.Errorf("%s is not in %s", name, manifestName))
	}
	return m, nil
}

// extract writes one part, or only reads it.
func extract(from io.Reader, h *tar.Header, dir string) (File, error) {
	sum := sha256.New()
	to := io.Writer(sum)
	var out *os.File
	if dir != "" {
		name := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return File{}, err
		}
		var err error
		if out, err = os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, h.FileInfo().Mode().Perm()); err != nil {
			return File{}, err
		}
		to = io.MultiWriter(sum, out)
	}
	n, err := io.Copy(to, from)
	if out != nil {
		err = errors.Join(err, out.Close(), os.Chtimes(out.Name(), h.ModTime, h.ModTime))
	}
	return File{Path: h.Name, Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, err
}
