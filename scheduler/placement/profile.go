package placement

import (
	"slices"
	"strings"
)

// Profile is what a worker proved that it can. It is shared and never changed.
type Profile struct {
	can   map[string]bool
	flaws map[string]string
}

// NewProfile makes a profile of the capabilities that a worker has, KIND:NAME, as
// encoder:h264_nvenc, and of those that its ffmpeg lists and its trial refuted,
// each with the reason; KIND:* is a list that could not be read. A capability in both
// is refuted. Both are copied.
func NewProfile(capabilities []string, flaws map[string]string) *Profile {
	p := &Profile{can: make(map[string]bool, len(capabilities)), flaws: make(map[string]string, len(flaws))}
	for _, c := range capabilities {
		p.can[c] = true
	}
	for c, why := range flaws {
		delete(p.can, c)
		p.flaws[c] = why
	}
	return p
}

// May tells whether the worker has a capability, by what it proved. Of one that is
// still proving, hardware that no trial has refuted counts as had. Of the nil profile
// nothing is known, and everything is allowed.
func (p *Profile) May(capability string, proving bool) bool {
	if p.Lacks([]string{capability}) == "" {
		return true
	}
	_, refuted := p.flaws[capability]
	return proving && hardware(capability) && !refuted
}

// Lacks says which of the needs is not proved, and why; empty: all are. Of the nil
// profile nothing is known, and everything is allowed.
func (p *Profile) Lacks(needs []string) string {
	if p == nil {
		return ""
	}
	for _, n := range needs {
		if p.can[n] {
			continue
		}
		if why, refuted := p.flaws[n]; refuted {
			return n + " failed its trial (" + why + ")"
		}
		kind, _, _ := strings.Cut(n, ":")
		if why, unread := p.flaws[kind+":*"]; unread {
			if !hardware(n) {
				continue // nothing is known of software, which is allowed
			}
			return n + " is not proved (" + why + ")"
		}
		return n + " is not offered"
	}
	return ""
}

// ofHardware are the words in the names of capabilities that a device gives.
var ofHardware = []string{"nvenc", "cuvid", "nvdec", "cuda", "npp", "qsv", "vaapi", "amf", "rkmpp", "rkrga", "v4l2m2m",
	"vulkan", "libplacebo", "opencl", "videotoolbox", "d3d1", "dxva2"}

// hardware tells whether a capability is one that a device gives.
func hardware(capability string) bool {
	kind, name, _ := strings.Cut(capability, ":")
	if kind == "hwaccel" || kind == "device" {
		return true
	}
	for _, w := range ofHardware {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}

// ofMaker are the words of those that a maker's devices are bought for.
func ofMaker(maker string) []string {
	switch maker {
	case "nvidia":
		return []string{"nvenc", "cuvid", "nvdec", "cuda", "npp"}
	case "intel":
		return []string{"qsv", "vaapi", "opencl"}
	case "amd":
		return []string{"amf", "vaapi", "opencl"}
	}
	return ofHardware
}

// Hardware tells whether a capability is one that a device gives.
func Hardware(capability string) bool { return hardware(capability) }

// Promised tells whether a capability is of the hardware that a class with these
// extended resources asks for. A list that could not be read, KIND:*, may be.
func Promised(capability string, devices []string) bool {
	_, name, _ := strings.Cut(capability, ":")
	if name == "*" {
		return len(devices) > 0
	}
	return hardware(capability) && slices.ContainsFunc(devices, func(d string) bool {
		return slices.ContainsFunc(ofMaker(maker(d)), func(w string) bool { return strings.Contains(name, w) })
	})
}

// Keeps tells whether the worker can do all that the hardware of a class with these
// extended resources was listed to do. One that cannot says something of its own
// device, and nothing of the next one.
func (p *Profile) Keeps(devices []string) bool {
	for c := range p.flaws {
		if Promised(c, devices) {
			return false
		}
	}
	return true
}

// needsHardware tells whether any need is one that a device gives.
func needsHardware(needs []string) bool {
	for _, n := range needs {
		if hardware(n) {
			return true
		}
	}
	return false
}

// encodesInHardware tells whether the needs have an encoder of a device, of which
// drivers allow only so many at a time.
func encodesInHardware(needs []string) bool {
	for _, n := range needs {
		if strings.HasPrefix(n, "encoder:") && hardware(n) {
			return true
		}
	}
	return false
}
