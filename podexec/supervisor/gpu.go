package supervisor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ffpod/ffpod/podexec/prove"
)

// renderNodes are the pod's own: sysfs shows all GPUs of the node.
func renderNodes(root string) []string {
	nodes, _ := filepath.Glob(filepath.Join(root, "dev/dri/renderD*"))
	return nodes
}

// busyPercent reads what amdgpu tells of its GPUs' load, of all users.
func busyPercent(root string) (permille uint32, known bool) {
	for _, node := range renderNodes(root) {
		n, err := number(filepath.Join(root, "sys/class/drm", filepath.Base(node), "device/gpu_busy_percent"))
		if err == nil && n <= 100 {
			permille, known = max(permille, uint32(n)*10), true
		}
	}
	return permille, known
}

// parseQuota reads cpu.max of cgroup v2: "max 100000" or "150000 100000".
func parseQuota(text string) (quota, period int64) {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return 0, 0
	}
	quota, _ = strconv.ParseInt(fields[0], 10, 64)
	period, _ = strconv.ParseInt(fields[1], 10, 64)
	return quota, period
}

// gpuClock is how long each engine of a GPU has worked for this pod's processes, as
// the kernel's drm-usage-stats tell in the fdinfo of a DRM file.
type gpuClock struct {
	readable bool
	clients  map[string]gpuClient // by device and client: descriptors of one are shared
}

// gpuClient is one user of a GPU. Engines count nanoseconds (i915, amdgpu) or cycles
// of their total (xe).
type gpuClient struct {
	busy, total map[string]uint64
	capacity    map[string]uint64
}

// readGPUClock reads the DRM files of this pod's processes. Without a render node of
// a driver that counts there is nothing to read.
func readGPUClock(root string) gpuClock {
	c := gpuClock{clients: map[string]gpuClient{}}
	for _, node := range renderNodes(root) {
		driver, _ := os.Readlink(filepath.Join(root, "sys/class/drm", filepath.Base(node), "device/driver"))
		switch filepath.Base(driver) {
		case "i915", "xe":
			c.readable = true
		}
	}
	if !c.readable {
		return c
	}
	proc := filepath.Join(root, "proc")
	for _, pid := range processes(proc) {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		files, _ := os.ReadDir(filepath.Join(dir, "fd"))
		for _, f := range files {
			if to, err := os.Readlink(filepath.Join(dir, "fd", f.Name())); err != nil || !strings.HasPrefix(to, "/dev/dri/") {
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, "fdinfo", f.Name()))
			if id, client := parseClient(string(b)); err == nil && id != "" {
				c.clients[id] = client
			}
		}
	}
	return c
}

// parseClient reads one fdinfo; its id is "" when it is no DRM file.
func parseClient(text string) (id string, c gpuClient) {
	c = gpuClient{map[string]uint64{}, map[string]uint64{}, map[string]uint64{}}
	var device, client string
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value, _, _ = strings.Cut(strings.TrimSpace(value), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		engine, isBusy := strings.CutPrefix(key, "drm-engine-")
		cycles, isCycles := strings.CutPrefix(key, "drm-cycles-")
		total, isTotal := strings.CutPrefix(key, "drm-total-cycles-")
		capacity, isCapacity := strings.CutPrefix(key, "drm-engine-capacity-")
		switch {
		case key == "drm-pdev":
			device = value
		case key == "drm-client-id":
			client = value
		case err != nil:
		case isCapacity:
			c.capacity[capacity] = n
		case isBusy:
			c.busy[engine] = n
		case isCycles:
			c.busy[cycles] = n
		case isTotal:
			c.total[total] = n
		}
	}
	if client == "" {
		return "", c
	}
	return device + " " + client, c
}

// since is the load of the busiest engine between two looks, in permille.
func (c gpuClock) since(before gpuClock, passed time.Duration) (busiest uint32) {
	engines := map[string]float64{}
	for id, now := range c.clients {
		was, known := before.clients[id]
		if !known {
			continue // from the next time on
		}
		device, _, _ := strings.Cut(id, " ")
		for engine, busy := range now.busy {
			of := float64(passed.Nanoseconds())
			if total, cycles := now.total[engine]; cycles {
				of = float64(total - min(total, was.total[engine]))
			}
			if of > 0 && busy > was.busy[engine] {
				engines[device+" "+engine] += float64(busy-was.busy[engine]) / of / float64(max(1, now.capacity[engine]))
			}
		}
	}
	for _, share := range engines {
		busiest = max(busiest, uint32(min(1000, share*1000)))
	}
	return busiest
}

// smiSample is what nvidia-smi said last.
type smiSample struct {
	permille uint32
	at       time.Time // zero: never
}

const (
	smiBound = 2 * time.Second
	smiValid = 3 * proverSlow
)

// smiLook asks nvidia-smi, where there is one and a GPU of NVIDIA.
func (p *prover) smiLook(ctx context.Context) {
	if nodes, _ := filepath.Glob(filepath.Join(p.root, "dev/nvidia[0-9]*")); len(nodes) == 0 {
		return
	}
	path, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return
	}
	out := p.worker.children.trial(ctx, path, environment(os.Environ(), nil), prove.Command{
		Args:   []string{"--query-gpu=utilization.gpu,utilization.encoder,utilization.decoder", "--format=csv,noheader,nounits"},
		Within: smiBound,
	})
	if permille, ok := parseSMI(string(out.Stdout)); ok && out.Code == 0 && out.Err == nil {
		p.mu.Lock()
		p.smi = smiSample{permille, time.Now()}
		p.mu.Unlock()
	}
}

// utilisation is what nvidia-smi said last, if that is not long ago.
func (p *prover) utilisation() (permille uint32, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.smi.permille, !p.smi.at.IsZero() && time.Since(p.smi.at) < smiValid
}

// parseSMI reads a line of percentages for each GPU; what a GPU does not support is
// words instead.
func parseSMI(text string) (permille uint32, ok bool) {
	for line := range strings.Lines(text) {
		for field := range strings.SplitSeq(line, ",") {
			if n, err := strconv.ParseUint(strings.TrimSpace(field), 10, 32); err == nil && n <= 100 {
				permille, ok = max(permille, uint32(n)*10), true
			}
		}
	}
	return permille, ok
}
