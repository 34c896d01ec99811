package translate

import (
	"fmt"
	"strings"

	"github.com/ffpod/ffpod/scheduler/ffmpeg"
)

// write makes the edits.
func (t *translation) write() error {
	target := t.encoder
	if !t.keepsEncoder() {
		e, ok := encoderFor(t.encoder.codec, t.to)
		if !ok {
			e, _ = encoderFor(t.encoder.codec, Software)
		}
		target = e
	}
	filters, err := t.filters(target)
	if err != nil {
		return err
	}
	var graphs []string
	for _, w := range t.words {
		switch {
		case w.At == t.graphAt:
			t.rewriteGraph(w, filters)
		case w.At == t.encoderAt:
			if t.graphAt < 0 && filters != "" {
				graphs = []string{"-vf", filters}
			}
			t.rewriteEncoder(w, target, graphs)
		case isDevice(w.Option):
			t.rewriteDevice(w)
		}
	}
	t.addDevices(target)
	return nil
}

func (t *translation) rewriteGraph(w ffmpeg.Word, filters string) {
	if filters == "" {
		t.replace(w, "nothing is left to filter")
		return
	}
	t.value(w, "", filters)
}

func (t *translation) rewriteEncoder(w ffmpeg.Word, target encoder, graph []string) {
	if t.keepsEncoder() {
		if len(graph) > 0 {
			t.edit(end(w), end(w), "", graph...)
		}
		return
	}
	t.caps(target)
	with := append([]string{t.argv[w.At], target.name}, t.options(target)...)
	t.replace(w, "", append(with, graph...)...)
}

// rewriteDevice puts the target's accelerator where the source's was; the
// devices themselves are opened once, in front.
func (t *translation) rewriteDevice(w ffmpeg.Word) {
	if t.to != Software && (w.Option == "hwaccel" || w.Option == "hwaccel_output_format") {
		t.hardware = true
		t.value(w, "", string(t.to.works()))
		return
	}
	t.replace(w, "")
}

// anyDriver makes a line for VAAPI one for every maker's VAAPI.
func (t *translation) anyDriver() {
	if t.to != VAAPI {
		return
	}
	for _, w := range t.words {
		if w.Option != "init_hw_device" || w.Value < 0 || !strings.HasPrefix(t.argv[w.Value], "vaapi") {
			continue
		}
		device, options, _ := strings.Cut(t.argv[w.Value], ",")
		for option := range strings.SplitSeq(options, ",") {
			switch key, _, _ := strings.Cut(option, "="); key {
			case "", "driver", "vendor_id", "kernel_driver":
			default:
				device += "," + option
			}
		}
		t.value(w, "the driver may be another maker's", device)
	}
}

// addDevices opens what the new line needs.
func (t *translation) addDevices(target encoder) {
	var with []string
	open := func(device string) { with = append(with, "-init_hw_device", device) }
	switch {
	case t.to == NVENC && t.hardware: // its encoder takes frames from memory, too
		open("cuda=cu:0")
		with = append(with, "-filter_hw_device", "cu")
	case t.to == VAAPI && (t.hardware || target.of == VAAPI):
		open("vaapi=va:")
		with = append(with, "-filter_hw_device", "va")
	case t.to == QSV && (t.hardware || target.of == QSV):
		open("vaapi=va:,vendor_id=0x8086,driver=iHD")
		open("qsv=qs@va")
		if t.opencl {
			open("opencl=ocl@va")
		}
		with = append(with, "-filter_hw_device", "qs")
	}
	if len(with) == 0 {
		return
	}
	at := t.deviceAt
	if at < 0 {
		at = t.inputAt
	}
	t.edit(at, at, "", with...)
}

