package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ffpod/ffpod/cmd/ffmpeg/decision"
	"github.com/ffpod/ffpod/scheduler/ffmpeg"
	"github.com/ffpod/ffpod/scheduler/translate"
)

// explanation is the answer of `ffpod explain`.
type explanation struct {
	ffmpeg.Explanation
	Mode ffmpeg.Mode `json:"mode"`
	// Shared are the directories that count as shared.
	Shared []string `json:"shared"`
	// Real is the binary that a local run executes; RealProblem says why there is none.
	Real        string `json:"real,omitempty"`
	RealProblem string `json:"realProblem,omitempty"`
	// Fallback is what happens when it should run remotely and cannot be
	// started there: local | fail; FallbackReason says why it fails.
	Fallback       string `json:"fallback"`
	FallbackReason string `json:"fallbackReason,omitempty"`
	// Translated is asked for by --translate.
	Translated *translated `json:"translated,omitempty"`
}

// translated is what the command would be on other hardware.
type translated struct {
	Target translate.Target `json:"target"`
	// Argv is without the program; empty when Refused says why there is none.
	Argv    []string           `json:"argv,omitempty"`
	Changes []translate.Change `json:"changes,omitempty"`
	Refused string             `json:"refused,omitempty"`
}

func newTranslated(argv []string, to string) *translated {
	if to == "" {
		return nil
	}
	t := &translated{Target: translate.Target(to)}
	var err error
	if t.Argv, t.Changes, err = translate.Translate(argv, t.Target, nil); err != nil {
		t.Refused = err.Error()
	}
	return t
}

func newExplain(getenv func(string) string) *cobra.Command {
	var mode, shared, to string
	var asText bool
	c := &cobra.Command{
		Use:   "explain [--text] [--translate TARGET] [--mode auto|local|remote] [--shared DIR:DIR...] -- ffmpeg ARGS...",
		Short: "Print where the shim would run a command, why, and what it needs; run nothing",
		Long: "Explain reads the same FFPOD_* settings, looks at the same files and decides with the same code as the shim.\n" +
			"Run it where the shim runs: in the caller's container, in the caller's working directory.",
		Example: "  ffpod explain -- ffmpeg -i /media/in.mkv -c:v libx264 /cache/out.mp4",
		Args:    usage(cobra.MinimumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			e, err := explain(args, override(getenv, map[string]string{"FFPOD_MODE": mode, "FFPOD_SHARED": shared}))
			if err != nil {
				return err
			}
			e.Translated = newTranslated(args[1:], to)
			if asText {
				return e.print(c.OutOrStdout())
			}
			out := json.NewEncoder(c.OutOrStdout())
			out.SetIndent("", "  ")
			out.SetEscapeHTML(false)
			return out.Encode(e)
		},
	}
	c.Flags().BoolVar(&asText, "text", false, "for people, instead of JSON")
	c.Flags().StringVar(&to, "translate", "", "also what the command would be for other hardware: nvenc, qsv, vaapi or software")
	c.Flags().StringVar(&mode, "mode", "", "instead of FFPOD_MODE")
	c.Flags().StringVar(&shared, "shared", "", "instead of FFPOD_SHARED")
	c.Flags().SetInterspersed(false) // what follows the program is the program's
	return c
}

// print tells the same in lines for people.
func (e *explanation) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name string, values ...string) {
		if text := strings.TrimSpace(strings.Join(values, " ")); text != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, text)
		}
	}
	line("runs", fmt.Sprintf("%s, by clause %s: %s", e.Where, e.Clause, e.Reason))
	for _, p := range e.Problems {
		line("problem", p)
	}
	line("kind", string(e.Kind))
	line("needs", e.Requires.Capabilities...)
	line("hardware of", strings.Join(e.Requires.Hardware, " or "))
	line("pace", pace(e.Requires.Realtime))
	line("network", yes(e.Requires.Network))
	for _, o := range e.Operands {
		line(string(o.Role), cmp.Or(o.Path, o.Raw, `""`))
	}
	line("if no worker takes it", e.Fallback, e.FallbackReason)
	line("real program", e.Real, e.RealProblem)
	if tr := e.Translated; tr != nil {
		line("translated", tr.Refused, shellLine(tr.Argv))
	}
	return t.Flush()
}

// shellLine quotes what a shell would take apart.
func shellLine(argv []string) string {
	words := make([]string, 0, len(argv))
	for _, a := range argv {
		if a == "" || strings.ContainsAny(a, " \t\n'\"\\|&;<>()$`*?[]#~!{}") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

func pace(realtime bool) string {
	if realtime {
		return "somebody waits for each second of it"
	}
	return "batch"
}

func yes(is bool) string {
	if is {
		return "it opens a connection"
	}
	return ""
}

// override lets flags win over the environment.
func override(getenv func(string) string, flags map[string]string) func(string) string {
	return func(name string) string {
		if v := flags[name]; v != "" {
			return v
		}
		return getenv(name)
	}
}

func explain(args []string, getenv func(string) string) (*explanation, error) {
	program, ok := decision.Program(args[0])
	if !ok {
		return nil, &usageError{err: fmt.Errorf("explain %q: only ffmpeg and ffprobe can be explained", args[0])}
	}
	s, err := decision.Load(getenv)
	if err != nil {
		return nil, &usageError{err: err}
	}
	env := decision.Environment(s, getenv)
	e := &explanation{
		Explanation: ffmpeg.Explain(string(program), args[1:], env),
		Mode:        s.Mode,
		Shared:      append([]string{}, s.Shared...),
		Fallback:    "local",
	}
	if e.Real, err = s.Real(program); err != nil {
		e.RealProblem = err.Error()
	}
	may, why := decision.MayFallBack(s, ffmpeg.Parse(string(program), args[1:], env.Host))
	if may && e.Real == "" {
		may, why = false, e.RealProblem
	}
	if !may {
		e.Fallback, e.FallbackReason = "fail", why
	}
	return e, nil
}
