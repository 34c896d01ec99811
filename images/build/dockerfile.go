package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// dockerfile is what a Dockerfile says, with variables of FROM expanded and
// those of the stages left to the stages.
type dockerfile struct {
	path   string
	args   map[string]string // before the first FROM
	stages []stage
}

type stage struct {
	base         string
	name         string // of AS; empty for most last stages
	instructions []instruction
}

// instruction is one line, continuation lines joined.
type instruction struct {
	path  string
	line  int
	verb  string // upper case
	flags map[string][]string
	rest  string
}

// errorf begins with the place in the Dockerfile.
func (in instruction) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s: %w", in.path, in.line, in.verb, fmt.Errorf(format, args...))
}

// knownFlags are the flags of each known instruction.
var knownFlags = map[string][]string{
	"ARG": nil, "ENV": nil, "USER": nil, "WORKDIR": nil, "ENTRYPOINT": nil, "CMD": nil,
	"FROM": {"platform"},
	"COPY": {"from"},
	"RUN":  {"mount"},
}

// readDockerfile parses the file at path.
func readDockerfile(path string) (*dockerfile, error) {
	lines, err := readInstructions(path)
	if err != nil {
		return nil, err
	}
	d := &dockerfile{path: path, args: map[string]string{}}
	for _, in := range lines {
		switch {
		case in.verb == "FROM":
			s, err := parseFrom(in, d.args)
			if err != nil {
				return nil, err
			}
			d.stages = append(d.stages, s)
		case len(d.stages) > 0:
			last := &d.stages[len(d.stages)-1]
			last.instructions = append(last.instructions, in)
		case in.verb == "ARG":
			name, value, _ := strings.Cut(in.rest, "=")
			d.args[name] = value
		default:
			return nil, in.errorf("stands before the first FROM")
		}
	}
	if len(d.stages) == 0 {
		return nil, fmt.Errorf("%s: no FROM", path)
	}
	return d, nil
}

func parseFrom(in instruction, args map[string]string) (stage, error) {
	rest, err := expand(in, in.rest, args)
	if err != nil {
		return stage{}, err
	}
	words := strings.Fields(rest)
	switch {
	case len(words) == 1:
		return stage{base: words[0]}, nil
	case len(words) == 3 && strings.EqualFold(words[1], "AS"):
		return stage{base: words[0], name: words[2]}, nil
	}
	return stage{}, in.errorf("want IMAGE or IMAGE AS NAME, have %q", rest)
}

// readInstructions joins continued lines and splits off verbs and flags.
func readInstructions(path string) ([]instruction, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read Dockerfile: %w", err)
	}
	defer f.Close()

	var all []instruction
	var pending strings.Builder
	first, number := 0, 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		number++
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if pending.Len() == 0 {
			first = number
		}
		part, continued := strings.CutSuffix(line, `\`)
		pending.WriteString(part)
		if continued {
			continue
		}
		in, err := parseInstruction(path, first, pending.String())
		if err != nil {
			return nil, err
		}
		all = append(all, in)
		pending.Reset()
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if pending.Len() > 0 {
		return nil, fmt.Errorf("%s:%d: the file ends in a continued line", path, first)
	}
	return all, nil
}

func parseInstruction(path string, line int, text string) (instruction, error) {
	verb, rest, _ := strings.Cut(text, " ")
	in := instruction{path: path, line: line, verb: strings.ToUpper(verb), flags: map[string][]string{}, rest: strings.TrimSpace(rest)}
	known, ok := knownFlags[in.verb]
	if !ok {
		return in, in.errorf("this instruction is not known to images/build; see its package comment")
	}
	for strings.HasPrefix(in.rest, "--") {
		flag, rest, _ := strings.Cut(in.rest[2:], " ")
		name, value, _ := strings.Cut(flag, "=")
		if !slices.Contains(known, name) {
			return in, in.errorf("flag --%s is not known to images/build", name)
		}
		in.flags[name] = append(in.flags[name], value)
		in.rest = strings.TrimSpace(rest)
	}
	if in.rest == "" {
		return in, in.errorf("nothing follows")
	}
	return in, nil
}

var variable = regexp.MustCompile(`\$(\w+|\{\w+\})`)

// platformArg is known to FROM without an ARG. What stage it selects is this
// machine, so its value is of no use here.
const platformArg = "BUILDPLATFORM"

// expand replaces $NAME and ${NAME}; an unset name is an error, unlike in a
// shell, because here it is a slip.
func expand(in instruction, text string, vars map[string]string) (string, error) {
	var unset []string
	out := variable.ReplaceAllStringFunc(text, func(ref string) string {
		name := strings.Trim(ref, "${}")
		value, ok := vars[name]
		if !ok && name != platformArg {
			unset = append(unset, name)
		}
		return value
	})
	if len(unset) > 0 {
		return "", in.errorf("variable %s is not set; declare it with ARG or ENV", strings.Join(unset, ", "))
	}
	return out, nil
}

// execForm decodes ["a", "b"], the only form of ENTRYPOINT and CMD without a
// shell.
func execForm(in instruction) ([]string, error) {
	var words []string
	if err := json.Unmarshal([]byte(in.rest), &words); err != nil {
		return nil, in.errorf(`want the form ["PROGRAM", "ARGUMENT"], have %s`, in.rest)
	}
	return words, nil
}

// commands splits a RUN line at && into commands of words; double quotes
// bind, nothing else is special.
func commands(in instruction, vars map[string]string) ([][]string, error) {
	var all [][]string
	for _, text := range strings.Split(in.rest, "&&") {
		text, err := expand(in, text, vars)
		if err != nil {
			return nil, err
		}
		var words []string
		var word strings.Builder
		quoted, begun := false, false
		for _, r := range text {
			switch {
			case r == '"':
				quoted, begun = !quoted, true
			case !quoted && (r == ' ' || r == '\t'):
				if begun {
					words = append(words, word.String())
				}
				word.Reset()
				begun = false
			case !quoted && strings.ContainsRune("|;<>&'`$(){}", r):
				return nil, in.errorf("%q needs a shell, and images/build has none", r)
			default:
				word.WriteRune(r)
				begun = true
			}
		}
		if quoted {
			return nil, in.errorf("a quotation mark is not closed")
		}
		if begun {
			words = append(words, word.String())
		}
		all = append(all, words)
	}
	return all, nil
}
