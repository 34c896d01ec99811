package lease

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ffpod/ffpod/podexec"
)

// Template names what a worker's ffmpeg and its drivers depend on: the same for
// pods of one class's template, warm ones and Jobs', and for the template itself.
// FFPOD_ variables are the worker's own. Something that changes pods on their way
// makes another name: then nothing is known of it.
func Template(spec *corev1.PodSpec) string {
	type shape struct {
		Container    corev1.Container
		Claims       []corev1.PodResourceClaim
		NodeSelector map[string]string
		Affinity     *corev1.NodeAffinity
		RuntimeClass *string
	}
	s := shape{Claims: spec.ResourceClaims, NodeSelector: spec.NodeSelector, RuntimeClass: spec.RuntimeClassName}
	if spec.Affinity != nil {
		s.Affinity = spec.Affinity.NodeAffinity
	}
	for _, c := range spec.Containers {
		if c.Name != podexec.Container {
			continue
		}
		s.Container = corev1.Container{Image: c.Image, Command: c.Command, Args: c.Args, EnvFrom: c.EnvFrom,
			Resources: corev1.ResourceRequirements{Limits: c.Resources.Limits, Claims: c.Resources.Claims}}
		for _, e := range c.Env {
			if !strings.HasPrefix(e.Name, "FFPOD_") {
				s.Container.Env = append(s.Container.Env, e)
			}
		}
	}
	text, err := json.Marshal(s)
	if err != nil { // what came as JSON goes as JSON
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
