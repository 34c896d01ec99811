package main

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// A scope says whom a fault concerns, and thereby what may run beside it.
type scope int

const (
	ofSession scope = iota // one session: others run beside it
	ofInstall              // all sessions: it runs alone
	ofCluster              // everybody on the machine's cluster
)

// An expectation is what must become of sessions that run when the fault strikes.
type expectation string

const (
	survive expectation = "survive" // exact, as if nothing had been
	told    expectation = "told"    // the fault ends the program; how is its exit
	fail    expectation = "fail"    // lost, and said so
	either  expectation = "either"
	die     expectation = "die" // the caller's shim itself is killed
)

// A fault is one way to break something.
type fault struct {
	name    string
	scope   scope
	expect  expectation
	common  bool     // among the first in a run
	crowd   bool     // strikes many sessions at once
	mode    mode     // of the sessions that it strikes; empty: remote
	moments []moment // nil: all
	kinds   []kind   // nil: all
	// orphan is how long a session's process may outlive its shim; 0: promptly.
	orphan time.Duration
	// strike does it and returns when what was broken is whole again.
	strike func(ctx context.Context, w *world, at []*session) (healed time.Time, err error)
}

func (f fault) kindsOr(all []kind) []kind {
	if f.kinds != nil {
		return f.kinds
	}
	return all
}

func (f fault) momentsOr(all []moment) []moment {
	if f.moments != nil {
		return f.moments
	}
	return all
}

// Bounds.
const (
	grace       = 30 * time.Second // of the overlay's configuration
	promptly    = 5 * time.Second  // from a shim's death to its program's, all parts up
	afterGrace  = grace + 45*time.Second
	hangBound   = grace + 75*time.Second // from the healing to the end of each session
	armBound    = 40 * time.Second
	healBound   = 90 * time.Second
	silence     = 150 * time.Millisecond // of a paced stream: it was cut
	sessionSpan = 3 * time.Second        // of a paced session
)

var (
	connected = []moment{queued, starting, first, mid, last, exited}
	running   = []moment{first, mid, last}
	writing   = []moment{starting, mid, last}
	writers   = []kind{file}
)

