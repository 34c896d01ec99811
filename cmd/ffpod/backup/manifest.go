package backup

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

const (
	manifestName = "manifest.json"
	dumpName     = "postgres.dump"
	treeName     = "config"
	// format is raised when an older ffpod could not restore what is written.
	format = 1
)

// The engines that hold Jellyfin's main database.
const (
	SQLite     = "sqlite"
	PostgreSQL = "postgresql"
)

// Manifest tells what a backup holds.
type Manifest struct {
	Format int       `json:"format"`
	Made   time.Time `json:"made"`
	FFpod  string    `json:"ffpod"`
	// Jellyfin is the version that wrote the settings, if they say so. A backup
	// can be restored under this version or a later one.
	Jellyfin string `json:"jellyfin,omitempty"`
	Engine   string `json:"engine"`
	// Databases are the files that are SQLite databases.
	Databases []string  `json:"databases"`
	Files     []File    `json:"files"`
	Blanked   []Blanked `json:"blanked"`
	Left      []Left    `json:"left"`
}

// File is one part of the archive.
type File struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Blanked is a settings file and the names of what was a secret in it.
type Blanked struct {
	Path  string   `json:"path"`
	Names []string `json:"names"`
}

// Left is what is not in the backup.
type Left struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// encode is the manifest's text.
func (m *Manifest) encode() ([]byte, error) {
	text, err := json.MarshalIndent(m, "", " ")
	return append(text, '\n'), err
}

// decodeManifest refuses what this release could not restore.
func decodeManifest(text []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", manifestName, err)
	}
	if m.Format != format {
		return nil, fmt.Errorf("%s: format %d, this ffpod reads %d; use the ffpod that made it (%s) or a later one", manifestName, m.Format, format, m.FFpod)
	}
	if m.Engine != SQLite && m.Engine != PostgreSQL {
		return nil, fmt.Errorf("%s: engine %q is unknown", manifestName, m.Engine)
	}
	return &m, nil
}

// timeLayout makes names that sort by time.
const timeLayout = "20060102T150405Z"

var archiveName = regexp.MustCompile(`^jellyfin-(\d{8}T\d{6}Z)\.tar\.gz$`)

// Archive is one backup in a directory.
type Archive struct {
	Path  string
	Made  time.Time
	Bytes int64
}

// List returns the backups in the directory, the newest first. What has another
// name is none.
func List(dir string) ([]Archive, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []Archive
	for _, e := range entries {
		match := archiveName.FindStringSubmatch(e.Name())
		if match == nil || !e.Type().IsRegular() {
			continue
		}
		made, err := time.Parse(timeLayout, match[1])
		if err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		all = append(all, Archive{Path: filepath.Join(dir, e.Name()), Made: made, Bytes: info.Size()})
	}
	slices.SortFunc(all, func(a, b Archive) int { return cmp.Or(b.Made.Compare(a.Made), cmp.Compare(b.Path, a.Path)) })
	return all, nil
}
