// Package buildid reads the GNU build id of an ELF program: the one cheap and
// certain name of "the same ffmpeg". Two programs with one id were linked from
// the same objects.
package buildid

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"fmt"
)

// noteGNUBuildID is NT_GNU_BUILD_ID of elf.h.
const noteGNUBuildID = 3

// Of returns the build id of the ELF file at path in hex, and "" when the file
// carries none (a script, or a program linked without --build-id).
func Of(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		if _, notELF := err.(*elf.FormatError); notELF {
			return "", nil
		}
		return "", fmt.Errorf("build id of %s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<16 {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err != nil {
			return "", fmt.Errorf("build id of %s: %w", path, err)
		}
		if id := find(notes, f.ByteOrder.Uint32); id != nil {
			return hex.EncodeToString(id), nil
		}
	}
	return "", nil
}

// find walks the notes: name size, descriptor size, type, then both padded to 4.
func find(b []byte, u32 func([]byte) uint32) []byte {
	for len(b) >= 12 {
		name, desc, kind := int(u32(b)), int(u32(b[4:])), u32(b[8:])
		b = b[12:]
		pad := func(n int) int { return (n + 3) &^ 3 }
		if name < 0 || desc < 0 || pad(name)+pad(desc) > len(b) || pad(name)+pad(desc) < 0 {
			return nil
		}
		if kind == noteGNUBuildID && bytes.Equal(bytes.TrimRight(b[:name], "\x00"), []byte("GNU")) {
			return b[pad(name) : pad(name)+desc]
		}
		b = b[pad(name)+pad(desc):]
	}
	return nil
}
