package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// platforms are those of every release. An image may lack one; the notes say so.
var platforms = []string{"amd64", "arm64"}

// names are those under which each image is published, the image's own first. The
// shim has a name of its own so that a new ffpod does not restart Jellyfin.
var names = map[string][]string{"ffpod": {"ffpod", "shim"}, "worker": {"worker"}}

// images are the keys of names, in the order of everything that is written.
var images = []string{"ffpod", "worker"}

const (
	// home is the images' repository prefix, as the manifests name it …
	home = "ffpod/"
	// … and in full, as a container runtime does.
	fullHome = "docker.io/ffpod/"
	source   = "https://github.com/ffpod/ffpod"
)

// release is one that is being made.
type release struct {
	work     string // the source tree
	out      string
	version  string
	offline  bool
	database string   // of vulnerabilities
	archives []string // images made elsewhere, by images/build
	stdout   io.Writer

	revision string
	created  time.Time // the commit's
	text     string    // of the changelog
}

func (r *release) say(format string, args ...any) { fmt.Fprintf(r.stdout, format+"\n", args...) }

// build makes the whole release, or leaves no directory behind.
func (r *release) build(ctx context.Context) (err error) {
	if err := r.inspect(ctx); err != nil {
		return err
	}
	if _, err := os.Lstat(r.out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("output directory %s: it is there; remove it or name another", r.out)
	}
	if !r.offline {
		if err := vulnerabilities(ctx, r.work, r.database, r.stdout); err != nil {
			return err
		}
	}
	archives, err := os.MkdirTemp("", "ffpod-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(archives)
	for _, goarch := range platforms {
		cmd := exec.CommandContext(ctx, "go", "run", "./images/build", "-o", archives, "-platform", "linux/"+goarch, "-tag", r.version, "-version", r.version)
		cmd.Dir, cmd.Stdout, cmd.Stderr = r.work, r.stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build the images for %s: %w", goarch, err)
		}
	}
	built, err := filepath.Glob(filepath.Join(archives, "*.tar"))
	if err != nil {
		return err
	}
	return r.assemble(ctx, slices.Concat(built, r.archives))
}

// inspect refuses a tree that is not the one the tag names, and reads of it what
// the release says of itself.
func (r *release) inspect(ctx context.Context) error {
	if err := checkVersion(r.version); err != nil {
		return err
	}
	changes, err := git(ctx, r.work, "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		first, _, _ := strings.Cut(changes, "\n")
		return fmt.Errorf("work tree %s: not as committed (%s); commit or stash first, since a release is made of a commit", r.work, strings.TrimSpace(first))
	}
	tags, err := git(ctx, r.work, "tag", "--points-at", "HEAD")
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Fields(tags), r.version) {
		return fmt.Errorf("commit HEAD: not tagged %s; git tag -s %s, or check it out", r.version, r.version)
	}
	if r.revision, err = git(ctx, r.work, "rev-parse", "HEAD"); err != nil {
		return err
	}
	seconds, err := git(ctx, r.work, "show", "-s", "--format=%ct", "HEAD")
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("time of HEAD: %w", err)
	}
	r.created = time.Unix(n, 0).UTC()
	r.text, err = changelog(r.work, r.version)
	return err
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// assemble makes the release of archives, which hold every image's platforms.
func (r *release) assemble(ctx context.Context, archives []string) error {
	loaded, err := load(archives, r.version)
	if err != nil {
		return err
	}
	if !r.offline {
		if err := outdated(ctx, loaded, r.stdout); err != nil {
			return err
		}
	}
	partial := r.out + ".partial"
	if err := errors.Join(os.RemoveAll(partial), os.MkdirAll(partial, 0o755)); err != nil {
		return err
	}
	defer os.RemoveAll(partial)
	published, err := r.writeImages(partial, loaded)
	if err != nil {
		return err
	}
	if err := r.writeManifests(filepath.Join(partial, "ffpod-"+r.version+"-kustomize.tar.gz"), published); err != nil {
		return err
	}
	if err := r.writeNotes(partial, published); err != nil {
		return err
	}
	if err := writeSums(partial); err != nil {
		return err
	}
	if err := check(partial, io.Discard); err != nil {
		return fmt.Errorf("what was written: %w", err)
	}
	if err := os.Rename(partial, r.out); err != nil {
		return err
	}
	for _, p := range published {
		r.say("%s%s@%s  %s", home, p.name, p.digest, strings.Join(p.platforms, ", "))
	}
	r.say("%s is in %s", r.version, r.out)
	return nil
}
