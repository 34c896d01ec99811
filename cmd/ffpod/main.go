// Command ffpod is the operator's CLI. Under the name kubectl-ffpod in PATH it
// is also the kubectl plug-in "kubectl ffpod".
//
//	ffpod backup --to DIR             what the backup CronJob runs; also backup list, backup verify
//	ffpod render DIR|NAME             its manifests, without a network
//	ffpod restore --from DIR          the newest backup, put back
//	ffpod doctor                      what is wrong with a cluster or an install, and the remedy
//	ffpod explain -- ffmpeg ARGS...   what the shim would do with a command and what it needs, as JSON or text
//	ffpod init DIR                    a small overlay directory for an install of Jellyfin
//	ffpod install shim|supervisor|ffpod DIR  what the ffpod image's init containers run
//	ffpod jellyfin prepare|healthy|apply  in the pod of Jellyfin: its directories, probe and settings
//	ffpod run -- ffmpeg ARGS...       ffmpeg on a worker, with this terminal's stdio
//	ffpod status                      what the scheduler does
//	ffpod test                        the smoke test, through a caller's shim
//	ffpod version
//
// Exit codes: 0; 1 when a verb could not do it; 2 when it was called wrongly; of run
// the program's own, 128 and the signal that ended it, or 125.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// version is the release, set by the linker (-X main.version=...).
var version = "devel"

func main() {
	os.Exit(run(os.Args, os.Getenv, os.Stdout, os.Stderr))
}

// usageError is a call that no retry mends.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// run executes one command line and returns the exit code.
func run(args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	root := newRoot(args[0], getenv)
	root.SetArgs(args[1:])
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code // the program has said why
	}
	fmt.Fprintf(stderr, "ffpod: %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
	if _, ok := errors.AsType[*infraError](err); ok {
		return infrastructure
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return 2
	}
	return 1
}

func newRoot(argv0 string, getenv func(string) string) *cobra.Command {
	name := "ffpod"
	if strings.HasPrefix(filepath.Base(argv0), "kubectl-") {
		name = "kubectl ffpod"
	}
	root := &cobra.Command{
		Use:           "ffpod",
		Short:         "Run ffmpeg on Kubernetes, transparently",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: name},
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          usage(cobra.NoArgs),
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err: err} })
	root.AddCommand(newBackup(), newDoctor(), newExplain(getenv), newInit(), newInstall(), newJellyfin(), newProve(), newRender(), newRestore(), newRun(), newStatus(), newTest(), newVersion())
	return root
}

// usage makes the errors of an argument check usage errors.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &usageError{err: fmt.Errorf("%w; see `%s --help`", err, c.CommandPath())}
		}
		return nil
	}
}
