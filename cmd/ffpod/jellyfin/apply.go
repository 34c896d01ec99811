package jellyfin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Apply changes settings of an install that exists.
type Apply struct {
	// Config is the directory that Jellyfin has as /config.
	Config  string
	Changes []Change
	// DryRun only tells.
	DryRun bool
	// WhileRunning writes although Jellyfin runs: it reads its files when it
	// starts, and writes them when somebody saves in its dashboard.
	WhileRunning bool
	// Report gets a line for each setting that changes.
	Report io.Writer
	// Now is the time in the names of backups.
	Now time.Time
}

// Run does it. Either every file that changes was replaced, each at once and
// with a copy of the old one beside it, or the error says which were.
func (a Apply) Run(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(a.Config, "config")); err != nil {
		return fmt.Errorf("%w; name the directory that Jellyfin has as /config with --config", err)
	}
	type edit struct {
		path string
		old  []byte
		new  []byte
	}
	var edits []edit
	for _, f := range []File{Encoding, Network, System} {
		path := filepath.Join(a.Config, "config", f.Name)
		old, err := os.ReadFile(path)
		d := NewDocument(f.Root)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			old = nil
		case err != nil:
			return err
		default:
			if d, err = ParseDocument(old, f.Root); err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
		}
		changed, err := a.edit(d, f)
		if err != nil {
			return fmt.Errorf("edit %s: %w", path, err)
		}
		if changed {
			edits = append(edits, edit{path, old, d.Bytes()})
		}
	}
	if len(edits) == 0 {
		_, err := fmt.Fprintln(a.Report, "nothing to change")
		return err
	}
	if a.DryRun {
		return nil
	}
	if where := running(ctx, a.Config); where != "" && !a.WhileRunning {
		return fmt.Errorf("nothing was written: Jellyfin runs (%s) and would write its own values over these; stop it first, or say --while-running and restart it at once", where)
	}
	var done []string
	for _, e := range edits {
		if err := a.replace(e.path, e.old, e.new); err != nil {
			return fmt.Errorf("write %s: %w; written before: %v", e.path, err, done)
		}
		done = append(done, e.path)
	}
	return nil
}

// edit applies what concerns one file.
func (a Apply) edit(d *Document, f File) (changed bool, err error) {
	for _, c := range a.Changes {
		if c.File != f {
			continue
		}
		before, there := d.Get(c.Element)
		if there && (slices.Equal(before, c.Values) || !c.List && strings.TrimSpace(strings.Join(before, "")) == c.Values[0]) {
			continue
		}
		if !there && strings.Join(c.Values, "") == "" {
			continue
		}
		if err := d.Set(c.Element, c.List, c.Values...); err != nil {
			return false, err
		}
		changed = true
		from := "(default)"
		if there {
			from = quoted(before)
		}
		if _, err := fmt.Fprintf(a.Report, "%s: %s: %s -> %s\n", f.Name, c.Element, from, quoted(c.Values)); err != nil {
			return false, err
		}
	}
	return changed, nil
}

func quoted(values []string) string {
	if v := strings.TrimSpace(strings.Join(values, ",")); v != "" {
		return v
	}
	return "(empty)"
}

// replace gives a file new text at once, under its old owner and mode, and keeps
// the old one.
func (a Apply) replace(path string, old, text []byte) error {
	mode := fs.FileMode(0o644)
	info, err := os.Stat(path)
	if err == nil {
		mode = info.Mode().Perm()
		backup := path + ".ffpod-" + a.Now.UTC().Format("20060102T150405Z")
		if err := keep(backup, old, mode, info); err != nil {
			return fmt.Errorf("keep a copy: %w", err)
		}
		if _, err := fmt.Fprintf(a.Report, "kept %s\n", backup); err != nil {
			return err
		}
	}
	temporary, err := written(path, text, mode)
	if err != nil {
		return err
	}
	if info != nil {
		if err := sameOwner(temporary, info); err != nil {
			_ = os.Remove(temporary)
			return err
		}
	}
	if err := os.Rename(temporary, path); err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return nil
}

func keep(backup string, old []byte, mode fs.FileMode, like fs.FileInfo) error {
	temporary, err := written(backup, old, mode)
	if err != nil {
		return err
	}
	if err := errors.Join(sameOwner(temporary, like), os.Rename(temporary, backup)); err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return nil
}

// running says by what a running Jellyfin of this configuration was found, "" if
// none was: its port answers, or a process of that name is here. One in another
// pod, with the same claim, cannot be seen.
func running(ctx context.Context, config string) string {
	if e, err := readEndpoint(config); err == nil {
		for _, host := range e.hosts {
			address := net.JoinHostPort(host, e.port)
			dialer := net.Dialer{Timeout: time.Second}
			if c, err := dialer.DialContext(ctx, "tcp", address); err == nil {
				_ = c.Close()
				return "something listens on " + address
			}
		}
	}
	comms, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, name := range comms {
		if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == "jellyfin" && has(filepath.Dir(name), config) {
			return "process " + filepath.Base(filepath.Dir(name))
		}
	}
	return ""
}

// has tells whether a process has the directory as its /config, or as what it is
// called here: a node sees the Jellyfin of every pod. One that does not let itself
// be looked at may have it.
func has(process, config string) bool {
	ours, err := os.Stat(config)
	if err != nil {
		return true
	}
	for _, name := range []string{"/config", config} {
		theirs, err := os.Stat(filepath.Join(process, "root", name))
		if errors.Is(err, fs.ErrPermission) || err == nil && os.SameFile(ours, theirs) {
			return true
		}
	}
	return false
}
