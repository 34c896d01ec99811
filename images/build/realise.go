package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// defaultPath is the PATH that Docker's debian images set.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// errForeign is returned for an image that takes files from this machine but is
// wanted for another architecture.
var errForeign = errors.New("its Debian part is taken from this machine, which has another architecture; build it there, or with `docker buildx build --platform`")

// builder realises Dockerfiles.
type builder struct {
	context string // the directory that COPY reads
	cache   string
	goarch  string
	tag     string
	args    map[string]string  // in place of the Dockerfiles' defaults
	version string             // of the binaries; empty: the Dockerfile's
	built   map[string]*rootfs // by repository, for FROM ffpod/…
	say     func(string, ...any)
}

// rootfs is a stage that has been realised.
type rootfs struct {
	files  tree     // what COPY --from may take; of a Debian base only what was added
	layers []*layer // none for a tool stage
	config v1.Config
	vars   map[string]string // ARG and ENV
	tool   bool              // FROM golang
	debian bool
	dir    string // working directory
}

// image realises images/NAME/Dockerfile, or DIRECTORY/Dockerfile if the name is one,
// and remembers the result for FROM.
func (b *builder) image(ctx context.Context, name string) (v1.Image, *rootfs, error) {
	dir := name
	if !strings.Contains(name, "/") {
		dir = filepath.Join("images", name)
	}
	name = path.Base(name)
	d, err := readDockerfile(filepath.Join(b.context, dir, "Dockerfile"))
	if err != nil {
		return nil, nil, err
	}
	stages := map[string]*rootfs{}
	var last *rootfs
	for _, s := range d.stages {
		if last, err = b.stage(ctx, name, s, d.args, stages); err != nil {
			return nil, nil, err
		}
		if s.name != "" {
			stages[s.name] = last
		}
	}
	b.built["ffpod/"+name] = last
	img, err := last.image(b.goarch)
	if err != nil {
		return nil, nil, fmt.Errorf("assemble image %s: %w", name, err)
	}
	return img, last, nil
}

