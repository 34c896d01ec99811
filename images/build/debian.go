package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// essential are the packages of debian:*-slim that a shell, a script and
// `kubectl exec` expect; apt, dpkg and perl are of no use in a running pod.
var essential = []string{
	"base-files", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils", "grep", "gzip",
	"hostname", "libc-bin", "libc6", "mawk", "ncurses-base", "sed", "tar",
}

// generated are the places that a package's installation script fills, which
// dpkg does not list.
var generated = map[string][]string{
	"ca-certificates":   {"/etc/ssl/certs"},
	"fontconfig-config": {"/etc/fonts/conf.d"},
	"mawk":              {"/usr/bin/awk"},
	"dash":              {"/usr/bin/sh"},
}

// leftOut is documentation, and caches that belong to the machine.
var leftOut = []string{
	"/usr/share/doc/", "/usr/share/man/", "/usr/share/info/", "/usr/share/locale/", "/usr/share/lintian/",
	"/usr/share/bash-completion/", "/usr/share/bug/", "/usr/share/doc-base/", "/usr/share/menu/",
}

// host gathers files of this Debian machine.
type host struct {
	tree      tree
	libraries map[string]string // soname to path, as the loader finds it
	seen      map[string]bool   // programs and libraries whose needs are met
}

// debianTree holds the essential tools, the packages, and every library that
// these need. Packages that are missing are installed when run as root.
func debianTree(ctx context.Context, packages []string, say func(string, ...any)) (tree, error) {
	if err := install(ctx, slices.Concat(essential, packages), say); err != nil {
		return nil, err
	}
	h := &host{tree: tree{}, seen: map[string]bool{}}
	if err := h.readLibraries(ctx); err != nil {
		return nil, err
	}
	for _, top := range []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		if err := h.add(top); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for _, name := range slices.Concat(essential, packages) {
		if err := h.addPackage(ctx, name); err != nil {
			return nil, fmt.Errorf("package %s: %w", name, err)
		}
	}
	if err := h.addStatus("/var/lib/dpkg"); err != nil {
		return nil, fmt.Errorf("describe the packages: %w", err)
	}
	h.tree["/tmp"] = entry{mode: fs.ModeDir | fs.ModeSticky | 0o777}
	h.tree["/var/tmp"] = entry{mode: fs.ModeDir | fs.ModeSticky | 0o777}
	return h.tree, nil
}

