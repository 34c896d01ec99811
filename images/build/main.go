package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "images/build:", err)
		os.Exit(1)
	}
}

// images are all images, those first that others are made from.
var images = []string{"ffpod", "worker"}

// shipped tells the images of a release from those that tests make.
func shipped(image string) bool { return slices.Contains(images, image) }

// elsewhere are images with a Dockerfile here that this program cannot make.
var elsewhere = []string{"jellyfin"}

// aliases are further names of an image, in the same archive. Jellyfin's pod has
// the shim from a name of its own, so that a new ffpod does not restart it.
var aliases = map[string][]string{"ffpod": {"shim"}}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("images/build", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: go run ./images/build -o DIRECTORY [-C SOURCE] [-platform linux/ARCH] [-tag TAG] [-version VERSION] [-arg NAME=VALUE] [ffpod] [worker] [DIRECTORY...]")
		flags.PrintDefaults()
	}
	out := flags.String("o", "", "directory for the archives NAME.tar (NAME-ARCH.tar for another architecture)")
	platform := flags.String("platform", "linux/"+runtime.GOARCH, "linux/amd64 or linux/arm64")
	tag := flags.String("tag", "dev", "tag of the images")
	version := flags.String("version", "", "what the binaries call themselves; default: as the Dockerfiles say")
	values := map[string]string{}
	flags.Func("arg", "NAME=VALUE: what an ARG of a Dockerfile is, in place of its default", func(text string) error {
		name, value, ok := strings.Cut(text, "=")
		values[name] = value
		if !ok {
			return errors.New("want NAME=VALUE")
		}
		return nil
	})
	source := flags.String("C", "", "directory of the source tree; default: this one")
	if err := flags.Parse(args); err != nil {
		return err
	}
	goarch, ok := strings.CutPrefix(*platform, "linux/")
	if !ok || goarch != "amd64" && goarch != "arm64" {
		return fmt.Errorf("platform %q: want linux/amd64 or linux/arm64", *platform)
	}
	wanted := flags.Args()
	for _, w := range wanted {
		if slices.Contains(elsewhere, w) {
			return fmt.Errorf("image %q: its base comes from a registry, which this program does not ask; docker build -f images/%s/Dockerfile -t ffpod/%s:%s . makes it", w, w, w, *tag)
		}
		if !shipped(w) && !strings.Contains(w, "/") {
			return fmt.Errorf("image %q: want %s, or a directory with a Dockerfile, such as test/data/postgres", w, strings.Join(images, " or "))
		}
	}
	if *out == "" {
		return errors.New("no output directory: give -o DIRECTORY")
	}
	work, err := filepath.Abs(*source)
	if err != nil {
		return err
	}
	return build(ctx, &builder{context: work, tag: *tag, version: *version, goarch: goarch, args: values}, *out, wanted, stdout)
}

// build makes the wanted images, or all that can be made here.
func build(ctx context.Context, b *builder, out string, wanted []string, stdout io.Writer) error {
	began := time.Now()
	if _, err := os.Stat(filepath.Join(b.context, "images", "ffpod", "Dockerfile")); err != nil {
		return fmt.Errorf("%w; run this in the root of the repository, or name one with -C", err)
	}
	cache, unlock, err := openCache(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	b.cache, b.built = cache, map[string]*rootfs{}
	b.say = func(format string, args ...any) { fmt.Fprintf(stdout, "  "+format+"\n", args...) }
	fmt.Fprintf(stdout, "building images for linux/%s (first time 1-3 minutes, unchanged 1-3 seconds)\n", b.goarch)
	for _, image := range slices.Concat(images, slices.DeleteFunc(slices.Clone(wanted), shipped)) {
		isWanted := len(wanted) == 0 || slices.Contains(wanted, image)
		if !isWanted && image != "ffpod" {
			continue
		}
		img, _, err := b.image(ctx, image)
		if errors.Is(err, errForeign) && len(wanted) == 0 {
			b.say("%s left out: %v", image, errForeign)
			continue
		}
		if err != nil {
			return err
		}
		if !isWanted {
			continue
		}
		file := path.Base(image) + ".tar"
		if b.goarch != runtime.GOARCH {
			file = path.Base(image) + "-" + b.goarch + ".tar"
		}
		var tags []string
		for _, n := range append([]string{path.Base(image)}, aliases[image]...) {
			tags = append(tags, "ffpod/"+n+":"+b.tag)
		}
		if err := b.archive(img, tags, filepath.Join(out, file)); err != nil {
			return err
		}
	}
	fmt.Fprintf(stdout, "images done in %s\n", time.Since(began).Round(100*time.Millisecond))
	return nil
}

// openCache returns the directory of layers, which is this process's alone
// until unlock.
func openCache(ctx context.Context) (dir string, unlock func(), err error) {
	dir = os.Getenv("FFPOD_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", nil, fmt.Errorf("find cache directory: %w; set FFPOD_CACHE", err)
		}
		dir = filepath.Join(user, "ffpod")
	}
	dir = filepath.Join(dir, "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, fmt.Errorf("make cache directory: %w; set FFPOD_CACHE", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", nil, fmt.Errorf("lock cache directory: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return dir, func() { f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return "", nil, fmt.Errorf("wait for another build that holds %s: %w", f.Name(), context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// archive writes the image as a docker-archive, unless the file is this image
// already.
func (b *builder) archive(img v1.Image, tags []string, file string) error {
	named := strings.Join(tags, ", ")
	refs := map[name.Reference]v1.Image{}
	for _, tag := range tags {
		ref, err := name.NewTag(tag)
		if err != nil {
			return fmt.Errorf("tag %s: %w", tag, err)
		}
		refs[ref] = img
	}
	id, err := img.ConfigName()
	if err != nil {
		return fmt.Errorf("image %s: %w", named, err)
	}
	if sameArchive(file, tags, id) {
		b.say("%s: %s unchanged (%s)", named, file, short(id))
		return nil
	}
	temporary := file + ".partial"
	f, err := os.Create(temporary)
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	defer os.Remove(temporary)
	if err := errors.Join(tarball.MultiRefWrite(refs, f), f.Close()); err != nil {
		return fmt.Errorf("write archive %s: %w", file, err)
	}
	if err := os.Rename(temporary, file); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	b.say("%s: %s written, %s (%s)", named, file, megabytes(info.Size()), short(id))
	return nil
}

func sameArchive(file string, tags []string, id v1.Hash) bool {
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
	return err == nil && len(manifest) == 1 && manifest[0].Config == id.String() && slices.Equal(slices.Sorted(slices.Values(manifest[0].RepoTags)), slices.Sorted(slices.Values(tags)))
}

func short(id v1.Hash) string { return id.Hex[:12] }
