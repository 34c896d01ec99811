package job

import (
	"strings"
	"sync"
	"time"
)

// troubleLasts is how long a reason counts that nobody has repeated: whoever waits
// for a pod repeats it every second.
const troubleLasts = 2 * time.Minute

// troubles are why the Jobs of classes do not start, in Kubernetes' words. Its
// zero value is ready for use, by any goroutine.
type troubles struct {
	mu  sync.Mutex
	all map[string]trouble // by class
}

type trouble struct {
	reason string
	at     time.Time
}

// note takes what a launch says. Progress is no trouble, and ends none: a Job that
// was made may still get no pod.
func (t *troubles) note(class, said string, now time.Time) {
	reason, ok := strings.CutPrefix(said, waiting)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[string]trouble{}
	}
	t.all[class] = trouble{reason, now}
}

// answered forgets what a worker of the class has disproved.
func (t *troubles) answered(class string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, class)
}

func (t *troubles) of(class string, now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.all[class]; now.Sub(k.at) < troubleLasts {
		return k.reason
	}
	return ""
}

// Unable says why the Jobs of a class do not start now, in Kubernetes' words, such
// as Unschedulable or an exceeded quota. "": nothing is known to keep them from it.
func (l *Launcher) Unable(class string) string { return l.troubles.of(class, time.Now()) }
