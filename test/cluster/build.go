package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// containerdVersion is a pair that Kubernetes tests its release with.
const containerdVersion = "v2.4.2"

// binaries is a directory of the cache with what a cluster is made of: node
// (every Kubernetes program), kubectl (a link to it), containerd,
// containerd-shim-runc-v2, ctr, and the archive of the pause image.
type binaries struct {
	dir        string
	kubernetes string // v1.37.2
}

func (b binaries) path(name string) string { return filepath.Join(b.dir, name) }

// sourceDir finds the module of the node binary from anywhere in the checkout.
func sourceDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		candidate := filepath.Join(dir, "test", "cluster", "node")
		if _, err := os.Stat(filepath.Join(candidate, "go.mod")); err == nil {
			return candidate, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("test/cluster/node not found from here upwards; run this inside the checkout")
		}
		dir = parent
	}
}

// locate says where the binaries of this source belong. The key covers the
// node module's files, so that checkouts of the same state share one copy.
func locate(source, cache string) (binaries, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOARCH, containerdVersion)
	err := filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintln(hash, strings.TrimPrefix(path, source), len(data))
		hash.Write(data)
		return err
	})
	if err != nil {
		return binaries{}, err
	}
	mod, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return binaries{}, err
	}
	match := regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v\S+)`).FindSubmatch(mod)
	if match == nil {
		return binaries{}, fmt.Errorf("%s/go.mod requires no k8s.io/kubernetes", source)
	}
	version := string(match[1])
	name := fmt.Sprintf("%s-%x", version, hash.Sum(nil)[:6])
	return binaries{dir: filepath.Join(cache, "cluster", name), kubernetes: version}, nil
}

// complete reports whether every binary is there. The directory gets its name
// only when it is finished, so one look is enough.
func (b binaries) complete() bool {
	_, err := os.Stat(b.dir)
	return err == nil
}

// build compiles what is missing into a directory beside the final one and
// renames that when all is done.
func (b binaries) build(ctx context.Context, source string) error {
	fmt.Printf("compiling Kubernetes %s and containerd %s into %s\n", b.kubernetes, containerdVersion, b.dir)
	fmt.Println("  once per version: 5 to 9 minutes on two cores, half a minute when only test/cluster/node changed")
	partial := b.dir + ".partial"
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return err
	}
	const component = "k8s.io/component-base/version."
	major, minor, _ := strings.Cut(strings.TrimPrefix(b.kubernetes, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	link := fmt.Sprintf("-s -w -X %[1]sgitVersion=%[2]s -X %[1]sgitMajor=%[3]s -X %[1]sgitMinor=%[4]s -X %[1]sgitTreeState=clean",
		component, b.kubernetes, major, minor)
	containerd := "github.com/containerd/containerd/v2"
	steps := []struct {
		what string
		args []string
	}{
		{"containerd", []string{"install", "-v", "-trimpath",
			"-ldflags", "-s -w -X " + containerd + "/version.Version=" + containerdVersion,
			containerd + "/cmd/containerd@" + containerdVersion,
			containerd + "/cmd/containerd-shim-runc-v2@" + containerdVersion,
			containerd + "/cmd/ctr@" + containerdVersion}},
		{"pause", []string{"build", "-v", "-trimpath", "-buildvcs=false",
			"-ldflags", "-s -w", "-o", filepath.Join(partial, "pause"), "./pause"}},
		{"Kubernetes", []string{"build", "-v", "-trimpath", "-buildvcs=false",
			"-ldflags", link, "-o", filepath.Join(partial, "node"), "."}},
	}
	for _, s := range steps {
		if err := compile(ctx, s.what, source, partial, s.args); err != nil {
			return err
		}
	}
	if err := os.Symlink("node", filepath.Join(partial, "kubectl")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := writePauseArchive(filepath.Join(partial, "pause"), filepath.Join(partial, "pause.tar")); err != nil {
		return err
	}
	return os.Rename(partial, b.dir)
}

// publish points CACHE/bin/kubectl at the binaries, for people and Makefiles.
func (b binaries) publish(cache string) error {
	link := filepath.Join(cache, "bin", "kubectl")
	target := b.path("kubectl")
	if current, err := os.Readlink(link); err == nil && current == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	next := link + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, next); err != nil {
		return err
	}
	return os.Rename(next, link)
}

// compile runs one go command and shows that it is not dead: how long it has
// run and how many packages it has compiled.
func compile(ctx context.Context, what, source, bin string, args []string) error {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir = source
	// Whatever the caller compiles for, the cluster is for this machine; and
	// go install refuses a GOBIN for any other.
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOBIN="+bin,
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	stderr, err := command.StderrPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("go: %w; install Go and put it on PATH", err)
	}
	var packages atomic.Int64
	var complaints []string
	var reading sync.WaitGroup
	reading.Go(func() { complaints = readBuild(stderr, &packages) })
	finished := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() { tick(what, &packages, finished) })
	reading.Wait() // before Wait, which closes the pipe
	err = command.Wait()
	close(finished)
	ticking.Wait()
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, strings.Join(complaints, "\n"))
	}
	return nil
}

// readBuild counts the package names that go prints and keeps the last other
// lines, which are its complaints.
func readBuild(r io.Reader, packages *atomic.Int64) []string {
	packageName := regexp.MustCompile(`^[a-zA-Z0-9_.~/+-]+$`)
	var complaints []string
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := lines.Text()
		if packageName.MatchString(line) {
			packages.Add(1)
			continue
		}
		if !strings.HasPrefix(line, "go: downloading ") {
			complaints = append(complaints, line)
			complaints = slices.Delete(complaints, 0, max(0, len(complaints)-40))
		}
	}
	return complaints
}

func tick(what string, packages *atomic.Int64, finished <-chan struct{}) {
	interval, begin, end := 20*time.Second, "", "\n"
	if isTerminal(os.Stdout) {
		interval, begin, end = time.Second, "\r", ""
	}
	began := time.Now()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	show := func(end string) {
		fmt.Printf("%s  %-14s %5d packages compiled  %6s%s", begin, what, packages.Load(),
			time.Since(began).Round(time.Second), end)
	}
	for {
		select {
		case <-ticker.C:
			show(end)
		case <-finished:
			show("\n")
			return
		}
	}
}
