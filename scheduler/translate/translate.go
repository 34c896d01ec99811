package translate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// Target is what a command line is rewritten for.
type Target string

// The targets. QSV decodes and filters by VAAPI and encodes by QSV, as Jellyfin
// does on Linux.
const (
	Software Target = "software"
	NVENC    Target = "nvenc"
	QSV      Target = "qsv"
	VAAPI    Target = "vaapi"
)

// Targets returns all of them.
func Targets() []Target { return []Target{Software, NVENC, QSV, VAAPI} }

// Change is one difference between the two lines.
type Change struct {
	// Arg is the index of the change in the line that was given.
	Arg int `json:"arg"`
	// From and To are the arguments before and after, joined by spaces for
	// reading; one of them is empty where something was added or left out.
	From string `json:"from"`
	To   string `json:"to"`
	// Why is a phrase for people; empty where the change speaks for itself.
	Why string `json:"why,omitempty"`
}

// Translate rewrites a command line of ffmpeg (without argv[0]) for a target.
// can tells whether the target has a capability, spelled as in
// ffmpeg.Requirements; nil means that it has all. A line that is the target's
// already comes back unchanged, without changes. argv itself is never changed,
// nor does the result share memory with it. One exception: of VAAPI's devices
// the driver is left out, which would be Intel's on an AMD. The error is a
// *RefusedError: one line that names the argument it is about.
func Translate(argv []string, to Target, can func(capability string) bool) ([]string, []Change, error) {
	if !slices.Contains(Targets(), to) {
		return nil, nil, refused(to, errors.New("the targets are software, nvenc, qsv and vaapi"))
	}
	if can == nil {
		can = func(string) bool { return true }
	}
	t := &translation{argv: argv, to: to, can: can, encoderAt: -1, deviceAt: -1, inputAt: -1, graphAt: -1}
	from, err := t.read()
	if err != nil {
		return nil, nil, refused(to, err)
	}
	if from == to {
		t.anyDriver()
		return t.render(), t.changes(), nil
	}
	if err := t.write(); err != nil {
		return nil, nil, refused(to, err)
	}
	out := t.render()
	made := translation{argv: out}
	if err := made.family(); err != nil || made.from != to {
		return nil, nil, refused(to, errors.New("nothing in it can be done there"))
	}
	if err := t.possible(out); err != nil {
		return nil, nil, refused(to, err)
	}
	return out, t.changes(), nil
}

// translation is one run: read fills what the line means, write the edits.
type translation struct {
	argv []string
	to   Target
	can  func(string) bool

	words     []ffmpeg.Word
	from      Target
	inputs    int // how many -i there are
	encoder   encoder
	encoderAt int // the word that names the encoder of the video
	settings  settings
	deviceAt  int // where devices and accelerators of the source begin, in argv
	inputAt   int // the first word of the first input, in argv
	graphAt   int // the word of the graph of the video
	onDevice  bool
	opencl    bool // the target tone-maps by OpenCL
	hardware  bool // the target works on a GPU before it encodes

	edits []edit
}

// edit replaces argv[at:end].
type edit struct {
	at, end int
	with    []string
	why     string
}

func (t *translation) edit(at, end int, why string, with ...string) {
	t.edits = append(t.edits, edit{at: at, end: end, with: with, why: why})
}

// replace edits a whole word: the option and its value.
func (t *translation) replace(w ffmpeg.Word, why string, with ...string) {
	t.edit(w.At, end(w), why, with...)
}

func end(w ffmpeg.Word) int { return max(w.At, w.Value) + 1 }

// value edits only the value of a word.
func (t *translation) value(w ffmpeg.Word, why, with string) {
	if t.argv[w.Value] != with {
		t.edit(w.Value, w.Value+1, why, with)
	}
}

// render applies the edits. They do not overlap; of two at one place the
// insertion comes first.
func (t *translation) render() []string {
	slices.SortStableFunc(t.edits, func(a, b edit) int {
		if a.at != b.at {
			return a.at - b.at
		}
		return a.end - b.end
	})
	out := make([]string, 0, len(t.argv)+16)
	at := 0
	for _, e := range t.edits {
		out = append(append(out, t.argv[at:e.at]...), e.with...)
		at = e.end
	}
	return append(out, t.argv[at:]...)
}

func (t *translation) changes() []Change {
	var changes []Change
	for _, e := range t.edits {
		changes = append(changes, Change{
			Arg: e.at, From: strings.Join(t.argv[e.at:e.end], " "), To: strings.Join(e.with, " "), Why: e.why,
		})
	}
	return changes
}

// possible asks for every capability that the new line needs.
func (t *translation) possible(out []string) error {
	cmd := ffmpeg.Parse("ffmpeg", out, ffmpeg.Host{})
	for _, c := range cmd.Requirements().Capabilities {
		if !t.can(c) {
			return fmt.Errorf("it would need %s, which the target does not have", c)
		}
	}
	return nil
}
