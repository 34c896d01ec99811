package prove

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// family is one way to hardware: names that end alike, behind one kind of device.
type family struct {
	suffixes []string // of encoders, decoders and filters, after the last underscore
	extra    []string // names of its filters without such a suffix
	device   string   // its type for -init_hw_device; "": it has none
	optional bool     // releases without that device type have the family too
	nodes    []string // below /dev, patterns: one of them must be there
	maker    string   // PCI vendor of the render node; "": any
	upload   string   // filters that bring a frame in system memory to its encoder
	hwaccel  string   // format of what -hwaccel decodes into; "": it does not decode
	wrapped  string   // suffix of the decoder that -hwaccel needs; "": ffmpeg's own
	basic    map[string]string
	tonemap  map[string]string
}

const (
	intel = "0x8086"
	amd   = "0x1002"
)

// small is what the trial of a scaler scales to.
const small = "w=160:h=120"

func families() []family {
	render := []string{"dri/renderD*"}
	nvidia := []string{"nvidia[0-9]*", "dxg"}
	bt709 := "p=bt709:t=bt709:m=bt709"
	return []family{
		{
			suffixes: []string{"nvenc", "cuvid", "cuda", "npp"}, device: "cuda", nodes: nvidia,
			upload: "format=nv12", hwaccel: "cuda",
			basic:   map[string]string{"scale_cuda": small},
			tonemap: map[string]string{"tonemap_cuda": "format=yuv420p:tonemap=hable:" + bt709},
		},
		{
			suffixes: []string{"vaapi"}, device: "vaapi", nodes: render,
			upload: "format=nv12,hwupload", hwaccel: "vaapi",
			basic:   map[string]string{"scale_vaapi": small + ":format=nv12"},
			tonemap: map[string]string{"tonemap_vaapi": "format=nv12:" + bt709},
		},
		{
			suffixes: []string{"qsv"}, device: "qsv", nodes: render, maker: intel,
			upload: "format=nv12,hwupload=extra_hw_frames=16", hwaccel: "qsv", wrapped: "qsv",
			basic:   map[string]string{"scale_qsv": small, "vpp_qsv": small},
			tonemap: map[string]string{"vpp_qsv": "tonemap=1:format=nv12"},
		},
		{
			suffixes: []string{"amf"}, device: "amf", optional: true, nodes: render, maker: amd,
			upload: "format=nv12",
		},
		{
			suffixes: []string{"rkmpp", "rkrga"}, device: "rkmpp", optional: true, nodes: []string{"mpp_service"},
			upload: "format=nv12", hwaccel: "drm_prime", wrapped: "rkmpp",
			basic: map[string]string{"scale_rkrga": small + ":format=nv12"},
		},
		{suffixes: []string{"v4l2m2m"}, nodes: []string{"video*"}, upload: "format=yuv420p"},
		{
			suffixes: []string{"opencl"}, device: "opencl", nodes: slices.Concat(render, nvidia, []string{"kfd"}),
			tonemap: map[string]string{"tonemap_opencl": "format=nv12:tonemap=hable:" + bt709},
		},
		{
			suffixes: []string{"vulkan"}, extra: []string{"libplacebo"}, device: "vulkan", nodes: slices.Concat(render, nvidia),
			upload: "format=nv12,hwupload", hwaccel: "vulkan",
			basic:   map[string]string{"scale_vulkan": small},
			tonemap: map[string]string{"libplacebo": "format=yuv420p:colorspace=bt709:color_primaries=bt709:color_trc=bt709"},
		},
		{device: "drm", nodes: render},
	}
}

// foreign are the endings of hardware that no trial of ours reaches: of other
// systems, or without a display.
func foreign() []string {
	return []string{"videotoolbox", "vt", "mediacodec", "mf", "d3d11va", "d3d12va", "d3d11", "d3d12", "dxva2", "omx", "mmal", "vdpau", "oh", "at"}
}

// ending is what follows the last underscore; "" without one.
func ending(name string) string {
	i := strings.LastIndexByte(name, '_')
	if i < 0 {
		return ""
	}
	return name[i+1:]
}

func (f family) has(name string) bool {
	return slices.Contains(f.suffixes, ending(name)) || slices.Contains(f.extra, name)
}

// members are the names of a list that belong to the family.
func (f family) members(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !f.has(n) })
}

// present finds the family's device nodes that may be opened. Its error says in
// words why there is none.
func (f family) present(root string) (nodes []string, err error) {
	var shut error
	for _, pattern := range f.nodes {
		found, _ := filepath.Glob(filepath.Join(root, "dev", pattern))
		for _, node := range found {
			if f.maker != "" && strings.Contains(pattern, "renderD") && !madeBy(root, node, f.maker) {
				continue
			}
			if err := unix.Access(node, unix.R_OK|unix.W_OK); err != nil {
				shut = fmt.Errorf("%s cannot be opened: %w%s", strings.TrimPrefix(node, strings.TrimSuffix(root, "/")), err, group(node))
				continue
			}
			nodes = append(nodes, node)
		}
	}
	switch {
	case len(nodes) > 0:
		return nodes, nil
	case shut != nil:
		return nil, shut
	case f.maker == "":
		return nil, fmt.Errorf("no /dev/%s in this pod", strings.Join(f.nodes, ", /dev/"))
	}
	return nil, fmt.Errorf("no /dev/%s of the maker %s in this pod", strings.Join(f.nodes, ", /dev/"), f.maker)
}

// madeBy tells a render node's maker; a node whose maker cannot be read may be
// anybody's.
func madeBy(root, node, maker string) bool {
	b, err := os.ReadFile(filepath.Join(root, "sys/class/drm", filepath.Base(node), "device/vendor"))
	return err != nil || strings.TrimSpace(string(b)) == maker
}

// group names the group that a node is open to, for the pod's supplementalGroups.
func group(node string) string {
	var s unix.Stat_t
	if unix.Stat(node, &s) != nil {
		return ""
	}
	return fmt.Sprintf("; it belongs to group %d, which must be in supplementalGroups", s.Gid)
}

// inits are the ways to open the family's device as "hw", the likeliest first, each
// the values of -init_hw_device in order.
func (f family) inits(nodes []string) (ways [][]string) {
	for _, node := range nodes {
		render := strings.HasPrefix(filepath.Base(node), "renderD")
		switch {
		case f.device == "vaapi" || f.device == "drm":
			ways = append(ways, []string{f.device + "=hw:" + node})
		case f.device == "qsv":
			ways = append(ways, []string{"vaapi=va:" + node, "qsv=hw@va"}, []string{"qsv=hw:hw_any,child_device=" + node})
		case f.device == "opencl" && render:
			ways = append(ways, []string{"vaapi=va:" + node, "opencl=hw@va"})
		case f.device == "vulkan" && render:
			ways = append(ways, []string{"drm=dr:" + node, "vulkan=hw@dr"})
		}
	}
	switch f.device {
	case "cuda":
		ways = append(ways, []string{"cuda=hw:0"})
	case "opencl":
		ways = append(ways, []string{"opencl=hw"}, []string{"opencl=hw:0.0"})
	case "vulkan":
		if len(ways) == 0 { // where a render node is, this could open a CPU's
			ways = append(ways, []string{"vulkan=hw:0"})
		}
	case "amf", "rkmpp":
		ways = append(ways, []string{f.device + "=hw"})
	}
	return ways
}
