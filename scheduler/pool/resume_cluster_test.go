//go:build cluster

package pool

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ffpod/ffpod/podexec"
	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/class/classtest"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// begin leases a slot and runs a cat in it, which has echoed 5 bytes.
func begin(t *testing.T, p *Pool, w WorkerState, id string) (*lease.Lease, *classtest.Talk) {
	t.Helper()
	l, err := p.Lease(w.Pod, w.Nonce, id)
	if err != nil {
		t.Fatal(err)
	}
	talk := classtest.Begin(t, l, id)
	talk.Type(t, 0, "hello", false)
	if got := talk.Read(t, 0, 5); got != "hello" {
		t.Fatalf("read %q", got)
	}
	return l, talk
}

// goOn resumes the session from its third byte on and ends it.
func goOn(t *testing.T, p *Pool, w WorkerState, id string, epoch uint64) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), classtest.Timeout)
	defer cancel()
	begun := time.Now()
	l, state, err := p.Resume(ctx, w.Pod, w.PodUID, w.Nonce, id)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	if state.GetEpoch() != epoch || string(state.GetRecord()) != "of "+id || state.GetExit() != nil {
		t.Errorf("the worker says %v", state)
	}
	talk, attached := classtest.Resume(t, l, id, 2)
	if attached.GetEpoch() != epoch+1 || attached.GetStdin() != 5 {
		t.Errorf("attached as %v", attached)
	}
	if used := p.Workers()[0].Used; used != 1 {
		t.Errorf("%d slots used, want 1", used)
	}
	talk.Type(t, 5, " again", true)
	if got := talk.Read(t, 2, 9); got != "llo again" {
		t.Errorf("read %q", got)
	}
	if exit := talk.Exit(t); exit.GetCode() != 0 || exit.GetSignal() != 0 || exit.GetStdout() != 11 {
		t.Errorf("exit %v", exit)
	}
	l.Release()
	await(t, p, "a free worker", func(all []WorkerState) bool { return all[0].Used == 0 })
	return took
}

func TestAKilledDialIsReplaced(t *testing.T) {
	f := warmPool(t, 1, classtest.Echo)
	w := await(t, f.Pool, "one worker", ready(1))[0]
	l, talk := begin(t, f.Pool, w, "a")
	f.shell(t, w, `for p in /proc/[0-9]*; do grep -q "^PPid:.0$" $p/status 2>/dev/null && tr '\0' ' ' < $p/cmdline | grep -q "worker dial" && kill -9 ${p#/proc/}; done`)
	t.Logf("the stream: %v", talk.Broken())
	l.Leave()
	t.Logf("resumed after %v", goOn(t, f.Pool, w, "a", 1))
	if err := l.Cause(); err != nil {
		t.Errorf("the lease was told %v", err)
	}
}

// shell runs a script in the container of the worker.
func (f *fixture) shell(t *testing.T, w WorkerState, script string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), classtest.Timeout)
	defer cancel()
	c, err := f.Open()(ctx, podexec.Target{Namespace: f.Namespace, Pod: w.Pod, Container: "worker", Command: []string{"/bin/sh", "-c", script}})
	if err == nil {
		t.Error("a shell answers Describe")
		c.Close()
	}
	t.Logf("shell: %v", err)
}

func TestAnotherSchedulerResumes(t *testing.T) {
	f := warmPool(t, 1, classtest.Echo)
	w := await(t, f.Pool, "one worker", ready(1))[0]
	l, talk := begin(t, f.Pool, w, "a")
	talk.Leave()
	l.Leave()
	f.stop() // and nobody waits until the next one is ready
	t.Logf("resumed after %v", goOn(t, run(t, f.Cluster).Pool, w, "a", 1))
}

func TestTheAPIServerGoesAndComes(t *testing.T) {
	cluster := classtest.New(t)
	near, proxy := cluster.Through(t)
	cluster.Deploy(t, classtest.Echo, classtest.Replicas(1))
	p := run(t, near).Pool
	w := await(t, p, "one worker", ready(1))[0]
	l, talk := begin(t, p, w, "a")
	proxy.Down()
	t.Logf("the stream: %v", talk.Broken())
	l.Leave()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, _, err := p.Resume(ctx, w.Pod, w.PodUID, w.Nonce, "a")
	if err == nil || errors.Is(err, lease.ErrGone) || errors.Is(err, lease.ErrUnknown) {
		t.Fatalf("resume without an API server: %v, want that it waited", err)
	}
	t.Log(err)
	proxy.Up(t)
	if took := goOn(t, p, w, "a", 1); took > 3*time.Second {
		t.Errorf("resumed %v after the API server came back, want 3 s at most", took)
	} else {
		t.Logf("resumed %v after the API server came back", took)
	}
	if err := l.Cause(); err != nil {
		t.Errorf("the lease was told %v", err)
	}
}

func TestOrders(t *testing.T) {
	f := warmPool(t, 1, classtest.Echo)
	w := await(t, f.Pool, "one worker", ready(1))[0]
	l, talk := begin(t, f.Pool, w, "a")
	s, err := f.Supervisor(t.Context(), w.Pod, w.PodUID, w.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Kill(t.Context(), &wire.KillRequest{Session: "a"}); err != nil || !r.GetKnown() || !r.GetDead() {
		t.Errorf("kill: %v, %v", r, err)
	}
	if exit := talk.Exit(t); exit.GetSignal() != 9 || exit.GetCause() != wire.Cause_CAUSE_SIGNAL {
		t.Errorf("exit %v", exit)
	}
	l.Release()
	if _, _, err := f.Resume(t.Context(), w.Pod, w.PodUID, w.Nonce, "none"); !errors.Is(err, lease.ErrUnknown) {
		t.Errorf("resume of a session that never was: %v, want ErrUnknown", err)
	}
	if err := f.Client.CoreV1().Pods(f.Namespace).Delete(t.Context(), w.Pod, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), classtest.Timeout)
	defer cancel()
	for { // while it drains it may be asked
		if _, _, err = f.Resume(ctx, w.Pod, w.PodUID, w.Nonce, "none"); !errors.Is(err, lease.ErrUnknown) {
			break
		}
	}
	if !errors.Is(err, lease.ErrGone) {
		t.Errorf("resume after the pod: %v, want ErrGone", err)
	}
	t.Log(err)
}
