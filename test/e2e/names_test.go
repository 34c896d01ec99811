package e2e_test

import "time"

// Labels of specs, for --label-filter.
const (
	labelLocal  = "local"
	labelWarm   = "warm"
	labelJob    = "job"
	labelSlow   = "slow"   // more than a minute
	labelLosses = "losses" // kills parts of the install, runs alone
)

// Bounds. They are for two busy cores: a spec that meets one is broken, not slow.
const (
	readyBound    = 3 * time.Minute        // an install, from nothing
	goneBound     = 2 * time.Minute        // a namespace, from its deletion
	planBound     = 4 * time.Minute        // the runs of one spec
	slowPlanBound = 5 * time.Minute        // of a slow one
	waitForWorker = "FFPOD_WAIT=100s"      // of a session, behind those of other specs
	promptBound   = 10 * time.Second       // what must happen at once; looking takes most of it
	lossBound     = 45 * time.Second       // from the loss of a part to the end of the shim
	jobTruthBound = 30 * time.Second       // a Job's status is some seconds behind its pod
	calmBound     = 60 * time.Second       // until nothing of a load is left
	pollInterval  = 250 * time.Millisecond // of Eventually

	stall     = 90 * time.Second // of a stalled consumer
	slowRate  = 64 << 10         // bytes per second of a slow consumer
	slowSpan  = 70 * time.Second // of a slow consumer
	crowdSize = 50               // concurrent sessions
)

// Namespaces.
const (
	namespace = "ffpod-e2e"
	stranger  = "ffpod-e2e-stranger" // has nothing of ffpod
)
