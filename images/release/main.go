package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/ffpod/ffpod/kustomize"
)

const usage = `usage:
  go run ./images/release prepare VERSION
  go run ./images/release build -o DIRECTORY [-offline | -vulndb URL] VERSION [ARCHIVE.tar...]
  go run ./images/release push [-registry docker.io/ffpod] DIRECTORY
  go run ./images/release check DIRECTORY
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "images/release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return flag.ErrHelp
	}
	verb := args[0]
	flags := flag.NewFlagSet("images/release "+verb, flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage); flags.PrintDefaults() }
	var out, registry, database string
	var offline bool
	switch verb {
	case "build":
		flags.StringVar(&out, "o", "", "directory that the release is written to; must not exist")
		flags.BoolVar(&offline, "offline", false, "ask nobody about vulnerabilities, and say so in the notes")
		flags.StringVar(&database, "vulndb", "https://vuln.go.dev", "Go's vulnerability database: a URL, or file:///DIRECTORY")
	case "push":
		flags.StringVar(&registry, "registry", "docker.io/ffpod", "registry and path in front of the images' names")
	case "prepare", "check":
	default:
		flags.Usage()
		return flag.ErrHelp
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() == 0 || flags.NArg() > 1 && verb != "build" {
		flags.Usage()
		return flag.ErrHelp
	}
	work, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	switch first := flags.Arg(0); verb {
	case "prepare":
		return prepare(work, first, stdout)
	case "push":
		return push(ctx, first, registry, stdout)
	case "check":
		return check(first, stdout)
	default:
		if out == "" {
			return errors.New("no output directory: give -o DIRECTORY")
		}
		r := &release{work: work, out: out, version: first, offline: offline, database: database, archives: flags.Args()[1:], stdout: stdout}
		return r.build(ctx)
	}
}

// checkVersion accepts what `ffpod render` takes for a release's tag, too.
func checkVersion(version string) error {
	if version == "main" || kustomize.Release(version) != version {
		return fmt.Errorf("version %q: want a tag such as v1.2.3 or v1.2.3-rc.1", version)
	}
	return nil
}
