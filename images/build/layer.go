package main

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// entry is one name in a layer: a directory, a link, or a file of this machine.
type entry struct {
	mode   fs.FileMode // type and permission bits
	link   string      // of a symbolic link
	source string      // of a file: where its content is …
	text   []byte      // … or the content itself
}

// tree is what one instruction adds, by absolute path in the image.
type tree map[string]entry

// identity says when a layer is the same as the last time.
type identity int

const (
	// byContent reads every file.
	byContent identity = iota
	// byStat trusts size and modification time: for thousands of system files.
	byStat
)

// addFile adds the file at source under name, and the directories above.
func (t tree) addFile(name, source string, mode fs.FileMode) {
	t[name] = entry{mode: mode.Perm(), source: source}
	t.addParents(name)
}

func (t tree) addParents(name string) {
	for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
		if _, ok := t[dir]; !ok {
			t[dir] = entry{mode: fs.ModeDir | 0o755}
		}
	}
}

// names are the entries' paths, parents before children.
func (t tree) names() []string {
	names := make([]string, 0, len(t))
	for name := range t {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// key identifies the content that write would produce.
func (t tree) key(by identity) (string, error) {
	h := sha256.New()
	for _, name := range t.names() {
		e := t[name]
		fmt.Fprintf(h, "%q %o %q", name, e.mode, e.link)
		if e.text != nil {
			fmt.Fprintf(h, " %q", e.text)
		}
		if e.source != "" {
			if err := hashSource(h, e.source, by); err != nil {
				return "", err
			}
		}
		fmt.Fprintln(h)
	}
	return hex.EncodeToString(h.Sum(nil))[:32], nil
}

func hashSource(h io.Writer, source string, by identity) error {
	f, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("read layer content: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read layer content: %w", err)
	}
	fmt.Fprintf(h, " %d", info.Size())
	if by == byStat {
		fmt.Fprintf(h, " %d", info.ModTime().UnixNano())
		return nil
	}
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("read layer content: %w", err)
	}
	return nil
}

// write writes the layer as a tar stream that depends on nothing but names,
// modes, links and content.
func (t tree) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, name := range t.names() {
		if err := t.writeEntry(tw, name); err != nil {
			return fmt.Errorf("write layer entry %s: %w", name, err)
		}
	}
	return tw.Close()
}

func (t tree) writeEntry(tw *tar.Writer, name string) error {
	e := t[name]
	h := &tar.Header{Name: strings.TrimPrefix(name, "/"), Mode: int64(e.mode.Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if e.mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case e.mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		return tw.WriteHeader(h)
	case e.mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		return tw.WriteHeader(h)
	case e.source == "":
		h.Typeflag, h.Size = tar.TypeReg, int64(len(e.text))
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := tw.Write(e.text)
		return err
	}
	f, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// layer is an uncompressed layer in a file of the cache; compressing would cost
// more than it saves on the way to a node's disk. It is a v1.Layer.
type layer struct {
	file   string
	Hash   v1.Hash `json:"hash"`
	Bytes  int64   `json:"bytes"`
	Files  int     `json:"files"`
	Cached bool    `json:"-"`
}

func (l *layer) Digest() (v1.Hash, error)             { return l.Hash, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.Hash, nil }
func (l *layer) Size() (int64, error)                 { return l.Bytes, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return types.DockerUncompressedLayer, nil }
func (l *layer) Compressed() (io.ReadCloser, error)   { return os.Open(l.file) }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.file) }

// layerOf returns t as a layer, from the directory if it is there. Of layers
// with one name the directory keeps the newest.
func layerOf(dir, name string, t tree, by identity) (*layer, error) {
	key, err := t.key(by)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, name+"-"+key+".tar")
	if l, err := readLayer(file); err == nil {
		return l, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	stale, err := filepath.Glob(filepath.Join(dir, name+"-????????????????????????????????.tar*"))
	if err != nil {
		return nil, err
	}
	l, err := writeLayer(file, t)
	if err != nil {
		return nil, fmt.Errorf("make layer %s: %w", name, err)
	}
	for _, old := range stale {
		if err := os.Remove(old); err != nil {
			return nil, fmt.Errorf("clear the layer cache: %w", err)
		}
	}
	return l, nil
}

// readLayer reads the description beside the layer, which is written last.
func readLayer(file string) (*layer, error) {
	text, err := os.ReadFile(file + ".json")
	if err != nil {
		return nil, err
	}
	l := &layer{file: file, Cached: true}
	if err := json.Unmarshal(text, l); err != nil {
		return nil, fmt.Errorf("%s.json: %w; remove it", file, err)
	}
	return l, nil
}

func writeLayer(file string, t tree) (l *layer, err error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	h := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(f, h), 1<<20)
	if err := t.write(buffered); err != nil {
		return nil, err
	}
	if err := buffered.Flush(); err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	l = &layer{file: file, Hash: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}, Bytes: size, Files: len(t)}
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	return l, os.WriteFile(file+".json", text, 0o644)
}
