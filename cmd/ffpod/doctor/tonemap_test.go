package doctor

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The trial's picture, its frame count and the options around the filter are taken by
// a real ffmpeg; so is the chain of the one filter that Debian's has on a CPU.
func TestToneMapArgsRun(t *testing.T) {
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("no ffmpeg on this machine")
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), ffmpeg, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	run(zscale.args()...)
	tagged := run("-hide_banner", "-nostdin", "-f", "lavfi", "-i", deepPicture, "-frames:v", "3", "-vf", asHDR+"showinfo", "-f", "null", "-")
	for _, want := range []string{"color_primaries:bt2020", "color_trc:smpte2084", "color_space:bt2020nc", "fmt:yuv420p10le"} {
		if !strings.Contains(tagged, want) {
			t.Errorf("%s is missing in\n%s", want, tagged)
		}
	}
	filters := run("-hide_banner", "-filters")
	for _, kind := range []string{"none", "nvenc", "qsv", "vaapi", "amf"} {
		for _, way := range toneMappings(kind, "hable", true, true) {
			if !strings.Contains(filters, " "+way.filter+" ") || way.filter == "vpp_qsv" {
				continue // Jellyfin's ffmpeg has it; vpp_qsv's option tonemap came with ffmpeg 6.1
			}
			// Of a filter that is there every option must be known.
			help := run("-hide_banner", "-h", "filter="+way.filter)
			_, options, _ := strings.Cut(way.filters, way.filter+"=")
			options, _, _ = strings.Cut(options, ",")
			for _, o := range strings.Split(options, ":") {
				name, _, _ := strings.Cut(o, "=")
				if !strings.Contains(help, "  "+name+" ") {
					t.Errorf("%s %s: no option %s", kind, way.filter, name)
				}
			}
		}
	}
}

// Each kind of hardware, with each of its switches, is tried by its own filters.
func TestToneMappings(t *testing.T) {
	for _, c := range []struct {
		kind         string
		general, vpp bool
		want         []string
	}{
		{"none", false, true, nil}, {"none", true, false, []string{"tonemapx"}}, {"nvenc", true, true, []string{"tonemap_cuda"}},
		{"qsv", true, true, []string{"vpp_qsv", "tonemap_opencl"}}, {"vaapi", true, true, []string{"tonemap_vaapi", "tonemap_opencl"}},
		{"vaapi", false, true, []string{"tonemap_vaapi"}}, {"amf", true, true, []string{"tonemap_opencl"}},
	} {
		var got []string
		for _, way := range toneMappings(c.kind, "bt2390", c.general, c.vpp) {
			got = append(got, way.filter)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s, %v, %v: %v, not %v", c.kind, c.general, c.vpp, got, c.want)
		}
	}
}

func TestToneMapping(t *testing.T) {
	hdr := func(kind string) string {
		return "<EncodingOptions><HardwareAccelerationType>" + kind + "</HardwareAccelerationType><EnableTonemapping>true</EnableTonemapping></EncodingOptions>"
	}
	for name, c := range map[string]struct {
		encoding string
		fails    map[string]error // by filter
		on       string
		level    Level
		words    string
	}{
		"works":      {hdr("nvenc"), nil, "class nvidia", OK, "tonemap_cuda: by a worker"},
		"broken":     {hdr("nvenc"), map[string]error{"tonemap_cuda": errors.New("exit 234: Cannot load libcuda.so.1")}, "class nvidia", Fail, "nvidia-smi"},
		"only CPU":   {hdr("none"), map[string]error{"tonemapx": errors.New("No such filter: 'tonemapx'")}, "class cpu", Fail, "zscale works there"},
		"no CPU way": {hdr("none"), map[string]error{"tonemapx": errors.New("No such filter"), "zscale": errors.New("No such filter")}, "class cpu", Fail, "jellyfin-workers"},
		"metadata":   {strings.Replace(hdr("vaapi"), "EnableT", "EnableVppT", 2), map[string]error{"tonemap_vaapi": errors.New("No mastering display data from input")}, "class amd", Unknown, "play an HDR film"},
		"off":        {"<EncodingOptions></EncodingOptions>", nil, "pod jellyfin-0", OK, "is off"},
	} {
		t.Run(name, func(t *testing.T) {
			x := healthy()
			x.files["encoding.xml"] = c.encoding
			if name == "metadata" {
				x.gpu = classOf("amd", "amd.com/gpu")
			}
			p := x.patient(t)
			p.Try = func(_ context.Context, _, what string, args []string) (string, error) {
				for filter, err := range c.fails {
					if strings.HasSuffix(what, filter) && slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, filter+"=") }) {
						return "", err
					}
				}
				return "by a worker", nil
			}
			found := examine(t, p, "tone-mapping").Findings
			for _, f := range found {
				if strings.HasPrefix(f.On, "class ") && !strings.HasPrefix(c.on, "class cpu") && f.On == "class cpu" {
					t.Errorf("a class without the hardware was tried: %+v", f)
				}
				if f.Check == "tone-mapping" && f.On == c.on && f.Level == c.level && strings.Contains(f.What+f.Why+f.Remedy, c.words) {
					return
				}
			}
			t.Errorf("not found in %+v", found)
		})
	}
}
