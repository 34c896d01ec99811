package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadDockerfile(t *testing.T) {
	file := write(t, "Dockerfile", `
# a comment
ARG BASE=debian:bookworm-slim
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
COPY . .
# between
RUN --mount=type=cache,target=/a --mount=type=cache,target=/b \
    # within
    go build \
    -o /out/ ./...

from ${BASE}
ENTRYPOINT ["/a", "b c"]
`)
	d, err := readDockerfile(file)
	if err != nil {
		t.Fatal(err)
	}
	type step struct{ Verb, Rest string }
	type part struct {
		Base, Name string
		Steps      []step
	}
	var got []part
	for _, s := range d.stages {
		p := part{Base: s.base, Name: s.name}
		for _, in := range s.instructions {
			p.Steps = append(p.Steps, step{in.verb, strings.Join(strings.Fields(in.rest), " ")})
		}
		got = append(got, p)
	}
	want := []part{
		{"golang:1.26", "build", []step{{"COPY", ". ."}, {"RUN", "go build -o /out/ ./..."}}},
		{"debian:bookworm-slim", "", []step{{"ENTRYPOINT", `["/a", "b c"]`}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if words, err := execForm(d.stages[1].instructions[0]); err != nil || !cmp.Equal(words, []string{"/a", "b c"}) {
		t.Errorf("execForm: %q, %v", words, err)
	}
}

func TestReadDockerfileRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"an unknown instruction": {"FROM scratch\nHEALTHCHECK NONE", ":2: HEALTHCHECK: this instruction is not known"},
		"an unknown flag":        {"FROM scratch\nCOPY --chown=1:1 a b", ":2: COPY: flag --chown is not known"},
		"a flag of another":      {"FROM scratch\nCOPY --mount=a a b", "flag --mount is not known"},
		"nothing":                {"# only this", "no FROM"},
		"no argument":            {"FROM scratch\nUSER", ":2: USER: nothing follows"},
		"an early instruction":   {"USER 1\nFROM scratch", ":1: USER: stands before the first FROM"},
		"an endless line":        {"FROM scratch\nRUN a \\", ":2: the file ends in a continued line"},
		"an unset variable":      {"FROM ${BASE}", "variable BASE is not set"},
		"a strange FROM":         {"FROM scratch WITH x", "want IMAGE or IMAGE AS NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readDockerfile(write(t, "Dockerfile", c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want [][]string
		err  string
	}{
		"words":      {text: `a  b&&c`, want: [][]string{{"a", "b"}, {"c"}}},
		"quotes":     {text: `go build -ldflags="-s -w" ""`, want: [][]string{{"go", "build", "-ldflags=-s -w", ""}}},
		"a variable": {text: `A=$ARCH a`, want: [][]string{{"A=arm64", "a"}}},
		"a pipe":     {text: `a | b`, err: `'|' needs a shell`},
		"a redirect": {text: `a > b`, err: `'>' needs a shell`},
		"open":       {text: `a "b`, err: "not closed"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := commands(instruction{path: "f", line: 1, verb: "RUN", rest: c.text}, map[string]string{"ARCH": "arm64"})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// What cannot be made here is read here, and takes only what the image ffpod has.
func TestDockerfilesOfElsewhere(t *testing.T) {
	for _, name := range elsewhere {
		t.Run(name, func(t *testing.T) {
			d, err := readDockerfile(filepath.Join("..", name, "Dockerfile"))
			if err != nil {
				t.Fatal(err)
			}
			if len(d.stages) != 2 || d.stages[0].base != "ffpod/ffpod:dev" {
				t.Fatalf("stages %+v", d.stages)
			}
			env, copied := map[string]string{}, map[string]bool{}
			for _, in := range d.stages[1].instructions {
				words := strings.Fields(in.rest)
				switch in.verb {
				case "COPY":
					program, ok := strings.CutPrefix(words[0], "/ffpod/")
					if _, err := os.Stat(filepath.Join("../../cmd", program)); !ok || err != nil || !cmp.Equal(in.flags["from"], []string{d.stages[0].name}) {
						t.Errorf("%s: the image ffpod has no %s", in.rest, words[0])
					}
					copied[words[1]] = true
				case "ENV":
					key, value, _ := strings.Cut(in.rest, "=")
					env[key] = value
				case "USER":
					if in.rest != "1000:1000" {
						t.Errorf("it runs as %s", in.rest)
					}
				}
			}
			shim := env["JELLYFIN_FFMPEG"]
			if !copied[shim] || !copied[filepath.Join(filepath.Dir(shim), "ffprobe")] {
				t.Errorf("JELLYFIN_FFMPEG=%s, with the files %v", shim, copied)
			}
			err = run(t.Context(), []string{"-o", t.TempDir(), name}, io.Discard)
			if err == nil || !strings.Contains(err.Error(), "docker build -f images/"+name+"/Dockerfile") {
				t.Errorf("asked for it: %v", err)
			}
		})
	}
}

// write makes a file in a directory of the test's own.
func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
