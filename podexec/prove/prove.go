package prove

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Command is one run of ffmpeg.
type Command struct {
	Args   []string      // argv[1:]
	Input  []byte        // its stdin; nil: /dev/null
	Within time.Duration // after it, the process group is killed
}

// Outcome is how a Command ended.
type Outcome struct {
	Stdout  []byte
	Stderr  string // its end
	Code    int    // of the exit; 128 and more: by a signal
	Stalled bool   // it was killed because its time was over
	Err     error  // it did not start, or the context ended
}

// Config is what trials need.
type Config struct {
	// Run runs ffmpeg and returns when its process group is gone, or cannot be
	// killed.
	Run func(context.Context, Command) Outcome
	// Root is where dev and sys are. Defaults to /.
	Root string
	// Within bounds one run. Defaults to 10 s.
	Within time.Duration
	// Listed is told of the software before the trials begin. Defaults to nobody.
	Listed func(Report)
}

func (c Config) defaults() Config {
	c.Root = cmp.Or(c.Root, "/")
	c.Within = cmp.Or(c.Within, 10*time.Second)
	if c.Listed == nil {
		c.Listed = func(Report) {}
	}
	return c
}

// Flaw is a capability that is listed and was not confirmed.
type Flaw struct{ Capability, Reason string }

// Report is what was found: every name of ffmpeg's lists is in one of both. The
// names are KIND:NAME, sorted.
type Report struct {
	Capabilities []string
	Flaws        []Flaw

	encoding []string // arguments of a hardware encode that passed, for Parallel
}

// Name is the same for reports that say the same.
func (r Report) Name() string {
	sum := sha256.New()
	for _, c := range r.Capabilities {
		fmt.Fprintln(sum, c)
	}
	for _, f := range r.Flaws {
		fmt.Fprintln(sum, f.Capability, f.Reason)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// Prove reads ffmpeg's lists and tries its hardware. Its error is the context's;
// the report is then incomplete.
func Prove(ctx context.Context, conf Config) (Report, error) {
	p := &proof{Config: conf.defaults(), samples: map[string][]byte{}}
	var flaws []Flaw
	p.lists, flaws = p.list(ctx)
	for _, f := range flaws {
		p.flawed(f.Capability, f.Reason)
	}
	p.software()
	if err := ctx.Err(); err != nil {
		return p.sorted(), err
	}
	p.Listed(p.sorted())
	for _, f := range families() {
		p.family(ctx, f)
	}
	return p.sorted(), ctx.Err()
}

// proof is one run of Prove.
type proof struct {
	Config
	lists   Lists
	report  Report
	samples map[string][]byte // encoded frames, by codec; nil: nothing here can make any
}

func (p *proof) passed(capability string) {
	p.report.Capabilities = append(p.report.Capabilities, capability)
}

func (p *proof) flawed(capability, reason string) {
	p.report.Flaws = append(p.report.Flaws, Flaw{capability, reason})
}

// sorted is a copy of the report as it is now.
func (p *proof) sorted() Report {
	r := Report{slices.Clone(p.report.Capabilities), slices.Clone(p.report.Flaws), p.report.encoding}
	slices.Sort(r.Capabilities)
	slices.SortFunc(r.Flaws, func(a, b Flaw) int { return cmp.Compare(a.Capability, b.Capability) })
	return r
}

// software sorts the lists: what no family has needs no hardware.
func (p *proof) software() {
	all := families()
	for _, kind := range []string{Encoder, Decoder, Filter} {
		for _, name := range p.lists[kind] {
			switch {
			case slices.Contains(foreign(), ending(name)):
				p.flawed(kind+":"+name, "ffpod has no trial for this hardware")
			case !slices.ContainsFunc(all, func(f family) bool { return f.has(name) }):
				p.passed(kind + ":" + name)
			}
		}
	}
	for _, name := range p.lists[Hwaccel] {
		if !slices.ContainsFunc(all, func(f family) bool { return f.device == name }) {
			p.flawed(Hwaccel+":"+name, "ffpod has no trial for this hardware")
			p.flawed(Device+":"+name, "ffpod has no trial for this hardware")
		}
	}
}

var (
	errStalled = errors.New("stalled")
	errGivenUp = errors.New("not tried")
)

// stallsBound is how many trials of a family may stall before its others are given up.
const stallsBound = 2

// family tries all of a family that ffmpeg lists.
func (p *proof) family(ctx context.Context, f family) {
	t := &trials{proof: p, family: f}
	kinds := map[string][]string{}
	for _, kind := range []string{Encoder, Decoder, Filter} {
		kinds[kind] = f.members(p.lists[kind])
	}
	listed := slices.Contains(p.lists[Hwaccel], f.device)
	if err := t.open(ctx, listed); err != nil {
		for kind, names := range kinds {
			for _, name := range names {
				p.flawed(kind+":"+name, err.Error())
			}
		}
		if listed {
			p.flawed(Device+":"+f.device, err.Error())
			p.flawed(Hwaccel+":"+f.device, err.Error())
		}
		return
	}
	if listed {
		p.passed(Device + ":" + f.device)
	}
	for _, name := range kinds[Encoder] {
		p.judge(Encoder+":"+name, t.encode(ctx, name))
	}
	t.decoders(ctx, kinds[Decoder])
	if listed {
		p.judge(Hwaccel+":"+f.device, t.hwaccel(ctx))
	}
	for _, name := range kinds[Filter] {
		t.filter(ctx, name)
	}
}

// judge notes the outcome of a trial.
func (p *proof) judge(capability string, err error) {
	if err != nil {
		p.flawed(capability, err.Error())
		return
	}
	p.passed(capability)
}

// failure is why a run did not succeed, in words.
func (o Outcome) failure() error {
	switch words := reason(o.Stderr); {
	case o.Err != nil:
		return o.Err
	case o.Stalled && words != "":
		return fmt.Errorf("%w: it was killed when its time was over; %s", errStalled, words)
	case o.Stalled:
		return fmt.Errorf("%w: it was killed when its time was over", errStalled)
	case o.Code == 0:
		return nil
	case words != "":
		return errors.New(words)
	}
	return fmt.Errorf("exit status %d without a word", o.Code)
}

// frames counts what the muxer framecrc printed.
func frames(text []byte) (n int) {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			n++
		}
	}
	return n
}
