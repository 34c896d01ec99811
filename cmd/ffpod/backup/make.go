package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Make makes a backup.
type Make struct {
	Config string // Jellyfin's /config
	To     string // the directory of backups
	Keep   int    // how many of them stay; at least 1
	FFpod  string // this release
	// Environ is for PostgreSQL's clients.
	Environ []string
	Now     func() time.Time
	Report  io.Writer
}

// left are directories that a backup leaves out, below /config.
var left = map[string]string{
	"cache":              "made again when needed",
	"transcodes":         "made again when needed",
	"log":                "no part of the state",
	"lost+found":         "the file system's own",
	".aspnet":            "keys of the running server",
	"data/attachments":   "extracted again when needed",
	"data/keyframes":     "extracted again when needed",
	"data/subtitles":     "extracted again when needed",
	"data/transcodes":    "made again when needed",
	"data/trickplay":     "made again by its scheduled task",
	"data/backups":       "Jellyfin's own backups",
	"data/SQLiteBackups": "Jellyfin's own backups",
	"data/PgsqlBackups":  "Jellyfin's own backups",
}

// mainDatabase is Jellyfin's own, where its engine is SQLite.
const mainDatabase = "data/jellyfin.db"

// own begins the names of what ffpod keeps in /config.
const own = ".ffpod-"

// Run makes one backup and then removes those that are older than the newest
// Keep. It returns the new one's path.
func (m Make) Run(ctx context.Context) (string, error) {
	if m.Keep < 1 {
		return "", fmt.Errorf("keep %d backups: want 1 or more", m.Keep)
	}
	pg := postgres{m.Environ}
	engine, err := pg.engine(m.Config)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(m.Config, mainDatabase)); engine == SQLite && err != nil {
		return "", fmt.Errorf("no database to back up: %w; has Jellyfin started once, and is this its /config?", err)
	}
	unlock, err := lock(m.To)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := sweep(m.To); err != nil {
		return "", err
	}
	began := m.Now()
	work, err := os.MkdirTemp(m.To, own)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)

	w := writer{make: m, ctx: ctx, work: work, manifest: &Manifest{
		Format: format, Made: began.UTC().Truncate(time.Second), FFpod: m.FFpod, Engine: engine, Jellyfin: jellyfinVersion(m.Config),
		Databases: []string{}, Files: []File{}, Blanked: []Blanked{}, Left: []Left{},
	}}
	final := filepath.Join(m.To, "jellyfin-"+w.manifest.Made.Format(timeLayout)+".tar.gz")
	if err := w.write(filepath.Join(work, "archive"), pg); err != nil {
		return "", err
	}
	// A hard link would say that the name is taken; a rename does not.
	if _, err := os.Lstat(final); err == nil {
		return "", fmt.Errorf("%s is there already: another backup was made in this second", final)
	}
	if err := os.Rename(filepath.Join(work, "archive"), final); err != nil {
		return "", err
	}
	if err := syncDir(m.To); err != nil {
		return "", err
	}
	info, err := os.Stat(final)
	if err != nil {
		return "", err
	}
	m.say("backed up to %s: %s, %d files, %d KiB, in %s", final, engine, len(w.manifest.Files), (info.Size()+1023)/1024, m.Now().Sub(began).Round(time.Millisecond))
	for _, b := range w.manifest.Blanked {
		m.say("without its secrets: %s (%s)", b.Path, strings.Join(b.Names, ", "))
	}
	for _, l := range w.manifest.Left {
		m.say("left out: %s, %s", l.Path, l.Why)
	}
	return final, m.prune()
}

// prune removes what is older than the newest Keep.
func (m Make) prune() error {
	all, err := List(m.To)
	if err != nil {
		return err
	}
	for _, a := range all[min(m.Keep, len(all)):] {
		if err := os.Remove(a.Path); err != nil {
			return err
		}
		m.say("removed %s: %d are kept", a.Path, m.Keep)
	}
	return nil
}

func (m Make) say(format string, args ...any) { fmt.Fprintf(m.Report, format+"\n", args...) }

// writer writes one archive.
type writer struct {
	make     Make
	ctx      context.Context
	work     string
	tar      *tar.Writer
	manifest *Manifest
}

func (w *writer) write(file string, pg postgres) (err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zip, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	w.tar = tar.NewWriter(zip)
	if w.manifest.Engine == PostgreSQL {
		dump := filepath.Join(w.work, "dump")
		if err := pg.dump(w.ctx, dump); err != nil {
			return err
		}
		if err := w.addTemporary(dumpName, dump, 0o600, w.manifest.Made); err != nil {
			return err
		}
	}
	if err := w.tree(); err != nil {
		return err
	}
	if w.manifest.Engine == SQLite && !slices.Contains(w.manifest.Databases, mainDatabase) {
		return fmt.Errorf("%s is no SQLite database", filepath.Join(w.make.Config, mainDatabase))
	}
	text, err := w.manifest.encode()
	if err != nil {
		return err
	}
	if err := w.header(manifestName, int64(len(text)), 0o600, w.manifest.Made); err != nil {
		return err
	}
	if _, err := w.tar.Write(text); err != nil {
		return err
	}
	if err := errors.Join(w.tar.Close(), zip.Close()); err != nil {
		return err
	}
	return f.Sync()
}

