package scheduler

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/store"
)

// TestStatus has a session of each sort, and looks for words of their commands.
func TestStatus(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Classes = fakeClasses{{Name: "cpu", Deployment: "ffpod-cpu", Usable: true, Replicas: 1}, {Name: "gpu", Deployment: "broken", Problems: []string{"it has no container worker"}}}
		c.Version = "v1"
	})
	hold := make(chan struct{})
	r.add("w1", 1, func(s wire.Runner_RunServer) error {
		st := startOf(s)
		_ = begin(s)
		if st.GetSession() == "s1" {
			return end(s, &wire.Exit{Session: "s1", Code: 3})
		}
		<-hold
		return end(s, &wire.Exit{Session: st.GetSession()})
	})
	if _, err := r.start("s1", resumes, io.Discard).wait(t); err != nil {
		t.Fatal(err)
	}
	two := r.start("s2", resumes, io.Discard)
	eventually(t, "s2 runs", func() bool { return r.state("s2") == store.Running })
	three := r.start("s3", resumes, io.Discard)
	eventually(t, "s3 waits", func() bool {
		s, _, _ := r.store.Get(t.Context(), "s3")
		return s.State == store.Queued && s.Reason != ""
	})
	got, err := r.sched.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, s := range got.Sessions {
		words = append(words, s.ID+" "+s.State)
	}
	if strings.Join(words, ", ") != "s3 queued, s2 running, s1 ended" {
		t.Errorf("sessions: %v", words)
	}
	if s := got.Sessions[0]; !s.Waits() || s.Reason == "" || s.Caller != "jellyfin" || s.CallerPod != "jellyfin-0" || s.Failed {
		t.Errorf("waits: %+v", s)
	}
	if s := got.Sessions[1]; !s.Runs() || s.Pod != "w1" || s.Node != "node-w1" || s.Class != "cpu" || s.Placement != "warm" || s.Started.IsZero() || s.Exit != nil {
		t.Errorf("runs: %+v", s)
	}
	if s := got.Sessions[2]; !s.Failed || s.Exit == nil || s.Exit.Code != 3 || s.Ended.IsZero() {
		t.Errorf("ended: %+v", s)
	}
	if len(got.Classes) != 2 || got.Classes[1].Usable || got.Classes[1].Problems[0] == "" || got.Version != "v1" || got.Namespace != "media" {
		t.Errorf("%+v", got)
	}
	if len(got.Workers) != 1 || got.Workers[0].Used != 1 || got.Workers[0].Role != "warm" || !got.Workers[0].Ready {
		t.Errorf("workers: %+v", got.Workers)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"secret-name", "out.m3u8", "/media"} {
		if strings.Contains(string(b), secret) {
			t.Errorf("%q is told: %s", secret, b)
		}
	}
	close(hold)
	for _, s := range []*shim{two, three} {
		if _, err := s.wait(t); err != nil {
			t.Error(err)
		}
	}
}

func TestFailed(t *testing.T) {
	for name, c := range map[string]struct {
		state store.State
		end   store.Outcome
		want  bool
	}{
		"zero":             {store.Ended, store.Outcome{}, false},
		"code":             {store.Ended, store.Outcome{Code: 1}, true},
		"killed by caller": {store.Ended, store.Outcome{Signal: 9, Cause: callersSignal}, false},
		"killed by memory": {store.Ended, store.Outcome{Signal: 9, Cause: "the worker ran out of memory"}, true},
		"no worker":        {store.Refused, store.Outcome{Cause: "QUEUE_TIMEOUT: no worker"}, true},
		"caller left":      {store.Refused, store.Outcome{Cause: "the shim's stream ended"}, false},
		"caller killed":    {store.Lost, store.Outcome{Cause: "the shim's stream ended; ffmpeg was killed"}, false},
		"worker gone":      {store.Lost, store.Outcome{Cause: "pod w1 was deleted"}, true},
		"runs":             {store.Running, store.Outcome{}, false},
	} {
		if got := told(store.Session{State: c.state, Outcome: c.end}); got.Failed != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
