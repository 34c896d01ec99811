package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// place is where frames are.
type place string

const (
	memory place = "memory"
	cuda   place = "cuda"
	vaapi  place = "vaapi"
	qsv    place = "qsv"
	opencl place = "opencl"
)

// works is where the target filters what the source filters on its GPU.
func (t Target) works() place {
	switch t {
	case NVENC:
		return cuda
	case QSV, VAAPI:
		return vaapi
	}
	return memory
}

// overlays is where the target lays pictures over each other.
func (t Target) overlays() place {
	if t == QSV {
		return qsv
	}
	return t.works()
}

// emitter writes one chain for the target.
type emitter struct {
	t        *translation
	subtitle bool
	out      []string
	at       place
	bits     int    // per sample, 0 unknown
	format   string // of the frames on the GPU, if it was set there
	pictures string // the range that pictures need and no GPU filter sets
}

func (e *emitter) add(filters ...string) { e.out = append(e.out, filters...) }

// frames names the format that a place has frames in.
func (e *emitter) frames(at place) string {
	switch {
	case e.subtitle && at == cuda:
		return "yuva420p"
	case e.subtitle:
		return "bgra"
	case e.bits == 10 && at == memory:
		return "yuv420p10le"
	case e.bits == 10:
		return "p010le"
	case at == cuda || at == memory:
		return "yuv420p"
	}
	return "nv12"
}

// move brings the frames to a place.
func (e *emitter) move(to place) {
	if e.at == to {
		return
	}
	e.t.hardware = true
	switch {
	case e.at == memory && to == opencl:
		e.move(vaapi)
		e.move(opencl)
		return
	case e.at == memory:
		upload := "hwupload=derive_device=" + string(to)
		if to == qsv {
			upload += ":extra_hw_frames=64" // QSV's pools do not grow
		}
		e.format = e.frames(to)
		e.add("format="+e.format, upload)
	case to == memory:
		e.download()
	case e.at == vaapi && to == qsv, e.at == qsv && to == vaapi:
		e.add("hwmap=derive_device="+string(to), "format="+string(to))
	case e.at == vaapi && to == opencl:
		e.add("hwmap=derive_device=opencl:mode=read")
	case e.at == opencl && to == qsv:
		e.add("hwmap=derive_device=qsv:mode=write:reverse=1:extra_hw_frames=16", "format=qsv")
	case e.at == opencl:
		e.add("hwmap=derive_device=vaapi:mode=write:reverse=1", "format=vaapi")
	case e.at == qsv:
		e.move(vaapi)
		e.move(to)
		return
	}
	e.at = to
}

// download leaves frames in the format that they have on the GPU: no other is
// allowed, so it is set there first if it is not known.
func (e *emitter) download() {
	format := e.frames(e.at)
	if e.format != format && (e.at == cuda || e.at == vaapi) {
		e.add("scale_" + string(e.at) + "=format=" + strings.TrimSuffix(format, "le"))
	}
	e.add("hwdownload", "format="+format)
	e.at, e.format = memory, ""
	if e.pictures != "" {
		e.add("scale=out_range=" + e.pictures)
		e.pictures = ""
	}
}

// step writes one step.
func (e *emitter) step(s step) error {
	if n, _ := bits(s.with["format"]); n > 0 {
		e.bits = n
	}
	switch s.does {
	case keep:
		e.add(s.text)
	case soft:
		e.move(memory)
		e.add(s.text)
	case up:
		if e.t.to == Software && !e.subtitle && s.with["format"] != "" {
			e.add("format=" + e.frames(memory))
		}
		e.move(e.deviceFor())
	case down:
		if e.t.to == Software {
			e.add("format=" + e.frames(memory))
		}
		e.move(memory)
	case move:
	case scale:
		return e.scale(s)
	case deint:
		e.move(e.t.to.works())
		e.add(e.deint(s))
	case tonemap:
		return e.tonemap(s)
	case correct:
		if e.t.tonemapsByVAAPI(true) {
			e.move(vaapi)
			e.add(s.text)
		}
	case transpose:
		return e.transpose(s.with["dir"])
	case overlay:
		return e.overlay(s)
	}
	return nil
}

func (e *emitter) deviceFor() place {
	if e.subtitle {
		return e.t.to.overlays()
	}
	return e.t.to.works()
}

func (e *emitter) scale(s step) error {
	at := e.t.to.works()
	e.move(at)
	if mode := s.with["deinterlace"]; mode != "" && mode != "0" {
		e.add(e.deint(step{with: map[string]string{}}))
	}
	if dir := s.with["transpose"]; dir != "" {
		if err := e.transpose(dir); err != nil {
			return err
		}
	}
	var args []string
	for _, key := range [...]string{"w", "h"} {
		if v := s.with[key]; v != "" {
			args = append(args, key+"="+v)
		}
	}
	format := s.with["format"]
	picture := s.with["out_range"]
	if at == memory {
		if picture != "" {
			args = append(args, "out_range="+picture)
		}
		if len(args) > 0 {
			e.add("scale=" + strings.Join(args, ":"))
		}
		if format != "" {
			e.add("format=" + e.frames(memory))
		}
		return nil
	}
	if format != "" {
		e.format = e.frames(at)
		args = append(args, "format="+strings.TrimSuffix(e.format, "le"))
	}
	switch {
	case at == vaapi && picture != "":
		args = append(args, "out_range="+picture)
	default:
		e.pictures = picture
	}
	if mode := s.with["mode"]; at == vaapi && mode != "" && strings.HasSuffix(s.name, "_vaapi") {
		args = append(args, "mode="+mode)
	}
	if len(args) == 0 {
		return nil
	}
	if at == vaapi {
		args = append(args, "extra_hw_frames=24")
	}
	e.add("scale_" + string(at) + "=" + strings.Join(args, ":"))
	return nil
}

