package session

import "strings"

// Forwarded tells which variables of the caller's environment reach a program on
// a worker: those that change what ffmpeg, its drivers and its network code do.
// Everything else is the caller's own business, and often its secret; and a
// worker lets no caller set PATH or LD_PRELOAD. The shim sends no others, the
// scheduler passes no others on.
func Forwarded(name string) bool {
	switch name {
	case "NEOReadDebugKeys", "EnableExtendedVaFormats", "AMD_DEBUG",
		"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
		"FFREPORT", "LANG", "LC_ALL", "TZ":
		return true
	}
	return strings.HasPrefix(name, "LIBVA_") || strings.HasPrefix(name, "ROC_")
}

// ForwardedEnv keeps of NAME=VALUE pairs those that are Forwarded.
func ForwardedEnv(env [][]byte) [][]byte {
	var kept [][]byte
	for _, v := range env {
		if name, _, ok := strings.Cut(string(v), "="); ok && Forwarded(name) {
			kept = append(kept, v)
		}
	}
	return kept
}
