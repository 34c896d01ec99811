package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// commands are what the images are built of, with the tags of their Dockerfiles.
var commands = []string{"./cmd/ffmpeg", "./cmd/ffpod", "./cmd/scheduler", "./cmd/worker"}

// vulnerabilities asks govulncheck what the source calls. It asks the source and
// not the binaries, which are stripped: of those it knows only the modules.
func vulnerabilities(ctx context.Context, work, database string, stdout io.Writer) error {
	fmt.Fprintln(stdout, "asking Go's vulnerability database (up to a minute)")
	cmd := exec.CommandContext(ctx, "go", append([]string{"tool", "govulncheck", "-C", work, "-db", database, "-tags", "grpcnotrace"}, commands...)...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	text := strings.TrimSpace(output.String())
	switch {
	case err == nil:
		return nil
	case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 3: // as govulncheck has it
		return fmt.Errorf("vulnerabilities in what ffpod calls; update the modules that are named, or Go\n%s", text)
	}
	return fmt.Errorf("vulnerabilities: not known, since govulncheck did not get to an answer: %w; -vulndb names a copy of the database, -offline asks nobody and says so in the notes\n%s", err, text)
}

// outdated asks apt whether the images hold Debian packages that have been
// replaced since: in a stable release, by corrections and little else. For another
// architecture than this machine's it is asked by the same names.
func outdated(ctx context.Context, all []image, stdout io.Writer) error {
	var stale []string
	asked := false
	for _, i := range all {
		if len(i.contents.packages) == 0 {
			continue
		}
		if !asked {
			fmt.Fprintln(stdout, "asking Debian for newer packages")
			if out, err := apt(ctx, "apt-get", "update", "--error-on=any"); err != nil {
				return fmt.Errorf("newer Debian packages: not known, since apt-get update failed: %w; it needs root and the archive; -offline asks nobody and says so in the notes\n%s", err, out)
			}
			asked = true
		}
		candidates, err := candidates(ctx, i.contents.packages)
		if err != nil {
			return err
		}
		for _, p := range i.contents.packages {
			candidate := candidates[p.name]
			if candidate == "" || candidate == "(none)" {
				return fmt.Errorf("image %s for linux/%s: apt knows no package %s, so nobody can tell whether it is current", i.name, i.goarch, p.name)
			}
			if candidate != p.version && exec.CommandContext(ctx, "dpkg", "--compare-versions", candidate, "gt", p.version).Run() == nil {
				stale = append(stale, fmt.Sprintf("%s for linux/%s: %s %s, Debian has %s", i.name, i.goarch, p.name, p.version, candidate))
			}
		}
	}
	if len(stale) > 0 {
		return fmt.Errorf("packages in the images that Debian has replaced: apt-get install --only-upgrade them where the image is made, and make it again\n%s", strings.Join(stale, "\n"))
	}
	return nil
}

func apt(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// candidates are the versions that apt would install.
func candidates(ctx context.Context, packages []deb) (map[string]string, error) {
	args := []string{"apt-cache", "policy"}
	for _, p := range packages {
		args = append(args, p.name)
	}
	out, err := apt(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("apt-cache policy: %w\n%s", err, out)
	}
	versions, name := map[string]string{}, ""
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, " ") {
			name = strings.TrimSuffix(line, ":")
		} else if version, ok := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); ok {
			versions[name] = version
		}
	}
	return versions, nil
}
