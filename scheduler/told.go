package scheduler

import (
	"maps"
	"slices"
	"strings"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/api"
	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/placement"
)

// roleStandby is what operators call a Job that no session has taken.
const roleStandby = "standby"

// manned is a worker with the part that it plays.
type manned struct {
	channels.WorkerState
	role string // class.RoleWarm, roleStandby or class.RoleJob
}

// allWorkers are those that are up, of every class.
func (s *Scheduler) allWorkers() []manned {
	idle := map[string]bool{}
	if s.cfg.Standbys != nil {
		for _, w := range s.cfg.Standbys.Free() {
			idle[w.Pod+"/"+w.Nonce] = true
		}
	}
	var all []manned
	for _, w := range s.cfg.Pool.Workers() {
		all = append(all, manned{w, class.RoleWarm})
	}
	for _, w := range s.cfg.Jobs.Workers() {
		role := class.RoleJob
		if idle[w.Pod+"/"+w.Nonce] {
			role = roleStandby
		}
		all = append(all, manned{w, role})
	}
	return all
}

// devices are those that the pods of a class ask for.
func devices(classes []class.Class, name string) []string {
	for _, c := range classes {
		if c.Name == name {
			return c.Holds()
		}
	}
	return nil
}

// workerTold is a worker as operators see it, devices those of its class.
func workerTold(w manned, devices []string) api.Worker {
	d := w.Description
	return api.Worker{Class: w.Class, Pod: w.Pod, Node: w.Node, Role: w.role, Slots: w.Slots, Used: w.Used,
		Ready: w.Ready, Draining: w.Draining, FFmpeg: w.FFmpegVersion, FFmpegBuild: w.FFmpegBuild,
		Proves: d.GetProves(), Proving: d.GetProving(), Hardware: hardwareTold(d.GetCapabilities()), Flaws: flawsTold(d.GetFlaws(), devices),
		ParallelEncodes: int(d.GetParallelEncodes()), Load: loadTold(d.GetLoad()), Paused: slices.Sorted(maps.Keys(w.Paused)),
	}
}

// toneMaps marks the tone mapping of a filter that does other things too.
const toneMaps = "=tonemap"

// hardwareTold groups what devices give. Nil: nothing was proved.
func hardwareTold(capabilities []string) *api.Hardware {
	var h api.Hardware
	some := false
	for _, c := range capabilities {
		if !placement.Hardware(c) {
			continue
		}
		kind, name, _ := strings.Cut(c, ":")
		var group *[]string
		switch {
		case kind == "encoder":
			group = &h.Encoders
		case kind == "decoder":
			group = &h.Decoders
		case kind == "hwaccel":
			group = &h.Hwaccels
		case kind == "device":
			group = &h.Devices
		case strings.HasSuffix(name, toneMaps), strings.Contains(name, "tonemap"), name == "libplacebo":
			group = &h.ToneMapping
		default:
			continue
		}
		*group, some = append(*group, strings.TrimSuffix(name, toneMaps)), true
	}
	if !some {
		return nil
	}
	return &h
}

func flawsTold(flaws []*wire.Flaw, devices []string) []api.Flaw {
	var out []api.Flaw
	for _, f := range flaws {
		out = append(out, api.Flaw{Capability: f.GetCapability(), Reason: f.GetReason(), Own: placement.Promised(f.GetCapability(), devices)})
	}
	return out
}

func loadTold(l *wire.Load) *api.Load {
	if l == nil {
		return nil
	}
	out := &api.Load{CPU: int(l.GetCpuPermille()), Memory: l.GetMemoryBytes(), MemoryLimit: l.GetMemoryLimitBytes()}
	if l.GetGpuKnown() {
		gpu := int(l.GetGpuPermille())
		out.GPU = &gpu
	}
	return out
}
