package jellyfin

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Features is what a server learns at its start and never asks again. It steers
// every later command line.
type Features struct {
	Version                                  string
	Decoders, Encoders, Filters, HWAccels    []string
	FilterOptions, BitStreamOptions, Drivers []string
	PauseKey, LowPriority, FirstVideoFrame   bool
	VulkanModifier, VulkanInterop            bool
	Processes                                int // started to learn it
}

var (
	versionLine = regexp.MustCompile(`^ffmpeg version n?((?:[0-9]+\.?)+)`)
	codecLine   = regexp.MustCompile(`(?m)^\s\S{6}\s([\w|-]+)\s+.+$`)
	filterLine  = regexp.MustCompile(`(?m)^\s\S{2,3}\s([\w|-]+)\s+.+$`)
)

// filterOptions are asked for one by one, in this order.
var filterOptions = [...][2]string{
	{"scale_cuda", "format"},
	{"tonemap_cuda", "GPU accelerated HDR to SDR tonemapping"},
	{"tonemap_opencl", "bt2390"},
	{"overlay_opencl", "Action to take when encountering EOF from secondary input"},
	{"overlay_vaapi", "Action to take when encountering EOF from secondary input"},
	{"overlay_vulkan", "Action to take when encountering EOF from secondary input"},
	{"transpose_opencl", "rotate by half-turn"},
	{"overlay_opencl", "alpha_format"},
	{"overlay_cuda", "alpha_format"},
}

var bitStreamOptions = [...][2]string{
	{"hevc_metadata", "remove_dovi"}, {"hevc_metadata", "remove_hdr10plus"},
	{"av1_metadata", "remove_dovi"}, {"av1_metadata", "remove_hdr10plus"},
	{"dovi_rpu", "strip"},
}

var (
	drivers        = [...]string{"Mesa Gallium driver", "Intel iHD driver", "Intel i965 driver"}
	vulkanModifier = []string{"VK_EXT_image_drm_format_modifier"}
	vulkanInterop  = []string{"VK_KHR_external_memory_fd", "VK_EXT_external_memory_dma_buf", "VK_KHR_external_semaphore_fd", "VK_EXT_external_memory_host"}
)

// validation is one start of a server. The first error stays: then the server
// does not start.
type validation struct {
	s   *Server
	f   Features
	err error
}

// Validate asks the build for its features, one process after the other and
// without any limit in time. device is the VAAPI render node, if the server is
// configured for VAAPI.
func (s *Server) Validate(ctx context.Context, device string) (Features, error) {
	v := &validation{s: s}
	v.version(ctx)
	v.f.Decoders = names(codecLine, v.out(ctx, "-decoders"))
	v.f.Encoders = names(codecLine, v.out(ctx, "-encoders"))
	v.f.Filters = names(filterLine, v.out(ctx, "-filters"))
	for _, o := range filterOptions {
		if text := v.out(ctx, "-h", "filter="+o[0]); contains(text, "Filter "+o[0], o[1]) {
			v.f.FilterOptions = append(v.f.FilterOptions, o[0]+": "+o[1])
		}
	}
	for _, o := range bitStreamOptions {
		if text := v.out(ctx, "-h", "bsf="+o[0]); contains(text, "Bit stream filter "+o[0], o[1]) {
			v.f.BitStreamOptions = append(v.f.BitStreamOptions, o[0]+": "+o[1])
		}
	}
	accels := strings.FieldsFunc(v.out(ctx, "-hwaccels"), func(r rune) bool { return r == '\r' || r == '\n' })
	v.f.HWAccels = accels[min(1, len(accels)):]
	v.version(ctx)
	span := "10000"
	if v.f.before(7) {
		span = "1000"
	}
	help := v.ask(ctx, true, "?", "-hide_banner", "-f", "lavfi", "-i", "nullsrc=s=1x1:d="+span, "-f", "null", "-")
	v.f.PauseKey = strings.Contains(help, "p      pause transcoding")
	v.f.LowPriority = v.exits(ctx, "ffmpeg", "-loglevel", "quiet", "-hwaccel_flags", "+low_priority", "-hide_banner",
		"-f", "lavfi", "-i", "nullsrc=s=1x1:d=100", "-f", "null", "-")
	v.f.FirstVideoFrame = v.exits(ctx, "ffprobe", "-loglevel", "quiet", "-f", "lavfi", "-i", "nullsrc=s=1x1:d=1", "-only_first_vframe")
	if device != "" && slices.Contains(v.f.HWAccels, "vaapi") {
		v.hardware(ctx, device)
	}
	return v.f, v.err
}

