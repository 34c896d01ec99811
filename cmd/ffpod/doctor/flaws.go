package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/scheduler/api"
)

// told are the workers of a class that have tried their hardware. None: they are of
// an older release, still at it, or there are none.
func told(p *Patient, class string) (workers []api.Worker) {
	for _, w := range p.facts.status.Workers {
		if w.Class == class && w.Ready && w.Proves && !w.Proving {
			workers = append(workers, w)
		}
	}
	return workers
}

// refuted is why a worker's trial of a capability failed; empty: it did not.
func refuted(w api.Worker, capability string) string {
	for _, f := range w.Flaws {
		if f.Capability == capability {
			return f.Reason
		}
	}
	return ""
}

// proved is the outcome of the workers' own trials of a capability, those which fail
// alike as one. name is what has lists it under, as ffmpeg does.
func proved(on, name, capability string, workers []api.Worker, has func(*api.Hardware) []string, what string, remedy func(reason string) string) (found []Finding) {
	var good []string
	bad := map[string][]string{}
	for _, w := range workers {
		reason := refuted(w, capability)
		switch {
		case reason != "":
		case w.Hardware != nil && slices.Contains(has(w.Hardware), name):
			good = append(good, w.Pod)
			continue
		default:
			reason = cmp.Or(refuted(w, strings.TrimSuffix(capability, toneMaps)), "its ffmpeg does not list it")
		}
		bad[reason] = append(bad[reason], w.Pod)
	}
	if len(good) > 0 {
		found = append(found, ok(on, "%s: proved by %s", name, strings.Join(good, ", ")))
	}
	for _, reason := range sortedKeys(bad) {
		found = append(found, Finding{Level: Fail, On: on, What: what + ", says " + strings.Join(bad[reason], ", "), Why: reason, Remedy: remedy(reason)})
	}
	return found
}

func sortedKeys(m map[string][]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func encodersOf(h *api.Hardware) []string    { return h.Encoders }
func toneMappingOf(h *api.Hardware) []string { return h.ToneMapping }

// toneMaps marks the tone mapping of a filter that does other things too.
const toneMaps = "=tonemap"

// bounded warns of a driver that encodes fewer streams at a time than its worker has
// slots for.
func bounded(on string, workers []api.Worker) (found []Finding) {
	for _, w := range workers {
		if n := w.ParallelEncodes; n > 0 && n < w.Slots {
			return []Finding{{Level: Warn, On: on, What: fmt.Sprintf("its driver encodes %d streams at once, and worker %s has %d slots", n, w.Pod, w.Slots),
				Why: "consumer cards, and who else encodes on this one", Remedy: fmt.Sprintf("nothing must be done: the scheduler gives it no more. Set its slots to %d to see that in `ffpod status`, or free the card of others", n)}}
		}
	}
	return nil
}

// remedies are by what a trial's reason contains, the first that does.
var remedies = []struct{ text, remedy string }{
	{"no /dev/", "the pods of the class hold no such device: their container must ask for the GPU's resource, a device plugin offer it, and with NVIDIA the runtime class hand it over: `ffpod doctor --only gpu,runtime-class`"},
	{"cannot be opened", "put the group that the reason names into identity.supplementalGroups of settings.yaml (docs/hardware.md, the render group)"},
	{"ermission denied", "put the number that `getent group render` says on the node into identity.supplementalGroups of settings.yaml (docs/hardware.md, the render group)"},
	{"Cannot load libcuda", "NVIDIA's runtime does not hand its driver over: component runtime-class-nvidia, and NVIDIA_DRIVER_CAPABILITIES=all or compute,video,utility"},
	{"Cannot load libnv", "NVIDIA's runtime does not hand over the video part of its driver: NVIDIA_DRIVER_CAPABILITIES=all or compute,video,utility; component runtime-class-nvidia"},
	{"stalled", "the driver hangs: read the node's kernel log (`dmesg`), then restart the node; until then its workers get no work of this sort"},
	{"OpenEncodeSessionEx failed", "the card has no session left, or its driver is too old: end what else encodes on it (`nvidia-smi`), or ask for fewer slots; an old driver must be updated"},
	{"CUDA_ERROR_OUT_OF_MEMORY", "the card's memory is full: see who uses it with `nvidia-smi` on the node; ask for fewer slots"},
	{"CUDA_ERROR_", "the driver is in trouble, or was replaced below the pod: `nvidia-smi` on the node must answer; then delete the worker's pod"},
	{"No capable devices found", "this card has no encoder for it, or its driver is too old for this ffmpeg"},
	{"VA display", "the image has no VAAPI driver for this GPU, or it cannot be opened: Jellyfin's image has them (component jellyfin-workers)"},
	{"VAAPI connection", "the image has no VAAPI driver for this GPU, or it is too old: Jellyfin's image has them (component jellyfin-workers)"},
	{"does not list it", "give workers jellyfin-ffmpeg: component jellyfin-workers"},
}

// remedyOf is what to do about a trial's reason; otherwise when none is known.
func remedyOf(reason, otherwise string) string {
	for _, r := range remedies {
		if strings.Contains(reason, r.text) {
			return r.remedy
		}
	}
	return otherwise
}
