package ffmpeg

import "strings"

// Word is one step of a command line: an option with its value, or a file.
type Word struct {
	// Option is the name without the dash and the stream specifier; empty for
	// what is no option: an output of ffmpeg, ffprobe's input.
	Option string
	// Spec is the stream specifier: what follows the first colon.
	Spec string
	// At is the index in argv of the option or the file.
	At int
	// Value is the index of the option's value, -1 if it has none.
	Value int
	// FromFile says that the value names the file that holds the real one.
	FromFile bool
}

// Words splits a command line as the program does. Dashes that only end the
// options ("--") are no words of their own.
func Words(program Program, argv []string) []Word {
	var words []Word
	for s := newScanner(program, argv); ; {
		w, ok := s.next()
		if !ok {
			return words
		}
		words = append(words, w)
	}
}

// scanner walks a command line without allocating.
type scanner struct {
	program Program
	argv    []string
	at      int
	literal int  // the index that "--" makes a file name
	files   bool // ffprobe's "--": only files follow
}

func newScanner(program Program, argv []string) scanner {
	return scanner{program: program, argv: argv, literal: -1}
}

func (s *scanner) next() (Word, bool) {
	for s.at < len(s.argv) {
		i := s.at
		word := s.argv[i]
		s.at++
		if word == "--" && s.literal != i && !s.files {
			s.files = s.program == FFprobe
			s.literal = i + 1
			continue
		}
		if len(word) < 2 || word[0] != '-' || s.literal == i || s.files {
			return Word{At: i, Value: -1}, true
		}
		return s.option(i), true
	}
	return Word{}, false
}

func (s *scanner) option(i int) Word {
	full := s.argv[i][1:]
	w := Word{At: i, Value: -1}
	if full[0] == '/' && len(full) > 1 {
		full, w.FromFile = full[1:], true
	}
	w.Option, w.Spec, _ = strings.Cut(full, ":")
	switch {
	case isInformation(s.program, w.Option):
		s.at++ // the value is optional, and nothing follows that matters
	case !takesValue(s.program, w.Option) || i+1 >= len(s.argv):
	case versionedFlag(w.Option) && s.argv[i+1] != "0" && s.argv[i+1] != "1":
	default:
		w.Value = i + 1
		s.at++
	}
	return w
}
