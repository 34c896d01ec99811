package supervisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/podexec/buildid"
	"github.com/ffpod/ffpod/podexec/prove"
	"github.com/ffpod/ffpod/podexec/wire"
)

const (
	// proverPoll is the time between looks for what is due.
	proverPoll = time.Second
	// proverSlow is the time between looks at devices, and at NVIDIA's utilisation.
	proverSlow = 10 * time.Second
	// proverOnce is how long a once worker waits for its session before it proves
	// itself: that of a Job comes at once and must not find the GPU in use.
	proverOnce = 3 * time.Second
	// proverTrouble is the least time between proofs that a device error asks for:
	// a caller may name a device that never existed, in every session.
	proverTrouble = 2 * time.Minute
	// proverLost is the time between proofs while hardware that worked does not: no
	// session comes whose error would ask for one when it works again.
	proverLost = 30 * time.Second
	// proverOrder is the least time between proofs that orders ask for.
	proverOrder = 5 * time.Second
)

// prover keeps what the worker's ffmpeg has proved. One goroutine, work, runs all
// trials, one after the other, beside the sessions.
type prover struct {
	worker  *Supervisor
	run     func(context.Context, prove.Command) prove.Outcome
	root    string // where dev and sys are
	devices func() []string
	within  time.Duration // bound of a trial; 0: prove's own
	wait    time.Duration // proverOnce
	slow    time.Duration // proverSlow
	lost    time.Duration // proverLost
	wake    chan struct{} // has a token when due has changed

	mu       sync.Mutex
	now      proved
	known    bool // now has an answer
	proving  bool
	due      time.Time // of the next proof; zero: none
	ended    time.Time // of the last one
	key      string    // of now
	worked   []string  // capabilities that any proof with this key had
	before   map[string]proved
	measured context.CancelFunc // ends the count of parallel encodes; nil: none runs
	smi      smiSample          // of NVIDIA's GPUs
}

// proved is what is kept of a proof.
type proved struct {
	report   prove.Report
	parallel int // encodes at once; 0: not known
}

func newProver(s *Supervisor) *prover {
	p := &prover{worker: s, root: "/", devices: devices, wait: proverOnce, slow: proverSlow, lost: proverLost, wake: make(chan struct{}, 1), before: map[string]proved{}}
	p.proving = s.conf.FFmpeg != "" && !s.conf.Once && !s.conf.Unproved
	p.run = func(ctx context.Context, c prove.Command) prove.Outcome {
		return s.children.trial(ctx, s.conf.FFmpeg, environment(os.Environ(), nil), c)
	}
	return p
}

func (p *prover) conf() prove.Config { return prove.Config{Run: p.run, Root: p.root, Within: p.within} }

// work proves until ctx ends; a once worker only until its session comes.
func (p *prover) work(ctx context.Context) {
	if p.worker.conf.FFmpeg == "" || p.worker.conf.Unproved {
		return
	}
	first := p.wait
	if p.worker.conf.Once {
		var session sync.WaitGroup
		defer session.Wait()
		until, cancel := context.WithCancel(ctx)
		defer cancel()
		session.Go(func() {
			select {
			case <-p.worker.first:
				cancel()
			case <-until.Done():
			}
		})
		ctx = until
	} else {
		first = 0
	}
	p.ask(first)
	poll, slow := time.NewTicker(proverPoll), time.NewTicker(p.slow)
	defer poll.Stop()
	defer slow.Stop()
	for {
		p.next(ctx)
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-poll.C:
		case <-slow.C:
			p.smiLook(ctx)
			if p.keyed() != p.lastKey() {
				p.ask(0)
			}
		}
	}
}

// ask makes a proof due within a time, if none is due before.
func (p *prover) ask(within time.Duration) {
	p.mu.Lock()
	if at := time.Now().Add(within); p.due.IsZero() || at.Before(p.due) {
		p.due = at
	}
	p.mu.Unlock()
	p.rouse()
}

func (p *prover) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next does what is due.
func (p *prover) next(ctx context.Context) {
	p.mu.Lock()
	due := !p.due.IsZero() && !time.Now().Before(p.due)
	if due {
		p.due, p.proving = time.Time{}, true
	}
	count := p.known && p.now.parallel == 0 && p.now.report.Encodes()
	p.mu.Unlock()
	switch {
	case due:
		p.prove(ctx)
	case count:
		p.count(ctx)
	}
}

