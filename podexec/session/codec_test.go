package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/ffpod/ffpod/podexec/wire"
)

// split gives bytes as gRPC does, in pieces of any size.
func split(b []byte, sizes ...int) (s mem.BufferSlice) {
	for _, n := range sizes {
		n = min(n, len(b))
		s = append(s, mem.SliceBuffer(b[:n]))
		b = b[n:]
	}
	return append(s, mem.SliceBuffer(b))
}

func TestCodecAgreesWithProtobuf(t *testing.T) {
	frames := map[string]*wire.Frame{
		"data":          data(wire.Pipe_STDOUT, 1<<40, string(make([]byte, chunk)), false),
		"data and eof":  data(wire.Pipe_STDERR, 7, "x", true),
		"eof alone":     data(wire.Pipe_STDIN, 300, "", true),
		"first byte":    data(wire.Pipe_STDIN, 0, "q", false),
		"nothing":       data(0, 0, "", false),
		"exit":          exitFrame(3, 5, 9),
		"start":         {Kind: &wire.Frame_Start{Start: &wire.Start{Session: "s", Argv: [][]byte{{}, {0xff}}}}},
		"heartbeat":     {Kind: &wire.Frame_Heartbeat{Heartbeat: &wire.Heartbeat{}}},
		"no kind":       {},
		"later release": {},
	}
	if err := proto.Unmarshal([]byte{0x3a, 5, 0x1a, 1, 'x', 0x28, 1}, frames["later release"]); err != nil { // a fifth field of Data
		t.Fatal(err)
	}
	for name, f := range frames {
		t.Run(name, func(t *testing.T) {
			want, err := proto.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			got, err := codec{}.Marshal(f)
			if err != nil || !bytes.Equal(got.Materialize(), want) {
				t.Fatalf("encoded otherwise: %v", err)
			}
			for _, sizes := range [][]int{nil, {1}, {1, 1, 1, 1, 1, 1, 1, 1}, {3, 16384}} {
				in := split(want, sizes...)
				var back wire.Frame
				if err := (codec{}).Unmarshal(in, &back); err != nil || !proto.Equal(&back, f) {
					t.Fatalf("decoded otherwise: %v", err)
				}
				var p packet
				if err := (codec{}).Unmarshal(in, &p); err != nil {
					t.Fatal(err)
				}
				if p.bytes() != len(f.GetData().GetBytes()) || p.frame.GetData().GetOffset() != f.GetData().GetOffset() {
					t.Errorf("head %v of %d bytes", p.frame, p.bytes())
				}
				out, err := codec{}.Marshal(&p)
				if err != nil || !bytes.Equal(out.Materialize(), want) {
					t.Fatalf("passed on otherwise: %v", err)
				}
			}
		})
	}
}

// Whatever the bytes, the codec says what protobuf says.
func FuzzCodec(f *testing.F) {
	for _, frame := range []*wire.Frame{data(wire.Pipe_STDOUT, 9, "hello", true), exitFrame(1, 2, 3)} {
		b, _ := proto.Marshal(frame)
		f.Add(b, uint8(3))
	}
	f.Add([]byte{0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint8) {
		var want, got wire.Frame
		wantErr := proto.Unmarshal(b, &want)
		gotErr := codec{}.Unmarshal(split(b, int(at)), &got)
		if (wantErr == nil) != (gotErr == nil) || wantErr == nil && !proto.Equal(&want, &got) {
			t.Fatalf("protobuf: %v %v, codec: %v %v", &want, wantErr, &got, gotErr)
		}
	})
}

// flood is a supervisor that sends n pseudo-random bytes of stdout and exits.
type flood struct {
	wire.UnimplementedRunnerServer
	n int64
}

func (s *flood) Run(stream wire.Runner_RunServer) error {
	link := NewLink(stream, LinkOptions{})
	defer link.Close()
	if _, err := link.Recv(); err != nil {
		return err
	}
	link.Send(startedFrame())
	out := NewOutbound(wire.Pipe_STDOUT, 0)
	_ = out.Attach(link, 0)
	acked := make(chan struct{}) // or the stream ended
	go func() {
		defer close(acked)
		for {
			f, err := link.Recv()
			if err != nil {
				return
			}
			if a := f.GetAck(); a != nil {
				_ = out.Ack(a.Offset)
			}
			if f.GetExitAck() != nil {
				return
			}
		}
	}()
	if err := out.Pump(io.LimitReader(noise(), s.n)); err != nil {
		return err
	}
	link.Send(exitFrame(0, out.Offset(), 0))
	<-acked
	return nil
}

func noise() io.Reader { return rand.NewChaCha8([32]byte{1}) }

// relayed is a scheduler that passes every session to one worker.
type relayed struct {
	wire.UnimplementedRunnerServer
	worker    wire.RunnerClient
	undecoded bool
}

func (s *relayed) Run(stream wire.Runner_RunServer) error {
	o := LinkOptions{Undecoded: s.undecoded}
	shim := NewLink(stream, o)
	defer shim.Close()
	r := NewRelay(shim, RelayOptions{})
	start, err := r.Opening(stream.Context())
	if err != nil {
		return err
	}
	up, err := s.worker.Run(stream.Context())
	if err != nil {
		return err
	}
	worker := NewLink(up, o)
	defer worker.Close()
	_, err = r.Run(stream.Context(), worker, start)
	return err
}

// serve returns a client of a gRPC server over loopback.
func serve(t testing.TB, runner wire.RunnerServer, server []grpc.ServerOption, dial []grpc.DialOption) wire.RunnerClient {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(server...)
	wire.RegisterRunnerServer(s, runner)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), append(dial, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); s.Stop(); <-done })
	return wire.NewRunnerClient(conn)
}

func opener(c wire.RunnerClient) func(context.Context) (Stream, error) {
	return func(ctx context.Context) (Stream, error) { return c.Run(ctx) }
}

// A relay that decodes nothing is not to be told from one that does, nor from a
// peer with gRPC's own codec, as an older release has.
func TestRelayOverGRPC(t *testing.T) {
	const size = 8<<20 + 12345
	want := sha256.New()
	_, _ = io.Copy(want, io.LimitReader(noise(), size))
	tests := map[string]struct {
		undecoded bool
		server    []grpc.ServerOption
		dial      []grpc.DialOption
	}{
		"undecoded":          {undecoded: true, server: ServerOptions(), dial: DialOptions()},
		"decoded":            {server: ServerOptions(), dial: DialOptions()},
		"another's endpoint": {undecoded: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			worker := serve(t, &flood{n: size}, tc.server, ChannelDialOptions())
			scheduler := serve(t, &relayed{worker: worker, undecoded: tc.undecoded}, ServerOptions(), tc.dial)
			got := sha256.New()
			exit, err := (&Client{Open: opener(scheduler), Start: &wire.Start{Session: "s"}, Stdout: got, Direct: true}).Run(bounded(t))
			if err != nil || exit.Stdout != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Errorf("exit %v, %v", exit, err)
			}
		})
	}
}

func BenchmarkRelay(b *testing.B) {
	for name, undecoded := range map[string]bool{"undecoded": true, "decoded": false} {
		b.Run(name, func(b *testing.B) {
			const size = 64 << 20
			worker := serve(b, &flood{n: size}, ChannelServerOptions(), ChannelDialOptions())
			scheduler := serve(b, &relayed{worker: worker, undecoded: undecoded}, ServerOptions(), DialOptions())
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := (&Client{Open: opener(scheduler), Start: &wire.Start{Session: "s"}, Direct: true}).Run(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
