package data_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/ffpod/ffpod/test/manifests"
)

// script is the block of a page that has a line with this beginning, from its first
// line to its last.
func script(page, beginning string) string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(manifests.Root(), "docs", page))
	Expect(err).NotTo(HaveOccurred())
	var block []string
	found, fenced := false, false
	for line := range strings.Lines(string(text)) {
		fence := strings.HasPrefix(line, "```")
		if !fence && (fenced || strings.HasPrefix(line, "    ")) {
			line = strings.TrimSpace(line)
			block = append(block, line)
			found = found || strings.HasPrefix(line, beginning)
			continue
		}
		if found {
			break
		}
		fenced, block = fenced != fence, nil
	}
	Expect(found).To(BeTrue(), "docs/%s no longer says %q: this suite runs what it says", page, beginning)
	return strings.Join(block, "\n")
}

// looks are commands in a page's text that change nothing.
var looks = regexp.MustCompile("`((?:kubectl -n (?:jellyfin|films) (?:logs|get|describe|exec)|ffpod (?:doctor|status|test)) [^`|]*)`")

// unanswerable are those about what is not there: a container that has ended, a GPU,
// an image of a registry, what the local cluster cannot give; and what changes
// Jellyfin's settings.
var unanswerable = regexp.MustCompile(`--previous|--before|_nvenc|_qsv|_vaapi|only gpu|--prove|--bundle|jellyfin apply|statefulset`)

// questions are the commands of a page's text that look at an install, in the
// suite's namespace.
func questions(page string) []string {
	GinkgoHelper()
	text, err := os.ReadFile(filepath.Join(manifests.Root(), "docs", page))
	Expect(err).NotTo(HaveOccurred())
	var all []string
	for _, found := range looks.FindAllStringSubmatch(string(text), -1) {
		command := strings.ReplaceAll(found[1], "films", namespace)
		if !slices.Contains(all, command) && !unanswerable.MatchString(command) {
			all = append(all, command)
		}
	}
	Expect(all).NotTo(BeEmpty(), page)
	return all
}

// perform runs commands as a person who has kubectl and ffpod does, and returns
// what they print.
func perform(ctx context.Context, script string) string {
	GinkgoHelper()
	c := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	path := filepath.Join(manifests.Root(), "bin") + ":" + filepath.Dir(client.Path) + ":" + os.Getenv("PATH")
	c.Dir, c.Env = manifests.Root(), append(os.Environ(), "PATH="+path)
	out, err := c.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "%s\n%s", script, out)
	return string(out)
}