func (v *validation) hardware(ctx context.Context, device string) {
	for _, d := range drivers {
		if strings.Contains(v.ask(ctx, true, "", "-v", "verbose", "-hide_banner", "-init_hw_device", "vaapi=va:"+device), d) {
			v.f.Drivers = append(v.f.Drivers, d)
		}
	}
	vulkan := func(want []string) bool {
		text := v.ask(ctx, true, "", "-v", "verbose", "-hide_banner", "-init_hw_device", "drm=dr:"+device, "-init_hw_device", "vulkan=vk@dr")
		return contains(text, want...)
	}
	v.f.VulkanModifier = vulkan(vulkanModifier)
	v.f.VulkanInterop = vulkan(vulkanInterop)
}

func (v *validation) version(ctx context.Context) {
	text := v.out(ctx, "-version")
	m := versionLine.FindStringSubmatch(text)
	switch {
	case v.err != nil:
	case m == nil || strings.Contains(text, "Libav developers"):
		v.err = fmt.Errorf("no valid ffmpeg: -version says %.100q", text)
	default:
		v.f.Version = m[1]
		if v.f.before(4) || strings.HasPrefix(m[1], "4.") && m[1] < "4.4" {
			v.err = fmt.Errorf("no valid ffmpeg: version %s, want 4.4", m[1])
		}
	}
}

// before compares the major version.
func (f Features) before(major int) bool {
	var got int
	_, _ = fmt.Sscanf(f.Version, "%d", &got)
	return got < major
}

func (v *validation) out(ctx context.Context, args ...string) string {
	return v.ask(ctx, false, "", args...)
}

// ask runs ffmpeg with both outputs redirected and returns one of them. 10.11
// does not read the other one at all.
func (v *validation) ask(ctx context.Context, fromStderr bool, key string, args ...string) string {
	if v.err != nil {
		return ""
	}
	v.f.Processes++
	p, err := v.s.Start(ctx, Command{Program: "ffmpeg", Args: args, Stdin: key != "", Stdout: true, Stderr: true})
	if err != nil {
		v.err = err
		return ""
	}
	defer p.Close()
	wanted, other := p.Stdout, p.Stderr
	if fromStderr {
		wanted, other = other, wanted
	}
	if key != "" {
		_, _ = p.Stdin.WriteString(key)
		p.Stdin.Close()
	}
	var draining sync.WaitGroup
	if v.s.Flavour == V12_0 {
		draining.Go(func() { _, _ = readToEnd(other) })
	}
	text, err := readToEnd(wanted)
	draining.Wait()
	v.err = err
	if v.err == nil {
		v.err = p.Wait(ctx)
	}
	return string(text)
}

// exits runs a program with nothing redirected and tells whether it ended with 0.
func (v *validation) exits(ctx context.Context, program string, args ...string) bool {
	if v.err != nil {
		return false
	}
	v.f.Processes++
	p, err := v.s.Start(ctx, Command{Program: program, Args: args})
	if err != nil {
		v.err = err
		return false
	}
	defer p.Close()
	if v.err = p.Wait(ctx); v.err != nil {
		return false
	}
	return p.ExitCode() == 0
}

func contains(text string, all ...string) bool {
	return !slices.ContainsFunc(all, func(part string) bool { return !strings.Contains(text, part) })
}

func names(line *regexp.Regexp, text string) []string {
	var all []string
	for _, m := range line.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// Adapt makes a command line what the server would have built for a build with
// these features: without libfdk_aac it asks for aac, and it leaves out what
// ffprobe does not know.
func (f Features) Adapt(argv []string) []string {
	var adapted []string
	for i, a := range argv {
		switch {
		case a == "libfdk_aac" && !slices.Contains(f.Encoders, a):
			a = "aac"
		case !f.FirstVideoFrame && (a == "-only_first_vframe" || a == "-show_frames" && i+1 < len(argv) && argv[i+1] == "-only_first_vframe"):
			if i > 0 && slices.Contains(argv, "-show_streams") {
				continue
			}
		}
		adapted = append(adapted, a)
	}
	return adapted
}
