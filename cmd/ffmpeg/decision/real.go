package decision

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// jellyfinDir is where jellyfin-ffmpeg's packages and Jellyfin's images have
// the real binaries.
const jellyfinDir = "/usr/lib/jellyfin-ffmpeg"

// shimPath is the shim's import path, which Go writes into every copy of it.
const shimPath = "github.com/ffpod/ffpod/cmd/ffmpeg"

// ErrIsShim says that what should be the real binary is the shim itself, under
// whatever name or release: executing it would never end.
var ErrIsShim = errors.New("it is the shim itself")

// ErrNoReal says that no real binary was found anywhere.
var ErrNoReal = errors.New("no real binary found")

// Real finds the real binary of a program: FFPOD_FFMPEG or FFPOD_FFPROBE, else
// jellyfin-ffmpeg's, else the first in PATH that is not the shim. A setting
// that names nothing executable is an error, never skipped.
func (s *Settings) Real(program ffmpeg.Program) (string, error) {
	set, name := s.FFmpeg, "FFPOD_FFMPEG"
	if program == ffmpeg.FFprobe {
		set, name = s.FFprobe, "FFPOD_FFPROBE"
	}
	if set != "" {
		if err := executable(set); err != nil {
			return "", fmt.Errorf("%s=%s: %w", name, set, err)
		}
		return set, nil
	}
	for _, dir := range append([]string{jellyfinDir}, filepath.SplitList(s.Path)...) {
		candidate := filepath.Join(dir, string(program))
		// A relative entry of PATH means another binary in every directory.
		if filepath.IsAbs(dir) && executable(candidate) == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("%s in %s and PATH: %w", program, jellyfinDir, ErrNoReal)
}

// executable tells whether a file may be executed instead of the shim.
func executable(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return errors.Unwrap(err)
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is no regular file")
	}
	const execute = 1 // X_OK of access(2)
	if err := syscall.Access(name, execute); err != nil {
		return err
	}
	if isShim(name, info) {
		return ErrIsShim
	}
	return nil
}

// isShim compares files first, which is cheap and finds links. Copies, also of
// other releases, are found by what the Go linker wrote into them: two shims
// that each find the other in PATH would loop too.
func isShim(name string, info fs.FileInfo) bool {
	if self, err := os.Stat("/proc/self/exe"); err == nil && os.SameFile(self, info) {
		return true
	}
	// buildinfo would search the data of a program that has no such section.
	f, err := elf.Open(name)
	if err != nil {
		return false
	}
	goProgram := f.Section(".go.buildinfo") != nil
	_ = f.Close()
	if !goProgram {
		return false
	}
	built, err := buildinfo.ReadFile(name)
	return err == nil && built.Path == shimPath
}
