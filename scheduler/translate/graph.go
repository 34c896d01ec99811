package translate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// graph is a filter graph as chains between labels.
type graph struct {
	chains []chain
	simple bool // of -vf: one chain, no labels
}

// chain is a row of filters without branches.
type chain struct {
	in, out []string
	steps   []step
	device  bool // the frames it gets are on the source's GPU
}

// action is what a step does, whoever does it.
type action int

const (
	keep      action = iota // works anywhere: marks frames, drops some
	soft                    // works in memory; stays as it is written
	up                      // memory to GPU
	down                    // GPU to memory
	move                    // from one API of a GPU to another: nothing by itself
	scale                   // size, format
	deint                   // deinterlace
	tonemap                 // HDR to SDR
	correct                 // brightness and contrast before tone mapping
	transpose               // rotate
	overlay                 // put the second input on the first
)

// step is one filter, or a filter with the format that belongs to it.
type step struct {
	does action
	text string            // as it stands
	name string            // of the filter, for errors
	with map[string]string // its options by the names that most filters use
}

// readGraph takes the value of -vf or -filter_complex.
func readGraph(text string, simple bool) (*graph, error) {
	filters, tail := ffmpeg.Filters(text)
	g := &graph{simple: simple, chains: []chain{{}}}
	for i, f := range filters {
		out, in, next, err := links(f.Before)
		if i == 0 {
			out, in = nil, out // there is no filter before it
		}
		if err != nil || (i == 0) != (next == 0) {
			return nil, fmt.Errorf("the graph is not understood in front of %s", f.Text)
		}
		c := &g.chains[len(g.chains)-1]
		if i > 0 && (next == ';' || len(in) > 0 || len(out) > 0) {
			c.out = out
			g.chains = append(g.chains, chain{})
			c = &g.chains[len(g.chains)-1]
		}
		c.in = append(c.in, in...)
		if i > 0 && next == ',' && (len(in) > 0 || len(out) > 0) {
			return nil, fmt.Errorf("labels within a chain, in front of %s, are not understood", f.Text)
		}
		s, err := readStep(f)
		if err != nil {
			return nil, err
		}
		c.steps = append(c.steps, s)
	}
	out, in, next, err := links(tail)
	if err != nil || next != 0 || len(in) > 0 {
		return nil, fmt.Errorf("the end of the graph, %q, is not understood", tail)
	}
	g.chains[len(g.chains)-1].out = out
	if simple && (len(g.chains) > 1 || len(out) > 0 || len(g.chains[0].in) > 0) {
		return nil, fmt.Errorf("a graph with labels is not understood here")
	}
	for i := range g.chains {
		if g.chains[i].steps, err = join(g.chains[i].steps); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// links reads what stands between two filters: the labels of the one before,
// a separator, the labels of the next.
func links(s string) (out, in []string, separator byte, err error) {
	for {
		s = strings.TrimLeft(s, " \t\r\n")
		switch {
		case s == "":
			if separator == 0 { // in front of the first filter, or behind the last
				return out, nil, 0, nil
			}
			return out, in, separator, nil
		case s[0] == '[':
			label, rest, ok := strings.Cut(s[1:], "]")
			if !ok || strings.ContainsAny(label, `'\[`) {
				return nil, nil, 0, fmt.Errorf("label %q", s)
			}
			if separator == 0 {
				out = append(out, label)
			} else {
				in = append(in, label)
			}
			s = rest
		case (s[0] == ',' || s[0] == ';') && separator == 0:
			separator, s = s[0], s[1:]
		default:
			return nil, nil, 0, fmt.Errorf("unexpected %q", s)
		}
	}
}

// join makes one step of a transfer and the format beside it.
func join(steps []step) ([]step, error) {
	var out []step
	for i := 0; i < len(steps); i++ {
		s := steps[i]
		format := ""
		if i+1 < len(steps) && steps[i+1].name == "format" {
			format = steps[i+1].with["format"]
		}
		switch {
		case s.does == up && len(out) > 0 && out[len(out)-1].name == "format":
			s.with["format"] = out[len(out)-1].with["format"]
			out = out[:len(out)-1]
		case s.does == down:
			if format == "" || isSurface(format) {
				return nil, fmt.Errorf("filter %s is not followed by the format it leaves in memory", s.text)
			}
			s.with["format"] = format
			i++
		case s.name == "hwmap" && s.with["derive_device"] == "":
			switch {
			case format == "":
				return nil, fmt.Errorf("filter %s does not say where it maps to", s.text)
			case isSurface(format):
				s.does = up
			default:
				s.does, s.with["format"] = down, format
				i++
			}
		case s.does == correct && (i+1 == len(steps) || steps[i+1].name != "tonemap_vaapi"):
			return nil, fmt.Errorf("filter %s has no counterpart, unless before tonemap_vaapi", s.text)
		}
		if (s.does == up || s.does == move) && i+1 < len(steps) && steps[i+1].name == "format" && isSurface(steps[i+1].with["format"]) {
			i++
		}
		if s.name == "format" && isSurface(s.with["format"]) {
			continue // where the frames are already
		}
		out = append(out, s)
	}
	return out, nil
}

func isSurface(format string) bool {
	switch format {
	case "cuda", "vaapi", "qsv", "opencl", "vulkan", "drm_prime":
		return true
	}
	return false
}

// readStep knows the filters.
func readStep(f ffmpeg.Filter) (step, error) {
	s := step{text: f.Text, name: f.Name}
	var positions, names []string
	switch f.Name {
	case "setparams", "fps", "setpts", "settb", "null", "setsar", "setdar", "select", "trim", "sidedata":
		return s, nil
	case "format":
		s.does, positions, names = soft, []string{"format"}, []string{"pix_fmts"}
	case "scale", "yadif", "bwdif", "w3fdif", "crop", "pad", "transpose", "hflip", "vflip", "subtitles", "ass", "alphasrc", "color",
		"overlay", "tonemapx", "tonemap", "zscale", "thumbnail", "colorspace":
		s.does = soft
		return s, nil
	case "hwupload", "hwupload_cuda", "hwupload_vaapi":
		s.does, names = up, []string{"derive_device", "extra_hw_frames", "device"}
	case "hwdownload":
		s.does = down
	case "hwmap":
		s.does, names = move, []string{"derive_device", "mode", "reverse", "extra_hw_frames"}
	case "scale_cuda", "scale_vaapi", "scale_qsv", "scale_opencl":
		s.does, positions = scale, []string{"w", "h"}
		names = []string{"format", "out_range", "mode", "extra_hw_frames", "passthrough", "async_depth"}
	case "vpp_qsv":
		s.does = scale
		names = []string{"w", "h", "format", "transpose", "deinterlace", "out_range", "scale_mode", "extra_hw_frames", "async_depth"}
	case "yadif_cuda", "bwdif_cuda":
		s.does, positions = deint, []string{"mode", "parity", "deint"}
	case "deinterlace_vaapi":
		s.does, names = deint, []string{"rate", "mode", "auto"}
	case "deinterlace_qsv":
		s.does, names = deint, []string{"mode"}
	case "tonemap_cuda", "tonemap_opencl", "tonemap_vaapi":
		s.does = tonemap
		names = []string{"format", "p", "t", "m", "tonemap", "peak", "desat", "tonemap_mode", "param", "range", "extra_hw_frames"}
	case "procamp_vaapi":
		s.does, names = correct, []string{"b", "c"}
	case "transpose_cuda", "transpose_vaapi", "transpose_opencl":
		s.does, positions = transpose, []string{"dir"}
	case "overlay_cuda", "overlay_qsv", "overlay_vaapi", "overlay_opencl":
		s.does, names = overlay, []string{"eof_action", "repeatlast", "w", "h", "alpha_format"}
	default:
		return step{}, fmt.Errorf("filter %s has no counterpart", f.Name)
	}
	return s, s.options(f, positions, names)
}

// options reads the arguments of a filter. What needs escaping is refused.
func (s *step) options(f ffmpeg.Filter, positions, names []string) (err error) {
	s.with = map[string]string{}
	at := 0
	ffmpeg.Options(f.Arguments, func(key, value string) {
		if key == "" && at < len(positions) {
			key = positions[at]
			at++
		}
		switch {
		case err != nil:
		case key == "width" || key == "height":
			s.with[key[:1]] = value
		case key == "pix_fmts":
			s.with["format"] = value
		case !slices.Contains(positions, key) && !slices.Contains(names, key):
			err = fmt.Errorf("filter %s: %s=%s is not known", f.Text, key, value)
		case strings.ContainsAny(value, ",;[]'\\: \t"):
			err = fmt.Errorf("filter %s: the value of %s is too complicated", f.Text, key)
		default:
			s.with[key] = value
		}
	})
	return err
}

// bits tells 8 from 10 bits per sample; 0 if no format is named.
func bits(format string) (int, error) {
	switch format {
	case "":
		return 0, nil
	case "nv12", "yuv420p", "yuvj420p", "bgra", "yuva420p", "rgba":
		return 8, nil
	case "p010", "p010le", "yuv420p10", "yuv420p10le":
		return 10, nil
	}
	return 0, fmt.Errorf("format %s has no counterpart", format)
}

// places says of each chain where its frames are, and finds what feeds what.
func (g *graph) places(onDevice bool) error {
	for i := range g.chains {
		c := &g.chains[i]
		c.device = onDevice
		if to := g.consumer(c); to != nil {
			c.device = to.steps[0].does == overlay
		}
		for _, s := range c.steps {
			if s.does == keep {
				continue
			}
			c.device = s.does != soft && s.does != up
			break
		}
		if c.device && !onDevice && len(c.in) < 2 {
			return fmt.Errorf("filter %s works on a GPU, where nothing puts the frames", c.steps[0].text)
		}
		if g.simple && !c.device && onDevice {
			return fmt.Errorf("filter %s works in memory, but the frames are on the GPU", c.steps[0].text)
		}
		for _, label := range c.in {
			if g.producer(label) != nil && c.steps[0].does != overlay && c.steps[0].name != "overlay" {
				return fmt.Errorf("the label %s feeds %s, not an overlay", label, c.steps[0].text)
			}
		}
		if err := c.check(); err != nil {
			return err
		}
	}
	return nil
}

// check walks the source as it stands: a filter in the wrong place would be a
// misunderstanding.
func (c *chain) check() error {
	device := c.device
	for i, s := range c.steps {
		if s.does == overlay && (i > 0 || len(c.in) != 2) {
			return fmt.Errorf("filter %s has not two labelled inputs", s.text)
		}
		if _, err := bits(s.with["format"]); err != nil && s.does != soft {
			return fmt.Errorf("filter %s: %w", s.text, err)
		}
		switch {
		case s.does == keep:
		case (s.does == soft || s.does == up) == device:
			return fmt.Errorf("filter %s gets frames from a place it cannot take them from", s.text)
		case s.does == up:
			device = true
		case s.does == down:
			device = false
		}
	}
	return nil
}

// producer is the chain that makes a label; nil for a stream of an input.
func (g *graph) producer(label string) *chain {
	for i := range g.chains {
		if slices.Contains(g.chains[i].out, label) {
			return &g.chains[i]
		}
	}
	return nil
}

// consumer is the chain that takes what c makes; nil for the last.
func (g *graph) consumer(c *chain) *chain {
	for i := range g.chains {
		for _, label := range g.chains[i].in {
			if slices.Contains(c.out, label) {
				return &g.chains[i]
			}
		}
	}
	return nil
}

// isSubtitle says that the chain makes what is laid over the picture.
func (g *graph) isSubtitle(c *chain) bool {
	to := g.consumer(c)
	return to != nil && len(to.in) == 2 && slices.Contains(c.out, to.in[1])
}
