package cluster

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Caller is a container with the shim in it.
type Caller struct {
	Pod       *corev1.Pod
	Container string
	// Shim is the path of its ffmpeg.
	Shim string
	// Audience is that of the token it mounts for the shim, "" if it mounts none.
	Audience string
}

// Callers returns the running pods of the namespace that an init container brought
// the shim to, Jellyfin's first.
func (c *Cluster) Callers(ctx context.Context) ([]Caller, error) {
	var callers []Caller
	pods, err := c.Pods(ctx, "")
	if err != nil {
		return nil, err
	}
	for i := range pods {
		if caller, ok := CallerOf(&pods[i]); ok {
			callers = append(callers, caller)
		}
	}
	slices.SortStableFunc(callers, func(a, b Caller) int { return rank(a) - rank(b) })
	return callers, nil
}

func rank(c Caller) int {
	if c.Pod.Labels["app.kubernetes.io/name"] == "jellyfin" {
		return 0
	}
	return 1
}

// Caller returns the one whose pod, or owner, is called name; with "" the first.
func (c *Cluster) Caller(ctx context.Context, name string) (Caller, error) {
	callers, err := c.Callers(ctx)
	if err != nil {
		return Caller{}, err
	}
	name = name[strings.LastIndex(name, "/")+1:] // deploy/jellyfin
	for _, caller := range callers {
		if name == "" || caller.Pod.Name == name || strings.HasPrefix(caller.Pod.Name, name+"-") {
			return caller, nil
		}
	}
	if name == "" {
		return Caller{}, fmt.Errorf("no running pod of namespace %s has the shim: it takes an init container that runs `ffpod install shim DIR`; see docs/shim.md", c.Namespace)
	}
	return Caller{}, fmt.Errorf("no running pod of namespace %s is called %s and has the shim", c.Namespace, name)
}

// CallerOf finds the shim in a pod: an init container installs it into a volume, a
// container mounts that.
func CallerOf(p *corev1.Pod) (Caller, bool) {
	for _, init := range p.Spec.InitContainers {
		dir := installed(append(slices.Clone(init.Command), init.Args...))
		if dir == "" {
			continue
		}
		volume, below := mounted(init, dir)
		for _, container := range p.Spec.Containers {
			for _, m := range container.VolumeMounts {
				if volume != "" && m.Name == volume {
					return Caller{Pod: p, Container: container.Name, Shim: path.Join(m.MountPath, below, "ffmpeg"), Audience: audience(p, container)}, true
				}
			}
		}
	}
	return Caller{}, false
}

// installed is the directory of `install shim DIR`, "" if it is another command.
func installed(args []string) string {
	for i := range args {
		if args[i] == "shim" && i > 0 && args[i-1] == "install" && i+1 < len(args) {
			return path.Clean(args[i+1])
		}
	}
	return ""
}

// mounted is the volume that holds a directory of a container, and where in it.
func mounted(c corev1.Container, dir string) (volume, below string) {
	best := ""
	for _, m := range c.VolumeMounts {
		at := path.Clean(m.MountPath)
		if (dir == at || strings.HasPrefix(dir, at+"/")) && len(at) > len(best) {
			best, volume, below = at, m.Name, strings.TrimPrefix(dir, at)
		}
	}
	return volume, below
}

// audience is that of the projected token that the container mounts at the shim's
// default place, or anywhere under the name token.
func audience(p *corev1.Pod, c corev1.Container) string {
	for _, m := range c.VolumeMounts {
		for _, v := range p.Spec.Volumes {
			if v.Name != m.Name || v.Projected == nil || strings.HasPrefix(m.MountPath, "/var/run/secrets/") {
				continue
			}
			for _, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil && s.ServiceAccountToken.Path == "token" {
					return s.ServiceAccountToken.Audience
				}
			}
		}
	}
	return ""
}
