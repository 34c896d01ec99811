package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ffpod/ffpod/cmd/ffpod/jellyfin"
)

// installed tells which binary beside this one each part is, and under which
// names it is installed.
func installed(part string) (source string, names []string, ok bool) {
	switch part {
	case "shim":
		return "ffmpeg", []string{"ffmpeg", "ffprobe"}, true
	case "supervisor":
		return "worker", []string{"worker"}, true
	case "ffpod":
		return "ffpod", []string{"ffpod"}, true
	}
	return "", nil, false
}

func newInstall() *cobra.Command {
	var directories []string
	c := &cobra.Command{
		Use:   "install shim|supervisor|ffpod DIR [--mkdir DIR]...",
		Short: "Copy the shim (as ffmpeg and ffprobe, with ffpod), the supervisor (as worker) or ffpod into a directory",
		Long: "Install copies the binary that lies beside ffpod itself. Init containers run it to bring the shim, the\n" +
			"supervisor or ffpod into a volume of a pod with any other image. What was there before is replaced at once: a process\n" +
			"that starts meanwhile gets the old or the new file, whole.\n\n" +
			"With --mkdir it also makes directories of volumes that are mounted later by subPath, as the identity that it\n" +
			"runs as: those that are missing then, the kubelet would make as root. It proves that it can write them.",
		Args: usage(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find the directory of ffpod itself: %w", err)
			}
			if self, err = filepath.EvalSymlinks(self); err != nil {
				return err
			}
			if err := install(args[0], filepath.Dir(self), args[1], c.OutOrStdout()); err != nil {
				return err
			}
			if err := makeDirectories(directories); err != nil {
				return fmt.Errorf("install %s: %w", args[0], err)
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&directories, "mkdir", nil, "a directory to make, and to prove writable")
	return c
}

// install puts a part from the directory from into dir, which it makes if need
// be, and prints one line for each file.
func install(part, from, dir string, report io.Writer) error {
	source, names, ok := installed(part)
	if !ok {
		return &usageError{err: fmt.Errorf("install %q: it is neither shim, supervisor nor ffpod", part)}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("install %s: %w", part, err)
	}
	if part == "shim" { // `ffpod explain` is of use where the shim is
		if err := place(func() error { return replace(filepath.Join(from, "ffpod"), filepath.Join(dir, "ffpod")) }, filepath.Join(dir, "ffpod"), report); err != nil {
			return fmt.Errorf("install %s: %w", part, err)
		}
	}
	from = filepath.Join(from, source)
	for i, name := range names {
		to := filepath.Join(dir, name)
		copied := func() error { return replace(from, to) }
		if i > 0 {
			copied = func() error { return alias(filepath.Join(dir, names[0]), to) }
		}
		if err := place(copied, to, report); err != nil {
			return fmt.Errorf("install %s: %w", part, err)
		}
	}
	return nil
}

// makeDirectories makes what a pod mounts later by subPath. All are tried, and
// what ails the first is told: it ails the others, too.
func makeDirectories(directories []string) error {
	var first error
	failed := 0
	for _, d := range directories {
		if err := jellyfin.Writable(d); err != nil {
			first = cmp.Or(first, err)
			failed++
		}
	}
	if failed > 1 {
		return fmt.Errorf("%w; and %d more directories", first, failed-1)
	}
	return first
}

// place does one file and says so.
func place(do func() error, to string, report io.Writer) error {
	if err := do(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(report, "installed %s\n", to)
	return err
}

// replace copies a program. The copy gets its name only when it is whole and
// executable.
func replace(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(out.Name())
		}
	}()
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(0o755) // whatever the umask is
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s to %s: %s", from, to, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return os.Rename(out.Name(), to)
}

// alias gives a program another name: a hard link, so that both share one copy
// in memory, or a copy where the file system has no links.
func alias(program, to string) error {
	temporary := filepath.Join(filepath.Dir(to), "."+filepath.Base(to)+"-link")
	_ = os.Remove(temporary) // of an install that was killed
	if err := os.Link(program, temporary); err != nil {
		return replace(program, to)
	}
	if err := os.Rename(temporary, to); err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return nil
}
