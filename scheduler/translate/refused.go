package translate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// RefusedError says why a line is not translated.
type RefusedError struct {
	To Target
	// Words say it without any value of the line, for those who may not read its
	// paths.
	Words string
	err   error
}

// Error names the argument with its value.
func (e *RefusedError) Error() string { return fmt.Sprintf("translate to %s: %s", e.To, e.err) }

func refused(to Target, err error) *RefusedError {
	words := err.Error()
	if w, ok := errors.AsType[*wordError](err); ok {
		words = w.public()
	}
	return &RefusedError{To: to, Words: words, err: err}
}

// wordError is about one word of the line.
type wordError struct {
	word   ffmpeg.Word
	text   string // of the word
	reason error
	// plain: the reason quotes nothing.
	plain bool
}

func (e *wordError) Error() string {
	return fmt.Sprintf("argument %d, %s: %s", e.word.At, e.text, e.reason)
}

func (e *wordError) public() string {
	option := "-" + e.word.Option
	if !isPlain(e.word.Option) {
		option = "an option"
	}
	if e.plain {
		return option + ": " + e.reason.Error()
	}
	return option + ": something in its value has no counterpart (ffpod explain --translate names it)"
}

// refuse names a word in an error; a long value, such as a graph, is left out.
func (t *translation) refuse(w ffmpeg.Word, format string, args ...any) error {
	words := t.argv[w.At:end(w)]
	if len(words) == 2 && len(words[1]) > 60 {
		words = words[:1]
	}
	return &wordError{word: w, text: strings.Join(words, " "), reason: fmt.Errorf(format, args...), plain: !slices.ContainsFunc(args, quotes)}
}

// quotes tells whether what a reason is made of may come from the line: only the names
// of known encoders do not.
func quotes(arg any) bool {
	_, known := arg.(encoder)
	return !known
}

// Options names the options that changes were made to, in their order, each once:
// never a value.
func Options(argv []string, changes []Change) []string {
	var names []string
	add := func(w ffmpeg.Word) {
		if name := "-" + w.Option; isPlain(w.Option) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	words := ffmpeg.Words(ffmpeg.FFmpeg, argv)
	for _, c := range changes {
		made := c.From == "" // else a word with its value, or a value alone, which may be anything
		for _, w := range words {
			if c.From != "" && (w.At == c.Arg || w.Value == c.Arg) {
				add(w)
				made = made || w.At == c.Arg
			}
		}
		if !made {
			continue
		}
		for _, w := range ffmpeg.Words(ffmpeg.FFmpeg, strings.Fields(c.To)) {
			add(w)
		}
	}
	return names
}

// isPlain keeps out what only stands where an option would.
func isPlain(option string) bool {
	return option != "" && strings.Trim(option, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}
