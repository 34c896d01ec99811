package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// The directories of a shared claim are there before a subPath is mounted, are
// made once, and keep what is in them.
func TestInstallMakesDirectories(t *testing.T) {
	root := t.TempDir()
	dirs := []string{filepath.Join(root, "transcodes"), filepath.Join(root, "a", "b")}
	for range 2 {
		if err := makeDirectories(dirs); err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			entries, err := os.ReadDir(d)
			if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != "film" {
				t.Errorf("%s has %v, %v", d, entries, err)
			}
		}
		if err := os.WriteFile(filepath.Join(dirs[0], "film"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := makeDirectories(nil); err != nil {
		t.Error(err)
	}
}

// The flag reaches it: an init container has no other way to say so.
func TestInstallMkdirFlag(t *testing.T) {
	c := newInstall()
	if err := c.ParseFlags([]string{"--mkdir=/a,b", "--mkdir", "/c"}); err != nil {
		t.Fatal(err)
	}
	got, err := c.Flags().GetStringArray("mkdir")
	if err != nil || len(got) != 2 || got[0] != "/a,b" || got[1] != "/c" {
		t.Errorf("%q, %v", got, err)
	}
}

// A fresh volume that is root's, as an NFS export or a driver without fsGroup
// has it: one line says who may not, whose it is, and what to do.
func TestInstallTellsWhoCannotWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a directory of root's")
	}
	root, err := os.MkdirTemp("/tmp", "shared-") // whose parents others may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	as(t, 1234, 567, func() {
		err = makeDirectories([]string{filepath.Join(root, "transcodes"), filepath.Join(root, "tmp"), filepath.Join(root, "concat")})
	})
	if err == nil {
		t.Fatal("a stranger made directories in a directory of root's")
	}
	for _, want := range []string{
		root + "/transcodes", "uid 1234, gid 567", "permission denied", root + " belongs to uid 0, gid 0, mode 0755",
		"chown -R 1234:567", "root_squash", "fsGroup", "Longhorn", "identity in settings.yaml", "and 2 more directories",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %v", err)
	}
	if entries, _ := os.ReadDir(root); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// as runs f on a thread of another user. The thread ends with it.
func as(t *testing.T, uid, gid uintptr, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		for _, call := range [][2]uintptr{{syscall.SYS_SETRESGID, gid}, {syscall.SYS_SETRESUID, uid}} {
			if _, _, errno := syscall.RawSyscall(call[0], call[1], call[1], call[1]); errno != 0 {
				t.Error(errno)
				return
			}
		}
		f()
	}()
	<-done
}
