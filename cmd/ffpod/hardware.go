package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/scheduler/api"
)

func classOf(s api.Status, name string) api.Class {
	for _, c := range s.Classes {
		if c.Name == name {
			return c
		}
	}
	return api.Class{Name: name}
}

func used(x api.Worker) string {
	words := fmt.Sprintf("%d/%d", x.Used, x.Slots)
	if n := len(x.Paused); n > 0 {
		words += fmt.Sprintf(" +%d paused", n)
	}
	return words
}

func state(x api.Worker) string {
	switch {
	case x.Draining:
		return "draining"
	case !x.Ready:
		return "silent"
	}
	return "ready"
}

// The answers to whether a worker's GPU works.
const (
	gpuNone    = "-"         // its class asks for none, and it has none
	gpuUnknown = "?"         // it does not say
	gpuTrials  = "trying"    // its trials still run
	gpuWorks   = "works"     // it encodes
	gpuPart    = "no encode" // it does something else
	gpuFails   = "FAILS"     // it does nothing
)

// verdict is whether a worker's GPU works.
func verdict(x api.Worker, c api.Class) string {
	switch {
	case x.Hardware != nil && len(x.Hardware.Encoders) > 0:
		return gpuWorks
	case len(c.Devices) == 0 && x.Hardware == nil:
		return gpuNone
	case x.Proving:
		return gpuTrials
	case !x.Proves:
		return gpuUnknown
	case x.Hardware != nil:
		return gpuPart
	}
	return gpuFails
}

func load(l *api.Load) string {
	if l == nil {
		return "-"
	}
	words := fmt.Sprintf("cpu %d%%", l.CPU/10)
	if l.GPU != nil {
		words += fmt.Sprintf(" gpu %d%%", *l.GPU/10)
	}
	words += " mem " + size(l.Memory)
	if l.MemoryLimit > 0 {
		words += "/" + size(l.MemoryLimit)
	}
	return words
}

func size(bytes uint64) string {
	const mebi = 1 << 20
	if bytes < 1000*mebi {
		return fmt.Sprintf("%dMi", bytes/mebi)
	}
	return fmt.Sprintf("%.1fGi", float64(bytes)/(1024*mebi))
}

// between is a number and the bounds that it stays in.
func between(n int, b *api.Bounds) string {
	if b == nil && n == 0 {
		return "-"
	}
	return fmt.Sprintf("%d (%s)", n, bounds(b))
}

func bounds(b *api.Bounds) string {
	switch {
	case b == nil:
		return "-"
	case b.Min == b.Max:
		return fmt.Sprint(b.Min)
	}
	return fmt.Sprintf("%d..%d", b.Min, b.Max)
}

// printHardware tells of each worker with a GPU, or whose class asks for one, what
// was proved, and in ffmpeg's words what failed. Workers that tell the same are one.
func printHardware(w io.Writer, s api.Status, show view) {
	var order []string
	pods := map[string][]string{}
	for _, x := range s.Workers {
		text := hardwareText(x, verdict(x, classOf(s, x.Class)), show)
		if text == "" {
			continue
		}
		text = "class " + x.Class + "\x00" + text
		if pods[text] == nil {
			order = append(order, text)
		}
		pods[text] = append(pods[text], x.Pod)
	}
	if len(order) == 0 {
		return
	}
	fmt.Fprintln(w, "\nGPUS")
	for _, key := range order {
		class, text, _ := strings.Cut(key, "\x00")
		fmt.Fprintf(w, "%s (%s) %s", class, some(pods[key], 3, show.flaws), text)
	}
}

func hardwareText(x api.Worker, works string, show view) string {
	var b strings.Builder
	switch works {
	case gpuWorks:
		fmt.Fprintf(&b, "works: %s\n", does(x, show))
	case gpuPart:
		fmt.Fprintf(&b, "does not encode, only: %s\n", does(x, show))
	case gpuFails:
		fmt.Fprintln(&b, "DOES NOT WORK")
	case gpuTrials:
		fmt.Fprintln(&b, "is being tried")
	case gpuUnknown:
		if !x.Ready {
			return "" // its line says so
		}
		fmt.Fprintln(&b, "is unknown: its worker is of a release that does not try it, or has FFPOD_TRIALS=0")
	}
	flaws := x.Flaws
	if !show.flaws {
		flaws = slices.DeleteFunc(slices.Clone(flaws), func(f api.Flaw) bool { return !f.Own })
	}
	if works == gpuNone {
		if len(flaws) == 0 {
			return ""
		}
		fmt.Fprintln(&b, "has none")
	}
	for _, f := range byReason(flaws) {
		fmt.Fprintf(&b, "  not %s: %s\n", some(f.names, 4, show.flaws), f.reason)
	}
	return b.String()
}

// does is what a worker's hardware was proved to do.
func does(x api.Worker, show view) string {
	h := x.Hardware
	var words []string
	add := func(what string, names []string) {
		if len(names) > 0 {
			words = append(words, what+" "+some(names, 6, show.flaws))
		}
	}
	add("encodes", h.Encoders)
	if n := x.ParallelEncodes; n > 0 && len(h.Encoders) > 0 {
		words[0] += fmt.Sprintf(" (%d at once)", n)
	}
	add("decodes", append(slices.Clone(h.Decoders), prefixed("-hwaccel ", h.Hwaccels)...))
	add("tone-maps by", h.ToneMapping)
	if len(words) == 0 {
		add("opens", h.Devices)
	}
	return strings.Join(words, "; ")
}

func prefixed(with string, names []string) (out []string) {
	for _, n := range names {
		out = append(out, with+n)
	}
	return out
}

// failed is what failed for one reason.
type failed struct {
	reason string
	names  []string
}

// byReason puts together what failed alike, what encodes first: people ask for that.
func byReason(flaws []api.Flaw) (out []failed) {
	at := map[string]int{}
	flaws = slices.Clone(flaws)
	slices.SortStableFunc(flaws, func(a, b api.Flaw) int { return rank(a) - rank(b) })
	for _, f := range flaws {
		i, known := at[f.Reason]
		if !known {
			i = len(out)
			at[f.Reason], out = i, append(out, failed{reason: f.Reason})
		}
		out[i].names = append(out[i].names, f.Capability)
	}
	return out
}

func rank(f api.Flaw) int {
	switch {
	case strings.HasPrefix(f.Capability, "encoder:"):
		return 0
	case strings.Contains(f.Capability, "tonemap"):
		return 1
	}
	return 2
}

// some names the first of many, or all.
func some(names []string, most int, all bool) string {
	if all || len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
