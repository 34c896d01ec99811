package doctor

// checks is the table: what is examined, in the order in which one thing's fault
// explains the next one's.
func checks() []check {
	return []check{
		{"api-server", true, true, apiServer},
		{"rights", true, true, rights},
		{"namespace", true, true, namespace},
		{"policies", true, true, policies},
		{"pods", false, true, pods},
		{"scheduler", false, true, schedulerAnswers},
		{"trust", false, true, trust},
		{"callers", false, true, callers},
		{"dns", false, true, dns},
		{"storage", true, false, storageBefore},
		{"claims", false, true, claims},
		{"paths", false, true, paths},
		{"identity", false, true, identity},
		{"images", false, true, images},
		{"gpu", true, true, gpu},
		{"runtime-class", true, true, runtimeClass},
		{"mounts", false, true, mounts},
		{"rwx", true, true, rwx},
		{"encoders", false, true, encoders},
		{"tone-mapping", false, true, toneMapping},
		{"jellyfin", false, true, jellyfinSettings},
		{"probes", false, true, probes},
		{"database", false, true, database},
		{"ingress", false, true, ingress},
	}
}
