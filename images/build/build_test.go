package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The shipped Dockerfiles, but of a work tree with four tiny commands and with
// packages that every Debian has, so that no root is needed.
func TestBuild(t *testing.T) {
	root := workTree(t)
	out := buildAll(t, root)

	t.Run("agrees with the Dockerfiles", func(t *testing.T) { agree(t, root, out) })

	t.Run("is the same from an empty cache", func(t *testing.T) {
		again := buildAll(t, root)
		for _, name := range images {
			if a, b := id(t, out, name), id(t, again, name); a != b {
				t.Errorf("%s: %s, then %s", name, a, b)
			}
		}
	})
}

// One archive has all names of an image, each of them the same image.
func TestNames(t *testing.T) {
	root := workTree(t)
	out, cache := t.TempDir(), t.TempDir()
	runBuild(t, root, cache, out, "-tag", "v1", "ffpod")
	names := func() []string {
		manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(filepath.Join(out, "ffpod.tar")) })
		if err != nil || len(manifest) != 1 {
			t.Fatalf("%v, %v", manifest, err)
		}
		return slices.Sorted(slices.Values(manifest[0].RepoTags))
	}
	if diff := cmp.Diff([]string{"ffpod/ffpod:v1", "ffpod/shim:v1"}, names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Another tag is another archive, although the image is the same.
	if log := runBuild(t, root, cache, out, "-tag", "v2", "ffpod"); !strings.Contains(log, "ffpod.tar written") {
		t.Errorf("not written with other names:\n%s", log)
	}
	if diff := cmp.Diff([]string{"ffpod/ffpod:v2", "ffpod/shim:v2"}, names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A second build writes nothing; a changed command changes its layer alone.
func TestBuildAgain(t *testing.T) {
	root, cache, out := workTree(t), t.TempDir(), t.TempDir()
	log := runBuild(t, root, cache, out)
	if !strings.Contains(log, "worker.tar written") {
		t.Fatalf("first build:\n%s", log)
	}
	before := layers(t, out, "worker")
	if log = runBuild(t, root, cache, out); strings.Contains(log, "written") || strings.Contains(log, "made in") {
		t.Errorf("an unchanged build did something:\n%s", log)
	}
	command(t, root, "worker", `println("other")`)
	if log = runBuild(t, root, cache, out); !strings.Contains(log, "worker.tar written") {
		t.Errorf("a changed command was not built:\n%s", log)
	}
	after := layers(t, out, "worker")
	if len(before) != 3 || len(after) != 3 || before[0] != after[0] || before[1] != after[1] || before[2] == after[2] {
		t.Errorf("layers %v, then %v: want a change in the last only", before, after)
	}
	if err := os.RemoveAll(filepath.Join(root, "cmd/ffmpeg")); err != nil {
		t.Fatal(err)
	}
	replace(t, filepath.Join(root, "images/ffpod/Dockerfile"), "./cmd/ffmpeg ", "")
	runBuild(t, root, cache, out)
	if files := contents(t, image(t, out, "ffpod")); files["ffpod/ffmpeg"] != nil {
		t.Error("a removed command is still in the image")
	}
}

// Scanners read of what packages an image's files are, and users what release its
// binaries are.
func TestSaysWhatItIs(t *testing.T) {
	root, out := workTree(t), t.TempDir()
	put(t, filepath.Join(root, "cmd/ffpod/main.go"), "package main\n\nvar version string\n\nfunc main() { println(version) }\n")
	runBuild(t, root, t.TempDir(), out, "-version", "v9.8.7-test")
	files := contents(t, image(t, out, "worker"))
	libc := files["var/lib/dpkg/status.d/libc6"]
	if libc == nil || field(string(libc.body), "Version") != packageVersion(t.Context(), "libc6") {
		t.Errorf("libc6 is not described: %v", libc)
	}
	for _, library := range []string{"libacl1", "libselinux1"} { // what coreutils needs
		if files["var/lib/dpkg/status.d/"+library] == nil {
			t.Errorf("%s is not described", library)
		}
	}
	for name := range files {
		if name, ok := strings.CutPrefix(name, "var/lib/dpkg/status.d/"); ok && (name == "apt" || name == "dpkg") {
			t.Errorf("%s is described, and not in the image", name)
		}
	}
	if !bytes.Contains(contents(t, image(t, out, "ffpod"))["ffpod/ffpod"].body, []byte("v9.8.7-test")) {
		t.Error("the binary does not know its version")
	}
}

func TestBuildForAnotherArchitecture(t *testing.T) {
	goarch, machine := "arm64", elf.EM_AARCH64
	if runtime.GOARCH == goarch {
		goarch, machine = "amd64", elf.EM_X86_64
	}
	root, out := workTree(t), t.TempDir()
	log := runBuild(t, root, t.TempDir(), out, "-platform", "linux/"+goarch)
	if !strings.Contains(log, "worker left out: ") {
		t.Errorf("nothing said of the worker image:\n%s", log)
	}
	img := image(t, out, "ffpod-"+goarch)
	config, err := img.ConfigFile()
	if err != nil || config.Architecture != goarch {
		t.Errorf("architecture %v, %v", config, err)
	}
	f, err := elf.NewFile(bytes.NewReader(contents(t, img)["ffpod/worker"].body))
	if err != nil || f.Machine != machine {
		t.Errorf("/ffpod/worker: %v, %v; want %v", f, err, machine)
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, root string)
		args   []string
		want   string
	}{
		"an unknown command": {
			change: func(t *testing.T, root string) {
				replace(t, filepath.Join(root, "images/worker/Dockerfile"), "apt-get update", "useradd x")
			},
			want: "images/worker/Dockerfile:14: RUN: useradd x: without Docker only",
		},
		"a missing file": {
			change: func(t *testing.T, root string) {
				replace(t, filepath.Join(root, "images/worker/Dockerfile"), "/ffpod/worker /ffpod/worker", "/ffpod/none /ffpod/none")
			},
			want: "COPY: /ffpod/none: no such file",
		},
		"a command that does not compile": {
			change: func(t *testing.T, root string) { command(t, root, "worker", `x`) },
			want:   "undefined: x",
		},
		"another image's base": {
			change: func(t *testing.T, root string) {
				replace(t, filepath.Join(root, "images/worker/Dockerfile"), "debian:bookworm-slim", "alpine:3")
			},
			want: "FROM alpine:3: is neither scratch",
		},
		"an unknown image":       {args: []string{"none"}, want: `image "none": want ffpod or worker`},
		"an unknown platform":    {args: []string{"-platform", "linux/386"}, want: `platform "linux/386"`},
		"the worker from abroad": {args: []string{"-platform", foreign(), "worker"}, want: "another architecture"},
	} {
		t.Run(name, func(t *testing.T) {
			root := workTree(t)
			if c.change != nil {
				c.change(t, root)
			}
			t.Setenv("FFPOD_CACHE", t.TempDir())
			t.Chdir(root)
			var log bytes.Buffer
			err := run(t.Context(), append([]string{"-o", t.TempDir()}, c.args...), &log)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func foreign() string {
	if runtime.GOARCH == "arm64" {
		return "linux/amd64"
	}
	return "linux/arm64"
}

// The images that are shipped, from the cache that everyone uses: they need
// Debian's ffmpeg, and root to install it where it is missing.
func TestShipped(t *testing.T) {
	if testing.Short() {
		t.Skip("builds all commands and needs Debian's ffmpeg")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	t.Chdir(root)
	if err := run(t.Context(), []string{"-o", out}, t.Output()); err != nil {
		t.Fatal(err)
	}
	agree(t, root, out)
	worker := contents(t, image(t, out, "worker"))
	for _, name := range []string{"usr/bin/ffmpeg", "usr/bin/ffprobe", "usr/bin/bash", "usr/bin/sh", "usr/bin/sleep", "usr/bin/cat", "usr/bin/sha256sum",
		"usr/bin/head", "usr/bin/dd", "usr/bin/mkdir", "usr/bin/stat", "etc/ssl/certs/ca-certificates.crt", "etc/fonts/fonts.conf", "etc/fonts/conf.d/45-latin.conf",
		"usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", "ffpod/worker"} {
		if worker[name] == nil {
			t.Errorf("the worker image lacks /%s", name)
		}
	}
	for _, name := range []string{"ffmpeg", "ffpod", "scheduler", "worker"} {
		if f := contents(t, image(t, out, "ffpod"))["ffpod/"+name]; f == nil || interpreter(t, f.body) != "" {
			t.Errorf("/ffpod/%s is missing or not static", name)
		}
	}
	complete(t, worker)
}

// complete checks that every program and library of an image finds what it
// needs in the image, by another way than the builder's: by name alone.
func complete(t *testing.T, files map[string]*file) {
	t.Helper()
	bases := map[string]bool{}
	for name, f := range files {
		if f.body != nil || files[path.Join(path.Dir(name), f.link)] != nil || files[strings.TrimPrefix(f.link, "/")] != nil {
			bases[path.Base(name)] = true
		}
	}
	programs := 0
	for name, f := range files {
		e, err := elf.NewFile(bytes.NewReader(f.body))
		if err != nil {
			continue
		}
		programs++
		needed, err := e.ImportedLibraries()
		if err != nil {
			t.Errorf("/%s: %v", name, err)
		}
		for _, soname := range needed {
			if !bases[soname] {
				t.Errorf("/%s needs %s, which the image lacks", name, soname)
			}
		}
		if i := interpreter(t, f.body); i != "" && !bases[path.Base(i)] {
			t.Errorf("/%s needs the loader %s, which the image lacks", name, i)
		}
	}
	if programs < 300 {
		t.Errorf("only %d programs and libraries", programs)
	}
}

func interpreter(t *testing.T, body []byte) string {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name, err := io.ReadAll(p.Open())
			if err != nil {
				t.Fatal(err)
			}
			return string(bytes.TrimRight(name, "\x00"))
		}
	}
	return ""
}

// agree compares the archives with their Dockerfiles, which it reads by itself:
// the last value of each setting, and every destination of a last stage's COPY.
func agree(t *testing.T, root, out string) {
	t.Helper()
	for _, name := range images {
		text, err := os.ReadFile(filepath.Join(root, "images", name, "Dockerfile"))
		if err != nil {
			t.Fatal(err)
		}
		last := string(text[strings.LastIndex(string(text), "\nFROM "):])
		setting := func(verb string) string {
			all := regexp.MustCompile(`(?m)^`+verb+` (.*)$`).FindAllStringSubmatch(last, -1)
			if len(all) == 0 {
				return ""
			}
			return all[len(all)-1][1]
		}
		img := image(t, out, name)
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{"USER": config.Config.User, "WORKDIR": config.Config.WorkingDir,
			"ENTRYPOINT": list(config.Config.Entrypoint), "CMD": list(config.Config.Cmd)}
		for verb, value := range got {
			if want := setting(verb); value != want {
				t.Errorf("%s: %s is %q, the Dockerfile says %q", name, verb, value, want)
			}
		}
		if want := setting("ENV"); want != "" && !slices.Contains(config.Config.Env, want) {
			t.Errorf("%s: environment %q lacks %s", name, config.Config.Env, want)
		}
		if config.OS != "linux" || config.Architecture != runtime.GOARCH {
			t.Errorf("%s: for %s/%s", name, config.OS, config.Architecture)
		}
		files := contents(t, img)
		for _, copied := range regexp.MustCompile(`(?m)^COPY .* (\S+)$`).FindAllStringSubmatch(last, -1) {
			if files[strings.Trim(copied[1], "/")] == nil {
				t.Errorf("%s: %s is not in the image", name, copied[1])
			}
		}
		for _, f := range files {
			if f.uid != 0 || f.gid != 0 || f.seconds != 0 || f.mode&0o6000 != 0 {
				t.Errorf("%s: /%s has owner %d:%d, time %d, mode %o; want root's, none, no set-ID", name, f.name, f.uid, f.gid, f.seconds, f.mode)
			}
		}
	}
}

func list(words []string) string {
	if words == nil {
		return ""
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// workTree has the shipped Dockerfiles and four commands.
func workTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, file := range []string{"ffpod/Dockerfile", "worker/Dockerfile", "worker/etc/passwd", "worker/etc/group"} {
		text, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(root, "images", file), string(text))
	}
	line := regexp.MustCompile(`install -y --no-install-recommends .*\w`).FindString(read(t, filepath.Join(root, "images/worker/Dockerfile")))
	replace(t, filepath.Join(root, "images/worker/Dockerfile"), line, "install -y --no-install-recommends coreutils")
	put(t, filepath.Join(root, "go.mod"), "module example.invalid/tiny\n\ngo 1.26\n")
	for _, name := range []string{"ffmpeg", "ffpod", "scheduler", "worker"} {
		command(t, root, name, fmt.Sprintf("println(%q)", name))
	}
	return root
}

func command(t *testing.T, root, name, body string) {
	t.Helper()
	put(t, filepath.Join(root, "cmd", name, "main.go"), "package main\n\nfunc main() { "+body+" }\n")
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func replace(t *testing.T, file, old, new string) {
	t.Helper()
	text := read(t, file)
	if !strings.Contains(text, old) {
		t.Fatalf("%s has no %q", file, old)
	}
	put(t, file, strings.Replace(text, old, new, 1))
}

// buildAll builds everything into a directory of its own, from an empty cache.
func buildAll(t *testing.T, root string) string {
	t.Helper()
	out := t.TempDir()
	runBuild(t, root, t.TempDir(), out)
	return out
}

// runBuild returns what the builder printed.
func runBuild(t *testing.T, root, cache, out string, args ...string) string {
	t.Helper()
	t.Setenv("FFPOD_CACHE", cache)
	t.Chdir(root)
	var log bytes.Buffer
	if err := run(t.Context(), append([]string{"-o", out}, args...), &log); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	return log.String()
}

func image(t *testing.T, out, name string) v1.Image {
	t.Helper()
	img, err := tarball.ImageFromPath(filepath.Join(out, name+".tar"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func id(t *testing.T, out, name string) v1.Hash {
	t.Helper()
	h, err := image(t, out, name).ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func layers(t *testing.T, out, name string) []string {
	t.Helper()
	config, err := image(t, out, name).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, h := range config.RootFS.DiffIDs {
		ids = append(ids, h.Hex[:8])
	}
	return ids
}

// file is an entry of an image, its layers put together; of files only the body
// is kept, so that a link and an empty file differ from a directory.
type file struct {
	name, link string
	body       []byte
	mode       int64
	uid, gid   int
	seconds    int64
}

// contents is what a container would see, by path without the leading slash.
func contents(t *testing.T, img v1.Image) map[string]*file {
	t.Helper()
	stream := mutate.Extract(img)
	defer stream.Close()
	files := map[string]*file{}
	for r := tar.NewReader(stream); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		f := &file{name: strings.Trim(h.Name, "/"), link: h.Linkname, mode: h.Mode, uid: h.Uid, gid: h.Gid, seconds: h.ModTime.Unix()}
		if h.Typeflag == tar.TypeReg {
			if f.body, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
		files[f.name] = f
	}
}

// A layer is what its entries are, whatever the order in which they came.
func TestLayer(t *testing.T) {
	source := write(t, "source", "content")
	one, two := tree{}, tree{}
	one.addFile("/a/b/c", source, 0o755)
	one.addFile("/a/d", source, 0o644)
	two.addFile("/a/d", source, 0o644)
	two.addFile("/a/b/c", source, 0o755)
	var a, b bytes.Buffer
	if err := errors.Join(one.write(&a), two.write(&b)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the order of addition shows")
	}
	if diff := cmp.Diff([]string{"/a", "/a/b", "/a/b/c", "/a/d"}, one.names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	before, err := one.key(byContent)
	if err != nil {
		t.Fatal(err)
	}
	put(t, source, "CONTENT")
	if after, err := one.key(byContent); err != nil || after == before {
		t.Errorf("changed content has the key %s again, %v", after, err)
	}
}
