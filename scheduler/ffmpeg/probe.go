package ffmpeg

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// HardwareProbe is a command that only opens devices to learn from its stderr
// what they can do: of Jellyfin's 28 probes at its start the 5 that ask for
// VAAPI's driver and for Vulkan's extensions. Where a GPU is, their answer
// depends on the build of ffmpeg, the hardware and the key, and on nothing else
// but the variables that choose a driver (LIBVA_DRIVER_NAME and its kin).
type HardwareProbe struct {
	// Device is the type of the device that is asked about, the last one opened.
	Device string
	// Hardware are the makers one of whom must have made the GPU, sorted; none
	// means any.
	Hardware []string
	// Key is the same for two probes that must get the same answer: one word per
	// option, those that change what is printed first.
	Key string
}

// HardwareProbe tells whether the command is a probe of the hardware; every
// other question about ffmpeg is answered by any binary of the same build.
func (c Command) HardwareProbe() (HardwareProbe, bool) {
	if !c.isHardwareProbe() {
		return HardwareProbe{}, false
	}
	return HardwareProbe{
		Device: c.Devices[len(c.Devices)-1].Type, Hardware: c.hardware(), Key: c.probeKey,
	}, true
}

// Opened tells by its exit code and its stderr that the devices of a probe were
// opened. An ffmpeg without files opens them and then complains of the files, with
// the code of a failure. A probe that is too quiet to say so tells nothing.
func (HardwareProbe) Opened(code int32, stderr []byte) bool {
	return code == 0 || code == 1 && bytes.Contains(stderr, []byte("Use -h to get full help"))
}

func (c *Command) isHardwareProbe() bool {
	return c.Information == "" && c.isIdle() && !c.dumps && len(c.Devices) > 0
}

// probeKey spells a probe one way: general options sorted, each as the last
// word says, then the rest in its order.
func probeKey(program Program, argv []string) string {
	var general, rest []string
	for _, w := range Words(program, argv) {
		value := ""
		if w.Value >= 0 {
			value = argv[w.Value]
		}
		name := strings.TrimPrefix(argv[w.At], "-")
		switch name {
		case "loglevel":
			name = "v"
		case "nohide_banner":
			name, value = "hide_banner", "0"
		case "hide_banner":
			value = "1"
		case "nostdin", "stdin", "y", "n":
			continue // nothing is read and nothing written
		}
		word := name + "=" + value
		if strings.ContainsAny(word, " \t\r\n\"\\") || !isText(word) {
			word = strconv.Quote(word)
		}
		switch name {
		case "v", "hide_banner":
			general = slices.DeleteFunc(general, func(s string) bool { return strings.HasPrefix(strings.TrimPrefix(s, `"`), name+"=") })
			general = append(general, word)
		default:
			rest = append(rest, word)
		}
	}
	slices.Sort(general)
	return strings.Join(append(general, rest...), " ")
}

func isText(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
