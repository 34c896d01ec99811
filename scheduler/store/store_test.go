package store_test

import (
	"testing"

	"github.com/ffpod/ffpod/scheduler/store"
	"github.com/ffpod/ffpod/scheduler/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, limit, history int) store.Store {
		return store.NewMemory(store.MemoryConfig{Limit: limit, History: history})
	})
}

// Every state is reached from asked, and every state but the final ones is left.
func TestStates(t *testing.T) {
	all := []store.State{store.Asked, store.Queued, store.Leased, store.Starting, store.Running, store.Ended, store.Lost, store.Refused}
	seen := map[store.State]bool{store.Asked: true}
	for range all {
		for _, from := range all {
			for _, to := range all {
				if seen[from] && from.May(to) {
					seen[to] = true
				}
			}
		}
	}
	for _, s := range all {
		leaves := false
		for _, to := range all {
			leaves = leaves || s.May(to)
		}
		if !seen[s] {
			t.Errorf("%s is never reached", s)
		}
		if leaves == s.Final() {
			t.Errorf("%s: final %v, leaves %v", s, s.Final(), leaves)
		}
	}
	// At most once: what may run never goes back silently.
	if store.Running.May(store.Queued) || store.Running.May(store.Refused) {
		t.Error("a running session could be placed again")
	}
}
