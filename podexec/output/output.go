// Package output knows the files of a session's outputs: which names belong to
// one, how to find the newest of them, and whether a file system keeps caches that
// two machines do not share. The supervisor looks after the end of a process, the
// shim compares what its own mount shows:
//
//	worker: write, close ── Look: fsync, stat ──▶ Exit.files ──▶ shim: open, stat, equal?
//
// It does file system calls only; whoever calls it bounds them in time, because a
// hung mount lets none of them return.
package output

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ffpod/ffpod/podexec/wire"
)

const (
	// maxFiles is the most that Look tells of.
	maxFiles = 64
	// perSet is the most that Look tells of one numbered set.
	perSet = 8
	// maxEntries bounds how much of a directory is read.
	maxEntries = 1 << 15
)

// Matches reports whether the file called name is one of o. A name that is not
// clean and absolute is none.
func Matches(o *wire.Output, name string) bool {
	return filepath.IsAbs(name) && filepath.Clean(name) == name &&
		filepath.Dir(name) == string(o.Directory) && names(o, filepath.Base(name))
}

func names(o *wire.Output, base string) bool {
	if o.Exact {
		return base == string(o.Prefix)
	}
	return strings.HasPrefix(base, string(o.Prefix))
}

// Look finds the files of outputs as this machine sees them, the newest first. It
// tells of regular files only, of the newest few of each numbered set, and of 64
// in all. Where another machine reads what it finds, through caches of its own,
// the files are first written back, so that size and mtime are the server's. When
// ctx ends it stops between two calls and tells what it knows.
func Look(ctx context.Context, outputs []*wire.Output) []*wire.File {
	found := map[string]*wire.File{}
	remote := map[string]bool{}
	for _, o := range outputs[:min(len(outputs), maxFiles)] {
		dir := string(o.Directory)
		if !filepath.IsAbs(dir) || ctx.Err() != nil {
			continue
		}
		if _, known := remote[dir]; !known {
			remote[dir] = Remote(dir)
		}
		for _, f := range newest(ctx, o) {
			found[string(f.Path)] = f
		}
	}
	all := make([]*wire.File, 0, len(found))
	for _, f := range found {
		all = append(all, f)
	}
	sortNewest(all)
	all = all[:min(len(all), maxFiles)]
	for _, f := range all {
		if ctx.Err() == nil && remote[filepath.Dir(string(f.Path))] {
			settle(f)
		}
	}
	sortNewest(all)
	return all
}

// newest lists the files of one output.
func newest(ctx context.Context, o *wire.Output) []*wire.File {
	dir := string(o.Directory)
	if o.Exact {
		if f := stat(filepath.Join(dir, string(o.Prefix))); f != nil {
			return []*wire.File{f}
		}
		return nil
	}
	var all []*wire.File
	_ = List(dir, func(name string) bool {
		if names(o, name) {
			if f := stat(filepath.Join(dir, name)); f != nil {
				all = append(all, f)
			}
		}
		return ctx.Err() == nil
	})
	sortNewest(all)
	return all[:min(len(all), perSet)]
}

func sortNewest(files []*wire.File) {
	slices.SortFunc(files, func(a, b *wire.File) int {
		switch {
		case a.MtimeNs > b.MtimeNs:
			return -1
		case a.MtimeNs < b.MtimeNs:
			return 1
		}
		return bytes.Compare(b.Path, a.Path)
	})
}

func stat(name string) *wire.File {
	var st unix.Stat_t
	if retry(func() error { return unix.Stat(name, &st) }) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	return &wire.File{Path: []byte(name), Size: st.Size, MtimeNs: st.Mtim.Nano()}
}

// settle writes a file back and reads the attributes that the server gave it.
// What cannot be opened keeps those of its writer.
func settle(f *wire.File) {
	fd, _, err := open(string(f.Path), 0)
	if err != nil {
		return
	}
	_ = retry(func() error { return unix.Fsync(fd) })
	unix.Close(fd)
	if st, err := Open(string(f.Path)); err == nil {
		f.Size, f.MtimeNs = st.Size, st.Mtim.Nano()
	}
}

// Open opens a regular file or a directory and closes it again: that is when a
// network file system asks its server what changed (close-to-open consistency),
// for every process of this machine. It returns the attributes it got.
func Open(name string) (unix.Stat_t, error) {
	fd, st, err := open(name, 0)
	if err == nil {
		unix.Close(fd)
	}
	return st, err
}

// open never blocks on a FIFO and has no effect on a device.
func open(name string, flags int) (fd int, st unix.Stat_t, err error) {
	if err := retry(func() error { return unix.Stat(name, &st) }); err != nil {
		return -1, st, err
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return -1, st, unix.EINVAL
	}
	err = retry(func() error {
		fd, err = unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY|flags, 0)
		return err
	})
	if err != nil {
		return -1, st, err
	}
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// List calls each for the names in dir, in no order, until it returns false or a
// bound on their number is reached.
func List(dir string, each func(name string) bool) error {
	fd, _, err := open(dir, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 32<<10)
	for seen := 0; seen < maxEntries; {
		var n int
		err := retry(func() (err error) { n, err = unix.ReadDirent(fd, buf); return err })
		if err != nil || n <= 0 {
			return err
		}
		_, _, got := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range got {
			if !each(name) {
				return nil
			}
		}
		seen += len(got)
	}
	return nil
}

// retry repeats what a signal interrupted, as FUSE and NFS let happen.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