// deint keeps the rate: one frame per frame, or per field.
func (e *emitter) deint(s step) string {
	double := s.with["mode"] == "1" || s.with["mode"] == "send_field" || s.with["rate"] == "field"
	if strings.HasPrefix(s.name, "deinterlace") {
		double = s.with["rate"] == "field"
	}
	mode := "0"
	if double {
		mode = "1"
	}
	filter := "yadif"
	if strings.HasPrefix(s.name, "bwdif") {
		filter = "bwdif"
	}
	switch e.at {
	case cuda:
		if !e.t.can("filter:bwdif_cuda") {
			filter = "yadif"
		}
		return filter + "_cuda=" + mode + ":-1:0"
	case vaapi:
		return "deinterlace_vaapi=rate=" + map[bool]string{false: "frame", true: "field"}[double]
	}
	return filter + "=" + mode + ":-1:0"
}

func (e *emitter) transpose(dir string) error {
	turns := []string{"cclock_flip", "clock", "cclock", "clock_flip"}
	if n, err := strconv.Atoi(dir); err == nil && n >= 0 && n < len(turns) {
		dir = turns[n]
	}
	at := e.t.to.works()
	e.move(at)
	switch {
	case !slices.Contains(append(turns, "reversal", "hflip", "vflip"), dir):
		return fmt.Errorf("transpose: the direction %q is not known", dir)
	case at != memory:
		e.add("transpose_" + string(at) + "=dir=" + dir)
	case dir == "reversal":
		e.add("hflip", "vflip")
	case dir == "hflip", dir == "vflip":
		e.add(dir)
	default:
		e.add("transpose=dir=" + dir)
	}
	return nil
}

// tonemapsByVAAPI says which of the two ways of Intel's and AMD's GPUs is taken.
// OpenCL's has the parameters that the user chose, VAAPI's has none.
func (t *translation) tonemapsByVAAPI(plain bool) bool {
	if t.to.works() != vaapi || !t.can("filter:tonemap_vaapi") {
		return false
	}
	return t.to == VAAPI || plain || !t.can("filter:tonemap_opencl") || !t.can("device:opencl")
}

func (e *emitter) tonemap(s step) error {
	t := e.t
	curve := []string{"tonemap=" + either(s.with["tonemap"], "bt2390"), "peak=" + either(s.with["peak"], "100"), "desat=" + either(s.with["desat"], "0")}
	for _, key := range [...]string{"param", "range"} {
		if v := s.with[key]; v != "" {
			curve = append(curve, key+"="+v)
		}
	}
	if v := s.with["tonemap_mode"]; v != "" && t.to != Software {
		curve = append(curve, "tonemap_mode="+v)
	}
	const sdr = ":p=bt709:t=bt709:m=bt709"
	args := sdr + ":" + strings.Join(curve, ":")
	e.bits = 8
	switch {
	case t.to == NVENC:
		e.move(cuda)
		e.format = "yuv420p"
		e.add("tonemap_cuda=format=yuv420p" + args)
	case t.tonemapsByVAAPI(s.name == "tonemap_vaapi"):
		e.move(vaapi)
		e.format = "nv12"
		e.add("tonemap_vaapi=format=nv12" + sdr + ":extra_hw_frames=32")
	case t.to == QSV && t.can("filter:tonemap_opencl") && t.can("device:opencl"):
		t.opencl = true
		e.move(opencl)
		e.format = "nv12"
		e.add("tonemap_opencl=format=nv12" + args)
	default:
		e.bits = 10
		e.move(memory)
		e.bits = 8
		return e.tonemapInMemory(s, args)
	}
	return nil
}

// tonemapInMemory takes Jellyfin's own filter, or the two of any ffmpeg.
func (e *emitter) tonemapInMemory(s step, args string) error {
	if e.t.can("filter:tonemapx") {
		e.add("tonemapx=format=yuv420p" + args)
		return nil
	}
	curve := either(s.with["tonemap"], "bt2390")
	switch curve {
	case "none", "linear", "gamma", "clip", "reinhard", "hable", "mobius":
	case "bt2390":
		curve = "hable" // the nearest that the filter has
	default:
		return fmt.Errorf("filter %s: the software has no tone mapping %s", s.text, curve)
	}
	e.add("zscale=t=linear:npl=100", "format=gbrpf32le", "zscale=p=bt709", "tonemap=tonemap="+curve+":desat="+either(s.with["desat"], "0"),
		"zscale=t=bt709:m=bt709:r=tv", "format=yuv420p")
	return nil
}

func either(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

func (e *emitter) overlay(s step) error {
	at := e.t.to.overlays()
	e.move(at)
	var args []string
	for _, key := range [...]string{"eof_action", "repeatlast"} {
		if v := s.with[key]; v != "" {
			args = append(args, key+"="+v)
		}
	}
	name := "overlay_" + string(at)
	alpha := s.with["alpha_format"]
	switch {
	case at == memory:
		name = "overlay"
		if alpha != "" {
			args = append(args, "alpha="+alpha)
		}
	case at == cuda && alpha != "":
		args = append(args, "alpha_format="+alpha)
	case alpha == "premultiplied":
		return fmt.Errorf("filter %s: the target has no overlay for premultiplied alpha", s.text)
	case at == qsv && s.with["w"] != "" && s.with["h"] != "":
		args = append(args, "w="+s.with["w"], "h="+s.with["h"])
	}
	if len(args) > 0 {
		name += "=" + strings.Join(args, ":")
	}
	e.add(name)
	return nil
}
