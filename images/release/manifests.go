package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// own is a reference to an image of ffpod in a manifest.
var own = regexp.MustCompile(`(?m)^(\s*(?:- )?image: )` + home + `(ffpod|shim|worker):([\w.-]+)\s*$`)

// prepare gives the tree the tag that it is about to get: who lists
// github.com/ffpod/ffpod//kustomize/base?ref=v1.2.3 then gets v1.2.3's images.
func prepare(work, version string, stdout io.Writer) error {
	if err := checkVersion(version); err != nil {
		return err
	}
	if _, err := changelog(work, version); err != nil {
		return err
	}
	changed := 0
	err := walkManifests(work, func(name string, text []byte) error {
		now := own.ReplaceAll(text, []byte("${1}"+home+"${2}:"+version))
		if bytes.Equal(now, text) {
			return nil
		}
		changed++
		return os.WriteFile(filepath.Join(work, name), now, 0o644)
	})
	if err != nil {
		return err
	}
	if changed == 0 {
		return fmt.Errorf("nothing below kustomize/ changed: is it %s already?", version)
	}
	fmt.Fprintf(stdout, "%d files name %s; now: go test ./test/manifests -update, commit, tag\n", changed, version)
	return nil
}

// walkManifests visits all of kustomize/ that is not Go, in order.
func walkManifests(work string, visit func(name string, text []byte) error) error {
	return filepath.WalkDir(filepath.Join(work, "kustomize"), func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(file) == ".go" {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(work, file)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(name), text)
	})
}

// pin puts the digests into a manifest. It refuses any other tag than the
// release's: such an image would not be what was released.
func pin(name string, text []byte, version string, digests map[string]string) ([]byte, error) {
	var wrong error
	out := own.ReplaceAllFunc(text, func(line []byte) []byte {
		m := own.FindSubmatch(line)
		image, tag := string(m[2]), string(m[3])
		if tag != version {
			wrong = errors.Join(wrong, fmt.Errorf("%s: image %s%s has tag %s, want %s: go run ./images/release prepare %s before the tag", name, home, image, tag, version, version))
		}
		if digests[image] == "" {
			wrong = errors.Join(wrong, fmt.Errorf("%s: image %s%s is no part of the release", name, home, image))
		}
		return fmt.Appendf(nil, "%s%s%s:%s@%s", m[1], home, image, version, digests[image])
	})
	if wrong != nil {
		return nil, wrong
	}
	for _, line := range strings.Split(string(out), "\n") {
		if at := strings.Index(line, "image: "+home); at >= 0 && !strings.Contains(line[:at], "#") && !strings.Contains(line, "@sha256:") {
			return nil, fmt.Errorf("%s: %s: not in the form image: %sNAME:TAG, so it cannot be given a digest", name, strings.TrimSpace(line), home)
		}
	}
	return out, nil
}

// writeManifests writes the tree with every image of ffpod by digest.
func (r *release) writeManifests(file string, published []published) (err error) {
	digests := map[string]string{}
	for _, p := range published {
		digests[p.name] = p.digest.String()
	}
	files := map[string][]byte{}
	err = walkManifests(r.work, func(name string, text []byte) error {
		if filepath.Ext(name) == ".yaml" {
			var err error
			if text, err = pin(name, text, r.version, digests); err != nil {
				return err
			}
		}
		files[name] = text
		return nil
	})
	if err != nil {
		return err
	}
	if files["LICENSE"], err = os.ReadFile(filepath.Join(r.work, "LICENSE")); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zw, err := gzip.NewWriterLevel(f, gzip.BestCompression) // its header has no time and no name
	if err != nil {
		return err
	}
	tw := tar.NewWriter(zw)
	for _, name := range sortedKeys(files) {
		if err := add(tw, "ffpod-"+r.version+"/"+name, 0o644, files[name]); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), zw.Close())
}

// changelog is the text of a version's section.
func changelog(work, version string) (string, error) {
	text, err := os.ReadFile(filepath.Join(work, "CHANGELOG.md"))
	if err != nil {
		return "", err
	}
	heading := regexp.MustCompile(`^## \[?` + regexp.QuoteMeta(version) + `\]?( |$)`)
	lines := strings.Split(string(text), "\n")
	from := slices.IndexFunc(lines, heading.MatchString)
	if from < 0 {
		return "", fmt.Errorf("CHANGELOG.md: no section `## %s`; give Unreleased that name and a new Unreleased above it", version)
	}
	section := lines[from+1:]
	if to := slices.IndexFunc(section, func(l string) bool { return strings.HasPrefix(l, "## ") }); to >= 0 {
		section = section[:to]
	}
	body := strings.TrimSpace(strings.Join(section, "\n"))
	if body == "" {
		return "", fmt.Errorf("CHANGELOG.md: section %s is empty", version)
	}
	return body, nil
}

// writeNotes writes what the release's page says.
func (r *release) writeNotes(out string, published []published) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# ffpod %s\n\n%s\n\n## Images\n\n| image | digest | for |\n|---|---|---|\n", r.version, r.text)
	var gaps []string
	for _, p := range published {
		fmt.Fprintf(&b, "| `%s%s:%s` | `%s` | %s |\n", home, p.name, r.version, p.digest, strings.Join(p.platforms, ", "))
		for _, goarch := range platforms {
			if !slices.Contains(p.platforms, "linux/"+goarch) {
				gaps = append(gaps, fmt.Sprintf("`%s%s` is not there for linux/%s: nodes of that kind need a worker of their own, such as Jellyfin's image with kustomize/components/inject-supervisor.", home, p.name, goarch))
			}
		}
	}
	fmt.Fprintf(&b, "\nCommit %s. docs/release.md says how to verify, install without a registry, upgrade and go back.\n", r.revision)
	if r.offline {
		gaps = append(gaps, "**Not checked for vulnerabilities**: built with -offline, so neither Go's database nor Debian's archive was asked.")
	}
	for _, gap := range gaps {
		fmt.Fprintf(&b, "\n%s\n", gap)
	}
	return os.WriteFile(filepath.Join(out, "NOTES.md"), []byte(b.String()), 0o644)
}
