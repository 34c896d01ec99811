package supervisor

import "strings"

// environment is the worker's own environment, which holds what its image and
// its device plugins set, without ffpod's settings, overridden by the session's.
func environment(own []string, session [][]byte) []string {
	set := make(map[string]bool, len(session))
	for _, v := range session {
		name, _, _ := strings.Cut(string(v), "=")
		set[name] = true
	}
	env := make([]string, 0, len(own)+len(session))
	for _, v := range own {
		name, _, _ := strings.Cut(v, "=")
		if !set[name] && !strings.HasPrefix(name, "FFPOD_") {
			env = append(env, v)
		}
	}
	for _, v := range session {
		env = append(env, string(v))
	}
	return env
}
