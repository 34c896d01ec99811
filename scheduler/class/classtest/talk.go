//go:build cluster

package classtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ffpod/ffpod/podexec/wire"
	"github.com/ffpod/ffpod/scheduler/lease"
)

// Replicas makes so many warm workers.
func Replicas(n int32) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Spec.Replicas = &n }
}

// Echo makes the workers' ffmpeg a cat.
func Echo(d *appsv1.Deployment) {
	env := d.Spec.Template.Spec.Containers[0].Env
	for i := range env {
		if env[i].Name == "FFPOD_FFMPEG" {
			env[i].Value = "/bin/cat"
		}
	}
}

// Talk is one stream of a session, frame by frame: for tests of what happens
// between two streams.
type Talk struct {
	stream wire.Runner_RunClient
	cancel context.CancelFunc
}

// Begin starts a session that outlives its streams.
func Begin(t *testing.T, l *lease.Lease, id string) *Talk {
	t.Helper()
	talk := open(t, l, &wire.Frame{Kind: &wire.Frame_Start{Start: &wire.Start{
		Session: id, Program: wire.Program_FFMPEG, Cwd: []byte("/"), Stdin: true, Record: []byte("of " + id),
		GraceMs: 60_000, Resumes: true, Orders: true,
	}}})
	talk.Await(t, func(f *wire.Frame) bool { return f.GetStarted() != nil })
	return talk
}

// Resume attaches a new stream, which begins at this offset of stdout.
func Resume(t *testing.T, l *lease.Lease, id string, stdout uint64) (*Talk, *wire.Attached) {
	t.Helper()
	w := l.Worker()
	talk := open(t, l, &wire.Frame{Kind: &wire.Frame_Resume{Resume: &wire.Resume{
		Ticket: &wire.Ticket{Session: id, Pod: w.Pod, PodUid: w.PodUID, Nonce: w.Nonce}, Stdout: stdout,
	}}})
	return talk, talk.Await(t, func(f *wire.Frame) bool { return f.GetAttached() != nil }).GetAttached()
}

func open(t *testing.T, l *lease.Lease, first *wire.Frame) *Talk {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := l.Runner().Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	talk := &Talk{stream, cancel}
	talk.Send(t, first)
	return talk
}

// Send sends a frame.
func (k *Talk) Send(t *testing.T, f *wire.Frame) {
	t.Helper()
	if err := k.stream.Send(f); err != nil {
		t.Fatal(err)
	}
}

// Await returns the next frame that is meant.
func (k *Talk) Await(t *testing.T, meant func(*wire.Frame) bool) *wire.Frame {
	t.Helper()
	for {
		f, err := k.stream.Recv()
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		if meant(f) {
			return f
		}
		if f.GetRefused() != nil || f.GetLost() != nil {
			t.Fatalf("the worker says %v", f)
		}
	}
}

// Type writes to stdin at an offset.
func (k *Talk) Type(t *testing.T, offset int, text string, eof bool) {
	t.Helper()
	k.Send(t, &wire.Frame{Kind: &wire.Frame_Data{Data: &wire.Data{Pipe: wire.Pipe_STDIN, Offset: uint64(offset), Bytes: []byte(text), Eof: eof}}})
}

// Read reads n bytes of stdout, from an offset.
func (k *Talk) Read(t *testing.T, offset, n int) string {
	t.Helper()
	var got []byte
	for len(got) < n {
		d := k.Await(t, func(f *wire.Frame) bool { return f.GetData().GetPipe() == wire.Pipe_STDOUT }).GetData()
		if d.GetOffset() != uint64(offset+len(got)) {
			t.Fatalf("bytes from %d on, want from %d", d.GetOffset(), offset+len(got))
		}
		got = append(got, d.GetBytes()...)
	}
	return string(got)
}

// Exit reads the exit and takes it.
func (k *Talk) Exit(t *testing.T) *wire.Exit {
	t.Helper()
	exit := k.Await(t, func(f *wire.Frame) bool { return f.GetExit() != nil }).GetExit()
	k.Send(t, &wire.Frame{Kind: &wire.Frame_ExitAck{ExitAck: &wire.ExitAck{}}})
	if err := k.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if f, err := k.stream.Recv(); err == nil {
		t.Errorf("after the acknowledgement of the exit: %v", f)
	}
	return exit
}

// Broken waits for the end of the stream.
func (k *Talk) Broken() error {
	for {
		if _, err := k.stream.Recv(); err != nil {
			return err
		}
	}
}

// Leave ends the stream, as a scheduler does that is killed.
func (k *Talk) Leave() { k.cancel() }

// Through returns the same cluster with its API server behind a proxy, which can
// be down without anybody else's harm.
func (c *Cluster) Through(t *testing.T) (*Cluster, *Proxy) {
	t.Helper()
	far, err := url.Parse(c.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{far: far.Host}
	p.Up(t)
	t.Cleanup(p.Down)
	config := rest.CopyConfig(c.Config)
	config.Host = "https://" + p.address
	config.TLSClientConfig.ServerName = far.Hostname()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return &Cluster{Client: client, Config: config, Namespace: c.Namespace}, p
}

// Proxy is a TCP proxy.
type Proxy struct {
	far, address string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	copying  sync.WaitGroup
}

// Up listens, at the same address as before.
func (p *Proxy) Up(t *testing.T) {
	t.Helper()
	address := p.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(fmt.Errorf("proxy: %w", err))
	}
	p.mu.Lock()
	p.listener, p.address, p.conns = l, l.Addr().String(), map[net.Conn]bool{}
	p.mu.Unlock()
	p.copying.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			p.copying.Go(func() { p.serve(l, near) })
		}
	})
}

func (p *Proxy) serve(l net.Listener, near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", p.far)
	if err != nil {
		return
	}
	defer far.Close()
	p.mu.Lock()
	if p.listener != l {
		p.mu.Unlock()
		return
	}
	p.conns[near], p.conns[far] = true, true
	p.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(near, far); near.Close() })
	_, _ = io.Copy(far, near)
	far.Close()
	back.Wait()
}

// Down resets every connection and refuses new ones.
func (p *Proxy) Down() {
	p.mu.Lock()
	if p.listener == nil {
		p.mu.Unlock()
		return
	}
	p.listener.Close()
	p.listener = nil
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
	p.mu.Unlock()
	p.copying.Wait()
}