// faults is everything that can be done to an install.
func faults() []fault {
	all := []fault{
		{name: "shim-rst", expect: survive, moments: connected, strike: resetShim},
		{name: "shim-rst-far", expect: survive, moments: connected, strike: resetShimFar},
		// Only the scheduler sees this one at once; to it, such a shim is dead.
		{name: "shim-rst-half", expect: either, moments: connected, strike: blockShim("reject with tcp reset", 300*time.Millisecond)},
		{name: "shim-drop-2s", expect: survive, moments: connected, strike: blockShim("drop", 2*time.Second)},
		{name: "shim-drop-6s", expect: survive, moments: connected, strike: blockShim("drop", 6*time.Second)},
		{name: "shim-drop-15s", expect: survive, moments: connected, strike: blockShim("drop", 15*time.Second)},
		{name: "shim-kill", expect: die, moments: connected, strike: signalShim(syscall.SIGKILL)},
		{name: "shim-term", expect: told, moments: connected, strike: signalShim(syscall.SIGTERM)},
		{name: "shim-stop-5s", expect: survive, moments: connected, strike: pauseShim(5 * time.Second)},
		{name: "ffmpeg-kill", expect: told, moments: running, strike: killProgram},
		{name: "takeover", expect: die, moments: writing, kinds: writers, strike: takeOver(remote)},
		{name: "takeover-by-local", expect: die, moments: writing, kinds: writers, strike: takeOver(local)},
		{name: "takeover-of-local", expect: die, moments: writing, kinds: writers, mode: local, strike: takeOver(remote)},
	}
	install := []fault{
		{name: "scheduler-kill", common: true, expect: survive, strike: killScheduler},
		{name: "scheduler-restart", common: true, expect: survive, crowd: true, strike: restartScheduler},
		{name: "scheduler-delete", expect: survive, strike: deleteScheduler(10)},
		{name: "scheduler-delete-now", expect: survive, strike: deleteScheduler(0)},
		{name: "scheduler-stop-5s", expect: survive, strike: pauseScheduler(5 * time.Second)},
		{name: "scheduler-stop-12s", expect: survive, strike: pauseScheduler(12 * time.Second)},
		{name: "dial-kill", common: true, expect: survive, strike: killDials},
		{name: "clients-drop-2s", expect: survive, strike: blockClients(2 * time.Second)},
		{name: "clients-drop-6s", expect: survive, strike: blockClients(6 * time.Second)},
		{name: "clients-drop-15s", expect: survive, strike: blockClients(15 * time.Second)},
		{name: "clients-drop-30s", expect: either, orphan: afterGrace, strike: blockClients(30 * time.Second)},
		{name: "channel-rst", expect: survive, strike: resetChannels},
		{name: "channel-drop-6s", expect: survive, strike: blockChannels(6 * time.Second)},
		{name: "channel-drop-15s", expect: survive, strike: blockChannels(15 * time.Second)},
		{name: "supervisor-kill", common: true, expect: fail, strike: killSupervisor},
		{name: "worker-delete", common: true, expect: told, strike: deleteWorkers(10)},
		{name: "worker-delete-now", expect: fail, strike: deleteWorkers(0)},
		{name: "worker-evict", expect: told, strike: evictWorkers},
		{name: "job-delete", expect: fail, kinds: []kind{job}, moments: []moment{starting, first, mid, last}, strike: deleteJobs},
		{name: "memory-hog", expect: survive, kinds: []kind{stdout}, moments: []moment{mid, mid, mid}, strike: hogMemory},
		{name: "scheduler-kill-takeover", expect: die, kinds: writers, moments: []moment{mid, mid, last}, strike: takeOverAfter(killScheduler)},
		{name: "channel-rst-takeover", expect: die, kinds: writers, moments: []moment{mid, mid, last}, strike: takeOverAfter(resetChannels)},
		{name: "scheduler-and-shims-kill", expect: die, orphan: afterGrace, strike: both(killScheduler, signalShims(syscall.SIGKILL))},
		{name: "channel-and-shims-kill", expect: die, orphan: afterGrace, strike: both(resetChannels, signalShims(syscall.SIGKILL))},
	}
	cluster := []fault{
		{name: "apiserver-kill", common: true, expect: survive, strike: killPart("apiserver", 0)},
		{name: "apiserver-kill-10s", expect: survive, strike: killPart("apiserver", 10*time.Second)},
		{name: "apiserver-restart", expect: survive, strike: restartPart("apiserver")},
		{name: "kubelet-restart-workers", common: true, expect: survive, strike: restartPart("node2/kubelet")},
		{name: "kubelet-kill-20s-workers", expect: survive, strike: killPart("node2/kubelet", 20*time.Second)},
		{name: "kubelet-restart-clients", expect: survive, strike: restartPart("node1/kubelet")},
		{name: "containerd-restart-workers", common: true, expect: survive, strike: restartPart("node2/containerd")},
		{name: "containerd-kill-workers", expect: survive, strike: killPart("node2/containerd", time.Second)},
		{name: "containerd-restart-clients", expect: survive, strike: restartPart("node1/containerd")},
		{name: "kubelet-link-rst", expect: survive, strike: resetKubeletLinks},
		{name: "etcd-stop-5s", expect: survive, strike: pausePart("etcd", 5*time.Second)},
		{name: "node-cut-6s", common: true, expect: survive, strike: cutNode("node2", 6*time.Second)},
		{name: "node-cut-15s", expect: survive, strike: cutNode("node2", 15*time.Second)},
		{name: "node-cut-32s", expect: either, orphan: afterGrace, strike: cutNode("node2", 32*time.Second)},
	}
	for _, f := range install {
		f.scope = ofInstall
		all = append(all, f)
	}
	for _, f := range cluster {
		f.scope = ofCluster
		all = append(all, f)
	}
	return all
}

func find(name string) fault {
	for _, f := range faults() {
		if f.name == name {
			return f
		}
	}
	return fault{}
}

type strike = func(ctx context.Context, w *world, at []*session) (time.Time, error)

// between is from one thing that breaks to the next, of faults that are two.
const between = 80 * time.Millisecond

// both does two things, the second while the first is still broken; whole again is
// when both are.
func both(a, b strike) strike {
	return func(ctx context.Context, w *world, at []*session) (time.Time, error) {
		type result struct {
			healed time.Time
			err    error
		}
		other := make(chan result, 1)
		go func() {
			healed, err := a(ctx, w, at)
			other <- result{healed, err}
		}()
		lasting(ctx, between)
		healed, err := b(ctx, w, at)
		r := <-other
		return later(healed, r.healed), errors.Join(r.err, err)
	}
}

// lasting keeps something up for a time, also when the run is being ended.
func lasting(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
