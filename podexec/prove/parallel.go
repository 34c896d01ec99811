package prove

import (
	"context"
	"slices"
	"sync"
)

// Encodes tells whether a hardware encoder passed.
func (r Report) Encodes() bool { return r.encoding != nil }

// Parallel counts how many of n hardware encodes pass that run at once for two
// seconds: drivers bound their sessions. 0: no hardware encoder works, or the
// context ended.
func (r Report) Parallel(ctx context.Context, conf Config, n int) int {
	if r.encoding == nil {
		return 0
	}
	conf = conf.defaults()
	args := slices.Concat(quiet(), []string{"-nostdin", "-re", "-f", "lavfi", "-i", "testsrc2=s=" + frameSize + ":r=25:d=2"}, r.encoding, []string{"-f", "null", "-"})
	outcomes := make([]Outcome, n)
	var running sync.WaitGroup
	for i := range outcomes {
		running.Go(func() { outcomes[i] = conf.Run(ctx, Command{Args: args, Within: conf.Within}) })
	}
	running.Wait()
	if ctx.Err() != nil {
		return 0
	}
	passed := 0
	for _, o := range outcomes {
		if o.failure() == nil {
			passed++
		}
	}
	return passed
}

// Keep carries over what worked before and now only found the device in use. A
// worker that serves sessions uses it after a second proof.
func (r Report) Keep(before Report) Report {
	kept := Report{Capabilities: slices.Clone(r.Capabilities), encoding: r.encoding}
	if kept.encoding == nil {
		kept.encoding = before.encoding
	}
	for _, f := range r.Flaws {
		if exhausted(f.Reason) && slices.Contains(before.Capabilities, f.Capability) {
			kept.Capabilities = append(kept.Capabilities, f.Capability)
			continue
		}
		kept.Flaws = append(kept.Flaws, f)
	}
	slices.Sort(kept.Capabilities)
	return kept
}