// install sees to it that the packages are there.
func install(ctx context.Context, packages []string, say func(string, ...any)) error {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		return errors.New("dpkg-query is missing: an image on Debian is made of this machine's packages; use Debian, Ubuntu, or `docker build`")
	}
	var missing []string
	for _, name := range packages {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status}", name).Output()
		if err != nil || string(out) != "installed" {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing Debian packages: %s; install them with `sudo apt-get install --no-install-recommends %s`", list, list)
	}
	say("installing Debian packages: %s (up to a minute)", list)
	for _, args := range [][]string{{"update"}, append([]string{"install", "-y", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

// addPackage adds what dpkg lists for the package, and what it generated.
func (h *host) addPackage(ctx context.Context, name string) error {
	out, err := exec.CommandContext(ctx, "dpkg-query", "-L", name).Output()
	if err != nil {
		return fmt.Errorf("list files: %w", err)
	}
	for _, file := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if !filepath.IsAbs(file) || file == "/." { // a note on a diversion
			continue
		}
		if isLeftOut(file) {
			continue
		}
		if err := h.add(file); err != nil && !errors.Is(err, fs.ErrNotExist) { // an administrator may remove a file
			return err
		}
	}
	for _, place := range generated[name] {
		err := filepath.WalkDir(place, func(file string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return h.add(file)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// addStatus says in the image which packages its files are of, where scanners for
// vulnerabilities look in images without dpkg: one stanza each in status.d. A
// library that came because a program needs it brings its package's.
func (h *host) addStatus(admin string) error {
	text, err := os.ReadFile(filepath.Join(admin, "status"))
	if err != nil {
		return err
	}
	for _, stanza := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
		name, architecture := field(stanza, "Package"), field(stanza, "Architecture")
		if field(stanza, "Status") != "install ok installed" {
			continue
		}
		list, err := os.ReadFile(filepath.Join(admin, "info", name+".list"))
		if errors.Is(err, fs.ErrNotExist) { // may be there for several architectures
			list, err = os.ReadFile(filepath.Join(admin, "info", name+":"+architecture+".list"))
		}
		if err != nil {
			return fmt.Errorf("package %s: %w", name, err)
		}
		if !slices.ContainsFunc(strings.Split(string(list), "\n"), h.holds) {
			continue
		}
		file := "/var/lib/dpkg/status.d/" + name
		if _, ok := h.tree[file]; ok {
			file += ":" + architecture
		}
		h.tree[file] = entry{mode: 0o644, text: []byte(stanza + "\n")}
		h.tree.addParents(file)
	}
	return nil
}

// holds says whether a file that dpkg lists is in the tree; dpkg may list it below
// /lib or /bin, which are links.
func (h *host) holds(file string) bool {
	for _, name := range []string{file, "/usr" + file} {
		if e, ok := h.tree[name]; ok && e.mode.IsRegular() {
			return true
		}
	}
	return false
}

// field is one of a stanza's, which must stand on one line.
func field(stanza, name string) string {
	for _, line := range strings.Split(stanza, "\n") {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return value
		}
	}
	return ""
}

func isLeftOut(file string) bool {
	if filepath.Base(file) == "copyright" {
		return false
	}
	return slices.ContainsFunc(leftOut, func(dir string) bool { return strings.HasPrefix(file+"/", dir) })
}

// add adds one file of this machine under the name it really has (/bin is
// /usr/bin), where its links lead, and the libraries it needs.
func (h *host) add(file string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return err
	}
	file = filepath.Join(dir, filepath.Base(file))
	if _, ok := h.tree[file]; ok && h.seen[file] {
		return nil
	}
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	h.seen[file] = true
	h.tree.addParents(file)
	switch {
	case info.IsDir():
		h.tree[file] = entry{mode: fs.ModeDir | info.Mode().Perm()}
	case info.Mode()&fs.ModeSymlink != 0:
		return h.addLink(file)
	case info.Mode().IsRegular():
		// Perm drops the set-user-ID bits: nothing in a worker may use them.
		h.tree[file] = entry{mode: info.Mode().Perm(), source: file}
		return h.addNeeded(file)
	}
	return nil
}

func (h *host) addLink(file string) error {
	link, err := os.Readlink(file)
	if err != nil {
		return err
	}
	h.tree[file] = entry{mode: fs.ModeSymlink | 0o777, link: link}
	target := link
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(file), target)
	}
	if isLeftOut(target) {
		return nil
	}
	if err := h.add(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// addNeeded adds the interpreter and the libraries that an ELF file names.
func (h *host) addNeeded(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name, err := io.ReadAll(p.Open())
			if err != nil {
				return fmt.Errorf("read interpreter of %s: %w", file, err)
			}
			if err := h.add(string(bytes.TrimRight(name, "\x00"))); err != nil {
				return err
			}
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read needs of %s: %w", file, err)
	}
	for _, soname := range needed {
		library, err := h.find(f, file, soname)
		if err != nil {
			return err
		}
		if err := h.add(library); err != nil {
			return err
		}
	}
	return nil
}

// find is the loader's search: the file's own run path, then the system's.
func (h *host) find(f *elf.File, file, soname string) (string, error) {
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, err := f.DynString(tag)
		if err != nil {
			return "", fmt.Errorf("read run path of %s: %w", file, err)
		}
		for _, dir := range strings.FieldsFunc(strings.Join(paths, ":"), func(r rune) bool { return r == ':' }) {
			candidate := filepath.Join(strings.ReplaceAll(dir, "$ORIGIN", filepath.Dir(file)), soname)
			if _, err := os.Stat(candidate); err == nil {
				return candidate, nil
			}
		}
	}
	if library, ok := h.libraries[soname]; ok {
		return library, nil
	}
	// The cache knows a library by one name; a link beside it may be another.
	for _, dir := range []string{filepath.Dir(h.libraries["libc.so.6"]), "/usr/lib", "/lib"} {
		candidate := filepath.Join(dir, soname)
		if _, err := os.Stat(candidate); err == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%s needs %s, which this machine does not have; reinstall the package that owns it (dpkg -S %s)", file, soname, file)
}

// readLibraries asks the loader's cache. Of two entries with one name the first
// is the one that is loaded.
func (h *host) readLibraries(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "/sbin/ldconfig", "-p").Output()
	if err != nil {
		return fmt.Errorf("list shared libraries: /sbin/ldconfig -p: %w", err)
	}
	native := machineOf("/proc/self/exe")
	h.libraries = map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		name, library, ok := strings.Cut(strings.TrimSpace(line), " => ")
		if !ok {
			continue
		}
		soname, _, _ := strings.Cut(name, " ")
		if _, ok := h.libraries[soname]; !ok && machineOf(library) == native {
			h.libraries[soname] = library
		}
	}
	return nil
}

func machineOf(file string) elf.Machine {
	f, err := elf.Open(file)
	if err != nil {
		return elf.EM_NONE
	}
	defer f.Close()
	return f.Machine
}

// packageVersion is for the progress line; empty when unknown.
func packageVersion(ctx context.Context, name string) string {
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", name).Output()
	if err != nil {
		return ""
	}
	return string(out)
}
