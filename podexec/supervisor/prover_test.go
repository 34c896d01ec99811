package supervisor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ffpod/ffpod/podexec/prove"
	"github.com/ffpod/ffpod/podexec/wire"
)

// tests are bounded by it, and end as soon as what they wait for is there.
const proveBound = time.Minute

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(proveBound); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%s: not within %s", what, proveBound)
		}
	}
}

// claiming is a worker with the ffmpeg that claims NVIDIA's hardware, and a device
// node of it. change is called before it serves.
func claiming(t *testing.T, conf Config, change func(*prover)) *Supervisor {
	t.Helper()
	if _, err := exec.LookPath("/usr/bin/ffmpeg"); err != nil {
		t.Skip("no /usr/bin/ffmpeg")
	}
	fake, err := filepath.Abs("../prove/testdata/ffmpeg")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAKE_ENCODERS", "h264_nvenc hevc_nvenc")
	t.Setenv("FAKE_HWACCELS", "cuda")
	t.Setenv("FAKE_LOG", filepath.Join(t.TempDir(), "log"))
	conf.FFmpeg = fake
	s, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, dir := range []string{"dev", "proc/self"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "dev/nvidia0"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.prover.root = root
	s.prover.devices = func() []string { return []string{"/dev/nvidia0"} }
	change(s.prover)
	serving(t, s)
	return s
}

func serving(t *testing.T, s *Supervisor) {
	t.Helper()
	l, err := Listen("@ffpod-test-" + strings.ReplaceAll(t.Name(), "/", "-"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var served sync.WaitGroup
	served.Go(func() { _, _ = s.Serve(ctx, l) })
	t.Cleanup(func() { stop(); served.Wait() })
}

func description(t *testing.T, s *Supervisor) *wire.Description {
	t.Helper()
	d, err := s.Describe(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func awaitProof(t *testing.T, s *Supervisor) *wire.Description {
	t.Helper()
	eventually(t, "the proof", func() bool { d := description(t, s); return d.Proves && !d.Proving })
	return description(t, s)
}

func reasonOf(d *wire.Description, capability string) string {
	for _, f := range d.Flaws {
		if f.Capability == capability {
			return f.Reason
		}
	}
	return ""
}

func logged(t *testing.T) int {
	b, _ := os.ReadFile(os.Getenv("FAKE_LOG"))
	return strings.Count(string(b), "\n")
}

// A worker of Debian's ffmpeg without a GPU: it says so, in words, and soon.
func TestAWorkerProvesARealFFmpeg(t *testing.T) {
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("no ffmpeg")
	}
	s, err := New(Config{FFmpeg: path, Slots: 2})
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if d := description(t, s); !d.Proves || !d.Proving || len(d.Capabilities) != 0 {
		t.Errorf("before it serves: %v", d)
	}
	serving(t, s)
	d := awaitProof(t, s)
	t.Logf("proved within %s: %d capabilities, %d flaws", time.Since(begun), len(d.Capabilities), len(d.Flaws))
	if !slices.Contains(d.Capabilities, "encoder:libx264") || d.ParallelEncodes != 0 || !slices.IsSorted(d.Capabilities) {
		t.Errorf("%v", d)
	}
	again, err := s.Describe(t.Context(), &wire.DescribeRequest{Profile: d.Profile})
	if err != nil || again.Profile != d.Profile || !again.Proves || again.Capabilities != nil || again.Flaws != nil {
		t.Errorf("told again: %v, %v", again, err)
	}
}

// A worker that was told to prove nothing tells nothing, so all is allowed.
func TestAnUnprovedWorkerTellsNothing(t *testing.T) {
	s, err := New(Config{FFmpeg: "/bin/false", Slots: 1, Unproved: true})
	if err != nil {
		t.Fatal(err)
	}
	serving(t, s)
	if d := description(t, s); d.Proves || d.Proving || d.Capabilities != nil || d.Flaws != nil {
		t.Errorf("%v", d)
	}
	if a, err := s.Prove(t.Context(), nil); err != nil || a.Started || !strings.Contains(a.Reason, "FFPOD_TRIALS") {
		t.Errorf("%v, %v", a, err)
	}
}

// Hardware that works is offered; what stalls is killed with all it started, and
// never offered; sessions run beside it.
func TestAWorkerWhoseTrialStalls(t *testing.T) {
	t.Setenv("FAKE_STALL", "hevc_nvenc")
	s := claiming(t, Config{}, func(p *prover) {
		p.run = func(ctx context.Context, c prove.Command) prove.Outcome {
			if slices.Contains(c.Args, "hevc_nvenc") {
				c.Within = 200 * time.Millisecond
			}
			return p.worker.children.trial(ctx, p.worker.conf.FFmpeg, environment(os.Environ(), nil), c)
		}
	})
	d := awaitProof(t, s)
	if !slices.Contains(d.Capabilities, "encoder:h264_nvenc") || slices.Contains(d.Capabilities, "encoder:hevc_nvenc") {
		t.Errorf("%v", d.Flaws)
	}
	if why := reasonOf(d, "encoder:hevc_nvenc"); !strings.Contains(why, "stalled") {
		t.Errorf("%q", why)
	}
	eventually(t, "one encode at a time", func() bool { return description(t, s).ParallelEncodes == 1 })
}

func TestATrialIsKilledWithItsGroup(t *testing.T) {
	f := newForking()
	file := filepath.Join(t.TempDir(), "pid")
	out := f.trial(t.Context(), "/bin/sh", []string{"FILE=" + file}, prove.Command{
		Args: []string{"-c", `sleep 600 & echo $! >$FILE; echo started; echo why >&2; wait`}, Within: 300 * time.Millisecond,
	})
	if !out.Stalled || string(out.Stdout) != "started\n" || out.Stderr != "why\n" || out.Err != nil || f.any() {
		t.Errorf("%+v", out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	for _, c := range strings.TrimSpace(string(b)) {
		pid = pid*10 + int(c-'0')
	}
	eventually(t, "its child is gone", func() bool {
		stat, known := readStat("/proc", pid)
		return syscall.Kill(pid, 0) == syscall.ESRCH || known && stat.dead()
	})
	out = f.trial(t.Context(), "/bin/sh", nil, prove.Command{Args: []string{"-c", "cat; nice; exit 3"}, Input: []byte("in "), Within: proveBound})
	if out.Code != 3 || string(out.Stdout) != "in 19\n" || out.Stalled {
		t.Errorf("%+v: %q", out, out.Stdout)
	}
	if out = f.trial(t.Context(), "/nowhere", nil, prove.Command{Within: proveBound}); out.Err == nil {
		t.Errorf("%+v", out)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if out = f.trial(gone, "/bin/sh", nil, prove.Command{Within: proveBound}); out.Err == nil {
		t.Errorf("%+v", out)
	}
}

// A device that is lost is seen in a session's last words: the trials run again, and
// what they refute is withdrawn.
func TestADeviceErrorIsProved(t *testing.T) {
	s := claiming(t, Config{Slots: 1}, func(p *prover) { p.lost = time.Hour })
	awaitProof(t, s)
	t.Setenv("FAKE_FAIL", "hevc_nvenc")
	s.prover.mu.Lock()
	s.prover.ended = time.Time{} // long ago
	s.prover.mu.Unlock()
	t.Setenv("FAKE_SAYS", "cuCtxSynchronize failed -> CUDA_ERROR_UNKNOWN: unknown error")
	once(t, s, "lost", "-c:v", "hevc_nvenc")
	eventually(t, "the encoder is withdrawn", func() bool {
		d := description(t, s)
		return !d.Proving && !slices.Contains(d.Capabilities, "encoder:hevc_nvenc") && slices.Contains(d.Capabilities, "encoder:h264_nvenc")
	})
	runs := logged(t)
	s.prover.troubled("again")
	s.prover.mu.Lock()
	wait := time.Until(s.prover.due)
	s.prover.mu.Unlock()
	if wait < proverTrouble/2 || logged(t) != runs {
		t.Errorf("a second error at once is due in %s, %d runs more", wait, logged(t)-runs)
	}
}

// Hardware that worked is tried until it works again, also when no session comes
// that could tell.
func TestLostHardwareIsTriedAgain(t *testing.T) {
	s := claiming(t, Config{Slots: 1}, func(p *prover) { p.lost = 50 * time.Millisecond })
	awaitProof(t, s)
	has := func() bool { return slices.Contains(description(t, s).Capabilities, "encoder:hevc_nvenc") }
	t.Setenv("FAKE_FAIL", "hevc_nvenc")
	s.prover.ask(0)
	eventually(t, "the encoder is withdrawn", func() bool { return !has() })
	t.Setenv("FAKE_FAIL", "")
	eventually(t, "the encoder is back", has)
	awaitProof(t, s)
	runs := logged(t)
	s.prover.rouse()
	s.prover.mu.Lock()
	defer s.prover.mu.Unlock()
	if !s.prover.due.IsZero() || logged(t) != runs {
		t.Errorf("all works, and a proof is due at %s", s.prover.due)
	}
}

// once runs one session to its end.
func once(t *testing.T, s *Supervisor, id string, args ...string) {
	t.Helper()
	start := &wire.Start{Session: id, Program: wire.Program_FFMPEG, Cwd: []byte("/")}
	for _, a := range args {
		start.Argv = append(start.Argv, []byte(a))
	}
	p := &peer{ctx: t.Context(), come: []*wire.Frame{{Kind: &wire.Frame_Start{Start: start}}}, sent: make(chan struct{})}
	ctx, hangUp := context.WithCancel(t.Context())
	p.ctx = ctx
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(p) })
	eventually(t, "its exit", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.ContainsFunc(p.told, func(f *wire.Frame) bool { return f.GetExit() != nil })
	})
	hangUp()
	running.Wait()
}

// Trials again on demand, not all the time.
func TestProveOnDemand(t *testing.T) {
	s := claiming(t, Config{}, func(*prover) {})
	awaitProof(t, s)
	if a, err := s.Prove(t.Context(), nil); err != nil || a.Started || !strings.Contains(a.Reason, "just ended") {
		t.Errorf("%v, %v", a, err)
	}
	s.prover.mu.Lock()
	s.prover.ended = time.Time{}
	s.prover.mu.Unlock()
	t.Setenv("FAKE_FAIL", "h264_nvenc")
	if a, err := s.Prove(t.Context(), nil); err != nil || !a.Started {
		t.Errorf("%v, %v", a, err)
	}
	d := awaitProof(t, s)
	if reasonOf(d, "encoder:h264_nvenc") == "" || slices.Contains(d.Capabilities, "encoder:h264_nvenc") {
		t.Errorf("%v", d.Flaws)
	}
	none, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := none.Prove(t.Context(), nil); err != nil || a.Started || description(t, none).Proves {
		t.Errorf("without an ffmpeg: %v, %v", a, err)
	}
}

// What a device has proved is withdrawn with it, and believed when it comes back.
func TestDevicesThatGoAndComeBack(t *testing.T) {
	var away atomic.Bool
	s := claiming(t, Config{}, func(p *prover) {
		p.slow = 20 * time.Millisecond
		p.devices = func() []string {
			if away.Load() {
				return nil
			}
			return []string{"/dev/nvidia0"}
		}
	})
	awaitProof(t, s)
	eventually(t, "counted", func() bool { return description(t, s).ParallelEncodes == 1 })
	node := filepath.Join(s.prover.root, "dev/nvidia0")
	if err := os.Rename(node, node[:len(node)-1]+"-away"); err != nil {
		t.Fatal(err)
	}
	away.Store(true)
	eventually(t, "a device that is gone", func() bool {
		d := description(t, s)
		return !slices.Contains(d.Capabilities, "encoder:h264_nvenc") && d.ParallelEncodes == 0 && strings.Contains(reasonOf(d, "encoder:h264_nvenc"), "no /dev/nvidia")
	})
	runs := logged(t)
	away.Store(false)
	eventually(t, "one that came back", func() bool {
		d := description(t, s)
		return slices.Contains(d.Capabilities, "encoder:h264_nvenc") && d.ParallelEncodes == 1
	})
	if more := logged(t) - runs; more != 0 {
		t.Errorf("%d trials more", more)
	}
}

// The count of parallel encodes gives way to a session at once, and is made when it
// has gone.
func TestACountGivesWay(t *testing.T) {
	t.Setenv("FAKE_CAP", "2")
	t.Setenv("FAKE_DIR", t.TempDir())
	s := claiming(t, Config{Slots: 3}, func(*prover) {})
	awaitProof(t, s)
	eventually(t, "a count runs", func() bool {
		s.prover.mu.Lock()
		defer s.prover.mu.Unlock()
		return s.prover.measured != nil
	})
	if why, words := s.admit(&wire.Start{Session: "first"}); why != 0 {
		t.Fatal(words)
	}
	eventually(t, "it ends", func() bool {
		s.prover.mu.Lock()
		defer s.prover.mu.Unlock()
		return s.prover.measured == nil
	})
	if d := description(t, s); d.ParallelEncodes != 0 {
		t.Errorf("%d encodes at once, of a count that was broken off", d.ParallelEncodes)
	}
	left, _ := filepath.Glob(os.Getenv("FAKE_DIR") + "/*")
	for _, dir := range left { // of those that were killed
		_ = os.Remove(dir)
	}
	s.release(&wire.Start{Session: "first"})
	eventually(t, "a count", func() bool { return description(t, s).ParallelEncodes == 2 })
}

// The worker of a Job runs nothing before its session, and gives up when it comes.
func TestAOnceWorkerProvesWhileItWaits(t *testing.T) {
	t.Run("not before a session that comes at once", func(t *testing.T) {
		s := claiming(t, Config{Once: true}, func(p *prover) { p.wait = proveBound })
		once(t, s, "only", "-version")
		if d := description(t, s); d.Proves || d.Proving || len(d.Capabilities) != 0 || logged(t) != 1 {
			t.Errorf("%d runs, %v", logged(t), d)
		}
	})
	t.Run("a standby", func(t *testing.T) {
		s := claiming(t, Config{Once: true}, func(p *prover) { p.wait = 0 })
		if d := awaitProof(t, s); !slices.Contains(d.Capabilities, "encoder:h264_nvenc") {
			t.Errorf("%v", d.Flaws)
		}
	})
	t.Run("a standby that is taken meanwhile", func(t *testing.T) {
		t.Setenv("FAKE_STALL", "h264_nvenc")
		s := claiming(t, Config{Once: true}, func(p *prover) { p.wait, p.within = 0, proveBound })
		eventually(t, "a trial runs", func() bool { return description(t, s).Proving && logged(t) > 5 })
		if why, words := s.admit(&wire.Start{Session: "only"}); why != 0 {
			t.Fatal(words)
		}
		eventually(t, "it is given up", func() bool { d := description(t, s); return !d.Proves && !d.Proving && len(d.Capabilities) == 0 })
		if a, _ := s.Prove(t.Context(), nil); a.Started {
			t.Error("trials beside the one session")
		}
		eventually(t, "its process is gone", func() bool { return !s.children.any() })
		s.release(&wire.Start{Session: "only"})
	})
}

func TestTail(t *testing.T) {
	var kept tail
	(*tail)(nil).add([]byte("x"))
	for range 1000 {
		kept.add([]byte(strings.Repeat("a", 99) + "\r"))
	}
	kept.add([]byte("last"))
	if text := kept.String(); !strings.HasSuffix(text, "a\nlast") || len(text) < tailBytes || len(text) > 2*tailBytes {
		t.Errorf("%d bytes", len(text))
	}
	kept.add([]byte(strings.Repeat("b", 3*tailBytes)))
	if text := kept.String(); len(text) > 2*tailBytes || !strings.HasSuffix(text, "bbb") {
		t.Errorf("%d bytes", len(text))
	}
}