func (r *rootfs) image(goarch string) (v1.Image, error) {
	img := v1.Image(empty.Image)
	for _, l := range r.layers {
		var err error
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", goarch, r.config
	file.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	return mutate.ConfigFile(img, file)
}

func (b *builder) stage(ctx context.Context, name string, s stage, args map[string]string, stages map[string]*rootfs) (*rootfs, error) {
	r, err := b.base(s.base)
	if err != nil {
		return nil, fmt.Errorf("image %s: FROM %s: %w", name, s.base, err)
	}
	for _, in := range s.instructions {
		if err := b.do(ctx, name, r, in, args, stages); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (b *builder) base(ref string) (*rootfs, error) {
	repository, _, _ := strings.Cut(ref, ":")
	fresh := &rootfs{files: tree{}, vars: map[string]string{}, dir: "/"}
	switch {
	case repository == "scratch":
		fresh.config.Env = []string{"PATH=" + defaultPath}
		return fresh, nil
	case repository == "golang":
		fresh.tool = true
		return fresh, nil
	case repository == "debian":
		if b.goarch != runtime.GOARCH {
			return nil, errForeign
		}
		fresh.debian = true
		fresh.config.Env = []string{"PATH=" + defaultPath}
		return fresh, nil
	case b.built[repository] != nil:
		r := *b.built[repository]
		r.files, r.vars = maps.Clone(r.files), maps.Clone(r.vars)
		return &r, nil
	}
	return nil, fmt.Errorf("is neither scratch, golang, debian, nor an image built before")
}

// do realises one instruction.
func (b *builder) do(ctx context.Context, name string, r *rootfs, in instruction, args map[string]string, stages map[string]*rootfs) (err error) {
	switch in.verb {
	case "ARG":
		return b.arg(r, in, args)
	case "RUN":
		return b.run(ctx, name, r, in)
	case "COPY":
		return b.copy(name, r, in, stages)
	case "ENTRYPOINT":
		r.config.Entrypoint, err = execForm(in)
		return err
	case "CMD":
		r.config.Cmd, err = execForm(in)
		return err
	}
	value, err := expand(in, in.rest, r.vars)
	if err != nil {
		return err
	}
	switch in.verb {
	case "USER":
		r.config.User = value
	case "WORKDIR":
		r.dir, r.config.WorkingDir = value, value
	case "ENV":
		key, val, ok := strings.Cut(value, "=")
		if !ok || strings.ContainsAny(val, ` "`) {
			return in.errorf("want NAME=VALUE without blanks and quotes, have %s", value)
		}
		r.vars[key] = val
		r.config.Env = append(r.config.Env, value)
	}
	return nil
}

func (b *builder) arg(r *rootfs, in instruction, global map[string]string) error {
	name, value, set := strings.Cut(in.rest, "=")
	given, ok := b.args[name]
	switch {
	case ok:
		value = given
	case name == "TARGETOS":
		value = "linux"
	case name == "TARGETARCH":
		value = b.goarch
	case name == "VERSION" && b.version != "":
		value = b.version
	case !set:
		var ok bool
		if value, ok = global[name]; !ok {
			return in.errorf("%s has no value", name)
		}
	}
	r.vars[name] = value
	return nil
}

// run realises the commands that need no container.
func (b *builder) run(ctx context.Context, name string, r *rootfs, in instruction) error {
	lines, err := commands(in, r.vars)
	if err != nil {
		return err
	}
	for _, words := range lines {
		line := strings.Join(words, " ")
		env := 0
		for env < len(words) && strings.Contains(words[env], "=") {
			env++
		}
		call := strings.Join(words[env:], " ")
		switch {
		case line == "apt-get update", line == "rm -rf /var/lib/apt/lists/*":
		case r.debian && strings.HasPrefix(line, "apt-get install "):
			err = b.packages(ctx, name, r, in, words[2:])
		case r.tool && strings.HasPrefix(call, "go build "):
			err = b.goBuild(ctx, r, in, words[:env], words[env+2:])
		default:
			err = in.errorf("%s: without Docker only `go build` in a golang stage and `apt-get install` on debian can be run", line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// packages makes the Debian layer.
func (b *builder) packages(ctx context.Context, name string, r *rootfs, in instruction, words []string) error {
	if len(r.layers) > 0 {
		return in.errorf("apt-get install must be the first to add files")
	}
	var packages, versions []string
	for _, word := range words {
		if strings.HasPrefix(word, "-") {
			continue
		}
		packages = append(packages, word)
	}
	files, err := debianTree(ctx, packages, b.say)
	if err != nil {
		return in.errorf("%w", err)
	}
	for _, p := range packages {
		versions = append(versions, p+" "+packageVersion(ctx, p))
	}
	began := time.Now()
	l, err := layerOf(b.cache, name+"-debian-"+b.goarch, files, byStat)
	if err != nil {
		return in.errorf("%w", err)
	}
	b.say("%s: Debian layer, %d files, %s, %s (%s)", name, l.Files, megabytes(l.Bytes), fromCache(l, began), strings.Join(versions, ", "))
	r.layers = append(r.layers, l)
	return nil
}

// goBuild runs this machine's Go in the context directory. The output directory
// stays in the cache, so that go links only what changed.
func (b *builder) goBuild(ctx context.Context, r *rootfs, in instruction, env, words []string) error {
	var args []string
	var out string
	for i := 0; i < len(words); i++ {
		if words[i] == "-o" && i+1 < len(words) && strings.HasSuffix(words[i+1], "/") {
			i++
			out = words[i]
			continue
		}
		args = append(args, words[i])
	}
	if out == "" {
		return in.errorf("go build needs -o DIRECTORY/")
	}
	dir, err := b.outputs()
	if err != nil {
		return in.errorf("%w", err)
	}
	began := time.Now()
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dir + "/"}, args...)...)
	cmd.Dir = b.context
	cmd.Env = append(os.Environ(), env...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return in.errorf("go build for %s: %w\n%s", b.goarch, err, output.String())
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return in.errorf("%w", err)
	}
	var built []string
	for _, e := range entries {
		r.files.addFile(path.Join(out, e.Name()), filepath.Join(dir, e.Name()), 0o755)
		built = append(built, e.Name())
	}
	b.say("go build for %s: %s, in %s", b.goarch, strings.Join(built, ", "), time.Since(began).Round(100*time.Millisecond))
	return nil
}

// outputs is the directory of this work tree's binaries, emptied of those whose
// command is gone.
func (b *builder) outputs() (string, error) {
	key, err := tree{b.context: {mode: fs.ModeDir}}.key(byContent)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.cache, "bin-"+b.goarch+"-"+key[:8])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(b.context, "cmd", e.Name())); errors.Is(err, fs.ErrNotExist) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
}

// copy realises COPY SOURCE DESTINATION. In a tool stage the context is used
// where it is.
func (b *builder) copy(name string, r *rootfs, in instruction, stages map[string]*rootfs) error {
	if r.tool {
		if in.rest != ". ." || len(in.flags) > 0 {
			return in.errorf("in a golang stage only `COPY . .` is known")
		}
		return nil
	}
	words := strings.Fields(in.rest)
	if len(words) != 2 {
		return in.errorf("want one source and one destination, have %s", in.rest)
	}
	source, destination := words[0], path.Join(r.dir, words[1])
	whole := strings.HasSuffix(words[0], "/")
	if whole != strings.HasSuffix(words[1], "/") {
		return in.errorf("want FILE FILE or DIRECTORY/ DIRECTORY/, have %s", in.rest)
	}
	from, err := b.source(in, source, stages)
	if err != nil {
		return err
	}
	added := tree{}
	for file, e := range from {
		switch rest, below := strings.CutPrefix(file, path.Clean(source)+"/"); {
		case e.mode.IsDir():
		case whole && below:
			added.addFile(path.Join(destination, rest), e.source, e.mode)
		case !whole && file == source:
			added.addFile(destination, e.source, e.mode)
		}
	}
	if len(added) == 0 {
		return in.errorf("%s: no such file", source)
	}
	began := time.Now()
	slug := strings.Trim(strings.ReplaceAll(destination, "/", "-"), "-")
	l, err := layerOf(b.cache, name+"-"+slug+"-"+b.goarch, added, byContent)
	if err != nil {
		return in.errorf("%w", err)
	}
	b.say("%s: %s, %s, %s", name, destination, megabytes(l.Bytes), fromCache(l, began))
	maps.Copy(r.files, added)
	r.layers = append(r.layers, l)
	return nil
}

// source lists the files that COPY may choose from: a stage's or the context's.
func (b *builder) source(in instruction, source string, stages map[string]*rootfs) (tree, error) {
	if from := in.flags["from"]; len(from) > 0 {
		s, ok := stages[from[0]]
		if !ok {
			return nil, in.errorf("no stage is called %s", from[0])
		}
		return s.files, nil
	}
	files := tree{}
	err := filepath.WalkDir(filepath.Join(b.context, source), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(b.context, file)
		if err != nil {
			return err
		}
		// Not the mode that a umask left at check-out: git knows two.
		mode := fs.FileMode(0o644)
		if info, err := d.Info(); err == nil && info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		files[relative] = entry{mode: mode, source: file}
		return nil
	})
	if err != nil {
		return nil, in.errorf("%w", err)
	}
	return files, nil
}

func megabytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%d MiB", (n+1<<19)>>20)
}

func fromCache(l *layer, began time.Time) string {
	if l.Cached {
		return "unchanged"
	}
	return "made in " + time.Since(began).Round(100*time.Millisecond).String()
}
