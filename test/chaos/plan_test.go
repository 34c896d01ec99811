package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlanIsAFunctionOfItsSeed(t *testing.T) {
	a, b := plan(7, 300, faults()), plan(7, 300, faults())
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("two plans of one seed differ (-first +second):\n%s", diff)
	}
	if cmp.Equal(a, plan(8, 300, faults())) {
		t.Error("two seeds give one plan")
	}
	if diff := cmp.Diff(a[:100], plan(7, 100, faults())); diff != "" {
		t.Errorf("a short plan is not the beginning of a long one (-long +short):\n%s", diff)
	}
}

func TestPlanHasEverything(t *testing.T) {
	type pair struct {
		fault string
		at    moment
	}
	seen, casts := map[pair]bool{}, map[kind]map[moment]bool{}
	for _, s := range plan(1, 512, faults()) {
		if len(s.Cast) == 0 {
			t.Fatalf("scene %d has nobody in it", s.Number)
		}
		for _, c := range s.Cast {
			seen[pair{s.Fault, c.Moment}] = true
			if casts[c.Kind] == nil {
				casts[c.Kind] = map[moment]bool{}
			}
			casts[c.Kind][c.Moment] = true
			if !slices.Contains(moments[c.Kind], c.Moment) {
				t.Errorf("scene %d: kind %s has no moment %s", s.Number, c.Kind, c.Moment)
			}
		}
	}
	for _, f := range faults() {
		all := []moment{queued, starting, first, mid, last, exited, idle}
		for _, m := range f.momentsOr(all) {
			possible := slices.ContainsFunc(f.kindsOr(kinds), func(k kind) bool { return slices.Contains(moments[k], m) })
			if possible && (f.scope == ofSession || f.kinds == nil) && !seen[pair{f.name, m}] {
				t.Errorf("%s never strikes a session at %s", f.name, m)
			}
		}
	}
	for k, at := range moments {
		for _, m := range at {
			if !casts[k][m] {
				t.Errorf("no session of kind %s is ever at %s", k, m)
			}
		}
	}
}

// The first scenes are what a short run has.
func TestShortPlanHasTheCommonFaults(t *testing.T) {
	have := map[string]bool{}
	for _, s := range plan(1, 48, faults()) {
		have[s.Fault] = true
	}
	for _, f := range faults() {
		if f.common && !have[f.name] {
			t.Errorf("a short run has no %s", f.name)
		}
	}
}

func TestPlanOfChosenFaults(t *testing.T) {
	for name, want := range map[string]int{"shim-kill": 5, "scheduler-kill": 5, "no such": 0} {
		chosen := slices.DeleteFunc(faults(), func(f fault) bool { return f.name != name })
		if got := plan(1, 5, chosen); len(got) != want {
			t.Errorf("%s: %d scenes, want %d", name, len(got), want)
		}
	}
}