// prove runs the trials, or takes their result from before when the devices are
// those of then and nobody asked for new ones.
func (p *prover) prove(ctx context.Context) {
	key, begun := p.keyed(), time.Now()
	p.mu.Lock()
	old, asked := p.now, key == p.key
	again, cached := p.before[key]
	p.mu.Unlock()
	if cached && !asked {
		p.settle(key, again)
		return
	}
	conf := p.conf()
	conf.Listed = func(r prove.Report) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.known {
			p.now, p.known = proved{report: r}, true
		}
	}
	report, err := prove.Prove(ctx, conf)
	if err != nil { // the worker ends, or the session of a once worker came
		p.mu.Lock()
		p.now, p.known, p.proving = old, len(old.report.Capabilities) > 0, false
		p.mu.Unlock()
		return
	}
	if asked && p.worker.slots.inUse() > 0 {
		report = report.Keep(old.report)
	}
	p.settle(key, proved{report: report})
	p.worker.conf.Log.Info("worker proved its ffmpeg", zap.Int("capabilities", len(report.Capabilities)), zap.Int("flaws", len(report.Flaws)),
		zap.Int64("ms", time.Since(begun).Milliseconds()))
}

func (p *prover) settle(key string, now proved) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.parallel == 0 && key == p.key && now.report.Encodes() {
		now.parallel = p.now.parallel // until it is counted again
	}
	if key != p.key {
		p.worked = nil
	}
	p.worked = slices.Compact(slices.Sorted(slices.Values(slices.Concat(p.worked, now.report.Capabilities))))
	p.now, p.key, p.known, p.proving, p.ended = now, key, true, false, time.Now()
	p.before[key] = now
	if len(p.worked) > len(now.report.Capabilities) && p.due.IsZero() {
		p.due = p.ended.Add(p.lost)
	}
}

// count finds out how many encodes pass at once, while no session runs: it would
// take from the sessions that the driver allows.
func (p *prover) count(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	if p.worker.slots.inUse() > 0 {
		p.mu.Unlock()
		return
	}
	p.measured = cancel
	report := p.now.report
	p.mu.Unlock()
	n := 1 // it passed alone
	if slots := p.worker.conf.Slots; slots > 1 {
		n = report.Parallel(ctx, p.conf(), slots)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.measured = nil
	if ctx.Err() == nil {
		p.now.parallel = max(1, n)
		p.before[p.key] = p.now
	}
}

// disturb ends a count of parallel encodes: a session has come.
func (p *prover) disturb() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.measured != nil {
		p.measured()
	}
}

// troubled is told of a device error in a session's stderr: what was proved may not
// be true any more.
func (p *prover) troubled(words string) {
	p.mu.Lock()
	wait := time.Until(p.ended.Add(proverTrouble))
	p.mu.Unlock()
	p.worker.conf.Log.Warn("a session met a device error: the hardware is proved again", zap.String("error", words), zap.Duration("in", max(0, wait)))
	p.ask(max(0, wait))
}

// lastKey and keyed tell of what a proof is true: the program, the devices, and
// their driver as far as it can be read.
func (p *prover) lastKey() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.key
}

func (p *prover) keyed() string {
	build, _ := buildid.Of(p.worker.conf.FFmpeg)
	parts := append([]string{build}, p.devices()...)
	for _, name := range []string{"proc/sys/kernel/osrelease", "proc/driver/nvidia/version"} {
		b, _ := os.ReadFile(filepath.Join(p.root, name))
		parts = append(parts, string(b))
	}
	return strings.Join(parts, "\x00")
}

// tell fills in what Describe says of it, without the lists that the caller knows:
// they are long, and every worker is asked all the time.
func (p *prover) tell(d *wire.Description, known string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.Proves, d.Proving, d.ParallelEncodes = p.known || p.proving, p.proving, uint32(p.now.parallel)
	if !p.known {
		return
	}
	if d.Profile = p.now.report.Name(); d.Profile == known {
		return
	}
	d.Capabilities = slices.Clone(p.now.report.Capabilities)
	for _, f := range p.now.report.Flaws {
		d.Flaws = append(d.Flaws, &wire.Flaw{Capability: f.Capability, Reason: f.Reason})
	}
}

// order is what Prove asks for.
func (p *prover) order() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.worker.conf.FFmpeg == "":
		return errors.New("it has no ffmpeg")
	case p.worker.conf.Unproved:
		return errors.New("it was told to prove nothing (FFPOD_TRIALS)")
	case p.worker.conf.Once && closed(p.worker.first):
		return errors.New("it serves its one session")
	case p.proving && p.due.IsZero():
		return nil // they run
	case time.Since(p.ended) < proverOrder:
		return errors.New("its trials have just ended")
	}
	p.proving, p.due = true, time.Now()
	p.rouse()
	return nil
}

// Prove implements wire.SupervisorServer.
func (s *Supervisor) Prove(context.Context, *wire.ProveRequest) (*wire.ProveResponse, error) {
	if err := s.prover.order(); err != nil {
		return &wire.ProveResponse{Reason: "worker " + s.conf.Pod + " runs no trials: " + err.Error()}, nil
	}
	return &wire.ProveResponse{Started: true}, nil
}
