package prove

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Kinds of capabilities, in the words of ffmpeg's own lists.
const (
	Encoder = "encoder"
	Decoder = "decoder"
	Filter  = "filter"
	Hwaccel = "hwaccel"
	Device  = "device"
)

// Lists are the names that ffmpeg prints, by kind. Those of Hwaccel are also the
// device types.
type Lists map[string][]string

// grammar is how one list is written. A list of another form is not guessed at.
type grammar struct {
	option, header string
	legend         *regexp.Regexp // lines between header and names
	entry          *regexp.Regexp // its first group is the name
}

func grammars() map[string]grammar {
	codec := grammar{
		legend: regexp.MustCompile(`^ (?:[A-Z.]{6} = \S.*|-{6})$`),
		entry:  regexp.MustCompile(`^ [VASDT][F.][S.][X.][B.][D.] ([0-9A-Za-z_.-]+) +\S`),
	}
	encoders, decoders := codec, codec
	encoders.option, encoders.header = "-encoders", "Encoders:"
	decoders.option, decoders.header = "-decoders", "Decoders:"
	return map[string]grammar{
		Encoder: encoders,
		Decoder: decoders,
		Filter: {
			option: "-filters", header: "Filters:",
			legend: regexp.MustCompile(`^ +\S+ = \S.*$|^ -+$`),
			entry:  regexp.MustCompile(`^ [T.][S.][C.]? ([0-9A-Za-z_.-]+) +[AVN|]+->[AVN|]+ `),
		},
		Hwaccel: {
			option: "-hwaccels", header: "Hardware acceleration methods:",
			entry: regexp.MustCompile(`^([0-9a-z_]+)$`),
		},
	}
}

// list runs ffmpeg for its lists. A kind whose list cannot be read is a flaw, and
// missing from the lists.
func (c Config) list(ctx context.Context) (Lists, []Flaw) {
	lists, flaws := Lists{}, []Flaw(nil)
	for kind, g := range grammars() {
		out := c.Run(ctx, Command{Args: []string{"-hide_banner", g.option}, Within: c.Within})
		names, err := []string(nil), out.failure()
		if err == nil {
			names, err = g.parse(string(out.Stdout))
		}
		if err != nil {
			flaws = append(flaws, Flaw{kind + ":*", fmt.Sprintf("ffmpeg %s: %s", g.option, err)})
			continue
		}
		lists[kind] = names
	}
	return lists, flaws
}

func (g grammar) parse(text string) ([]string, error) {
	header, rest, _ := strings.Cut(text, "\n")
	if strings.TrimRight(header, " \r") != g.header {
		return nil, fmt.Errorf("the list begins with %.60q, not with %q", header, g.header)
	}
	var names []string
	for line := range strings.Lines(rest) {
		line = strings.TrimRight(line, " \r\n")
		if line == "" || len(names) == 0 && g.legend != nil && g.legend.MatchString(line) {
			continue
		}
		entry := g.entry.FindStringSubmatch(line)
		if entry == nil {
			return nil, fmt.Errorf("the list has a line of unknown form: %.60q", line)
		}
		names = append(names, entry[1])
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
