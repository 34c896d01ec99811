package standby

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ffpod/ffpod/scheduler/channels"
	"github.com/ffpod/ffpod/scheduler/class"
	"github.com/ffpod/ffpod/scheduler/job"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// Config of a Maker.
type Config struct {
	// List returns the classes that exist.
	List func() []class.Class
	Jobs *job.Launcher
	// Unplaced lists the classes whose warm workers get no node. Defaults to none.
	Unplaced func() []string
	// Log defaults to none.
	Log *zap.Logger
	// Every is how often the standbys are looked at; while something is on its way
	// it is done five times as often. Defaults to 5 s.
	Every time.Duration
}

// Maker makes and retires the standbys of one namespace. Its methods may be called
// from any goroutine.
type Maker struct {
	config Config
	wake   chan struct{}

	// Of Run alone.
	refused  map[string]time.Time // by class
	replicas map[string]int32     // warm workers wanted, by class
	freed    time.Time
	some     bool // there may be some
}

// New makes a Maker, which does nothing until Run.
func New(c Config) *Maker {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	c.Every = cmp.Or(c.Every, 5*time.Second)
	return &Maker{config: c, wake: make(chan struct{}, 1), refused: map[string]time.Time{}, replicas: map[string]int32{}, some: true}
}

// Free lists the workers of standbys that can be taken now. It asks nobody.
func (m *Maker) Free() []channels.WorkerState { return m.config.Jobs.Free() }

// Take leases a standby for a session that is to be started, and has another one
// made. The error is channels.ErrFull or channels.ErrGone: look at Free again.
func (m *Maker) Take(pod, nonce, session string) (*lease.Lease, error) {
	defer m.poke()
	return m.config.Jobs.Take(pod, nonce, session)
}

func (m *Maker) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run makes and retires until ctx is done. Those that are then there are left to the
// next scheduler, or end by themselves. It is called once.
func (m *Maker) Run(ctx context.Context) error {
	for {
		busy, err := m.look(ctx)
		if err != nil && ctx.Err() == nil {
			m.config.Log.Warn("the standby Jobs cannot be looked at; trying again", zap.Error(err))
		}
		pause := m.config.Every
		if busy {
			pause /= 5
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// look plans once and carries it out. busy: more is to be done soon.
func (m *Maker) look(ctx context.Context) (busy bool, err error) {
	classes := m.config.List()
	if !m.config.Jobs.Ready() || !m.some && !slices.ContainsFunc(classes, func(c class.Class) bool { return c.Standby.Max > 0 }) {
		return !m.config.Jobs.Ready(), nil
	}
	all, err := m.config.Jobs.Standbys(ctx)
	if err != nil {
		return false, err
	}
	m.some = len(all) > 0
	m.observe(classes)
	now := time.Now()
	for _, c := range m.withLost(classes, all) {
		own := slices.DeleteFunc(slices.Clone(all), func(s job.Standby) bool { return s.Class != c.Name })
		for _, a := range Plan(c, own, m.demand(c, classes, now), now) {
			busy = true
			err = errors.Join(err, m.act(ctx, c, a))
		}
		busy = busy || slices.ContainsFunc(own, func(s job.Standby) bool { return !s.Ready && !s.Taken && !s.Over })
	}
	return busy, err
}

// withLost adds the classes that are gone but for their standbys.
func (m *Maker) withLost(classes []class.Class, all []job.Standby) []class.Class {
	out := slices.Clone(classes)
	for _, s := range all {
		if !slices.ContainsFunc(out, func(c class.Class) bool { return c.Name == s.Class }) {
			out = append(out, class.Class{Name: s.Class})
		}
	}
	return out
}

// observe sees warm workers go.
func (m *Maker) observe(classes []class.Class) {
	now := map[string]int32{}
	for _, c := range classes {
		if now[c.Name] = c.Replicas; c.Replicas < m.replicas[c.Name] {
			m.freed = time.Now()
		}
	}
	m.replicas = now
}

func (m *Maker) demand(c class.Class, classes []class.Class, now time.Time) Demand {
	d := Demand{Starts: m.config.Jobs.Starts(c.Name, now.Add(-Window)), Jobs: m.config.Jobs.Active(c.Name), Refused: m.refused[c.Name], Freed: m.freed}
	if ended := m.config.Jobs.Ended(); ended.After(d.Freed) {
		d.Freed = ended
	}
	unplaced := m.config.Jobs.Unplaced()
	if m.config.Unplaced != nil {
		unplaced = append(unplaced, m.config.Unplaced()...)
	}
	for _, name := range unplaced {
		for _, other := range classes {
			if other.Name == name && rivals(c, other) {
				d.Blocked = "a worker of class " + name
			}
		}
	}
	return d
}

// rivals reports whether pods of the two classes want the same devices; without any
// they share processors and memory, as all do.
func rivals(a, b class.Class) bool {
	held := b.Holds()
	return len(held) == 0 || slices.ContainsFunc(a.Holds(), func(d string) bool { return slices.Contains(held, d) })
}

func (m *Maker) act(ctx context.Context, c class.Class, a Action) error {
	if a.Make {
		m.some = true
		err := m.config.Jobs.MakeStandby(ctx, c)
		if err != nil {
			m.refused[c.Name] = time.Now()
			return err
		}
		m.config.Log.Info("standby made", zap.String("class", c.Name), zap.String("why", a.Why))
		return nil
	}
	if !m.config.Jobs.Retire(ctx, a.Standby) {
		return nil // a session came first
	}
	if a.Refused {
		m.refused[c.Name] = time.Now()
	}
	m.config.Log.Info("standby retired", zap.String("class", a.Standby.Class), zap.String("job", a.Standby.Job), zap.String("why", a.Why))
	return nil
}
