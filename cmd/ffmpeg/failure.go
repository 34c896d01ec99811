package main

import (
	"strings"
	"syscall"
	"unicode/utf8"
)

// failure is what the shim tells a person when ffpod could not do something:
// what, on what; why; and what to do. Its parts are text for anybody's eyes:
// no token, no argv. What belongs in a debug log only is logged apart.
type failure struct{ what, why, remedy string }

// maxLine keeps the line readable, and below PIPE_BUF: no other writer's bytes
// come between.
const maxLine = 1000

// line is the one line for stderr.
func (f failure) line(program string) string {
	var b strings.Builder
	b.WriteString(program + ": ffpod: " + f.what)
	if f.why != "" {
		b.WriteString(": " + f.why)
	}
	if f.remedy != "" {
		b.WriteString("; " + f.remedy)
	}
	return printable(b.String(), maxLine) + "\n"
}

// say writes the line with one write(2), to stderr only: stdout is the
// program's alone. The bare call, because os.Stderr would die of SIGPIPE when
// nobody reads, and a fallback has still to run.
func say(program string, f failure) {
	_, _ = syscall.Write(2, []byte(f.line(program))) // there is nobody left to tell
}

// printable makes one line of a text from elsewhere: an error of the network or
// of a scheduler may hold anything.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	return s
}

// join words several problems as one.
func join(problems []string) string { return strings.Join(problems, ", ") }
