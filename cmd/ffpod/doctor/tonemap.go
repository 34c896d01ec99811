package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/ffpod/ffpod/cmd/ffpod/jellyfin"
	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/scheduler/class"
)

// toneMap is one way from HDR to SDR, as Jellyfin takes it.
type toneMap struct {
	filter string
	// device and filters are ffmpeg's options before the input and its -vf.
	device  []string
	filters string
	remedy  string
}

// A picture of ten bits, and the filter that tags it as an HDR10 film: PQ in BT.2020.
// The input lavfi passes no tags on, so it stands in -vf.
const (
	deepPicture = "testsrc2=size=640x360:rate=5,format=yuv420p10le"
	asHDR       = "setparams=range=tv:color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc,"
)

// args are a trial of a few frames.
func (t toneMap) args() []string {
	args := slices.Concat([]string{"-hide_banner", "-nostdin", "-loglevel", "error"}, t.device)
	return append(args, "-f", "lavfi", "-i", deepPicture, "-frames:v", "3", "-vf", asHDR+t.filters, "-c:v", "libx264", "-preset", "ultrafast", "-f", "null", "-")
}

// The remedies: what a trial needs beside ffmpeg.
const (
	remedyCUDA   = "`kubectl exec` into a worker: `nvidia-smi` must answer, and its driver be new enough for the ffmpeg (NVIDIA_DRIVER_CAPABILITIES: all or compute,video,utility); the filter is jellyfin-ffmpeg's: component jellyfin-workers"
	remedyOpenCL = "the worker's image needs an OpenCL run-time for the GPU (intel-opencl-icd; AMD: rocm-opencl-runtime or Mesa's rusticl): build one on Jellyfin's image; or switch to the other way: enableTonemapping=false and, on Intel, enableVppTonemapping=true"
	remedyVPP    = "the GPU's driver must do HDR tone mapping (Intel of the 9th generation or newer, driver iHD: `/usr/lib/jellyfin-ffmpeg/vainfo --display drm`); else enableVppTonemapping=false and enableTonemapping=true, which is OpenCL"
	remedyCPU    = "give workers jellyfin-ffmpeg: component jellyfin-workers; Debian's ffmpeg has no tonemapx, and Jellyfin takes no other filter on the CPU"
)

// toneMappings are those that Jellyfin may use with these settings, the one that it
// prefers first.
func toneMappings(kind, algorithm string, general, vpp bool) (out []toneMap) {
	add := func(when bool, t toneMap) {
		if when {
			out = append(out, t)
		}
	}
	intel := []string{"-init_hw_device", "vaapi=va:,driver=iHD"}
	standard := ":p=bt709:t=bt709:m=bt709"
	how := standard + ":tonemap=" + algorithm + ":peak=100:desat=0"
	down := ",hwdownload,format=nv12"
	switch kind {
	case "nvenc":
		add(general, toneMap{"tonemap_cuda", []string{"-init_hw_device", "cuda=cu:0", "-filter_hw_device", "cu"}, "format=p010,hwupload,tonemap_cuda=format=nv12" + how + down, remedyCUDA})
	case "qsv":
		add(vpp, toneMap{"vpp_qsv", slices.Concat(intel, []string{"-init_hw_device", "qsv=qs@va", "-filter_hw_device", "qs"}), "format=p010,hwupload=extra_hw_frames=16,vpp_qsv=tonemap=1:format=nv12" + down, remedyVPP})
		add(general, toneMap{"tonemap_opencl", slices.Concat(intel, []string{"-init_hw_device", "opencl=ocl@va", "-filter_hw_device", "ocl"}), "format=p010,hwupload,tonemap_opencl=format=nv12" + how + down, remedyOpenCL})
	case "vaapi":
		add(vpp, toneMap{"tonemap_vaapi", slices.Concat(intel, []string{"-filter_hw_device", "va"}), "format=p010,hwupload,tonemap_vaapi=format=nv12" + standard + down, remedyVPP})
		add(general, openCL(how+down))
	case "amf":
		add(general, openCL(how+down))
	default:
		add(general, toneMap{"tonemapx", nil, "tonemapx=format=yuv420p" + how, remedyCPU})
	}
	return out
}

