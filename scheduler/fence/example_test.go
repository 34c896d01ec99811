package fence_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ffpod/ffpod/scheduler/fence"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// What a scheduler does with the table: a playback, and the seek that ends it.
func Example() {
	table := fence.New()
	ctx := context.Background()
	now := time.Now()

	// After parse: claim. The older ones are ended at once, whether they wait, start
	// or run; the queue goes on meanwhile.
	admit := func(s fence.Session, kill func(fence.Holder)) {
		older, err := table.Claim(s)
		if err != nil {
			fmt.Println(err) // Refused DUPLICATE
		}
		for _, o := range older {
			kill(o)
		}
	}
	admit(fence.Session{ID: "first", Owner: "media/jellyfin", Keys: []string{"/cache/x"}, Asked: now}, nil)

	// Within the queue's phase, before a place is granted: wait. What it says goes to
	// the shim as Progress.
	if err := table.Wait(ctx, "first", func(reason string) { fmt.Println("first:", reason) }); err != nil {
		fmt.Println(err)
	}
	// Before Start is sent: say where, so that a successor knows whom to tell.
	table.Placed("first", lease.Worker{Pod: "ffpod-cpu-1"})
	ended := make(chan struct{})
	go func() { // beside the relay, for as long as the session lasts
		defer close(ended)
		<-table.Superseded("first") // not started: cancel it, Refused FENCED; else Kill, grace 0, cause FENCED
		table.Free("first")         // at the Exit, at dead=true, at a refusal, when the pod is gone
		// Lost instead: table.Until("first", time.Now().Add(grace))
	}()

	killed := make(chan fence.Holder, 1)
	admit(fence.Session{ID: "seek", Owner: "media/jellyfin", Keys: []string{"/cache/x"}, Asked: now.Add(time.Second)},
		func(o fence.Holder) { killed <- o })
	fmt.Println("kill", (<-killed).Session)
	switch err := table.Wait(ctx, "seek", nil); {
	case errors.Is(err, fence.ErrSuperseded):
		fmt.Println("refused: FENCED")
	case err == nil:
		fmt.Println("seek starts")
	}
	<-ended
	table.Free("seek")

	// Output:
	// kill first
	// seek starts
}

// Fence.Clear: a writer in the caller's own pod claims as any other does, and is
// gone again when the way is free: its pod's registry keeps it from then on.
func Example_clear() {
	table := fence.New()
	clearWay := func(ctx context.Context, owner string, keys []string, id string) error {
		older, err := table.Claim(fence.Session{ID: id, Owner: owner, Keys: keys, Asked: time.Now()})
		if err != nil {
			return err
		}
		defer table.Free(id)
		for range older { // kill, as above
		}
		return table.Wait(ctx, id, nil)
	}
	fmt.Println(clearWay(context.Background(), "media/jellyfin", []string{"/cache/x"}, "clear-1"))
	// Output: <nil>
}

// After a restart: whatever the workers' Describe tells is adopted, in any order,
// also while newcomers wait.
func ExampleTable_Adopt() {
	table := fence.New()
	record := fence.Session{ID: "before", Owner: "media/jellyfin", Keys: []string{"/cache/x"}, Asked: time.Now().Add(-time.Minute)}
	worker := lease.Worker{Pod: "ffpod-cpu-1", Nonce: "n"}
	fmt.Println("kill:", table.Adopt(record, worker))
	older, _ := table.Claim(fence.Session{ID: "after", Owner: "media/jellyfin", Keys: []string{"/cache/x"}, Asked: time.Now()})
	fmt.Println("kill:", older[0].Session, "on", older[0].Worker.Pod)
	// Output:
	// kill: false
	// kill: before on ffpod-cpu-1
}