// tree adds /config. What vanishes while it is read was not to stay.
func (w *writer) tree() error {
	return filepath.WalkDir(w.make.Config, func(file string, d fs.DirEntry, err error) error {
		if stop := context.Cause(w.ctx); stop != nil {
			return stop
		}
		name, relErr := filepath.Rel(w.make.Config, file)
		if relErr != nil {
			return relErr
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) && name != ".":
			return nil
		case err != nil:
			return err
		case name == ".":
			return nil
		case d.IsDir():
			if why, ok := left[name]; ok {
				w.leave(name, why)
				return fs.SkipDir
			}
			if strings.HasPrefix(name, own) {
				w.leave(name, "kept by a restore")
				return fs.SkipDir
			}
			return nil
		case isSidecar(name):
			return nil // its database brings what it holds
		case !d.Type().IsRegular():
			w.leave(name, "no regular file")
			return nil
		}
		if err := w.add(name, file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

func (w *writer) leave(name, why string) {
	w.manifest.Left = append(w.manifest.Left, Left{Path: name, Why: why})
}

// add adds one file of the tree, by what it is.
func (w *writer) add(name, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	database, err := isSQLite(file)
	if err != nil {
		return err
	}
	if database {
		to := filepath.Join(w.work, "database")
		if err := copyDatabase(w.ctx, file, to); err != nil {
			return err
		}
		w.manifest.Databases = append(w.manifest.Databases, name)
		return w.addTemporary(path.Join(treeName, name), to, info.Mode(), info.ModTime())
	}
	kind, why := settingsFile(name)
	if why != "" {
		w.leave(name, why)
		return nil
	}
	if kind != "" {
		return w.addSettings(name, file, kind, info)
	}
	return w.addFile(name, file, info)
}

// addSettings adds a settings file without its secrets. Jellyfin writes such a
// file in place, so it may be caught half written.
func (w *writer) addSettings(name, file, kind string, info fs.FileInfo) error {
	var problem error
	for try := range 5 {
		if try > 0 {
			select {
			case <-w.ctx.Done():
				return context.Cause(w.ctx)
			case <-time.After(100 * time.Millisecond):
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if why := keyFile(name, text); why != "" {
			w.leave(name, why)
			return nil
		}
		clean, names, err := blank(kind, text)
		if problem = err; problem != nil {
			continue
		}
		if len(names) > 0 {
			w.manifest.Blanked = append(w.manifest.Blanked, Blanked{Path: name, Names: names})
		}
		return w.put(path.Join(treeName, name), bytes.NewReader(clean), int64(len(clean)), info.Mode(), info.ModTime())
	}
	w.leave(name, fmt.Sprintf("secrets in it cannot be told from the rest: %s", line(problem)))
	return nil
}

// addFile adds a file as it is. One that changes meanwhile is added as it was
// read: tar wants to know its size first.
func (w *writer) addFile(name, file string, info fs.FileInfo) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	const enough = 4 << 20 // of memory
	head, err := io.ReadAll(io.LimitReader(f, enough))
	if err != nil {
		return err
	}
	if why := keyFile(name, head[:min(len(head), 64<<10)]); why != "" {
		w.leave(name, why)
		return nil
	}
	name = path.Join(treeName, name)
	if len(head) < enough {
		return w.put(name, bytes.NewReader(head), int64(len(head)), info.Mode(), info.ModTime())
	}
	to := filepath.Join(w.work, "file")
	t, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(t, io.MultiReader(bytes.NewReader(head), f))
	if err = errors.Join(err, t.Close()); err != nil {
		return err
	}
	return w.addTemporary(name, to, info.Mode(), info.ModTime())
}

// addTemporary adds a file that nobody else writes, and removes it.
func (w *writer) addTemporary(name, file string, mode fs.FileMode, modified time.Time) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.put(name, f, info.Size(), mode, modified); err != nil {
		return err
	}
	return os.Remove(file)
}

func (w *writer) put(name string, from io.Reader, size int64, mode fs.FileMode, modified time.Time) error {
	if err := w.header(name, size, mode, modified); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w.tar, sum), from)
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%s: read %d of %d bytes", name, n, size)
	}
	w.manifest.Files = append(w.manifest.Files, File{Path: name, Bytes: size, SHA256: hex.EncodeToString(sum.Sum(nil))})
	return nil
}

func (w *writer) header(name string, size int64, mode fs.FileMode, modified time.Time) error {
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(mode.Perm()), ModTime: modified.Truncate(time.Second)})
}

// jellyfinVersion is what wrote system.xml last, as well as that can be told.
func jellyfinVersion(config string) string {
	text, err := os.ReadFile(filepath.Join(config, "config", "system.xml"))
	if err != nil {
		return ""
	}
	var s struct{ PreviousVersionStr string }
	if xml.Unmarshal(text, &s) != nil {
		return ""
	}
	return s.PreviousVersionStr
}

// lock makes this process the only one that backs up or restores here. The lock
// goes with the process.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, own+"lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another backup or restore is under way: %w", dir, err), f.Close())
	}
	return func() { f.Close() }, nil
}

// sweep removes what runs that were killed left behind. The caller holds the
// lock.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), own) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
