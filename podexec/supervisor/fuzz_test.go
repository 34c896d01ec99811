package supervisor

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/session"
	"github.com/ffpod/ffpod/podexec/wire"
)

// What procfs and cgroupfs show is written by the kernel, but names in it are not.
func FuzzKernelFiles(f *testing.F) {
	for _, name := range []string{"stat", "cgroup", "mountinfo", "environ"} {
		if b, err := os.ReadFile("/proc/self/" + name); err == nil {
			f.Add(string(b), "session")
		}
	}
	f.Add("9 (a) b) R 1 12 9 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 5 1000 99999999999999999 0\n", "")
	f.Add("5:memory:/kubepods/../../x\n0::/../..\n", "FFPOD_SESSION=x")
	f.Add("41 31 0:38 /a /sys/fs/cg\\040roup ro - cgroup2 cgroup rw\n", "a")
	f.Add(fdinfo, fdinfo)
	f.Add("inactive_file 5\nanon -3\nfull\n", "FFPOD_SESSION=a\x00")
	f.Fuzz(func(t *testing.T, text, other string) {
		if s, ok := parseStat(text); ok && (s.pages < 0 || s.pages*int64(os.Getpagesize()) < 0) {
			t.Errorf("stat %+v", s)
		}
		for key, n := range parseLines(text) {
			if n < 0 {
				t.Errorf("%q has %d", key, n)
			}
		}
		v1, v2 := parseCgroups(text, "memory")
		if m, ok := parseMount(other); ok {
			for _, group := range []string{v1, v2} {
				top := filepath.Clean(m.point)
				if got := filepath.Clean(m.path(group)); got != top && !strings.HasPrefix(got, strings.TrimSuffix(top, "/")+"/") {
					t.Errorf("group %q of mount %+v is at %q, outside of it", group, m, got)
				}
			}
		}
		id, client := parseClient(text)
		_, newer := parseClient(other)
		load := gpuClock{clients: map[string]gpuClient{id: newer}}.since(gpuClock{clients: map[string]gpuClient{id: client}}, time.Second)
		if smi, _ := parseSMI(text); load > 1000 || smi > 1000 {
			t.Errorf("loads of %d and %d permille", load, smi)
		}
		_, _ = parseQuota(text)
		env := []byte(strings.Join(marked(strings.Split(text, "\x00"), other), "\x00"))
		if !strings.Contains(other, "\x00") && !hasMark(env, other) {
			t.Errorf("a process of %q is not known by %q", other, env)
		}
		if hasMark([]byte(text), other) && !strings.Contains(text, sessionMark+"="+other) {
			t.Errorf("%q carries no mark of %q", text, other)
		}
	})
}

// peer is a scheduler's end of a stream, without a network.
type peer struct {
	grpc.ServerStream
	ctx  context.Context
	mu   sync.Mutex
	come []*wire.Frame
	told []*wire.Frame
	sent chan struct{} // closed when everything was received
}

func (p *peer) Context() context.Context { return p.ctx }

func (p *peer) Recv() (*wire.Frame, error) {
	p.mu.Lock()
	if len(p.come) > 0 {
		f := p.come[0]
		p.come = p.come[1:]
		p.mu.Unlock()
		return f, nil
	}
	select {
	case <-p.sent:
	default:
		close(p.sent)
	}
	p.mu.Unlock()
	<-p.ctx.Done()
	return nil, io.EOF
}

func (p *peer) Send(f *wire.Frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, f)
	return p.ctx.Err()
}

func (p *peer) SendMsg(any) error { return io.ErrClosedPipe }
func (p *peer) RecvMsg(any) error { return io.ErrClosedPipe }

func frames(b []byte) (all []*wire.Frame) {
	for len(b) > 0 && len(all) < 32 {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return all
		}
		var f wire.Frame
		if proto.Unmarshal(b[n:n+int(size)], &f) == nil {
			all = append(all, &f)
		}
		b = b[n+int(size):]
	}
	return all
}

func play(all ...*wire.Frame) (b []byte) {
	for _, f := range all {
		text, err := proto.Marshal(f)
		if err != nil {
			panic(err)
		}
		b = append(binary.AppendUvarint(b, uint64(len(text))), text...)
	}
	return b
}

// Whatever a scheduler says on a stream, the stream is served to its end, and once
// its sessions were killed no process, slot or goroutine is left.
func FuzzRun(f *testing.F) {
	start := func(s *wire.Start) *wire.Frame {
		s.Session, s.Program, s.Cwd = "s", wire.Program_FFMPEG, []byte("/")
		return &wire.Frame{Kind: &wire.Frame_Start{Start: s}}
	}
	in := &wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDIN, Bytes: []byte("in"), Eof: true}}}
	ack := &wire.Frame{Kind: &wire.Frame_Ack{Ack: &wire.Ack{Pipe: wire.Pipe_STDOUT, Offset: 2}}}
	f.Add(play(start(&wire.Start{Stdin: true}), in, ack, &wire.Frame{Kind: &wire.Frame_ExitAck{ExitAck: &wire.ExitAck{}}}))
	f.Add(play(start(&wire.Start{Stdin: true, Orders: true, GraceMs: 1, Umask: 1 << 31, Nice: 1 << 31}), in))
	f.Add(play(start(&wire.Start{Stdin: true, Orders: true}), &wire.Frame{Kind: &wire.Frame_Signal{Signal: &wire.Signal{Number: int32(syscall.SIGTERM), Sequence: 1}}}))
	f.Add(play(start(&wire.Start{Env: [][]byte{[]byte("FFPOD_SESSION=other"), {0}, []byte("=")}})))
	f.Add(play(&wire.Frame{Kind: &wire.Frame_Resume{Resume: &wire.Resume{Ticket: &wire.Ticket{Session: "s"}}}}))
	f.Add(play(in))
	f.Add(play(start(&wire.Start{Outputs: []*wire.Output{{Directory: []byte("relative"), Prefix: []byte("../x")}, {Directory: []byte("/proc"), Prefix: []byte("s")}}})))
	f.Add(play(start(&wire.Start{Stdin: true, Orders: true}), &wire.Frame{Kind: &wire.Frame_Close{Close: &wire.Close{Pipe: wire.Pipe_STDOUT}}}, in))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := New(Config{FFmpeg: "/bin/cat", FFprobe: "/bin/true", Slots: 2, Session: session.LinkOptions{}})
		if err != nil {
			t.Fatal(err)
		}
		script := frames(b)
		for _, f := range script {
			if start := f.GetStart(); start != nil {
				start.Argv = nil // cat would read whatever it is told
			}
		}
		ctx, hangUp := context.WithCancel(t.Context())
		defer hangUp()
		p := &peer{ctx: ctx, come: script, sent: make(chan struct{})}
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(p) }()
		bound := time.After(20 * time.Second)
		select {
		case <-p.sent:
		case <-done:
		case <-bound:
			t.Fatal("the frames were not read")
		}
		hangUp()
		select {
		case <-done:
		case <-bound:
			t.Fatal("the stream is served though its peer is gone")
		}
		s.forget()
		for _, f := range script {
			if start := f.GetStart(); start != nil {
				answer, err := s.Kill(t.Context(), &wire.KillRequest{Session: start.Session})
				if err != nil || !answer.Dead {
					t.Fatalf("session %q was not killed: %v, %v", start.Session, answer, err)
				}
			}
		}
		s.sessions.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.slots.inUse() != 0 || len(s.running) != 0 || s.children.any() {
			t.Fatalf("%d slots, %v and %v are left", s.slots.inUse(), s.running, s.children.children)
		}
	})
}