// openCL is on the first device of any maker.
func openCL(how string) toneMap {
	return toneMap{"tonemap_opencl", []string{"-init_hw_device", "opencl=ocl", "-filter_hw_device", "ocl"}, "format=p010,hwupload,tonemap_opencl=format=nv12" + how, remedyOpenCL}
}

// zscale is what an ffmpeg without Jellyfin's filters can do on the CPU.
var zscale = toneMap{filter: "zscale", filters: "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv,format=yuv420p"}

// toneMapping takes the workers' word on what Jellyfin would ask them for, and tries
// on a worker of each class what they say nothing of.
func toneMapping(ctx context.Context, p *Patient) []Finding {
	c, there := p.facts.jellyfinCaller()
	if !there || p.Exec == nil || p.facts.status == nil {
		return nil
	}
	d, err := document(ctx, p, c, jellyfin.Encoding)
	if err != nil {
		return []Finding{unknown("pod "+c.Pod.Name, "encoding.xml cannot be read", err)}
	}
	kind := value(d, "HardwareAccelerationType", "none")
	ways := toneMappings(kind, value(d, "TonemappingAlgorithm", "bt2390"), value(d, "EnableTonemapping", "false") == "true", value(d, "EnableVppTonemapping", "false") == "true")
	if len(ways) == 0 {
		return []Finding{ok("pod "+c.Pod.Name, "tone mapping is off in encoding.xml, or not possible with %s", kind)}
	}
	var found []Finding
	for _, class := range p.facts.classes {
		if suits(class, kind) {
			found = append(found, mapped(ctx, p, class, ways)...)
		}
	}
	return found
}

// suits tells whether sessions with a hardware type go to a class.
func suits(d appsv1.Deployment, kind string) bool {
	want := devicesFor[kind]
	if len(want) == 0 {
		return true
	}
	c, _ := container(d.Spec.Template.Spec, "worker")
	for name := range c.Resources.Limits {
		if slices.ContainsFunc(want, func(prefix string) bool { return strings.HasPrefix(string(name), prefix) }) {
			return true
		}
	}
	one := facts{classes: []appsv1.Deployment{d}}
	return one.driByHand()
}

func mapped(ctx context.Context, p *Patient, d appsv1.Deployment, ways []toneMap) (found []Finding) {
	on, name := className(d), d.Labels[class.Label]
	workers := told(p, name)
	for _, way := range ways {
		if way.device != nil && len(workers) > 0 {
			found = append(found, toneProved(on, way, workers)...)
			continue
		}
		if p.Try == nil {
			continue
		}
		said, err := p.Try(ctx, name, "tone-mapped by "+way.filter, way.args())
		switch {
		case err == nil:
			found = append(found, ok(on, "%s: %s", way.filter, said))
		case strings.Contains(err.Error(), "mastering display"):
			found = append(found, unknown(on, way.filter+" wants a film's own metadata, which the trial's picture has not: play an HDR film", err))
		default:
			f := Finding{Level: Fail, On: on, What: "it does not tone-map by " + way.filter + ", which encoding.xml asks for", Why: err.Error(), Remedy: way.remedy}
			if way.filter == "tonemapx" {
				if _, err := p.Try(ctx, name, "tone-mapped by zscale", zscale.args()); err == nil {
					f.Why += fmt.Sprintf("; %s works there, but Jellyfin does not ask for it", zscale.filter)
				}
			}
			found = append(found, f)
		}
	}
	return found
}

// toneProved is the outcome of the workers' own trials, of frames that have a film's
// metadata where they can make any.
func toneProved(on string, way toneMap, workers []api.Worker) []Finding {
	capability := "filter:" + way.filter
	if way.filter == "vpp_qsv" { // it scales too
		capability += toneMaps
	}
	found := proved(on, way.filter, capability, workers, toneMappingOf, "it does not tone-map by "+way.filter+", which encoding.xml asks for", func(reason string) string { return remedyOf(reason, way.remedy) })
	for i, f := range found {
		if strings.Contains(f.Why, "mastering display") {
			found[i].Level, found[i].What = Unknown, way.filter+" wants a film's own metadata, which the trial's picture has not: play an HDR film"
		}
	}
	return found
}
