package stack_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// viewer plays a film: one segment after the other, each until it has come, as a
// player does that repeats its requests.
type viewer struct {
	name string
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	next   int
	errs   []string      // of requests that were repeated
	worst  time.Duration // that a segment took
	broken error         // a segment that never came, or is none
}

// patience is how long a segment may take: a pod that starts, and the channels to
// its workers.
const patience = 4 * time.Minute

// pause lies between segments: a film is watched, not copied.
const pause = 300 * time.Millisecond

func watch(ctx context.Context, name string, from int) *viewer {
	ctx, stop := context.WithCancel(ctx)
	v := &viewer{name: name, next: from, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(v.done)
		for ctx.Err() == nil && v.one(ctx) {
			select {
			case <-time.After(pause): // a film's own pace
			case <-ctx.Done():
			}
		}
	}()
	return v
}

func (v *viewer) one(ctx context.Context) bool {
	began := time.Now()
	for ctx.Err() == nil {
		err := segment(ctx, v.name, v.at())
		v.mu.Lock()
		if err == nil {
			v.next++
			v.worst = max(v.worst, time.Since(began))
			v.mu.Unlock()
			return true
		}
		v.errs = append(v.errs, err.Error())
		late := time.Since(began) > patience
		if late && ctx.Err() == nil {
			v.broken = fmt.Errorf("segment %d did not come within %s: %w", v.next, patience, err)
		}
		v.mu.Unlock()
		if late {
			return false
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	return false
}

func (v *viewer) at() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.next
}

// seek goes elsewhere in the film.
func (v *viewer) seek(to int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next = to
}

func (v *viewer) failure() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.broken
}

// end stops watching, and the player says so.
func (v *viewer) end(ctx context.Context) string {
	v.stop()
	<-v.done
	_, _ = kubectl(ctx, nil, "delete", "--raw", proxy+"/Videos/"+v.name)
	v.mu.Lock()
	defer v.mu.Unlock()
	return fmt.Sprintf("%s: at segment %d, worst wait %s, %d requests repeated", v.name, v.next, v.worst.Round(time.Millisecond), len(v.errs))
}

const proxy = "/api/v1/namespaces/" + namespace + "/services/jellyfin:http/proxy"

// segment fetches one, and sees that it is MPEG-TS as a whole.
func segment(ctx context.Context, viewer string, n int) error {
	body, err := kubectl(ctx, nil, "get", "--raw", fmt.Sprintf("%s/Videos/%s/hls1/%d", proxy, viewer, n))
	if err != nil {
		return err
	}
	const packet = 188
	if len(body) == 0 || len(body)%packet != 0 {
		return fmt.Errorf("segment %d has %d bytes, no multiple of %d", n, len(body), packet)
	}
	for at := 0; at < len(body); at += packet {
		if !strings.HasPrefix(body[at:], "G") {
			return fmt.Errorf("segment %d: packet %d does not begin with the sync byte", n, at/packet)
		}
	}
	return nil
}
