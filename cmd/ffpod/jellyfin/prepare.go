package jellyfin

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Prepare makes a pod's volumes ready for Jellyfin. It runs as the identity that
// Jellyfin has, before any container mounts a part of them: the kubelet would
// make what is missing as root.
type Prepare struct {
	// Config is the claim that Jellyfin mounts as /config, and its directory
	// cache as /cache.
	Config string
	// Shared is the root of the claim that Jellyfin and the workers share.
	// Empty: there is none.
	Shared string
	// Seed has one file for each setting: a mounted ConfigMap. Empty: none.
	Seed string
	// Directories are made beside those that every install needs.
	Directories []string
	// Report gets a line for each thing done.
	Report io.Writer
}

// SharedDirectories are the subPaths of the shared claim.
func SharedDirectories() []string {
	return []string{"transcodes", "tmp", "concat", "subtitles", "attachments"}
}

// configDirectories are what Jellyfin needs, and what the shared claim's
// subPaths are mounted on.
func configDirectories() []string {
	return []string{"config", "data", "data/subtitles", "data/attachments", "log", "plugins",
		"cache", "cache/transcodes", "cache/tmp", "cache/concat"}
}

// Run does it all. What was there stays as it is.
func (p Prepare) Run() error {
	changes, err := p.seed()
	if err != nil {
		return err
	}
	dirs := []string{p.Config}
	for _, d := range configDirectories() {
		dirs = append(dirs, filepath.Join(p.Config, d))
	}
	if p.Shared != "" {
		dirs = append(dirs, p.Shared)
		for _, d := range SharedDirectories() {
			dirs = append(dirs, filepath.Join(p.Shared, d))
		}
	}
	var problems []string
	for _, d := range append(dirs, p.Directories...) {
		if err := Writable(d); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(brief(problems), "; "))
	}
	if err := p.foreign(); err != nil {
		return err
	}
	for _, f := range []File{Encoding, Network, System} {
		if err := p.plant(f, changes); err != nil {
			return err
		}
	}
	return nil
}

// brief keeps a line readable: what ails one directory ails most.
func brief(problems []string) []string {
	if len(problems) <= 3 {
		return problems
	}
	return append(slices.Clone(problems[:3]), fmt.Sprintf("and %d more", len(problems)-3))
}

// seed reads the settings. One that this release does not know is passed over
// with a line, for a newer ConfigMap must not keep Jellyfin from starting.
func (p Prepare) seed() ([]Change, error) {
	if p.Seed == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(p.Seed)
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	var changes []Change
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // the kubelet's ..data
		}
		text, err := os.ReadFile(filepath.Join(p.Seed, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the setting jellyfin.%s: %w", e.Name(), err)
		}
		if strings.TrimSpace(string(text)) == "" {
			continue // Jellyfin's default
		}
		c, err := ParseChange(e.Name(), string(text))
		if unknown, ok := errors.AsType[*UnknownSettingError](err); ok {
			fmt.Fprintf(p.Report, "passed over: %v\n", unknown)
			continue
		}
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// plant writes a settings file that is not there yet.
func (p Prepare) plant(f File, changes []Change) error {
	to := filepath.Join(p.Config, "config", f.Name)
	if _, err := os.Lstat(to); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d := NewDocument(f.Root)
	var names []string
	for _, c := range changes {
		if c.File != f {
			continue
		}
		if err := d.Set(c.Element, c.List, c.Values...); err != nil {
			return fmt.Errorf("seed %s: %w", to, err)
		}
		names = append(names, c.Element)
	}
	if len(names) == 0 {
		return nil // Jellyfin writes its own
	}
	// Linked, not renamed: what came into being meanwhile is not overwritten.
	temporary, err := written(to, d.Bytes(), 0o644)
	if err != nil {
		return fmt.Errorf("seed %s: %w", to, err)
	}
	defer os.Remove(temporary)
	if err := os.Link(temporary, to); err != nil && !errors.Is(err, fs.ErrExist) {
		if err = os.Rename(temporary, to); err != nil { // a file system without links
			return fmt.Errorf("seed %s: %w", to, err)
		}
	}
	_, err = fmt.Fprintf(p.Report, "seeded %s: %s\n", to, strings.Join(names, ", "))
	return err
}

// written puts text into a new file beside to, on the disk.
func written(to string, text []byte, mode fs.FileMode) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+"-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode))
	err = cmp.Or(err, f.Sync())
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// Writable makes a directory and proves that files can be made in it.
func Writable(dir string) error {
	if err := os.MkdirAll(dir, 0o775); err != nil {
		return explain(dir, err)
	}
	f, err := os.CreateTemp(dir, ".ffpod-*")
	if err != nil {
		return explain(dir, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// foreign finds what an earlier install left under another identity. It looks
// where Jellyfin would fail, not at all of a library's metadata.
func (p Prepare) foreign() error {
	for _, d := range []string{"config", "data", "log", "plugins", "cache"} {
		entries, err := os.ReadDir(filepath.Join(p.Config, d))
		if err != nil {
			return explain(filepath.Join(p.Config, d), err)
		}
		for _, e := range entries {
			if e.Type()&fs.ModeSymlink != 0 {
				continue
			}
			name := filepath.Join(p.Config, d, e.Name())
			var st unix.Stat_t
			if unix.Lstat(name, &st) != nil || int(st.Uid) == os.Geteuid() {
				continue // gone, or its own: what it made read-only it may make writable
			}
			if err := unix.Faccessat(unix.AT_FDCWD, name, unix.W_OK, unix.AT_EACCESS); err != nil && !errors.Is(err, unix.ENOENT) {
				return explain(name, &fs.PathError{Op: "write", Path: name, Err: err})
			}
		}
	}
	return nil
}

// explain says who owns what cannot be written, who wants to, and what to do.
func explain(name string, err error) error {
	cause := err
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		cause = p.Err
	}
	switch {
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("write %s: %w; mount its volume without readOnly, and look at the mount options of its PersistentVolume", name, cause)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("write %s: %w; enlarge its claim or make room", name, cause)
	case !errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("write %s: %w", name, cause)
	}
	groups, _ := os.Getgroups()
	owner, remedy := "", ""
	for at := name; ; at = filepath.Dir(at) { // the nearest that is there
		var st unix.Stat_t
		if unix.Stat(at, &st) == nil {
			owner = fmt.Sprintf("%s belongs to uid %d, gid %d, mode %04o", at, st.Uid, st.Gid, st.Mode&0o7777)
			if st.Uid == 0 && st.Gid == 0 {
				remedy = "; a fresh volume is root's where its driver does not apply fsGroup, as with ReadWriteMany of Longhorn and others: then once from a pod that runs as root"
			}
			break
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	return fmt.Errorf("write %s as uid %d, gid %d, groups %v: %w: %s; `chown -R %d:%d` it (an NFS export: on its server, for with root_squash no pod can%s), or set identity in settings.yaml to its owner",
		name, os.Geteuid(), os.Getegid(), groups, cause, owner, os.Geteuid(), os.Getegid(), remedy)
}
