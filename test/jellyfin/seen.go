package jellyfin

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// Seen is what a server can know of one process.
type Seen struct {
	Exit    int // as .NET has it; 137 when it was killed
	Where   string
	Stdout  Bytes
	Text    string   // what stdout said, when short enough for a person
	Said    []string // the classes of lines on stderr, sorted
	Parsed  []string // what the server reads out of stderr
	Files   []File
	Facts   string // what ffprobe says of the result
	Seconds float64
}

// Bytes is a stream or a file.
type Bytes struct {
	Bytes int64
	SHA   string
}

// File is one output, by its name below the directory.
type File struct {
	Name string
	Bytes
}

func sum(b []byte) Bytes {
	s := sha256.Sum256(b)
	return Bytes{int64(len(b)), hex.EncodeToString(s[:])}
}

var (
	volatile = regexp.MustCompile(`0x[0-9a-f]+|[0-9]+`)
	report   = regexp.MustCompile(`^(frame|size)= *([0-9#]|N/A)`)
)

// classes are the lines without what differs from run to run: numbers, addresses
// and progress.
func classes(stderr string) []string {
	var all []string
	for _, line := range strings.FieldsFunc(stderr, func(r rune) bool { return r == '\r' || r == '\n' }) {
		line = strings.TrimSpace(line)
		if line == "" || report.MatchString(line) || strings.Contains(line, "Last message repeated") {
			continue
		}
		all = append(all, volatile.ReplaceAllString(line, "#"))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// sizeSlack is how much a file of the same content may differ when an encoder's
// threads raced.
const sizeSlack = 0.1

// Compare says in what a server would see another thing. Bytes that differ are
// forgiven only in files, when there are as many of them, of nearly the same
// size, and ffprobe finds the same in them.
func Compare(want, got Seen) (differences []string) {
	differ := func(what string, want, got any) {
		differences = append(differences, fmt.Sprintf("%s: %v, want %v", what, got, want))
	}
	if want.Exit != got.Exit {
		differ("exit", want.Exit, got.Exit)
	}
	if want.Stdout != got.Stdout {
		differ("stdout", want.Stdout, got.Stdout)
		if want.Text != "" || got.Text != "" {
			differ("stdout's text", want.Text, got.Text)
		}
	}
	if !slices.Equal(want.Parsed, got.Parsed) {
		differ("read out of stderr", want.Parsed, got.Parsed)
	}
	for _, line := range want.Said {
		if !slices.Contains(got.Said, line) {
			differ("stderr", line, "not said")
		}
	}
	for _, line := range got.Said {
		if !slices.Contains(want.Said, line) {
			differ("stderr", "not said", line)
		}
	}
	if want.Facts != got.Facts {
		differ("the result", want.Facts, got.Facts)
	}
	return append(differences, compareFiles(want.Files, got.Files)...)
}

func compareFiles(want, got []File) (differences []string) {
	names := func(files []File) (all []string) {
		for _, f := range files {
			all = append(all, f.Name)
		}
		return all
	}
	if w, g := names(want), names(got); !slices.Equal(w, g) {
		return []string{fmt.Sprintf("files: %v, want %v", g, w)}
	}
	for i, w := range want {
		g := got[i]
		if w == g {
			continue
		}
		if float64(g.Bytes.Bytes) == 0 || math.Abs(float64(g.Bytes.Bytes-w.Bytes.Bytes)) > sizeSlack*float64(w.Bytes.Bytes)+64 {
			differences = append(differences, fmt.Sprintf("file %s: %d bytes, want %d", w.Name, g.Bytes.Bytes, w.Bytes.Bytes))
		}
	}
	return differences
}

// Identical tells whether every file has the same bytes.
func Identical(want, got Seen) bool { return slices.Equal(want.Files, got.Files) }