// filters renders the graph for the target, or what must stand there although
// the source has none.
func (t *translation) filters(target encoder) (string, error) {
	g := &graph{simple: true, chains: []chain{{}}}
	if t.graphAt >= 0 {
		w := t.wordAt(t.graphAt)
		if w.Value < 0 {
			return "", t.refuse(w, "its value is missing")
		}
		var err error
		g, err = readGraph(t.argv[w.Value], w.Option != "filter_complex" && w.Option != "lavfi")
		if err == nil {
			err = g.places(t.onDevice)
		}
		if err != nil {
			return "", t.refuse(w, "%w", err)
		}
	}
	if t.graphAt < 0 {
		g.chains[0].device = t.onDevice
	}
	var all []string
	for i := range g.chains {
		text, err := t.chain(g, &g.chains[i], target)
		if err != nil {
			if t.graphAt < 0 {
				return "", t.refuse(t.wordAt(t.encoderAt), "%w", err)
			}
			return "", t.refuse(t.wordAt(t.graphAt), "%w", err)
		}
		all = append(all, text)
	}
	return strings.Join(all, ";"), nil
}

func (t *translation) wordAt(at int) ffmpeg.Word {
	for _, w := range t.words {
		if w.At == at {
			return w
		}
	}
	return ffmpeg.Word{At: at, Value: -1}
}

// chain renders one chain, with what brings its frames to where they are used.
func (t *translation) chain(g *graph, c *chain, target encoder) (string, error) {
	e := &emitter{t: t, subtitle: g.isSubtitle(c), at: memory}
	if c.device {
		e.at = t.to.works()
		if len(c.in) == 2 {
			e.at = t.to.overlays()
		}
	}
	to := g.consumer(c)
	fit := ""
	if e.subtitle {
		fit = t.fit(c, to.steps[0])
	}
	for _, s := range c.steps {
		if s.does == up && fit != "" {
			e.add(fit)
			fit = ""
		}
		if err := e.step(s); err != nil {
			return "", err
		}
	}
	switch {
	case to == nil:
		if err := e.finish(target); err != nil {
			return "", err
		}
	case to.steps[0].does == overlay:
		e.move(t.to.overlays())
	default:
		e.move(memory)
	}
	text := strings.Join(e.out, ",")
	if text == "" && !g.simple {
		text = "null"
	}
	return labels(c.in) + text + labels(c.out), nil
}

// fit scales what is laid over a picture, where the source's overlay did.
func (t *translation) fit(c *chain, over step) string {
	w, h := over.with["w"], over.with["h"]
	if w == "" || h == "" || t.to == QSV {
		return ""
	}
	for _, s := range c.steps {
		if strings.HasPrefix(s.text+":", "scale="+w+":"+h+":") || s.name == "alphasrc" && strings.Contains(s.text, "s="+w+"x"+h) {
			return ""
		}
	}
	return "scale=" + w + ":" + h
}

// finish brings the frames to the encoder, in a format it takes.
func (e *emitter) finish(target encoder) error {
	s := &e.t.settings
	switch {
	case s.eight && e.bits != 10:
		e.bits = 8
	case s.tenBits:
		e.bits = 10
	}
	switch target.of {
	case Software:
		wasInMemory := e.at == memory
		e.move(memory)
		if want := "format=" + e.frames(memory); wasInMemory && e.t.from != Software && !e.t.keepsEncoder() &&
			(s.eight || s.tenBits) && (len(e.out) == 0 || e.out[len(e.out)-1] != want) {
			e.add(want)
		}
	case VAAPI:
		e.move(vaapi)
	case QSV:
		if e.at != memory {
			e.move(qsv)
		} else if want := "format=" + e.frames(qsv); len(e.out) == 0 || e.out[len(e.out)-1] != want {
			e.add(want) // it takes frames from memory, in this format
		}
	}
	if e.pictures != "" {
		return fmt.Errorf("the range %s cannot be set on this GPU", e.pictures)
	}
	return nil
}

func labels(names []string) string {
	var b strings.Builder
	for _, n := range names {
		b.WriteString("[" + n + "]")
	}
	return b.String()
}
