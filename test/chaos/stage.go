package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// stage plays scenes.
type stage struct {
	world *world
	book  *book
	logs  string // directory for what explains a bad scene
}

// play plays one scene, and again when the fault came too late for it: a machine that
// is busy with another scene's can be slower than a session's whole life.
func (g *stage) play(ctx context.Context, sc scene) Scene {
	report, late := g.playOnce(ctx, sc)
	if late {
		report, _ = g.playOnce(ctx, sc)
	}
	return report
}

// playOnce brings everybody to their moment, strikes, awaits the end of all, and
// counts what is left.
func (g *stage) playOnce(ctx context.Context, sc scene) (report Scene, late bool) {
	w, f := g.world, find(sc.Fault)
	var all []*session
	for i, c := range sc.Cast {
		s := w.script(c, fmt.Sprintf("s%d.%d", sc.Number, i))
		if f.name == "memory-hog" {
			s.class = "hog"
		}
		if f.mode != "" {
			s.mode = f.mode
		}
		if s.act != nil && f.expect == die { // only KILL ends it
			s.act.Deaf = true
			s.argv = s.act.Argv()
		}
		all = append(all, s)
	}
	if slices.ContainsFunc(sc.Cast, func(c cast) bool { return c.Moment == queued }) {
		w.narrow.Lock()
		defer w.narrow.Unlock()
		holder := w.script(cast{Kind: stdout, Moment: beside, Seed: uint64(sc.Number)}, fmt.Sprintf("s%d.h", sc.Number))
		holder.class = "narrow"
		all = append([]*session{holder}, all...)
	}
	report = Scene{Number: sc.Number, Fault: sc.Fault, At: time.Now().Format(time.RFC3339)}
	targets, err := assemble(ctx, all)
	struck, healed := time.Now(), time.Now()
	if err == nil {
		struck, healed, err = strikeThem(ctx, w, f, targets)
	}
	if err != nil && ctx.Err() == nil {
		report.Undone = err.Error()
		late = errors.Is(err, errEnded) || errors.Is(err, errTooSlow)
	}
	report.FaultMs = ms(healed.Sub(struck))
	for _, s := range all {
		if s.Moment == idle {
			s.missed = s.start()
		}
	}
	for _, s := range all {
		s.afterHealing()
		if s.successor != nil {
			all = append(all, s.successor)
		}
	}
	finish(ctx, all, healed)
	report.Orphans = g.left(ctx, f, all, healed)
	report.Overlaps = w.overlaps(sc.Number)
	for _, s := range all {
		if s.proc != nil {
			report.Sessions = append(report.Sessions, s.report(f, struck, healed))
		}
	}
	if report.bad() || report.Undone != "" {
		g.explain(ctx, report, struck)
	}
	for _, s := range all {
		_ = os.RemoveAll(w.hostPath(s.dir))
	}
	return report, late && !report.bad()
}

var errTooSlow = errors.New("too slow")

// assemble brings the sessions to their moments, those that can wait there first,
// and returns those that are there when the fault strikes.
func assemble(ctx context.Context, all []*session) (present []*session, err error) {
	bounded, cancel := context.WithTimeoutCause(ctx, armBound, errTooSlow)
	defer cancel()
	waits := func(s *session) int {
		switch {
		case s.Moment == idle:
			return -1
		case s.Moment == starting:
			return 3
		case s.Moment == first:
			return 2
		case s.Moment == mid && s.Kind != blocked && s.Kind != job:
			return 1
		}
		return 0
	}
	for turn := range 4 {
		var group []*session
		for _, s := range all {
			if waits(s) == turn {
				group = append(group, s)
			}
		}
		slices.SortStableFunc(group, func(a, b *session) int { // who is queued comes behind who holds
			return rank(a) - rank(b)
		})
		for _, s := range group {
			if err := s.start(); err != nil {
				return nil, err
			}
			if s.Moment == beside {
				s.missed = s.arrive(bounded)
			}
		}
		sideBySide(group, func(s *session) {
			if s.missed == nil {
				s.missed = s.arrive(bounded)
			}
		})
		present = append(present, group...)
	}
	if len(present) > 0 && !slices.ContainsFunc(present, func(s *session) bool { return s.missed == nil }) {
		return nil, fmt.Errorf("nobody came to their moment: %w", present[0].missed)
	}
	return present, nil
}

func rank(s *session) int {
	if s.Moment == queued {
		return 1
	}
	return 0
}

// strikeThem injects the fault.
func strikeThem(ctx context.Context, w *world, f fault, at []*session) (struck, healed time.Time, err error) {
	// The one that a fault of one session is for comes first; a holder is not it.
	slices.SortStableFunc(at, func(a, b *session) int { return own(a) - own(b) })
	if len(at) > 0 {
		lasting(ctx, time.Duration(at[0].Jitter)*time.Millisecond)
	}
	bounded, cancel := context.WithTimeout(ctx, promptly)
	defer cancel()
	for _, s := range at {
		if s.Moment == exited && s.missed == nil {
			s.missed = s.toExit(bounded)
		}
	}
	for _, s := range at {
		s.find()
		if s.Moment == last || s.Moment == mid || s.Moment == first {
			s.cue()
		}
	}
	struck = time.Now()
	timer := time.AfterFunc(200*time.Millisecond, func() {
		for _, s := range at {
			s.afterStrike()
		}
	})
	healed, err = f.strike(ctx, w, at)
	if timer.Stop() { // healed so soon
		for _, s := range at {
			s.afterStrike()
		}
	}
	return struck, healed, err
}

func own(s *session) int {
	if s.Moment == beside {
		return 1
	}
	return 0
}

// finish waits for every session's end; who does not end is killed, and says so by
// having no end.
func finish(ctx context.Context, all []*session, healed time.Time) {
	bound := time.NewTimer(time.Until(healed.Add(hangBound)))
	defer bound.Stop()
	late := false
	for _, s := range all {
		if s.proc == nil {
			continue
		}
		if !late {
			select {
			case <-s.ended:
				continue
			case <-bound.C:
				late = true
			case <-ctx.Done():
				late = true
			}
		}
		select {
		case <-s.ended:
			continue
		default:
		}
		_ = s.proc.Kill()
		<-s.ended
		s.over = time.Time{}
	}
}

// left waits until no program of the sessions lives, and names, and ends, those
// that live beyond their bound.
func (g *stage) left(ctx context.Context, f fault, all []*session, healed time.Time) (orphans []string) {
	bound := promptly
	if f.orphan > 0 {
		bound = f.orphan
	}
	for _, s := range all {
		if s.proc == nil {
			continue
		}
		since := s.over
		if healed.After(since) {
			since = healed
		}
		err := until(ctx, max(time.Until(since.Add(bound)), time.Millisecond), 50*time.Millisecond, func() bool {
			return len(g.world.census.marked(s.needle())) == 0
		})
		if err == nil {
			s.deaths.Wait()
			continue
		}
		for _, p := range g.world.census.marked(s.needle()) {
			orphans = append(orphans, fmt.Sprintf("%s: process %d in pod %s, %s after its shim", s.mark, p.pid, p.pod, time.Since(s.over).Round(time.Millisecond)))
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		s.deaths.Wait()
	}
	return orphans
}
